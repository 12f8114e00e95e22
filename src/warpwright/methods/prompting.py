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

from warpwright.energies.pairs import PairBatch
from warpwright.energies.prompts import SoftDice, label_channels, label_values, landmark_energy
from warpwright.energies.regularity import Regularity
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.methods.levels import Level
from warpwright.sampling import gaussian
from warpwright.transforms import Affine, laid

__all__ = ["Prompting", "Told"]

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
        BadInput: there is neither a label nor a point, the points are not finite or not as many of as many axes, no label
            occurs in both maps, or the weight is not positive and finite.
    """

    labels: tuple[Image, Image] | None = None
    points: tuple[Tensor, Tensor] | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise BadInput(f"the weight of a prompt must be above 0 and finite, got {self.weight}")
        if self.labels is None and self.points is None:
            raise BadInput("a prompt needs labels or landmarks of both images, got neither")
        if self.labels is not None and not self.values:
            first, second = (image.name for image in self.labels)
            raise BadInput(f"{second}: has no label in common with {first}, expected at least one to prompt with")
        if self.points is not None:
            _check_points(*self.points)

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
                softened(label_channels(image.data[None], self.values), image.grid, to, grid).to(pair.fixed)
                for image, to, grid in zip(self.labels, (still, frame), (pair.fixed_grid, pair.moving_grid), strict=True)
            )
            found.append(LabelPrompt(weight=self.weight, fixed=fixed, moving=moving, matrix=matrix))
        if self.points is not None:
            there = frame.inverse()(self.points[1].double())
            ends = (pair.fixed_grid.to_voxel(self.points[0].double()), pair.moving_grid.to_voxel(there))
            fixed, moving = (p[None].to(pair.fixed) for p in ends)
            found.append(PointPrompt(weight=self.weight, fixed=fixed, moving=moving, matrix=matrix))
        return found


@dataclass(frozen=True, kw_only=True)
class Told:
    """What some solves are told of a training pair, so that features learn to be told.

    Args:
        labels: that prompt, each once and none of them 0; of a pair those that both its images hold.
        points: whether landmarks prompt too.
        weight: how much they count, see the head of this file.
        chance: share of the solves that are told; each direction of a pair is a solve.

    Raises:
        BadInput: there is nothing to tell, a label is not positive or there twice, the weight is not positive and finite, or
            the chance is not in (0, 1].
    """

    labels: tuple[int, ...] = ()
    points: bool = False
    weight: float = 1.0
    chance: float = 0.5

    def __post_init__(self) -> None:
        if not self.labels and not self.points:
            raise BadInput("what is told while training must be labels or points, got neither")
        if min(self.labels, default=1) < 1 or len(set(self.labels)) < len(self.labels):
            raise BadInput(f"labels that are told while training must be above 0, each once, got {list(self.labels)}")
        if not 0 < self.weight < math.inf or not 0 < self.chance <= 1:
            found = f"got {self.weight} and {self.chance}"
            raise BadInput(f"what is told while training needs a finite weight above 0 and a chance in (0, 1], {found}")

    def at(self, level: Level, batch: PairBatch, grid: Grid) -> list[Regularity]:
        """The terms of a level, without an affine.

        Args:
            level: of the solve.
            batch: the pairs.
            grid: that all images of the batch lie on.

        Raises:
            BadInput: the pairs have no labels or landmarks to tell, or not equally many landmarks.
        """
        dim, pair = level.grid.dim, level.pair
        matrix = level.matrix(np.eye(dim + 1))
        found: list[Regularity] = []
        if self.labels:
            if batch.fixed_labels is None or batch.moving_labels is None:
                raise BadInput(f"{', '.join(batch.names)}: has no labels, expected labels that the solve can be told")
            sides = [label_channels(labels, self.labels) for labels in (batch.fixed_labels, batch.moving_labels)]
            one, two = (side.flatten(2).amax(2) for side in sides)
            both = (one * two).reshape(*one.shape, *(1,) * dim)  # (B, L, ...), 0 where one image alone holds a label
            fixed, moving = (
                softened(side * both, grid, Affine.identity(dim), to).to(pair.fixed)
                for side, to in zip(sides, (pair.fixed_grid, pair.moving_grid), strict=True)
            )
            found.append(LabelPrompt(weight=self.weight, fixed=fixed, moving=moving, matrix=matrix))
        if self.points:
            one, two = batch.fixed_points, batch.moving_points
            if one is None or two is None or len({len(p) for p in (*one, *two)}) != 1:
                names = ", ".join(batch.names)
                raise BadInput(f"{names}: expected landmarks that the solve can be told, equally many in each pair")
            fixed, moving = (
                to.to_voxel(grid.to_world(torch.stack(points).double())).to(pair.fixed)
                for points, to in ((one, pair.fixed_grid), (two, pair.moving_grid))
            )
            found.append(PointPrompt(weight=self.weight, fixed=fixed, moving=moving, matrix=matrix))
        return found


def _check_points(fixed: Tensor, moving: Tensor) -> None:
    """Refuse landmarks that are not finite points, row by row of two images."""
    for side, points in (("fixed", fixed), ("moving", moving)):
        if points.ndim != 2 or points.shape[1] not in (2, 3):
            raise BadInput(f"the {side} landmarks of a prompt have the shape {tuple(points.shape)}, expected (N, 2) or (N, 3)")
        if not bool(points.isfinite().all()):
            raise BadInput(f"the {side} landmarks of a prompt hold NaN or inf, expected finite coordinates")
    (n, axes), (m, others) = fixed.shape, moving.shape
    if axes != others:
        raise BadInput(f"prompts have fixed landmarks of {axes} axes and moving ones of {others}, expected the same")
    if n != m or not n:
        raise BadInput(f"prompts have {n} fixed and {m} moving landmarks, expected as many, at least 1")


def softened(channels: Tensor, own: Grid, transform: Affine, grid: Grid) -> Tensor:
    """Channels (B, L, *S) on a grid as soft ones of another, (B, L, *T), which they are pulled onto through a transform."""
    flat = laid(Image(channels.flatten(0, 1), own), transform, grid)
    return gaussian(flat.unflatten(0, channels.shape[:2]), (SOFT,) * own.dim)


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelPrompt(Regularity):
    """How little labels overlap under a displacement.

    Args:
        fixed: (B, L, *S) soft channels.
        moving: (B, L, *M).
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
        fixed: (B, N, D) voxels of the level.
        moving: (B, N, D) voxels of its moving grid.
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
