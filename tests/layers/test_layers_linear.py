"""The field of a linear map: by hand, its inverse, gradients, as the first of two steps."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from warpwright.errors import BadInput
from warpwright.layers import LinearField
from warpwright.networks import Displacement, LinearMap, Velocity
from warpwright.transforms import compose


def a_map(dim: int, shape: tuple[int, ...], factors: tuple[int, ...]) -> LinearMap:
    generator = torch.Generator().manual_seed(3)
    values = torch.eye(dim, dim + 1, dtype=torch.float64) + 0.1 * torch.randn(
        2, dim, dim + 1, generator=generator, dtype=torch.float64
    )
    return LinearMap(values=values, shape=shape, factors=factors)


@pytest.mark.parametrize("factor", [1, 2])
def test_every_voxel_by_hand(dim: int, factor: int) -> None:
    shape = (5, 8, 6)[:dim]
    given = a_map(dim, shape, (factor,) * dim)
    found = LinearField().build(dim)(given)
    assert isinstance(found, Displacement)
    lattice = tuple(-(-n // factor) for n in shape)
    assert (found.shape, found.factors, tuple(found.values.shape)) == (shape, (factor,) * dim, (2, dim, *lattice))
    middle = (np.array(lattice) - 1) / 2
    for sample in range(2):
        matrix, shift = given.values[sample, :, :dim].numpy(), given.values[sample, :, dim].numpy()
        for place in product(*(range(n) for n in lattice)):
            at = np.array(place)
            expected = matrix @ (at - middle) + middle + shift - at
            np.testing.assert_allclose(found.values[(sample, slice(None), *place)].numpy(), expected, atol=1e-12)


def test_there_and_back(dim: int) -> None:
    found = LinearField().build(dim)(a_map(dim, (16, 15, 17)[:dim], (1,) * dim))
    assert isinstance(found, Displacement)
    assert found.inverse is not None
    inner = (..., *(slice(5, -5),) * dim)
    assert compose(found.values, found.inverse)[inner].abs().max() < 1e-12
    assert found.values[inner].abs().max() > 0.1


def test_gradients(dim: int) -> None:
    given = a_map(dim, (4, 3, 5)[:dim], (1,) * dim)

    def both(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = LinearField().build(dim)(LinearMap(values=values, shape=given.shape, factors=given.factors))
        assert isinstance(found, Displacement)
        assert found.inverse is not None
        return found.values, found.inverse

    assert torch.autograd.gradcheck(both, (given.values.requires_grad_(),))


def test_other_kinds_are_refused(dim: int) -> None:
    velocity = Velocity(values=torch.zeros(1, dim, *(4,) * dim), shape=(4,) * dim, factors=(1,) * dim)
    with pytest.raises(BadInput, match="the layer linearfield works on LinearMap, it was given Velocity"):
        LinearField().build(dim)(velocity)
