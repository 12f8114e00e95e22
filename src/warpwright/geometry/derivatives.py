"""Finite differences of fields, with spacing; Jacobian determinants of maps `x -> x + u(x)`."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["divergence", "gradient", "jacobian", "jacobian_determinant"]


def gradient(field: Tensor, spacing: tuple[float, ...] | None = None) -> Tensor:
    """Derivative along every axis: second order inside, one-sided at the border, zero along an axis of one voxel.

    Args:
        field: (B, C, *S).
        spacing: distance of voxels along each axis; default 1.

    Returns:
        (B, C, D, *S); entry [:, c, d] is the derivative of channel c along axis d.
    """
    return torch.stack([_along(field, axis, 1.0 if spacing is None else spacing[axis - 2]) for axis in range(2, field.ndim)], 2)


def _along(field: Tensor, axis: int, step: float) -> Tensor:
    n = field.shape[axis]
    if n == 1:
        return torch.zeros_like(field)
    one = torch.diff(field, dim=axis)
    first, last = one.narrow(axis, 0, 1), one.narrow(axis, n - 2, 1)
    inside = 0.5 * (one.narrow(axis, 0, n - 2) + one.narrow(axis, 1, n - 2))
    return torch.cat([first, inside, last], axis) / step


def divergence(field: Tensor, spacing: tuple[float, ...] | None = None) -> Tensor:
    """Divergence of a vector field: (B, D, *S) in units of the spacing, to (B, 1, *S)."""
    dim = field.shape[1]
    parts = [_along(field[:, d : d + 1], d + 2, 1.0 if spacing is None else spacing[d]) for d in range(dim)]
    return torch.stack(parts).sum(0)


def jacobian(displacement: Tensor) -> Tensor:
    """Jacobian matrix of `x -> x + u(x)` in voxels: (B, D, *S) to (B, D, D, *S), entry [:, i, j] = d phi_i / d x_j."""
    dim = displacement.shape[1]
    eye = torch.eye(dim, dtype=displacement.dtype, device=displacement.device)
    return gradient(displacement) + eye.reshape(1, dim, dim, *(1,) * dim)


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Determinant of the Jacobian of `x -> x + u(x)`.

    Volume ratios do not depend on the spacing of the grid, so none is asked for; a composition with an affine in
    world coordinates multiplies by that affine's determinant.

    Args:
        displacement: (B, D, *S), voxels.

    Returns:
        (B, *S); 1 where nothing changes, <= 0 where the map folds.
    """
    return _determinant(jacobian(displacement))


def _determinant(matrix: Tensor) -> Tensor:
    """Determinant over axes 1 and 2 by Laplace expansion along the first row (no copies to the last axes)."""
    n = matrix.shape[1]
    if n == 1:
        return matrix[:, 0, 0]
    total = torch.zeros_like(matrix[:, 0, 0])
    for j in range(n):
        minor = torch.cat([matrix[:, 1:, :j], matrix[:, 1:, j + 1 :]], 2)
        total = total + (-1) ** j * matrix[:, 0, j] * _determinant(minor)
    return total
