"""DiffuseMorph: published counts and noise, both modes, the path, any size, learning, refinement, model folders."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from warpwright.energies.losses import Images, Noise, Smoothness
from warpwright.energies.pairs import PairBatch
from warpwright.energies.similarity import MSE
from warpwright.errors import BadInput
from warpwright.methods import Model, ModelSettings, Refinement, refined
from warpwright.methods.direct import predicted
from warpwright.methods.multistep import Single
from warpwright.networks import DiffuseMorph, Displacement, save_memory
from warpwright.networks.diffusemorph import DiffuseMorphNetwork, noise_levels
from warpwright.networks.diffusion_score import ScoreUNet, sinusoids
from warpwright.product.model_folder import read_model, write_model
from warpwright.schemes import Adam, AdaptiveScoring, AnyWeighting, Constant, Plain
from warpwright.training.validate import validate

DIMS = pytest.mark.parametrize("shape", [(13, 18), (9, 13, 11)], ids=("2d", "3d"))
TINY = DiffuseMorph(inner=4, scale=1 / 16)
LOSS = (Noise(), Images(similarity=MSE(), weight=20.0), Smoothness())

PUBLISHED = {
    2: {
        "score.time": [33_088],
        "score.stem": [1_792],
        "score.encoder": [78_272, 238_464, 935_680, 1_197_824],
        "score.halve": [36_928, 147_584, 590_080],
        "score.middle": [1_197_824, 1_197_824],
        "score.attention": [1_460_736 - 1_197_824],
        "score.decoder": [2 * 1_919_488, 1_919_488 + 1_591_552, 648_704 + 402_560, 164_608 + 123_520],
        "score.enlarge": [590_080, 590_080, 147_584],
        "score.head": [705],
        "score": [15_936_129],
        "deformation.encoder": [38_144, 221_440, 885_248, 3_539_968, 14_157_824],
        "deformation.decoder": [33_033_216, 17_696_768, 4_424_704, 295_168],
        "deformation.between": [442_624],
        "deformation.head": [1_154],
        "deformation": [74_736_258],
    },
    3: {
        "score.time": [552],
        "score.stem": [656],
        "score.encoder": [3_576, 10_736, 42_464, 55_776],
        "score.halve": [1_736, 6_928, 27_680],
        "score.middle": [55_776, 55_776],
        "score.attention": [59_968 - 55_776],
        "score.decoder": [2 * 85_568, 85_568 + 71_200, 28_736 + 17_936, 7_264 + 5_456],
        "score.enlarge": [27_680, 27_680, 6_928],
        "score.head": [233],
        "score": [715_665],
        "deformation.encoder": [880, 13_856, 27_680, 27_680, 27_680],
        "deformation.decoder": [83_008, 83_008, 83_008, 6_928],
        "deformation.between": [6_920],
        "deformation.head": [651],
        "deformation": [361_299],
    },
}


def images(shape: tuple[int, ...], batch: int = 2, channels: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    fixed, moving = torch.rand(2, batch, channels, *shape, generator=generator, dtype=torch.float64)
    return fixed, moving


def network(shape: tuple[int, ...]) -> DiffuseMorphNetwork:
    """A small one whose field is not next to nothing."""
    torch.manual_seed(1)
    return lively(TINY.build(len(shape), 2).double())


def lively(net: DiffuseMorphNetwork) -> DiffuseMorphNetwork:
    """N(0, 0.02) in so few channels leaves next to nothing of what goes through, back and forth."""
    for parameter in net.deformation.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, a=0.2)
        else:
            nn.init.normal_(parameter, std=0.1)
    return net


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ------------------------------------------------------------------------------------------------------ published facts


def test_published_counts(dim: int) -> None:
    with torch.device("meta"):
        net = DiffuseMorph().build(dim)
    for name, expected in PUBLISHED[dim].items():
        part = net.get_submodule(name)
        several = isinstance(part, nn.ModuleList)
        assert [count(each) for each in (part if several else [part])] == expected, name
    groups = {m.num_groups for m in net.modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {32 if dim == 2 else 4}


def test_a_quarter_of_the_widths() -> None:
    with torch.device("meta"):
        whole, quarter = DiffuseMorph().build(2), DiffuseMorph(inner=16, scale=0.25).build(2)
    for name, parameter in quarter.named_parameters():
        large = whole.get_parameter(name).shape
        assert all(n in (4 * m, m) for n, m in zip(large, parameter.shape, strict=True)), name
    assert count(quarter) == pytest.approx(count(whole) / 16, rel=0.01)


def test_noise_is_that_of_the_published_schedule() -> None:
    kept, added = noise_levels(2000, 1e-6, 1e-2).numpy()
    left = 1.0
    for step in range(2000):
        left *= 1 - (1e-6 + (1e-2 - 1e-6) * step / 1999)
        assert kept[step] ** 2 == pytest.approx(left, rel=1e-12)
        assert added[step] ** 2 == pytest.approx(1 - left, rel=1e-9)  # of 1 - left, ten digits are lost
    assert added[0] == pytest.approx(1e-3, rel=1e-12)
    assert kept[-1] ** 2 == pytest.approx(math.exp(-10), rel=0.04)  # exp(-10) is the limit of many small steps


def test_sinusoids() -> None:
    times = torch.tensor([0.0, 3.0, 1999.0], dtype=torch.float64)
    expected = [[f(t / 1e4 ** (k / 3)) for f in (np.sin, np.cos) for k in range(3)] for t in times.tolist()]
    torch.testing.assert_close(sinusoids(times, 6), torch.tensor(expected), rtol=0, atol=1e-12)


def test_weights_begin_as_published(dim: int) -> None:
    torch.manual_seed(1)
    net = DiffuseMorph(inner=8, scale=0.5).build(dim)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif name.startswith("deformation"):
            spread = 0.02 / 0.5**0.5
            assert abs(parameter.std().item() / spread - 1) < 4 / (2 * parameter.numel()) ** 0.5, name  # four standard errors
        elif parameter.ndim == 1:
            assert (parameter == 1).all(), name
        else:
            flat = parameter.detach().flatten(1)
            gram = flat @ flat.T if len(flat) <= flat.shape[1] else flat.T @ flat
            torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-5)  # float32
    with torch.no_grad():
        found = net.eval()(*(x.float()[:, :1] for x in images((16, 16, 16)[:dim]))).values
    assert 0 < found.abs().max() < 1  # small, but not zero


# ---------------------------------------------------------------------------------------------------------- both modes


@pytest.mark.parametrize("shape", [(13, 18), (9, 13, 11), (1, 6), (5, 1, 2)])
@pytest.mark.parametrize("training", [True, False], ids=("training", "evaluating"))
def test_any_size(shape: tuple[int, ...], training: bool) -> None:
    estimate = network(shape).train(training)(*images(shape))
    assert isinstance(estimate, Displacement)
    assert (estimate.shape, estimate.factors, estimate.inverse) == (shape, (1,) * len(shape), None)
    assert estimate.values.shape == (2, len(shape), *shape)
    assert estimate.values.isfinite().all()
    assert estimate.noise_error is not None
    assert estimate.noise_error.shape == (2,)
    assert bool((estimate.noise_error > 0).all()) == training


@DIMS
def test_training_looks_for_the_noise_it_lays_over_the_fixed_image(shape: tuple[int, ...]) -> None:
    """What the score's network is given and what its answer is compared with, made again from the seed."""
    net, (fixed, moving) = network(shape).train(), images(shape)
    calls: list[tuple[Any, ...]] = []
    net.score.register_forward_hook(lambda _, given, found: calls.append((*given, found)))
    torch.manual_seed(7)
    found = net(fixed, moving)
    ((given, at, score),) = calls
    torch.manual_seed(7)
    steps, noise = torch.randint(2000, (2,)), torch.randn_like(fixed)
    assert torch.equal(at, steps)
    assert at[0] != at[1]
    kept, added = noise_levels(2000, 1e-6, 1e-2)
    noisy = torch.stack([kept[t] * image + added[t] * eps for t, image, eps in zip(steps, fixed, noise, strict=True)])
    torch.testing.assert_close(given, torch.cat((moving, fixed, noisy), 1), rtol=0, atol=1e-6)  # levels are kept in float32
    expected = [(noise[k] - score[k]).square().mean().item() for k in range(2)]
    assert found.noise_error is not None
    assert found.noise_error.tolist() == pytest.approx(expected)
    torch.testing.assert_close(found.values, net.deformation(torch.cat((moving, score), 1)))


