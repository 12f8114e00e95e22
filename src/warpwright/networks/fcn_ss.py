"""FCN-SS: a plain convolutional network that regresses a displacement at three resolutions; blocks with batch normalisation.

Li & Fan, arXiv 1709.00799 and 1801.04012. No code of the authors is known, and a public re-implementation strides in every
convolution, which leaves no full resolution. Here convolutions have stride 1, pooling and transposed convolutions stride 2, so
that the heads are at 1/4, 1/2 and full resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from warpwright.networks.base import Architecture, Estimator
from warpwright.networks.estimate import Displacement
from warpwright.networks.layers import AVERAGE_POOL, BATCH_NORM, CONVOLUTION, TRANSPOSED, Block, crop, small_normal_

__all__ = ["FCNSS", "AveragePool", "Chain", "NormalisedBlock"]

DEVIATION = 0.01


@dataclass(frozen=True, kw_only=True)
class FCNSS(Architecture):
    """A displacement at full resolution, with those of the two coarser heads as `coarser` (quarter, half).

    Weights begin as N(0, 0.01), so the first displacement is small but not zero.
    """

    def build(self, dim: int, channels: int = 1) -> FCNSSNetwork:
        return FCNSSNetwork(dim, channels)


class NormalisedBlock(Block):
    """A `Block` that may hold batch normalisation: computing again in the backward pass does not count the batch again."""

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.saving and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return cast(Tensor, checkpoint(self.compute, *inputs, use_reentrant=False, context_fn=self._contexts))
        return super().forward(*inputs)  # compiled code never counts twice

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self._uncounted()

    @contextmanager
    def _uncounted(self) -> Iterator[None]:
        norms = [m for m in self.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))]
        kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            for norm, (momentum, count) in zip(norms, kept, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, count


class Chain(NormalisedBlock):
    """Layers one after the other: (B, C, *S) to what the last one gives."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def compute(self, *inputs: Tensor) -> Tensor:
        return self.layers(inputs[0])


class AveragePool(nn.Module):
    """Half the size, n voxels to ceil(n / 2): means of windows of 2 or 3 voxels, of which what lies in the image counts.

    An axis shorter than the window, which torch refuses in 3-D, becomes its mean.
    """

    def __init__(self, window: Literal[2, 3]) -> None:
        super().__init__()
        self.window = window

    def forward(self, features: Tensor) -> Tensor:
        shape = features.shape[2:]
        window = [min(self.window, n) for n in shape]
        margin = [1 if n >= self.window == 3 else 0 for n in shape]
        pool = AVERAGE_POOL[len(shape)](window, 2, margin, ceil_mode=self.window == 2, count_include_pad=False)
        return pool(features)


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
