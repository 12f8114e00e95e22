"""Images of any kind of number at points or through `x -> matrix (x + u(x))`: the nearest voxel, or the label of largest share.

Loops are compiled for int32 and int64 only; other numbers become these, those with fractions by their bits.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.kernels import rows
from warpwright.kernels.compile import kernel
from warpwright.kernels.lanes import LANES, read_points
from warpwright.kernels.layout import as_matrices, as_vectors, as_volume, batch_of, empty, samples, to_tensor
from warpwright.kernels.slabs import over_slabs

__all__ = ["sample", "warp"]


def sample(image: Tensor, points: Tensor, *, share: bool) -> Tensor:
    """(B, C, *S) read at (B, D, *T), the border repeated: (B, C, *T).

    Args:
        image: real numbers or truth values; whole numbers where the share decides.
        points: float32 or float64, voxels; B may be 1 for either.
        share: whether by the largest share, else by the nearest voxel. See `sampling.sample_labels`, `sampling.sample_nearest`.
    """
    flat = as_vectors(points.flatten(2))
    images, places = as_volume(_whole(image)), flat.reshape(len(flat), 3, flat.shape[4])
    out = empty((max(len(images), len(places)), images.shape[1], 1, 1, places.shape[2]), images)
    lanes = -(-places.shape[2] // LANES)
    for volume, at, read in samples(images, places, out):
        over_slabs(_sample, (lanes, LANES), volume, at, share, read[:, 0, 0])
    return _kind(to_tensor(out, tuple(points.shape[2:])), image.dtype)


def warp(moving: Tensor, displacement: Tensor, affine: Tensor | None, background: float, *, share: bool) -> Tensor:
    """(B, C, *M) pulled through (B, D, *S) and the affine: (B, C, *S).

    Args:
        moving: as the image of `sample`.
        displacement: float32 or float64, voxels.
        affine: as in `sampling.warp`.
        background: what lies more than half a voxel outside the moving image.
        share: as in `sample`.
    """
    shape = tuple(displacement.shape[2:])
    images, fields = as_volume(_whole(moving)), as_vectors(displacement)
    batch = batch_of(affine, images, fields)
    matrices = as_matrices(affine, batch, len(shape))
    out = empty((batch, images.shape[1], *fields.shape[2:]), images)
    fill = int(_whole(torch.zeros(1, dtype=moving.dtype).masked_fill_(torch.tensor(True), background)))
    for image, field, matrix, moved in samples(images, fields, matrices, out):
        over_slabs(_warp, field.shape[1:], image, field, matrix, fill, share, moved)
    return _kind(to_tensor(out, shape), moving.dtype)


def _whole(image: Tensor) -> Tensor:
    """Numbers as int32, or int64 where they need it."""
    size = image.element_size()
    if image.is_floating_point():
        image = image.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[size])
    return image.to(torch.int64 if size == 8 or image.dtype == torch.uint32 else torch.int32)


def _kind(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """What `_whole` had, of its dtype."""
    if not dtype.is_floating_point:
        return numbers.to(dtype)
    return numbers.to(torch.int16).view(dtype) if dtype.itemsize == 2 else numbers.view(dtype)


@kernel
def _sample(begin, end, image, at, by_share, out):
    shape = image.shape[1:]
    flat = image.reshape(len(image), image.size // len(image))
    points, share, moves, cover, offset = rows.scratch(LANES, at)
    value, weights = np.empty(LANES, image.dtype), np.empty(8, at.dtype)
    corners = np.empty(8, image.dtype)
    for lane in range(begin, end):
        count = read_points(at, lane * LANES, points)
        rows.place(points, shape, share, moves, cover, offset)
        for c in range(len(image)):
            _read(flat[c], shape, by_share, points, share, offset, corners, weights, value)
            row = out[c]
            for x in range(count):
                row[lane * LANES + x] = value[x]


@kernel
def _warp(begin, end, image, field, matrix, background, by_share, out):
    shape = image.shape[1:]
    flat = image.reshape(len(image), image.size // len(image))
    points, share, moves, cover, offset = rows.scratch(field.shape[3], field)
    weights, corners = np.empty(8, field.dtype), np.empty(8, image.dtype)
    half = field.dtype.type(0.5)
    for z in range(begin, end):
        for y in range(field.shape[2]):
            rows.locate(matrix, z, y, field, shape, points, share, moves, cover, offset)
            for c in range(len(image)):
                row = out[c, z, y]
                _read(flat[c], shape, by_share, points, share, offset, corners, weights, row)
                for axis in range(3):
                    end_of_axis = field.dtype.type(np.int32(shape[axis])) - half
                    for x in range(len(row)):
                        if not -half <= points[axis, x] < end_of_axis:
                            row[x] = background


@kernel
def _read(image, shape, by_share, points, share, offset, corners, weights, out):
    if by_share:
        _largest_share(image, shape, share, offset, corners, weights, out)
    else:
        _nearest(image, shape, points, offset, out)


@kernel
def _nearest(image, shape, points, offset, out):
    """Halves are rounded up; `offset` is overwritten."""
    kind = points.dtype.type
    for axis in range(3):
        n = np.int32(shape[axis])
        for x in range(len(out)):
            p = min(max(points[axis, x] + kind(0.5), kind(0)), kind(n - 1))
            at = np.uint32(max(min(np.int32(p), n - np.int32(1)), np.int32(0)))  # also where p is NaN: inside the image
            offset[x] = at if axis == 0 else offset[x] * np.uint32(n) + at
    for x in range(len(out)):
        out[x] = image[offset[x]]


@kernel
def _largest_share(image, shape, share, offset, corners, weights, out):
    """The label with the largest sum of weights among the corners, the smaller on a tie."""
    dz, dy, dx = rows.strides(shape)
    one, half, sure = share.dtype.type(1), share.dtype.type(0.5), share.dtype.type(0.51)
    for x in range(len(out)):
        alike = True
        for k in range(8):
            corners[k] = image[np.int64(offset[x]) + (k >> 2) * dz + (k >> 1 & 1) * dy + (k & 1) * dx]
            alike = alike and corners[k] == corners[0]
        out[x] = corners[0]
        if alike:
            continue
        for k in range(8):
            a = share[0, x] if k & 4 else one - share[0, x]
            b = share[1, x] if k & 2 else one - share[1, x]
            weights[k] = a * b * (share[2, x] if k & 1 else one - share[2, x])
        most, left = share.dtype.type(0), 255
        k = 4 * (share[0, x] > half) + 2 * (share[1, x] > half) + (share[2, x] > half)
        while left and most <= sure:
            label, total = corners[k], share.dtype.type(0)
            for other in range(8):
                total += weights[other] if corners[other] == label else share.dtype.type(0)
                left &= ~((corners[other] == label) << other)
            if total > most or (total == most and label < out[x]):
                most, out[x] = total, label
            k = 0
            while left and not left >> k & 1:
                k += 1
