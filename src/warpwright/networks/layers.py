"""Layers by number of axes, blocks that may save memory, pooling, and resizing (the only place)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from warpwright.networks.convolution import Convolution3d, Transposed3d

__all__ = [
    "AVERAGE_POOL",
    "BATCH_NORM",
    "CONVOLUTION",
    "MAX_POOL",
    "TRANSPOSED",
    "AveragePool",
    "Block",
    "Chain",
    "Normalisation",
    "crop",
    "double",
    "resize",
    "save_memory",
    "small_normal_",
]

CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: Convolution3d}
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: Transposed3d}
AVERAGE_POOL: dict[int, Any] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAX_POOL: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LINEAR = {2: "bilinear", 3: "trilinear"}


class Block(nn.Module):
    """A part of a network that may forget its activations and compute them again in the backward pass (`save_memory`).

    Derived classes write `compute` in place of `forward`. Batch normalisation does not count a batch that is computed again.
    """

    saving = False

    def compute(self, *inputs: Tensor) -> Tensor:
        """What `forward` gives."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        if not (self.saving and torch.is_grad_enabled()):
            return self.compute(*inputs)
        if torch.compiler.is_compiling():  # compiled code never counts twice
            return cast(Tensor, checkpoint(self.compute, *inputs, use_reentrant=False))
        return cast(Tensor, checkpoint(self.compute, *inputs, use_reentrant=False, context_fn=self._contexts))

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """What surrounds the first and the second computation."""
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


class Chain(Block):
    """Layers one after the other: (B, C, *S) to what the last one gives."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def compute(self, *inputs: Tensor) -> Tensor:
        return self.layers(inputs[0])


def save_memory(network: nn.Module, on: bool = True) -> None:
    """Switch activation checkpointing of every `Block` in a network on or off; results do not change."""
    for module in network.modules():
        if isinstance(module, Block):
            module.saving = on


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


class Normalisation(nn.GroupNorm):
    """Group normalisation of any size; a single value is taken to its bias, where torch's layer refuses it."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def double(features: Tensor, shape: Sequence[int], mode: Literal["nearest", "linear"] = "nearest") -> Tensor:
    """Twice the size along each axis, cropped at the end to `shape`: the way back from a layer of stride 2.

    Args:
        features: (B, C, *T).
        shape: S with T = ceil(S / 2).
        mode: "linear" places voxels by their centres (not by their corners).

    Returns:
        (B, C, *S).
    """
    if mode == "nearest":
        return crop(F.interpolate(features, scale_factor=2, mode="nearest"), shape)
    return crop(F.interpolate(features, scale_factor=2, mode=LINEAR[features.ndim - 2], align_corners=False), shape)


def resize(features: Tensor, shape: Sequence[int], placing: Literal["centres", "corners"] = "centres") -> Tensor:
    """Linear interpolation to any shape: (B, C, *T) to (B, C, *shape).

    Args:
        features: (B, C, *T).
        shape: of the result.
        placing: "centres" has the same borders of the outermost voxels, "corners" the same middles of them.
    """
    if tuple(features.shape[2:]) == tuple(shape):
        return features
    return F.interpolate(features, size=list(shape), mode=LINEAR[features.ndim - 2], align_corners=placing == "corners")


def crop(features: Tensor, shape: Sequence[int]) -> Tensor:
    """The first `shape` voxels along each axis."""
    return features[(..., *(slice(0, n) for n in shape))]


def small_normal_(layer: nn.Module, deviation: float = 1e-5) -> nn.Module:
    """Weights from a normal distribution that moves next to nothing, bias zero: how fields begin in VoxelMorph."""
    nn.init.normal_(cast(Tensor, layer.weight), std=deviation)
    if layer.bias is not None:
        nn.init.zeros_(cast(Tensor, layer.bias))
    return layer
