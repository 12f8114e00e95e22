"""Pull-back of images and labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from oracles.make import homogeneous, normal, orders, permute_affine, permute_field, permute_image, rotation, smooth_field
from warpwright.geometry import moved_points
from warpwright.sampling import inside, warp, warp_labels, warp_nearest


def _matrix(dim: int) -> np.ndarray:
    return homogeneous(0.9 * rotation(dim, 0.3), (0.4, 0.9, -0.3)[:dim])


def test_warp_is_scipy_at_the_moved_points(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    moving, field = normal(generator, 1, 1, *(8, 6, 9)[:dim]), smooth_field(shape, 1.5)
    points = np.einsum("ij,j...->i...", _matrix(dim)[:dim, :dim], np.indices(shape) + field[0].numpy())
    points = points + _matrix(dim)[:dim, dim].reshape(-1, *(1,) * dim)
    expected = map_coordinates(moving[0, 0].numpy(), points, order=1, mode="nearest")
    np.testing.assert_allclose(warp(moving, field, _matrix(dim))[0, 0], expected, atol=1e-12)


def test_whole_voxel_shift(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    moving = torch.randint(0, 200, (1, 1, *shape), generator=generator, dtype=torch.uint8)
    for axis in range(dim):
        field = torch.zeros(1, dim, *shape, dtype=torch.float64)
        field[:, axis] = 2
        kept = moving.narrow(axis + 2, 2, shape[axis] - 2)
        for moved in (warp(moving.double(), field), warp_nearest(moving, field), warp_labels(moving, field)):
            assert torch.equal(moved.narrow(axis + 2, 0, shape[axis] - 2).to(torch.uint8), kept)
        assert (warp_labels(moving, field).narrow(axis + 2, shape[axis] - 2, 2) == 0).all()
        filled = warp_nearest(moving, field, background=7.0)
        assert filled.dtype == torch.uint8
        assert (filled.narrow(axis + 2, shape[axis] - 2, 2) == 7).all()


def test_large_labels_survive() -> None:
    labels = torch.full((1, 1, 3, 4), 2**40 + 1)
    still = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    for moved in (warp_nearest(labels, still, background=0.0), warp_labels(labels, still)):
        assert moved.dtype == labels.dtype
        assert torch.equal(moved, labels)


def test_permuted_axes(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    moving, field, matrix = normal(generator, 1, 2, *shape), normal(generator, 1, dim, *shape), _matrix(dim)
    labels = torch.randint(0, 3, (1, 1, *shape), generator=generator)
    for order in orders(dim):
        turned, there = permute_field(field, order), permute_affine(matrix, order)
        expected = permute_image(warp(moving, field, matrix), order)
        torch.testing.assert_close(warp(permute_image(moving, order), turned, there), expected, atol=1e-12, rtol=0)
        assert torch.equal(
            warp_labels(permute_image(labels, order), turned, there), permute_image(warp_labels(labels, field, matrix), order)
        )
        assert torch.equal(
            warp_nearest(permute_image(labels, order), turned, there), permute_image(warp_nearest(labels, field, matrix), order)
        )


@pytest.mark.parametrize("with_affine", [False, True])
def test_derivatives(dim: int, generator: torch.Generator, with_affine: bool) -> None:
    shape = (3, 4, 3)[:dim]
    moving = normal(generator, 1, 1, *shape).requires_grad_()
    # whole points plus 0.3 stay away from the kinks between voxels
    field = (torch.randint(-1, 2, (1, dim, *shape), generator=generator) + 0.3).double()
    assert bool(inside(moved_points(field), shape).any())
    matrix = torch.from_numpy(homogeneous(np.eye(dim), np.full(dim, 0.2)))[None] if with_affine else None
    inputs = [moving, field.requires_grad_(), *([matrix.requires_grad_()] if matrix is not None else [])]

    def pull(m: Tensor, u: Tensor, a: Tensor | None = None) -> Tensor:
        return warp(m, u, a)

    assert torch.autograd.gradcheck(pull, inputs)
    assert torch.autograd.gradgradcheck(pull, inputs)


def test_one_moving_image_for_a_batch_of_fields(shape: tuple[int, ...], generator: torch.Generator) -> None:
    moving, fields = normal(generator, 1, 2, *shape), normal(generator, 3, len(shape), *shape)
    labels = torch.randint(0, 3, (1, 1, *shape), generator=generator)
    for pull, source in ((warp, moving), (warp_nearest, moving), (warp_labels, labels)):
        together = pull(source, fields)
        for k in range(3):
            torch.testing.assert_close(together[k], pull(source, fields[k : k + 1])[0], atol=1e-13, rtol=0)
        spread = pull(source.expand(3, *source.shape[1:]), fields[:1])
        torch.testing.assert_close(spread[2], together[0], atol=1e-13, rtol=0)
