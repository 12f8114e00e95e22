"""VoxelMorph: U-Nets of small convolutions, in the forms that share the name.

Layer tables and counts: Balakrishnan et al., CVPR 2018 (arXiv 1802.02604), VM-1 and VM-2, convolutions of stride 2, the images
themselves as the finest skip; the network of the current package (`dense`), max pooling; Dalca et al., MICCAI 2018
(arXiv 1805.04605), `VoxelMorphDiff`, in the layer table that TransMorph's authors compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from warpwright.networks.base import Architecture, Estimator
from warpwright.networks.estimate import Estimate, FieldKind, VelocityDistribution, components, field
from warpwright.networks.layers import CONVOLUTION, MAX_POOL, TRANSPOSED, Block, crop, double, small_normal_
from warpwright.networks.widths import check_scale, scaled

__all__ = ["VoxelMorph", "VoxelMorphDiff"]

Form = Literal["vm1", "vm2", "dense"]
Upsampling = Literal["nearest", "transposed"]
SLOPE = 0.2


@dataclass(frozen=True)
class Plan:
    """A U-Net.

    Args:
        encoder: widths, fine to coarse.
        down: how the resolution halves. "strided": every convolution has stride 2, and the images are the finest skip; "full":
            every one but the first has, and its features are the finest skip; "pooled": max pooling follows every convolution.
        decoder: widths of the convolutions of every level, coarse to fine; between levels features are doubled in size and
            joined with the skip.
    """

    encoder: tuple[int, ...]
    down: Literal["strided", "full", "pooled"]
    decoder: tuple[tuple[int, ...], ...]

    def scaled(self, factor: float) -> Plan:
        """The same with all widths multiplied."""
        decoder = tuple(scaled(level, factor) for level in self.decoder)
        return Plan(scaled(self.encoder, factor), self.down, decoder)


PLANS: dict[tuple[Form, bool], Plan] = {
    ("vm1", False): Plan((16, 32, 32, 32), "strided", ((32,), (32,), (32,), (32, 8), (8,))),
    ("vm1", True): Plan((16, 32, 32, 32), "strided", ((32,), (32,), (32,), (32, 8))),
    ("vm2", False): Plan((16, 32, 32, 32), "strided", ((32,), (32,), (32,), (32, 32), (16, 16))),
    ("vm2", True): Plan((16, 32, 32, 32), "strided", ((32,), (32,), (32,), (32, 32))),
    ("dense", False): Plan((16, 32, 32, 32), "pooled", ((32,), (32,), (32,), (32,), (32, 16, 16))),
    ("dense", True): Plan((16, 32, 32, 32), "pooled", ((32,), (32,), (32,), (32, 32, 16, 16))),
}
DIFF = Plan((16, 32, 32, 32, 32), "full", ((32,), (32,), (32,), (32, 16)))


@dataclass(frozen=True, kw_only=True)
class VoxelMorph(Architecture):
    """One field from a U-Net.

    Args:
        form: "vm1" and "vm2" are the networks of 2018, "dense" is that of the current package.
        half_resolution: leave out the finest level; the field is given at half the resolution.
        upsampling: how features double in size: each voxel repeated, or by transposed convolutions of two voxels, to the width
            of the level they lead to (Meta-Regularization, CVPR 2021, whose widths are not known).
        field: what the field is.
        scale: factor of all widths.

    Raises:
        BadInput: the scale is not positive and finite.
    """

    form: Form = "dense"
    half_resolution: bool = False
    upsampling: Upsampling = "nearest"
    field: FieldKind = "velocity"
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self, self.scale)

    def build(self, dim: int, channels: int = 1) -> VoxelMorphNetwork:
        plan = PLANS[self.form, self.half_resolution].scaled(self.scale)
        core = UNet(plan, dim, 2 * channels, he=self.form != "dense", upsampling=self.upsampling)
        return VoxelMorphNetwork(core, dim, self.field)


@dataclass(frozen=True, kw_only=True)
class VoxelMorphDiff(Architecture):
    """Normal distributions of a velocity at half the resolution; see `layers.DrawVelocity` and `energies.VelocityPrior`.

    Args:
        scale: factor of all widths.

    Raises:
        BadInput: the scale is not positive and finite.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self, self.scale)

    def build(self, dim: int, channels: int = 1) -> VoxelMorphDiffNetwork:
        return VoxelMorphDiffNetwork(UNet(DIFF.scaled(self.scale), dim, 2 * channels, he=False), dim)


