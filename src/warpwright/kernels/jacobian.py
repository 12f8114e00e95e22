"""Jacobian determinants of `x -> x + u(x)`, without the matrices."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.kernels.compile import kernel
from warpwright.kernels.layout import as_vectors, empty
from warpwright.kernels.slabs import over_slabs

__all__ = ["determinant"]


def determinant(displacement: Tensor) -> Tensor:
    """(B, D, *S) to (B, *S). See `geometry.jacobian_determinant`."""
    fields = as_vectors(displacement)
    out = empty((len(fields), *fields.shape[2:]), fields)
    for field, volume in zip(fields, out, strict=True):
        over_slabs(_determinant, volume.shape, field, volume)
    return torch.from_numpy(out.reshape(len(out), *displacement.shape[2:]))


@kernel
def _determinant(begin, end, field, out):
    nz, ny, nx = out.shape
    slopes = np.empty((3, 3, nx), field.dtype)
    for z in range(begin, end):
        z0, z1 = max(z - 1, 0), min(z + 1, nz - 1)
        for y in range(ny):
            y0, y1 = max(y - 1, 0), min(y + 1, ny - 1)
            for axis in range(3):
                _difference(field[axis, z0, y], field[axis, z1, y], z1 - z0, slopes[axis, 0])
                _difference(field[axis, z, y0], field[axis, z, y1], y1 - y0, slopes[axis, 1])
                _along(field[axis, z, y], slopes[axis, 2])
            _combine(slopes, out[z, y])


@kernel
def _difference(before, after, distance, out):
    """Rows 0 to 2 voxels apart: the difference for each voxel, 0 where they are one row."""
    scale = out.dtype.type(1 / max(distance, 1))
    for x in range(len(out)):
        out[x] = scale * (after[x] - before[x])


@kernel
def _along(row, out):
    """Differences within a row."""
    n = len(row)
    half = out.dtype.type(0.5)
    for x in range(1, n - 1):
        out[x] = half * (row[x + 1] - row[x - 1])
    out[0] = row[min(1, n - 1)] - row[0]
    out[n - 1] = row[n - 1] - row[max(n - 2, 0)]


@kernel
def _combine(slopes, out):
    """Determinant of 1 plus the slopes (3, 3, X)."""
    one = out.dtype.type(1)
    a, b, c = slopes[0, 0], slopes[0, 1], slopes[0, 2]
    d, e, f = slopes[1, 0], slopes[1, 1], slopes[1, 2]
    g, h, i = slopes[2, 0], slopes[2, 1], slopes[2, 2]
    for x in range(len(out)):
        p, q, r = one + a[x], one + e[x], one + i[x]
        out[x] = p * (q * r - f[x] * h[x]) - b[x] * (d[x] * r - f[x] * g[x]) + c[x] * (d[x] * h[x] - q * g[x])
