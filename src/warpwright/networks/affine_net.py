"""The network of ICON that gives an affine map: convolutions, a mean over all voxels, and two linear layers.

Layer table: `ConvolutionalMatrixNet` of the code that accompanies ICON and GradICON. Its first convolution also follows a
rectifier, so that negative intensities count as zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from warpwright.networks.base import Architecture, Estimator
from warpwright.networks.estimate import LinearMap
from warpwright.networks.layers import CONVOLUTION, AveragePool, Chain
from warpwright.networks.widths import check_scale, scaled

__all__ = ["AffineNet"]

WIDTHS, HIDDEN = (16, 32, 64, 128, 256, 512), 300


@dataclass(frozen=True, kw_only=True)
class AffineNet(Architecture):
    """An affine map, the identity at the beginning; see `layers.LinearField`.

    Args:
        scale: factor of all hidden widths, which are rounded and at least 1.

    Raises:
        BadInput: the scale is not positive and finite.
    """

    sized: ClassVar[bool] = True
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self, self.scale)

    def build(self, dim: int, channels: int = 1) -> AffineNetwork:
        *widths, hidden = scaled((*WIDTHS, HIDDEN), self.scale)
        return AffineNetwork(dim, 2 * channels, tuple(widths), hidden)


class AffineNetwork(Estimator):
    """As `AffineNet` says; matrices act on a cube with sides of one, so a network means the same at any size."""

    def __init__(self, dim: int, inputs: int, widths: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(
                Chain(nn.ReLU(), CONVOLUTION[dim](a, b, 3, padding=1), AveragePool(2))
                for a, b in zip((inputs, *widths), widths, strict=False)
            )
        )
        self.hidden = nn.Linear(widths[-1], hidden)
        self.matrix = nn.Linear(hidden, dim * (dim + 1))
        nn.init.zeros_(self.matrix.weight)
        nn.init.zeros_(self.matrix.bias)

    def forward(self, fixed: Tensor, moving: Tensor) -> LinearMap:
        features = cast(Tensor, self.features(torch.cat((moving, fixed), 1))).flatten(2).mean(2)
        shape = tuple(fixed.shape[2:])
        dim = len(shape)
        change = self.matrix(torch.relu(self.hidden(features))).to(fixed.dtype).reshape(-1, dim, dim + 1)
        size = torch.tensor(shape, dtype=change.dtype, device=change.device)
        change = change * size[:, None] / torch.cat((size, torch.ones_like(size[:1])))
        unit = torch.eye(dim, dim + 1, dtype=change.dtype, device=change.device)
        return LinearMap(values=unit + change, shape=shape, factors=(1,) * dim)
