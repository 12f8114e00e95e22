"""The objectives that a solver is handed: energies of a pair as functions of a transform's parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from warpwright.energies.regularity import Regularity
from warpwright.energies.similarity import Similarity
from warpwright.geometry import gradient
from warpwright.methods.levels import Level
from warpwright.sampling import warp_covered
from warpwright.solver import CurvedObjective

__all__ = ["FieldObjective"]


class FieldObjective(CurvedObjective):
    """Similarity after warping by the displacement that `field` makes of the parameters, plus regularities of it.

    Args:
        level: the pair.
        affine: world affine that acts after the displacement.
        similarity: the data term.
        regularities: terms on the displacement.
        field: parameters to displacement (1, D, *S), voxels of the level.
    """

    def __init__(
        self,
        level: Level,
        affine: np.ndarray,
        similarity: Similarity,
        regularities: Sequence[Regularity] = (),
        field: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        self.level = level
        self.matrix = level.matrix(affine)
        self.similarity = similarity.for_spacing(level.grid.spacing)
        self.regularities = tuple(regularities)
        self.field = field

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        """Energies (1,); `params` are the fixed and the moving image."""
        displacement = self.field(x)
        energy = self.data_term(displacement, *params)
        for term in self.regularities:
            energy = energy + term.weight * term.regularity(displacement, self.level.grid.spacing)
        return energy

    @property
    def images(self) -> tuple[Tensor, Tensor]:
        """The parameters: the level's fixed and moving image."""
        return self.level.pair.fixed, self.level.pair.moving

    def data_term(self, displacement: Tensor, fixed: Tensor, moving: Tensor) -> Tensor:
        """The similarity alone: (1,)."""
        pair = self.level.pair
        return self.similarity.match(fixed, moving, displacement, self.matrix, pair.fixed_weight, pair.moving_weight)

    def curvature(self, x: Tensor, *params: Tensor) -> Tensor:
        pair, (fixed, moving) = self.level.pair, params
        displacement = self.field(x)
        moved, weight = warp_covered(moving, displacement, self.matrix, pair.moving_weight)
        weight = weight if pair.fixed_weight is None else weight * pair.fixed_weight
        finest = min(self.level.grid.spacing)  # the unit of a dense family's steps
        slope = gradient(moved, tuple(s / finest for s in self.level.grid.spacing)).square().sum(2).mean(1, keepdim=True)
        return self.similarity.curvature(moved, fixed, weight) * slope
