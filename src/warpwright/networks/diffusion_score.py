"""A U-Net that finds the noise in images, told how much there is: that of denoising diffusion models."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from warpwright.networks.layers import CONVOLUTION, Block, Normalisation, double

__all__ = ["ScoreUNet", "sinusoids"]

LEVELS = (1, 2, 4, 4)  # widths in multiples of the inner one, fine to coarse
SLOWEST = 1e4


class ScoreUNet(nn.Module):
    """Residual blocks at four resolutions, each told the time, with attention at the coarsest and two skips to a level.

    Weights are orthogonal at first, biases zero. Normalisation has half as many groups as there are inner channels, which makes
    the 32 and 4 of the published networks. Attention is of one head in 3-D too, where theirs is linear and of four.

    Args:
        dim: axes of the images.
        inputs: channels of what is looked at.
        outputs: channels of the noise.
        inner: width at full resolution, even.

    Reference: Ho et al., NeurIPS 2020, arXiv 2006.11239; layer table of Kim et al., DiffuseMorph, ECCV 2022, arXiv 2112.05149.
    """

    def __init__(self, dim: int, inputs: int, outputs: int, inner: int) -> None:
        super().__init__()
        convolution, groups = CONVOLUTION[dim], inner // 2
        widths = [inner * level for level in LEVELS]
        coarsest = widths[-1]

        def residual(before: int, after: int) -> Residual:
            return Residual(dim, before, after, inner, groups)

        self.inner = inner
        self.time = nn.Sequential(nn.Linear(inner, 4 * inner), nn.SiLU(), nn.Linear(4 * inner, inner))
        self.stem = convolution(inputs, inner, 3, padding=1)
        self.encoder = nn.ModuleList(residual(a, b) for a, b in pairwise((inner, *widths)))
        self.halve = nn.ModuleList(convolution(width, width, 3, 2, 1) for width in widths[:-1])
        self.middle = nn.ModuleList((residual(coarsest, coarsest), residual(coarsest, coarsest)))
        self.attention = Attention(dim, coarsest, groups)
        self.decoder = nn.ModuleList()
        self.enlarge = nn.ModuleList(convolution(width, width, 3, padding=1) for width in reversed(widths[1:]))
        before = coarsest
        for level, finer in zip(reversed(widths), reversed((inner, *widths[:-1])), strict=True):
            self.decoder.append(nn.ModuleList((residual(before + level, level), residual(level + finer, level))))
            before = level
        self.head = nn.Sequential(Normalisation(groups, inner), nn.SiLU(), convolution(inner, outputs, 3, padding=1))
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.orthogonal_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor, at: Tensor) -> Tensor:
        """The noise in images of any size, (B, outputs, *S).

        Args:
            images: (B, inputs, *S).
            at: (B,) steps of the noise.
        """
        time = self.time(sinusoids(at.to(images.dtype), self.inner))
        features = self.stem(images)
        skips = [features]
        for k, block in enumerate(self.encoder):
            if k:
                features = self.halve[k - 1](features)
                skips.append(features)
            features = block(features, time)
            skips.append(features)
        first, second = self.middle
        features = second(self.attention(first(features, time)), time)
        for k, level in enumerate(self.decoder):
            if k:
                features = self.enlarge[k - 1](double(features, skips[-1].shape[2:]))
            for block in cast(nn.ModuleList, level):
                features = block(torch.cat((features, skips.pop()), 1), time)
        return self.head(features)


class Residual(Block):
    """Two normalised convolutions with the time added between them, and a way past: (B, inputs, *T) to (B, outputs, *T)."""

    def __init__(self, dim: int, inputs: int, outputs: int, times: int, groups: int) -> None:
        super().__init__()
        convolution = CONVOLUTION[dim]
        self.first = nn.Sequential(Normalisation(groups, inputs), nn.SiLU(), convolution(inputs, outputs, 3, padding=1))
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(times, outputs))
        self.second = nn.Sequential(Normalisation(groups, outputs), nn.SiLU(), convolution(outputs, outputs, 3, padding=1))
        self.past = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1)

    def compute(self, *inputs: Tensor) -> Tensor:
        features, time = inputs
        shift = self.time(time).reshape(len(time), -1, *(1,) * (features.ndim - 2))
        return self.second(self.first(features) + shift) + self.past(features)


class Attention(Block):
    """Attention of one head between all places, added to what was there; no change of shape."""

    def __init__(self, dim: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm = Normalisation(groups, width)
        self.questions = CONVOLUTION[dim](width, 3 * width, 1, bias=False)
        self.answer = CONVOLUTION[dim](width, width, 1)

    def compute(self, *inputs: Tensor) -> Tensor:
        features = inputs[0]
        tokens = self.questions(self.norm(features)).flatten(2).mT[:, None]
        found = F.scaled_dot_product_attention(*tokens.chunk(3, -1))
        return features + self.answer(found[:, 0].mT.reshape(features.shape))


def sinusoids(at: Tensor, width: int) -> Tensor:
    """Times (B,) as sines and cosines of slower and slower waves, (B, width): `sin(t 1e4^(-2k / width))`, then the cosines."""
    waves = torch.arange(0, width, 2, dtype=at.dtype, device=at.device)
    angles = at[:, None] * torch.exp(-math.log(SLOWEST) / width * waves)
    return torch.cat((angles.sin(), angles.cos()), 1)
