"""A row of voxels at a time: where each one looks, and what it reads there.

A place is the offset of the voxel below a point and its share of the way to the next voxel along each axis, the point held
inside the image. `cover` tells how much of the point lies there: 1 inside, falling to 0 one voxel beyond the outermost centres.
A value times its cover is what a zero-padded image gives.
"""

from __future__ import annotations

import numpy as np

from warpwright.kernels.compile import kernel

__all__ = ["gather", "gather_slopes", "locate", "moments", "place", "scratch", "strides", "turned"]


@kernel
def scratch(columns, like):
    """Room for one row: points (3, X), shares (3, X), moves (3, X), cover (X,), offset (X,)."""
    room = np.empty((3, 3, columns), like.dtype)
    return room[0], room[1], room[2], np.empty(columns, like.dtype), np.empty(columns, np.uint32)


@kernel
def strides(shape):
    """Steps in memory to the next plane, row and voxel; 0 along an axis of one voxel."""
    return (min(shape[0] - 1, 1) * shape[1] * shape[2], min(shape[1] - 1, 1) * shape[2], min(shape[2] - 1, 1))


@kernel
def locate(matrix, z, y, field, shape, points, share, moves, cover, offset):
    """Where row (z, y) of a field looks: `points = matrix (x + u)`, then as `place`.

    Args:
        matrix: (3, 4) float64, voxels to voxels.
        z: plane of the row.
        y: row in the plane.
        field: (3, Z, Y, X) displacements, voxels.
        shape: of the image that is read.
        points: (3, X), written.
        share: (3, X) of the way to the next voxel, written.
        moves: (3, X) 1 where a small move changes the share, 0 beyond the border, written.
        cover: (X,), written.
        offset: (X,) of the voxel below, written.
    """
    kind = field.dtype.type
    u, v, w = field[0, z, y], field[1, z, y], field[2, z, y]
    for axis in range(3):
        begin = kind(matrix[axis, 0] * z + matrix[axis, 1] * y + matrix[axis, 3])
        a, b, c = kind(matrix[axis, 0]), kind(matrix[axis, 1]), kind(matrix[axis, 2])
        for x in range(len(u)):
            points[axis, x] = begin + a * u[x] + b * v[x] + c * (kind(np.int32(x)) + w[x])
    place(points, shape, share, moves, cover, offset)


@kernel
def place(points, shape, share, moves, cover, offset):
    """Places of points (3, X), voxels of an image of `shape`; arguments as in `locate`."""
    kind = points.dtype.type
    nil, one = kind(0), kind(1)
    for axis in range(3):
        n = np.int32(shape[axis])
        end, top = kind(n - 1), np.int32(max(n - 2, 0))
        for x in range(points.shape[1]):
            p = points[axis, x]
            held = min(max(p, nil), end)
            below = max(min(np.int32(held), top), np.int32(0))  # also where p is NaN: never outside the image
            beyond = abs(p - held)
            near = one - min(beyond, one)
            share[axis, x] = held - kind(below) + (p - p)  # a point that is not finite gives a value that is not
            moves[axis, x] = one if beyond == nil else nil
            cover[x] = near if axis == 0 else cover[x] * near
            offset[x] = below if axis == 0 else offset[x] * np.uint32(n) + np.uint32(below)


@kernel
def gather(image, step, share, offset, out):
    """Interpolated values of a flat image at a row of places: (X,)."""
    dz, dy, dx = step
    i001, i010, i011, i100 = image[dx:], image[dy:], image[dy + dx :], image[dz:]
    i101, i110, i111 = image[dz + dx :], image[dz + dy :], image[dz + dy + dx :]
    for x in range(len(out)):
        k = offset[x]
        v00, v01, v10, v11 = image[k], i010[k], i100[k], i110[k]
        b = share[2, x]
        v00 += b * (i001[k] - v00)
        v01 += b * (i011[k] - v01)
        v10 += b * (i101[k] - v10)
        v11 += b * (i111[k] - v11)
        b = share[1, x]
        v00 += b * (v01 - v00)
        v10 += b * (v11 - v10)
        out[x] = v00 + share[0, x] * (v10 - v00)


@kernel
def gather_slopes(image, step, share, moves, offset, out, slopes):
    """As `gather`, and the derivatives (3, X) of the value in its point, per voxel of the image."""
    dz, dy, dx = step
    i001, i010, i011, i100 = image[dx:], image[dy:], image[dy + dx :], image[dz:]
    i101, i110, i111 = image[dz + dx :], image[dz + dy :], image[dz + dy + dx :]
    for x in range(len(out)):
        k = offset[x]
        b = share[2, x]
        v00, v01, v10, v11 = image[k], i010[k], i100[k], i110[k]
        s00, s01, s10, s11 = i001[k] - v00, i011[k] - v01, i101[k] - v10, i111[k] - v11
        v00 += b * s00
        v01 += b * s01
        v10 += b * s10
        v11 += b * s11
        b = share[1, x]
        r0, r1 = v01 - v00, v11 - v10
        v00 += b * r0
        v10 += b * r1
        s00 += b * (s01 - s00)
        s10 += b * (s11 - s10)
        b = share[0, x]
        out[x] = v00 + b * (v10 - v00)
        slopes[0, x] = moves[0, x] * (v10 - v00)
        slopes[1, x] = moves[1, x] * (r0 + b * (r1 - r0))
        slopes[2, x] = moves[2, x] * (s00 + b * (s10 - s00))


@kernel
def turned(matrix, force, out, z, y):
    """Row (z, y) of `out` (3, Z, Y, X): the transpose of the matrix' linear part times (3, X) forces."""
    kind = out.dtype.type
    f, g, h = force[0], force[1], force[2]
    for axis in range(3):
        a, b, c = kind(matrix[0, axis]), kind(matrix[1, axis]), kind(matrix[2, axis])
        row = out[axis, z, y]
        for x in range(len(row)):
            row[x] = a * f[x] + b * g[x] + c * h[x]


@kernel
def moments(force, field, out, z, y):
    """Adds row (z, y) to the sums `out` (3, 4, Z) float64 of force times (point, 1); row 0 begins a plane's sum."""
    u, v, w = field[0, z, y], field[1, z, y], field[2, z, y]
    for axis in range(3):
        f = force[axis]
        by_u, by_v, by_w, total = 0.0, 0.0, 0.0, 0.0
        for x in range(len(u)):
            total += f[x]
            by_u += f[x] * u[x]
            by_v += f[x] * v[x]
            by_w += f[x] * (w[x] + np.float64(x))
        if y == 0:
            out[axis, :, z] = 0
        out[axis, 0, z] += by_u + z * total
        out[axis, 1, z] += by_v + y * total
        out[axis, 2, z] += by_w
        out[axis, 3, z] += total
