"""What a person marked in both images, as terms of the energy that a solve minimises at every level.

Weights are in proportion to the images: at weight 1 labels that do not overlap at all cost as much as images that have nothing
to do with each other, and a landmark that is one finest voxel off as much as those do in the neighbourhood that a solver
smooths over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.prompts import SoftDice, label_values, landmark_energy
from warpwright.energies.regularity import Regularity
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.methods.levels import Level
from warpwright.sampling import gaussian
from warpwright.transforms import Affine, laid

__all__ = ["Prompting"]

SOFT = 1.0  # voxels of a level, standard deviation that softens labels so that they pull before they meet
REACH = 1.7  # voxels, standard deviation of the neighbourhood that a landmark is weighed against
FAR = 2.0  # finest voxels beyond which a landmark pulls no stronger


@dataclass(frozen=True, eq=False, kw_only=True)
class Prompting:
    """Labels and landmarks that a registration is to bring together.

    Args:
        labels: (1, *S) label maps of the fixed and of the moving image, each on its image's grid; None for none.
        points: (N, D) world points of the fixed and of the moving image, row by row the same place; None for none.
        weight: how much they count, see the head of this file; above 0.

    Raises:
        BadInput: there is neither a label nor a point, the counts of the points differ, no label occurs in both maps, or the
            weight is not positive.
    """

    labels: tuple[Image, Image] | None = None
    points: tuple[Tensor, Tensor] | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise BadInput(f"the weight of a prompt must be above 0, got {self.weight}")
        if self.labels is None and self.points is None:
            raise BadInput("a prompt needs labels or landmarks of both images, got neither")
        if self.labels is not None and not self.values:
            first, second = (image.name for image in self.labels)
            raise BadInput(f"{second}: has no label in common with {first}, expected at least one to prompt with")
        if self.points is not None and (self.points[0].shape != self.points[1].shape or not len(self.points[0])):
            one, two = (len(p) for p in self.points)
            raise BadInput(f"prompts have {one} fixed and {two} moving landmarks, expected as many, at least 1")

    @property
    def values(self) -> tuple[int, ...]:
        """The labels that occur in both maps."""
        if self.labels is None:
            return ()
        first, second = (label_values(image.data) for image in self.labels)
        return tuple(value for value in first if value in second)

    def at(self, level: Level, frame: Affine, affine: np.ndarray) -> list[Regularity]:
        """The terms of a level.

        Args:
            level: the pair.
            frame: world points in which the level's moving grid is given to world points of the moving image.
            affine: world affine of the level that acts after the displacement.
        """
        pair, matrix = level.pair, level.matrix(affine)
        found: list[Regularity] = []
        if self.labels is not None:
            still = Affine.identity(level.grid.dim)
            fixed, moving = (
                torch.cat([_mask(image, value, to, grid) for value in self.values], 1).to(pair.fixed)
                for image, to, grid in zip(self.labels, (still, frame), (pair.fixed_grid, pair.moving_grid), strict=True)
            )
            found.append(LabelPrompt(weight=self.weight, fixed=fixed, moving=moving, matrix=matrix))
        if self.points is not None:
            there = frame.inverse()(self.points[1].double())
            ends = (pair.fixed_grid.to_voxel(self.points[0].double()), pair.moving_grid.to_voxel(there))
            fixed, moving = (p[None].to(pair.fixed) for p in ends)
            found.append(PointPrompt(weight=self.weight, fixed=fixed, moving=moving, matrix=matrix))
        return found


def _mask(image: Image, value: int, transform: Affine, grid: Grid) -> Tensor:
    mask = Image((image.data == value).float(), image.grid, image.name)
    soft = laid(mask, transform, grid)[None]
    return gaussian(soft, (SOFT,) * image.grid.dim)


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelPrompt(Regularity):
    """How little labels overlap under a displacement.

    Args:
        fixed: (1, L, *S) soft channels.
        moving: (1, L, *M).
        matrix: fixed to moving voxels of the level, after the displacement.
    """

    fixed: Tensor
    moving: Tensor
    matrix: np.ndarray

    def regularity(self, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
        return SoftDice().match(self.fixed, self.moving, displacement, self.matrix)


@dataclass(frozen=True, eq=False, kw_only=True)
class PointPrompt(Regularity):
    """How far landmarks are from each other under a displacement.

    Args:
        fixed: (1, N, D) voxels of the level.
        moving: (1, N, D) voxels of its moving grid.
        matrix: fixed to moving voxels of the level, after the displacement.
    """

    fixed: Tensor
    moving: Tensor
    matrix: np.ndarray

    def regularity(self, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
        unit, dim = min(spacing), len(spacing)
        sizes = np.linalg.norm(np.diag(spacing) @ np.linalg.inv(self.matrix[:dim, :dim]), axis=0)  # mm, of a moving voxel
        mean = landmark_energy(
            displacement,
            self.fixed,
            self.moving,
            self.matrix,
            spacing=[float(size) / unit for size in sizes],
            threshold=FAR,
        )
        share = math.prod(math.sqrt(2 * math.pi) * REACH * unit / s for s in spacing) / math.prod(displacement.shape[2:])
        return mean * len(self.fixed[0]) * share
