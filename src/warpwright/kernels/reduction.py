"""Sums whose order threads do not change, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["total"]

CHUNK = 4096


def total(values: Tensor) -> Tensor:
    """Sum of each sample: (B, ...) to (B,), differentiable, the same bytes for any number of threads.

    Torch cuts the sum of one long row into as many parts as there are threads; here the parts are of one length, then
    added in float64 on one thread.
    """
    flat = values.flatten(1)
    whole = flat.shape[1] - flat.shape[1] % CHUNK
    parts = flat[:, :whole].reshape(len(flat), -1, CHUNK).sum(2)
    rest = flat[:, whole:].sum(1, keepdim=True)
    return torch.cat([parts, rest], 1).sum(1, dtype=torch.float64).to(values.dtype)
