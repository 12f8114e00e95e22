"""The images themselves as a term of a search by features: what no network has seen still shows in them.

The weight is in proportion to the features: at weight 1 images that have nothing to do with each other cost as much as such
features do. Ours; the paper's search sees nothing but features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.regularity import Regularity
from warpwright.energies.similarity import LNCC, AnySimilarity
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.methods.levels import Level
from warpwright.methods.objective import FieldObjective
from warpwright.transforms import Affine, laid

__all__ = ["Intensities"]


@dataclass(frozen=True, kw_only=True)
class Intensities:
    """How images count beside their features.

    Args:
        similarity: what makes two images alike.
        weight: how much they count, see the head of this file; above 0.

    Raises:
        BadInput: the weight is not positive and finite.
    """

    similarity: AnySimilarity = LNCC()
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise BadInput(f"the weight of intensities must be above 0 and finite, got {self.weight}")

    @torch.no_grad()
    def at(self, level: Level, images: tuple[Tensor, Tensor], grids: tuple[Grid, Grid]) -> Regularity:
        """The term of a level, without an affine.

        Args:
            level: of the features.
            images: (B, C, *S) and (B, C, *M), intensities in [0, 1].
            grids: where these lie.
        """
        pair = level.pair
        fixed, moving = (
            at_level(image, own, to).to(pair.fixed)
            for image, own, to in zip(images, grids, (pair.fixed_grid, pair.moving_grid), strict=True)
        )
        own = replace(level, pair=replace(pair, fixed=fixed, moving=moving))
        objective = FieldObjective(own, np.eye(level.grid.dim + 1), self.similarity)
        return Compared(weight=self.weight, objective=objective, unlike=objective.unlike())


def at_level(image: Tensor, own: Grid, grid: Grid) -> Tensor:
    """Images (B, C, *S) on a grid at the voxels of a level's: (B, C, *T), 0 beyond them."""
    flat = laid(Image(image.flatten(0, 1), own), Affine.identity(own.dim), grid)
    return flat.unflatten(0, image.shape[:2])


@dataclass(frozen=True, eq=False, kw_only=True)
class Compared(Regularity):
    """How unlike images are under a displacement, where 1 is as unlike as images that have nothing to do with each other.

    Args:
        objective: of the images.
        unlike: (B,), of such images.
    """

    objective: FieldObjective
    unlike: Tensor

    def regularity(self, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
        value = self.objective.data_term(displacement, *self.objective.images)
        return torch.where(self.unlike > 0, value / self.unlike, torch.zeros_like(value))
