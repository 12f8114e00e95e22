"""SmoothProper: both steps and what they converge to against solvers, and what flat and narrow evidence does."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
import torch
from layers_distributions import BETA, BY_KIND, evidence, logits_of, run
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.optimize import minimize
from torch import Tensor

from warpwright.layers import Expected, SmoothProper
from warpwright.networks import Basis, Displacement
from warpwright.sampling import gaussian

Array = NDArray[np.float64]


def rows(values: Tensor) -> Array:
    """(1, C, *S) as (N, C)."""
    return values[0].flatten(1).T.numpy()


def smooth(field: Array, square: float) -> Array:
    """`(I + s L)^-1 u` of (C, *S), by scipy's cosine transform."""
    axes, stiffness = tuple(range(1, field.ndim)), np.zeros(field.shape[1:])
    for axis, n in enumerate(field.shape[1:]):
        along = 2 - 2 * np.cos(np.pi * np.arange(n) / n)
        stiffness += along.reshape([-1 if k == axis else 1 for k in range(field.ndim - 1)])
    return idctn(dctn(field, axes=axes, norm="ortho") / (1 + square * stiffness), axes=axes, norm="ortho")


def distances(v: Array, vectors: Array) -> Array:
    return np.square(v[:, None] - vectors).sum(-1)


def energy(q: Tensor, v: Tensor, probability: Tensor, vectors: Tensor, alpha: float, beta: float) -> float:
    """E of the module's first lines, its terms one after the other."""
    b, rough = vectors.numpy(), sum(float(v.diff(dim=axis).square().sum()) for axis in range(2, v.ndim))
    given, one, field = rows(probability), rows(q), rows(v)
    near = (one * distances(field, b)).sum() + np.square(one @ b - field).sum()
    return float(np.square(given - one).sum() + near / (2 * alpha) + beta * rough)


def projected(values: Array) -> Array:
    """(N, m): the nearest distributions, by sorting."""
    falling = -np.sort(-values, axis=1)
    taken = (np.cumsum(falling, 1) - 1) / np.arange(1, values.shape[1] + 1)
    last = (falling > taken).sum(1) - 1
    return np.maximum(values - taken[np.arange(len(values)), last][:, None], 0)


def steps(
    kind: Any, shape: tuple[int, ...], alphas: list[float], generator: torch.Generator
) -> tuple[Tensor, Tensor, Any, Any]:
    """Evidence, its displacements, and message passing without and with its last iteration."""
    probability, vectors = evidence(generator, shape, Basis(reach=2))
    before, after = (run(probability, vectors, alphas[:k], q_step=kind) for k in (len(alphas) - 1, len(alphas)))
    return probability, vectors, before, after


# ----------------------------------------------------------------------------------------------------------- the steps


def test_the_start_is_an_average_by_confidence(shape: tuple[int, ...], generator: torch.Generator) -> None:
    """Seen in the first q, which is the projection drawn towards the start."""
    probability, vectors = evidence(generator, shape, Basis(reach=2))
    confidence = probability[0].numpy().max(0, keepdims=True) ** 2
    means = np.einsum("m...,md->d...", probability[0].numpy(), vectors.numpy())
    start = smooth(confidence * means, 9.0) / smooth(confidence, 9.0)
    expected = projected(rows(probability) - distances(start.reshape(len(shape), -1).T, vectors.numpy()) / (4 * 5.0))
    found = run(probability, vectors, [5.0], start=3.0).distribution()
    np.testing.assert_allclose(rows(found), expected, rtol=0, atol=1e-12)


def test_the_split_step_is_a_projection(shape: tuple[int, ...], generator: torch.Generator) -> None:
    probability, vectors, before, after = steps("split", shape, [9.0, 4.0, 1.5], generator)
    expected = projected(rows(probability) - distances(rows(before.field), vectors.numpy()) / (4 * 1.5))
    np.testing.assert_allclose(rows(after.distribution()), expected, rtol=0, atol=1e-12)


