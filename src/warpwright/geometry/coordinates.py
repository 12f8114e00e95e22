"""Tensors of voxel coordinates, `(B, D, *S)` in axis order, never below single precision.

Half precision cannot tell voxel 257 from 258. So points are at least float32, whatever a field is, also under autocast.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.geometry.precision import full_precision

__all__ = ["affine_points", "identity_points", "moved_points", "spatial"]


def spatial(field: Tensor) -> tuple[int, ...]:
    """The spatial shape S of a (B, C, *S) tensor."""
    return tuple(field.shape[2:])


def identity_points(shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(1, D, *shape) voxel coordinates of every voxel, in `dtype` or float32 if that is smaller."""
    axes = [torch.arange(n, dtype=torch.promote_types(dtype, torch.float32), device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def affine_points(matrix: np.ndarray | Tensor, points: Tensor) -> Tensor:
    """A voxel matrix applied to points.

    Args:
        matrix: (D+1, D+1), or (B, D+1, D+1) for one per sample.
        points: (B, D, *S), voxels.

    Returns:
        (B, D, *S) points, voxels of the matrix' target, at least float32.
    """
    dim = points.shape[1]
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    m = matrix if isinstance(matrix, Tensor) else torch.tensor(matrix)
    m = m.to(points).reshape(-1, dim + 1, dim + 1)
    batch = max(len(m), len(points))
    flat = points.flatten(2).expand(batch, -1, -1)
    linear, shift = m[:, :dim, :dim].expand(batch, -1, -1), m[:, :dim, dim:].expand(batch, -1, -1)
    with full_precision(points):
        out = torch.baddbmm(shift, linear, flat)
    return out.reshape(batch, *points.shape[1:])


def moved_points(displacement: Tensor, matrix: np.ndarray | Tensor | None = None) -> Tensor:
    """Where each fixed voxel looks: `matrix (x + u(x))`.

    Args:
        displacement: (B, D, *S), voxels of the fixed grid.
        matrix: fixed voxels to moving voxels, (D+1, D+1) or (B, D+1, D+1); None for the identity.

    Returns:
        (B, D, *S) points in voxels of the moving grid, at least float32.
    """
    identity = identity_points(spatial(displacement), dtype=displacement.dtype, device=displacement.device)
    points = identity + displacement
    return points if matrix is None else affine_points(matrix, points)
