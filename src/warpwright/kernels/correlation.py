"""Local correlation of two images in box windows, and its gradient, in one sweep.

With W the window sum, n = W(w), a the covariance and F, M the variances (noise added), g the derivative of the energy in a
voxel's squared correlation: P = 2 g a / (F M n), Q = P a / M, R = Q mean_m - P mean_f, and the gradient in the moved image is
w (f W(P) - m W(Q) + W(R)).

A slab is swept plane by plane. Sums along the first axis slide from plane to plane, their rows slide along the second axis,
along the third they are made by doubling. The maps P, Q and R take the same way, a radius behind. A row of sums holds its
parts one after the other, each between zeros.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, from_numpy

from warpwright.kernels.compile import kernel
from warpwright.kernels.layout import as_volume, empty, to_tensor, volume_shape
from warpwright.kernels.reduction import total
from warpwright.kernels.slabs import ordered_sum, over_slabs

__all__ = ["lncc"]

HEIGHT = 20  # planes of a slab; where it begins, sums begin anew
FRESH = 16  # rows after which a sliding sum begins anew
BLOCK = 512  # voxels of a row whose parts lie at a fixed distance, which the compiler needs to know to vectorise


def lncc(
    moved: Tensor, fixed: Tensor, weight: Tensor | None, radius: tuple[int, ...], epsilon: float, *, gradient: bool
) -> tuple[Tensor, Tensor]:
    """Weighted mean of one minus the squared local correlation, and its gradient in the moved image. See `LNCC`.

    Args:
        moved: (B, C, *S).
        fixed: (B, C, *S).
        weight: (B or 1, 1, *S), >= 0; None for one everywhere.
        radius: of the box along each axis, voxels.
        epsilon: added to covariance and variances.
        gradient: whether it is wanted.

    Returns:
        (B,) energies and (B, C, *S) gradient, or (0, C, *S).
    """
    images, others = as_volume(moved), as_volume(fixed)
    batch, shape = max(len(images), len(others)), images.shape[2:]
    channels, planes = images.shape[1], shape[0]
    sizes = np.full(1, float(np.prod(shape))) if weight is None else total(weight).numpy().astype(np.float64)
    weights = np.ones((1, 1, 1, 1, shape[2]), images.dtype) if weight is None else as_volume(weight)
    reach = tuple(min(r, n) - 1 for r, n in zip(volume_shape(tuple(r + 1 for r in radius)), shape, strict=True))
    share = 8 * np.finfo(images.dtype).eps * np.prod([2 * r + 1 for r in reach]) / np.prod(shape)
    partial = np.zeros((batch, channels, planes))
    out = empty((batch, channels, planes if gradient else 0, *shape[1:]), images)
    for b, c in np.ndindex(batch, channels):
        own = [array[b % len(array)] for array in (images, others, weights, sizes)]
        scale = 1 / (channels * own[3]) if own[3] > 0 else 0.0
        least = max(share * own[3], 1e-30)
        rest = (weight is not None, reach, epsilon, scale, least, partial[b, c], out[b, c])
        over_slabs(_slab, shape, own[0][c], own[1][c], own[2][0], *rest, height=HEIGHT)
    energy = from_numpy(ordered_sum(partial.reshape(batch, -1)).astype(images.dtype))
    return energy, to_tensor(out if gradient else out[:0], tuple(moved.shape[2:]))


@kernel
def _slab(begin, end, moved, fixed, weight, weighted, reach, noise, scale, least, energy, out):
    """Adds to `energy` (Z,) of planes `begin` to `end`, and writes the gradient to `out` (Z, Y, X) unless it holds nothing.

    Images and weight are (Z, Y, X), the weight (1, 1, X) ones where it is not `weighted`; each `reach` is below the length of
    its axis. Windows count their weights as `least` at least: what sums that slide leave behind by rounding is less.
    """
    planes, rows, columns = fixed.shape
    far, wide, pad = reach
    width, gradient = columns + 2 * pad, len(out) > 0
    sums, maps = np.zeros((rows + 1, (5 + weighted) * width), fixed.dtype), np.zeros((rows + 1, 3 * width), fixed.dtype)
    ring, room = np.zeros((2 * far + 1, rows, 3 * columns), fixed.dtype), np.zeros((5, 6 * width), fixed.dtype)
    line, behind, blank = room[2, : sums.shape[1]], room[3, : 3 * width], room[4]
    block, nothing = np.zeros(6 * BLOCK, fixed.dtype), np.zeros(columns, fixed.dtype)
    centres = _centres(begin, end, fixed, moved, weight)
    first = max(begin - far, 0) if gradient else begin  # plane of the maps
    start = max(first - far, 0)
    for p in range(start, end + (2 if gradient else 1) * far):
        z, v = p - far, p - 2 * far
        now, old = min(p, planes - 1), max(v - 1, 0)
        for t in range(rows + 2 * wide):
            y, u = t - wide, t - 2 * wide
            if t < rows and z < planes:
                w = _row(weight, now, t) if p < planes else nothing
                gone = _row(weight, old, t) if v > start else nothing
                _slide(sums[t], width, pad, fixed[now, t], moved[now, t], w, fixed[old, t], moved[old, t], gone, centres, block)
            if 0 <= y < rows and z >= first:
                if z < planes:
                    _down(sums, y, wide, line)
                    window = _along(line, pad, blank, room)
                    if not weighted:
                        _count(window[5 * width :], columns, pad, _within(z, far, planes) * _within(y, wide, rows))
                    loss = _correlate(window, width, _row(weight, z, y), noise, scale, least, block)
                    if begin <= z < end:  # the others are another slab's
                        energy[z] += loss
                if gradient:
                    _replace(maps[y], ring[z % len(ring), y], window if z < planes else blank, width, pad)
            if gradient and u >= 0 and v >= begin:
                _down(maps, u, wide, behind)
                window = _along(behind, pad, blank, room)
                _gradient(window, width, fixed[v, u], moved[v, u], _row(weight, v, u), centres, out[v, u])


@kernel
def _row(weight, z, y):
    """A row of weights; where there is but one, it."""
    return weight[min(z, len(weight) - 1), min(y, weight.shape[1] - 1)]


@kernel
def _centres(begin, end, fixed, moved, weight):
    """Weighted means of a quarter of the rows: sums of what is left cancel less."""
    total, f, m = 0.0, 0.0, 0.0
    for z in range(begin, end):
        for y in range(z % 4, fixed.shape[1], 4):
            a, b, w = fixed[z, y], moved[z, y], _row(weight, z, y)
            for x in range(len(a)):
                total += w[x]
                f += w[x] * a[x]
                m += w[x] * b[x]
    kind = fixed.dtype.type
    return (kind(f / total), kind(m / total)) if total > 0 else (kind(0), kind(0))


@kernel
def _slide(row, width, pad, f, m, w, g, n, u, centres, block):
    """Adds w f, w m, w f f, w f m, w m m, and w if it is summed, of a row of centred images; takes away those of another."""
    (a, b), columns = centres, len(f)
    for begin in range(0, columns, BLOCK):
        size = min(columns - begin, BLOCK)
        for x in range(size):
            p, q, r, s = f[x] - a, m[x] - b, g[x] - a, n[x] - b
            wp, wq, ur, us = w[x] * p, w[x] * q, u[x] * r, u[x] * s
            block[x] = wp - ur
            block[x + BLOCK] = wq - us
            block[x + 2 * BLOCK] = wp * p - ur * r
            block[x + 3 * BLOCK] = wp * q - ur * s
            block[x + 4 * BLOCK] = wq * q - us * s
            block[x + 5 * BLOCK] = w[x] - u[x]
        for part in range(len(row) // width):
            to, new = row[part * width + pad + begin :], block[part * BLOCK :]
            for x in range(size):
                to[x] += new[x]
        f, m, w, g, n, u = f[size:], m[size:], w[size:], g[size:], n[size:], u[size:]


@kernel
def _down(sums, y, reach, line):
    """Sum of rows `y - reach` to `y + reach`, from that of the row before."""
    rows = len(sums) - 1  # the last is blank
    if y % FRESH:
        enter, leave = sums[min(y + reach, rows)], sums[y - reach - 1 if y > reach else rows]
        for k in range(len(line)):
            line[k] += enter[k] - leave[k]
        return
    line[:] = 0
    for other in range(max(y - reach, 0), min(y + reach + 1, rows)):
        row = sums[other]
        for k in range(len(line)):
            line[k] += row[k]


@kernel
def _along(line, reach, blank, room):
    """Row of `line[k] + ... + line[k + 2 reach]`, in one of two rows of room, from sums of three."""
    out = room[0]
    a, b, c = line, line[1:], line[2:]
    if not reach:
        b, c = blank, blank[: len(line)]
    for step in range(1 if reach < 2 else max(reach - 2, 2)):
        if step:
            a, b, c = out, line[2 * step + 5 :], line[2 * step + 6 :]
        if step == 1:
            b = line[3:] if reach == 2 else out[3:]
            c = out[6:] if reach > 3 else line[2 * reach :]
        out = room[step % 2]
        for k in range(len(c)):
            out[k] = a[k] + b[k] + c[k]
    return out


@kernel
def _within(k, reach, n):
    """Voxels of a window that lie inside the image."""
    return min(k + reach, n - 1) - max(k - reach, 0) + 1


@kernel
def _count(row, columns, reach, others):
    kind = row.dtype.type
    for x in range(columns):
        row[x] = kind(others * _within(x, reach, columns))


@kernel
def _correlate(window, width, w, noise, scale, least, block):
    """Turns windows of a row into its maps P, Q and R, and returns its share of the energy."""
    kind, columns = window.dtype.type, len(w)
    tiny, e, step, nil, one, total = kind(least), kind(noise), kind(-2 * scale), kind(0), kind(1), kind(0)
    for begin in range(0, columns, BLOCK):
        size = min(columns - begin, BLOCK)
        f, m, ff = window[begin:], window[width + begin :], window[2 * width + begin :]
        fm, mm, n = window[3 * width + begin :], window[4 * width + begin :], window[5 * width + begin :]
        for x in range(size):
            per = one / max(n[x], tiny)
            mean_f, mean_m = f[x] * per, m[x] * per
            var_f, var_m = max(ff[x] * per - mean_f * mean_f, nil) + e, max(mm[x] * per - mean_m * mean_m, nil) + e
            both = fm[x] * per - mean_f * mean_m
            both += -e if both < nil else e
            inverse = both / (var_f * var_m)
            total += w[x] * (one - both * inverse)
            p = step * w[x] * inverse * per
            q = p * inverse * var_f
            block[x], block[x + BLOCK], block[x + 2 * BLOCK] = p, q, q * mean_m - p * mean_f
        for part in range(3):
            to, new = window[part * width + begin :], block[part * BLOCK :]
            for x in range(size):
                to[x] = new[x]
        w = w[size:]
    return scale * total


@kernel
def _replace(sums, old, new, width, pad):
    """Puts a row of maps in the place of `old`, in their sum too."""
    columns = width - 2 * pad
    for part in range(3):
        to, now, before = sums[part * width + pad :], new[part * width :], old[part * columns :]
        for x in range(columns):
            to[x] += now[x] - before[x]
            before[x] = now[x]


@kernel
def _gradient(window, width, f, m, w, centres, out):
    a, b, p, q, r = centres[0], centres[1], window, window[width:], window[2 * width :]
    for x in range(len(out)):
        out[x] = w[x] * ((f[x] - a) * p[x] - (m[x] - b) * q[x] + r[x])
