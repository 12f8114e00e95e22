"""The U-Net of GradICON ("tallUNet2"): residual levels that hold most of their weights at the coarse end.

Tian et al., CVPR 2023 (arXiv 2206.05897), as in the authors' package ICON. Given the same weights, the output is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from warpwright.networks.base import Architecture, Estimator
from warpwright.networks.doubling import DOUBLING
from warpwright.networks.estimate import Basis, Estimate, FieldKind, components, field
from warpwright.networks.layers import BATCH_NORM, CONVOLUTION, AveragePool, Block, crop, double
from warpwright.networks.widths import check_scale, scaled

__all__ = ["TallUNet"]

ENCODER = (16, 32, 64, 256, 512)
DECODER = (16, 32, 64, 128, 256)  # fine to coarse
SLOPE = 0.01
DIVISOR = 10.0


@dataclass(frozen=True, kw_only=True)
class TallUNet(Architecture):
    """One field at full resolution, exactly zero at the beginning; or distributions over a basis, all alike.

    Of a field the last layer gives a tenth of the unit cube whose corners are the centres of the outermost voxels; component k
    is along axis k. What leaves the network is in voxels: times n_k - 1.

    Args:
        field: what the field is.
        scale: factor of all hidden widths, which are rounded and at least 1.

    Raises:
        BadInput: the scale is not positive and finite.
    """

    sized: ClassVar[bool] = True
    field: FieldKind = "displacement"
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self, self.scale)

    def build(self, dim: int, channels: int = 1) -> TallUNetNetwork:
        return TallUNetNetwork(self, dim, channels)

    def widths(self, full: tuple[int, ...]) -> tuple[int, ...]:
        """Widths at a scale of 1 to those of this one."""
        return scaled(full, self.scale)


class Down(Block):
    """Half the size, ceil(n / 2): a convolution of stride 2 of the rectified input, plus the averaged input.

    Where the widths differ, the averages are in the last of the new channels (or the last of them are kept).
    """

    def __init__(self, dim: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = CONVOLUTION[dim](inputs, outputs, 3, 2, 1)
        self.pool = AveragePool(2)
        self.padding = (0, 0) * dim + (outputs - inputs, 0)

    def compute(self, *inputs: Tensor) -> Tensor:
        features = self.layer(F.leaky_relu(inputs[0], SLOPE))
        return features + F.pad(self.pool(inputs[0]), self.padding)


class Up(Block):
    """Twice the size: a transposed convolution of the rectified input, plus its first channels enlarged; the skip beside it.

    Normalisation sees the sum, which is then cropped at the end to the size of the skip.
    """

    def __init__(self, dim: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = DOUBLING[dim](inputs, outputs)
        self.norm = BATCH_NORM[dim](outputs)

    def compute(self, *inputs: Tensor) -> Tensor:
        features, skip = inputs
        new = self.layer(F.leaky_relu(features, SLOPE))
        new = self.norm(new + double(features[:, : new.shape[1]], new.shape[2:], "linear"))
        return torch.cat((crop(new, skip.shape[2:]), skip), 1)


class TallUNetNetwork(Estimator):
    """See `TallUNet`; the input of every level of the encoder, the images first, is a skip."""

    def __init__(self, settings: TallUNet, dim: int, channels: int) -> None:
        super().__init__()
        self.kind: FieldKind = settings.field
        down, up = settings.widths(ENCODER), settings.widths(DECODER)
        skips = (2 * channels, *down[:-1])
        self.encoder = nn.ModuleList(Down(dim, a, b) for a, b in zip(skips, down, strict=True))
        self.decoder = nn.ModuleList()
        width = down[-1]
        for skip, outputs in zip(reversed(skips), reversed(up), strict=True):
            self.decoder.append(Up(dim, width, outputs))
            width = outputs + skip
        self.head = CONVOLUTION[dim](width, components(settings.field, dim), 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, fixed: Tensor, moving: Tensor) -> Estimate:
        features, skips = torch.cat((moving, fixed), 1), []
        for down in self.encoder:
            skips.append(features)
            features = down(features)
        for up in self.decoder:
            features = up(features, skips.pop())
        shape, values = tuple(fixed.shape[2:]), self.head(features)
        if not isinstance(self.kind, Basis):
            voxels = features.new_tensor([n - 1 for n in shape]).view(-1, *(1,) * len(shape))
            values = values / DIVISOR * voxels
        return field(values, self.kind, shape, (1,) * len(shape))
