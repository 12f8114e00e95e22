"""Joint histograms of two images through cubic B-spline windows, and their pull-back.

Images are rows (R, N) of voxels in any order. A row is cut into at most `SLABS` slabs; each has its own float64 histogram,
added in order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.kernels.compile import kernel
from warpwright.kernels.layout import empty
from warpwright.kernels.slabs import GRAIN, ordered_sum, over_slabs

__all__ = ["joint", "pull_back"]

SLABS = 32
CHUNK = 256  # voxels whose windows are kept at one time


def joint(fixed: Tensor, moved: Tensor, weight: Tensor | None, ends_fixed: Tensor, ends_moved: Tensor, bins: int) -> Tensor:
    """`h(j, k) = sum_x w(x) b(t_fixed(x) - j) b(t_moved(x) - k)`, see `energies.similarity.mutual_information`.

    Args:
        fixed: (R, N) intensities.
        moved: (R, N) intensities.
        weight: (R, N), None for one everywhere.
        ends_fixed: (R, 2) intensities of the outer bins.
        ends_moved: likewise.
        bins: of each image.

    Returns:
        (R, bins, bins).
    """
    count = fixed.shape[1]
    height = _height(count)
    partial = np.empty((len(fixed), -(-count // height), bins, bins))
    scales = _scales(ends_fixed, bins), _scales(ends_moved, bins)
    rows = zip(_rows(fixed), _rows(moved), _weights(weight, fixed), *scales, partial, strict=True)
    for own, other, w, scale, other_scale, out in rows:
        over_slabs(_joint, (count,), height, own, other, w, scale, other_scale, out, height=height)
    return torch.from_numpy(ordered_sum(np.moveaxis(partial, 1, -1))).to(fixed.dtype)


def pull_back(
    gradient: Tensor, own: Tensor, other: Tensor, weight: Tensor | None, ends_own: Tensor, ends_other: Tensor, *, slope: bool
) -> Tensor:
    """Derivative of `sum(gradient * h)` in the intensities of one image, or, without `slope`, in the weight.

    Args:
        gradient: (R, bins, bins), bins of the other image first.
        own: (R, N) intensities of the image.
        other: (R, N) of the other one.
        weight: (R, N), None for one everywhere.
        ends_own: (R, 2) intensities of the outer bins, without derivative.
        ends_other: likewise.
        slope: in the intensities; zero beyond the ends.

    Returns:
        (R, N).
    """
    bins = gradient.shape[1]
    blocks = np.lib.stride_tricks.sliding_window_view(gradient.detach().to(own.dtype).numpy(), (4, 4), (1, 2))
    tables = np.ascontiguousarray(blocks).reshape(len(own), bins - 3, bins - 3, 16)
    rows = _rows(own)
    out = empty(rows.shape, rows)
    scales = _scales(ends_own, bins), _scales(ends_other, bins)
    zipped = zip(rows, _rows(other), _weights(weight if slope else None, own), *scales, tables, out, strict=True)
    for mine, others, w, scale, other_scale, table, by in zipped:
        over_slabs(_pull_back, mine.shape, mine, others, w, scale, other_scale, table, slope, by, height=GRAIN)
    return torch.from_numpy(out)


def _rows(values: Tensor) -> np.ndarray:
    return values.detach().contiguous().numpy()


def _weights(weight: Tensor | None, like: Tensor) -> np.ndarray:
    """(R, N), or (R, 0) for none."""
    return _rows(like)[:, :0] if weight is None else _rows(weight)


def _scales(ends: Tensor, bins: int) -> list[tuple[np.floating, np.floating]]:
    """Low end and bins per intensity of each row, which is rounded as torch does: by the reciprocal."""
    kind = ends.detach().numpy().dtype.type
    return [(low, kind(bins - 3) * (kind(1) / (high - low)) if high > low else kind(0)) for low, high in ends.detach().numpy()]


def _height(count: int) -> int:
    return max(GRAIN, -(-count // SLABS))


@kernel
def _windows(values, scale, bins, slope, base, weights):
    """Cubic B-splines (4, n) around n values, or their slopes, and the first of the four bins that each touches."""
    kind = values.dtype.type
    low, factor = scale
    nil, half, one, two, end = kind(0), kind(0.5), kind(1), kind(2), kind(np.int32(bins - 3))
    sixth, thirds, top = kind(1 / 6), kind(2 / 3), np.int32(bins - 4)
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    for x in range(len(values)):
        t = min(max((values[x] - low) * factor, nil), end)
        first = max(min(np.int32(t), top), np.int32(0))  # also where t is NaN: never beyond the bins
        f = t - kind(first)
        g = one - f
        base[x] = first
        if slope:
            w0[x], w1[x] = -half * g * g, f * (kind(1.5) * f - two)
            w2[x], w3[x] = g * (two - kind(1.5) * g), half * f * f
        else:
            w0[x], w1[x] = sixth * g * g * g, thirds - f * f * (one - half * f)
            w2[x], w3[x] = thirds - g * g * (one - half * g), sixth * f * f * f


@kernel
def _joint(begin, end, height, fixed, moved, weight, scale_fixed, scale_moved, out):
    """Writes the histogram of voxels `begin` to `end` to `out` (slabs, bins, bins).

    Each pair of first bins has its own block of 4 x 4 sums: neighbouring voxels then write to equal or to distinct places.
    """
    bins = out.shape[1]
    j, k = np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32)
    left, right = np.empty((4, CHUNK), fixed.dtype), np.empty((4, CHUNK), fixed.dtype)
    blocks = np.zeros((bins - 3, bins - 3, 16))
    for start in range(begin, end, CHUNK):
        n = min(CHUNK, end - start)
        _windows(fixed[start : start + n], scale_fixed, bins, False, j, left)
        _windows(moved[start : start + n], scale_moved, bins, False, k, right)
        if len(weight):
            for a in range(4):
                for x in range(n):
                    left[a, x] *= weight[start + x]
        _add(n, j, k, left, right, blocks)
    total = out[begin // height]
    total[:] = 0
    for one in range(bins - 3):
        for two in range(bins - 3):
            for a in range(16):
                total[one + a // 4, two + a % 4] += blocks[one, two, a]


@kernel
def _add(n, j, k, left, right, blocks):
    """Adds the products of n windows; written out, so that the sixteen sums are a few vectors."""
    l0, l1, l2, l3 = left[0], left[1], left[2], left[3]
    r0, r1, r2, r3 = right[0], right[1], right[2], right[3]
    for x in range(n):
        c = blocks[j[x], k[x]]
        p, q, r, s = np.float64(r0[x]), np.float64(r1[x]), np.float64(r2[x]), np.float64(r3[x])
        t, u, v, w = np.float64(l0[x]), np.float64(l1[x]), np.float64(l2[x]), np.float64(l3[x])
        c0, c1, c2, c3 = c[0] + t * p, c[1] + t * q, c[2] + t * r, c[3] + t * s
        c4, c5, c6, c7 = c[4] + u * p, c[5] + u * q, c[6] + u * r, c[7] + u * s
        c8, c9, c10, c11 = c[8] + v * p, c[9] + v * q, c[10] + v * r, c[11] + v * s
        c12, c13, c14, c15 = c[12] + w * p, c[13] + w * q, c[14] + w * r, c[15] + w * s
        c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7] = c0, c1, c2, c3, c4, c5, c6, c7
        c[8], c[9], c[10], c[11], c[12], c[13], c[14], c[15] = c8, c9, c10, c11, c12, c13, c14, c15


@kernel
def _pull_back(begin, end, own, other, weight, scale_own, scale_other, table, slope, out):
    """Writes voxels `begin` to `end`; `table` (bins - 3, bins - 3, 16) holds the 4 x 4 gradients that a voxel touches."""
    kind = own.dtype.type
    bins = len(table) + 3
    low, factor = scale_own
    top = kind(np.int32(bins - 3))
    j, k = np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32)
    left, right = np.empty((4, CHUNK), own.dtype), np.empty((4, CHUNK), own.dtype)
    for start in range(begin, end, CHUNK):
        n = min(CHUNK, end - start)
        values, by = own[start : start + n], out[start : start + n]
        _windows(other[start : start + n], scale_other, bins, False, j, left)
        _windows(values, scale_own, bins, slope, k, right)
        _contract(j, k, left, right, table, by)
        if slope:
            for x in range(n):
                t = (values[x] - low) * factor
                by[x] *= factor if kind(0) <= t <= top else kind(0)
        if len(weight):
            for x in range(n):
                by[x] *= weight[start + x]


@kernel
def _contract(j, k, left, right, table, out):
    """`left^T G right` of each voxel's 4 x 4 gradients."""
    l0, l1, l2, l3 = left[0], left[1], left[2], left[3]
    r0, r1, r2, r3 = right[0], right[1], right[2], right[3]
    for x in range(len(out)):
        c = table[j[x], k[x]]
        p, q, r, s = r0[x], r1[x], r2[x], r3[x]
        one = l0[x] * (c[0] * p + c[1] * q + c[2] * r + c[3] * s)
        one += l1[x] * (c[4] * p + c[5] * q + c[6] * r + c[7] * s)
        one += l2[x] * (c[8] * p + c[9] * q + c[10] * r + c[11] * s)
        out[x] = one + l3[x] * (c[12] * p + c[13] * q + c[14] * r + c[15] * s)
