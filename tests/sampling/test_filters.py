"""Filters, their matrices and the pyramid against loops and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from oracles import slow
from oracles.make import normal, orders, permute_field, permute_image
from warpwright.geometry import Grid, identity_points
from warpwright.sampling import box_sum, downsample, gaussian, resize_displacement, sample
from warpwright.sampling.separable import along_axes, along_axis, bspline_matrix, gaussian_matrix, linear_matrix

CPU = torch.device("cpu")
SIGMA = (0.8, 0.0, 1.6)


def test_gaussian_is_the_loop(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field, sigma = normal(generator, 2, 2, *shape), SIGMA[: len(shape)]
    got = gaussian(field, sigma)
    for b, c in np.ndindex(2, 2):
        np.testing.assert_allclose(got[b, c], slow.gaussian(field[b, c].numpy(), sigma), atol=1e-12)


def test_box_is_the_loop(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field, radius = normal(generator, 2, 2, *shape), (1, 9, 0)[: len(shape)]
    got = box_sum(field, radius)
    for b, c in np.ndindex(2, 2):
        np.testing.assert_allclose(got[b, c], slow.box_sum(field[b, c].numpy(), radius), atol=1e-12)


def test_box_is_its_own_adjoint(shape: tuple[int, ...], generator: torch.Generator) -> None:
    a, b = normal(generator, 1, 2, *shape), normal(generator, 1, 2, *shape)
    radius = (1, 2, 1)[: len(shape)]
    torch.testing.assert_close((box_sum(a, radius) * b).sum(), (a * box_sum(b, radius)).sum(), atol=1e-10, rtol=0)


def test_constants_stay(shape: tuple[int, ...]) -> None:
    field = torch.full((1, 1, *shape), 3.5, dtype=torch.float64)
    torch.testing.assert_close(gaussian(field, (2.0,) * len(shape)), field, atol=1e-12, rtol=0)
    coarse = downsample(field, (2, 3, 4)[: len(shape)])
    torch.testing.assert_close(coarse, torch.full_like(coarse, 3.5), atol=1e-12, rtol=0)


def test_permuted_axes(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    field = normal(generator, 1, dim, *shape)
    factors, coarse_shape = (2, 3, 2)[:dim], tuple(-(-n // k) for n, k in zip(shape, (2, 3, 2), strict=False))
    coarse = normal(generator, 1, dim, *coarse_shape)
    fine = resize_displacement(coarse, factors, shape, (1,) * dim)
    for order in orders(dim):

        def turn(values: tuple, order: tuple[int, ...] = order) -> tuple:
            return tuple(values[k] for k in order)

        image = permute_image(field, order)
        smooth = gaussian(image, turn(SIGMA[:dim]))
        torch.testing.assert_close(smooth, permute_image(gaussian(field, SIGMA[:dim]), order), atol=1e-12, rtol=0)
        torch.testing.assert_close(
            downsample(image, turn(factors)), permute_image(downsample(field, factors), order), atol=1e-12, rtol=0
        )
        got = resize_displacement(permute_field(coarse, order), turn(factors), turn(shape), (1,) * dim)
        torch.testing.assert_close(got, permute_field(fine, order), atol=1e-12, rtol=0)


def test_a_flat_image_in_space(generator: torch.Generator) -> None:
    field = normal(generator, 1, 2, 5, 7)
    deep = field[..., None]
    torch.testing.assert_close(gaussian(deep, (0.8, 1.1, 2.0))[..., 0], gaussian(field, (0.8, 1.1)), atol=1e-13, rtol=0)
    torch.testing.assert_close(box_sum(deep, (1, 2, 3))[..., 0], box_sum(field, (1, 2)), atol=1e-13, rtol=0)
    torch.testing.assert_close(downsample(deep, (2, 3, 1))[..., 0], downsample(field, (2, 3)), atol=1e-13, rtol=0)


def test_single_precision_stays(shape: tuple[int, ...]) -> None:
    assert gaussian(torch.zeros(1, 1, *shape), (1.0,) * len(shape)).dtype == torch.float32
    assert downsample(torch.zeros(1, 1, *shape), (2,) * len(shape)).dtype == torch.float32


def test_downsampling_is_a_gaussian_at_the_block_centres(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = normal(generator, 1, 1, *shape)
    factors = (2, 1, 3)[: len(shape)]
    expected = field[0, 0].numpy()
    for axis, k in enumerate(factors):
        if k == 1:
            continue
        n, rows, values = expected.shape[axis], [], np.moveaxis(expected, axis, 0)
        for i in range(-(-n // k)):
            centre = k * i + (n - 1 - k * (-(-n // k) - 1)) / 2
            weight = [np.exp(-2 * ((j - centre) / k) ** 2) * (abs(j - centre) <= 1.5 * k) for j in range(n)]
            rows.append(np.tensordot(weight, values, 1) / sum(weight))
        expected = np.moveaxis(np.array(rows), 0, axis)
    np.testing.assert_allclose(downsample(field, factors)[0, 0], expected, atol=1e-12)


def test_downsampling_does_not_shift(dim: int) -> None:
    """A ramp in the world keeps its value at every coarse voxel that is not near the border."""
    grid = Grid.regular((25, 28, 30)[:dim], (0.7, 1.3, 2.1)[:dim])  # the factor divides no axis but the last
    factors = (2, 3, 2)[:dim]

    def ramp(g: Grid) -> torch.Tensor:
        points = identity_points(g.shape, dtype=torch.float64, device=CPU)[0].flatten(1).T
        return g.to_world(points).sum(1).reshape(1, 1, *g.shape)

    inner = (0, 0, *(slice(2, -2),) * dim)
    coarse = downsample(ramp(grid), factors)
    torch.testing.assert_close(coarse[inner], ramp(grid.downsample(factors))[inner], atol=1e-10, rtol=0)


def test_resizing_keeps_the_displacement_in_the_world(shape: tuple[int, ...], generator: torch.Generator) -> None:
    """The fine field, in mm, is the coarse field, in mm, read at the same place of the world."""
    dim = len(shape)
    grid, factors, target = Grid.regular(tuple(4 * n for n in shape)), (4, 4, 2)[:dim], (2, 1, 2)[:dim]
    coarse_grid, fine_grid = grid.downsample(factors), grid.downsample(target)
    coarse = normal(generator, 1, dim, *coarse_grid.shape)
    fine = resize_displacement(coarse, factors, fine_grid.shape, target)
    voxels = identity_points(fine_grid.shape, dtype=torch.float64, device=CPU)[0].flatten(1).T
    at = coarse_grid.to_voxel(fine_grid.to_world(voxels)).T[None]
    mm = sample(coarse, at)[0] * torch.tensor(coarse_grid.spacing, dtype=torch.float64)[:, None]
    scale = torch.tensor(fine_grid.spacing, dtype=torch.float64)[:, None]
    torch.testing.assert_close(fine[0].flatten(1) * scale, mm, atol=1e-12, rtol=0)


def test_one_matrix_along_each_axis(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = normal(generator, 2, 3, *shape)
    matrices = [normal(generator, 4 + k, n) for k, n in enumerate(shape)]
    expected = field
    for axis, matrix in enumerate(matrices):
        one = torch.tensordot(field, matrix, dims=([axis + 2], [1])).movedim(-1, axis + 2)
        torch.testing.assert_close(along_axis(field, matrix, axis), one, atol=1e-12, rtol=0)
        expected = torch.tensordot(expected, matrix, dims=([axis + 2], [1])).movedim(-1, axis + 2)
    torch.testing.assert_close(along_axes(field, matrices), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_linear_matrix_is_interp(n: int) -> None:
    values, at = np.sin(np.arange(n) + 1.0), np.linspace(-1.5, n + 0.7, 23)
    got = linear_matrix(n, torch.from_numpy(at)) @ torch.from_numpy(values)
    np.testing.assert_allclose(got, np.interp(at, np.arange(n), values), atol=1e-12)


def test_bspline_matrix_is_scipy() -> None:
    at = np.linspace(0.9, 5.1, 31)
    got = bspline_matrix(7, torch.from_numpy(at))
    for k in range(7):
        basis = BSpline.basis_element(np.arange(k - 2, k + 3), extrapolate=False)
        np.testing.assert_allclose(got[:, k], np.nan_to_num(basis(at)), atol=1e-12)
    covered = (at >= 1) & (at <= 5)
    np.testing.assert_allclose(got[covered].sum(1), 1, atol=1e-12)


def test_a_narrow_gaussian_keeps_its_voxel() -> None:
    torch.testing.assert_close(gaussian_matrix(5, 0.05), torch.eye(5, dtype=torch.float64), atol=1e-12, rtol=0)


def test_gradients(dim: int, generator: torch.Generator) -> None:
    field = normal(generator, 1, dim, *(3, 4, 3)[:dim]).requires_grad_()
    ones = (1,) * dim
    assert torch.autograd.gradcheck(lambda f: gaussian(f, (0.9,) * dim), field)
    assert torch.autograd.gradcheck(lambda f: downsample(f, (2,) * dim), field)
    assert torch.autograd.gradcheck(lambda f: resize_displacement(f, (2,) * dim, (6, 7, 6)[:dim], ones), field)


def test_autocast_leaves_a_smoothed_displacement_in_single_precision(
    shape: tuple[int, ...], generator: torch.Generator
) -> None:
    field, sigma = normal(generator, 1, len(shape), *shape).float(), (1.0,) * len(shape)
    expected = gaussian(field, sigma)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = gaussian(field, sigma)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


def test_half_precision_is_averaged_in_single(shape: tuple[int, ...]) -> None:
    field = torch.full((1, 1, *shape), 3.5, dtype=torch.bfloat16)
    assert torch.equal(gaussian(field, (1.3,) * len(shape)), field)  # weights rounded to bfloat16 do not sum to one


def test_matrices_made_in_inference_mode_serve_gradients_later(dim: int, generator: torch.Generator) -> None:
    shape, sigma, radius = (13, 11, 9)[:dim], (0.777,) * dim, (4, 3, 2)[:dim]  # used nowhere else: not yet cached
    field = normal(generator, 1, 1, *shape)
    with torch.inference_mode():
        expected = gaussian(field, sigma), box_sum(field, radius)
    field.requires_grad_()
    got = gaussian(field, sigma), box_sum(field, radius)
    (got[0].sum() + got[1].sum()).backward()
    assert field.grad is not None
    assert field.grad.abs().min() > 0
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one.detach(), other)
