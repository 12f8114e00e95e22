"""Rows of patch distances: squared differences of pairs of neighbours in box windows, their exponentials and their pull-back.

A pair is two places in an image whose border is repeated: `starts` holds where each neighbour of voxel 0 lies in that image,
`pairs` the numbers of two neighbours. Rings hold the last rows, row y in slot `y % slots`.
"""

from __future__ import annotations

import numpy as np

from warpwright.kernels.compile import kernel

__all__ = ["boxed", "counts", "feed", "held", "lowered", "scatter", "similar"]


@kernel
def feed(image, starts, pairs, z, y, radius, planes, ring):
    """Row (z, y) of the squared differences, summed over the planes of the window, into `ring` (K, slots, X)."""
    for k in range(len(pairs)):
        a, b = starts[pairs[k, 0]], starts[pairs[k, 1]]
        row = ring[k, y % ring.shape[1]]
        first = max(z - radius[0], 0)
        for plane in range(first, min(z + radius[0] + 1, planes)):
            one, two = image[plane + a[0], y + a[1]][a[2] :], image[plane + b[0], y + b[1]][b[2] :]
            if plane == first:
                for x in range(len(row)):
                    d = one[x] - two[x]
                    row[x] = d * d
            else:
                for x in range(len(row)):
                    d = one[x] - two[x]
                    row[x] += d * d


@kernel
def boxed(ring, y, rows, radius, line, out):
    """Sums (K, X) over the rows of a ring and the voxels in the window around row y, cut at the border.

    `line` (X + 2 radius,) is zero at both ends.
    """
    r = radius[2]
    columns = out.shape[1]
    for k in range(len(out)):
        total = out[k]
        inner = line[r : r + columns] if r else total
        first = max(y - radius[1], 0)
        for near in range(first, min(y + radius[1] + 1, rows)):
            row = ring[k, near % ring.shape[1]]
            if near == first:
                for x in range(columns):
                    inner[x] = row[x]
            else:
                for x in range(columns):
                    inner[x] += row[x]
        if r:
            for x in range(columns):
                total[x] = line[x]
            for shift in range(1, 2 * r + 1):
                shifted = line[shift:]
                for x in range(columns):
                    total[x] += shifted[x]


@kernel
def counts(z, y, shape, radius, out):
    """Voxels in the window around each voxel of row (z, y)."""
    kind = out.dtype.type
    planes = min(z + radius[0] + 1, shape[0]) - max(z - radius[0], 0)
    rows = min(y + radius[1] + 1, shape[1]) - max(y - radius[1], 0)
    for x in range(shape[2]):
        out[x] = kind(np.int32(planes * rows * (min(x + radius[2] + 1, shape[2]) - max(x - radius[2], 0))))


@kernel
def lowered(totals, count, low, variance):
    """Takes the smallest of K totals (K, X) from each, and writes their mean over k and the window, V."""
    kind = count.dtype.type
    first = totals[0]
    for x in range(len(low)):
        low[x] = first[x]
        variance[x] = kind(0)
    for k in range(1, len(totals)):
        row = totals[k]
        for x in range(len(low)):
            low[x] = min(low[x], row[x])
    for k in range(len(totals)):
        row = totals[k]
        for x in range(len(low)):
            row[x] -= low[x]
            variance[x] += row[x]
    share = kind(1) / kind(np.int32(len(totals)))
    for x in range(len(low)):
        variance[x] = variance[x] * share / count[x]


@kernel
def held(variance, count, typical, bounds, inverse, slope, leak):
    """V within its bounds (factors of the typical V): `inverse` of V times count, `slope` in V and `leak` in the typical V.

    Where V equals a bound, both share the derivative, as in torch; where nothing varies, V is 1.
    """
    kind = count.dtype.type
    nil, half, one = kind(0), kind(0.5), kind(1)
    few, many = kind(bounds[0]), kind(bounds[1])
    low, high = few * typical, many * typical
    for x in range(len(variance)):
        v = variance[x]
        above = one if v > low else (half if v == low else nil)
        by_low = nil if v > low else (half * few if v == low else few)
        v = low if v < low else v
        under = one if v < high else (half if v == high else nil)
        by_high = nil if v < high else (half * many if v == high else many)  # not (1 - under) many: sums may be reordered
        v = high if v > high else v
        inverse[x] = one / ((v if typical > nil else one) * count[x])
        slope[x] = above * under if typical > nil else nil
        leak[x] = by_low * under + by_high if typical > nil else nil


