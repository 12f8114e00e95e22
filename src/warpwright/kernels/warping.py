"""Images pulled through `x -> matrix (x + u(x))` without a tensor of coordinates; composition of displacements."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.kernels import rows
from warpwright.kernels.compile import kernel
from warpwright.kernels.layout import (
    as_matrices,
    as_vectors,
    as_volume,
    axes_of,
    batch_of,
    empty,
    from_vectors,
    samples,
    to_tensor,
)
from warpwright.kernels.slabs import ordered_sum, over_slabs

__all__ = ["compose", "warp", "warp_covered", "warp_gradient"]


def warp(
    moving: Tensor, displacement: Tensor, affine: Tensor | None, *, zero: bool = False, background: float | None = None
) -> Tensor:
    """(B, C, *M) pulled through (B, D, *S) and the affine: (B, C, *S). See `sampling.warp` and `sampling.warp_within`."""
    shape = tuple(displacement.shape[2:])
    images, fields = as_volume(moving), as_vectors(displacement)
    batch = batch_of(affine, images, fields)
    out = empty((batch, images.shape[1], *fields.shape[2:]), fields)
    for image, field, matrix, moved in samples(images, fields, as_matrices(affine, batch, len(shape)), out):
        over_slabs(_warp, field.shape[1:], image, field, matrix, zero, False, moved, moved[:0], image[:0])
        if background is not None:
            over_slabs(_fill, field.shape[1:], image.shape[1:], field, matrix, background, moved)
    return to_tensor(out, shape)


def warp_covered(
    moving: Tensor, displacement: Tensor, affine: Tensor | None, moving_weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `warp`, border repeated, and the cover of every place, (B, 1, *S). See `sampling.warp_covered`."""
    shape = tuple(displacement.shape[2:])
    nothing = torch.empty(1, 0, *moving.shape[2:], dtype=moving.dtype)
    weights = as_volume(nothing if moving_weight is None else moving_weight)
    images, fields = as_volume(moving), as_vectors(displacement)
    batch = batch_of(affine, images, fields)
    matrices = as_matrices(affine, batch, len(shape))
    out = empty((batch, images.shape[1], *fields.shape[2:]), fields)
    cover = empty((batch, 1, *fields.shape[2:]), fields)
    for image, field, matrix, moved, covered, weight in samples(images, fields, matrices, out, cover, weights):
        over_slabs(_warp, field.shape[1:], image, field, matrix, False, False, moved, covered, weight)
    return to_tensor(out, shape), to_tensor(cover, shape)


def compose(outer: Tensor, inner: Tensor, *, in_place: bool = False) -> Tensor:
    """(B, D, *S) twice to (B, D, *S): `inner(x) + outer(x + inner(x))`; in the memory of `inner` if that is wanted."""
    fields, images = as_vectors(inner), as_vectors(outer)
    out = fields if in_place else empty(fields.shape, fields)
    for image, field, matrix, moved in samples(images, fields, as_matrices(None, 1, inner.shape[1]), out):
        over_slabs(_warp, field.shape[1:], image, field, matrix, False, True, moved, moved[:0], image[:0])
    return from_vectors(out, tuple(inner.shape[2:]))


@kernel
def _warp(begin, end, image, field, matrix, zero, add, out, covered, weights):
    """With `zero` the image is zero outside; with `add` the field is added to the result.

    `covered` (1, Z, Y, X) or nothing is written with the cover times the pulled `weights` (1, *M) or nothing.
    """
    shape = image.shape[1:]
    flat = image.reshape(len(image), shape[0] * shape[1] * shape[2])
    step = rows.strides(shape)
    columns = field.shape[3]
    points, share, moves, cover, offset = rows.scratch(columns, field)
    value = np.empty(columns, field.dtype)
    for z in range(begin, end):
        for y in range(field.shape[2]):
            rows.locate(matrix, z, y, field, shape, points, share, moves, cover, offset)
            for c in range(len(image)):
                row = out[c, z, y]
                if add:
                    own = field[c, z, y]  # which may be the very memory that is written
                    rows.gather(flat[c], step, share, offset, value)
                    for x in range(columns):
                        row[x] = own[x] + value[x]
                else:
                    rows.gather(flat[c], step, share, offset, row)
                if zero:
                    for x in range(columns):
                        row[x] *= cover[x]
            if len(covered):
                goal = covered[0, z, y]
                if len(weights):
                    rows.gather(weights.reshape(weights.size), step, share, offset, goal)
                for x in range(columns):
                    goal[x] = goal[x] * cover[x] if len(weights) else cover[x]


