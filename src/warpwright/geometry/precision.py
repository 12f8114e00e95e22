"""Autocast: on where networks compute, off where coordinates and averages are computed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["computing_in", "full_precision"]


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the tensor's device; nothing at all where autocast is off, as entering it costs time."""
    kind = tensor.device.type
    known = torch.amp.is_autocast_available(kind)
    return torch.autocast(kind, enabled=False) if known and torch.is_autocast_enabled(kind) else nullcontext()


def computing_in(precision: torch.dtype | None, like: Tensor) -> AbstractContextManager[object]:
    """A context in which networks on the tensor's device compute in a precision; None for that of their weights."""
    return nullcontext() if precision is None else torch.autocast(like.device.type, dtype=precision)
