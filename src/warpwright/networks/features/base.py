"""What a feature extractor is: a network that looks at one image and gives channels of it at several scales."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.networks.widths import check_scale

__all__ = ["FeatureArchitecture", "FeatureExtractor", "FeaturePyramid"]

SCALES = (4, 2, 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class FeaturePyramid:
    """Features of a batch of images, coarse to fine.

    Args:
        levels: (B, C, *T) each; T is the padded size divided by the factor.
        factors: voxels of the image to one of each level, along every axis.
        before: voxels that were added before the first one of the image, along every axis.
        offset: where in its block of the image a voxel of a level looks: voxel p is about voxel
            `factor * p + offset * (factor - 1) - before`. 1/2 where blocks are pooled, 0 where every factor-th voxel is
            looked at.
    """

    levels: tuple[Tensor, ...]
    factors: tuple[int, ...]
    before: tuple[int, ...]
    offset: float


@dataclass(frozen=True, kw_only=True)
class FeatureArchitecture(ABC):
    """The settings of a feature extractor, which is the same network for fixed and moving images.

    Args:
        outputs: channels of every level.
        scales: voxels of the image to one of each level, powers of 2, coarse to fine.
        widths: factor of all hidden widths, which are rounded and at least 1.

    Raises:
        BadInput: there are no outputs or no scales, or they are not falling powers of 2; the factor is not positive.
    """

    outputs: int = 16
    scales: tuple[int, ...] = SCALES
    widths: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self, self.widths)
        powers = [2**k for k in range(self.deepest, -1, -1)]
        falling = [s for s in powers if s in self.scales]
        if not self.scales or list(self.scales) != falling or self.outputs < 1:
            name = type(self).__name__
            expected = f"expected some of {powers} in this order and at least 1 output"
            raise BadInput(f"{name} has scales {list(self.scales)} and {self.outputs} outputs: {expected}")

    @property
    def deepest(self) -> int:
        """Halvings of the coarsest scale that can be asked for."""
        return 2

    @abstractmethod
    def build(self, dim: int, channels: int = 1) -> FeatureExtractor:
        """The network with fresh weights, drawn from torch's generator.

        Args:
            dim: axes of the images, 2 or 3.
            channels: channels of an image.
        """


class FeatureExtractor(nn.Module, ABC):
    """A network that looks at one image; it never sees the other one. `offset` is that of its `FeaturePyramid`.

    Args:
        settings: what it was made of.
        halvings: how often it halves an image.
    """

    offset: ClassVar[float]

    def __init__(self, settings: FeatureArchitecture, halvings: int) -> None:
        super().__init__()
        self.factors = settings.scales
        self.stride = 2**halvings

    def forward(self, image: Tensor) -> FeaturePyramid:
        """Features of a batch, whose borders are repeated until the network can halve it as often as it does.

        Args:
            image: (B, C, *S), any S.
        """
        padded, before = enlarged_to(image, self.stride)
        return FeaturePyramid(levels=tuple(self.extract(padded)), factors=self.factors, before=before, offset=self.offset)

    @abstractmethod
    def extract(self, image: Tensor) -> Sequence[Tensor]:
        """Levels, coarse to fine: (B, C, *S) to (B, C', *S / factor) each; S is a multiple of the stride."""


def enlarged_to(image: Tensor, stride: int) -> tuple[Tensor, tuple[int, ...]]:
    """An image with its border repeated on both sides up to a multiple of `stride`, and the voxels added before."""
    missing = [-n % stride for n in image.shape[2:]]
    before = tuple(n // 2 for n in missing)
    if not any(missing):
        return image, before
    margins = [side for n, b in zip(reversed(missing), reversed(before), strict=True) for side in (b, n - b)]
    return F.pad(image, margins, mode="replicate"), before
