"""The derivative of a pulled image along a direction of its displacement, and the adjoint of both in the image.

With p the place of a voxel, w_k the weights of the corners k around it and v the direction carried through the affine:
`moved = sum_k w_k(p) M(k)` and `along = sum_k (v . grad w_k)(p) M(k)`: one gather; the adjoint is one splat with two weights.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from warpwright.kernels import rows
from warpwright.kernels.compile import kernel
from warpwright.kernels.layout import as_matrices, as_vectors, as_volume, batch_of, empty, samples, to_tensor, volume_shape
from warpwright.kernels.slabs import over_slabs

__all__ = ["warp_directional", "warp_directional_adjoint"]


def warp_directional(moving: Tensor, displacement: Tensor, direction: Tensor, affine: Tensor | None) -> tuple[Tensor, Tensor]:
    """(B, C, *M), (B, D, *S) twice and the affine to moved and along, (B, C, *S) each. See `sampling.warp_directional`."""
    shape = tuple(displacement.shape[2:])
    images, fields, directions = as_volume(moving), as_vectors(displacement), as_vectors(direction)
    batch = batch_of(affine, images, fields, directions)
    matrices = as_matrices(affine, batch, len(shape))
    moved, along = (empty((batch, images.shape[1], *fields.shape[2:]), fields) for _ in range(2))
    for image, field, v, matrix, out, slope in samples(images, fields, directions, matrices, moved, along):
        over_slabs(_gather, field.shape[1:], image, field, v, matrix, out, slope)
    return to_tensor(moved, shape), to_tensor(along, shape)


@kernel
def _gather(begin, end, image, field, direction, matrix, moved, along):
    shape = image.shape[1:]
    flat = image.reshape(len(image), shape[0] * shape[1] * shape[2])
    step = rows.strides(shape)
    columns = field.shape[3]
    points, share, moves, cover, offset = rows.scratch(columns, field)
    slopes, force = np.empty((3, columns), field.dtype), np.empty((3, 1, 1, columns), field.dtype)
    for z in range(begin, end):
        for y in range(field.shape[2]):
            rows.locate(matrix, z, y, field, shape, points, share, moves, cover, offset)
            for c in range(len(image)):
                rows.gather_slopes(flat[c], step, share, moves, offset, moved[c, z, y], slopes)
                rows.turned(matrix, slopes, force, 0, 0)
                out = along[c, z, y]
                for axis in range(3):
                    v, f = direction[axis, z, y], force[axis, 0, 0]
                    for x in range(columns):
                        out[x] = v[x] * f[x] + (out[x] if axis else v[x] - v[x])


def warp_directional_adjoint(
    by_moved: Tensor, by_along: Tensor, displacement: Tensor, direction: Tensor, affine: Tensor | None, shape: tuple[int, ...]
) -> Tensor:
    """Cotangents (B, C, *S) of moved and along to that of the image, (B, C, *shape). A channel is dealt out in one order."""
    first, second = as_volume(by_moved), as_volume(by_along)
    fields, directions = as_vectors(displacement), as_vectors(direction)
    matrices = as_matrices(affine, len(first), len(shape))
    out = np.zeros((*first.shape[:2], *volume_shape(shape)), first.dtype)
    for a, b, field, v, matrix, image in samples(first, second, fields, directions, matrices, out):
        over_slabs(_deal, (len(image), 1), a, b, field, v, matrix, image, height=1)
    return to_tensor(out, shape)


@kernel
def _deal(begin, end, by_moved, by_along, field, direction, matrix, out):
    """Channels `begin` to `end`."""
    kind = field.dtype.type
    shape, columns = out.shape[1:], field.shape[3]
    step = rows.strides(shape)
    points, share, moves, cover, offset = rows.scratch(columns, field)
    for c in range(begin, end):
        flat = out[c].reshape(shape[0] * shape[1] * shape[2])
        for z in range(field.shape[1]):
            for y in range(field.shape[2]):
                rows.locate(matrix, z, y, field, shape, points, share, moves, cover, offset)
                for x in range(columns):
                    a, b = by_moved[c, z, y, x], by_along[c, z, y, x]
                    for corner in range(8):
                        place = np.int64(offset[x])
                        weight, slope = kind(1), kind(0)
                        for axis in range(3):
                            upper = (corner >> (2 - axis)) & 1
                            part = share[axis, x] if upper else kind(1) - share[axis, x]
                            place += step[axis] if upper else 0
                            v = kind(0)
                            for d in range(3):
                                v += kind(matrix[axis, d]) * direction[d, z, y, x]
                            v *= moves[axis, x]
                            slope = slope * part + weight * (v if upper else -v)
                            weight *= part
                        flat[place] += weight * a + slope * b
