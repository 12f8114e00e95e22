"""What a level of a pyramid is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["BlockSettings", "LevelBlock"]


class BlockSettings(ABC):
    """What a level does: a frozen dataclass that builds it."""

    @abstractmethod
    def build(self, dim: int, *, coarsest: bool) -> LevelBlock:
        """The block of a level for images of `dim` axes."""


class LevelBlock(nn.Module, ABC):
    """From features of both images and a field to a better one."""

    @abstractmethod
    def forward(self, fixed: Tensor, moving: Tensor, field: Tensor) -> Tensor:
        """The improved field.

        Args:
            fixed: (B, C, *T) features.
            moving: (B, C, *T) features, not warped.
            field: (B, D, *T) displacement, voxels of the level.
        """
