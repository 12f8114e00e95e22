"""Distributions over displacements: the projection against every face of the simplex and against sorting; what it keeps."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from oracles.make import normal
from warpwright.layers.simplex import expectation, project_simplex, squared_distances


def nearest_of_all_faces(values: np.ndarray) -> np.ndarray:
    """The distribution nearest to (m,) values, by trying every set of entries that may be above zero."""
    best, least = np.zeros_like(values), np.inf
    for size in range(1, len(values) + 1):
        for chosen in combinations(range(len(values)), size):
            found = np.zeros_like(values)
            found[list(chosen)] = values[list(chosen)] + (1 - values[list(chosen)].sum()) / size
            apart = np.square(found - values).sum()
            if found.min() >= 0 and apart < least:
                best, least = found, apart
    return best


def nearest_by_sorting(values: np.ndarray) -> np.ndarray:
    falling = np.sort(values)[::-1]
    taken = (np.cumsum(falling) - 1) / np.arange(1, len(values) + 1)
    return np.maximum(values - taken[np.flatnonzero(falling > taken)[-1]], 0)


def column_by_column(values: Tensor, nearest=nearest_by_sorting) -> Tensor:
    return torch.from_numpy(np.apply_along_axis(nearest, 1, values.numpy()))


@pytest.mark.parametrize("spread", [0.1, 0.5, 4.0])
def test_the_projection_is_the_nearest_distribution(spread: float, generator: torch.Generator) -> None:
    values = spread * normal(generator, 2, 6, 5, 3)
    found = project_simplex(values)
    torch.testing.assert_close(found, column_by_column(values, nearest_of_all_faces), rtol=0, atol=1e-14)
    assert len(np.unique((found > 0).sum(1))) >= 2  # not one face only


def test_many_displacements(generator: torch.Generator) -> None:
    values = torch.cat([scale * normal(generator, 2, 343, 5) for scale in (1e-3, 0.05, 1, 30)], -1)
    torch.testing.assert_close(project_simplex(values), column_by_column(values), rtol=0, atol=1e-13)
    torch.testing.assert_close(project_simplex(values.float()).double(), column_by_column(values), rtol=0, atol=1e-5)


def test_distributions_stay_as_they_are(generator: torch.Generator) -> None:
    given = normal(generator, 2, 9, 5, 7).mul(3).softmax(1)
    given[:, 2:5] = 0
    given[0, :, 1] = 0
    given[0, 4, 1] = 1
    given = given / given.sum(1, keepdim=True)
    torch.testing.assert_close(project_simplex(given), given, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-3.7], [1]),
        ([0, 0, 0, 0], [0.25] * 4),
        ([-5, -5, -5], [1 / 3] * 3),
        ([1, 1, 0], [0.5, 0.5, 0]),
        ([1, 0, 0], [1, 0, 0]),  # what is taken from all is what the others have: on the edge of two faces
        ([0.75, 0.75, 0.25], [0.5, 0.5, 0]),
        ([1000, 0.5, 0.25], [1, 0, 0]),
        ([1e9, 0.5, -1e9], [1, 0, 0]),
        ([1e9, 1e9, 0], [0.5, 0.5, 0]),
        ([-1e9, -1e9 + 0.5], [0.25, 0.75]),
    ],
)
def test_ties_and_large_values(values: list[float], expected: list[float]) -> None:
    for kind in (torch.float64, torch.float32):
        given = torch.tensor(values, dtype=kind).reshape(1, -1, 1)
        if kind is torch.float64 or given.double().flatten().tolist() == values:  # not where single precision rounds them
            assert project_simplex(given).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_gradients(generator: torch.Generator) -> None:
    values = normal(generator, 2, 5, 3, 2).mul(0.5).requires_grad_()
    assert gradcheck(project_simplex, (values,))
    assert gradgradcheck(project_simplex, (values,))


def test_a_gradient_stays_among_distributions(generator: torch.Generator) -> None:
    """It is zero where the projection is, and sums to zero."""
    values = normal(generator, 2, 9, 5, 7).requires_grad_()
    found = project_simplex(values)
    (slope,) = torch.autograd.grad(found, values, normal(generator, *found.shape))
    assert slope[found == 0].abs().max() == 0
    assert slope.abs().max() > 1
    torch.testing.assert_close(slope.sum(1), torch.zeros(2, 5, 7, dtype=torch.float64), rtol=0, atol=1e-14)


def test_one_byte_is_kept_for_an_entry(generator: torch.Generator) -> None:
    values = normal(generator, 2, 9, 5, 7).requires_grad_()
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        project_simplex(values)
    assert [(tensor.dtype, tensor.numel()) for tensor in kept] == [(torch.bool, values.numel())]


def test_means_and_distances(dim: int, shape: tuple[int, ...], generator: torch.Generator) -> None:
    probability, basis, target = normal(generator, 2, 4, *shape), normal(generator, 4, dim), normal(generator, 2, dim, *shape)
    mean, apart = expectation(probability, basis), squared_distances(target, basis)
    assert mean.shape == target.shape
    assert apart.shape == probability.shape
    for batch, *place in np.ndindex(2, *shape):
        here = (batch, slice(None), *place)
        given, toward = probability[here].tolist(), target[here].tolist()
        for axis in range(dim):
            assert mean[here][axis].item() == pytest.approx(
                sum(q * b[axis] for q, b in zip(given, basis.tolist(), strict=True))
            )
        for i, vector in enumerate(basis.tolist()):
            assert apart[here][i].item() == pytest.approx(sum((b - t) ** 2 for b, t in zip(vector, toward, strict=True)))
