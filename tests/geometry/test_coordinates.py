"""Tensors of voxel coordinates against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles.make import homogeneous, normal, rotation
from warpwright.geometry import affine_points, identity_points, moved_points

CPU = torch.device("cpu")


def test_identity_points_are_indices(shape: tuple[int, ...]) -> None:
    points = identity_points(shape, dtype=torch.float64, device=CPU)
    np.testing.assert_array_equal(points[0].numpy(), np.indices(shape))


def test_affine_points(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    matrix = homogeneous(1.3 * rotation(dim, 0.3), np.arange(1.0, dim + 1))
    points = normal(generator, 2, dim, *shape)
    got = affine_points(matrix, points)
    for b, *index in np.ndindex(2, *shape):
        at = (b, slice(None), *index)
        np.testing.assert_allclose(got[at], (matrix @ [*points[at].tolist(), 1.0])[:dim], atol=1e-12)


def test_one_matrix_or_one_for_each_sample(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    points = normal(generator, 3, dim, *shape)
    matrices = np.stack([homogeneous(rotation(dim, angle), np.full(dim, angle)) for angle in (0.1, 0.2, 0.3)])
    each = affine_points(torch.from_numpy(matrices), points)
    shared = affine_points(matrices, points[:1])
    for k in range(3):
        torch.testing.assert_close(each[k], affine_points(matrices[k], points[k : k + 1])[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(shared[k], affine_points(matrices[k], points[:1])[0], atol=1e-12, rtol=0)


def test_moved_points_add_the_displacement_before_the_affine(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    field = normal(generator, 2, dim, *shape)
    moved = torch.from_numpy(np.indices(shape)) + field
    torch.testing.assert_close(moved_points(field), moved, atol=1e-12, rtol=0)
    matrix = homogeneous(rotation(dim, 0.7), np.ones(dim))
    torch.testing.assert_close(moved_points(field, matrix), affine_points(matrix, moved), atol=1e-12, rtol=0)


def test_gradient_with_respect_to_the_affine(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    matrix = torch.from_numpy(homogeneous(rotation(dim, 0.3), np.ones(dim)))[None].requires_grad_()
    points = normal(generator, 2, dim, 4).requires_grad_()
    assert torch.autograd.gradcheck(affine_points, (matrix, points))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_points_of_half_precision_fields_are_single(dtype: torch.dtype) -> None:
    field = torch.full((1, 2, 1000, 3), 0.25, dtype=dtype)
    points = moved_points(field, np.diag([2.0, 1.0, 1.0]))
    assert points.dtype == torch.float32
    assert points[0, 0, :, 0].tolist() == [2 * (k + 0.25) for k in range(1000)]
    assert identity_points((1000, 3), dtype=dtype, device=CPU).dtype == torch.float32


def test_autocast_does_not_round_points(dim: int) -> None:
    shape = (300, 7, 6)[:dim]
    field = torch.full((1, dim, *shape), 0.375)
    matrix = homogeneous(np.eye(dim) + np.eye(dim, k=1), np.full(dim, 0.125))
    expected = moved_points(field, matrix)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = moved_points(field, matrix)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)
    assert got[0, 0, 299].flatten()[0] == 299.875