@DIMS
def test_every_call_draws_anew_and_the_seed_decides(shape: tuple[int, ...]) -> None:
    net = network(shape).train()
    torch.manual_seed(7)
    first, second = (net(*images(shape)) for _ in range(2))
    torch.manual_seed(7)
    again = net(*images(shape))
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.noise_error, again.noise_error)
    assert not torch.equal(first.values, second.values)


@DIMS
def test_evaluation_draws_nothing(shape: tuple[int, ...]) -> None:
    net, (fixed, moving) = network(shape).eval(), images(shape)
    calls: list[tuple[Any, ...]] = []
    net.score.register_forward_hook(lambda _, given, found: calls.append((*given, found)))
    before = torch.get_rng_state()
    first, second = net(fixed, moving), net(fixed, moving)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.values, second.values)
    given, at, _ = calls[0]
    assert torch.equal(given, torch.cat((moving, fixed, fixed), 1))
    assert at.tolist() == [0, 0]


@DIMS
def test_batch_equals_one_by_one(shape: tuple[int, ...]) -> None:
    net, (fixed, moving) = network(shape).eval(), images(shape)
    both = net(fixed, moving).values
    for k in range(2):
        torch.testing.assert_close(net(fixed[k : k + 1], moving[k : k + 1]).values[0], both[k], atol=1e-9, rtol=1e-9)


