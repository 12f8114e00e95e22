"""Linear operations along axes: symmetric windows along all of them in one sweep, a banded matrix along one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from warpwright.kernels.compile import kernel
from warpwright.kernels.layout import as_volume, axes_of, empty, to_tensor
from warpwright.kernels.slabs import over_slabs

__all__ = ["window"]

TILE = (16, 32)  # planes and rows worked on at a time: with what lies around them they stay in a core's own cache


def window(field: Tensor, taps: Sequence[Tensor], before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """Weighted sums under a symmetric window, zero outside: along each axis `after[i] sum_k taps[|k|] before[i+k] f[i+k]`.

    Args:
        field: (B, C, *S).
        taps: for each axis the weights from the middle outwards, (radius + 1,).
        before: for each axis (n,) factors of the samples.
        after: for each axis (n,) factors of the sums.

    Returns:
        (B, C, *S).
    """
    shape = tuple(field.shape[2:])
    source = as_volume(field)
    source = source.reshape(-1, *source.shape[2:])
    out = empty(source.shape, source)
    tables: list[np.ndarray] = []
    for group in (taps, before, after):
        rows = [np.ones(1, source.dtype)] * 3
        for axis, values in zip(axes_of(len(shape)), group, strict=True):
            rows[axis] = values.numpy().astype(source.dtype)
        tables.extend(rows)
    height = max(4, min(TILE[0], source.shape[1] // 8))
    over_slabs(_window, source.shape[1:], source, *tables, TILE[1], out, height=height)
    return to_tensor(out[None], shape).reshape(field.shape)


@kernel
def _window(begin, end, source, taps_z, taps_y, taps_x, before_z, before_y, before_x, after_z, after_y, after_x, height, out):
    """A tile at a time: sums along z of its rows and those around it, then along y and x."""
    rows, columns = source.shape[2:]
    halo, reach = len(taps_y) - 1, len(taps_x) - 1
    tile = np.empty((height + 2 * halo, end - begin, columns), source.dtype)
    row, padded = np.empty(columns, source.dtype), np.zeros(columns + 2 * reach, source.dtype)
    for c in range(len(source)):
        volume = source[c]
        for top in range(0, rows, height):
            first, bottom = max(top - halo, 0), min(top + height, rows)
            last = min(bottom + halo, rows)
            for z in range(begin, end):
                for y in range(first, last):
                    _sum_of_rows(volume, y, 0, len(volume), z, taps_z, before_z, after_z[z], tile[y - first, z - begin])
            for y in range(top, bottom):
                for z in range(begin, end):
                    _sum_of_rows(tile, z - begin, first, last, y, taps_y, before_y, after_y[y], row)
                    _sum_along(row, taps_x, before_x, after_x, padded, out[c, z, y])


@kernel
def _sum_of_rows(source, other, first, last, at, taps, before, after, out):
    """`out = after sum_k taps[|k|] before[at + k] row(at + k)`, row n is `source[n - first, other]`, `first` <= n < `last`."""
    nil = out.dtype.type(0)
    own, weight = source[at - first, other], after * taps[0] * before[at]
    for x in range(len(out)):
        out[x] = weight * own[x]
    for k in range(1, len(taps)):
        low, high = max(at - k, first), min(at + k, last - 1)
        under, over = source[low - first, other], source[high - first, other]
        a = after * taps[k] * before[low] if low == at - k else nil
        b = after * taps[k] * before[high] if high == at + k else nil
        for x in range(len(out)):
            out[x] += a * under[x] + b * over[x]


@kernel
def _sum_along(row, taps, before, after, padded, out):
    """The same along a row; `padded` has room for `radius` zeros at either end."""
    reach = len(taps) - 1
    middle = padded[reach:]
    for x in range(len(out)):
        middle[x] = row[x] * before[x]
    for x in range(len(out)):
        out[x] = taps[0] * middle[x]
    for k in range(1, reach + 1):
        left, right = padded[reach - k :], padded[reach + k :]
        tap = taps[k]
        for x in range(len(out)):
            out[x] += tap * (left[x] + right[x])
    for x in range(len(out)):
        out[x] *= after[x]
