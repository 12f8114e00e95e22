"""Terms of a loss against plain numpy, their sum, what they ask for."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from loss_cases import SHAPE, SPACING, TERMS, batch_of, field_of, full_prediction, said
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.autograd import gradcheck

from oracles.make import normal
from warpwright.energies.consistency import gradient_inverse_consistency, sampling_points
from warpwright.energies.losses import (
    AnyTerm,
    GradientInverseConsistency,
    Images,
    InverseConsistency,
    LandmarkDistance,
    Noise,
    Overlap,
    Smoothness,
    VelocityPrior,
    pair_loss,
)
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.regularity import Bending, Diffusion
from warpwright.energies.similarity import LNCC, MSE
from warpwright.errors import BadInput
from warpwright.networks import Displacement, Velocity, VelocityDistribution
from warpwright.sampling import downsample


def read(image: np.ndarray, displacement: np.ndarray, mode: str) -> np.ndarray:
    """(C, *S) at x + u(x)."""
    at = np.indices(image.shape[1:]) + displacement
    return np.stack([map_coordinates(channel, at, order=1, mode=mode) for channel in image])


def weights(batch: PairBatch, displacement: Tensor, sample: int) -> np.ndarray:
    """(1, *S): the fixed weight times the moving one, which fades to zero over a voxel outside."""
    assert batch.fixed_weight is not None
    assert batch.moving_weight is not None
    cover = read(batch.moving_weight[sample].numpy(), displacement[sample].numpy(), "grid-constant")
    return batch.fixed_weight[sample].numpy() * cover


def mean_squares(batch: PairBatch, displacement: Tensor) -> Tensor:
    found = []
    for k in range(2):
        moved = read(batch.moving[k].numpy(), displacement[k].numpy(), "nearest")
        weight = weights(batch, displacement, k)[0]
        found.append((weight * ((moved - batch.fixed[k].numpy()) ** 2).mean(0)).sum() / weight.sum())
    return torch.tensor(found)


# --------------------------------------------------------------------------------------------------------------- terms


def test_images(dim: int) -> None:
    batch, field = batch_of(dim), field_of(dim)
    found = Images(similarity=MSE(), weight=7.0).value(batch, said(field))
    torch.testing.assert_close(found, mean_squares(batch, field), atol=1e-12, rtol=0)
    plain = replace(batch, fixed_weight=None, moving_weight=torch.ones_like(batch.fixed[:, :1]))
    ones = replace(plain, fixed_weight=torch.ones_like(batch.fixed[:, :1]))
    for one in (plain, replace(plain, moving_weight=None)):
        torch.testing.assert_close(Images(similarity=MSE()).value(one, said(field)), mean_squares(ones, field))


def test_images_adapt_their_window_to_the_spacing(dim: int) -> None:
    batch, field = batch_of(dim), field_of(dim)
    radius = (2, 1, 1)[:dim]  # 1.4 mm on voxels of 0.7, 1.3 and 2.1 mm
    found = Images(similarity=LNCC(radius=2)).value(batch, said(field))
    expected = LNCC(radius=radius).match(batch.fixed, batch.moving, field, None, batch.fixed_weight, batch.moving_weight)
    assert torch.equal(found, expected)


def test_images_of_coarser_heads(dim: int) -> None:
    """As many of the finest of them as there are weights."""
    batch, field = batch_of(dim), field_of(dim)
    levels = [Displacement(values=s * field, shape=SHAPE[:dim], factors=(1,) * dim) for s in (0.2, 0.6)]
    prediction = said(field, coarser=tuple(levels))
    fine, *coarse = (mean_squares(batch, s * field) for s in (1, 0.2, 0.6))
    both = Images(similarity=MSE(), coarser=(0.5, 0.25)).value(batch, prediction)
    torch.testing.assert_close(both, fine + 0.5 * coarse[0] + 0.25 * coarse[1], atol=1e-12, rtol=0)
    last = Images(similarity=MSE(), coarser=(0.5,)).value(batch, prediction)
    torch.testing.assert_close(last, fine + 0.5 * coarse[1], atol=1e-12, rtol=0)
    with pytest.raises(BadInput, match="weights for 3 coarser fields, the network has 2"):
        Images(similarity=MSE(), coarser=(1, 1, 1)).value(batch, prediction)
    small = said(field, coarser=(replace(levels[0], factors=(2,) * dim),))
    with pytest.raises(BadInput, match=r"coarser field of factors \(2, 2.*expected 1 \(a layer FullSize\)"):
        Images(similarity=MSE(), coarser=(1,)).value(batch, small)


@pytest.mark.parametrize("factor", [2, 3])
def test_images_at_coarser_voxels(dim: int, factor: int) -> None:
    """Anti-aliased images, a field in voxels of their lattice, and a window that knows their size."""
    batch, size = batch_of(dim), tuple(-(-n // factor) for n in SHAPE[:dim])
    matrix = 0.1 * torch.randn(dim, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shift = torch.tensor([0.7, -0.4, 0.5][:dim], dtype=torch.float64)

    def field(shape: tuple[int, ...], step: int) -> Tensor:
        """An affine one about the middle, in voxels of `step`."""
        at = torch.tensor(np.indices(shape).reshape(dim, -1).T) - (torch.tensor(shape).double() - 1) / 2
        return (at @ matrix.T + shift / step).T.reshape(1, dim, *shape).expand(2, dim, *shape)

    coarse = {
        name: downsample(torch.as_tensor(getattr(batch, name)), (factor,) * dim)
        for name in ("fixed", "moving", "fixed_weight", "moving_weight")
    }
    expected = mean_squares(replace(batch, **coarse), field(size, factor))
    found = Images(similarity=MSE(), downsampling=factor).value(batch, said(field(SHAPE[:dim], 1)))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    window = LNCC(radius=2).for_spacing(tuple(factor * s for s in SPACING[:dim]))
    fixed, moving, *weight = coarse.values()
    expected = window.match(fixed, moving, field(size, factor), None, weight[0], weight[1])
    found = Images(similarity=LNCC(radius=2), downsampling=factor).value(batch, said(field(SHAPE[:dim], 1)))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    with pytest.raises(BadInput, match="the image loss needs a downsampling of at least 1, got 0"):
        Images(similarity=MSE(), downsampling=0)


def squared_gradient(field: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Mean over pairs of neighbours of squared differences in mm, summed over components and axes."""
    total = 0.0
    for component, axis in product(range(len(spacing)), repeat=2):
        total += (np.diff(field[component] * spacing[component] / spacing[axis], axis=axis) ** 2).mean()
    return total


