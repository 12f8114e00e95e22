"""The arithmetic of a solver's step in two sweeps, in place."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from warpwright.kernels.compile import kernel
from warpwright.kernels.slabs import over_slabs

__all__ = ["adam"]

CHUNK = 1 << 15  # vectors of a chunk


def adam(
    gradient: Tensor, mean: Tensor, square: Tensor, *, step: int, length: float, beta1: float, beta2: float, damping: float
) -> Tensor:
    """One update of `solver.Adam`; `mean` and `square` become those of this step, `gradient` the update.

    Args:
        gradient: (B, D, ...) contiguous, overwritten and returned.
        mean: (B, D, ...) contiguous, overwritten.
        square: (B, 1, ...) contiguous, overwritten.
        step: number of this step, from 1.
        length: see `solver.Adam`.
        beta1: see `solver.Adam`.
        beta2: see `solver.Adam`.
        damping: see `solver.Adam`.
    """
    g, m, v = (t.detach().reshape(*t.shape[:2], -1).numpy() for t in (gradient, mean, square))
    chunks = -(-g.shape[2] // CHUNK)
    largest = np.zeros(chunks)
    for b in range(len(g)):
        over_slabs(_moments, (chunks, CHUNK), g[b], m[b], v[b, 0], beta1, beta2, largest)
        scale = np.sqrt(1 - beta2**step)
        least = np.sqrt(np.finfo(g.dtype).tiny)
        still = damping * max(np.sqrt(largest.max()) / scale, least)
        over_slabs(_ratio, (chunks, CHUNK), g[b], m[b], v[b, 0], length / (1 - beta1**step), scale, still, least, largest)
        longest = np.sqrt(largest.max())
        if longest > length:
            g[b] *= length / longest
    return gradient


@kernel
def _moments(begin, end, gradient, mean, square, beta1, beta2, largest):
    kind = gradient.dtype.type
    b1, b2, c1, c2 = kind(beta1), kind(beta2), kind(1 - beta1), kind(1 - beta2)
    for chunk in range(begin, end):
        first, last = chunk * CHUNK, min((chunk + 1) * CHUNK, gradient.shape[1])
        row = square[first:last]
        for x in range(len(row)):
            row[x] *= b2
        for axis in range(len(gradient)):
            g, m = gradient[axis, first:last], mean[axis, first:last]
            for x in range(len(row)):
                m[x] = b1 * m[x] + c1 * g[x]
                row[x] += c2 * g[x] * g[x]
        top = kind(0)
        for x in range(len(row)):
            top = max(top, row[x])
        largest[chunk] = top


@kernel
def _ratio(begin, end, update, mean, square, length, scale, still, least, largest):
    kind = update.dtype.type
    factor, part, floor, damping = kind(-length), kind(1 / scale), kind(least), kind(still)
    share = np.empty(CHUNK, update.dtype)
    for chunk in range(begin, end):
        first, last = chunk * CHUNK, min((chunk + 1) * CHUNK, update.shape[1])
        row = square[first:last]
        for x in range(len(row)):
            share[x] = factor / (max(np.sqrt(row[x]) * part, floor) + damping)
        top = kind(0)
        for axis in range(len(update)):
            u, m = update[axis, first:last], mean[axis, first:last]
            for x in range(len(row)):
                u[x] = share[x] * m[x]
        for x in range(len(row)):
            total = kind(0)
            for axis in range(len(update)):
                total += update[axis, first + x] ** 2
            top = max(top, total)
        largest[chunk] = top
