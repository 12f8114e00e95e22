"""FCN-SS: a plain convolutional network that regresses a displacement at three resolutions; blocks with batch normalisation.

Li & Fan, arXiv 1709.00799 and 1801.04012. No code of the authors is known, and a public re-implementation strides in every
convolution, which leaves no full resolution. Here convolutions have stride 1, pooling and transposed convolutions stride 2, so
that the heads are at 1/4, 1/2 and full resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from warpwright.networks.base import Architecture, Estimator
from warpwright.networks.estimate import Displacement
from warpwright.networks.layers import BATCH_NORM, CONVOLUTION, TRANSPOSED, AveragePool, Chain, crop, small_normal_

__all__ = ["FCNSS"]

DEVIATION = 0.01


@dataclass(frozen=True, kw_only=True)
class FCNSS(Architecture):
    """A displacement at full resolution, with those of the two coarser heads as `coarser` (quarter, half).

    Weights begin as N(0, 0.01), so the first displacement is small but not zero.
    """

    def build(self, dim: int, channels: int = 1) -> FCNSSNetwork:
        return FCNSSNetwork(dim, channels)


class FCNSSNetwork(Estimator):
    """Convolutions down to a quarter of the resolution and transposed ones back; no skips. See `FCNSS`."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        first, second = _stage(dim, 2 * channels, 32, AveragePool(3)), _stage(dim, 32, 64, AveragePool(3))
        self.to_quarter = nn.Sequential(first, second, _stage(dim, 64, 128))
        self.to_half = _stage_up(dim, 128, 64)
        self.at_half = _stage(dim, 64, 64)
        self.to_full = _stage_up(dim, 64, 32)
        self.heads = nn.ModuleList(_convolution(dim, width, dim) for width in (128, 64, 32))

    def forward(self, fixed: Tensor, moving: Tensor) -> Displacement:
        shape = tuple(fixed.shape[2:])
        quarter = self.to_quarter(torch.cat((moving, fixed), 1))
        half = self.at_half(crop(self.to_half(quarter), [-(-n // 2) for n in shape]))
        full = crop(self.to_full(half), shape)
        fields = [head(features) for head, features in zip(self.heads, (quarter, half, full), strict=True)]
        coarser = tuple(
            Displacement(values=values, shape=shape, factors=(factor,) * len(shape))
            for values, factor in zip(fields, (4, 2), strict=False)
        )
        return Displacement(values=fields[-1], shape=shape, factors=(1,) * len(shape), coarser=coarser)


def _convolution(dim: int, inputs: int, outputs: int) -> nn.Module:
    return small_normal_(CONVOLUTION[dim](inputs, outputs, 3, padding=1, bias=False), DEVIATION)


def _stage(dim: int, inputs: int, outputs: int, *after: nn.Module) -> Chain:
    return Chain(_convolution(dim, inputs, outputs), BATCH_NORM[dim](outputs), nn.ReLU(inplace=True), *after)


def _stage_up(dim: int, inputs: int, outputs: int) -> Chain:
    layer = small_normal_(TRANSPOSED[dim](inputs, outputs, 3, 2, 1, output_padding=1, bias=False), DEVIATION)
    return Chain(layer, BATCH_NORM[dim](outputs), nn.ReLU(inplace=True))
