"""Cubic B-spline control lattices on a voxel grid.

Control point k of an axis lies at voxel `(k - 1) * knot`, so that the lattice reaches one knot beyond each end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from warpwright.sampling.separable import along_axes, bspline_matrix

__all__ = ["bspline_displacement", "control_shape", "fit_bspline"]


def control_shape(shape: Sequence[int], knots: Sequence[float]) -> tuple[int, ...]:
    """Number of control points along each axis for a grid of `shape` voxels and `knots` voxels between knots."""
    return tuple(int((n - 1) // k) + 4 for n, k in zip(shape, knots, strict=True))


def bspline_displacement(control: Tensor, shape: Sequence[int], knots: Sequence[float]) -> Tensor:
    """The dense displacement of a control lattice.

    Args:
        control: (B, D, *K) coefficients, voxels of the dense grid; K = control_shape(shape, knots).
        shape: spatial shape of the dense grid.
        knots: voxels between knots along each axis.

    Returns:
        (B, D, *shape), voxels; linear in `control`.
    """
    return along_axes(control, _matrices(control.shape[2:], shape, knots))


def fit_bspline(displacement: Tensor, knots: Sequence[float]) -> Tensor:
    """The control lattice whose spline is closest to a dense displacement (least squares, smallest coefficients).

    Args:
        displacement: (B, D, *S), voxels.
        knots: voxels between knots along each axis.

    Returns:
        (B, D, *control_shape(S, knots)), voxels.
    """
    shape = displacement.shape[2:]
    return along_axes(displacement, [_pseudo_inverse(m) for m in _matrices(control_shape(shape, knots), shape, knots)])


def _pseudo_inverse(matrix: Tensor) -> Tensor:
    return cast(Tensor, torch.linalg.pinv(matrix))  # pyright: ignore[reportUnknownMemberType]: not annotated


def _matrices(control: Sequence[int], shape: Sequence[int], knots: Sequence[float]) -> list[Tensor]:
    return [
        bspline_matrix(m, torch.arange(n, dtype=torch.float64) / k + 1) for m, n, k in zip(control, shape, knots, strict=True)
    ]
