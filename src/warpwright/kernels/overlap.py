"""How many voxels hold each label, in one map, in another and in both."""

from __future__ import annotations

import numpy as np

from warpwright.kernels.compile import kernel
from warpwright.kernels.slabs import GRAIN, over_slabs

__all__ = ["counts"]


def counts(fixed: np.ndarray, moved: np.ndarray, labels: int) -> np.ndarray:
    """Voxels of each label in `fixed`, in `moved`, and in both at once.

    Args:
        fixed: whole numbers from 0 to `labels` - 1, any shape.
        moved: the same, with as many entries.
        labels: how many.

    Returns:
        (3, labels) int64.
    """
    first, second = (np.ascontiguousarray(m.reshape(-1), np.int32) for m in (fixed, moved))
    parts = -(-len(first) // max(8 * labels, GRAIN))
    out = np.zeros((parts, 3, labels), np.int64)
    over_slabs(_counts, (parts,), first, second, out, height=1)
    return out.sum(0)


@kernel
def _counts(begin, end, first, second, out):
    """A stretch of voxels with one pair of labels is counted at once."""
    size = -(-len(first) // len(out))
    for part in range(begin, end):
        start, stop = part * size, min((part + 1) * size, len(first))
        while start < stop:
            a, b = first[start], second[start]
            here = start
            while here < stop and first[here] == a and second[here] == b:
                here += 1
            out[part, 0, a] += here - start
            out[part, 1, b] += here - start
            if a == b:
                out[part, 2, a] += here - start
            start = here
