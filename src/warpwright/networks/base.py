"""What an estimator is, and what its settings are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from warpwright.networks.estimate import Estimate

__all__ = ["Architecture", "Estimator"]


class Estimator(nn.Module, ABC):
    """A network that looks at two images on one grid and says how they differ; it never warps."""

    @abstractmethod
    def forward(self, fixed: Tensor, moving: Tensor) -> Estimate:
        """The estimate of a batch.

        Args:
            fixed: (B, C, *S), any S.
            moving: (B, C, *S).
        """


class Architecture(ABC):
    """The settings of an estimator: a frozen dataclass that builds it; `sized` if it estimates shares of an image's size."""

    sized: ClassVar[bool] = False

    @abstractmethod
    def build(self, dim: int, channels: int = 1) -> Estimator:
        """The network with fresh weights, drawn from torch's generator.

        Args:
            dim: axes of the images, 2 or 3.
            channels: channels of each image.

        Raises:
            BadInput: the settings do not fit the number of axes.
        """
