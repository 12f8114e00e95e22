"""Costs of patches: against loops, where an image was shifted to, where patches hold nothing, inverted contrast."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracles.make import orders, permute_image
from warpwright.methods.patches import patch_costs
from warpwright.networks import Basis
from warpwright.sampling import gaussian

MEASURES = pytest.mark.parametrize("measure", ["squares", "correlation", "mind"])
Array = NDArray[np.float64]


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def patches(fixed: Array, moving: Array, place: tuple[int, ...], vector: tuple[int, ...], radius: int) -> tuple[Array, Array]:
    """Intensities (C, N) of the fixed image around a place, and those of the moving image that belong to them."""
    shape = fixed.shape[1:]
    near = product(*(range(max(k - radius, 0), min(k + radius, n - 1) + 1) for k, n in zip(place, shape, strict=True)))
    one: list[Array] = []
    two: list[Array] = []
    for voxel in near:
        there = (min(max(k + s, 0), n - 1) for k, s, n in zip(voxel, vector, shape, strict=True))
        one.append(fixed[(slice(None), *voxel)])
        two.append(moving[(slice(None), *there)])
    return np.stack(one, 1), np.stack(two, 1)


def squares(one: Array, two: Array) -> float:
    return float(np.square(one - two).mean())


def correlation(one: Array, two: Array) -> float:
    """One minus the coefficient, 1 where either does not vary."""
    costs: list[float] = []
    for a, b in zip(one, two, strict=True):
        a, b = a - a.mean(), b - b.mean()
        varied = np.square(a).mean() > 1e-4 and np.square(b).mean() > 1e-4
        costs.append(1 - (a @ b) / np.sqrt((a @ a) * (b @ b)) if varied else 1.0)
    return float(np.mean(costs))


def by_loops(fixed: Tensor, moving: Tensor, vectors: Tensor, radius: int, measure: Any) -> Tensor:
    out = torch.zeros(len(fixed), len(vectors), *fixed.shape[2:], dtype=torch.float64)
    for batch, k, *place in np.ndindex(*out.shape):
        vector = tuple(int(s) for s in vectors[k])
        pair = patches(fixed[batch].numpy(), moving[batch].numpy(), tuple(place), vector, radius)
        out[(batch, k, *place)] = measure(*pair)
    return out


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("measure", [squares, correlation])
def test_costs_are_those_of_loops(measure: Any, radius: int, dim: int, generator: torch.Generator) -> None:
    """Patches are cut where the fixed image ends; the moving one goes on with what is at its border."""
    shape = ((5, 7), (3, 4, 2))[dim - 2]
    fixed, moving = uniform(generator, 2, 2, *shape), uniform(generator, 2, 2, *shape)
    vectors = Basis(reach=2).vectors(dim)[:: 3 ** (dim - 1)]
    expected = by_loops(fixed, moving, vectors, radius, measure)
    found = patch_costs(fixed, moving, vectors, radius=radius, measure=measure.__name__)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    single = patch_costs(fixed.float(), moving.float(), vectors, radius=radius, measure=measure.__name__)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-4)


def test_a_coefficient_is_one_up_to_the_border(dim: int) -> None:
    """Of ramps, whose patches have large means and small deviations: what would be most wrong in a patch cut otherwise."""
    shape = (9, 8, 7)[:dim]
    ramp = torch.linspace(0, 1, shape[0]).reshape(-1, *(1,) * (dim - 1)).expand(1, 1, *shape).contiguous()
    for moving, least, most in ((ramp, 0, 1), (1 - ramp, 1, 2)):
        costs = patch_costs(ramp, moving, Basis(reach=3).vectors(dim), radius=2)
        assert least - 1e-3 < costs.min()
        assert costs.max() < most + 1e-3


@MEASURES
def test_a_shift_costs_least(measure: Any, dim: int, generator: torch.Generator) -> None:
    """`moving(x + s) = fixed(x)`, so s is the cheapest displacement, and free of cost."""
    shape, shift, edge = ((17, 15), (13, 11, 12))[dim - 2], (2, -1, 1)[:dim], 4
    large = gaussian(uniform(generator, 1, 1, *(n + 8 for n in shape)), [0.7] * dim)
    fixed = large[(..., *(slice(4, 4 + n) for n in shape))]
    moving = large[(..., *(slice(4 - s, 4 - s + n) for n, s in zip(shape, shift, strict=True)))]
    vectors = Basis(reach=2).vectors(dim)
    costs = patch_costs(fixed, moving, vectors, radius=2, measure=measure)
    inner = costs[(0, slice(None), *(slice(edge, -edge),) * dim)].flatten(1)
    right = vectors.tolist().index([float(s) for s in shift])
    assert (inner.argmin(0) == right).all()
    assert inner[right].max() < (0.1 if measure == "mind" else 1e-10)  # descriptors see the border from further inside
    assert torch.cat([inner[:right], inner[right + 1 :]]).min() > 1e-4


def test_patches_that_hold_nothing_cost_one(dim: int, generator: torch.Generator) -> None:
    """Of images of which one half varies, to either side."""
    shape = (16, 5, 4)[:dim]
    fixed, moving = (0.3 + 0 * uniform(generator, 1, 1, *shape) for _ in range(2))
    fixed[:, :, :8] = uniform(generator, 1, 1, 8, *shape[1:])
    moving[:, :, 8:] = uniform(generator, 1, 1, 8, *shape[1:])
    still = torch.zeros(1, dim)
    costs = patch_costs(fixed, moving, still, radius=1)
    flat = torch.ones_like(costs[:, :, :7])
    torch.testing.assert_close(costs[:, :, :7], flat, rtol=0, atol=0)  # the moving image is flat
    torch.testing.assert_close(costs[:, :, 9:], flat, rtol=0, atol=0)  # the fixed one is
    assert (patch_costs(fixed, fixed, still, radius=1)[:, :, :7] < 1e-6).all()
    nearly = 0.3 + 0.005 * uniform(generator, 1, 1, *shape)  # deviation 0.0014: noise, not structure
    assert (patch_costs(nearly, nearly, still, radius=1) == 1).all()


def test_inverted_contrast(dim: int, generator: torch.Generator) -> None:
    """Descriptors are blind to it, coefficients change their sign, squares take it for another image."""
    shape = (9, 8, 7)[:dim]
    fixed, moving = uniform(generator, 1, 1, *shape), uniform(generator, 1, 1, *shape)
    vectors = Basis(reach=1).vectors(dim)
    for measure, expected in (("mind", lambda cost: cost), ("correlation", lambda cost: 2 - cost)):
        cost = patch_costs(fixed, moving, vectors, measure=measure)
        torch.testing.assert_close(patch_costs(fixed, 1 - moving, vectors, measure=measure), expected(cost), rtol=0, atol=1e-9)
        assert cost.std() > 1e-4
    still = torch.zeros(1, dim)
    assert patch_costs(fixed, 1 - fixed, still, measure="squares").min() > 0.05
    assert patch_costs(fixed, 1 - fixed, still, measure="mind").max() < 1e-12


@MEASURES
def test_axes_and_samples_have_no_order(measure: Any, dim: int, generator: torch.Generator) -> None:
    shape = (6, 8, 5)[:dim]
    fixed, moving = uniform(generator, 2, 1, *shape), uniform(generator, 2, 1, *shape)
    vectors = Basis(reach=1).vectors(dim)
    costs = patch_costs(fixed, moving, vectors, measure=measure)
    for order in orders(dim):
        turned = patch_costs(
            permute_image(fixed, order), permute_image(moving, order), vectors[:, list(order)], measure=measure
        )
        torch.testing.assert_close(turned, permute_image(costs, order), rtol=0, atol=1e-10)
    for k in range(2):
        alone = patch_costs(fixed[k : k + 1], moving[k : k + 1], vectors, measure=measure)
        torch.testing.assert_close(alone[0], costs[k], rtol=0, atol=1e-10)


def test_no_gradient_is_recorded(dim: int, generator: torch.Generator) -> None:
    fixed = uniform(generator, 1, 1, *(5, 4, 3)[:dim]).requires_grad_()
    assert not patch_costs(fixed, fixed, Basis(reach=1).vectors(dim)).requires_grad
