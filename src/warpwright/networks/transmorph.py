"""TransMorph: a Swin transformer encoder and a convolutional decoder, with its probabilistic and its B-spline form.

Chen et al., Medical Image Analysis 2022 (arXiv 2111.10480). Layer table and numbers of weights are those of the authors' code.
Ours differs on purpose: velocities are in voxels of their lattice, and later layers integrate them; tokens that only the shift
of the windows brings together never see one another, where the original adds -100; padding is undone along every axis; a
lattice of one voxel is not normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.networks.base import Architecture, Estimator
from warpwright.networks.estimate import ControlPoints, Estimate, FieldKind, VelocityDistribution, components, field
from warpwright.networks.layers import AVERAGE_POOL, CONVOLUTION, Block, double, resize, small_normal_
from warpwright.networks.swin import SwinEncoder

__all__ = ["TransMorph", "TransMorphNetwork"]

FINEST = 16  # channels at the finest lattice
KNOTS = 3  # voxels between the knots of the B-spline
WINDOWS = {2: (8, 8), 3: (5, 6, 7)}


@dataclass(frozen=True)
class Size:
    """Channels of the first stage of the encoder; blocks and attention heads of each stage."""

    embed: int
    depths: tuple[int, ...] = (2, 2, 4, 2)
    heads: tuple[int, ...] = (4, 4, 4, 4)


SIZES = {
    "tiny": Size(6, heads=(2, 2, 4, 4)),
    "small": Size(48),
    "base": Size(96, heads=(4, 4, 8, 8)),
    "large": Size(128, depths=(2, 2, 12, 2), heads=(4, 4, 8, 16)),
}


@dataclass(frozen=True, kw_only=True)
class TransMorph(Architecture):
    """Settings of a TransMorph.

    Args:
        size: width and depth; 0.24, 12, 47 or 108 million weights in 3-D.
        head: "field" is one vector to a voxel; "distribution" is mean and variance of a velocity at half the resolution
            (TransMorph-diff); "bspline" is a velocity on a lattice of control points every three voxels (TransMorph-bspl).
        field: what the head "field" gives.
        window: window of attention in tokens of the encoder, one number or one for each axis; 8 in 2-D and (5, 6, 7) in 3-D
            if left out. At 1/32 of the image's size it covers the coarsest stage; smaller images are filled up with zeros.
        drop_path: how often the last block of the encoder leaves out its branches in training; the first never does.
        convolution_skips: whether features of the images themselves enter the decoder (off: an ablation of the paper).
        transformer_skips: whether features of the finer stages do.

    Raises:
        BadInput: the window is not positive, or drop_path is not in [0, 1).
    """

    size: Literal["tiny", "small", "base", "large"] = "base"
    head: Literal["field", "distribution", "bspline"] = "field"
    field: FieldKind = "displacement"
    window: int | tuple[int, ...] | None = None
    drop_path: float = 0.3
    convolution_skips: bool = True
    transformer_skips: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.drop_path < 1:
            raise BadInput(f"drop_path of a TransMorph must be in [0, 1), got {self.drop_path}")
        if self.window is not None and min((self.window,) if isinstance(self.window, int) else self.window, default=0) < 1:
            raise BadInput(f"the window of a TransMorph must be at least 1 along each axis, got {self.window}")

    def build(self, dim: int, channels: int = 1) -> TransMorphNetwork:
        window = WINDOWS[dim] if self.window is None else self.window
        window = (window,) * dim if isinstance(window, int) else window
        if len(window) != dim:
            raise BadInput(f"the window of a TransMorph must have one number for each of {dim} axes, got {self.window}")
        return TransMorphNetwork(self, window, channels)


class TransMorphNetwork(Estimator):
    """Encoder, decoder and head; built by `TransMorph`, for images of any size with as many axes as the window.

    Where a skip is left out, a map without channels still tells the decoder which shape to reach. The convolutions of the
    images are there even so, as in the original, where they count.
    """

    def __init__(self, settings: TransMorph, window: tuple[int, ...], channels: int) -> None:
        super().__init__()
        dim, size = len(window), SIZES[settings.size]
        self.convolution_skips, self.transformer_skips = settings.convolution_skips, settings.transformer_skips
        self.encoder = SwinEncoder(
            dim, 2 * channels, size.embed, depths=size.depths, heads=size.heads, window=window, drop_path=settings.drop_path
        )
        stages = [4 * size.embed, 2 * size.embed, size.embed]
        fine = [size.embed // 2, FINEST] if settings.head == "field" else [size.embed // 2]
        self.pool = AVERAGE_POOL[dim](3, stride=2)
        self.images = nn.ModuleList(Unit(dim, 2 * channels, width) for width in fine)
        skips = [c if self.transformer_skips else 0 for c in stages] + [c if self.convolution_skips else 0 for c in fine]
        widths = [8 * size.embed, *stages, *fine]
        if settings.head == "distribution":
            widths[-1] = FINEST
        self.decoder = nn.ModuleList(Up(dim, a, skip, b) for (a, b), skip in zip(pairwise(widths), skips, strict=True))
        self.head = _head(settings, dim, widths[-1])

    def forward(self, fixed: Tensor, moving: Tensor) -> Estimate:
        images = torch.cat((moving, fixed), 1)
        *stages, features = self.encoder(images)
        skips = [stage if self.transformer_skips else stage[:, :0] for stage in reversed(stages)]
        half = self.pool(F.pad(images, [1, 1] * (images.ndim - 2)))  # the padding of AvgPool3d refuses an axis of one voxel
        lattices = [half, images][: len(self.images)]
        skips += [unit(x) if self.convolution_skips else x[:, :0] for unit, x in zip(self.images, lattices, strict=True)]
        for up, skip in zip(self.decoder, skips, strict=True):
            features = up(features, skip)
        return self.head(features, tuple(fixed.shape[2:]))


class Unit(nn.Module):
    """Convolution of three voxels, instance normalisation and a leaky rectifier: (B, inputs, *T) to (B, outputs, *T)."""

    def __init__(self, dim: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = CONVOLUTION[dim](inputs, outputs, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        out = self.layer(features)
        if out[0, 0].numel() > 1:  # one voxel has no spread: normalised, it would say nothing
            out = F.instance_norm(out)
        return F.leaky_relu(out, inplace=True)


class Up(Block):
    """Twice the size, joined with a skip, and two units: (B, inputs, *ceil(T / 2)) and (B, skip, *T) to (B, outputs, *T)."""

    def __init__(self, dim: int, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.units = nn.Sequential(Unit(dim, inputs + skip, outputs), Unit(dim, outputs, outputs))

    def compute(self, *inputs: Tensor) -> Tensor:
        features, skip = inputs
        return self.units(torch.cat((double(features, skip.shape[2:], "linear"), skip), 1))


class FieldHead(nn.Module):
    """A field at full resolution, which begins as next to nothing."""

    def __init__(self, dim: int, width: int, kind: FieldKind) -> None:
        super().__init__()
        self.kind: FieldKind = kind
        self.values = small_normal_(CONVOLUTION[dim](width, components(kind, dim), 3, padding=1))

    def forward(self, features: Tensor, shape: tuple[int, ...]) -> Estimate:
        return field(self.values(features), self.kind, shape, (1,) * len(shape))


class DistributionHead(nn.Module):
    """Mean of a velocity and logarithm of its variance, which begins at exp(-10), at half the resolution."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.mean = small_normal_(CONVOLUTION[dim](width, dim, 3, padding=1))
        self.log_variance = CONVOLUTION[dim](width, dim, 3, padding=1)
        small_normal_(self.log_variance, 1e-10)
        nn.init.constant_(self.log_variance.bias, -10.0)

    def forward(self, features: Tensor, shape: tuple[int, ...]) -> Estimate:
        mean, log_variance = self.mean(features), self.log_variance(features)
        return VelocityDistribution(mean=mean, log_variance=log_variance, shape=shape, factors=(2,) * len(shape))


class SplineHead(nn.Module):
    """Control points of a velocity, from features at half the resolution that are resized to their lattice."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((CONVOLUTION[dim](width, 32, 3, padding=1), CONVOLUTION[dim](32, 32, 3, padding=1)))
        self.values = small_normal_(CONVOLUTION[dim](32, dim, 3, padding=1))

    def forward(self, features: Tensor, shape: tuple[int, ...]) -> Estimate:
        lattice = [(n - 1) // KNOTS + 4 for n in shape]  # transforms.bspline.control_shape, which networks cannot import
        features = resize(features, lattice)
        for layer in self.layers:
            features = F.leaky_relu(layer(features), 0.2, inplace=True)
        one = (1,) * len(shape)
        knots = (float(KNOTS),) * len(shape)
        return ControlPoints(values=self.values(features), knots=knots, of="velocity", shape=shape, factors=one)


def _head(settings: TransMorph, dim: int, width: int) -> nn.Module:
    if settings.head == "field":
        return FieldHead(dim, width, settings.field)
    return DistributionHead(dim, width) if settings.head == "distribution" else SplineHead(dim, width)