def test_the_step_with_a_divergence(shape: tuple[int, ...], generator: torch.Generator) -> None:
    """`KL(q | p) / 4 + sum_i q_i |v - b_i|^2 / (2 alpha)` is least where its derivative is the same for every entry."""
    probability, vectors, before, after = steps("kl", shape, [9.0, 4.0, 1.5], generator)
    q, p = rows(after.distribution()), rows(probability)
    slope = (np.log(q / p) + 1) / 4 + distances(rows(before.field), vectors.numpy()) / (2 * 1.5)
    np.testing.assert_allclose(slope, slope.mean(1, keepdims=True) + 0 * slope, rtol=0, atol=1e-10)
    assert np.abs(q - p).max() > 0.1


@pytest.mark.parametrize("alpha", [60.0, 4.0, 0.6])
def test_the_exact_step_is_least(alpha: float, shape: tuple[int, ...], generator: torch.Generator) -> None:
    """Where q is above zero the derivative of E is the same number, and nowhere is it less."""
    probability, vectors, before, after = steps("exact", shape, [9.0, 4.0, alpha], generator)
    q, p, v, b = rows(after.distribution()), rows(probability), rows(before.field), vectors.numpy()
    slope = 2 * (q - p) + (distances(v, b) + 2 * (q @ b - v) @ b.T) / (2 * alpha)
    level = (slope * (q > 0)).sum(1, keepdims=True) / (q > 0).sum(1, keepdims=True)
    np.testing.assert_allclose(slope[q > 0], (level + 0 * slope)[q > 0], rtol=0, atol=1e-10)
    assert (slope - level).min() > -1e-10
    assert (q > 0).mean() < 0.99
    split = run(probability, vectors, [9.0, 4.0], q_step="split").distribution()
    assert np.abs(rows(split) - q).max() > 1e-3


def test_the_exact_step_of_one_voxel_is_that_of_a_solver(dim: int, generator: torch.Generator) -> None:
    """No neighbours, so v is the mean of p at first."""
    probability, vectors = evidence(generator, (1,) * dim, Basis(reach=1))
    p, b, alpha = rows(probability)[0], vectors.numpy(), 0.8
    v = p @ b

    def value(q: Array) -> tuple[float, Array]:
        off = q @ b - v
        apart = distances(v[None], b)[0]
        return np.square(p - q).sum() + (q @ apart + off @ off) / (2 * alpha), 2 * (q - p) + (apart + 2 * b @ off) / (2 * alpha)

    found = run(probability, vectors, [alpha], q_step="exact")
    one = [{"type": "eq", "fun": lambda q: q.sum() - 1, "jac": np.ones_like}]
    wanted = minimize(
        value, np.full(len(b), 1 / len(b)), jac=True, method="SLSQP", bounds=[(0, None)] * len(b), constraints=one, tol=1e-14
    )
    np.testing.assert_allclose(rows(found.distribution())[0], wanted.x, rtol=0, atol=1e-6)
    np.testing.assert_allclose(rows(found.field)[0], wanted.x @ b, rtol=0, atol=1e-6)


@BY_KIND
def test_the_field_is_the_smooth_expectation(kind: Any, shape: tuple[int, ...], generator: torch.Generator) -> None:
    probability, vectors = evidence(generator, shape, Basis(reach=2), batch=2)
    found = run(probability, vectors, [20.0, 6.0, 2.0], q_step=kind)
    q = found.distribution()
    assert q.min() >= 0
    torch.testing.assert_close(q.sum(1), torch.ones_like(q[:, 0]), rtol=0, atol=1e-12)
    mean = torch.einsum("bm...,md->bd...", q, vectors)
    torch.testing.assert_close(found.expectation, mean, rtol=0, atol=1e-11)
    for field, means in zip(found.field, found.expectation, strict=True):
        np.testing.assert_allclose(field.numpy(), smooth(means.numpy(), 2.0 * BETA), rtol=0, atol=1e-12)