def test_smoothness_of_the_displacement(dim: int) -> None:
    batch, field = batch_of(dim), field_of(dim)
    expected = torch.tensor([squared_gradient(u.numpy(), SPACING[:dim]) for u in field])
    term = Smoothness(regularity=Diffusion(weight=3.0), weight=5.0)
    torch.testing.assert_close(term.value(batch, said(field)), 3 * expected, atol=1e-12, rtol=0)
    curved = Smoothness(regularity=Bending())
    expected = Bending().regularity(field, SPACING[:dim])
    assert torch.equal(curved.value(batch, full_prediction(dim)), Bending().regularity(field_of(dim, 0.3), SPACING[:dim]))
    assert torch.equal(curved.value(batch, said(field)), expected)


def test_a_velocity_at_half_the_resolution_has_voxels_of_twice_the_size(dim: int) -> None:
    batch, prediction = batch_of(dim), full_prediction(dim)
    doubled = tuple(2 * s for s in SPACING[:dim])
    expected = torch.tensor([squared_gradient(v.numpy(), doubled) for v in prediction.velocities[0].values])
    torch.testing.assert_close(Smoothness(on="velocity").value(batch, prediction), expected, atol=1e-12, rtol=0)
    uneven = replace(prediction.velocities[0], factors=(1, 2, 4)[:dim])
    spacing = tuple(s * k for s, k in zip(SPACING[:dim], (1, 2, 4), strict=False))
    expected = torch.tensor([squared_gradient(v.numpy(), spacing) for v in uneven.values])
    found = Smoothness(on="velocity").value(batch, Prediction((uneven, prediction.final)))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_overlap(dim: int) -> None:
    batch, field = batch_of(dim), field_of(dim)
    assert batch.fixed_labels is not None
    assert batch.moving_labels is not None
    expected = []
    for k, labels in product(range(2), ((1, 3),)):
        weight, losses = weights(batch, field, k)[0], []
        for label in labels:
            fixed = (batch.fixed_labels[k, 0].numpy() == label).astype(float)
            moved = read((batch.moving_labels[k].numpy() == label).astype(float), field[k].numpy(), "nearest")[0]
            losses.append(1 - 2 * (weight * fixed * moved).sum() / (weight * (fixed**2 + moved**2)).sum())
        expected.append(np.mean(losses))
    found = Overlap(labels=(1, 3), weight=2.0).value(batch, said(field))
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-12, rtol=0)


