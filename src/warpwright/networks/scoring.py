"""A map of scores between 0 and 1, or of any one number a voxel, from a U-Net.

Layer table and count: the current VoxelMorph U-Net for one image (Zhang et al., AdaCS, ECCV 2024, arXiv 2312.00837, and its
code): 108,881 weights in 2-D, 326,033 in 3-D.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from warpwright.networks.layers import CONVOLUTION
from warpwright.networks.voxelmorph import PLANS, UNet

__all__ = ["VoxelMap"]


class VoxelMap(nn.Module):
    """One number for every voxel: (B, C, *S) to (B, 1, *S).

    Args:
        dim: axes.
        channels: C.
        scale: factor of all widths.
        constant: what the map begins as everywhere; None for what fresh weights give.
    """

    def __init__(self, dim: int, channels: int, scale: float = 1.0, constant: float | None = None) -> None:
        super().__init__()
        self.scale = scale
        self.core = UNet(PLANS["dense", False].scaled(scale), dim, channels, he=False)
        self.head = CONVOLUTION[dim](self.core.width, 1, 3, padding=1)
        if constant is not None:
            nn.init.zeros_(self.head.weight)
            nn.init.constant_(cast(Tensor, self.head.bias), constant)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.core(images)).to(images.dtype)  # also under autocast

    def scores(self, images: Tensor) -> Tensor:
        """The map between 0 and 1."""
        return torch.sigmoid(self(images))
