"""An image pulled through a transform onto another grid, in world coordinates and bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from warpwright.geometry import Grid, Image, identity_points
from warpwright.sampling import inside, sample, sample_labels, sample_nearest, warp_labels, warp_nearest, warp_within
from warpwright.transforms.transform import SLAB, Transform, expanded, split, worked_on

__all__ = ["Interpolation", "resample"]

Interpolation = Literal["linear", "nearest", "label"]


def _linear(source: Tensor, at: Tensor) -> Tensor:
    return sample(source.to(torch.float32), at.to(torch.float32))


def _label(source: Tensor, at: Tensor) -> Tensor:
    return sample_labels(source, at.to(torch.float32))


READ: dict[Interpolation, Callable[[Tensor, Tensor], Tensor]] = {"linear": _linear, "nearest": sample_nearest, "label": _label}


def resample(
    image: Image, transform: Transform, grid: Grid, *, interpolation: Interpolation = "linear", background: float = 0.0
) -> Image:
    """`out(x) = image(transform(x))` for every voxel x of `grid`.

    Args:
        image: what is read; (C, *S).
        transform: world points of `grid` to world points of the image.
        grid: where the result lives.
        interpolation: "linear" (float32 out), "nearest" (dtype kept), or "label" (the label with the largest linear
            share; dtype kept).
        background: value where the point is more than half a voxel outside the image, as in ITK.

    Returns:
        An `Image` on `grid` with the name of the input, on the device of its data.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from warpwright import Affine, Grid, Image, resample
        >>> grid = Grid(shape=(4, 2), affine=np.eye(3))
        >>> image = Image(torch.arange(8.0).reshape(1, 4, 2), grid)
        >>> shift = np.eye(3)
        >>> shift[0, 2] = 1.0  # the voxel read lies 1 mm further along x
        >>> resample(image, Affine(shift), grid).data[0].tolist()
        [[2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [0.0, 0.0]]
    """
    if worked_on(transform, grid):
        return Image(_directly(image, transform, grid, interpolation, background), grid, image.name)
    source, transform = image.data[None], expanded(transform)
    dtype = torch.float32 if interpolation == "linear" else source.dtype
    out = torch.full((image.channels, grid.size), background, dtype=dtype, device=source.device)
    flat = identity_points(grid.shape, dtype=torch.float32, device=source.device)[0].flatten(1)
    for begin in range(0, grid.size, SLAB):
        world = grid.to_world(flat[:, begin : begin + SLAB].T.to(torch.float64))
        at = image.grid.to_voxel(transform(world)).T[None].contiguous()
        known = inside(at, image.grid.shape)[0]
        values = READ[interpolation](source, at)[0]
        out[:, begin : begin + SLAB] = values.masked_fill(~known, background)
    return Image(out.reshape(-1, *grid.shape), grid, image.name)


def _directly(image: Image, transform: Transform, grid: Grid, interpolation: Interpolation, background: float) -> Tensor:
    """(C, *S) through an affine and a field on the grid itself: nothing but voxels is needed."""
    affine, field = split(transform, grid)
    matrix = grid.voxel_matrix(image.grid, affine.matrix)
    source, displacement = image.data[None], field.displacement[None].to(image.data.device, torch.float32)
    if interpolation == "linear":
        return warp_within(source.to(torch.float32), displacement, matrix, background=background)[0]
    pull = warp_nearest if interpolation == "nearest" else warp_labels
    return pull(source, displacement, matrix, background=background)[0]
