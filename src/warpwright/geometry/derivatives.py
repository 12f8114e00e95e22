"""Finite differences of fields, along voxel axes or world axes; Jacobian determinants of maps `x -> x + u(x)`."""

from __future__ import annotations

import torch
from torch import Tensor

from warpwright.geometry.grid import Grid
from warpwright.kernels import as_operator, usable

__all__ = ["determinant", "divergence", "gradient", "jacobian", "jacobian_determinant", "world_gradient"]


def gradient(field: Tensor, spacing: tuple[float, ...] | None = None) -> Tensor:
    """Derivative along every voxel axis: second order inside, one-sided at the border, zero along an axis of one voxel.

    Args:
        field: (B, C, *S).
        spacing: distance of voxels along each axis; default 1, for derivatives per voxel.

    Returns:
        (B, C, D, *S); entry [:, c, d] is the derivative of channel c along voxel axis d, in units of the field per unit
        of the spacing. For derivatives along world axes see `world_gradient`.
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


def world_gradient(field: Tensor, grid: Grid) -> Tensor:
    """Derivative along the world axes; oblique and sheared grids are right. Differences as in `gradient`.

    Args:
        field: (B, C, *S) on the voxels of `grid`.
        grid: where the S voxels are.

    Returns:
        (B, C, D, *S); entry [:, c, d] is the derivative of channel c along world axis d, in units of the field per mm.
    """
    per_voxel = gradient(field)
    inverse = torch.tensor(grid.inverse_affine[:-1, :-1], dtype=field.dtype, device=field.device)
    steps = inverse.reshape(*inverse.shape, *(1,) * grid.dim)  # [i, j]: voxels along axis i per mm along world axis j
    return torch.stack([(per_voxel * steps[:, j]).sum(2) for j in range(grid.dim)], 2)


def divergence(field: Tensor, spacing: tuple[float, ...] | None = None) -> Tensor:
    """Sum of the derivatives of component d along voxel axis d, which is a divergence where voxel axes are orthogonal.

    Args:
        field: (B, D, *S) components along the voxel axes, in the unit of the spacing (voxels without one).
        spacing: distance of voxels along each axis; default 1.

    Returns:
        (B, 1, *S), without unit.
    """
    dim = field.shape[1]
    parts = [_along(field[:, d : d + 1], d + 2, 1.0 if spacing is None else spacing[d]) for d in range(dim)]
    return torch.stack(parts).sum(0)


def jacobian(displacement: Tensor) -> Tensor:
    """Jacobian matrix of `x -> x + u(x)`, voxels per voxel along voxel axes.

    Between world points it is `A J A^-1` with A the linear part of the grid's affine; the determinant is the same.

    Args:
        displacement: (B, D, *S), voxels.

    Returns:
        (B, D, D, *S); entry [:, i, j] = d phi_i / d x_j.
    """
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
    return (_determinant if usable(displacement) else _plain_determinant)(displacement)


def _plain_determinant(displacement: Tensor) -> Tensor:
    return determinant(jacobian(displacement))


def _compiled_determinant(displacement: Tensor) -> Tensor:
    from warpwright.kernels import jacobian as kernel

    return kernel.determinant(displacement)


def _fake_determinant(displacement: Tensor) -> Tensor:
    return displacement.new_empty(len(displacement), *displacement.shape[2:])


_determinant = as_operator("jacobian_determinant", _compiled_determinant, fake=_fake_determinant, twin=_plain_determinant)


def determinant(matrix: Tensor) -> Tensor:
    """Determinant of a matrix at every voxel, (B, D, D, *S) to (B, *S), by Laplace expansion along the first row."""
    n = matrix.shape[1]
    if n == 1:
        return matrix[:, 0, 0]
    total = torch.zeros_like(matrix[:, 0, 0])
    for j in range(n):
        minor = torch.cat([matrix[:, 1:, :j], matrix[:, 1:, j + 1 :]], 2)
        total = total + (-1) ** j * matrix[:, 0, j] * determinant(minor)
    return total
