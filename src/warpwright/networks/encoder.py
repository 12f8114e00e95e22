"""A small encoder that looks at one image: features whose voxels lie exactly where `Grid.downsample` puts them.

Convolutions keep the size; between levels features are averaged to half of it about the middle of the image, for even and odd
sizes alike. So features of two images can be compared voxel by voxel, and a displacement found there needs no correction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.networks.layers import CONVOLUTION, Block, Normalisation

__all__ = ["Encoder", "EncoderNetwork", "halved"]

SLOPE = 0.1


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Settings of an encoder, which is the same network for fixed and moving images.

    Args:
        widths: channels at full resolution, at half of it, and so on.
        finest: halvings of the finest level that features are given at; those after it give features too.
        outputs: channels of the features.

    Raises:
        BadInput: there are no channels, or no level that gives features.
    """

    widths: tuple[int, ...] = (16, 24)
    finest: int = 1
    outputs: int = 16

    def __post_init__(self) -> None:
        if min((*self.widths, self.outputs), default=0) < 1 or not 0 <= self.finest < len(self.widths):
            found = f"{list(self.widths)}, finest {self.finest} and {self.outputs} outputs"
            raise BadInput(f"an encoder needs widths of at least 1, one of them after its finest halvings, got {found}")

    @property
    def factors(self) -> tuple[int, ...]:
        """Voxels of the image to one of each level, coarse to fine."""
        return tuple(2**k for k in range(len(self.widths) - 1, self.finest - 1, -1))

    def build(self, dim: int, channels: int = 1) -> EncoderNetwork:
        """The network with fresh weights, drawn from torch's generator."""
        return EncoderNetwork(self, dim, channels)


class Convolution(Block):
    """Three voxels, every channel normalised over the image, a leaky rectifier."""

    def __init__(self, dim: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = CONVOLUTION[dim](inputs, outputs, 3, padding=1)
        self.norm = Normalisation(outputs, outputs)

    def compute(self, *inputs: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.layer(inputs[0])), SLOPE)


class EncoderNetwork(nn.Module):
    """See `Encoder`: (B, C, *S) to features (B, outputs, *ceil(S / factor)) of every level, coarse to fine."""

    def __init__(self, settings: Encoder, dim: int, channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.levels = nn.ModuleList()
        for k, width in enumerate(settings.widths):
            before = settings.widths[k - 1] if k else channels
            again = [Convolution(dim, width, width)] if k else []
            self.levels.append(nn.Sequential(Convolution(dim, before, width), *again))
        self.heads = nn.ModuleList(
            CONVOLUTION[dim](width, settings.outputs, 3, padding=1) for width in settings.widths[settings.finest :]
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        features = image
        for k, level in enumerate(self.levels):
            features = level(halved(features) if k else features)
            if k >= self.settings.finest:
                found.append(self.heads[k - self.settings.finest](features))
        return tuple(reversed(found))


def halved(features: Tensor) -> Tensor:
    """Averages about every second voxel's place, (B, C, *S) to (B, C, *ceil(S / 2)) in the middle of the image.

    Two voxels each along an axis of even size; three, weighted 1 2 1, along one of odd size, whose border is repeated.
    """
    for axis in range(2, features.ndim):
        n = features.shape[axis]
        if n == 1:
            continue
        if n % 2 == 0:
            features = features.unflatten(axis, (n // 2, 2)).mean(axis + 1)
            continue
        line = features.movedim(axis, -1)
        even, odd = line[..., ::2], line[..., 1::2]
        left, right = torch.cat((line[..., :1], odd), -1), torch.cat((odd, line[..., -1:]), -1)
        features = ((left + 2 * even + right) / 4).movedim(-1, axis)
    return features
