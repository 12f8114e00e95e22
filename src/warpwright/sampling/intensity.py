"""Intensities brought to [0, 1] before anything compares them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput

__all__ = ["AnyNormalisation", "Percentiles", "Window"]

SAMPLES = 1 << 20  # intensities looked at for the percentiles


@dataclass(frozen=True, kw_only=True)
class Percentiles:
    """Each channel mapped linearly so that two of its percentiles are 0 and 1, and clamped there: MR, pictures.

    Args:
        low: percentile that becomes 0.
        high: percentile that becomes 1.

    Raises:
        BadInput: they are not in order within 0 to 100.
    """

    low: float = 0.5
    high: float = 99.5

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise BadInput(f"percentiles must rise within 0 to 100, got {self.low} and {self.high}")

    def __call__(self, data: Tensor, weight: Tensor | None = None) -> Tensor:
        """(C, *S) to float32 in [0, 1]; the percentiles are those of the voxels where `weight` (1, *S) is positive.

        Where both percentiles are one value, the least and the largest of these voxels take their place; an image of one value
        becomes 0.
        """
        out = torch.empty(data.shape, dtype=torch.float32)
        for channel in range(len(data)):
            values = data[channel].to(torch.float32)
            counted = values.flatten() if weight is None else values[weight[0] > 0]
            seen = counted[:: max(1, counted.numel() // SAMPLES)].numpy()
            low, high = np.percentile(seen, (self.low, self.high))
            if high <= low:
                low, high = float(counted.min()), float(counted.max())
            out[channel] = ((values - low) / max(high - low, np.finfo(np.float32).tiny)).clamp_(0, 1)
        return out


@dataclass(frozen=True, kw_only=True)
class Window:
    """A fixed range of intensities becomes [0, 1], what lies outside is clamped: CT in Hounsfield units.

    Args:
        low: intensity that becomes 0.
        high: intensity that becomes 1.

    Raises:
        BadInput: the range is empty or not finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise BadInput(f"a window must rise, got {self.low} and {self.high}")

    def __call__(self, data: Tensor, weight: Tensor | None = None) -> Tensor:
        """(C, *S) to float32 in [0, 1]; `weight` does not matter here."""
        return ((data.to(torch.float32) - self.low) / (self.high - self.low)).clamp_(0, 1)


AnyNormalisation = Percentiles | Window