@DIMS
def test_moving_comes_first(shape: tuple[int, ...]) -> None:
    net, (fixed, moving) = network(shape).eval(), images(shape)
    with torch.no_grad():
        net.score.stem.weight[:, :2] = 0.0
        next(net.deformation.parameters())[:, :2] = 0.0
    assert torch.equal(net(fixed, moving).values, net(fixed, 1 - moving).values)
    assert not torch.equal(net(fixed, moving).values, net(1 - fixed, moving).values)


@DIMS
def test_the_time_counts(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    score = ScoreUNet(len(shape), 2, 1, 4).double()
    given = images(shape)[0]
    early, late = (score(given, torch.full((2,), t)) for t in (0, 1500))
    assert (early - late).abs().max() > 0.01 * early.abs().max()


@DIMS
@pytest.mark.parametrize("training", [True, False], ids=("training", "evaluating"))
def test_gradient_everywhere(shape: tuple[int, ...], training: bool) -> None:
    """Through the displacement alone it reaches both networks; through the noise only that of the score."""
    net = network(shape).train(training)
    found = net(*images(shape))
    found.values.square().mean().backward(retain_graph=True)
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    net.zero_grad()
    if training:
        assert found.noise_error is not None
        found.noise_error.sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in net.score.parameters())
        assert all(p.grad is None for p in net.deformation.parameters())


@DIMS
def test_saving_memory_changes_no_gradients(shape: tuple[int, ...]) -> None:
    plain = network(shape).train()
    saving = copy.deepcopy(plain)
    save_memory(saving)
    for net in (plain, saving):
        torch.manual_seed(7)
        found = net(*images(shape))
        (found.values.square().mean() + found.noise_error.mean()).backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-14)


# ------------------------------------------------------------------------------------------------------------ the path


@DIMS
def test_the_path_goes_from_the_moving_image_alone_to_evaluation(shape: tuple[int, ...]) -> None:
    net, (fixed, moving) = network(shape), images(shape)
    calls: list[Any] = []
    net.score.register_forward_hook(lambda *call: calls.append(call))
    start, end = net.train().path(fixed, moving, (0.0, 1.0))
    assert len(calls) == 1
    assert start.noise_error is end.noise_error is None
    assert torch.equal(end.values, net.eval()(fixed, moving).values)
    assert torch.equal(start.values, net.deformation(torch.cat((moving, torch.zeros_like(moving)), 1)))
    assert torch.equal(start.values, net.path(1 - fixed, moving, (0.0,))[0].values)
    assert not torch.equal(start.values, end.values)


