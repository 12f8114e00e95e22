"""A transposed convolution that doubles the size, quick where few places are left."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from warpwright.networks.convolution import Transposed3d

__all__ = ["DOUBLING"]

FEW = 36  # places up to which one product of matrices is quicker than torch's way, which reorders all weights at every call
MANY = 1 << 20  # weights from which that matters


class Doubling(nn.Module):
    """Kernels of 4, stride 2, padding 1: a layer of torch under another way to compute the same, to rounding.

    Mixed in before `torch.nn.ConvTranspose2d` or `Transposed3d`.
    """

    weight: Tensor
    bias: Tensor | None

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *S) to (B, outputs, *2S)."""
        few = math.prod(features.shape[2:]) <= FEW and self.weight.numel() >= MANY
        if features.device.type != "cpu" or not few:
            return super().forward(features)
        return by_product(features, self.weight, self.bias)


class Doubling2d(Doubling, nn.ConvTranspose2d):
    """In 2-D."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, 2, 1)


class Doubling3d(Doubling, Transposed3d):
    """In 3-D."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, 2, 1)


DOUBLING: dict[int, Any] = {2: Doubling2d, 3: Doubling3d}


def by_product(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What every place gives to the 4 around it along each axis in one product, then sums of what meets.

    Args:
        features: (B, C, *S), of 2 or 3 axes.
        weight: (C, outputs, 4, ..., 4).
        bias: (outputs,).

    Returns:
        (B, outputs, *2S).
    """
    (batch, channels, *shape), outputs = features.shape, weight.shape[1]
    given = features.flatten(2).transpose(1, 2).reshape(-1, channels) @ weight.reshape(channels, -1)
    rows, plane = shape[:-2], shape[-2:]
    given = given.view(batch, *rows, math.prod(plane), outputs, *(4,) * len(rows), 16)
    if rows:
        given = _met(given)
    columns = given.reshape(-1, math.prod(plane), outputs * 16).transpose(1, 2)
    image = F.fold(columns, tuple(2 * n for n in plane), 4, padding=1, stride=2)
    if rows:
        image = image.view(batch, -1, *image.shape[1:]).transpose(1, 2)
    return image if bias is None else image + bias.to(image.dtype).view(-1, *(1,) * len(shape))


def _met(given: Tensor) -> Tensor:
    """Sums over the first axis of volumes: (B, n, places, outputs, 4, 16) to (B, 2n, places, outputs, 16)."""
    first, second, third, last = given.unbind(4)
    later, earlier = (F.pad(tap, (0, 0) * 3 + edge) for tap, edge in ((last, (1, 0)), (first, (0, 1))))
    even, odd = second + later[:, :-1], third + earlier[:, 1:]
    return torch.stack((even, odd), 2).flatten(1, 2)
