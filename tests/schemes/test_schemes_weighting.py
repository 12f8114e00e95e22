"""Weightings of residuals: their formulas against plain numbers, what learns from what, phases, collapse, states."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles.make import smooth_field
from warpwright.energies.losses import AnyTerm, Images, Smoothness, VelocityPrior
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.similarity import LNCC, MIND, MSE, MutualInformation
from warpwright.errors import BadInput, Failed
from warpwright.geometry import spatial
from warpwright.layers import FullSize, Integrate
from warpwright.methods import AnyNetwork, Implicit, Model, ModelSettings, TwoStep, batch_loss
from warpwright.networks import FCNSS, AffineNet, Displacement, Velocity, VoxelMorph
from warpwright.networks.features import FeatureUNetEncoder
from warpwright.networks.scoring import VoxelMap
from warpwright.sampling import downsample, warp
from warpwright.schemes import (
    SGD,
    AdaFrame,
    Adam,
    AdaptiveScoring,
    AdaReg,
    AnyOptimiser,
    AnyWeighting,
    Constant,
    Likelihood,
    Muon,
    Plain,
    Polynomial,
)
from warpwright.schemes.adaptive_scoring import Scoring
from warpwright.schemes.plain import PlainScheme
from warpwright.schemes.weighting import residuals
from warpwright.transforms import Preparation

SHAPES = {2: (13, 18), 3: (9, 13, 11)}
IMAGES = Images(similarity=MSE())
LOSS: tuple[AnyTerm, ...] = (IMAGES, Smoothness(weight=0.1))
ALL = (AdaptiveScoring(warmup=0.25, scale=0.25), AdaReg(), AdaFrame(), Likelihood(scale=0.25), Likelihood(beta=0.5, scale=0.25))
NAMES = ("adacs", "adareg", "adaframe", "nll", "beta-nll")
EVERY = pytest.mark.parametrize("weighting", ALL, ids=NAMES)
PUBLISHED = AdaptiveScoring(warmup=0.25, scale=0.25, paper_code=True)


def alone(tensors: Sequence[Tensor]) -> None:
    """The only process there is."""


def batch_of(dim: int, seed: int = 0, count: int = 2, **changes: Any) -> PairBatch:
    generator = torch.Generator().manual_seed(seed)
    fixed, moving = torch.rand(2, count, 1, *SHAPES[dim], generator=generator)
    return PairBatch(**{"fixed": fixed, "moving": moving, "spacing": (1.0, 0.8, 1.5)[:dim], "names": ("a", "b")} | changes)


def model_of(dim: int, loss: tuple[AnyTerm, ...] = LOSS, **changes: Any) -> Model:
    torch.manual_seed(1)
    network = VoxelMorph(form="vm2", scale=0.25, field="displacement")
    settings = {"dim": dim, "network": network, "layers": (FullSize(),), "loss": loss, "directions": "forward", **changes}
    return Model(ModelSettings(**settings))


def scheme_of(
    weighting: AnyWeighting | None, dim: int = 2, steps: int = 8, *, double: bool = False, **changes: Any
) -> PlainScheme:
    model = model_of(dim, **changes)
    if double:
        model.double()
    torch.manual_seed(2)
    return Plain(schedule=Constant(), weighting=weighting).build(model, steps)


def scoring_of(scheme: PlainScheme) -> Scoring:
    assert isinstance(scheme.weighting, Scoring)
    return scheme.weighting


def field_of(dim: int) -> Prediction:
    shape = SHAPES[dim]
    values = torch.cat([smooth_field(shape, size).float() for size in (1.5, 0.7)])
    return Prediction((Displacement(values=values, shape=shape, factors=(1,) * dim),))


def weights_of(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def absolute(batch: PairBatch, prediction: Prediction) -> np.ndarray:
    return (warp(batch.moving, prediction.displacement) - batch.fixed).abs().numpy().astype(np.float64)


def covered(batch: PairBatch, prediction: Prediction) -> np.ndarray:
    return residuals(IMAGES, batch, prediction)[1].numpy().astype(np.float64)


# ---- networks


@pytest.mark.parametrize(("dim", "weights"), [(2, 108_881), (3, 326_033)])
def test_the_scoring_network_has_the_published_number_of_weights(dim: int, weights: int) -> None:
    torch.manual_seed(0)
    network = VoxelMap(dim, 1)
    assert sum(p.numel() for p in network.parameters()) == weights
    with torch.no_grad():
        scores = network.scores(torch.rand(2, 1, *SHAPES[dim]))
    assert scores.shape == (2, 1, *SHAPES[dim])
    assert 0.3 < float(scores.min()) < float(scores.max()) < 0.7
    assert torch.equal(
        VoxelMap(dim, 2, 0.25, constant=-3.0)(torch.rand(1, 2, *SHAPES[dim])), torch.full((1, 1, *SHAPES[dim]), -3.0)
    )


@EVERY
def test_a_score_is_kept_once_it_has_learned(weighting: AnyWeighting) -> None:
    scheme = scheme_of(weighting)
    kept = []
    for number in range(4):
        scheme.step(number, [batch_of(2)], alone)
        kept.append(scheme.score)
    if isinstance(weighting, AdaptiveScoring):  # of 8 steps, 2 belong to the model alone
        network = scoring_of(scheme).network
        assert kept == [None, None, network, network]
        again = scheme_of(weighting)
        assert again.score is None
        again.restore(scheme.state())
        assert again.score is scoring_of(again).network
    else:
        assert kept == [None] * 4
    assert scheme_of(None).score is None


# ---- formulas


def test_adaframe_is_its_formula(dim: int) -> None:
    batch, prediction = batch_of(dim), field_of(dim)
    found = AdaFrame().build(model_of(dim), 1).value(IMAGES, batch, prediction)
    rest, weight = absolute(batch, prediction), covered(batch, prediction)
    for k in range(2):
        r, w = rest[k], weight[k]
        mean = (r * w).sum() / w.sum()
        deviation = math.sqrt(((r - mean) ** 2 * w).sum() / w.sum())
        slope, shift = 0.1 / mean, 10 * (1 - math.cos(math.pi * mean))
        factor = 1 - 1 / (1 + np.exp(-(slope * (r - mean) / deviation - shift)))
        assert float(found[k]) == pytest.approx((factor * w * r**2).sum() / w.sum(), rel=1e-4)


def test_adareg_is_its_formula(dim: int) -> None:
    batch, prediction = batch_of(dim), field_of(dim)
    found = AdaReg(contrast=3.0).build(model_of(dim), 1).value(LOSS[1], batch, prediction)
    rest, weight = absolute(batch, prediction), covered(batch, prediction)
    mean = (rest * weight).reshape(2, -1).sum(1) / weight.reshape(2, -1).sum(1)
    factor = np.exp(-3.0 * rest * mean.reshape(-1, *(1,) * (dim + 1)))
    expected = LOSS[1].of(torch.from_numpy(factor) * prediction.displacement, batch.spacing)  # type: ignore[union-attr]
    torch.testing.assert_close(found, expected.to(found), rtol=1e-4, atol=1e-6)
    plain = AdaReg(contrast=0.0).build(model_of(dim), 1).value(LOSS[1], batch, prediction)
    torch.testing.assert_close(plain, LOSS[1].value(batch, prediction))


def test_adareg_weighs_velocities_on_their_lattice() -> None:
    network = VoxelMorph(form="vm2", half_resolution=True, scale=0.25)
    changes: dict[str, Any] = {"network": network, "layers": (Integrate(), FullSize())}
    loss = (IMAGES, Smoothness(on="velocity", weight=0.1))
    figures = scheme_of(AdaReg(contrast=1.0), loss=loss, **changes).step(0, [batch_of(2)], alone)
    plain = scheme_of(AdaReg(contrast=0.0), loss=loss, **changes).step(0, [batch_of(2)], alone)
    assert figures["similarity"] == plain["similarity"]
    assert 0 < figures["smoothness"] < plain["smoothness"]
    batch = batch_of(2)
    velocity = torch.rand(2, 2, 7, 9)
    trail = (Velocity(values=velocity, shape=SHAPES[2], factors=(2, 2)), field_of(2).final)
    found = AdaReg(contrast=3.0).build(model_of(2, loss), 1).value(loss[1], batch, Prediction(trail))
    rest, weight = absolute(batch, field_of(2)), covered(batch, field_of(2))
    mean = (rest * weight).reshape(2, -1).sum(1) / weight.reshape(2, -1).sum(1)
    factor = downsample(torch.from_numpy(np.exp(-3.0 * rest * mean.reshape(-1, 1, 1, 1))), (2, 2))
    expected = loss[1].of(factor * velocity, (2.0, 1.6))
    torch.testing.assert_close(found, expected.to(found), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_a_likelihood_is_its_formula_and_learns_the_variance(dim: int, beta: float) -> None:
    batch, prediction = batch_of(dim), field_of(dim)
    weighting = Likelihood(beta=beta, optimiser=Adam(rate=1e-2), scale=0.25).build(model_of(dim), 1)
    rest, weight = absolute(batch, prediction), covered(batch, prediction)
    weighting.begin(0)
    found = weighting.value(IMAGES, batch, prediction).detach()
    for k in range(2):
        energy = 0.01**beta * (rest[k] ** 2 / 0.01 + math.log(0.01))
        assert float(found[k]) == pytest.approx((energy * weight[k]).sum() / weight[k].sum(), rel=1e-4)
    one = (rest**2 * weight).sum() / weight.sum()
    for step in range(400):
        weighting.begin(step, 1, 1 - step / 400)
        found = weighting.value(IMAGES, batch, prediction)
        found.sum().backward()
        figures = weighting.learn([batch], alone)
    assert 0.95 * one < figures["variance"] < 1.05 * one
    if not beta:
        assert float(found.detach().mean()) < 1 + math.log(one)  # of one variance everywhere, the best one


# ---- AdaCS


def test_a_score_lowers_what_it_weighs_by_the_number_of_voxels(dim: int) -> None:
    """Reduced by |Omega|, what is covered: half of all scores is half of the loss; at first it is the plain one."""
    scheme = scheme_of(AdaptiveScoring(warmup=0.25, scale=0.25), dim)
    weighting, batch, prediction = scoring_of(scheme), batch_of(dim), field_of(dim)
    rest, weight = absolute(batch, prediction), covered(batch, prediction)
    weighting.begin(0)
    whole = weighting.value(IMAGES, batch, prediction)
    total = weight.reshape(2, -1).sum(1)
    assert whole.tolist() == pytest.approx(((rest**2 * weight).reshape(2, -1).sum(1) / total).tolist(), rel=1e-4)
    torch.testing.assert_close(whole, IMAGES.value(batch, prediction))
    for p in weighting.network.head.parameters():
        torch.nn.init.zeros_(p)
    weighting.begin(4)
    assert weighting.value(IMAGES, batch, prediction).tolist() == pytest.approx((0.5 * whole).tolist(), rel=1e-5)


def test_phases(dim: int) -> None:
    """The model alone, the score alone, both in turn."""
    scheme = scheme_of(AdaptiveScoring(warmup=0.25, scale=0.25), dim)
    weighting, batch = scoring_of(scheme), batch_of(dim)
    found = []
    for step in range(6):
        before = weights_of(scheme.model), weights_of(weighting.network)
        figures = scheme.step(step, [batch], alone)
        after = weights_of(scheme.model), weights_of(weighting.network)
        found.append(tuple(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
        assert set(figures) == {
            "loss",
            "similarity",
            "smoothness",
            "gradient",
            "rate",
            "residual",
            "score",
            "score_loss",
            "score_smoothness",
        }
        assert all(math.isfinite(value) for value in figures.values())
        assert (figures["score"] == 1) == (step < 2)
        assert (figures["gradient"] == figures["rate"] == 0) == (step in (2, 3))
    assert found == [(True, False)] * 2 + [(False, True)] * 2 + [(True, True)] * 2


def test_gradients_stop_where_they_are_said_to(dim: int) -> None:
    scheme = scheme_of(AdaptiveScoring(warmup=0.0, scale=0.25), dim, directions="both")
    weighting, batch = scoring_of(scheme), batch_of(dim)
    weighting.begin(0)
    scheme._figures([batch], alone)  # pyright: ignore[reportPrivateUsage]
    assert all(p.grad is None for p in weighting.network.parameters())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in scheme.model.parameters())
    weighting.learn([batch], alone)
    assert all(p.grad is None for p in scheme.model.parameters())
    assert all(p.grad is not None for p in weighting.network.parameters())


def test_the_published_code_also_moves_the_model_by_the_loss_of_the_score() -> None:
    scheme = scheme_of(AdaptiveScoring(warmup=0.0, scale=0.25, paper_code=True))
    weighting, batch = scoring_of(scheme), batch_of(2)
    for step in range(2):  # the head of the model begins as next to nothing
        scheme.step(step, [batch], alone)
    assert weighting.leaked
    leaked = {name: value.clone() for name, value in weighting.leaked.items()}
    scheme.optimiser.zero_grad()
    weighting.begin(2)
    scheme._figures([batch], alone)  # pyright: ignore[reportPrivateUsage]
    with_leak = {name: p.grad.clone() for name, p in scheme.model.named_parameters() if p.grad is not None}
    assert not weighting.leaked
    scheme.optimiser.zero_grad()
    scheme._figures([batch], alone)  # pyright: ignore[reportPrivateUsage]
    for name, p in scheme.model.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(with_leak[name], p.grad + leaked[name], rtol=1e-4, atol=1e-7)


def test_what_is_0_in_both_images_counts_for_the_published_code_only(dim: int) -> None:
    values = torch.zeros(2, dim, *SHAPES[dim])
    values[:, 0] = -3.0  # carries something to where both images are 0
    batch, prediction = batch_of(dim), Prediction((replace(field_of(dim).final, values=values),))
    half = torch.zeros_like(batch.fixed)
    half[:, :, : SHAPES[dim][0] // 2] = 1
    batch = replace(batch, fixed=batch.fixed * half, moving=batch.moving * half)
    found = {}
    for code in (False, True):
        weighting = scoring_of(scheme_of(AdaptiveScoring(warmup=0.25, scale=0.25, paper_code=code), dim))
        weighting.begin(0)
        found[code] = weighting.value(IMAGES, batch, prediction)
    rest, weight = absolute(batch, prediction), covered(batch, prediction)
    for code, counted in ((True, half.numpy()), (False, 1.0)):
        expected = (rest**2 * weight * counted).reshape(2, -1).sum(1)
        expected = expected / (weight[0].size if code else weight.reshape(2, -1).sum(1))
        assert found[code].tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert float(rest[half.numpy() == 0].max()) > 0


@pytest.mark.parametrize("code", [False, True])
def test_smoothness_follows_the_residuals(code: bool) -> None:
    """Equation 5 has the residuals as they are; the published code those weighed by the score."""
    settings = AdaptiveScoring(beta=1.5, momentum=0.9, factor=5.0, warmup=0.1, scale=0.25, paper_code=code)
    scheme = scheme_of(settings, steps=400)
    weighting, average = scoring_of(scheme), 0.0
    for step in (0, 1, 100):
        batch = batch_of(2, step)
        plain = float(batch_loss(scheme.model, batch, None).parts["similarity"].mean())
        figures = scheme.step(step, [batch], alone)
        if step > 1:
            assert figures["similarity"] < 0.95 * plain  # weighed by a score of 0.5 or 0.88
        elif not code:
            assert figures["similarity"] == pytest.approx(plain, rel=1e-5)
        mean = figures["similarity"] if code else plain
        assert figures["residual"] == pytest.approx(mean, rel=1e-4)
        b = math.cos(math.pi / 2 * 5.0 * mean)
        if code:
            decay = min(1 - 1 / (step // 50 + 1), 0.9)
            average = decay * average + (1 - decay) * 1.5 * b
        else:
            average = 0.9 * average + 0.1 * max(b, 0.0)
        assert figures["score_smoothness"] == pytest.approx(average if code else 1.5 * average, rel=1e-4, abs=1e-7)
    before = weighting.smoothness
    scheme.step(50, [batch_of(2, 3)], alone)  # the score alone
    assert weighting.smoothness == before


def test_the_score_falls_where_something_is_in_one_image_only() -> None:
    """A patch of noise in the moving images' counterpart: the score finds it from the fixed image alone.

    It is smooth over sqrt(beta / (2 alpha)) voxels at most, 1.6, less than the patch is wide.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (32, 32)
    clean = smooth_field(shape, 0.5)[:, :1].float() + 0.5
    patch = torch.zeros(1, 1, *shape, dtype=torch.bool)
    patch[..., 8:16, 12:24] = True
    fixed = torch.where(patch, torch.rand(4, 1, *shape, generator=generator), clean.expand(4, -1, -1, -1))
    batch = PairBatch(fixed=fixed, moving=clean.expand(4, -1, -1, -1).contiguous(), spacing=(1.0, 1.0))
    scheme = scheme_of(AdaptiveScoring(alpha=0.02, beta=0.1, warmup=0.0, optimiser=Adam(rate=3e-3), scale=0.5), steps=150)
    weighting = scoring_of(scheme)
    for step in range(150):
        scheme.step(step, [batch], alone)
    with torch.no_grad():
        scores = weighting.network.scores(fixed)
    inside, outside = scores[patch.expand_as(scores)], scores[~patch.expand_as(scores)]
    assert float((inside[:, None] < outside[None, ::7]).float().mean()) > 0.9  # the area under the ROC curve
    assert float(outside.mean()) > 0.8


