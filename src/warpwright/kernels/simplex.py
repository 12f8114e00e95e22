"""Distributions over displacements, drawn towards a field: projection onto the simplex and what it expects, in one sweep.

Nothing of the size of a distribution is made but its gradient: who needs the projection again, computes it again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.kernels.compile import kernel
from warpwright.kernels.slabs import over_slabs

__all__ = ["drawn", "drawn_back"]

LANES = 64  # voxels worked on at a time
STRETCH = 16 * LANES  # voxels of a slab


def drawn(probability: Tensor, target: Tensor, basis: Tensor, alpha: Tensor) -> Tensor:
    """Expectation of the distributions `P(p_i - |b_i - t|^2 / (4 alpha))`, P being the projection onto the simplex.

    Args:
        probability: (B, m, *S).
        target: (B, D, *S).
        basis: (m, D).
        alpha: (), positive.

    Returns:
        (B, D, *S).
    """
    p, t = _flat(probability), _flat(target)
    out = np.empty_like(t)
    for one, toward, found in zip(p, t, out, strict=True):
        over_slabs(_drawn, _planes(one), one, toward, _array(basis), _array(alpha).item(), found, height=1)
    return torch.from_numpy(out).reshape(target.shape)


def drawn_back(
    probability: Tensor, target: Tensor, basis: Tensor, alpha: Tensor, cotangent: Tensor, *, learned: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cotangents of the arguments of `drawn` for one of its result (B, D, *S); zero for basis and alpha unless `learned`."""
    p, t, g = _flat(probability), _flat(target), _flat(cotangent)
    by_p, by_t = np.empty_like(p), np.empty_like(t)
    planes = _planes(p[0])[0] if learned else 0
    by_basis = np.zeros((len(p), planes, *basis.shape))
    by_alpha = np.zeros((len(p), planes))
    vectors, strength = _array(basis), _array(alpha).item()
    for sample in zip(p, t, g, by_p, by_t, by_basis, by_alpha, strict=True):
        over_slabs(_drawn_back, _planes(sample[0]), vectors, strength, *sample, height=1)
    kind = probability.dtype
    return (
        torch.from_numpy(by_p).reshape(probability.shape),
        torch.from_numpy(by_t).reshape(target.shape),
        torch.from_numpy(by_basis.sum((0, 1))).to(kind),
        torch.tensor(by_alpha.sum(), dtype=kind),
    )


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().flatten(2).numpy()


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _planes(flat: np.ndarray) -> tuple[int, int]:
    return -(-flat.shape[1] // STRETCH), STRETCH


@kernel
def _shifted(first, last, p, t, basis, quarter, z):
    """`z` (m, LANES) of some voxels: `p - quarter * |b - t|^2`; a distribution where there are no more voxels."""
    for i in range(len(p)):
        row, given = z[i], p[i, first:last]
        for x in range(len(given)):
            row[x] = given[x]
        for x in range(len(given), len(row)):
            row[x] = 1
        for axis in range(basis.shape[1]):
            vector, toward = basis[i, axis], t[axis, first:last]
            for x in range(len(toward)):
                apart = vector - toward[x]
                row[x] -= quarter * apart * apart


@kernel
def _project(z, threshold, number, total):
    """Makes every column of `z` (m, LANES) the distribution that is nearest to it.

    Newton's method for what is taken from all entries before negative ones are cut: on a sum that is convex and falls, from
    below. The support shrinks until it is right.
    """
    kind = z.dtype.type
    support = np.empty_like(total)
    for x in range(LANES):
        threshold[x], total[x], number[x] = z[0, x], 0, len(z) + 1
    for i in range(len(z)):
        row = z[i]
        for x in range(LANES):
            threshold[x] = row[x] if row[x] > threshold[x] else threshold[x]
    for i in range(len(z)):  # the largest becomes zero: if it were large, it would hide the one that is taken from it
        row = z[i]
        for x in range(LANES):
            row[x] -= threshold[x]
            total[x] += row[x]
    for x in range(LANES):
        threshold[x] = max(kind(-1), (total[x] - kind(1)) / kind(len(z)))
    changing = True
    while changing:
        for x in range(LANES):
            support[x], total[x] = 0, 0
        for i in range(len(z)):
            row = z[i]
            for x in range(LANES):
                over = row[x] - threshold[x]
                total[x] += over if over > 0 else kind(0)
                support[x] += kind(1) if over > 0 else kind(0)
        changing = False
        for x in range(LANES):
            if support[x] < number[x]:
                threshold[x] += (total[x] - kind(1)) / support[x]
                number[x] = support[x]
                changing = True
    for i in range(len(z)):
        row = z[i]
        for x in range(LANES):
            over = row[x] - threshold[x]
            row[x] = over if over > 0 else kind(0)


@kernel
def _drawn(begin, end, p, t, basis, alpha, out):
    z, rows = np.empty((len(p), LANES), p.dtype), np.empty((3, LANES), p.dtype)
    quarter = p.dtype.type(1 / (4 * alpha))
    for first in range(begin * STRETCH, min(end * STRETCH, p.shape[1]), LANES):
        last = min(first + LANES, p.shape[1])
        _shifted(first, last, p, t, basis, quarter, z)
        _project(z, rows[0], rows[1], rows[2])
        for axis in range(len(out)):
            out[axis, first:last] = 0
        for i in range(len(z)):
            row = z[i]
            for axis in range(len(out)):
                vector, found = basis[i, axis], out[axis, first:last]
                for x in range(len(found)):
                    found[x] += vector * row[x]


@kernel
def _drawn_back(begin, end, basis, alpha, p, t, g, by_p, by_t, by_basis, by_alpha):
    """On the support S of a projection, a cotangent y becomes `y - mean_S y`; elsewhere zero."""
    kind = p.dtype.type
    z, rows = np.empty((len(p), LANES), p.dtype), np.empty((3, LANES), p.dtype)
    mean, number = rows[0], rows[1]
    quarter, half, square = kind(1 / (4 * alpha)), kind(1 / (2 * alpha)), 1 / (4 * alpha * alpha)
    for first in range(begin * STRETCH, min(end * STRETCH, p.shape[1]), LANES):
        last = min(first + LANES, p.shape[1])
        _shifted(first, last, p, t, basis, quarter, z)
        _project(z, rows[0], rows[1], rows[2])
        mean[:], number[:] = 0, 0
        for i in range(len(z)):
            row, value = z[i], by_p[i, first:last]
            value[:] = 0
            for axis in range(len(g)):
                vector, given = basis[i, axis], g[axis, first:last]
                for x in range(len(value)):
                    value[x] += vector * given[x]
            for x in range(len(value)):
                mean[x] += value[x] if row[x] > 0 else kind(0)
                number[x] += kind(1) if row[x] > 0 else kind(0)
        for x in range(last - first):
            mean[x] /= number[x]
        for axis in range(len(g)):
            by_t[axis, first:last] = 0
        for i in range(len(z)):
            row, value = z[i], by_p[i, first:last]
            for x in range(len(value)):
                value[x] = value[x] - mean[x] if row[x] > 0 else kind(0)
            for axis in range(len(g)):
                vector, place, found = basis[i, axis], t[axis, first:last], by_t[axis, first:last]
                for x in range(len(value)):
                    found[x] += value[x] * half * (vector - place[x])
        if len(by_alpha):
            for i in range(len(z)):
                for axis in range(len(g)):
                    given, place = g[axis, first:last], t[axis, first:last]
                    moved, far = _moments(z[i], by_p[i, first:last], basis[i, axis], place, given, half)
                    by_basis[first // STRETCH, i, axis] += moved
                    by_alpha[first // STRETCH] += far * square


@kernel
def _moments(row, value, vector, place, given, half):
    """What a component of a basis displacement, and the distance from it, contribute to the cotangents of basis and alpha."""
    moved, far = value.dtype.type(0), value.dtype.type(0)
    for x in range(len(value)):
        apart = vector - place[x]
        far += value[x] * apart * apart
        moved += row[x] * given[x] - value[x] * half * apart
    return moved, far