def shifted(dim: int) -> tuple[PairBatch, tuple[int, ...]]:
    """Labels and points that a translation by whole voxels brings on one another: moving(x + shift) = fixed(x)."""
    shape, shift = (12, 14, 11)[:dim], (2, -1, 3)[:dim]
    generator = torch.Generator().manual_seed(2)
    fixed = torch.zeros(1, 1, *shape, dtype=torch.int16)
    fixed[(..., *(slice(4, 7) for _ in shape))] = torch.randint(1, 3, (3,) * dim, generator=generator, dtype=torch.int16)
    points = 4 + 3 * torch.rand(5, dim, generator=generator, dtype=torch.float64)
    images = torch.rand(2, 1, 1, *shape, generator=generator, dtype=torch.float64)
    batch = PairBatch(
        fixed=images[0],
        moving=images[1],
        spacing=SPACING[:dim],
        fixed_labels=fixed,
        moving_labels=fixed.roll(shift, tuple(range(2, dim + 2))),
        fixed_points=(points,),
        moving_points=(points + torch.tensor(shift),),
    )
    return batch, shift


def test_labels_and_points_that_were_translated(dim: int) -> None:
    batch, shift = shifted(dim)
    right = torch.tensor(shift, dtype=torch.float64).reshape(1, dim, *(1,) * dim).expand(1, dim, *batch.fixed.shape[2:])
    for term in (Overlap(labels=(1, 2)), LandmarkDistance(), LandmarkDistance(threshold=0.5)):
        torch.testing.assert_close(term.value(batch, said(right)), torch.zeros(1).double(), atol=1e-12, rtol=0)
        assert term.value(batch, said(-right)) > 0.5
    still = said(torch.zeros_like(right))
    distance = float(np.square(np.array(shift) * SPACING[:dim]).sum())
    torch.testing.assert_close(LandmarkDistance(weight=9.0).value(batch, still), torch.tensor([distance]).double())
    capped = torch.tensor([2 * 0.5 * distance**0.5 - 0.25]).double()
    torch.testing.assert_close(LandmarkDistance(threshold=0.5).value(batch, still), capped)
    back = said(-right)
    torch.testing.assert_close(Overlap(labels=(1, 2)).value(batch.swapped(), back), torch.zeros(1).double(), atol=1e-12, rtol=0)


def test_landmarks(dim: int) -> None:
    """Sets of different size; none at all is no distance."""
    batch, field = batch_of(dim), field_of(dim)
    assert batch.fixed_points is not None
    assert batch.moving_points is not None
    expected = []
    for u, points, targets in zip(field.numpy(), batch.fixed_points, batch.moving_points, strict=True):
        at = points.numpy().T
        moved = at + np.stack([map_coordinates(c, at, order=1, mode="nearest") for c in u])
        difference = (moved.T - targets.numpy()) * SPACING[:dim]
        expected.append((difference**2).sum(1).mean())
    found = LandmarkDistance().value(batch, said(field))
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-12, rtol=0)
    none = (batch.fixed_points[0], torch.zeros(0, dim, dtype=torch.float64))
    found = LandmarkDistance().value(replace(batch, fixed_points=none, moving_points=none), said(field))
    assert found[0] > 0
    assert found[1] == 0