class Convolution(Block):
    """Convolution of three voxels and a leaky rectifier."""

    def __init__(self, dim: int, inputs: int, outputs: int, *, stride: int = 1, he: bool = False) -> None:
        super().__init__()
        self.layer = CONVOLUTION[dim](inputs, outputs, 3, stride, 1)
        if he:
            nn.init.kaiming_normal_(self.layer.weight, a=SLOPE)
            nn.init.zeros_(self.layer.bias)

    def compute(self, *inputs: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.layer(inputs[0]), SLOPE, inplace=True)


class UNet(nn.Module):
    """The core: (B, C, *S) to features (B, width, *ceil(S / 2^level)), `level` being 1 if the plan stops there, else 0."""

    def __init__(self, plan: Plan, dim: int, inputs: int, *, he: bool, upsampling: Upsampling = "nearest") -> None:
        super().__init__()
        self.pool = MAX_POOL[dim](2, ceil_mode=True) if plan.down == "pooled" else None
        self.strided = plan.down == "strided"
        widths = (inputs, *plan.encoder)
        strides = [2 if self.pool is None and (k > 0 or self.strided) else 1 for k in range(len(plan.encoder))]
        self.encoder = nn.ModuleList(
            Convolution(dim, a, b, stride=s, he=he) for a, b, s in zip(widths, plan.encoder, strides, strict=False)
        )
        skips = {"strided": widths[:-1], "full": plan.encoder[:-1], "pooled": plan.encoder}[plan.down]
        self.decoder, self.enlarge = nn.ModuleList(), nn.ModuleList()
        width = plan.encoder[-1]
        for k, level in enumerate(plan.decoder):
            convolutions = nn.ModuleList()
            if k and upsampling == "transposed":
                self.enlarge.append(TRANSPOSED[dim](width, level[0], 2, 2))
                width = level[0]
            width += skips[-k] if k else 0
            for outputs in level:
                convolutions.append(Convolution(dim, width, outputs, he=he))
                width = outputs
            self.decoder.append(convolutions)
        self.width = width
        self.level = len(skips) + 1 - len(plan.decoder)

    def forward(self, images: Tensor) -> Tensor:
        skips, features = [images] if self.strided else [], images
        for convolution in self.encoder:
            features = convolution(features)
            skips.append(features)
            if self.pool is not None:
                features = self.pool(features)
        if self.pool is None:
            skips.pop()
        for k, level in enumerate(self.decoder):
            if k:
                skip = skips.pop()
                features = torch.cat((self._doubled(features, k, skip.shape[2:]), skip), 1)
            for convolution in cast(nn.ModuleList, level):
                features = convolution(features)
        return features

    def _doubled(self, features: Tensor, level: int, shape: Sequence[int]) -> Tensor:
        if not len(self.enlarge):
            return double(features, shape)
        return crop(self.enlarge[level - 1](features), shape)


class VoxelMorphNetwork(Estimator):
    """`UNet` and a convolution that gives the field, which begins as next to nothing."""

    def __init__(self, core: UNet, dim: int, kind: FieldKind) -> None:
        super().__init__()
        self.core = core
        self.kind: FieldKind = kind
        self.head = small_normal_(CONVOLUTION[dim](core.width, components(kind, dim), 3, padding=1))

    def forward(self, fixed: Tensor, moving: Tensor) -> Estimate:
        values = self.head(self.core(torch.cat((moving, fixed), 1)))
        shape = tuple(fixed.shape[2:])
        return field(values, self.kind, shape, (2**self.core.level,) * len(shape))


class VoxelMorphDiffNetwork(Estimator):
    """`UNet` and two convolutions: mean and logarithm of the variance, which begins at exp(-10)."""

    def __init__(self, core: UNet, dim: int) -> None:
        super().__init__()
        self.core = core
        self.mean = small_normal_(CONVOLUTION[dim](core.width, dim, 3, padding=1))
        self.log_variance = small_normal_(CONVOLUTION[dim](core.width, dim, 3, padding=1), 1e-10)
        nn.init.constant_(cast(Tensor, self.log_variance.bias), -10.0)

    def forward(self, fixed: Tensor, moving: Tensor) -> VelocityDistribution:
        features = self.core(torch.cat((moving, fixed), 1))
        shape = tuple(fixed.shape[2:])
        return VelocityDistribution(
            mean=self.mean(features),
            log_variance=self.log_variance(features),
            shape=shape,
            factors=(2**self.core.level,) * len(shape),
        )
