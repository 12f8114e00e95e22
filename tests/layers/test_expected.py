"""Fields read from distributions without message passing: by hand, and averages against those of plain fields."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles.make import normal
from warpwright.errors import BadInput
from warpwright.layers import AnyLayer, Expected, WeightedGaussian
from warpwright.networks import Basis, BasisLogits, Displacement
from warpwright.sampling import gaussian


def logits(values: Tensor, basis: Basis, factor: int = 2) -> BasisLogits:
    dim = values.ndim - 2
    shape = tuple(factor * n for n in values.shape[2:])
    vectors = basis.vectors(dim)
    return BasisLogits(values=values, vectors=vectors, basis=basis, shape=shape, factors=(factor,) * dim)


def read(settings: AnyLayer, estimate: BasisLogits) -> Displacement:
    return cast(Displacement, settings.build(len(estimate.shape))(estimate))


def test_means_by_hand(dim: int) -> None:
    """Three quarters for (2, -2, ...) and a quarter for (-2, 2, ...); all alike; certain of the first."""
    basis = Basis(reach=2, step=2)
    corners = [(2, -2, 2)[:dim], (-2, 2, -2)[:dim]]
    here = [basis.vectors(dim).tolist().index(list(corner)) for corner in corners]
    values = torch.full((1, 3**dim, *(3, 1, 1)[:dim]), -100.0, dtype=torch.float64)
    values[0, here[0], 0], values[0, here[1], 0] = math.log(3) + 5, 5
    values[0, :, 1] = 7
    values[0, here[1], 2] = 1000
    found = read(Expected(), logits(values, basis))
    assert (found.shape, found.factors) == ((6, 2, 2)[:dim], (2,) * dim)
    expected = torch.tensor([corners[0], (0,) * dim, corners[1]], dtype=torch.float64)
    expected[0] = expected[0] / 2
    torch.testing.assert_close(found.values.flatten(2)[0].T, expected, rtol=0, atol=1e-12)


def test_equal_confidence_is_a_gaussian_of_the_means(shape: tuple[int, ...], generator: torch.Generator) -> None:
    """Every voxel's probabilities are the same ones in another order."""
    dim, m = len(shape), 3 ** len(shape)
    one = normal(generator, m)
    order = torch.stack([torch.randperm(m, generator=generator) for _ in range(2 * math.prod(shape))])
    values = one[order].unflatten(0, (2, *shape)).movedim(-1, 1)
    given = logits(values, Basis(reach=1))
    found, means = read(WeightedGaussian(sigma=1.7), given), read(Expected(), given)
    assert (found.shape, found.factors) == (given.shape, given.factors)
    torch.testing.assert_close(found.values, gaussian(means.values, [1.7] * dim), rtol=0, atol=1e-12)
    assert means.values.std() > 0.1


def test_a_voxel_counts_with_its_largest_probability_squared() -> None:
    """Two voxels, of which the first is certain of 1 and the second says -1 with 3/5 and 0 with 2/5."""
    values = torch.full((1, 9, 2, 1), -100.0, dtype=torch.float64)
    vectors = Basis(reach=1).vectors(2).tolist()
    values[0, vectors.index([1, 0]), 0] = 0
    values[0, vectors.index([-1, 0]), 1], values[0, vectors.index([0, 0]), 1] = math.log(3), math.log(2)
    found = read(WeightedGaussian(sigma=2.0), logits(values, Basis(reach=1))).values[0, :, :, 0]
    near = math.exp(-1 / 8)  # of the neighbour, one voxel away
    expected = [(1 - near * 0.36 * 0.6) / (1 + near * 0.36), (near - 0.36 * 0.6) / (near + 0.36)]
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[1], 0, atol=1e-12)


def test_large_bases_are_not_drawn_to_zero() -> None:
    """Distributions over half of 2197 displacements: none is likely, but all voxels agree."""
    basis = Basis(reach=6)
    likely = basis.vectors(3)[:, 0] > 0
    values = torch.where(likely, 0.0, -100.0).reshape(1, -1, 1, 1, 1).expand(1, -1, 3, 1, 2)
    found = read(WeightedGaussian(sigma=1.0), logits(values, basis)).values
    torch.testing.assert_close(found[0, 0], torch.full((3, 1, 2), 3.5), rtol=1e-5, atol=0)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_bad_sigma(sigma: float) -> None:
    with pytest.raises(BadInput) as error:
        WeightedGaussian(sigma=sigma)
    assert error.value.args == (f"a weighted Gaussian needs a finite sigma > 0, got {sigma}",)
