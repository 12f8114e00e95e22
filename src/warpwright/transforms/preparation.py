"""How images are laid before a network: intensities in [0, 1], both on one grid of known axes, spacing and size.

The working grid follows the fixed image: its axes in the order and direction nearest to right, anterior, superior, so that a
flipped or permuted header changes nothing; the model's spacing, or the image's own; the model's size, or whatever holds the
image. With the image's own spacing voxels stay where they are: only whole voxels are cropped or added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.sampling import AnyNormalisation, Percentiles, downsample
from warpwright.transforms.resample import Interpolation, resample
from warpwright.transforms.transform import Affine, Transform

__all__ = ["Preparation", "centring", "laid", "working_grid"]

SAME = 1e-3  # relative difference of spacings below which nothing is resampled


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is done to a pair before a network sees it.

    Args:
        intensity: how intensities become [0, 1].
        spacing: mm of a voxel along the axes nearest to right, anterior, superior; None for the fixed image's own.
        shape: voxels along these axes, around the middle of the fixed image, that are looked at while training; None for as
            many as hold the image, which is what a registration looks at unless the network needs the size of its training.
        start: "none" takes the world positions of the moving image as they are, "centre" puts its middle on that of the
            fixed image, "box" stretches it as well, axis by axis of the world, until both boxes are of one size: for images
            that were cropped around the same organ.

    Raises:
        BadInput: a spacing or a size is not positive.
    """

    intensity: AnyNormalisation = Percentiles()
    spacing: tuple[float, ...] | None = None
    shape: tuple[int, ...] | None = None
    start: Literal["none", "centre", "box"] = "centre"

    def __post_init__(self) -> None:
        if self.spacing is not None and not min(self.spacing, default=0) > 0:
            raise BadInput(f"the spacing of a preparation must be above 0 mm, got {self.spacing}")
        if self.shape is not None and min(self.shape, default=0) < 1:
            raise BadInput(f"the shape of a preparation must be at least 1 voxel, got {self.shape}")

    def grid(self, fixed: Grid) -> Grid:
        """The working grid of a fixed image while training."""
        return working_grid(fixed, self.spacing, self.shape)

    def whole(self, fixed: Grid) -> Grid:
        """The working grid that holds all of a fixed image, whatever the shape in training."""
        return working_grid(fixed, self.spacing)

    def fitted(self, fixed: Grid) -> Grid:
        """A working grid of the shape in training that holds all of a fixed image.

        Along an axis along which the image does not fit, voxels are as much larger as it takes; without a shape it is `whole`.
        """
        whole = self.whole(fixed)
        if self.shape is None:
            return whole
        larger = [s * max(1.0, n / m) for s, n, m in zip(whole.spacing, whole.shape, self.shape, strict=True)]
        return working_grid(fixed, larger, self.shape)

    def affine(self, fixed: Grid, moving: Grid) -> Affine:
        """The start: world points of fixed to world points of moving."""
        if self.start == "none":
            return Affine.identity(fixed.dim)
        return centring(fixed, moving, stretched=self.start == "box")


def working_grid(grid: Grid, spacing: Sequence[float] | None = None, shape: Sequence[int] | None = None) -> Grid:
    """A grid with axes nearest to the world's, in the middle of another one.

    Args:
        grid: the fixed image's.
        spacing: mm along the new axes; None for that of `grid`.
        shape: voxels along the new axes; None for as many as hold `grid`.

    Returns:
        Where the spacing stays (to 0.1 %), a block of the very voxels of `grid` and of added ones.

    Raises:
        BadInput: `spacing` or `shape` has another number of axes than the grid.
    """
    for name, given in (("spacing", spacing), ("shape", shape)):
        if given is not None and len(given) != grid.dim:
            raise BadInput(f"the model's {name} has {len(given)} axes, the image has {grid.dim}: expected the same")
    turned = _canonical(grid)
    steps = np.asarray(turned.spacing if spacing is None else spacing)
    same = bool(np.all(np.abs(steps / np.asarray(turned.spacing) - 1) < SAME))
    if same:
        size = turned.shape if shape is None else tuple(shape)
        start = tuple((n - m) // 2 for n, m in zip(turned.shape, size, strict=True))
        return turned.crop(start, size)
    extent = np.asarray(turned.shape) * np.asarray(turned.spacing)
    size = tuple(int(n) for n in np.ceil(extent / steps - SAME)) if shape is None else tuple(shape)
    affine = np.eye(grid.dim + 1)
    affine[:-1, :-1] = turned.direction * steps
    affine[:-1, -1] = grid.centre - affine[:-1, :-1] @ ((np.asarray(size) - 1) / 2)
    return Grid(size, affine)


def _canonical(grid: Grid) -> Grid:
    """The same voxels with axes reordered and turned round to run nearest to the world's axes."""
    cosines = grid.direction.copy()
    order = [0] * grid.dim
    for _ in range(grid.dim):  # the clearest axis first, so that an oblique grid has no tie
        world, axis = np.unravel_index(np.abs(cosines).argmax(), cosines.shape)
        order[int(world)] = int(axis)
        cosines[world, :] = cosines[:, axis] = 0
    turn = np.zeros((grid.dim + 1, grid.dim + 1))
    turn[-1, -1] = 1
    for new, old in enumerate(order):
        forward = grid.direction[new, old] >= 0
        turn[old, new] = 1 if forward else -1
        turn[old, -1] = 0 if forward else grid.shape[old] - 1
    return Grid(tuple(grid.shape[old] for old in order), grid.affine @ turn)


def centring(fixed: Grid, moving: Grid, *, stretched: bool = False) -> Affine:
    """The map of the middle of one grid to the middle of another; `stretched`, of its extent along each world axis as well."""
    matrix = np.eye(fixed.dim + 1)
    if stretched:
        matrix[:-1, :-1] = np.diag(_extent(moving) / _extent(fixed))
    matrix[:-1, -1] = moving.centre - matrix[:-1, :-1] @ fixed.centre
    return Affine(matrix)


def _extent(grid: Grid) -> np.ndarray:
    """Size of the box along the world axes that its own axes are nearest to, mm."""
    near = _canonical(grid)
    return np.asarray(near.shape) * np.asarray(near.spacing)


def laid(image: Image, transform: Transform, grid: Grid, interpolation: Interpolation = "linear") -> Tensor:
    """An image pulled onto a working grid; smoothed first where the grid's voxels are much larger; 0 outside.

    Args:
        image: (C, *S).
        transform: world points of `grid` to world points of the image.
        grid: the working grid.
        interpolation: "linear" for intensities, "label" for label maps (which are not smoothed).

    Returns:
        (C, *grid.shape).
    """
    if interpolation == "linear":
        image = _coarsened(image, grid)
    return resample(image, transform, grid, interpolation=interpolation).data


def _coarsened(image: Image, grid: Grid) -> Image:
    """Anti-aliased by whole factors, as far as the working grid's voxels are larger along the nearest axis."""
    nearest = [int(k) for k in np.abs(grid.direction.T @ image.grid.direction).argmax(0)]
    steps = [grid.spacing[k] / s for k, s in zip(nearest, image.grid.spacing, strict=True)]
    factors = tuple(max(1, min(int(step + SAME), n)) for step, n in zip(steps, image.grid.shape, strict=True))
    if max(factors) == 1:
        return image
    data = downsample(image.data[None].to(torch.float32), factors)[0]
    return Image(data, image.grid.downsample(factors), image.name)