@kernel
def _fill(begin, end, shape, field, matrix, background, out):
    """Overwrites what looks more than half a voxel beyond the outermost centres of an image of `shape`."""
    kind = field.dtype.type
    half, value = kind(0.5), kind(background)
    points, share, moves, cover, offset = rows.scratch(field.shape[3], field)
    for z in range(begin, end):
        for y in range(field.shape[2]):
            rows.locate(matrix, z, y, field, shape, points, share, moves, cover, offset)
            for axis in range(3):
                end_of_axis = kind(shape[axis]) - half
                for x in range(len(cover)):
                    known = (points[axis, x] >= -half) & (points[axis, x] < end_of_axis)
                    cover[x] = (cover[x] if axis else half) if known else kind(0)
            for c in range(len(out)):
                row = out[c, z, y]
                for x in range(len(row)):
                    row[x] = row[x] if cover[x] > 0 else value


def warp_gradient(cotangent: Tensor, moving: Tensor, displacement: Tensor, affine: Tensor | None, *, by_affine: bool) -> Tensor:
    """Gradient of `sum(cotangent * warp(...))`, border repeated, in the displacement, or in the affine instead.

    Returns:
        (B, D, *S), or (B, D + 1, D + 1) float64 with a last row of zeros.
    """
    shape = tuple(displacement.shape[2:])
    dim = len(shape)
    images, fields, cotangents = as_volume(moving), as_vectors(displacement), as_volume(cotangent)
    batch = len(cotangents)
    matrices = as_matrices(affine, batch, dim)
    by_field = empty((batch, 0 if by_affine else 3, *fields.shape[2:]), fields)
    sums = np.zeros((batch, 3, 4, fields.shape[2] if by_affine else 0))
    for g, image, field, matrix, out, partial in samples(cotangents, images, fields, matrices, by_field, sums):
        over_slabs(_warp_gradient, field.shape[1:], g, image, field, matrix, out, partial)
    if not by_affine:
        return from_vectors(by_field, shape)
    axes = axes_of(dim)
    out = torch.zeros(batch, dim + 1, dim + 1, dtype=torch.float64)
    out[:, :dim] = torch.from_numpy(ordered_sum(sums)[np.ix_(range(batch), axes, (*axes, 3))])
    return out


@kernel
def _warp_gradient(begin, end, cotangent, image, field, matrix, by_field, by_matrix):
    """Writes `by_field` (3, Z, Y, X) or, where that holds nothing, `by_matrix` (3, 4, Z), a sum for each plane."""
    shape = image.shape[1:]
    flat = image.reshape(len(image), shape[0] * shape[1] * shape[2])
    step = rows.strides(shape)
    columns = field.shape[3]
    points, share, moves, cover, offset = rows.scratch(columns, field)
    value = np.empty(columns, field.dtype)
    slopes, force = np.empty((3, columns), field.dtype), np.empty((3, columns), field.dtype)
    for z in range(begin, end):
        for y in range(field.shape[2]):
            rows.locate(matrix, z, y, field, shape, points, share, moves, cover, offset)
            for c in range(len(image)):
                rows.gather_slopes(flat[c], step, share, moves, offset, value, slopes)
                g = cotangent[c, z, y]
                for axis in range(3):
                    for x in range(columns):
                        push = g[x] * slopes[axis, x]
                        force[axis, x] = push if c == 0 else force[axis, x] + push
            if len(by_field):
                rows.turned(matrix, force, by_field, z, y)
            else:
                rows.moments(force, field, by_matrix, z, y)
