"""Inverse of a displacement: a start, a relaxed fixed point, Newton's method where that fails, voxel by voxel.

Voxels do not wait for each other. `LANES` of them are evaluated together; one that is done leaves its lane to the next.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from warpwright.kernels import rows
from warpwright.kernels.compile import kernel
from warpwright.kernels.lanes import LANES, load, measure, note, place_moved, room, within
from warpwright.kernels.layout import as_matrices, as_vectors, empty, from_vectors
from warpwright.kernels.newton import newton
from warpwright.kernels.slabs import over_slabs

__all__ = ["invert", "residual"]

SLABS = 10  # of the whole field, at least: each sees the planes that lead into it


def invert(displacement: Tensor, tolerance: float, max_steps: int) -> tuple[Tensor, float]:
    """Inverse of (B, D, *S) and its residual. See `transforms.invert`."""
    fields = as_vectors(displacement)
    shape = fields.shape[2:]
    out = empty(fields.shape, fields)
    worst = np.zeros((len(fields), shape[0]))
    reach = np.empty((2, shape[0], shape[1]), np.int64)
    missing, count = np.empty(int(np.prod(shape)), np.int64), np.zeros(shape[0], np.int64)
    height = min(16, -(-shape[0] // SLABS))
    for field, inverse, missed, matrix in zip(fields, out, worst, as_matrices(None, len(fields), 3), strict=True):
        over_slabs(_reach, shape, field[0], reach)
        over_slabs(_start, shape, field, matrix, reach, inverse, height=height)
        over_slabs(_relax, shape, field, tolerance, max_steps, inverse, missed, missing, count, height=height)
        if count.any():
            over_slabs(newton, shape, field, tolerance, max_steps, inverse, missed, missing, count, height=height)
    return from_vectors(out, tuple(displacement.shape[2:])), float(worst.max(initial=0))


def residual(displacement: Tensor, inverse: Tensor) -> float:
    """See `transforms.inverse_residual`."""
    fields, inverses = as_vectors(displacement), as_vectors(inverse)
    worst = np.zeros((len(inverses), inverses.shape[2]))
    for field, found, missed, matrix in zip(fields, inverses, worst, as_matrices(None, len(inverses), 3), strict=True):
        over_slabs(_residual, found.shape[1:], field, matrix, found, missed)
    return float(worst.max(initial=0))


@kernel
def _reach(begin, end, lift, reach):
    """Lowest and highest plane that each row leads to."""
    for z in range(begin, end):
        for y in range(lift.shape[1]):
            row = lift[z, y]
            lowest, highest = row[0], row[0]
            for x in range(len(row)):
                lowest, highest = min(lowest, row[x]), max(highest, row[x])
            reach[0, z, y] = np.int64(np.floor(z + max(min(lowest, 1 << 20), -(1 << 20))))
            reach[1, z, y] = np.int64(np.floor(z + max(min(highest, 1 << 20), -(1 << 20))))


@kernel
def _start(begin, end, field, matrix, reach, out):
    """-u carried to where it leads, averaged; -u itself where nothing arrives."""
    kind = field.dtype.type
    shape = field.shape[1:]
    plane = shape[1] * shape[2]
    first, last = begin * plane, end * plane
    dz, dy, dx = rows.strides(shape)
    points, share, moves, cover, offset = rows.scratch(shape[2], field)
    sums = np.empty((last - first, 4), field.dtype)
    for k in range(last - first):
        sums[k, 0], sums[k, 1], sums[k, 2], sums[k, 3] = 0, 0, 0, 0
    for z in range(shape[0]):
        for y in range(shape[1]):
            if reach[1, z, y] < begin - 1 or reach[0, z, y] > end:
                continue
            rows.locate(matrix, z, y, field, shape, points, share, moves, cover, offset)
            u, v, w = field[0, z, y], field[1, z, y], field[2, z, y]
            for x in range(shape[2]):
                k = np.int64(offset[x]) - first
                a, b, c = share[0, x], share[1, x], share[2, x]
                for up in (cover[x] * (kind(1) - a), cover[x] * a):
                    if 0 <= k < last - first:
                        _add(sums[k], up * (kind(1) - b) * (kind(1) - c), u[x], v[x], w[x])
                        _add(sums[k + dx], up * (kind(1) - b) * c, u[x], v[x], w[x])
                        _add(sums[k + dy], up * b * (kind(1) - c), u[x], v[x], w[x])
                        _add(sums[k + dy + dx], up * b * c, u[x], v[x], w[x])
                    k += dz
    for axis in range(3):
        own, row = field[axis].reshape(-1), out[axis].reshape(-1)
        for k in range(last - first):
            weight = sums[k, 3]
            row[first + k] = -sums[k, axis] / weight if weight > kind(0.1) else -own[first + k]


@kernel
def _add(sums, weight, a, b, c):
    sums[0] += weight * a
    sums[1] += weight * b
    sums[2] += weight * c
    sums[3] += weight


@kernel
def _residual(begin, end, field, matrix, inverse, worst):
    shape = field.shape[1:]
    flat = field.reshape(3, field.size // 3)
    step = rows.strides(shape)
    points, share, moves, cover, offset = rows.scratch(inverse.shape[3], field)
    value, square = np.empty(inverse.shape[3], field.dtype), np.empty(inverse.shape[3], field.dtype)
    for z in range(begin, end):
        for y in range(inverse.shape[2]):
            rows.locate(matrix, z, y, inverse, shape, points, share, moves, cover, offset)
            for axis in range(3):
                rows.gather(flat[axis], step, share, offset, value)
                own = inverse[axis, z, y]
                for x in range(len(own)):
                    error = own[x] + value[x]
                    square[x] = error * error if axis == 0 else square[x] + error * error
            for x in range(len(square)):
                note(worst, z, square[x], within(points[0, x], points[1, x], points[2, x], shape))


@kernel
def _relax(begin, end, field, tolerance, max_steps, out, worst, missing, count):
    """Fixed-point steps, halved where they do not help. Voxels that miss are counted, and listed from their slab's first on."""
    kind = field.dtype.type
    shape = field.shape[1:]
    flat, inverse = field.reshape(3, field.size // 3), out.reshape(3, out.size // 3)
    step = rows.strides(shape)
    base, w, error, relaxation, previous, square = room(field)
    points, share, moves, cover, offset = rows.scratch(LANES, field)
    home, steps = np.empty(LANES, np.int64), np.empty(LANES, np.int32)
    enough = kind(tolerance * tolerance)
    first, last = begin * shape[1] * shape[2], end * shape[1] * shape[2]
    missed, active, voxel = 0, 0, first
    while True:
        while active < LANES and voxel < last:
            load(active, voxel, shape, inverse, home, base, w)
            relaxation[active], previous[active], steps[active] = 1, np.inf, 0
            active, voxel = active + 1, voxel + 1
        if active == 0:
            count[begin] = missed
            return
        place_moved(base, w, points, shape, share, moves, cover, offset)
        for axis in range(3):
            rows.gather(flat[axis], step, share, offset, error[axis])
        measure(w, error, square)
        for x in range(LANES):
            going = square[x] > enough and steps[x] < max_steps
            relaxation[x] = relaxation[x] * kind(0.5) if square[x] > previous[x] else relaxation[x]
            previous[x] = square[x]
            factor = relaxation[x] if going else kind(0)
            for axis in range(3):
                w[axis, x] -= factor * error[axis, x]
            steps[x] += 1
        x = 0
        while x < active:
            if square[x] > enough and steps[x] <= max_steps:
                x += 1
                continue
            k = home[x]
            inside = within(points[0, x], points[1, x], points[2, x], shape)
            for axis in range(3):
                inverse[axis, k] = w[axis, x]
            if inside and square[x] > enough:
                missing[first + missed] = k
                missed += 1
            else:
                note(worst, k // (shape[1] * shape[2]), square[x], inside)
            if voxel < last:
                load(x, voxel, shape, inverse, home, base, w)
                relaxation[x], previous[x], steps[x] = 1, np.inf, 0
                voxel += 1
                x += 1
            else:
                active -= 1
                home[x], steps[x], square[x] = home[active], steps[active], square[active]
                relaxation[x], previous[x] = relaxation[active], previous[active]
                for axis in range(3):
                    base[axis, x], w[axis, x], points[axis, x] = base[axis, active], w[axis, active], points[axis, active]
