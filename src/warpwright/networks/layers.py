"""Layers by number of axes, resizing (the only place), and activation checkpointing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = [
    "AVERAGE_POOL",
    "BATCH_NORM",
    "CONVOLUTION",
    "INSTANCE_NORM",
    "MAX_POOL",
    "TRANSPOSED",
    "Block",
    "crop",
    "double",
    "resize",
    "save_memory",
    "small_normal_",
]

CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
AVERAGE_POOL: dict[int, Any] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAX_POOL: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM: dict[int, Any] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
LINEAR = {2: "bilinear", 3: "trilinear"}


class Block(nn.Module):
    """A part of a network that may forget its activations and compute them again in the backward pass (`save_memory`).

    Derived classes write `compute` in place of `forward`.
    """

    saving = False

    def compute(self, *inputs: Tensor) -> Tensor:
        """What `forward` gives."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.saving and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(self.compute, *inputs, use_reentrant=False))
        return self.compute(*inputs)


def save_memory(network: nn.Module, on: bool = True) -> None:
    """Switch activation checkpointing of every `Block` in a network on or off; results do not change."""
    for module in network.modules():
        if isinstance(module, Block):
            module.saving = on


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


def resize(features: Tensor, shape: Sequence[int]) -> Tensor:
    """Linear interpolation to any shape, voxels placed by their centres: (B, C, *T) to (B, C, *shape)."""
    if tuple(features.shape[2:]) == tuple(shape):
        return features
    return F.interpolate(features, size=list(shape), mode=LINEAR[features.ndim - 2], align_corners=False)


def crop(features: Tensor, shape: Sequence[int]) -> Tensor:
    """The first `shape` voxels along each axis."""
    return features[(..., *(slice(0, n) for n in shape))]


def small_normal_(layer: nn.Module, deviation: float = 1e-5) -> nn.Module:
    """Weights from a normal distribution that moves next to nothing, bias zero: how fields begin in VoxelMorph."""
    nn.init.normal_(cast(Tensor, layer.weight), std=deviation)
    if layer.bias is not None:
        nn.init.zeros_(cast(Tensor, layer.bias))
    return layer
