"""Pull-back of images and labels through a displacement and an affine: `moved(x) = moving(A (x + u(x)))`."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from warpwright.geometry import moved_points, spatial
from warpwright.sampling.sample import Outside, inside, sample, sample_labels, sample_nearest

__all__ = ["warp", "warp_labels", "warp_nearest"]


def warp(
    moving: Tensor, displacement: Tensor, affine: np.ndarray | Tensor | None = None, *, outside: Outside = "edge"
) -> Tensor:
    """The moving image pulled onto the fixed grid.

    Args:
        moving: (B, C, *M).
        displacement: (B, D, *S), voxels of the fixed grid, added before the affine.
        affine: fixed voxels to moving voxels, (D+1, D+1) or (B, D+1, D+1); None for the identity.
        outside: what the moving image is beyond its border.

    Returns:
        (B, C, *S).
    """
    return sample(moving, moved_points(displacement, affine), outside=outside)


def warp_nearest(
    moving: Tensor, displacement: Tensor, affine: np.ndarray | Tensor | None = None, *, background: float = 0
) -> Tensor:
    """As `warp`, by the nearest voxel: any dtype, no new values; `background` where the point is outside the moving image."""
    points = moved_points(displacement, affine)
    return sample_nearest(moving, points).masked_fill(~inside(points, spatial(moving)), background)


def warp_labels(moving: Tensor, displacement: Tensor, affine: np.ndarray | Tensor | None = None) -> Tensor:
    """As `warp_nearest` for labels, by the largest interpolated share (`sample_labels`); 0 outside the moving image."""
    points = moved_points(displacement, affine)
    return sample_labels(moving, points).where(inside(points, spatial(moving)), 0)
