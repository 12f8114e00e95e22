"""A pair of images at one resolution: normalised tensors, weights, grids, the voxel matrix between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warpwright.geometry import Grid, Image
from warpwright.sampling import Percentiles, downsample, resize_displacement

__all__ = ["Carried", "Lattice", "Level", "Pair", "level_factors", "level_size", "make_level", "make_pair"]

SMALLEST = 8  # an axis is not downsampled below this many voxels
FEWEST = 16  # a level has at least this many voxels an axis, on average


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images, or batches of them, ready for energies: intensities near [0, 1] or features, weights on both or None.

    Args:
        fixed: (B, C, *S).
        moving: (B, C, *M).
        fixed_weight: (B, 1, *S) or None.
        moving_weight: (B, 1, *M) or None.
        fixed_grid: where S is.
        moving_grid: where M is.
    """

    fixed: Tensor
    moving: Tensor
    fixed_weight: Tensor | None
    moving_weight: Tensor | None
    fixed_grid: Grid
    moving_grid: Grid


@dataclass(frozen=True, eq=False)
class Lattice:
    """Where the voxels of a level lie in a finest grid.

    Args:
        factors: finest voxels to one of the level along each axis.
        shift: finest voxels from the middle of the finest grid to that of the level; () for none.
    """

    factors: tuple[int, ...]
    shift: tuple[float, ...] = ()

    def onto(self, field: Tensor, shape: Sequence[int], other: Lattice) -> Tensor:
        """Vectors (B, D, *S) of this level, in its voxels, as those of another level of `shape`."""
        still = (0.0,) * len(self.factors)
        apart = [b - a for a, b in zip(self.shift or still, other.shift or still, strict=True)]
        return resize_displacement(field, self.factors, shape, other.factors, apart)


@dataclass(frozen=True, eq=False)
class Carried:
    """The field that levels hand on: (B, D, *S), voxels of its lattice."""

    field: Tensor
    lattice: Lattice


@dataclass(frozen=True, eq=False)
class Level:
    """A pair at one level of the pyramid; the lattice is that of the fixed image."""

    pair: Pair
    lattice: Lattice

    @property
    def grid(self) -> Grid:
        """The fixed grid of the level."""
        return self.pair.fixed_grid

    def matrix(self, affine: np.ndarray) -> np.ndarray:
        """Voxel matrix of the level for a world affine, fixed to moving."""
        return self.pair.fixed_grid.voxel_matrix(self.pair.moving_grid, affine)


def make_pair(fixed: Image, moving: Image, fixed_mask: Image | None, moving_mask: Image | None, device: torch.device) -> Pair:
    """Normalise both images by their percentiles inside their masks, and move everything to the device."""
    normalise = Percentiles()
    return Pair(
        normalise(fixed.data, None if fixed_mask is None else fixed_mask.data)[None].to(device),
        normalise(moving.data, None if moving_mask is None else moving_mask.data)[None].to(device),
        None if fixed_mask is None else fixed_mask.data[None].to(device, torch.float32),
        None if moving_mask is None else moving_mask.data[None].to(device, torch.float32),
        fixed.grid,
        moving.grid,
    )


def factors_for(grid: Grid, length: float) -> tuple[int, ...]:
    """Downsampling that brings each axis near `length` mm a voxel, without leaving fewer than `SMALLEST` voxels."""
    return tuple(max(1, min(round(length / s), n // SMALLEST)) for s, n in zip(grid.spacing, grid.shape, strict=True))


def make_level(pair: Pair, factor: int) -> Level:
    """The pair at `factor` times the fixed image's finest spacing, both images at about that resolution."""
    length = factor * min(pair.fixed_grid.spacing)
    fixed, moving = factors_for(pair.fixed_grid, length), factors_for(pair.moving_grid, length)
    return Level(
        Pair(
            downsample(pair.fixed, fixed),
            downsample(pair.moving, moving),
            None if pair.fixed_weight is None else downsample(pair.fixed_weight, fixed),
            None if pair.moving_weight is None else downsample(pair.moving_weight, moving),
            pair.fixed_grid.downsample(fixed),
            pair.moving_grid.downsample(moving),
        ),
        Lattice(fixed),
    )


def level_size(grid: Grid, factor: int) -> int:
    """Number of voxels of a level."""
    return grid.downsample(factors_for(grid, factor * min(grid.spacing))).size


def level_factors(levels: Sequence[int], grid: Grid) -> list[int]:
    """The levels worth doing for images on `grid`, coarse to fine.

    Left out: a level that differs in nothing from its finer neighbour, and one with fewer than `FEWEST` voxels an axis
    (on the geometric mean over the axes), where no structure is left. The finest level always stays.
    """
    kept: list[int] = []
    previous: tuple[int, ...] = ()
    for factor in sorted(levels):
        factors = factors_for(grid, factor * min(grid.spacing))
        coarse = grid.downsample(factors)
        if kept and (factors == previous or coarse.size < FEWEST**grid.dim):
            continue
        kept.append(factor)
        previous = factors
    return kept[::-1]
