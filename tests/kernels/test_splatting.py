"""Reading at given points and its adjoint, against their twins and as operators. SciPy is asked in tests/sampling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from oracles.make import normal
from oracles.threads import same_bytes
from warpwright.kernels import plainly
from warpwright.sampling import Outside, sample, splat

OUTSIDE: tuple[Outside, ...] = ("edge", "zero")
SHAPES = {"2d": (5, 7), "3d": (5, 7, 6), "flat": (5, 1, 6), "line": (1, 9), "slab": (1, 4, 5)}
TARGETS = ((11,), (4, 200), (3, 5, 40))


def _points(generator: torch.Generator, shape: tuple[int, ...], *target: int, batch: int = 1) -> Tensor:
    """Points that reach 2.5 voxels outside, none near a voxel's centre."""
    size = torch.tensor(shape, dtype=torch.float64).reshape(1, -1, *(1,) * len(target))
    points = torch.rand(batch, len(shape), *target, generator=generator, dtype=torch.float64) * (size + 5) - 2.5
    return points.floor() + 0.1 + 0.8 * (points - points.floor())


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("batches", [(2, 2), (1, 2), (2, 1)])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_and_gradients_are_those_of_the_twins(
    shape: tuple[int, ...], batches: tuple[int, int], outside: Outside, generator: torch.Generator
) -> None:
    for target in TARGETS:
        image, points = normal(generator, batches[0], 3, *shape), _points(generator, shape, *target, batch=batches[1])
        given = (image, points, normal(generator, 2, 3, *target), normal(generator, 2, 3, *shape), outside)
        with plainly():
            expected = _all(*given)
        for found, wanted in zip(_all(*given), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)


def _all(image: Tensor, points: Tensor, values: Tensor, weights: Tensor, outside: Outside) -> tuple[Tensor, ...]:
    """What is read and dealt out, and every gradient of both."""
    image, points, given = (t.clone().requires_grad_() for t in (image, points, values))
    read, dealt = sample(image, points, outside=outside), splat(given, points, tuple(weights.shape[2:]), outside=outside)
    by_read = torch.autograd.grad(read, (image, points), values)
    return (read.detach(), dealt.detach(), *by_read, *torch.autograd.grad(dealt, (given, points), weights))


def test_single_precision(shape: tuple[int, ...], generator: torch.Generator) -> None:
    image, points = normal(generator, 1, 2, *shape), _points(generator, shape, 900)
    values = normal(generator, 1, 2, 900)
    read, dealt = sample(image.float(), points.float()), splat(values.float(), points.float(), shape)
    assert read.dtype == dealt.dtype == torch.float32
    torch.testing.assert_close(read.double(), sample(image, points), rtol=0, atol=2e-5)
    torch.testing.assert_close(dealt.double(), splat(values, points, shape), rtol=0, atol=2e-4)  # sums of many values


def test_no_points_at_all(shape: tuple[int, ...], generator: torch.Generator) -> None:
    image, nowhere = normal(generator, 1, 2, *shape), torch.zeros(1, len(shape), 0, dtype=torch.float64)
    assert sample(image, nowhere).shape == (1, 2, 0)
    assert not splat(nowhere, nowhere, shape).any()


@pytest.mark.parametrize("outside", OUTSIDE)
def test_derivatives(dim: int, outside: Outside, generator: torch.Generator) -> None:
    shape = (3, 4, 3)[:dim]
    image, values = normal(generator, 1, 2, *shape).requires_grad_(), normal(generator, 1, 2, 3).requires_grad_()
    points = _points(generator, shape, 3).requires_grad_()
    assert gradcheck(lambda i, p: sample(i, p, outside=outside), (image, points))
    assert gradgradcheck(lambda i, p: sample(i, p, outside=outside), (image, points))
    assert gradcheck(lambda v, p: splat(v, p, shape, outside=outside), (values, points))
    assert gradgradcheck(lambda v, p: splat(v, p, shape, outside=outside), (values, points))


def test_operators(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    image, points = normal(generator, 1, 2, 4, 5).requires_grad_(), _points(generator, (4, 5), 3, 2, batch=2).requires_grad_()
    values = normal(generator, 2, 2, 3, 2).requires_grad_()
    for outside in OUTSIDE:
        torch.library.opcheck(torch.ops.warpwright.sample, (image, points, outside))
        torch.library.opcheck(torch.ops.warpwright.splat, (values, points, [4, 5], outside))


@pytest.mark.parametrize("plain", [False, True])
def test_threads_change_no_byte(plain: bool, generator: torch.Generator) -> None:
    shape = (40, 33, 37)
    image, values = (normal(generator, 1, 1, *shape).float() for _ in range(2))
    lattice = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"))[None]
    near, anywhere = lattice + 3 * normal(generator, 1, 3, *shape).float(), _points(generator, shape, *shape).float()

    def compute() -> list[Tensor]:
        return [splat(values, points, shape, outside=outside) for points in (near, anywhere) for outside in OUTSIDE]

    def slopes() -> tuple[Tensor, ...]:
        at = near.clone().requires_grad_()
        read = sample(image, at)
        return (read.detach(), *torch.autograd.grad(read, at, values))

    if plain:
        with plainly():
            assert same_bytes(compute)
    else:
        assert same_bytes(lambda: (*compute(), *slopes()))


def test_a_point_that_is_not_a_number_harms_no_other(shape: tuple[int, ...]) -> None:
    pytest.importorskip("numba")
    points = torch.ones(1, len(shape), 6)
    points[0, 0, 2], points[0, -1, 4], points[0, 0, 5] = torch.nan, torch.inf, -1e30
    read = sample(torch.ones(1, 1, *shape), points)
    assert torch.isnan(read[0, 0]).tolist() == [False, False, True, False, False, False]
