"""Surface elements of a binary mask on the lattice between its voxels.

A lattice point sits where 2^D voxels meet. If these voxels are neither all in the mask nor all outside, the surface
passes there and its piece has the area of the marching-cubes surface through the middles of the cut edges. This is
the surface that DeepMind's `surface-distance` tabulates; here the areas follow from geometry:

* of the corners inside and those outside, the fewer ones are taken apart into connected groups, one piece for each;
* the projection of a piece onto the plane across axis d is the difference of what the group covers of the two faces
  of the cell (`COVERED`), which is its area vector if the piece is flat;
* two shapes are not flat: three corners in an L (a flat triangle and a flat trapezium) and four corners on a path along
  all three axes (one flat quadrilateral and two triangles).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import scipy

__all__ = ["neighbour_codes", "surfel_areas"]

COVERED = {1: (0.0, 1 / 2, 1.0), 2: (0.0, 1 / 8, 1 / 2, 7 / 8, 1.0)}  # part of a face (D - 1 axes) by number of corners


def neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """Which of the 2^D voxels around each lattice point are in the mask, as bits.

    Args:
        mask: (*S) bool; what lies beyond it is outside.

    Returns:
        (*(S + 1)) integers in [0, 2^(2^D)); lattice point p lies half a voxel before voxel p on every axis. Bit k is the
        k-th corner in the order of `itertools.product((0, 1), repeat=D)`.
    """
    padded = np.pad(mask, 1)
    codes = np.zeros([n + 1 for n in mask.shape], dtype=np.int64)
    for bit, corner in enumerate(product((0, 1), repeat=mask.ndim)):
        window = tuple(slice(c, c + n + 1) for c, n in zip(corner, mask.shape, strict=True))
        codes |= padded[window].astype(np.int64) << bit
    return codes


def surfel_areas(spacing: tuple[float, ...]) -> np.ndarray:
    """Area (mm^2; in 2-D length, mm) of the surface in a cell of each neighbour code.

    Args:
        spacing: distance of voxels along each axis, mm; D = 2 or 3.

    Returns:
        (2^(2^D),) areas; 0 for the empty and the full cell.
    """
    scale = np.prod(spacing) / np.asarray(spacing, dtype=np.float64)
    return np.array([sum(np.linalg.norm(piece * scale) for piece in pieces) for pieces in _all_pieces(len(spacing))])


@lru_cache(maxsize=2)
def _all_pieces(dim: int) -> tuple[tuple[np.ndarray, ...], ...]:
    """For each code the area vectors of its flat pieces, in a cell of unit spacing, up to sign."""
    table: list[tuple[np.ndarray, ...]] = []
    for code in range(2 ** (2**dim)):
        corners = np.array([code >> bit & 1 for bit in range(2**dim)]).reshape((2,) * dim)
        corners = 1 - corners if corners.sum() > 2 ** (dim - 1) else corners
        groups = np.zeros_like(corners)
        scipy.ndimage.label(corners, output=groups)
        table.append(tuple(piece for g in range(1, groups.max() + 1) for piece in _pieces(groups == g)))
    return tuple(table)


def _pieces(group: np.ndarray) -> tuple[np.ndarray, ...]:
    """Area vectors of the flat pieces around one connected group of at most half of the corners."""
    dim, size = group.ndim, int(group.sum())
    low = [COVERED[dim - 1][int(group.take(0, axis).sum())] for axis in range(dim)]
    high = [COVERED[dim - 1][int(group.take(1, axis).sum())] for axis in range(dim)]
    total = np.abs(np.subtract(low, high))
    if size == 3:  # L
        slope = np.full(dim, total.min())
        return slope, total - slope
    if size == 4 and total.min() == 0 and total.max() < 1:  # path along three axes; its middle one has total 0
        ends = np.flatnonzero(total)
        return np.full(dim, 0.5), *(np.where(np.arange(dim) == end, 0, 0.25) for end in ends)
    return (total,)