def test_landmarks_of_coarser_heads(dim: int) -> None:
    batch, field = batch_of(dim), field_of(dim)
    levels = tuple(Displacement(values=s * field, shape=SHAPE[:dim], factors=(1,) * dim) for s in (0.2, 0.6))
    fine, *coarse = (LandmarkDistance().value(batch, said(s * field)) for s in (1, 0.2, 0.6))
    found = LandmarkDistance(coarser=(0.5, 0.25)).value(batch, said(field, coarser=levels))
    torch.testing.assert_close(found, fine + 0.5 * coarse[0] + 0.25 * coarse[1], atol=1e-12, rtol=0)
    with pytest.raises(BadInput, match="the loss landmarks has weights for 1 coarser fields, the network has 0"):
        LandmarkDistance(coarser=(1.0,)).value(batch, said(field))


def test_inverse_consistency(dim: int) -> None:
    """The penalties at the points that torch's generator gives, of displacements in voxels."""
    batch, there, back = batch_of(dim), field_of(dim), -0.8 * field_of(dim)
    shape = tuple(there.shape[2:])
    known = said(there, inverse=back)
    for every in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            first = InverseConsistency(every=every).value(batch, known)
            torch.manual_seed(5)
            second = GradientInverseConsistency(every=every).value(batch, known)
            torch.manual_seed(5)
            third = GradientInverseConsistency(every=every, derivative="exact").value(batch, known)
        points = sampling_points(shape, every=every, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        expected = []
        for u, w in zip(there.numpy(), back.numpy(), strict=True):
            at = points[0].flatten(1).numpy()
            errors = [x2 - at for x2 in (went(u, went(w, at)), went(w, went(u, at)))]
            expected.append(sum((e**2).mean() for e in errors))
        torch.testing.assert_close(first, torch.tensor(expected), atol=1e-12, rtol=0)
        torch.testing.assert_close(second, gradient_inverse_consistency(there, back, points, step=0.1))
        torch.testing.assert_close(third, gradient_inverse_consistency(there, back, points, derivative="exact"))
    exact = torch.full_like(there, 0.5)
    for term in (InverseConsistency(), GradientInverseConsistency()):
        assert term.value(batch, said(exact, inverse=-exact)).abs().max() < 1e-24


def went(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where a displacement takes points (D, N), by scipy."""
    return points + np.stack([map_coordinates(component, points, order=1, mode="nearest") for component in field])


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("term", [InverseConsistency, GradientInverseConsistency, Smoothness, Noise])
def test_weights_that_are_none_are_refused(term: Any, weight: float) -> None:
    with pytest.raises(BadInput, match=rf"must be at least 0 and finite, got {weight}"):
        term(weight=weight)
    for other in (lambda: Images(similarity=MSE(), weight=weight), lambda: Overlap(labels=(1,), weight=weight)):
        with pytest.raises(BadInput, match=rf"must be at least 0 and finite, got {weight}"):
            other()


@pytest.mark.parametrize("term", [InverseConsistency, GradientInverseConsistency])
def test_points_closer_than_voxels_are_refused(term: Any) -> None:
    with pytest.raises(BadInput, match="every 1 voxel or more, got 0"):
        term(every=0)


def divergence(mean: np.ndarray, log_variance: np.ndarray, prior: float) -> float:
    """The formula of `VelocityPrior` with every neighbour looked for."""
    dim, shape = len(mean), mean.shape[1:]
    first, slopes, pairs = 0.0, np.zeros(dim), np.zeros(dim)
    for place in np.ndindex(shape):
        degree = 0
        for axis, step in product(range(dim), (-1, 1)):
            other = tuple(p + step * (a == axis) for a, p in enumerate(place))
            if 0 <= other[axis] < shape[axis]:
                degree += 1
                slopes[axis] += sum((mean[c][place] - mean[c][other]) ** 2 for c in range(dim))
                pairs[axis] += dim
        first += sum(prior * degree * np.exp(v[place]) - v[place] for v in log_variance)
    return dim / 2 * (first / mean.size + prior / 2 * (slopes / pairs).mean())


def test_velocity_prior(dim: int, generator: torch.Generator) -> None:
    mean, log_variance = (normal(generator, 2, dim, *(4, 5, 3)[:dim]) for _ in range(2))
    shape = (8, 9, 6)[:dim]
    given = VelocityDistribution(mean=mean, log_variance=log_variance, shape=shape, factors=(2,) * dim)
    prediction = Prediction((given, *said(field_of(dim)).trail))
    for prior in (25.0, 10.0):
        expected = [divergence(m.numpy(), v.numpy(), prior) for m, v in zip(mean, log_variance, strict=True)]
        found = VelocityPrior(prior=prior).value(batch_of(dim), prediction)
        torch.testing.assert_close(found, torch.tensor(expected), atol=0, rtol=1e-12)


def test_the_best_variance_is_that_of_the_prior(dim: int) -> None:
    """One over the smoothness times the number of neighbours, whatever the mean of the others is."""
    shape = (4, 5, 3)[:dim]
    degree = sum(np.minimum(1, at) + np.minimum(1, n - 1 - at) for at, n in zip(np.indices(shape), shape, strict=True))
    log_variance = -torch.tensor(25.0 * degree).log().expand(2, dim, *shape).clone().requires_grad_()
    given = VelocityDistribution(
        mean=torch.zeros(2, dim, *shape).double(), log_variance=log_variance, shape=shape, factors=(1,) * dim
    )
    (gradient,) = torch.autograd.grad(VelocityPrior().value(batch_of(dim), Prediction((given,))).sum(), log_variance)
    assert gradient.abs().max() < 1e-15


def test_noise_counts_once_for_every_step_that_looks_for_it(dim: int) -> None:
    """However many estimates of the step carry it on."""
    one, two = torch.tensor([0.5, 0.25]), torch.tensor([1.0, 2.0])
    first, second = (said(field_of(dim), noise_error=error).final for error in (one, two))
    trail = (first, replace(first, values=2 * first.values), second, replace(second, values=-second.values))
    assert Noise().value(batch_of(dim), Prediction(trail)).tolist() == [1.5, 2.25]
    assert Noise().value(batch_of(dim), Prediction((first, *said(field_of(dim)).trail))).tolist() == one.tolist()


# ------------------------------------------------------------------------------------------------------------- sums


def test_the_loss_is_the_weighted_sum(dim: int) -> None:
    batch, prediction = batch_of(dim), full_prediction(dim)
    torch.manual_seed(5)
    total, parts = pair_loss(TERMS, batch, prediction)
    torch.manual_seed(5)
    values = [term.value(batch, prediction) for term in TERMS]
    expected = sum(t.weight * v for t, v in zip(TERMS, values, strict=True))
    torch.testing.assert_close(total, expected)
    assert total.shape == (2,)
    assert list(parts) == ["similarity", "smoothness", "overlap", "landmarks", "inverse", "gradicon", "prior"]
    torch.testing.assert_close(parts["similarity"], values[0] + values[1])  # two terms of one name
    torch.testing.assert_close(parts["overlap"], values[3])
    nothing, none = pair_loss((), batch, prediction)
    assert nothing.tolist() == [0.0, 0.0]
    assert none == {}


def test_every_pair_counts_by_itself(dim: int) -> None:
    """A value belongs to one pair, whatever the others of its batch are."""
    batch, prediction = batch_of(dim), full_prediction(dim)
    torch.manual_seed(5)
    both, _ = pair_loss(TERMS, batch, prediction)
    for k in range(2):
        one = replace(
            batch,
            **{f.name: getattr(batch, f.name)[k : k + 1] for f in fields(batch) if f.name != "spacing"},
        )

        def cut(estimate: Any, k: int = k) -> Any:
            tensors = {f.name: getattr(estimate, f.name) for f in fields(estimate)}
            tensors = {name: value[k : k + 1] for name, value in tensors.items() if isinstance(value, Tensor)}
            return replace(estimate, coarser=tuple(cut(level) for level in estimate.coarser), **tensors)

        torch.manual_seed(5)
        alone, _ = pair_loss(TERMS, one, Prediction(tuple(cut(e) for e in prediction.trail)))
        torch.testing.assert_close(alone[0], both[k], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("term", [t for t in TERMS if not isinstance(t, VelocityPrior)], ids=lambda t: type(t).__name__)
def test_gradients(term: AnyTerm, dim: int, generator: torch.Generator) -> None:
    """In everything that a model gives; points stay away from the kinks of linear interpolation."""
    shape = (4, 3, 3)[:dim]
    batch = replace(
        batch_of(dim),
        fixed=torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64),
        moving=torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64),
        fixed_weight=torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64),
        moving_weight=None,  # what fades outside is not differentiated (see `Similarity.match`)
        fixed_labels=torch.randint(0, 4, (1, 1, *shape), generator=generator),
        moving_labels=torch.randint(0, 4, (1, 1, *shape), generator=generator),
        fixed_points=(torch.full((1, dim), 1.4, dtype=torch.float64),),
        moving_points=(torch.full((1, dim), 1.1, dtype=torch.float64),),
    )
    where = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"))[None]
    size = torch.tensor(shape).reshape(1, dim, *(1,) * dim)
    inward = torch.where(2 * where < size - 1, 0.4, -0.4).to(torch.float64)  # nothing leaves the image
    inputs = (inward + 0.05 * normal(generator, *inward.shape), -inward + 0.05 * normal(generator, *inward.shape))
    if isinstance(term, InverseConsistency):
        inputs = (inputs[0], inward.flip(2).clone())
    inputs = (*inputs, normal(generator, 1, dim, 2, *shape[1:]))

    def value(there: Tensor, back: Tensor, velocity: Tensor) -> Tensor:
        torch.manual_seed(5)
        factors = (2, *(1,) * (dim - 1))
        trail = Prediction((Velocity(values=velocity, shape=shape, factors=factors), *said(there, inverse=back).trail))
        return term.value(batch, trail)

    assert gradcheck(value, [x.clone().requires_grad_() for x in inputs])


def test_gradients_of_the_prior(dim: int, generator: torch.Generator) -> None:
    shape = (3, 4, 2)[:dim]

    def value(mean: Tensor, log_variance: Tensor) -> Tensor:
        given = VelocityDistribution(mean=mean, log_variance=log_variance, shape=shape, factors=(1,) * dim)
        return VelocityPrior().value(batch_of(dim), Prediction((given,)))

    assert gradcheck(value, [normal(generator, 2, dim, *shape).requires_grad_() for _ in range(2)])


# -------------------------------------------------------------------------------------------------- what is not there


def test_what_is_missing_is_named(dim: int) -> None:
    batch, field = batch_of(dim), field_of(dim)
    bare = replace(batch, fixed_labels=None, fixed_points=None)
    wanted: list[tuple[AnyTerm, PairBatch, str]] = [
        (Overlap(labels=(1,)), bare, "overlap loss needs label maps of both images, the data has none"),
        (LandmarkDistance(), bare, "landmark loss needs points of both images, the data has none"),
        (Smoothness(on="velocity"), batch, "wants a smooth velocity, the model has none: expected on = 'displacement'"),
        (InverseConsistency(), batch, "needs a model that gives both directions, this one gives none back"),
        (VelocityPrior(), batch, "needs a network that gives a distribution of velocities, this one gives none"),
        (Noise(), batch, "needs a network that looks for noise, expected one of the kind diffusemorph"),
    ]
    for term, data, sentence in wanted:
        with pytest.raises(BadInput, match=sentence):
            term.value(data, said(field))
    with pytest.raises(BadInput, match="overlap loss needs at least one label"):
        Overlap(labels=())


def test_terms_say_whether_they_apply(dim: int) -> None:
    batch = batch_of(dim)
    assert all(term.applies(batch) for term in TERMS)
    for bare, left_out in (
        (replace(batch, moving_labels=None), Overlap),
        (replace(batch, fixed_labels=None), Overlap),
        (replace(batch, moving_points=None), LandmarkDistance),
        (replace(batch, fixed_points=None), LandmarkDistance),
    ):
        assert [type(term) for term in TERMS if not term.applies(bare)] == [left_out]
