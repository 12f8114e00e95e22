"""A banded matrix applied along one axis of a field: resampling, splines, anti-aliasing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.kernels.compile import kernel
from warpwright.kernels.layout import empty
from warpwright.kernels.slabs import over_slabs

__all__ = ["along_axis"]

BLOCK = 2048  # voxels of a row worked on at a time, which stay in the nearest cache


def along_axis(field: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """(B, C, *S) with the matrix (m, S[axis]) float64 applied along a spatial axis; only its nonzero band costs time."""
    shape = list(field.shape)
    n, after = shape[axis + 2], int(np.prod(shape[axis + 3 :]))
    source = field.detach().contiguous().numpy().reshape(-1, n, after)
    begin, band = _bands(matrix.detach().numpy(), source.dtype)
    out = empty((len(source), len(band), after), source)
    if after == 1:
        over_slabs(_along_row, (len(source), n), source[:, :, 0], begin, band, out[:, :, 0])
    else:
        over_slabs(_across_rows, (len(source) * len(band), after), source, begin, band, out)
    shape[axis + 2] = len(band)
    return torch.from_numpy(out.reshape(shape))


def _bands(matrix: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Where each row's nonzero part begins (m,), and all rows' parts at the width of the widest (m, K)."""
    present = matrix != 0
    columns = matrix.shape[1]
    first = np.where(present.any(1), present.argmax(1), 0)
    last = np.where(present.any(1), columns - 1 - present[:, ::-1].argmax(1), 0)
    width = int((last - first).max()) + 1
    begin = np.minimum(first, columns - width)
    band = np.take_along_axis(matrix, begin[:, None] + np.arange(width), 1)
    return begin, band.astype(dtype)


@kernel
def _across_rows(first, last, source, begin, band, out):
    """Rows `first` to `last` of all output rows, counted through (outer, m)."""
    nil = source.dtype.type(0)
    for number in range(first, last):
        outer, i = number // len(band), number % len(band)
        for start in range(0, source.shape[2], BLOCK):
            goal = out[outer, i, start : start + BLOCK]
            for k in range(band.shape[1]):
                row, weight = source[outer, begin[i] + k, start : start + BLOCK], band[i, k]
                for x in range(len(goal)):
                    goal[x] = weight * row[x] + (goal[x] if k else nil)


@kernel
def _along_row(first, last, source, begin, band, out):
    for number in range(first, last):
        for i in range(len(band)):
            total = source.dtype.type(0)
            for k in range(band.shape[1]):
                total += band[i, k] * source[number, begin[i] + k]
            out[number, i] = total
