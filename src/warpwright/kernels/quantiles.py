"""Ends of an intensity range: exact outlier quantiles of an image without sorting it."""

from __future__ import annotations

from math import ceil, floor, sqrt

import numpy as np
import torch
from torch import Tensor

from warpwright.kernels.compile import kernel
from warpwright.kernels.slabs import GRAIN, over_slabs

__all__ = ["ends"]

SLABS = 32
CHUNK = 256  # voxels that are looked at together
SAMPLE = 1 << 14  # voxels that tell where a rank is to be sought
GOLDEN = (sqrt(5) - 1) / 2  # its multiples are spread evenly


def ends(values: Tensor, weight: Tensor | None, outliers: float) -> Tensor:
    """Ends of the range of each row of (R, N) values where the weight (R, N) is positive: (R, 2).

    These are the outlier quantiles, or where these coincide the extremes; 0, 0 where no weight is positive. Exact ranks.
    """
    rows = values.detach().contiguous().numpy()
    weights = rows[:, :0] if weight is None else weight.detach().contiguous().numpy()
    return torch.from_numpy(np.stack([_ends(row, w, outliers) for row, w in zip(rows, weights, strict=True)]))


def _ends(values: np.ndarray, weight: np.ndarray, outliers: float) -> np.ndarray:
    found = _quantiles(values, weight, outliers) if outliers > 0 and len(values) > 4 * SAMPLE else None
    if found is not None and found[0] < found[1]:
        return found
    chosen = values[weight > 0] if len(weight) else values
    count = len(chosen)
    if not count:
        return np.zeros(2, values.dtype)
    cut = int(outliers * (count - 1))
    if cut and found is None:
        found = np.partition(chosen, (cut, count - 1 - cut))[[cut, count - 1 - cut]]
        if found[0] < found[1]:
            return found
    return np.stack([chosen.min(), chosen.max()])


def _quantiles(values: np.ndarray, weight: np.ndarray, outliers: float) -> np.ndarray | None:
    """Both outlier quantiles: a sample tells between which values each lies, one sweep counts, few values are sorted.

    None where the sample misled. NaN counts as largest.
    """
    places = (np.arange(1, SAMPLE + 1) * GOLDEN % 1 * len(values)).astype(np.int64)
    sample = np.sort(values[places][weight[places] > 0] if len(weight) else values[places])
    size = len(sample)
    spread = 4 * sqrt(size * outliers * (1 - outliers)) + 2
    bounds = np.empty((2, 2), values.dtype)
    for side, middle in enumerate((outliers * (size - 1), (1 - outliers) * (size - 1))):
        begin, end = floor(middle - spread), ceil(middle + spread)
        bounds[side] = sample[begin] if begin >= 0 else -np.inf, sample[end] if end < size else np.inf
    height = max(GRAIN, -(-len(values) // SLABS))
    slabs = -(-len(values) // height)
    counts = np.zeros((slabs, 2, 5), np.int64)
    room = min(height, int(4 * spread * len(values) / max(size, 1)) + 1)  # twice what is expected, all in one slab
    between = np.empty((2, slabs, room), values.dtype)
    over_slabs(_count, values.shape, height, values, weight, bounds, counts, between, height=height)
    return _ranked(bounds, counts, between, outliers)


def _ranked(bounds: np.ndarray, counts: np.ndarray, between: np.ndarray, outliers: float) -> np.ndarray | None:
    totals = counts.sum(0)
    if not totals[0, 4]:
        return None
    cut = int(outliers * (totals[0, 4] - 1))
    found = np.empty(2, bounds.dtype)
    for side, rank in enumerate((cut, totals[0, 4] - 1 - cut)):
        below, upto, inside, within, _ = totals[side]
        held = counts[:, side, 2]
        if below <= rank < upto:
            found[side] = bounds[side, 0]
        elif upto + inside <= rank < within:
            found[side] = bounds[side, 1]
        elif upto <= rank < upto + inside and held.max() <= between.shape[2]:
            chosen = np.concatenate([row[:n] for row, n in zip(between[side], held, strict=True)])
            found[side] = np.partition(chosen, rank - upto)[rank - upto]
        else:
            return None
    return found


@kernel
def _count(begin, end, height, values, weight, bounds, counts, between):
    """Counts values below the lower of two bounds, up to it, between both, up to the upper, all; keeps those between. Twice."""
    slab = begin // height
    mine = counts[slab]
    room = np.empty(CHUNK, values.dtype)
    for start in range(begin, end, CHUNK):
        row = values[start : min(start + CHUNK, end)]
        if len(weight):
            n = 0
            for x in range(len(row)):
                room[n] = row[x]
                n += weight[start + x] > 0
            row = room[:n]
        for side in range(2):
            low, high = bounds[side]
            below, upto, under, within = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
            for x in range(len(row)):
                below += np.int32(row[x] < low)
                upto += np.int32(row[x] <= low)
                under += np.int32(row[x] < high)
                within += np.int32(row[x] <= high)
            kept = mine[side, 2]
            mine[side, 0] += below
            mine[side, 1] += upto
            mine[side, 2] += under - upto
            mine[side, 3] += within
            mine[side, 4] += len(row)
            if under > upto:
                for x in range(len(row)):
                    if low < row[x] < high and kept < between.shape[2]:
                        between[side, slab, kept] = row[x]
                        kept += 1
