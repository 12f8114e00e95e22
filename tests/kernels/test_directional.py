"""The derivative along a direction of the displacement, and what an implicit layer makes of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from oracles.make import normal, smooth_field
from oracles.threads import same_bytes
from warpwright.energies.similarity import LNCC, MSE, Similarity
from warpwright.errors import BadInput
from warpwright.kernels import plainly
from warpwright.sampling import warp, warp_directional

SHAPES = {"2d": ((5, 7), (6, 4)), "3d": ((5, 7, 6), (6, 3, 8)), "flat": ((5, 1, 6), (6, 5, 1))}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def case(request: pytest.FixtureRequest, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape, moving = request.param
    dim = len(shape)
    affine = torch.eye(dim + 1, dtype=torch.float64)
    affine[:dim] += 0.1 * normal(generator, dim, dim + 1)
    return normal(generator, 1, 2, *moving), normal(generator, 2, dim, *shape), normal(generator, 2, dim, *shape), affine


def _values_and_adjoint(case: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    moving = case[0].clone().requires_grad_()
    moved, along = warp_directional(moving, *case[1:])
    weights = torch.linspace(-1, 1, moved.numel(), dtype=moved.dtype).reshape(moved.shape)
    (adjoint,) = torch.autograd.grad((moved * weights).sum() + (along * weights.flip(0)).sum(), moving)
    return moved.detach(), along.detach(), adjoint


def test_kernel_and_twin(case: tuple[Tensor, ...]) -> None:
    with plainly():
        expected = _values_and_adjoint(case)
    for found, wanted in zip(_values_and_adjoint(case), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_it_is_the_slope_of_the_warp(case: tuple[Tensor, ...]) -> None:
    moving, field, direction, affine = case
    step = 1e-7
    moved, along = warp_directional(moving, field, direction, affine)
    torch.testing.assert_close(moved, warp(moving, field, affine))
    slope = (warp(moving, field + step * direction, affine) - warp(moving, field - step * direction, affine)) / (2 * step)
    torch.testing.assert_close(along, slope, rtol=0, atol=1e-6)  # a difference quotient; random points are off the kinks


@pytest.mark.parametrize("similarity", [MSE(), LNCC(radius=1)], ids=["mse", "lncc"])
def test_the_mixed_second_derivative(similarity: Similarity, shape: tuple[int, ...], generator: torch.Generator) -> None:
    """`d/dM <v, dE/du>`, by one gather and one splat, against two passes of autograd through the plain twin."""
    dim = len(shape)
    fixed, moving = normal(generator, 1, 1, *shape), normal(generator, 1, 1, *shape).requires_grad_()
    field, direction = smooth_field(shape, 0.4) + 0.3, normal(generator, 1, dim, *shape)
    with plainly():
        u = field.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(similarity.similarity(warp(moving, u), fixed), u, create_graph=True)
        (expected,) = torch.autograd.grad((gradient * direction).sum(), moving)
    moved, along = warp_directional(moving, field, direction)
    (slope,) = torch.autograd.grad(similarity.similarity(moved, fixed), moved, create_graph=True)
    (found,) = torch.autograd.grad((slope * along).sum(), moving)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_operator(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    moving, affine = normal(generator, 1, 2, 4, 5).requires_grad_(), torch.eye(3, dtype=torch.float64)
    field, direction = normal(generator, 2, 2, 3, 6), normal(generator, 2, 2, 3, 6)
    for matrix in (None, affine):
        torch.library.opcheck(torch.ops.warpwright.warp_directional, (moving, field, direction, matrix))


def test_a_second_derivative_raises(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    moving = normal(generator, 1, 1, 5, 6).requires_grad_()
    _, along = warp_directional(moving, normal(generator, 1, 2, 5, 6), normal(generator, 1, 2, 5, 6))
    weights = torch.ones_like(along, requires_grad=True)
    (adjoint,) = torch.autograd.grad(along, moving, weights, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd"):
        adjoint.sum().backward()


def test_threads_change_no_byte(generator: torch.Generator) -> None:
    shape = (24, 33, 37)
    moving, field, direction = (normal(generator, 1, c, *shape).float() for c in (2, 3, 3))
    affine = torch.eye(4, dtype=torch.float64)
    assert same_bytes(lambda: _values_and_adjoint((moving, field, direction, affine)))


def test_a_gradient_in_the_displacement_is_refused(generator: torch.Generator) -> None:
    moving, field = normal(generator, 1, 1, 5, 6), normal(generator, 1, 2, 5, 6)
    with pytest.raises(BadInput, match="moving image only"):
        warp_directional(moving, field.clone().requires_grad_(), field)
