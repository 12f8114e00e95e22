"""Smooth fields: against scipy's cosine transform, against the sparse linear system, and as wide as they should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.fft import dctn, idctn
from scipy.sparse.linalg import spsolve
from torch.autograd import gradcheck, gradgradcheck

from oracles.make import normal, orders, permute_image
from warpwright.layers.screened import blurred, screened

SHAPES = pytest.mark.parametrize("shape", [(5, 7), (1, 6), (5, 7, 6), (4, 1, 5), (1, 1)], ids=str)
SQUARES = pytest.mark.parametrize("square", [0.3, 4.0, 250.0])


def by_cosines(field: NDArray[np.float64], square: float) -> NDArray[np.float64]:
    axes = tuple(range(2, field.ndim))
    stiffness = np.zeros(field.shape[2:])
    for axis, n in enumerate(field.shape[2:]):
        along = 2 - 2 * np.cos(np.pi * np.arange(n) / n)
        stiffness += along.reshape([-1 if k == axis else 1 for k in range(field.ndim - 2)])
    return idctn(dctn(field, axes=axes, norm="ortho") / (1 + square * stiffness), axes=axes, norm="ortho")


def differences(shape: tuple[int, ...]) -> sparse.csr_matrix:
    """A row for every pair of neighbours: what the second has more than the first."""
    number = np.arange(np.prod(shape)).reshape(shape)
    rows: list[tuple[int, int]] = []
    for place in np.ndindex(*shape):
        for axis in range(len(shape)):
            if place[axis] + 1 < shape[axis]:
                after = tuple(k + (a == axis) for a, k in enumerate(place))
                rows.append((number[place], number[after]))
    out = sparse.lil_matrix((len(rows), number.size))
    for k, (one, two) in enumerate(rows):
        out[k, one], out[k, two] = -1, 1
    return out.tocsr()


@SQUARES
@SHAPES
def test_the_field_is_that_of_scipy(shape: tuple[int, ...], square: float, generator: torch.Generator) -> None:
    field = normal(generator, 2, 3, *shape)
    expected = torch.from_numpy(by_cosines(field.numpy(), square))
    torch.testing.assert_close(screened(field, square), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(screened(field, torch.tensor(square, dtype=torch.float64)), expected, rtol=0, atol=1e-13)
    single = screened(field.float(), square)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5)


@SHAPES
def test_the_field_is_the_minimum(shape: tuple[int, ...], generator: torch.Generator) -> None:
    """Of `|v - u|^2 + s |grad v|^2`, so `(I + s G^T G) v = u` with the differences G of neighbours."""
    field, square = normal(generator, 1, 2, *shape), 3.7
    found = screened(field, square).numpy()
    step = differences(shape)
    system = sparse.csc_matrix(sparse.eye(int(np.prod(shape))) + square * (step.T @ step))
    for channel in range(2):
        expected = spsolve(system, field[0, channel].numpy().ravel())
        np.testing.assert_allclose(found[0, channel].ravel(), expected, rtol=0, atol=1e-13)


def test_derivatives(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = normal(generator, 1, 1, *shape[:-1], 2).requires_grad_()
    square = torch.tensor(2.3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(screened, (field, square))
    assert gradgradcheck(screened, (field, square))


def test_a_gradient_after_use_without_one(generator: torch.Generator) -> None:
    """What is kept from one call to the next serves both."""
    with torch.inference_mode():
        screened(normal(generator, 1, 1, 31, 37), 2.0)
    field = normal(generator, 1, 1, 31, 37).requires_grad_()
    (slope,) = torch.autograd.grad(screened(field, 2.0).sum(), field)
    torch.testing.assert_close(slope, torch.ones_like(slope), rtol=0, atol=1e-12)


@pytest.mark.parametrize("smooth", [screened, blurred])
def test_axes_have_no_order(smooth, shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = normal(generator, 2, 2, *shape)
    for order in orders(len(shape)):
        expected = permute_image(smooth(field, 1.9), order)
        torch.testing.assert_close(smooth(permute_image(field, order), 1.9), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("smooth", [screened, blurred])
@pytest.mark.parametrize("square", [2.0, 8.0])
def test_both_are_as_wide(smooth, square: float, dim: int) -> None:
    """A point far from the border becomes a cloud of weight one with variance 2 s along each axis.

    The Gaussian is cut at three deviations, which takes 3 % of its variance.
    """
    n = 101 if dim == 2 else 61
    point = torch.zeros(1, 1, *(n,) * dim, dtype=torch.float64)
    point[(0, 0, *(n // 2,) * dim)] = 1
    cloud = smooth(point, square if dim == 2 else square / 4)[0, 0]
    apart = torch.arange(n, dtype=torch.float64) - n // 2
    for axis in range(dim):
        along = cloud.sum([k for k in range(dim) if k != axis])
        assert float(along.sum()) == pytest.approx(1, abs=1e-12)
        share = float((along * apart.square()).sum()) / (2 * square if dim == 2 else square / 2)
        assert share == pytest.approx(1, abs=1e-4) if smooth is screened else 0.95 < share <= 1