def test_smoothness_never_rises_with_residuals() -> None:
    weighting = scoring_of(scheme_of(AdaptiveScoring(momentum=0.0, scale=0.25)))
    found = []
    for mean in np.linspace(0, 0.2, 41):
        weighting._follow(float(mean))  # pyright: ignore[reportPrivateUsage]
        found.append(weighting.smoothness)
    assert found[0] == pytest.approx(1.5)
    assert (np.diff(found) <= 1e-12).all()
    assert found[-1] == pytest.approx(0, abs=1e-12)


@EVERY
def test_a_pair_without_a_map_teaches_nothing(weighting: AnyWeighting, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that solves says which pairs failed: what such a pair shows, and whether its images meet, does not matter."""
    found = []
    for content in (0.0, 1.0):
        scheme = scheme_of(weighting, dim)
        forward = Model.forward

        def failing(model: Model, fixed: Tensor, moving: Tensor, prompts: None = None) -> Prediction:
            given = forward(model, fixed, moving, prompts).final  # noqa: B023
            away = given.values + torch.tensor([0.0, 1e4]).reshape(-1, *(1,) * (dim + 1))
            return Prediction((replace(given, values=away, failed=torch.tensor([False, True])),))

        monkeypatch.setattr(Model, "forward", failing)
        batch = batch_of(dim)
        batch.moving[1] = content
        figures = [scheme.step(step, [batch], alone) for step in range(6)]
        monkeypatch.undo()
        found.append(
            (weights_of(scheme.model), {k: v for k, v in scheme.state().items() if k.startswith("weighting.")}, figures)
        )
    (one, first, figures), (other, second, others) = found
    assert torch.equal(one, other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for row in (*figures, *others):
        row.pop("smoothness")  # of all pairs, in the log only
    assert figures == others
    assert figures[0]["failed"] == 0.5


def test_a_collapse_is_named() -> None:
    scheme = scheme_of(AdaptiveScoring(alpha=0.0, warmup=0.0, optimiser=Adam(rate=0.05), scale=0.25), steps=400)

    def run() -> None:
        for step in range(400):
            scheme.step(step, [batch_of(2)], alone)

    with pytest.raises(Failed, match=r"the score has collapsed, its mean is .*: expected a larger alpha"):
        run()


# ---- all of them


@EVERY
def test_what_learns_beside_the_model_follows_the_schedule(weighting: AnyWeighting) -> None:
    scheme = Plain(schedule=Polynomial(power=1.0), weighting=weighting).build(model_of(2), 8)
    for step in range(5):
        scheme.step(step, [batch_of(2)], alone)
    if isinstance(weighting, AdaptiveScoring | Likelihood):
        (group,) = scheme.weighting.optimiser.param_groups  # type: ignore[union-attr]
        assert group["lr"] == pytest.approx(weighting.optimiser.rate * 4 / 8)
    assert scheme.optimiser.param_groups[0]["lr"] == pytest.approx(Plain().optimiser.rate * 4 / 8)


@pytest.mark.parametrize("weighting", [*ALL, PUBLISHED], ids=(*NAMES, "published code"))
@pytest.mark.parametrize("directions", ["forward", "both"])
def test_going_on_from_a_state_is_as_not_having_stopped(weighting: AnyWeighting, dim: int, directions: str) -> None:
    whole, first, second = (scheme_of(weighting, dim, directions=directions) for _ in range(3))
    for step in range(6):
        one = whole.step(step, [batch_of(dim, step)], alone)
        half = first if step < 5 else second
        if step == 5:
            second.restore({name: value.clone() for name, value in first.state().items()})
        two = half.step(step, [batch_of(dim, step)], alone)
        assert one == two
    assert torch.equal(weights_of(whole.model), weights_of(second.model))
    assert all(torch.equal(a, b) for a, b in zip(whole.state().values(), second.state().values(), strict=True))


class Meeting:
    """What two threads say to each other, as processes do."""

    def __init__(self) -> None:
        self.barrier, self.said = threading.Barrier(2, timeout=60), {}

    @torch.no_grad()
    def mean(self, own: int, tensors: Sequence[Tensor]) -> None:
        self.said[own] = [t.clone() for t in tensors]
        self.barrier.wait()
        for tensor, mine, other in zip(tensors, self.said[0], self.said[1], strict=True):
            tensor.copy_((mine + other) / 2)
        self.barrier.wait()


@pytest.mark.parametrize("weighting", [*ALL, PUBLISHED], ids=(*NAMES, "published code"))
def test_two_processes_are_one_with_the_pairs_of_both(weighting: AnyWeighting) -> None:
    whole, *halves = (scheme_of(weighting, double=True) for _ in range(3))
    batch = batch_of(2, count=2).to(torch.device("cpu"), torch.float64)
    meeting = Meeting()
    figures: list[list[dict[str, float]]] = [[], []]

    def work(own: int) -> None:
        mine = replace(batch, fixed=batch.fixed[own : own + 1], moving=batch.moving[own : own + 1], names=("a",))
        for step in range(6):
            figures[own].append(halves[own].step(step, [mine], partial(meeting.mean, own)))

    threads = [threading.Thread(target=work, args=(own,)) for own in range(2)]
    for thread in threads:
        thread.start()
    both = [whole.step(step, [batch], alone) for step in range(6)]
    for thread in threads:
        thread.join()
    assert figures[0] == figures[1]
    for one, two in zip(both, figures[0], strict=True):
        assert one == pytest.approx(two, rel=1e-6, abs=1e-9)
    torch.testing.assert_close(weights_of(halves[0].model), weights_of(whole.model), rtol=1e-6, atol=1e-7)


@EVERY
def test_accumulated_batches_are_one_batch(weighting: AnyWeighting) -> None:
    whole, parts = scheme_of(weighting), scheme_of(weighting)
    batch = batch_of(2, count=2)
    halves = [replace(batch, fixed=batch.fixed[k : k + 1], moving=batch.moving[k : k + 1], names=("a",)) for k in range(2)]
    for step in range(6):
        one, two = whole.step(step, [batch], alone), parts.step(step, halves, alone)
        assert one == pytest.approx(two, rel=2e-3, abs=1e-5)


@EVERY
def test_only_ratios_of_a_masks_weights_matter(weighting: AnyWeighting, dim: int) -> None:
    found = []
    for factor in (1.0, 4.0):
        scheme = scheme_of(weighting, dim)
        weight = torch.zeros(2, 1, *SHAPES[dim])
        weight[:, :, 2:7] = factor
        steps = [scheme.step(k, [replace(batch_of(dim, k), fixed_weight=weight)], alone) for k in range(6)]
        found.append((weights_of(scheme.model), steps))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-6)
    for one, other in zip(*(steps for _, steps in found), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-6)


def test_a_margin_that_does_not_count_changes_no_loss_of_the_score() -> None:
    """Neither its smoothness nor its mean, which would be diluted by it."""
    found = []
    score, weight = torch.rand(2, 1, *SHAPES[2]), torch.ones(2, 1, *SHAPES[2])
    batch = batch_of(2)
    for margin in (0, 6):
        pad = partial(torch.nn.functional.pad, pad=(margin,) * 4)
        wide = replace(batch, fixed=pad(batch.fixed), moving=pad(batch.moving), fixed_weight=pad(weight))
        weighting = scoring_of(scheme_of(AdaptiveScoring(warmup=0.0, scale=0.25)))
        weighting.average = 1.0
        weighting.maps[id(wide.fixed)] = (wide.fixed, pad(score, value=0.3))
        still = Displacement(values=torch.zeros(2, 2, *spatial(wide.fixed)), shape=spatial(wide.fixed), factors=(1, 1))
        weighting.alone = True
        found.append(weighting._loss(wide, Prediction((still,))))  # pyright: ignore[reportPrivateUsage]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("optimiser", [SGD(rate=1e-2), Adam(), Muon()], ids=("sgd", "adam", "muon"))
def test_a_score_by_any_optimiser_is_kept(optimiser: AnyOptimiser) -> None:
    scheme = scheme_of(AdaptiveScoring(optimiser=optimiser, warmup=0.0, scale=0.25))
    assert scheme.score is None
    scheme.step(0, [batch_of(2)], alone)
    assert scheme.score is scoring_of(scheme).network


@EVERY
def test_in_half_precision_networks_compute_so_and_weights_do_not(weighting: AnyWeighting) -> None:
    model = model_of(2)
    scheme = Plain(schedule=Constant(), weighting=weighting).build(model, 8, torch.bfloat16)
    seen: set[torch.dtype] = set()
    networks = [model, *(part for part in vars(scheme.weighting).values() if isinstance(part, VoxelMap))]
    for module in (module for network in networks for module in network.modules() if isinstance(module, torch.nn.Conv2d)):
        module.register_forward_hook(lambda _, __, out: seen.add(out.dtype))
    for step in range(6):
        figures = scheme.step(step, [batch_of(2, step)], alone)
        assert all(math.isfinite(value) for value in figures.values())
    assert seen == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for network in networks for p in network.parameters())


@EVERY
def test_nothing_is_added_to_the_model(weighting: AnyWeighting, dim: int) -> None:
    """What is written and used is the model's own network: the same parts and weights by name after some steps."""
    weighed, plain = scheme_of(weighting, dim), scheme_of(None, dim)
    for step in range(6):
        weighed.step(step, [batch_of(dim, step)], alone)
    assert weighed.kept is weighed.model
    assert [name for name, _ in weighed.kept.named_modules()] == [name for name, _ in plain.kept.named_modules()]
    assert list(weighed.kept.state_dict()) == list(plain.kept.state_dict())


def test_a_model_at_rest_keeps_its_running_means_too() -> None:
    scheme = scheme_of(AdaptiveScoring(warmup=0.25, scale=0.25), network=FCNSS(), layers=(FullSize(),))
    for step in range(4):
        before = {name: value.clone() for name, value in scheme.model.named_buffers()}
        scheme.step(step, [batch_of(2, step)], alone)
        same = [torch.equal(value, before[name]) for name, value in scheme.model.named_buffers()]
        assert same
        assert all(same) if step in (2, 3) else not any(same)


@EVERY
@pytest.mark.parametrize("similarity", [LNCC(), MutualInformation(), MIND()], ids=("lncc", "mi", "mind"))
def test_similarities_without_residuals_are_refused(weighting: AnyWeighting, similarity: Any) -> None:
    with pytest.raises(BadInput, match=r"needs a residual for every voxel, .* has none: expected mse"):
        scheme_of(weighting, loss=(Images(similarity=similarity), LOSS[1]))


@EVERY
def test_losses_that_cannot_be_weighed_are_refused(weighting: AnyWeighting) -> None:
    with pytest.raises(BadInput, match="weighs residuals of images, the model's loss has none"):
        scheme_of(weighting, loss=(LOSS[1],))
    with pytest.raises(BadInput, match="for images at their own resolution"):
        scheme_of(weighting, loss=(replace(IMAGES, downsampling=2), LOSS[1]))
    with pytest.raises(BadInput, match="weighs residuals of images, the model's loss has none"):
        scheme_of(weighting, loss=(replace(IMAGES, weight=0.0), LOSS[1]))
    with pytest.raises(BadInput, match="needs a residual for every voxel, lncc has none"):
        scheme_of(weighting, loss=(IMAGES, Images(similarity=LNCC(), weight=0.0), LOSS[1]))


@EVERY
def test_masks_that_leave_nothing_are_told(weighting: AnyWeighting, dim: int) -> None:
    batch = batch_of(dim)
    empty = torch.zeros(2, 1, *spatial(batch.fixed))
    with pytest.raises(Failed, match="do not meet, so that no residual is left"):
        scheme_of(weighting, dim).step(0, [replace(batch, fixed_weight=empty)], alone)


def test_two_models_of_one_thing_are_refused() -> None:
    with pytest.raises(BadInput, match="two models of noise: expected one of them"):
        Likelihood().build(model_of(2, (IMAGES, VelocityPrior())), 1)
    with pytest.raises(BadInput, match="two ideas of smoothness: expected one of them"):
        AdaReg().build(model_of(2, (*LOSS, VelocityPrior())), 1)
    AdaReg().build(model_of(2, (*LOSS, VelocityPrior(weight=0.0))), 1)


def test_a_single_slice_of_a_volume_is_learned_from() -> None:
    scheme = scheme_of(AdaptiveScoring(warmup=0.0, scale=0.25), 3)
    batch = batch_of(3)
    flat = replace(batch, fixed=batch.fixed[:, :, :1], moving=batch.moving[:, :, :1])
    assert math.isfinite(scheme.step(0, [flat], alone)["score_loss"])


@pytest.mark.parametrize(
    ("network", "what"),
    [
        (AffineNet(), "has a step that gives a linear map"),
        (TwoStep(first=AffineNet(), second=VoxelMorph(field="displacement")), "has a step that gives a linear map"),
        (Implicit(features=FeatureUNetEncoder(), steps=(1, 1, 1)), "solves for its map"),
    ],
)
def test_adareg_is_for_networks_that_give_a_field(network: AnyNetwork, what: str) -> None:
    with pytest.raises(BadInput, match=f"the weighting adareg scales a field that a network gives, this model {what}"):
        scheme_of(AdaReg(), network=network, layers=(), preparation=Preparation(spacing=(1.0, 1.0), shape=(16, 16)))


def test_a_score_that_is_no_number_has_not_collapsed() -> None:
    scheme = scheme_of(AdaptiveScoring(warmup=0.0, scale=0.25))
    with torch.no_grad():
        next(scoring_of(scheme).network.parameters()).fill_(math.nan)
    with pytest.raises(Failed, match="the mean of the score is nan"):
        scheme.step(0, [batch_of(2)], alone)


@pytest.mark.parametrize("weighting", [ALL[0], ALL[3]], ids=["adacs", "nll"])
def test_networks_beside_the_model_are_told(weighting: AnyWeighting) -> None:
    scheme = scheme_of(weighting)
    (network,) = scheme.beside
    assert network is scheme.weighting.network  # type: ignore[union-attr]
    assert scheme_of(AdaFrame()).beside == scheme_of(None).beside == ()


def test_adareg_needs_a_smoothness() -> None:
    for loss in ((IMAGES,), (IMAGES, Smoothness(weight=0.0))):
        with pytest.raises(BadInput, match="weighs the smoothness of a field, the loss has none"):
            scheme_of(AdaReg(), loss=loss)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptiveScoring(alpha=-1.0), "alpha and beta and factor of adaptivescoring must be finite and at least 0"),
        (lambda: AdaptiveScoring(alpha=math.nan), "must be finite and at least 0, got nan, 1.5, 50.0"),
        (lambda: AdaptiveScoring(beta=math.inf), "must be finite and at least 0"),
        (lambda: AdaptiveScoring(momentum=1.0), r"momentum must lie in \[0, 1\)"),
        (lambda: AdaptiveScoring(warmup=0.5), r"warmup in \[0, 0.5\)"),
        (lambda: AdaptiveScoring(scale=math.inf), "the scale of AdaptiveScoring must be above 0 and finite"),
        (lambda: AdaReg(contrast=-1.0), "contrast of adareg must be finite and at least 0"),
        (lambda: AdaReg(contrast=math.nan), "contrast of adareg must be finite and at least 0"),
        (lambda: AdaFrame(slope=-1.0), "slope and shift of adaframe must be finite"),
        (lambda: Likelihood(beta=2.0), "beta of a likelihood"),
        (lambda: Likelihood(scale=0.0), "the scale of Likelihood must be above 0 and finite"),
    ],
)
def test_numbers_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


