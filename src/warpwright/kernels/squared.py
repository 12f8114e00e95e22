"""Mean squared difference of a fixed and a pulled moving image, and its gradient in what pulls it, in one sweep."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.kernels import rows
from warpwright.kernels.compile import kernel
from warpwright.kernels.layout import as_matrices, as_vectors, as_volume, axes_of, batch_of, empty, from_vectors, samples
from warpwright.kernels.slabs import ordered_sum, over_slabs

__all__ = ["match"]


def match(
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor,
    affine: Tensor | None,
    weight: Tensor | None,
    moving_weight: Tensor | None,
    *,
    by_displacement: bool,
    by_affine: bool,
) -> tuple[Tensor, Tensor]:
    """Energies of `MSE.match` and their gradient in the displacement, or in the affine instead.

    Args:
        fixed: (B, C, *S).
        moving: (B, C, *M).
        displacement: (B, D, *S), voxels.
        affine: (D+1, D+1) or (B, D+1, D+1); None for the identity.
        weight: (B, 1, *S); None for one everywhere.
        moving_weight: (B, 1, *M); None for one everywhere in the moving image.
        by_displacement: whether the gradient in the displacement is wanted.
        by_affine: whether the gradient in the affine is wanted, and not the other.

    Returns:
        (B,) energies; (B, D, *S), or (B, D + 1, D + 1) float64 with a last row of zeros, or (0,).
    """
    shape, kind = tuple(displacement.shape[2:]), displacement.dtype
    fixeds, images, fields = as_volume(fixed), as_volume(moving), as_vectors(displacement)
    weights = as_volume(torch.empty(1, 0, *shape, dtype=kind) if weight is None else weight)
    pulled = as_volume(torch.empty(1, 0, *moving.shape[2:], dtype=kind) if moving_weight is None else moving_weight)
    batch = batch_of(affine, fixeds, images, fields, weights, pulled)
    matrices = as_matrices(affine, batch, len(shape))
    planes, channels = fields.shape[2], fixeds.shape[1]
    by_field = empty((batch, 3 if by_displacement else 0, *fields.shape[2:]), fields)
    by_matrix, partial = np.zeros((batch, 3, 4, planes if by_affine else 0)), np.zeros((batch, 2, planes))
    for sample in samples(fixeds, images, fields, matrices, weights, pulled, by_field, by_matrix, partial):
        over_slabs(_match, fields.shape[2:], *sample)
    loss, size = ordered_sum(partial).T
    scale = 1 / (channels * np.where(size > 0, size, 1))
    energy = torch.from_numpy(loss * scale).to(kind)
    if by_displacement:
        for out, factor in zip(by_field, scale, strict=True):
            over_slabs(_scale, out.shape[1:], out, factor)
        return energy, from_vectors(by_field, shape)
    if not by_affine:
        return energy, torch.empty(0, dtype=kind)
    dim, axes = len(shape), axes_of(len(shape))
    gradient = torch.zeros(batch, dim + 1, dim + 1, dtype=torch.float64)
    found = ordered_sum(by_matrix) * scale[:, None, None]
    gradient[:, :dim] = torch.from_numpy(found[np.ix_(range(batch), axes, (*axes, 3))])
    return energy, gradient


@kernel
def _match(begin, end, fixed, image, field, matrix, weight, pulled, by_field, by_matrix, sums):
    """Writes sums (2, Z) of weighted squares and of weights, and `by_field` (3, Z, Y, X) or `by_matrix` (3, 4, Z).

    `weight` (1, Z, Y, X) and `pulled` (1, *M) may hold nothing, for one everywhere; so may the gradients, which lack a factor.
    """
    shape = image.shape[1:]
    flat = image.reshape(len(image), shape[0] * shape[1] * shape[2])
    step = rows.strides(shape)
    columns = field.shape[3]
    points, share, moves, cover, offset = rows.scratch(columns, field)
    value, slopes, force = (
        np.empty(columns, field.dtype),
        np.empty((3, columns), field.dtype),
        np.empty((3, columns), field.dtype),
    )
    wanted = len(by_field) + by_matrix.shape[2] > 0
    for z in range(begin, end):
        for y in range(field.shape[2]):
            rows.locate(matrix, z, y, field, shape, points, share, moves, cover, offset)
            if len(pulled):
                rows.gather(pulled.reshape(pulled.size), step, share, offset, value)
                _times(cover, value)
            if len(weight):
                _times(cover, weight[0, z, y])
            for c in range(len(image)):
                if wanted:
                    rows.gather_slopes(flat[c], step, share, moves, offset, value, slopes)
                else:
                    rows.gather(flat[c], step, share, offset, value)
                loss, size = _residual(value, fixed[c, z, y], cover)
                sums[0, z] += loss
                sums[1, z] += 0.0 if c else size
                for axis in range(3 if wanted else 0):
                    for x in range(columns):
                        push = value[x] * slopes[axis, x]
                        force[axis, x] = push if c == 0 else force[axis, x] + push
            if len(by_field):
                rows.turned(matrix, force, by_field, z, y)
            elif wanted:
                rows.moments(force, field, by_matrix, z, y)


@kernel
def _times(row, other):
    for x in range(len(row)):
        row[x] *= other[x]


@kernel
def _residual(value, fixed, weight):
    """Turns a row of values into twice their weighted difference; returns the weighted squares' sum and that of the weights."""
    kind = value.dtype.type
    total, size = kind(0), kind(0)
    for x in range(len(value)):
        difference = value[x] - fixed[x]
        push = weight[x] * difference
        total += push * difference
        size += weight[x]
        value[x] = push + push
    return total, size


@kernel
def _scale(begin, end, out, factor):
    kind = out.dtype.type
    for z in range(begin, end):
        for c in range(len(out)):
            for y in range(out.shape[2]):
                row = out[c, z, y]
                for x in range(len(row)):
                    row[x] *= kind(factor)
