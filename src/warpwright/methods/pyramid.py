"""Features of both images, compared from level to level, coarse to fine, in three ways that smooth differently.

Every level looks at the moving image's features as the field of the coarser one has moved them, and improves on it: by matching
over a small basis, whose distributions a layer makes a field of (`Compared`), or by the unrolled iterations of an optimiser
with a learned regulariser, as VR-Net (`Proximal`) and GraDIRN (`Descent`) do. Encoder and levels are the same for all; what
differs is how they smooth and, between comparison and the other two, which step along the features' slopes, what is smoothed.

Reference: Zhang et al., SmoothProper, IPMI 2025, arXiv 2506.10813; its pyramid is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.geometry import full_precision, spatial
from warpwright.layers import AnyDistribution, SmoothProper, enlarged
from warpwright.methods.blocks import BlockSettings, LevelBlock
from warpwright.methods.step import Step, Trail, laid_out
from warpwright.methods.unrolled import Descent, Proximal
from warpwright.networks import Displacement, Encoder, Matcher
from warpwright.sampling import resize_displacement, warp
from warpwright.transforms import compose

__all__ = ["AnyBlock", "Compared", "Pyramid", "Pyramidal"]

LEVELS = Encoder(widths=(16, 24, 32, 32), finest=1)


@dataclass(frozen=True, kw_only=True)
class Compared(BlockSettings):
    """Comparison over a small basis; what is found is composed with the field.

    Args:
        reach: of the basis, voxels of every level.
        coarsest: the same for the coarsest level.
        layer: what makes a field of distributions.

    Raises:
        BadInput: a reach is below 1.
    """

    reach: int = 2
    coarsest: int = 3
    layer: AnyDistribution = SmoothProper()

    def __post_init__(self) -> None:
        if min(self.reach, self.coarsest) < 1:
            raise BadInput(f"a comparison needs a reach of at least 1, got {self.reach} and {self.coarsest}")

    def build(self, dim: int, *, coarsest: bool) -> LevelBlock:
        return Comparison(self, dim, self.coarsest if coarsest else self.reach)


class Comparison(LevelBlock):
    """As `Compared` says."""

    def __init__(self, settings: Compared, dim: int, reach: int) -> None:
        super().__init__()
        self.matcher = Matcher(reach, dim)
        self.layer = settings.layer.build(dim)

    def forward(self, fixed: Tensor, moving: Tensor, field: Tensor) -> Tensor:
        shape = spatial(field)
        logits = self.matcher(fixed, warp(moving, field), shape, (1,) * len(shape))
        found = self.layer(logits)
        assert isinstance(found, Displacement)
        return compose(field, found.values)


AnyBlock = Compared | Descent | Proximal


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """A step that goes from level to level.

    Args:
        encoder: of either image.
        block: what every level does.
    """

    encoder: Encoder = LEVELS
    block: AnyBlock = Compared()


class Pyramidal(Step):
    """As `Pyramid` says; the trail holds the field of every level, coarse to fine, and the last one at full size."""

    def __init__(self, settings: Pyramid, dim: int, channels: int) -> None:
        super().__init__()
        self.encoder = settings.encoder.build(dim, channels)
        laid_out(self.encoder, dim)
        self.factors = settings.encoder.factors
        self.blocks = nn.ModuleList(settings.block.build(dim, coarsest=k == 0) for k in range(len(self.factors)))

    def forward(self, fixed: Tensor, moving: Tensor) -> Trail:
        shape, dim = spatial(fixed), fixed.ndim - 2
        sides = [[level.to(fixed.dtype) for level in self.encoder(image)] for image in (fixed, moving)]
        trail: list[Displacement] = []
        with full_precision(fixed):
            field, before = torch.zeros_like(fixed[:, :1]).expand(-1, dim, *shape), 1
            for one, two, factor, block in zip(*sides, self.factors, self.blocks, strict=True):
                field = resize_displacement(field, (before,) * dim, spatial(one), (factor,) * dim)
                field, before = block(one, two, field), factor
                trail.append(Displacement(values=field, shape=shape, factors=(factor,) * dim))
            return (*trail, enlarged(trail[-1], trail[-1].factors))
