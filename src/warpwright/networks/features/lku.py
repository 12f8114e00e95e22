"""LKU-Nets that give features: an encoder with convolutions of several sizes, normalised for each image.

Jena et al., DIO, Medical Image Analysis 2025 (arXiv 2406.07361), as in the authors' code, whose head at an eighth of the
resolution exists and is not used unless it is asked for; here it does not exist then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from warpwright.networks.features.base import FeatureArchitecture, FeatureExtractor
from warpwright.networks.layers import CONVOLUTION, Block, resize
from warpwright.networks.lku_net import KERNEL
from warpwright.networks.widths import scaled

__all__ = ["FeatureLKU", "FeatureLKUEncoder"]

START = 16
DOWN = (START, 2 * START, 4 * START, 8 * START, 8 * START)


@dataclass(frozen=True, kw_only=True)
class FeatureLKU(FeatureArchitecture):
    """An LKU-Net of five levels; the heads look at what the decoder is given at their scale, at full resolution at its end."""

    @property
    def deepest(self) -> int:
        return len(DOWN) - 2

    def build(self, dim: int, channels: int = 1) -> LKUExtractor:
        return LKUExtractor(self, dim, channels)


@dataclass(frozen=True, kw_only=True)
class FeatureLKUEncoder(FeatureArchitecture):
    """An encoder of its own for each scale, and no decoder.

    Args:
        form: "v2" begins each branch with two large-kernel blocks, "v1" with one convolution.
    """

    form: Literal["v1", "v2"] = "v2"

    def build(self, dim: int, channels: int = 1) -> LKUEncoderExtractor:
        return LKUEncoderExtractor(self, dim, channels)


def per_image(features: Tensor) -> Tensor:
    """Each channel of each image with mean 0 and variance 1 (0 where it is constant); also for a single voxel."""
    return torch.group_norm(features, features.shape[1])


class Convolved(Block):
    """A convolution of three voxels, normalised for each image, rectified: (B, C, *S) to (B, C', *ceil(S / stride))."""

    def __init__(self, dim: int, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.layer = CONVOLUTION[dim](inputs, outputs, 3, stride, 1)
        self.activation = nn.PReLU()

    def compute(self, *inputs: Tensor) -> Tensor:
        return self.activation(per_image(self.layer(inputs[0])))


class LargeKernel(Block):
    """The input plus convolutions of 3, `kernel` and 1 voxels of it, each normalised; rectified."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        sizes = (3, KERNEL[dim], 1)
        self.layers = nn.ModuleList(CONVOLUTION[dim](width, width, size, padding=size // 2) for size in sizes)
        self.activation = nn.PReLU()

    def compute(self, *inputs: Tensor) -> Tensor:
        total = inputs[0]
        for layer in self.layers:
            total = total + per_image(layer(inputs[0]))
        return self.activation(total)


class Enlarged(Block):
    """Twice the size between corners, a convolution, rectified; beside the skip."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.layer = CONVOLUTION[dim](width, width, 3, padding=1)
        self.activation = nn.PReLU()

    def compute(self, *inputs: Tensor) -> Tensor:
        features, skip = inputs
        larger = resize(features, skip.shape[2:], "corners")
        return torch.cat((self.activation(self.layer(larger)), skip), 1)


class LKUExtractor(FeatureExtractor):
    """See `FeatureLKU`. What the decoder adds from coarser levels is stretched between the corners, as theirs is."""

    offset: ClassVar[float] = 0.0

    def __init__(self, settings: FeatureLKU, dim: int, channels: int) -> None:
        down = scaled(DOWN, settings.widths)
        super().__init__(settings, len(down) - 1)
        c = down[0]
        self.encoder = nn.ModuleList([nn.Sequential(Convolved(dim, channels, c), Convolved(dim, c, c))])
        for inputs, outputs in pairwise(down):
            self.encoder.append(nn.Sequential(Convolved(dim, inputs, outputs, 2), LargeKernel(dim, outputs)))
        middle, up = (8 * c, 4 * c, 4 * c, 2 * c), (down[-1], 4 * c, 2 * c, 2 * c, 2 * c)
        self.enlarging, self.decoder, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleDict()
        for number, (width, skip, between) in enumerate(zip(up, reversed(down[:-1]), middle, strict=False)):
            self.enlarging.append(Enlarged(dim, width))
            self.decoder.append(nn.Sequential(Convolved(dim, width + skip, between), Convolved(dim, between, up[number + 1])))
            factor = 2 ** (len(down) - 2 - number)
            if factor in settings.scales:
                seen = width + skip if factor > 1 else up[-1]
                self.heads[str(factor)] = CONVOLUTION[dim](seen, settings.outputs, 3, padding=1, bias=False)

    def extract(self, image: Tensor) -> Sequence[Tensor]:
        features, skips = image, []
        for level in self.encoder:
            features = level(features)
            skips.append(features)
        skips.pop()
        given: dict[int, Tensor] = {}
        for enlarge, convolve in zip(self.enlarging, self.decoder, strict=True):
            factor = 2 ** (len(skips) - 1)
            given[factor] = enlarge(features, skips.pop())
            features = convolve(given[factor])
        given[1] = features
        return [self.heads[str(factor)](given[factor]) for factor in self.factors]


class LKUEncoderExtractor(FeatureExtractor):
    """See `FeatureLKUEncoder`."""

    offset: ClassVar[float] = 0.0

    def __init__(self, settings: FeatureLKUEncoder, dim: int, channels: int) -> None:
        super().__init__(settings, settings.scales[0].bit_length() - 1)
        self.branches = nn.ModuleList()
        for factor in settings.scales:
            widths = scaled((START * 2**k for k in range(factor.bit_length())), settings.widths)
            c = widths[0]
            first = [Convolved(dim, c, c)] if settings.form == "v1" else [LargeKernel(dim, c), LargeKernel(dim, c)]
            parts: list[nn.Module] = [Convolved(dim, channels, c), *first]
            for a, b in pairwise(widths):
                parts += [Convolved(dim, a, b, 2), LargeKernel(dim, b)]
            self.branches.append(
                nn.Sequential(*parts, CONVOLUTION[dim](widths[-1], settings.outputs, 3, padding=1, bias=False))
            )

    def extract(self, image: Tensor) -> Sequence[Tensor]:
        return [branch(image) for branch in self.branches]
