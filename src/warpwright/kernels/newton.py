"""Newton's method on single voxels of the inverse of a displacement."""

from __future__ import annotations

import numpy as np

from warpwright.kernels import rows
from warpwright.kernels.compile import kernel
from warpwright.kernels.lanes import LANES, load, measure, note, place_moved, room, within

__all__ = ["newton"]

REGULAR = 1e-3  # added to the diagonal of the matrix, as it may be singular


@kernel
def newton(begin, end, field, tolerance, max_steps, out, worst, missing, count):
    """Damped Newton steps on the voxels that the fixed point does not reach."""
    kind = field.dtype.type
    shape = field.shape[1:]
    flat, inverse = field.reshape(3, field.size // 3), out.reshape(3, out.size // 3)
    step = rows.strides(shape)
    base, w, error, damping, previous, square = room(field)
    points, share, moves, cover, offset = rows.scratch(LANES, field)
    best, way = np.empty((3, LANES), field.dtype), np.empty((3, LANES), field.dtype)
    slopes = np.empty((3, 3, LANES), field.dtype)
    home = np.empty(LANES, np.int64)
    start = begin * shape[1] * shape[2]
    last = start
    for z in range(begin, end):
        last += count[z]
    for first in range(start, last, LANES):
        active = min(LANES, last - first)
        for x in range(active):
            load(x, missing[first + x], shape, inverse, home, base, w)
            damping[x] = 1
        for attempt in range(max_steps + 1):
            place_moved(base, w, points, shape, share, moves, cover, offset)
            for axis in range(3):
                rows.gather_slopes(flat[axis], step, share, moves, offset, error[axis], slopes[axis])
            measure(w, error, square)
            left = False
            for x in range(active):
                if attempt == 0 or square[x] < previous[x]:
                    damping[x] = min(2 * damping[x], kind(1))
                    previous[x] = square[x]
                    best[0, x], best[1, x], best[2, x] = w[0, x], w[1, x], w[2, x]
                    _direction(x, slopes, error, way)
                else:
                    damping[x] *= kind(0.5)
                if np.sqrt(previous[x]) > tolerance:
                    left = True
                    for axis in range(3):
                        w[axis, x] = best[axis, x] - damping[x] * way[axis, x]
            if not left:
                break
        for x in range(active):
            k = home[x]
            for axis in range(3):
                inverse[axis, k] = best[axis, x]
            inside = within(base[0, x] + best[0, x], base[1, x] + best[1, x], base[2, x] + best[2, x], shape)
            note(worst, k // (shape[1] * shape[2]), previous[x], inside)


@kernel
def _direction(x, slopes, error, way):
    """The step (1 + du)^-1 error of a lane, by Cramer's rule."""
    one = slopes.dtype.type(1 + REGULAR)
    a, b, c = slopes[0, 0, x] + one, slopes[0, 1, x], slopes[0, 2, x]
    d, e, f = slopes[1, 0, x], slopes[1, 1, x] + one, slopes[1, 2, x]
    g, h, i = slopes[2, 0, x], slopes[2, 1, x], slopes[2, 2, x] + one
    p, q, r = error[0, x], error[1, x], error[2, x]
    scale = slopes.dtype.type(1) / (a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))
    way[0, x] = scale * ((e * i - f * h) * p + (c * h - b * i) * q + (b * f - c * e) * r)
    way[1, x] = scale * ((f * g - d * i) * p + (a * i - c * g) * q + (c * d - a * f) * r)
    way[2, x] = scale * ((d * h - e * g) * p + (b * g - a * h) * q + (a * e - b * d) * r)