@DIMS
def test_the_path_is_continuous(shape: tuple[int, ...]) -> None:
    """With a step half as long the longest jump is about half, which no break would allow."""
    net = network(shape).eval()

    def longest(steps: int) -> float:
        fields = [e.values for e in net.path(*images(shape), np.linspace(0, 1, steps + 1).tolist())]
        return max(float((b - a).detach().abs().max()) for a, b in pairwise(fields))

    assert 0 < longest(32) < 0.6 * longest(16)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_shares_outside_are_refused(share: float) -> None:
    with pytest.raises(BadInput, match=f"must lie in 0 to 1, got {share}"):
        network((5, 6)).path(*images((5, 6)), (0.5, share))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner": 7}, "inner width of a DiffuseMorph must be even and at least 2, got 7"),
        ({"inner": 0}, "must be even and at least 2, got 0"),
        ({"scale": 0.0}, "the scale of DiffuseMorph must be above 0 and finite, got 0.0"),
        ({"steps": 0}, "needs at least 1 step, got 0"),
        ({"first": 0.0}, "0 < first <= last < 1, got 0.0 and 0.01"),
        ({"first": 0.02}, "0 < first <= last < 1, got 0.02 and 0.01"),
        ({"last": 1.0}, "0 < first <= last < 1, got 1e-06 and 1.0"),
        ({"last": math.nan}, "0 < first <= last < 1, got 1e-06 and nan"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        DiffuseMorph(**settings)


# ---------------------------------------------------------------------------------------------------- within a model


def alone(tensors: Sequence[Tensor]) -> None:
    """The only process there is."""


def model_of(dim: int, directions: Any = "forward", architecture: DiffuseMorph = TINY) -> Model:
    torch.manual_seed(1)
    model = Model(ModelSettings(dim=dim, network=architecture, layers=(), loss=LOSS, directions=directions))
    lively(cast(DiffuseMorphNetwork, cast(Single, model.network).network))
    return model


def batch_of(dim: int) -> PairBatch:
    fixed, moving = (x.float()[:, :1] for x in images((13, 18, 11)[:dim]))
    return PairBatch(fixed=fixed, moving=moving, spacing=(1.0, 0.8, 1.5)[:dim], names=("a", "b"))


@pytest.mark.parametrize("directions", ["forward", "both"])
@pytest.mark.parametrize("weighting", [None, AdaptiveScoring(warmup=0.2, scale=0.25)], ids=("plain", "adacs"))
def test_it_learns(dim: int, directions: str, weighting: AnyWeighting | None) -> None:
    """With AdaCS in all its phases; the seed decides."""
    runs = []
    for _ in range(2):
        model, batch = model_of(dim, directions), batch_of(dim)
        before = copy.deepcopy(model.state_dict())
        scheme = Plain(optimiser=Adam(rate=1e-3, betas=(0.5, 0.999)), schedule=Constant(), weighting=weighting).build(model, 5)
        torch.manual_seed(5)
        runs.append([scheme.step(k, [batch], alone) for k in range(5)])
        assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert runs[0] == runs[1]
    for figures in runs[0]:
        assert all(math.isfinite(value) for value in figures.values())
        expected = figures["noise"] + 20 * figures["similarity"] + figures["smoothness"]
        assert figures["loss"] == pytest.approx(expected, rel=1e-4)
        assert figures["noise"] > 0.1 if figures["gradient"] else figures["noise"] == 0  # at rest it sees the pair itself
    if weighting is not None:
        assert [figures["gradient"] > 0 for figures in runs[0]] == [True, False, True, True, True]
        assert runs[0][-1]["score"] < 1


def test_noise_is_found_after_a_while() -> None:
    """Its error falls well below 1, that of no answer."""
    model, batch = model_of(2, architecture=DiffuseMorph(inner=8, scale=1 / 16)), batch_of(2)
    scheme = Plain(optimiser=Adam(rate=3e-3), schedule=Constant()).build(model, 50)
    torch.manual_seed(5)
    found = [scheme.step(k, [batch], alone)["noise"] for k in range(50)]
    assert np.mean(found[-10:]) < 0.6


def test_refinement_and_validation_see_no_noise(dim: int) -> None:
    model, batch = model_of(dim).train(), batch_of(dim)
    own, stage = refined(model, batch, Refinement(steps=3))
    assert stage.energy_end < stage.energy_start
    found = predicted(model, batch)
    expected = sum(term.weight * float(term.value(batch, found).mean()) for term in LOSS[1:])
    assert stage.energy_start == pytest.approx(expected, rel=1e-5)
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), own.parameters(), strict=True))
    assert validate(model, [batch])["loss"] == pytest.approx(stage.energy_start, rel=1e-5)


def test_a_model_folder_keeps_it(dim: int, tmp_path: Path) -> None:
    model, batch = model_of(dim, architecture=DiffuseMorph(inner=4, scale=1 / 16, steps=50, last=0.05)), batch_of(dim)
    write_model(tmp_path / "model", model, card="", summary={})
    found = read_model(tmp_path / "model").model
    assert found.settings == model.settings
    assert torch.equal(predicted(found, batch).displacement, predicted(model, batch).displacement)
    assert not any("levels" in name for name in found.state_dict())
    errors = []
    for each in (found.train(), model.train()):
        torch.manual_seed(3)
        errors.append(each(batch.fixed, batch.moving).noise_errors[0])
    assert torch.equal(*errors)
