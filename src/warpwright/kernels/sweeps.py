"""Sweeps over the planes of an image for its MIND-SSC descriptor, see `descriptor`.

Every plane is swept row by row, and squared differences are summed over the planes of the window where they are needed, so
nothing larger than some rows is kept. Row t is read, row y = t - radius compared, row y - radius pulled back.
"""

from __future__ import annotations

import numpy as np

from warpwright.kernels import patches
from warpwright.kernels.compile import kernel

__all__ = ["compare", "describe", "gather", "pad", "variance"]


@kernel
def pad(begin, end, volume, margin, out):
    """Planes `begin` to `end` of a volume whose border is repeated `margin` times."""
    planes, rows, columns = volume.shape
    for z in range(begin, end):
        for y in range(out.shape[1]):
            row = volume[min(max(z - margin[0], 0), planes - 1), min(max(y - margin[1], 0), rows - 1)]
            own, m = out[z, y], margin[2]
            for x in range(m):
                own[x], own[m + columns + x] = row[0], row[columns - 1]
            inner = own[m : m + columns]
            for x in range(columns):
                inner[x] = row[x]


@kernel
def variance(begin, end, height, shape, image, starts, pairs, radius, dilation, partial, out, spill):
    """Sums of V for each plane; with `out` the gradient of the sum: V takes the mean of all pairs less the smallest."""
    _, rows, columns = shape
    kind, gradient, r = image.dtype.type, len(out) > 0, radius[1]
    ring = np.empty((len(pairs), 2 * r + 1, columns), image.dtype)
    pulls, totals = np.empty_like(ring), np.empty((len(pairs), columns), image.dtype)
    room, line = np.empty((4 + len(starts), columns), image.dtype), np.zeros(columns + 2 * radius[2], image.dtype)
    low, spread, count, ties = room[0], room[1], room[2], room[3]
    share = kind(1) / kind(np.int32(len(pairs)))
    for z in range(begin, end):
        for t in range(rows + (2 if gradient else 1) * r):
            y, late = t - r, t - 2 * r
            if t < rows:
                patches.feed(image, starts, pairs, z, t, radius, shape[0], ring)
            if 0 <= y < rows:
                patches.boxed(ring, y, rows, radius, line, totals)
                patches.counts(z, y, shape, radius, count)
                patches.lowered(totals, count, low, spread)
                partial[z] += _sum(spread)
                if gradient:
                    _count_ties(totals, ties)
                    for k in range(len(pairs)):
                        own, u = totals[k], pulls[k, y % pulls.shape[1]]
                        for x in range(columns):
                            u[x] = (share - (kind(1) / ties[x] if own[x] == kind(0) else kind(0))) / count[x]
            if gradient and late >= 0:
                patches.boxed(pulls, late, rows, radius, line, totals)
                patches.scatter(
                    totals, image, starts, pairs, z, late, radius, dilation, begin, end, room[4:], out, spill[begin // height]
                )


@kernel
def _sum(row):
    total = 0.0
    for x in range(len(row)):
        total += row[x]
    return total


@kernel
def _count_ties(distance, ties):
    """How many of K distances (K, X) are the smallest."""
    kind = distance.dtype.type
    for x in range(len(ties)):
        ties[x] = kind(0)
    for k in range(len(distance)):
        row = distance[k]
        for x in range(len(ties)):
            ties[x] += kind(1) if row[x] == kind(0) else kind(0)


@kernel
def describe(begin, end, shape, image, starts, pairs, radius, typical, bounds, out):
    """Descriptors (K, Z, Y, X) of planes `begin` to `end`."""
    _, rows, columns = shape
    ring = np.empty((len(pairs), 2 * radius[1] + 1, columns), image.dtype)
    totals, bits = np.empty((len(pairs), columns), image.dtype), np.empty(columns, np.int32)
    room, line = np.empty((6, columns), image.dtype), np.zeros(columns + 2 * radius[2], image.dtype)
    for z in range(begin, end):
        for t in range(rows + radius[1]):
            y = t - radius[1]
            if t < rows:
                patches.feed(image, starts, pairs, z, t, radius, shape[0], ring)
            if y >= 0:
                patches.boxed(ring, y, rows, radius, line, totals)
                patches.counts(z, y, shape, radius, room[0])
                patches.lowered(totals, room[0], room[1], room[2])
                patches.held(room[2], room[0], typical, bounds, room[3], room[4], room[5])
                patches.similar(totals, room[3], bits, totals)
                for k in range(len(pairs)):
                    out[k, z, y] = totals[k]


@kernel
def compare(
    begin, end, height, shape, moved, fixed, weight, starts, pairs, radius, dilation, means, bounds, factor, partial, out, spill
):
    """Sums for each plane of `partial` (2, Z): weighted squared differences, and the derivative in the typical V of `moved`."""
    _, rows, columns = shape
    gradient, r = len(out) > 0, radius[1]
    rings = np.empty((3, len(pairs), 2 * r + 1, columns), moved.dtype)
    totals, bits = np.empty((3, len(pairs), columns), moved.dtype), np.empty(columns, np.int32)
    room, line = np.empty((8 + len(starts), columns), moved.dtype), np.zeros(columns + 2 * radius[2], moved.dtype)
    count, spread, inverse, slope, leak = room[0], room[1], room[2], room[3], room[4]
    distance, described, other = totals[0], totals[1], totals[2]
    for z in range(begin, end):
        for t in range(rows + (2 if gradient else 1) * r):
            y, late = t - r, t - 2 * r
            if t < rows:
                patches.feed(moved, starts, pairs, z, t, radius, shape[0], rings[0])
                patches.feed(fixed, starts, pairs, z, t, radius, shape[0], rings[1])
            if 0 <= y < rows:
                patches.counts(z, y, shape, radius, count)
                patches.boxed(rings[1], y, rows, radius, line, distance)
                patches.lowered(distance, count, leak, spread)
                patches.held(spread, count, means[1], bounds, inverse, slope, leak)
                patches.similar(distance, inverse, bits, other)
                patches.boxed(rings[0], y, rows, radius, line, distance)
                patches.lowered(distance, count, leak, spread)
                patches.held(spread, count, means[0], bounds, inverse, slope, leak)
                patches.similar(distance, inverse, bits, described)
                own = weight[z, y]
                partial[0, z] += _differences(described, other, own, room[5])
                if gradient:
                    sums = room[5:8]
                    by = _pull(distance, described, other, own, factor, count, inverse, slope, leak, sums, rings[2], y)
                    partial[1, z] += by
            if gradient and late >= 0:
                patches.boxed(rings[2], late, rows, radius, line, distance)
                patches.scatter(
                    distance, moved, starts, pairs, z, late, radius, dilation, begin, end, room[8:], out, spill[begin // height]
                )


@kernel
def _differences(described, other, weight, room):
    """Weighted sum of the squares of `described - other` (K, X), which is left in `other`."""
    kind = room.dtype.type
    for x in range(len(room)):
        room[x] = kind(0)
    for k in range(len(described)):
        m, f = described[k], other[k]
        for x in range(len(room)):
            f[x] = m[x] - f[x]
            room[x] += f[x] * f[x]
    for x in range(len(weight)):
        room[x] *= weight[x]
    return _sum(room)


@kernel
def _pull(distance, described, difference, weight, factor, count, inverse, slope, leak, sums, ring, y):
    """Derivatives in the sums of squared differences of row y, into `ring`; returns that in the typical V.

    With m the descriptor, D the distance, n the count and c = 2 factor w (m - f) m:
    dE/dV = sum_k c D / (V^2 n), dE/dD_k = -c / (V n) + dE/dV / (K n), and the smallest sum takes minus the sum of them all.
    """
    kind = count.dtype.type
    by_mean, by_variance, ties = sums[0], sums[1], sums[2]
    for x in range(len(count)):
        by_mean[x] = by_variance[x] = kind(0)
    _count_ties(distance, ties)
    for k in range(len(distance)):
        d, m, c = distance[k], described[k], difference[k]
        for x in range(len(count)):
            c[x] *= m[x]
            by_mean[x] += c[x]
            by_variance[x] += c[x] * d[x]
    w = described[0]
    for x in range(len(count)):
        by_variance[x] *= inverse[x]  # before the second time, or the square may be beyond what a number holds
        w[x] = kind(1)
    if len(weight):
        for x in range(len(count)):
            w[x] = weight[x]
    scale, share = kind(2 * factor), kind(1) / kind(np.int32(len(distance)))
    for x in range(len(count)):
        w[x] *= scale * inverse[x]
        by = w[x] * by_variance[x]
        leak[x] *= by * count[x]
        by *= slope[x]
        ties[x] = (by - w[x] * by_mean[x]) / ties[x]
        by_variance[x] = by * share
    for k in range(len(distance)):
        d, c, u = distance[k], difference[k], ring[k, y % ring.shape[1]]
        for x in range(len(count)):
            u[x] = by_variance[x] - w[x] * c[x] - (ties[x] if d[x] == kind(0) else kind(0))
    return _sum(leak)


@kernel
def gather(begin, end, height, spill, through, through_spill, rest, out):
    """Adds what slabs kept for planes `begin` to `end`, and `rest` times another gradient."""
    planes = len(out)
    halo = spill.shape[1] // 2
    for z in range(begin, end):
        for y in range(out.shape[1]):
            row, other = out[z, y], through[z, y]
            for slab in range(len(spill)):
                first, last = slab * height, min((slab + 1) * height, planes)
                n = z - first + halo if z < first else z - last + halo
                if (z < first and n >= 0) or (z >= last and n < 2 * halo):
                    kept, others = spill[slab, n, y], through_spill[slab, n, y]
                    for x in range(len(row)):
                        row[x] += kept[x]
                        other[x] += others[x]
            for x in range(len(row)):
                row[x] += rest * other[x]
