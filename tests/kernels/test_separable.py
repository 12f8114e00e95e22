"""Filters and banded matrices along axes: kernels against the plain matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from oracles.make import normal
from oracles.threads import same_bytes
from warpwright.kernels import plainly
from warpwright.sampling import box_sum, downsample, gaussian, gaussian_sum, resize_displacement
from warpwright.transforms import bspline_displacement, control_shape

SHAPES = {"2d": (5, 7), "3d": (5, 7, 6), "flat": (9, 1, 6), "tiles": (40, 70, 11)}
FILTERS = {
    "gaussian": lambda field: gaussian(field, (1.7, 0.0, 2.5)[: field.ndim - 2]),
    "sum": lambda field: gaussian_sum(field, (0.8, 3.0, 0.4)[: field.ndim - 2]),
    "box": lambda field: box_sum(field, (1, 4, 0)[: field.ndim - 2]),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_filters_are_those_of_the_matrices(name: str, shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = normal(generator, 2, 3, *shape)
    with plainly():
        expected = FILTERS[name](field)
    torch.testing.assert_close(FILTERS[name](field), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(FILTERS[name](field.float()).double(), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_the_middle_is_scipy(generator: torch.Generator) -> None:
    values = normal(generator, 1, 1, 1, 60)
    expected = gaussian_filter1d(values[0, 0, 0].numpy(), 2.0, truncate=3.0)
    np.testing.assert_allclose(gaussian(values, (0.0, 2.0))[0, 0, 0, 6:-6], expected[6:-6], atol=1e-12)


@pytest.mark.parametrize("name", FILTERS)
def test_derivatives(name: str, shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = normal(generator, 1, 1, *shape).requires_grad_()
    assert gradcheck(lambda f: FILTERS[name](f), (field,))
    assert gradgradcheck(lambda f: FILTERS[name](f), (field,))


def test_resampling_is_that_of_the_matrices(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    field, knots = normal(generator, 2, dim, *shape), (2.0, 3.5, 2.5)[:dim]
    control = normal(generator, 1, dim, *control_shape(shape, knots))
    finer = tuple(2 * n - 1 for n in shape)

    def compute() -> tuple[Tensor, ...]:
        coarse = downsample(field, (2, 1, 3)[:dim])
        return coarse, resize_displacement(field, (2,) * dim, finer, (1,) * dim), bspline_displacement(control, shape, knots)

    with plainly():
        expected = compute()
    for found, wanted in zip(compute(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert gradcheck(lambda c: bspline_displacement(c, shape, knots), (control.requires_grad_(),))


def test_operators(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    field = normal(generator, 1, 1, 5, 6).requires_grad_()
    gaussian(field, (1.0, 1.0))
    ones = [torch.ones(5, dtype=torch.float64), torch.ones(6, dtype=torch.float64)]
    torch.library.opcheck(torch.ops.warpwright.window, (field, [ones[0][:2], ones[0][:3]], ones, ones))
    torch.library.opcheck(torch.ops.warpwright.along_axis, (field, torch.eye(5, dtype=torch.float64)[:3], 0))


def test_threads_change_no_byte(generator: torch.Generator) -> None:
    pytest.importorskip("numba")  # the twins are matrix products, whose bytes the threads change on some processors
    field = normal(generator, 1, 3, 40, 33, 37).float()
    assert same_bytes(lambda: [gaussian(field, (1.7, 1.7, 0.7)), downsample(field, (2, 3, 2)), box_sum(field, (2, 2, 2))])
