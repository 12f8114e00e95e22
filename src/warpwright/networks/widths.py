"""A factor of all hidden widths of a network."""

from __future__ import annotations

import math
from collections.abc import Iterable

from warpwright.errors import BadInput

__all__ = ["check_scale", "scaled"]


def check_scale(network: object, scale: float) -> None:
    """Refuse a factor that is not positive and finite; the sentence names the network."""
    if not 0 < scale < math.inf:
        raise BadInput(f"the scale of {type(network).__name__} must be above 0 and finite, got {scale}")


def scaled(widths: Iterable[int], scale: float) -> tuple[int, ...]:
    """Widths times a factor, rounded, at least 1."""
    return tuple(max(1, round(scale * width)) for width in widths)