def test_averages_in_the_place_of_the_minimum(shape: tuple[int, ...], generator: torch.Generator) -> None:
    """Of the start too, which is seen as what q is drawn towards."""
    probability, vectors = evidence(generator, shape, Basis(reach=2))
    found = run(probability, vectors, [2.0], start=1.5, v_solver="gaussian")
    confidence = probability.amax(1, keepdim=True).square()
    means = torch.einsum("bm...,md->bd...", probability, vectors)
    start = gaussian(confidence * means, [1.5 * 2**0.5] * len(shape))
    start = start / gaussian(confidence, [1.5 * 2**0.5] * len(shape))
    expected = projected(rows(probability) - distances(rows(start), vectors.numpy()) / (4 * 2.0))
    np.testing.assert_allclose(rows(found.distribution()), expected, rtol=0, atol=1e-12)
    smoothed = gaussian(found.expectation, [(2 * 2.0 * BETA) ** 0.5] * len(shape))
    torch.testing.assert_close(found.field, smoothed, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------- the energy


@pytest.mark.parametrize(("alpha", "beta"), [(30.0, 1.0), (3.0, 2.0), (0.6, 20.0)])
def test_no_exact_step_raises_the_energy(alpha: float, beta: float, shape: tuple[int, ...], generator: torch.Generator) -> None:
    probability, vectors = evidence(generator, shape, Basis(reach=2))
    found = [run(probability, vectors, [alpha] * k, beta, q_step="exact") for k in range(1, 7)]
    values: list[float] = []
    for one, other in zip(found, [None, *found], strict=False):
        states = [(one, one)] if other is None else [(one, other), (one, one)]
        values += [energy(q.distribution(), v.field, probability, vectors, alpha, beta) for q, v in states]
    assert np.diff(values).max() <= 1e-10
    assert values[0] - values[-1] > 1e-3


def test_iterations_arrive_at_the_minimum(generator: torch.Generator) -> None:
    """Nine voxels with nine displacements each: E is convex in q and v, as 2 alpha is above the spread of the displacements."""
    probability, vectors = evidence(generator, (3, 3), Basis(reach=1))
    p, b, alpha, beta = rows(probability), vectors.numpy(), 4.0, 0.7
    assert np.linalg.eigvalsh(b.T @ b).max() <= 2 * alpha
    shape, ends = p.shape, p.size

    def value(unknown: Array) -> tuple[float, Array]:
        q, v = unknown[:ends].reshape(shape), unknown[ends:].reshape(-1, 2)
        field = torch.from_numpy(v.T.reshape(1, 2, 3, 3))
        of_q = 2 * (q - p) + (distances(v, b) + 2 * (q @ b - v) @ b.T) / (2 * alpha)
        grid = v.reshape(3, 3, 2)
        rough = np.zeros_like(grid)
        for axis in (0, 1):
            change = np.diff(grid, axis=axis)
            wide = [(0, 0)] * 3
            wide[axis] = (1, 1)
            rough -= np.diff(np.pad(change, wide), axis=axis)
        of_v = (2 * v - 2 * q @ b) / alpha + 2 * beta * rough.reshape(-1, 2)
        total = energy(torch.from_numpy(q.T.reshape(1, 9, 3, 3)), field, probability, vectors, alpha, beta)
        return total, np.concatenate([of_q.ravel(), of_v.ravel()])

    first = np.concatenate([np.full(ends, 1 / 9), np.zeros(18)])
    sums = np.kron(np.eye(9), np.ones(9))
    each = {
        "type": "eq",
        "fun": lambda unknown: unknown[:ends].reshape(shape).sum(1) - 1,
        "jac": lambda _: np.hstack([sums, np.zeros((9, 18))]),
    }
    bounds = [(0, 1)] * ends + [(None, None)] * 18
    wanted = minimize(value, first, jac=True, method="SLSQP", bounds=bounds, constraints=[each], options={"ftol": 1e-13})
    assert wanted.success
    found = run(probability, vectors, [alpha] * 60, beta, q_step="exact")
    reached = energy(found.distribution(), found.field, probability, vectors, alpha, beta)
    assert reached == pytest.approx(wanted.fun, abs=1e-9)
    np.testing.assert_allclose(rows(found.distribution()), wanted.x[:ends].reshape(shape), rtol=0, atol=1e-5)
    np.testing.assert_allclose(rows(found.field), wanted.x[ends:].reshape(-1, 2), rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------- what evidence does


@BY_KIND
@pytest.mark.parametrize("solver", ["exact", "gaussian"])
def test_the_same_certainty_everywhere_is_kept(kind: Any, solver: Any, shape: tuple[int, ...]) -> None:
    vectors, j = Basis(reach=3, step=1.5).vectors(len(shape)).double(), 3
    probability = torch.zeros(2, len(vectors), *shape, dtype=torch.float64)
    probability[:, j] = 1
    found = run(probability, vectors, [45.0, 10.0, 2.0], q_step=kind, v_solver=solver)
    expected = vectors[j].reshape(1, -1, *(1,) * len(shape)).expand_as(found.field)
    for field in (found.field, found.expectation):
        torch.testing.assert_close(field, expected, rtol=0, atol=1e-9)  # the divergence takes zeros as 1e-12


def column(dim: int, length: int) -> tuple[Tensor, Basis, Tensor]:
    """Distributions (1, m, length, 3 (, 2)): certain of a displacement where the first axis begins, elsewhere all alike."""
    basis, shape = Basis(reach=3), (length, 3, 2)[:dim]
    vectors = basis.vectors(dim).double()
    known = torch.tensor([1, -2, 2][:dim], dtype=torch.float64)
    probability = torch.full((1, len(vectors), *shape), 1 / len(vectors), dtype=torch.float64)
    probability[:, :, 0] = 0
    probability[:, int((vectors == known).all(1).nonzero()), 0] = 1
    return probability, basis, known


def test_flat_voxels_follow_their_neighbours(dim: int) -> None:
    """What one side knows is told further with every iteration; the means of flat distributions are zero and stay so."""
    probability, basis, known = column(dim, 16)

    def off(field: Tensor) -> Tensor:
        """Along the first axis, from the side that knows."""
        return (field[0].flatten(2).mean(2) - known[:, None]).norm(dim=0) / known.norm()

    far: list[Tensor] = []
    for iterations in (1, 4, 16, 64):
        far.append(off(run(probability, basis.vectors(dim), [1.0] * iterations, start=0.5).field)[8:])
    assert all(bool((later < sooner).all()) for sooner, later in pairwise(far))
    assert far[0].min() > 0.8
    assert far[-1].max() < 0.75  # where it is a displacement of the basis that flat voxels cannot leave
    given = logits_of(probability.clamp_min(1e-30), basis)
    layer, plain = (cast(Displacement, settings.build(dim)(given)).values for settings in (SmoothProper(), Expected()))
    torch.testing.assert_close(off(plain)[1:], torch.ones(15, dtype=torch.float64), rtol=0, atol=1e-12)
    assert off(layer).max() < 0.25
    assert off(layer).diff().min() > 0


def test_what_a_crossing_knows_is_told_along_a_line() -> None:
    """The aperture problem: of a line only the displacement across it is known, but for the voxel where another crosses it."""
    basis, middle, crossing, length = Basis(reach=3), 3, 3, 16
    vectors = basis.vectors(2).double()
    probability = torch.full((1, 49, 7, length), 1 / 49, dtype=torch.float64)
    lines = [(vectors[:, 0] == 1).double(), (vectors[:, 1] == 2).double()]
    probability[0, :, middle] = (lines[0] / 7)[:, None]
    probability[0, :, :, crossing] = (lines[1] / 7)[:, None]
    probability[0, :, middle, crossing] = lines[0] * lines[1]
    found = run(probability, vectors, SmoothProper(iterations=12).alphas(3, 1), 1.0).field[0, :, middle]
    alone = torch.einsum("bm...,md->bd...", probability, vectors)[0, 1, middle]
    assert alone.abs().sum() == pytest.approx(2)  # nothing but at the crossing
    torch.testing.assert_close(found[0], torch.ones(length, dtype=torch.float64), rtol=0, atol=0.1)  # across
    assert found[1].min() > 1  # along, where 2 is right
    assert found[1, crossing] == found[1].max() > 1.4


def test_large_bases_are_not_drawn_to_zero() -> None:
    """No displacement of thousands is likely, yet all voxels agree on their mean, and a large alpha asks for nothing else."""
    vectors = Basis(reach=6).vectors(3)
    likely = (vectors[:, 0] > 0).float()
    probability = (likely / likely.sum()).reshape(1, -1, 1, 1, 1).expand(1, -1, 3, 1, 2)
    found = run(probability, vectors, [1e-2], 1e-3, start=1.0).expectation  # keeps to the start
    torch.testing.assert_close(found[0, 0], torch.full((3, 1, 2), 3.5), rtol=1e-2, atol=0)
