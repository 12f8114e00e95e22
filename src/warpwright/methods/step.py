"""What a part of a model is: it looks at two images and gives estimates, one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from warpwright.networks import Estimate

__all__ = ["Step", "Trail"]

Trail = tuple[Estimate, ...]


class Step(nn.Module, ABC):
    """From two images on one grid to the estimates on the way to a displacement."""

    @abstractmethod
    def forward(self, fixed: Tensor, moving: Tensor) -> Trail:
        """The trail, of which the last is a `Displacement` of factors 1.

        Args:
            fixed: (B, C, *S).
            moving: (B, C, *S).
        """
