"""U-Nets that give features: normalise, convolve, rectify, twice at each level.

Jena et al., DIO, Medical Image Analysis 2025 (arXiv 2406.07361), as in the authors' code, whose heads at scales that are not
asked for exist and are not used; here they do not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from warpwright.networks.features.base import FeatureArchitecture, FeatureExtractor
from warpwright.networks.layers import CONVOLUTION, MAX_POOL, Block, Normalisation, double
from warpwright.networks.widths import scaled

__all__ = ["FeatureUNet", "FeatureUNetEncoder"]

LEVELS = (16, 16, 32, 32, 64)
BRANCH = (16, 32, 64)
GROUPS = 8
SLOPE = 0.01


@dataclass(frozen=True, kw_only=True)
class FeatureUNet(FeatureArchitecture):
    """One U-Net of five levels with a head at each scale (two convolutions)."""

    @property
    def deepest(self) -> int:
        return len(LEVELS) - 1

    def build(self, dim: int, channels: int = 1) -> UNetExtractor:
        return UNetExtractor(self, dim, channels)


@dataclass(frozen=True, kw_only=True)
class FeatureUNetEncoder(FeatureArchitecture):
    """An encoder of its own for each scale, and no decoder; a head of one convolution."""

    def build(self, dim: int, channels: int = 1) -> EncoderExtractor:
        return EncoderExtractor(self, dim, channels)


def leaky() -> nn.Module:
    return nn.LeakyReLU(SLOPE)


def normalised(dim: int, inputs: int, outputs: int, activation: Callable[[], nn.Module]) -> nn.Module:
    """Group normalisation, a convolution of three voxels without bias, and a rectifier."""
    groups = GROUPS if inputs % GROUPS == 0 else 1
    return nn.Sequential(
        Normalisation(groups, inputs), CONVOLUTION[dim](inputs, outputs, 3, padding=1, bias=False), activation()
    )


class Level(Block):
    """Two normalised convolutions; those of an encoder widen in two steps."""

    def __init__(
        self, dim: int, inputs: int, outputs: int, activation: Callable[[], nn.Module], *, middle: int | None = None
    ) -> None:
        super().__init__()
        middle = max(outputs // 2, inputs) if middle is None else middle
        first, second = normalised(dim, inputs, middle, activation), normalised(dim, middle, outputs, activation)
        self.layers = nn.Sequential(first, second)

    def compute(self, *inputs: Tensor) -> Tensor:
        return self.layers(inputs[0])


class UNetExtractor(FeatureExtractor):
    """See `FeatureUNet`."""

    offset: ClassVar[float] = 0.5

    def __init__(self, settings: FeatureUNet, dim: int, channels: int) -> None:
        down = scaled(LEVELS, settings.widths)
        super().__init__(settings, len(down) - 1)
        self.encoder = nn.ModuleList(Level(dim, a, b, leaky) for a, b in pairwise((channels, *down)))
        self.pool = MAX_POOL[dim](2)
        up = down[::-1]
        self.decoder = nn.ModuleList(Level(dim, a + b, b, leaky, middle=b) for a, b in pairwise(up))
        self.heads = nn.ModuleDict()
        for factor, width in zip((2**k for k in range(len(up) - 1, -1, -1)), up, strict=True):
            if factor in settings.scales:
                last = CONVOLUTION[dim](settings.outputs, settings.outputs, 3, padding=1)
                self.heads[str(factor)] = nn.Sequential(normalised(dim, width, settings.outputs, leaky), last)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def extract(self, image: Tensor) -> Sequence[Tensor]:
        features, skips = image, []
        for number, level in enumerate(self.encoder):
            features = level(features if number == 0 else self.pool(features))
            skips.append(features)
        levels = [skips.pop()]
        for level in self.decoder:
            skip = skips.pop()
            levels.append(level(torch.cat((skip, double(levels[-1], skip.shape[2:])), 1)))
        coarsest = len(levels) - 1
        given = {2 ** (coarsest - k): level for k, level in enumerate(levels)}
        return [self.heads[str(factor)](given[factor]) for factor in self.factors]


class EncoderExtractor(FeatureExtractor):
    """See `FeatureUNetEncoder`."""

    offset: ClassVar[float] = 0.5

    def __init__(self, settings: FeatureUNetEncoder, dim: int, channels: int) -> None:
        super().__init__(settings, settings.scales[0].bit_length() - 1)
        self.branches = nn.ModuleList()
        for factor in settings.scales:
            widths = scaled(BRANCH[: factor.bit_length()], settings.widths)
            parts: list[nn.Module] = []
            for number, (a, b) in enumerate(pairwise((channels, *widths))):
                parts += [Level(dim, a, b, nn.ReLU)] if number == 0 else [MAX_POOL[dim](2), Level(dim, a, b, nn.ReLU)]
            self.branches.append(nn.Sequential(*parts, CONVOLUTION[dim](widths[-1], settings.outputs, 3, padding=1)))

    def extract(self, image: Tensor) -> Sequence[Tensor]:
        return [branch(image) for branch in self.branches]
