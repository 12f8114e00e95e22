"""Optimisers with a learned regulariser, unrolled: what VR-Net and GraDIRN do at a level of a pyramid.

In small: features in place of images, D x D systems for all channels at once, regularisers of three convolutions.

References: Jia et al., VR-Net, IEEE TMI 2022, arXiv 2102.03837; Qiu et al., GraDIRN, MICCAI 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.methods.blocks import BlockSettings, LevelBlock
from warpwright.networks.layers import CONVOLUTION
from warpwright.sampling import warp

__all__ = ["Descent", "Proximal"]

SLOPE = 0.1


@dataclass(frozen=True, kw_only=True)
class Proximal(BlockSettings):
    """Variable splitting: a closed-form step of the data term about the field, then a learned denoiser.

    Args:
        iterations: of a level.
        width: channels of the denoiser.
    """

    iterations: int = 2
    width: int = 24

    def __post_init__(self) -> None:
        check_unrolled(self.iterations, self.width)

    def build(self, dim: int, *, coarsest: bool) -> LevelBlock:
        return Splitting(self, dim)


class Splitting(LevelBlock):
    """As `Proximal` says; the regulariser sees the field alone, and begins as the identity."""

    def __init__(self, settings: Proximal, dim: int) -> None:
        super().__init__()
        self.log_damping = nn.Parameter(torch.zeros(settings.iterations))
        self.regularisers = nn.ModuleList(regulariser(dim, dim, settings.width) for _ in range(settings.iterations))

    def forward(self, fixed: Tensor, moving: Tensor, field: Tensor) -> Tensor:
        for damping, regularise in zip(self.log_damping.exp(), self.regularisers, strict=True):
            residual, slopes = linearised(fixed, moving, field)
            dim = field.shape[1]
            eye = torch.eye(dim, dtype=field.dtype, device=field.device).reshape(dim, dim, *(1,) * dim)
            system = (slopes[:, :, :, None] * slopes[:, :, None]).mean(1) + damping * eye
            force = (slopes * residual[:, :, None]).mean(1)
            step = torch.linalg.solve(system.movedim((1, 2), (-2, -1)), force.movedim(1, -1)).movedim(-1, 1)
            field = field - step
            field = field + regularise(field)
        return field


@dataclass(frozen=True, kw_only=True)
class Descent(BlockSettings):
    """Gradient descent on the data term and on a learned regulariser.

    Args:
        iterations: of a level.
        width: channels of the regulariser.
    """

    iterations: int = 2
    width: int = 24

    def __post_init__(self) -> None:
        check_unrolled(self.iterations, self.width)

    def build(self, dim: int, *, coarsest: bool) -> LevelBlock:
        return Descending(self, dim)


class Descending(LevelBlock):
    """As `Descent` says; the regulariser sees the field and the gradient of the data term, and begins as nothing."""

    def __init__(self, settings: Descent, dim: int) -> None:
        super().__init__()
        self.log_rate = nn.Parameter(torch.zeros(settings.iterations))
        self.regularisers = nn.ModuleList(regulariser(dim, 2 * dim, settings.width) for _ in range(settings.iterations))

    def forward(self, fixed: Tensor, moving: Tensor, field: Tensor) -> Tensor:
        for rate, regularise in zip(self.log_rate.exp(), self.regularisers, strict=True):
            residual, slopes = linearised(fixed, moving, field)
            gradient = (slopes * residual[:, :, None]).mean(1)
            field = field - rate * gradient - regularise(torch.cat((field, gradient), 1))
        return field


def check_unrolled(iterations: int, width: int) -> None:
    """Refuse a block without iterations or channels."""
    if min(iterations, width) < 1:
        raise BadInput(f"an unrolled block needs at least 1 iteration and 1 channel, got {iterations} and {width}")


def regulariser(dim: int, inputs: int, width: int) -> nn.Module:
    """Three convolutions, of which the last gives nothing to begin with."""
    convolution = CONVOLUTION[dim]
    last = convolution(width, dim, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    first, second = convolution(inputs, width, 3, padding=1), convolution(width, width, 3, padding=1)
    return nn.Sequential(first, nn.LeakyReLU(SLOPE), second, nn.LeakyReLU(SLOPE), last)


def linearised(fixed: Tensor, moving: Tensor, field: Tensor) -> tuple[Tensor, Tensor]:
    """Moved features less the fixed ones (B, C, *T), and how they change with the field: (B, C, D, *T)."""
    slopes = torch.stack([slope(moving, axis) for axis in range(field.shape[1])], 2)
    pulled = warp(torch.cat((moving, slopes.flatten(1, 2)), 1), field)
    channels = moving.shape[1]
    return pulled[:, :channels] - fixed, pulled[:, channels:].unflatten(1, (channels, field.shape[1]))


def slope(features: Tensor, axis: int) -> Tensor:
    """Central differences along a spatial axis, border repeated."""
    line = features.movedim(axis + 2, -1)
    wide = torch.cat((line[..., :1], line, line[..., -1:]), -1)
    return ((wide[..., 2:] - wide[..., :-2]) / 2).movedim(-1, axis + 2)
