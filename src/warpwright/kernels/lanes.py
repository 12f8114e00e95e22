"""Voxels or points a fixed number at a time: whatever their order, loops over them are of one length."""

from __future__ import annotations

import numpy as np

from warpwright.kernels import rows
from warpwright.kernels.compile import kernel

__all__ = ["LANES", "load", "measure", "note", "place_moved", "read_points", "room", "within"]

LANES = 512


@kernel
def read_points(points, begin, out):
    """Points (3, N) from `begin` on to `out` (3, X), whose end is zero where there are no more; how many there were."""
    count = min(points.shape[1] - begin, out.shape[1])
    for axis in range(3):
        given, row = points[axis], out[axis]
        for x in range(count):
            row[x] = given[begin + x]
        for x in range(count, len(row)):
            row[x] = 0
    return count


@kernel
def room(like):
    """Voxels (3, X), their displacements and errors alike, and three rows of numbers; of numbers that harm nothing."""
    vectors, numbers = np.empty((3, 3, LANES), like.dtype), np.empty((3, LANES), like.dtype)
    for x in range(LANES):
        for axis in range(3):
            vectors[0, axis, x], vectors[1, axis, x], numbers[axis, x] = 0, 0, 0
    return vectors[0], vectors[1], vectors[2], numbers[0], numbers[1], numbers[2]


@kernel
def load(x, voxel, shape, inverse, home, base, w):
    """Give lane x a voxel, by its number in the volume, and its displacement in `inverse` (3, voxels)."""
    home[x] = voxel
    row = voxel // shape[2]
    base[0, x], base[1, x], base[2, x] = row // shape[1], row % shape[1], voxel % shape[2]
    for axis in range(3):
        w[axis, x] = inverse[axis, voxel]


@kernel
def place_moved(base, w, points, shape, share, moves, cover, offset):
    """As `rows.place`, of voxels and their displacements."""
    for axis in range(3):
        for x in range(points.shape[1]):
            points[axis, x] = base[axis, x] + w[axis, x]
    rows.place(points, shape, share, moves, cover, offset)


@kernel
def measure(w, error, square):
    """`w + u`, of which `error` (3, X) holds the u, and its square."""
    for axis in range(3):
        for x in range(len(square)):
            error[axis, x] += w[axis, x]
            square[x] = error[axis, x] * error[axis, x] if axis == 0 else square[x] + error[axis, x] * error[axis, x]


@kernel
def within(a, b, c, shape):
    """Whether a point lies in the image, up to half a voxel beyond the outermost centres."""
    return -0.5 <= a < shape[0] - 0.5 and -0.5 <= b < shape[1] - 0.5 and -0.5 <= c < shape[2] - 0.5


@kernel
def note(worst, z, square, inside):
    """The largest error of a plane, of which `square` is a candidate if its point is inside; NaN if any error is."""
    if (inside or np.isnan(square)) and not (np.isnan(worst[z]) or np.sqrt(square) <= worst[z]):
        worst[z] = np.sqrt(square)
