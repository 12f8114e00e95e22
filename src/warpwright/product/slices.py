"""Flat cuts through an image for a picture: voxel axes as they are, turned so that R, A and S lie left and up.

Nothing is interpolated: a cut is transposed and flipped only, so an oblique image is shown along its own axes and the
letters name the nearest anatomical direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from warpwright.geometry import NEGATIVE, POSITIVE, Grid, anatomical_axes

__all__ = ["Slice", "middle", "slices"]

PLANES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One cut.

    Args:
        axis: the voxel axis that is cut through, None for a 2-D image.
        index: where, in voxels.
        rows: the voxel axis shown from top to bottom.
        columns: the voxel axis shown from left to right.
        flipped: whether rows and columns run against their voxel axis.
        shape: voxels along rows and columns.
        spacing: mm between voxels along rows and columns.
        letters: anatomical directions at the left, right, top and bottom; empty for a 2-D image, whose frame says nothing.
        name: the plane.
    """

    axis: int | None
    index: int
    rows: int
    columns: int
    flipped: tuple[bool, bool]
    shape: tuple[int, int]
    spacing: tuple[float, float]
    letters: tuple[str, ...]
    name: str

    @property
    def size(self) -> tuple[float, float]:
        """Height and width, mm."""
        return self.shape[0] * self.spacing[0], self.shape[1] * self.spacing[1]

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """The (rows, columns) picture of a (*S) volume."""
        flat = volume if self.axis is None else np.take(volume, self.index, axis=self.axis)
        flat = flat if self.rows < self.columns else flat.T
        return flat[:: -1 if self.flipped[0] else 1, :: -1 if self.flipped[1] else 1]

    def place(self, points: np.ndarray) -> np.ndarray:
        """Where voxel points (N, D) are in the picture: (N, 2) mm from the left and from the top."""
        out = []
        for k, axis in ((1, self.columns), (0, self.rows)):
            at = self.shape[k] - 1 - points[:, axis] if self.flipped[k] else points[:, axis]
            out.append((at + 0.5) * self.spacing[k])
        return np.stack(out, 1)


def slices(grid: Grid, at: tuple[int, ...]) -> tuple[Slice, ...]:
    """Cuts through the voxel `at`: axial, coronal and sagittal of a volume, the one of a 2-D image."""
    world, sign = anatomical_axes(grid.direction)
    if grid.dim == 2:
        return (_slice(grid, None, at, world, sign),)
    return tuple(_slice(grid, world.index(w), at, world, sign) for w in reversed(range(grid.dim)))


def middle(grid: Grid, mask: np.ndarray | None = None) -> tuple[int, ...]:
    """The voxel to cut through: the middle, or along each axis where a (*S) mask has the largest area."""
    if mask is None or not mask.any():
        return tuple(n // 2 for n in grid.shape)
    axes = range(grid.dim)
    return tuple(int(mask.sum(tuple(a for a in axes if a != axis)).argmax()) for axis in axes)


def _slice(grid: Grid, axis: int | None, at: tuple[int, ...], world: tuple[int, ...], sign: tuple[bool, ...]) -> Slice:
    columns, rows = sorted((a for a in range(grid.dim) if a != axis), key=lambda a: world[a])
    letters = tuple(side[world[a]] for a in (columns, rows) for side in (POSITIVE, NEGATIVE))
    return Slice(
        axis=axis,
        index=0 if axis is None else at[axis],
        rows=rows,
        columns=columns,
        flipped=(sign[rows], sign[columns]),
        shape=(grid.shape[rows], grid.shape[columns]),
        spacing=(grid.spacing[rows], grid.spacing[columns]),
        letters=() if axis is None else letters,
        name="" if axis is None else PLANES[world[axis]],
    )
