"""The images themselves as a term of a search by features: what no network has seen still shows in them.

The weight is in proportion to the features: at weight 1 images that have nothing to do with each other cost as much more than
equal ones as such features do; beside features that are the same everywhere nothing counts. Ours; the paper's search sees
nothing but features.
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
from warpwright.geometry import Grid
from warpwright.methods.levels import Level
from warpwright.methods.objective import FieldObjective
from warpwright.sampling import on_lattice

__all__ = ["Intensities", "at_level"]


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
            at_level(image, grid, to).to(pair.fixed)
            for image, grid, to in zip(images, grids, (pair.fixed_grid, pair.moving_grid), strict=True)
        )
        seen = replace(level, pair=replace(pair, fixed=fixed, moving=moving))
        objective = FieldObjective(seen, np.eye(level.grid.dim + 1), self.similarity)
        return Compared(weight=self.weight, objective=objective, unlike=objective.unlike())


def at_level(image: Tensor, own: Grid, grid: Grid) -> Tensor:
    """Images at the voxels of a level, their border repeated where it goes beyond them, as the network sees them.

    Args:
        image: (B, C, *S).
        own: where they lie.
        grid: of the level: along the same axes, voxels some whole number of times as large.

    Returns:
        (B, C, *T).
    """
    factors = [round(t / s) for s, t in zip(own.spacing, grid.spacing, strict=True)]
    first = own.to_voxel(grid.to_world(torch.zeros(1, grid.dim, dtype=torch.float64)))[0].tolist()
    return on_lattice(image, factors, [round(place, 6) for place in first], grid.shape)  # of rounding, so that 1/1 is the image


@dataclass(frozen=True, eq=False, kw_only=True)
class Compared(Regularity):
    """How unlike images are under a displacement, in units of what sets unlike images apart from equal ones.

    0, with no gradient, where that is nothing: of flat images, or of such that do not meet.

    Args:
        objective: of the images.
        unlike: (B,), that unit.
    """

    objective: FieldObjective
    unlike: Tensor

    def regularity(self, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
        value = self.objective.data_term(displacement, *self.objective.images)
        known = self.unlike > 0
        return value * known / torch.where(known, self.unlike, torch.ones_like(self.unlike))
