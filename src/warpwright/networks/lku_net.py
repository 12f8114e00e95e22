"""LKU-Net: a U-Net whose encoder adds convolutions of several sizes.

Jia et al., MLMI 2022 (arXiv 2208.04939), as in the authors' code, without its second head, which they do not use.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.networks.base import Architecture, Estimator
from warpwright.networks.estimate import Basis, Estimate, FieldKind, components, field
from warpwright.networks.layers import CONVOLUTION, TRANSPOSED, Block, Chain, crop

__all__ = ["LKUNet"]

KERNEL = {2: 7, 3: 5}


@dataclass(frozen=True, kw_only=True)
class LKUNet(Architecture):
    """One field, bounded by half the image; or distributions over a basis.

    Of a field the last layer gives values between -1 and 1, of which 1 stands for half the image along that axis: they are
    multiplied by S_i / 2 voxels. (So do the authors' losses; their warping multiplies by (S_i - 1) / 2.) It begins as torch
    begins a convolution, as theirs does, so the first field is not zero.

    Args:
        start: channels at full resolution.
        field: what the field is.
        kernel: size of the largest convolution, odd and at least 3; by default 7 in 2-D and 5 in 3-D.
        half_resolution: leave out the finest level of the decoder. The field is that of a lattice of half the resolution, its
            bound the same length. The authors' code keeps the weights of that level and does not use them; here they do
            not exist.

    Raises:
        BadInput: there are no channels, or the kernel is even or below 3.
    """

    sized: ClassVar[bool] = True
    start: int = 8
    field: FieldKind = "displacement"
    kernel: int | None = None
    half_resolution: bool = False

    def __post_init__(self) -> None:
        if self.start < 1:
            raise BadInput(f"an LKUNet must start with at least 1 channel, got {self.start}")
        if self.kernel is not None and (self.kernel < 3 or self.kernel % 2 == 0):
            raise BadInput(f"the kernel of an LKUNet must be odd and at least 3, got {self.kernel}")

    def build(self, dim: int, channels: int = 1) -> LKUNetNetwork:
        return LKUNetNetwork(self, dim, channels)


def convolution(dim: int, inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Convolution of three voxels and a rectifier with one learned slope: (B, C, *S) to (B, C', *ceil(S / stride))."""
    return nn.Sequential(CONVOLUTION[dim](inputs, outputs, 3, stride, 1), nn.PReLU())


class LargeKernel(nn.Module):
    """The input plus convolutions of 3, `kernel` and 1 voxels of it, rectified; no change of shape."""

    def __init__(self, dim: int, width: int, kernel: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CONVOLUTION[dim](width, width, size, padding=size // 2) for size in (3, kernel, 1))
        self.activation = nn.PReLU()

    def forward(self, features: Tensor) -> Tensor:
        total = features
        for layer in self.layers:
            total = total + layer(features)
        return self.activation(total)


class Up(Block):
    """Twice the size by a transposed convolution, cropped to the skip and beside it; two convolutions."""

    def __init__(self, dim: int, inputs: int, skip: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.Sequential(TRANSPOSED[dim](inputs, inputs, 2, 2), nn.PReLU())
        self.convolutions = nn.Sequential(convolution(dim, inputs + skip, middle), convolution(dim, middle, outputs))

    def compute(self, *inputs: Tensor) -> Tensor:
        features, skip = inputs
        return self.convolutions(torch.cat((crop(self.up(features), skip.shape[2:]), skip), 1))


class LKUNetNetwork(Estimator):
    """See `LKUNet`."""

    def __init__(self, settings: LKUNet, dim: int, channels: int) -> None:
        super().__init__()
        self.kind: FieldKind = settings.field
        self.factor = 2 if settings.half_resolution else 1
        kernel, c = settings.kernel or KERNEL[dim], settings.start
        down = (c, 2 * c, 4 * c, 8 * c, 8 * c)
        self.encoder = nn.ModuleList([Chain(convolution(dim, 2 * channels, c), convolution(dim, c, c))])
        for inputs, outputs in pairwise(down):
            self.encoder.append(Chain(convolution(dim, inputs, outputs, 2), LargeKernel(dim, outputs, kernel)))
        middle, up = (8 * c, 4 * c, 4 * c, 2 * c), (8 * c, 4 * c, 2 * c, 2 * c, 2 * c)
        levels = list(zip(up, reversed(down[:-1]), middle, up[1:], strict=False))
        self.decoder = nn.ModuleList(Up(dim, *widths) for widths in (levels[:-1] if settings.half_resolution else levels))
        head = CONVOLUTION[dim](2 * c, components(settings.field, dim), 3, padding=1, bias=False)
        self.head = nn.Sequential(head) if isinstance(settings.field, Basis) else nn.Sequential(head, nn.Softsign())

    def forward(self, fixed: Tensor, moving: Tensor) -> Estimate:
        features, skips = torch.cat((moving, fixed), 1), []
        for level in self.encoder:
            features = level(features)
            skips.append(features)
        skips.pop()
        for level in self.decoder:
            features = level(features, skips.pop())
        shape, values = tuple(fixed.shape[2:]), self.head(features)
        if not isinstance(self.kind, Basis):
            values = values * features.new_tensor([n / 2 / self.factor for n in shape]).view(-1, *(1,) * len(shape))
        return field(values, self.kind, shape, (self.factor,) * len(shape))
