"""Linear operations along one axis at a time, as small matrices: filters, resampling, splines.

An operation on a whole volume is one matrix for each axis. The matrix holds the border rule (rows sum to one where the
operation is an average), its transpose is the adjoint, any derivative is right, and a matrix product is the fastest
thing a CPU or GPU does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from warpwright.geometry import full_precision
from warpwright.kernels import as_operator, usable

__all__ = ["along_axes", "along_axis", "box_matrix", "bspline_matrix", "gaussian_matrix", "linear_matrix"]


def along_axis(field: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Apply a matrix along one spatial axis.

    Args:
        field: (B, C, *S).
        matrix: (m, S[axis]).
        axis: 0 for the first spatial axis.

    Returns:
        (B, C, *S) with S[axis] replaced by m, in the dtype of the field; computed in float32 or better, also under
        autocast (the rows of a matrix of averages would no longer sum to one).
    """
    return _banded(field, matrix, axis) if usable(field) and not matrix.requires_grad else _plain(field, matrix, axis)


def _plain(field: Tensor, matrix: Tensor, axis: int) -> Tensor:
    shape = list(field.shape)
    n, after = shape[axis + 2], _product(shape[axis + 3 :])
    dtype = torch.promote_types(field.dtype, torch.float32)
    matrix, flat = matrix.to(field.device, dtype), field.to(dtype)
    with full_precision(field):
        out = flat.reshape(-1, n) @ matrix.T if after == 1 else matrix @ flat.reshape(-1, n, after)
    shape[axis + 2] = matrix.shape[0]
    return out.reshape(shape).to(field.dtype)


def _compiled(field: Tensor, matrix: Tensor, axis: int) -> Tensor:
    from warpwright.kernels import banded

    return banded.along_axis(field, matrix, axis)


def _fake(field: Tensor, matrix: Tensor, axis: int) -> Tensor:
    shape = list(field.shape)
    shape[axis + 2] = len(matrix)
    return field.new_empty(shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, matrix, ctx.axis = inputs
    ctx.save_for_backward(matrix)


def _backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor]:
    (matrix,) = ctx.saved_tensors
    return (_banded(cotangent, matrix.T, ctx.axis),)


_banded = as_operator("along_axis", _compiled, fake=_fake, backward=_backward, save=_save)


def along_axes(field: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Apply one matrix along each spatial axis; None leaves an axis as it is."""
    for axis, matrix in enumerate(matrices):
        if matrix is not None:
            field = along_axis(field, matrix, axis)
    return field


def _product(sizes: Sequence[int]) -> int:
    out = 1
    for size in sizes:
        out *= size
    return out


def gaussian_matrix(
    n: int, sigma: float, positions: Tensor | None = None, truncate: float = 3.0, *, mean: bool = True
) -> Tensor:
    """Gaussian averages of n samples around positions.

    Args:
        n: number of samples.
        sigma: standard deviation, voxels; > 0.
        positions: (m,) places of the averages, voxels; default every sample.
        truncate: where the window ends, in sigmas (at least half a voxel).
        mean: averages, normalised at the border; otherwise sums with weight one at the centre (a symmetric matrix).

    Returns:
        (m, n) float64; rows of averages sum to one.
    """
    at = torch.arange(n, dtype=torch.float64)
    where = at if positions is None else positions.to(torch.float64)
    distance = where[:, None] - at
    radius = max(truncate * sigma, 0.5) + 1e-6
    weight = torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= radius)
    return weight / weight.sum(1, keepdim=True) if mean else weight


def box_matrix(n: int, radius: int) -> Tensor:
    """Sums (not means) over windows of 2 radius + 1 samples, cut at the border: (n, n) float64 of ones and zeros."""
    at = torch.arange(n)
    return ((at[:, None] - at).abs() <= radius).to(torch.float64)


def linear_matrix(n: int, positions: Tensor) -> Tensor:
    """Linear interpolation of n samples at (m,) positions, border repeated: (m, n) float64, rows sum to one."""
    where = positions.to(torch.float64).clamp(0, n - 1)
    return (1 - (where[:, None] - torch.arange(n, dtype=torch.float64)).abs()).clamp_min(0)


def bspline_matrix(n: int, positions: Tensor) -> Tensor:
    """Cubic B-splines of n coefficients at (m,) positions in units of the knots, control point k at position k.

    Returns:
        (m, n) float64; a row sums to one where all four neighbours exist.
    """
    t = (positions.to(torch.float64)[:, None] - torch.arange(n, dtype=torch.float64)).abs()
    near = 2 / 3 - t**2 + t**3 / 2
    far = (2 - t).clamp_min(0) ** 3 / 6
    return torch.where(t < 1, near, far)
