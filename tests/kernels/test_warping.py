"""Warping kernels against their twin, and as operators."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from oracles.make import normal, smooth_field
from oracles.threads import same_bytes
from warpwright.kernels import plainly
from warpwright.sampling import warp, warp_covered

CASES = {"2d": ((5, 7), (6, 4)), "3d": ((5, 7, 6), (6, 3, 8)), "flat": ((5, 1, 6), (6, 5, 1)), "line": ((1, 9), (7, 1))}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A moving image, a displacement that leaves it here and there, an affine."""
    shape, moving = request.param
    dim = len(shape)
    affine = torch.eye(dim + 1, dtype=torch.float64)
    affine[:dim] += 0.1 * normal(generator, dim, dim + 1)
    return normal(generator, 1, 2, *moving), 2 * normal(generator, 2, dim, *shape), affine


@pytest.mark.parametrize("outside", ["edge", "zero"])
def test_warp_and_its_gradients_are_those_of_the_twin(case: tuple[Tensor, Tensor, Tensor], outside: str) -> None:
    def compute() -> tuple[Tensor, ...]:
        inputs = [tensor.clone().requires_grad_() for tensor in case]
        out = warp(*inputs, outside=outside)  # pyright: ignore[reportArgumentType]
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape)
        return (out.detach(), *torch.autograd.grad((out * weights).sum(), inputs))

    with plainly():
        expected = compute()
    for found, wanted in zip(compute(), expected, strict=True):
        rows = slice(None, -1) if wanted.shape == case[2].shape else slice(None)  # the last row of an affine is fixed
        torch.testing.assert_close(found[..., rows, :], wanted[..., rows, :], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_cover_is_that_of_the_twin(case: tuple[Tensor, Tensor, Tensor], masked: bool, generator: torch.Generator) -> None:
    moving, field, affine = case
    mask = torch.rand(1, 1, *moving.shape[2:], generator=generator, dtype=torch.float64) if masked else None
    with plainly():
        expected = warp_covered(moving, field, affine, mask)
    for found, wanted in zip(warp_covered(moving, field, affine, mask), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert (expected[1] == 0).any()
    assert (expected[1] > 0).any()


def test_cover_has_no_gradient(case: tuple[Tensor, Tensor, Tensor]) -> None:
    moving, field, affine = case
    moved, cover = warp_covered(moving, field.requires_grad_(), affine)
    assert moved.requires_grad
    assert not cover.requires_grad


def test_single_precision(case: tuple[Tensor, Tensor, Tensor]) -> None:
    moving, field, affine = case
    found = warp(moving.float(), field.float(), affine)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), warp(moving, field, affine), rtol=0, atol=2e-5)  # points near 10 to 1e-6


def test_derivatives(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    moving, field = normal(generator, 1, 1, *shape), smooth_field(shape, 0.4) + 0.3  # away from the voxels' centres
    affine = torch.eye(dim + 1, dtype=torch.float64)
    inputs = (moving.requires_grad_(), field.requires_grad_())
    assert gradcheck(lambda m, u: warp(m, u, affine), inputs)
    assert gradgradcheck(lambda m, u: warp(m, u, affine), inputs)


def test_operator(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    warp(normal(generator, 1, 1, 4, 5), torch.zeros(1, 2, 3, 4, dtype=torch.float64))  # registers
    moving, field = normal(generator, 1, 1, 4, 5).requires_grad_(), normal(generator, 1, 2, 3, 4).requires_grad_()
    torch.library.opcheck(torch.ops.warpwright.warp, (moving, field, None, "edge"))
    torch.library.opcheck(torch.ops.warpwright.warp_covered, (moving, field, None, None))


def test_compiled(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    moving, field = normal(generator, 1, 1, 6, 5), normal(generator, 1, 2, 6, 5).requires_grad_()

    def energy(u: Tensor) -> Tensor:
        return warp(moving, u).square().sum()

    (expected,) = torch.autograd.grad(energy(field), field)
    compiled = torch.compile(energy, fullgraph=True, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(field), field)
    torch.testing.assert_close(found, expected)


def test_threads_change_no_byte(generator: torch.Generator) -> None:
    shape = (40, 33, 37)
    moving, field = normal(generator, 1, 1, *shape).float(), 3 * normal(generator, 1, 3, *shape).float()
    affine = torch.eye(4, dtype=torch.float64)

    def compute() -> tuple[Tensor, ...]:
        u, matrix = field.clone().requires_grad_(), affine.clone().requires_grad_()
        moved, cover = warp_covered(moving, u, affine)
        (by_field,) = torch.autograd.grad(moved, u, moving)
        (by_affine,) = torch.autograd.grad(warp(moving, field, matrix), matrix, moving)
        return moved, cover, by_field, by_affine

    assert same_bytes(compute)


def test_a_point_that_is_not_a_number_gives_none(shape: tuple[int, ...]) -> None:
    dim = len(shape)
    field = torch.zeros(1, dim, *shape)
    field[0, 0].flatten()[3] = torch.nan
    field[0, -1].flatten()[5] = torch.inf
    moved = warp(torch.ones(1, 1, *shape), field)
    assert torch.isnan(moved.flatten()[[3, 5]]).all()
    assert torch.isnan(moved).sum() == 2
