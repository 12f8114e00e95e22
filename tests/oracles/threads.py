"""Whether a result depends on the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def same_bytes(compute: Callable[[], Sequence[Tensor]], counts: Sequence[int] = (1, 2, 3)) -> bool:
    """Whether `compute` gives the same tensors with every number of threads."""
    before = torch.get_num_threads()
    results: list[Sequence[Tensor]] = []
    try:
        for count in counts:
            torch.set_num_threads(count)
            results.append(compute())
    finally:
        torch.set_num_threads(before)
    return all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))