def test_the_score_does_not_see_the_weight_of_its_term_in_the_models_loss() -> None:
    found = []
    for weight in (1.0, 20.0):
        scheme = scheme_of(
            AdaptiveScoring(warmup=0.0, scale=0.25), loss=(replace(IMAGES, weight=weight), Smoothness(weight=0.1))
        )
        weighting, batch = scoring_of(scheme), batch_of(2)
        weighting.begin(0)
        (loss, _) = weighting._loss(batch, field_of(2))  # pyright: ignore[reportPrivateUsage]
        found.append(loss.detach())
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("directions", ["forward", "both"])
def test_a_score_is_computed_once_for_an_image_and_anew_for_accumulated_batches(directions: str) -> None:
    scheme = scheme_of(AdaptiveScoring(warmup=0.0, scale=0.25), directions=directions)
    weighting, batch = scoring_of(scheme), batch_of(2)
    calls: list[int] = []
    weighting.network.core.register_forward_hook(lambda *_: calls.append(1))
    ways = 2 if directions == "both" else 1
    scheme.step(0, [batch], alone)
    assert len(calls) == ways
    scheme.step(1, [batch, batch], alone)  # of one and the same tensor
    assert len(calls) == ways + 4 * ways


@pytest.mark.parametrize("code", [False, True])
def test_a_score_begins_alike_everywhere_where_the_sigmoid_has_a_slope(code: bool) -> None:
    weighting = scoring_of(scheme_of(AdaptiveScoring(scale=0.25, paper_code=code)))
    with torch.no_grad():
        score = weighting.network.scores(torch.rand(1, 1, *SHAPES[2]))
    assert float(score.mean()) == pytest.approx(0.5 if code else 0.8808, abs=0.1 if code else 1e-4)
    assert (float(score.max() - score.min()) > 0) == code
