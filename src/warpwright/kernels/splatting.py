"""Images read at given points, the derivative in the points, and the adjoint: values dealt out to the voxels around points.

Points are taken `LANES` at a time. What is dealt out reaches every voxel in the order of the points, whichever thread adds it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.kernels import rows
from warpwright.kernels.compile import kernel
from warpwright.kernels.lanes import LANES, read_points
from warpwright.kernels.layout import as_vectors, as_volume, axes_of, empty, samples, to_tensor, volume_shape
from warpwright.kernels.slabs import GRAIN, available_threads, over_slabs

__all__ = ["sample", "sample_gradient", "splat"]


def sample(image: Tensor, points: Tensor, *, zero: bool) -> Tensor:
    """(B, C, *S) read at (B, D, *T): (B, C, *T). See `sampling.sample`."""
    images, places = as_volume(image), _flat(points)
    out = empty((max(len(images), len(places)), images.shape[1], places.shape[2]), places)
    for volume, at, read in samples(images, places, out):
        over_slabs(_sample, _lanes(at), volume, at, zero, read)
    return to_tensor(out[:, :, None, None], tuple(points.shape[2:]))


def sample_gradient(cotangent: Tensor, image: Tensor, points: Tensor, *, zero: bool) -> Tensor:
    """Gradient of `sum(cotangent * sample(...))` in the points: (B, D, *T)."""
    batch, dim = len(cotangent), points.shape[1]
    images, places, cotangents = as_volume(image), _flat(points), _values(cotangent)
    out = empty((batch, *places.shape[1:]), places)
    for volume, at, g, force in samples(images, places, cotangents, out):
        over_slabs(_sample_gradient, _lanes(at), g, volume, at, zero, force)
    return torch.from_numpy(np.ascontiguousarray(out[:, axes_of(dim)])).reshape(batch, dim, *points.shape[2:])


def splat(values: Tensor, points: Tensor, shape: tuple[int, ...], *, zero: bool) -> Tensor:
    """(B, C, *T) dealt out at (B, D, *T): (B, C, *shape). See `sampling.splat`."""
    dealt, places, volume = _values(values), _flat(points), volume_shape(shape)
    out = empty((max(len(dealt), len(places)), dealt.shape[1], *volume), dealt)
    count = dealt.shape[2]
    slabs = 2 * available_threads() if count > GRAIN else 1
    for given, at, into in samples(dealt, places, out):
        reach = np.empty((2, *_lanes(at)[:1]), np.int32)
        over_slabs(_reach, _lanes(at), at, volume, reach)
        over_slabs(_splat, volume, given, at, reach, zero, into, height=-(-volume[0] // slabs))
    return to_tensor(out, shape)


def _flat(points: Tensor) -> np.ndarray:
    """(B, D, *T) to (B, 3, N), zero along axes that the image does not have."""
    vectors = as_vectors(points.flatten(2))
    return vectors.reshape(*vectors.shape[:2], vectors.shape[4])


def _values(tensor: Tensor) -> np.ndarray:
    """(B, C, *T) to (B, C, N)."""
    return tensor.detach().flatten(2).contiguous().numpy()


def _lanes(points: np.ndarray) -> tuple[int, int]:
    return -(-points.shape[1] // LANES), LANES


@kernel
def _sample(begin, end, image, at, zero, out):
    shape = image.shape[1:]
    flat = image.reshape(len(image), image.size // len(image))
    step = rows.strides(shape)
    points, share, moves, cover, offset = rows.scratch(LANES, image)
    value = np.empty(LANES, image.dtype)
    for lane in range(begin, end):
        first = lane * LANES
        count = read_points(at, first, points)
        rows.place(points, shape, share, moves, cover, offset)
        for c in range(len(image)):
            rows.gather(flat[c], step, share, offset, value)
            row = out[c]
            for x in range(count):
                row[first + x] = value[x] * cover[x] if zero else value[x]


@kernel
def _sample_gradient(begin, end, cotangent, image, at, zero, out):
    shape = image.shape[1:]
    flat = image.reshape(len(image), image.size // len(image))
    step = rows.strides(shape)
    points, share, moves, cover, offset = rows.scratch(LANES, image)
    value = np.empty(LANES, image.dtype)
    slopes, fade = np.empty((3, LANES), image.dtype), np.empty((3, LANES), image.dtype)
    for lane in range(begin, end):
        first = lane * LANES
        count = read_points(at, first, points)
        rows.place(points, shape, share, moves, cover, offset)
        if zero:
            _fade(points, shape, fade)
        for c in range(len(image)):
            rows.gather_slopes(flat[c], step, share, moves, offset, value, slopes)
            for axis in range(3):
                row = out[axis]
                for x in range(count):
                    slope = slopes[axis, x] * cover[x] + value[x] * fade[axis, x] if zero else slopes[axis, x]
                    push = cotangent[c, first + x] * slope
                    row[first + x] = push if c == 0 else row[first + x] + push


@kernel
def _fade(points, shape, fade):
    """Derivatives (3, X) of the cover in the point."""
    kind = points.dtype.type
    nil, one = kind(0), kind(1)
    for axis in range(3):
        for x in range(points.shape[1]):
            fade[axis, x] = one
        for along in range(3):
            end = kind(np.int32(shape[along] - 1))
            for x in range(points.shape[1]):
                beyond = points[along, x] - min(max(points[along, x], nil), end)
                near = one - min(abs(beyond), one)
                slope = nil if near == nil else (-one if beyond > nil else (one if beyond < nil else nil))
                fade[axis, x] *= slope if along == axis else near


@kernel
def _reach(begin, end, at, shape, reach):
    """Lowest and highest plane that the points of each set of lanes lie above: rows of `reach`."""
    points, share, moves, cover, offset = rows.scratch(LANES, at)
    plane = max(shape[1] * shape[2], 1)
    for lane in range(begin, end):
        count = read_points(at, lane * LANES, points)
        rows.place(points, shape, share, moves, cover, offset)
        lowest, highest = np.int64(shape[0]), np.int64(-1)
        for x in range(count):
            below = np.int64(offset[x]) // plane
            lowest, highest = min(lowest, below), max(highest, below)
        reach[0, lane], reach[1, lane] = lowest, highest


@kernel
def _splat(begin, end, values, at, reach, zero, out):
    """Planes `begin` to `end` of `out` (C, Z, Y, X)."""
    shape = out.shape[1:]
    flat = out.reshape(len(out), out.size // len(out))
    plane = shape[1] * shape[2]
    first, last = begin * plane, end * plane
    dz, dy, dx = rows.strides(shape)
    points, share, moves, cover, offset = rows.scratch(LANES, out)
    kind = out.dtype.type
    for c in range(len(out)):
        flat[c, first:last] = 0
    for lane in range(reach.shape[1]):
        if reach[1, lane] < begin - 1 or reach[0, lane] >= end:
            continue
        count = read_points(at, lane * LANES, points)
        rows.place(points, shape, share, moves, cover, offset)
        for c in range(len(out)):
            target, given = flat[c], values[c]
            for x in range(count):
                value = given[lane * LANES + x]
                if zero:
                    value *= cover[x]
                up, k = share[0, x], np.int64(offset[x])
                for weight in (kind(1) - up, up):
                    if first <= k < last:
                        _deal(target, k, dy, dx, value * weight, share[1, x], share[2, x])
                    k += dz


@kernel
def _deal(target, k, dy, dx, value, b, a):
    """`value` dealt out to the four voxels of one plane around a point."""
    near = value - b * value
    far = b * value
    target[k] += near - a * near
    target[k + dx] += a * near
    target[k + dy] += far - a * far
    target[k + dy + dx] += a * far