@kernel
def similar(distance, inverse, bits, out):
    """`exp(-distance inverse)` of (K, X) distances >= 0; `bits` (X,) int32 is scratch. Single precision: to 1e-7."""
    if out.itemsize == 8:
        for k in range(len(out)):
            for x in range(out.shape[1]):
                out[k, x] = np.exp(-distance[k, x] * inverse[x])
        return
    kind = out.dtype.type
    powers = bits.view(np.float32)
    most, half, base, log = kind(-87), kind(0.5), kind(1.4426950408889634), kind(0.6931471805599453)
    c2, c3, c4 = kind(0.5000000120), kind(0.1666666546), kind(0.0416657962)
    c5, c6, c7 = kind(0.0083334519), kind(0.0013981999), kind(0.00019875691)
    for k in range(len(out)):
        far, row = distance[k], out[k]
        for x in range(len(row)):
            e = -far[x] * inverse[x]
            e = most if e < most else e
            n = np.int32(e * base - half)
            bits[x] = (n + np.int32(127)) << np.int32(23)  # 2^n as a number in single precision
            row[x] = e - kind(n) * log
        for x in range(len(row)):
            e = row[x]
            p = c2 + e * (c3 + e * (c4 + e * (c5 + e * (c6 + e * c7))))
            row[x] = (kind(1) + e + e * e * p) * powers[x]


@kernel
def scatter(pull, image, starts, pairs, z, y, radius, dilation, begin, end, room, out, spill):
    """Adds what row (z, y) of the derivatives `pull` (K, X) in the sums over planes does to the image.

    Args:
        pull: (K, X), summed over the rows and voxels of the window.
        image: border repeated.
        starts: neighbours.
        pairs: of neighbours.
        z: plane of the row.
        y: row in the plane.
        radius: of the window.
        dilation: width of the border.
        begin: first plane that `out` is given for; others go to `spill`.
        end: one beyond the last.
        room: (neighbours, X) scratch.
        out: (Z, Y, X).
        spill: (2 halo, Y, X): the planes before `begin`, then those from `end`.
    """
    planes, rows = out.shape[:2]
    halo = len(spill) // 2
    for plane in range(max(z - radius[0], 0), min(z + radius[0] + 1, planes)):
        room[:] = 0
        for k in range(len(pairs)):
            a, b = starts[pairs[k, 0]], starts[pairs[k, 1]]
            one, two = image[plane + a[0], y + a[1]][a[2] :], image[plane + b[0], y + b[1]][b[2] :]
            p, q, g = room[pairs[k, 0]], room[pairs[k, 1]], pull[k]
            for x in range(len(g)):
                push = g[x] * (one[x] - two[x])
                p[x] += push
                q[x] -= push
        for n in range(len(starts)):
            there = min(max(plane + starts[n, 0] - dilation[0], 0), planes - 1)
            row = min(max(y + starts[n, 1] - dilation[1], 0), rows - 1)
            if there < begin:
                _push(room[n], starts[n, 2] - dilation[2], spill[there - begin + halo, row])
            elif there >= end:
                _push(room[n], starts[n, 2] - dilation[2], spill[there - end + halo, row])
            else:
                _push(room[n], starts[n, 2] - dilation[2], out[there, row])


@kernel
def _push(force, shift, out):
    """Adds twice the force to the voxels `shift` away, or to the last there is."""
    n, two = len(out), out.dtype.type(2)
    begin, end = min(max(-shift, 0), n), max(min(n - shift, n), 0)
    for x in range(begin):
        out[0] += two * force[x]
    moved = out[begin + shift :] if begin < end else out
    own = force[begin:]
    for x in range(end - begin):
        moved[x] += two * own[x]
    for x in range(max(begin, end), n):
        out[n - 1] += two * force[x]
