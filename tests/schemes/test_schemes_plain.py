"""The plain scheme: a step of every network, rates, clipping, averages, accumulation, going on from a state."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oracles.make import smooth_field
from warpwright.energies.losses import AnyTerm, Images, Noise, Smoothness, VelocityPrior
from warpwright.energies.pairs import PairBatch
from warpwright.energies.similarity import LNCC, MSE
from warpwright.errors import BadInput, Failed
from warpwright.layers import AnyLayer, DrawVelocity, FullSize, Integrate, SplineField
from warpwright.methods import Model, ModelSettings, batch_loss
from warpwright.networks import (
    FCNSS,
    AnyArchitecture,
    DiffuseMorph,
    DIRNet,
    LKUNet,
    TallUNet,
    TransMorph,
    VoxelMorph,
    VoxelMorphDiff,
)
from warpwright.schemes import (
    SGD,
    Adam,
    AdamW,
    AnyOptimiser,
    AnySchedule,
    Constant,
    Cosine,
    Muon,
    Plain,
    Polynomial,
    Stepwise,
)

SHAPES = {2: (13, 18), 3: (9, 13, 11)}
WINDOWS = {2: (3, 4), 3: (2, 3, 4)}


def plain(**settings: Any) -> Plain:
    """The scheme at one rate, unless another schedule is given."""
    return Plain(**{"schedule": Constant(), **settings})


def alone(tensors: Sequence[Tensor]) -> None:
    """The only process there is."""


def batch_of(dim: int, seed: int = 0, *, count: int = 2, channels: int = 2, dtype: torch.dtype = torch.float32) -> PairBatch:
    generator = torch.Generator().manual_seed(seed)
    fixed, moving = torch.rand(2, count, channels, *SHAPES[dim], generator=generator, dtype=torch.float64).to(dtype)
    names = tuple(f"{seed}.{k}" for k in range(count))
    return PairBatch(fixed=fixed, moving=moving, spacing=(1.0, 0.8, 1.5)[:dim], names=names)


def model_of(dim: int, network: AnyArchitecture, layers: tuple[AnyLayer, ...], loss: tuple[AnyTerm, ...]) -> Model:
    torch.manual_seed(1)
    return Model(ModelSettings(dim=dim, channels=2, network=network, layers=layers, loss=loss))


IMAGES = Images(similarity=LNCC())
SMOOTH = Smoothness(on="velocity", weight=0.1)
DRAWN = (DrawVelocity(), Integrate(), FullSize())
Case = tuple[AnyArchitecture, tuple[AnyLayer, ...], tuple[AnyTerm, ...]]


def cases(dim: int) -> dict[str, Case]:
    """A tiny configuration of every network, with the layers that its estimate needs."""
    tiny: dict[str, Any] = {"size": "tiny", "window": WINDOWS[dim]}
    plain, flow = (IMAGES, Smoothness(weight=0.1)), (IMAGES, SMOOTH)
    return {
        "voxelmorph": (VoxelMorph(scale=0.25), (Integrate(), FullSize()), flow),
        "voxelmorph-diff": (VoxelMorphDiff(scale=0.25), DRAWN, (IMAGES, VelocityPrior(weight=0.01))),
        "transmorph": (TransMorph(**tiny), (FullSize(),), plain),
        "transmorph-diff": (TransMorph(head="distribution", **tiny), DRAWN, (IMAGES, VelocityPrior(weight=0.01))),
        "transmorph-bspl": (TransMorph(head="bspline", **tiny), (SplineField(), Integrate(), FullSize()), flow),
        "lku-net": (LKUNet(start=2), (FullSize(),), plain),
        "lku-net half": (LKUNet(start=2, field="velocity", half_resolution=True), (Integrate(downsize=2), FullSize()), flow),
        "tall u-net": (TallUNet(scale=1 / 16), (FullSize(),), plain),
        "dirnet": (DIRNet(kernels=4, spacing=4), (SplineField(), FullSize()), plain),
        "dirnet paper": (DIRNet(form="paper", kernels=4, spacing=4), (SplineField(), FullSize()), plain),
        "diffusemorph": (DiffuseMorph(inner=4, scale=1 / 16), (), (*plain, Noise())),
        "fcn-ss": (FCNSS(), (FullSize(),), (replace(IMAGES, coarser=(0.25, 0.5)), Smoothness(weight=0.1))),
    }


@pytest.mark.parametrize("name", cases(2))
def test_a_step_of_every_network(name: str, dim: int) -> None:
    """Odd sizes, two channels, two pairs: everything stays finite, weights move, and each step is another one."""
    network, layers, loss = cases(dim)[name]
    model = model_of(dim, network, layers, loss)
    before = copy.deepcopy(model.state_dict())
    scheme = plain(optimiser=Adam(rate=1e-3)).build(model, 2)
    torch.manual_seed(5)
    first, second = (scheme.step(k, [batch_of(dim)], alone) for k in range(2))
    for figures in (first, second):
        assert set(figures) == {"loss", "gradient", "rate", *(term.name for term in loss)}
        assert all(math.isfinite(value) for value in figures.values())
        assert figures["gradient"] > 0
        assert figures["loss"] == pytest.approx(sum(t.weight * figures[t.name] for t in loss), rel=1e-4)
    assert first["loss"] != second["loss"]
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert moved >= {key for key, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert len(moved) > len(before) / 2
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    assert model.training


@pytest.mark.parametrize("name", ["tall u-net", "dirnet", "dirnet paper"])
def test_networks_that_begin_at_zero_begin_at_exactly_zero(name: str, dim: int) -> None:
    network, layers, loss = cases(dim)[name]
    model, batch = model_of(dim, network, layers, loss), batch_of(dim)
    for moving in (batch.fixed, batch.moving):
        prediction = model(batch.fixed, moving)
        assert prediction.displacement.shape == (2, dim, *SHAPES[dim])
        assert not prediction.displacement.any()
    velocity = replace(network, field="velocity") if isinstance(network, TallUNet) else None
    if velocity is not None:
        prediction = model_of(dim, velocity, (Integrate(), FullSize()), loss)(batch.fixed, batch.fixed)
        assert not prediction.displacement.any()
        assert prediction.inverse is not None
        assert not prediction.inverse.any()


# ------------------------------------------------------------------------------------------------------------- updates


def small(dim: int, dtype: torch.dtype = torch.float64) -> Model:
    """No batch normalisation, a head that is not next to nothing, mean squares."""
    loss = (Images(similarity=MSE(), weight=4.0), SMOOTH)
    model = model_of(dim, VoxelMorph(form="vm1", scale=0.25), (Integrate(steps=4), FullSize()), loss)
    for name, parameter in model.named_parameters():
        if "head" in name:
            nn.init.normal_(parameter, std=0.1)
    return model.to(dtype)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gradient(model: Model, batch: PairBatch) -> Tensor:
    loss = batch_loss(model, batch).total.mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def test_a_step_goes_down_the_gradient(dim: int) -> None:
    model, batch = small(dim), batch_of(dim, dtype=torch.float64)
    before, slope = weights(model), gradient(model, batch)
    figures = plain(optimiser=SGD(rate=0.03)).build(model, 10).step(0, [batch], alone)
    torch.testing.assert_close(weights(model), before - 0.03 * slope, rtol=0, atol=1e-14)
    assert figures["rate"] == 0.03
    assert figures["gradient"] == pytest.approx(float(slope.norm()))


def test_long_gradients_are_clipped(dim: int) -> None:
    batch = batch_of(dim, dtype=torch.float64)
    length = float(gradient(small(dim), batch).norm())
    for clip, kept in ((length / 4, 0.25), (length * 4, 1.0)):
        model = small(dim)
        before, slope = weights(model), gradient(model, batch)
        figures = plain(optimiser=SGD(rate=0.03), clip=clip).build(model, 10).step(0, [batch], alone)
        torch.testing.assert_close(weights(model), before - 0.03 * kept * slope, rtol=0, atol=1e-7 * length)  # norm + 1e-6
        assert figures["gradient"] == pytest.approx(length)  # as it was


@pytest.mark.parametrize("sizes", [(2, 2), (1, 3), (1, 1, 2)])
def test_accumulated_batches_are_one_large_batch(dim: int, sizes: tuple[int, ...]) -> None:
    """Every pair has the same weight, whatever the size of its batch."""
    whole = batch_of(dim, count=4, dtype=torch.float64)
    one, several = small(dim), small(dim)
    begin = [sum(sizes[:k]) for k in range(len(sizes))]
    parts = [
        replace(whole, fixed=whole.fixed[b : b + n], moving=whole.moving[b : b + n]) for b, n in zip(begin, sizes, strict=True)
    ]
    settings = plain(optimiser=SGD(rate=0.03))
    figures = [settings.build(m, 1).step(0, batches, alone) for m, batches in ((one, [whole]), (several, parts))]
    torch.testing.assert_close(weights(one), weights(several), rtol=0, atol=1e-14)
    assert figures[0] == pytest.approx(figures[1], rel=1e-12)


def test_processes_agree_on_gradients_and_figures(dim: int) -> None:
    batch = batch_of(dim, dtype=torch.float64)
    model = small(dim)
    before, slope = weights(model), gradient(model, batch)
    alone_loss = float(batch_loss(model, batch).total.detach().mean())
    calls: list[int] = []

    def halve(tensors: Sequence[Tensor]) -> None:
        calls.append(len(tensors))
        for tensor in tensors:
            tensor.mul_(0.5)

    figures = plain(optimiser=SGD(rate=0.03)).build(model, 1).step(0, [batch, batch], halve)
    torch.testing.assert_close(weights(model), before - 0.015 * slope, rtol=0, atol=1e-14)
    assert figures["loss"] == pytest.approx(alone_loss / 2)
    assert calls == [len(list(model.parameters())) + 3]  # loss, similarity, smoothness


def test_autocast_trains_weights_in_their_own_dtype(dim: int) -> None:
    model = small(dim, torch.float32)
    before = weights(model)
    figures = plain(optimiser=Adam(rate=1e-3)).build(model, 1, torch.bfloat16).step(0, [batch_of(dim)], alone)
    assert math.isfinite(figures["loss"])
    assert weights(model).dtype == torch.float32
    assert not torch.equal(weights(model), before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(dim: int, value: float) -> None:
    model, batch = small(dim), batch_of(dim, dtype=torch.float64)
    before = weights(model)
    batch.fixed[1, 0].view(-1)[7] = value
    scheme = plain(average=0.9).build(model, 1)
    with pytest.raises(Failed, match=r"the loss is (nan|inf)"):
        scheme.step(0, [batch], alone)
    assert torch.equal(weights(model), before)
    assert torch.equal(weights(scheme.kept), before)


# --------------------------------------------------------------------------------------------------------------- rates


SCHEDULES: list[tuple[AnySchedule, dict[float, float]]] = [
    (Constant(), {0: 1, 0.3: 1, 0.9: 1}),
    (Cosine(), {0: 1, 0.5: 0.5, 0.75: (1 - math.sqrt(0.5)) / 2, 1: 0}),
    (Cosine(warmup=0.2, least=0.1), {0: 0, 0.05: 0.25, 0.2: 1, 0.6: 0.55, 1: 0.1}),
    (Polynomial(power=2), {0: 1, 0.5: 0.25, 0.9: 0.01}),
    (Stepwise(milestones=(0.5, 0.8), by=0.1), {0: 1, 0.4: 1, 0.5: 0.1, 0.7: 0.1, 0.8: 0.01, 0.9: 0.01}),
]


@pytest.mark.parametrize(("schedule", "factors"), SCHEDULES, ids=lambda v: type(v).__name__)
def test_rates_follow_the_schedule(schedule: AnySchedule, factors: dict[float, float]) -> None:
    """The factor of step n of N is that of the share n / N."""
    model, batch = small(2), batch_of(2, dtype=torch.float64)
    scheme = plain(optimiser=SGD(rate=0.02), schedule=schedule).build(model, 20)
    for share, factor in factors.items():
        before, slope = weights(model), gradient(model, batch)
        figures = scheme.step(round(share * 20), [batch], alone)
        assert figures["rate"] == pytest.approx(0.02 * factor, abs=1e-12)
        torch.testing.assert_close(weights(model), before - 0.02 * factor * slope, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(rate=0.0), r"learning rate must be above 0 and at most 1e\+06, got 0.0"),
        (lambda: AdamW(rate=math.nan), r"learning rate must be above 0 and at most 1e\+06, got nan"),
        (lambda: SGD(rate=-1.0), r"learning rate must be above 0 and at most 1e\+06, got -1.0"),
        (lambda: Muon(rate=1e39), r"learning rate must be above 0 and at most 1e\+06, got 1e\+39"),
        (lambda: AdamW(decay=1e60), r"weight decay must lie in 0 to 1e\+06, got 1e\+60"),
        (lambda: Muon(others=1e60), r"share above 0 and at most 1e\+06, got 1e\+60"),
        (lambda: SGD(momentum=1.0), "momentum"),
        (lambda: Adam(betas=(0.9, 1.0)), "betas"),
        (lambda: Muon(momentum=1.0), "momentum"),
        (lambda: Muon(others=0.0), r"share above 0 and at most 1e\+06, got 0.0"),
        (lambda: Plain(clip=0.0), "clipping norm must be above 0, got 0.0"),
        (lambda: Plain(clip=math.nan), "clipping norm must be above 0, got nan"),
        (lambda: Plain(average=1.0), "average must lie between 0 and 1, got 1.0"),
        (lambda: Plain(average=0.0), "average must lie between 0 and 1, got 0.0"),
        (lambda: Cosine(warmup=1.0), "warm-up of a cosine schedule is a share in 0 to 1, 1 left out, got 1.0"),
        (lambda: Stepwise(milestones=(0.5, 0.5)), "milestones of a schedule are rising shares between 0 and 1"),
        (lambda: Stepwise(milestones=(0.0, 0.5)), "milestones of a schedule are rising shares between 0 and 1"),
        (lambda: Stepwise(milestones=(0.5, 1.0)), "milestones of a schedule are rising shares between 0 and 1"),
    ],
)
def test_bad_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


# ------------------------------------------------------------------------------------------------ averages and states


def normalised(dim: int, seed: int = 1) -> Model:
    """With running statistics."""
    model = model_of(dim, *cases(dim)["tall u-net"])
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.double()


def test_the_average_of_the_weights_is_kept(dim: int) -> None:
    """With a shorter memory in the first steps; running statistics are the latest."""
    model = normalised(dim)
    scheme = plain(optimiser=Adam(rate=1e-2), average=0.5).build(model, 20)
    assert scheme.kept is not model
    assert not any(p.requires_grad for p in scheme.kept.parameters())
    mean = weights(model)
    for number in range(4):
        scheme.step(number, [batch_of(dim, number, dtype=torch.float64)], alone)
        decay = min(0.5, (1 + number) / (10 + number))
        mean = decay * mean + (1 - decay) * weights(model)
        torch.testing.assert_close(weights(scheme.kept), mean, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(weights(scheme.kept), weights(model), rtol=1e-3)
    for one, two in zip(model.buffers(), scheme.kept.buffers(), strict=True):
        assert torch.equal(one, two)
        assert one is not two
    late = plain(optimiser=SGD(rate=1e-30), average=0.5).build(model, 2000)  # nothing moves, so the average goes half-way
    mean, now = next(late.kept.parameters()), next(model.parameters())
    with torch.no_grad():
        mean.add_(1)
    late.step(1000, [batch_of(dim, dtype=torch.float64)], alone)
    torch.testing.assert_close(mean - now, torch.full_like(now, 0.5))


def test_without_an_average_the_model_is_kept(dim: int) -> None:
    model = small(dim)
    assert plain().build(model, 1).kept is model


OPTIMISERS: dict[str, AnyOptimiser] = {
    "adam": Adam(rate=1e-2, betas=(0.8, 0.95)),
    "amsgrad": Adam(rate=1e-2, amsgrad=True),
    "adamw": AdamW(rate=1e-2, decay=0.1),
    "sgd": SGD(rate=1e-2),
    "momentum": SGD(rate=1e-2, momentum=0.9),
    "muon": Muon(rate=1e-2),
}


@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_restored_scheme_goes_on_bit_for_bit(name: str, average: float | None) -> None:
    """From the tensors of its state alone; also into a model with other weights, and more than once."""
    dim = 2
    settings = plain(optimiser=OPTIMISERS[name], schedule=Cosine(warmup=0.3), average=average, clip=5.0)
    batches = [batch_of(dim, seed, dtype=torch.float64) for seed in range(5)]
    through = settings.build(normalised(dim), 5)
    figures = [through.step(k, [batch], alone) for k, batch in enumerate(batches)]
    scheme = settings.build(normalised(dim), 5)
    for number, batch in enumerate(batches):
        if number in (1, 3):
            state = {key: value.detach().clone() for key, value in scheme.state().items()}
            scheme = settings.build(normalised(dim, seed=9), 5)
            scheme.restore(state)
        assert scheme.step(number, [batch], alone) == figures[number]
    for one, two in ((through.model, scheme.model), (through.kept, scheme.kept)):
        for (key, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
            assert torch.equal(a, b), key
    assert set(through.state()) == set(scheme.state())
    assert all(torch.equal(value, scheme.state()[key]) for key, value in through.state().items())


def test_training_learns_a_shift() -> None:
    """Pairs that differ by one voxel: after some steps the loss is well below that of no motion."""
    smooth = torch.cat([smooth_field(SHAPES[2], size, 2).float() for size in (1.0, -0.7)])
    batch = PairBatch(fixed=smooth, moving=smooth.roll(1, 2), spacing=(1.0, 1.0))
    loss = (Images(similarity=MSE(), weight=100.0), Smoothness(on="velocity", weight=1e-3))
    model = model_of(2, VoxelMorph(form="vm1", scale=0.25), (Integrate(), FullSize()), loss)
    scheme = plain(optimiser=Adam(rate=1e-2)).build(model, 60)
    losses = [scheme.step(number, [batch], alone)["loss"] for number in range(60)]
    assert losses[-1] < 0.3 * losses[0]
