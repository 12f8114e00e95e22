"""A pair of images, with what is known about them, laid on a model's working grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.pairs import PairBatch
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.transforms import Preparation, Transform, carried_points, laid

__all__ = ["Annotated", "joined", "lay_image", "lay_pair"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Annotated:
    """An image and what is known about it.

    Args:
        image: (C, *S).
        mask: (1, *S) weights on the same grid.
        labels: (1, *S) whole numbers on the same grid.
        points: (N, D) world points, RAS+ mm.

    Raises:
        BadInput: the mask or the labels are on another grid than the image, or the mask is zero everywhere.
    """

    image: Image
    mask: Image | None = None
    labels: Image | None = None
    points: Tensor | None = None

    def __post_init__(self) -> None:
        for other in (self.mask, self.labels):
            if other is not None and not other.grid.same_as(self.image.grid):
                found = f"{other.name} is not on the grid of its image {self.image.name}"
                raise BadInput(f"{found}: expected the same shape and affine")
        if self.mask is not None and not bool((self.mask.data > 0).any()):
            raise BadInput(f"{self.mask.name} is zero everywhere: expected a mask with positive weights")


def lay_pair(
    preparation: Preparation, fixed: Annotated, moving: Annotated, transforms: tuple[Transform, Transform], grid: Grid
) -> PairBatch:
    """A batch of one pair on a working grid; labels and landmarks are left out unless both images have them.

    Args:
        preparation: the model's.
        fixed: the fixed image.
        moving: the moving image.
        transforms: world points of the grid to world points of the fixed and of the moving image.
        grid: the working grid.

    Raises:
        BadInput: the images differ in channels.
    """
    if fixed.image.channels != moving.image.channels:
        found = f"{moving.image.name} has {moving.image.channels} channels, {fixed.image.name} has {fixed.image.channels}"
        raise BadInput(f"{found}: expected the same")
    first, second = (_lay(preparation, side, t, grid) for side, t in zip((fixed, moving), transforms, strict=True))
    labelled = first.labels is not None and second.labels is not None
    marked = first.points is not None and second.points is not None
    return PairBatch(
        fixed=first.image,
        moving=second.image,
        spacing=grid.spacing,
        fixed_weight=first.weight,
        moving_weight=second.weight,
        fixed_labels=first.labels if labelled else None,
        moving_labels=second.labels if labelled else None,
        fixed_points=first.points if marked else None,
        moving_points=second.points if marked else None,
        names=(f"{fixed.image.name} and {moving.image.name}",),
    )


@dataclass(frozen=True, eq=False)
class _Side:
    """One image as a part of a batch of one pair."""

    image: Tensor
    weight: Tensor
    labels: Tensor | None
    points: tuple[Tensor] | None


def _lay(preparation: Preparation, side: Annotated, transform: Transform, grid: Grid) -> _Side:
    labels = None if side.labels is None else laid(side.labels, transform, grid, "label")[None]
    points = None if side.points is None else (grid.to_voxel(carried_points(side.points, transform)),)
    return _Side(*lay_image(preparation, side, transform, grid), labels, points)


def lay_image(preparation: Preparation, side: Annotated, transform: Transform, grid: Grid) -> tuple[Tensor, Tensor]:
    """Intensities (1, C, *S) and weights (1, 1, *S) of an image on a working grid, in one interpolation."""
    weight = side.mask.data if side.mask is not None else torch.ones_like(side.image.data[:1])
    intensities = preparation.intensity(side.image.data, None if side.mask is None else side.mask.data)
    both = laid(Image(torch.cat((intensities, weight.to(intensities.dtype))), side.image.grid), transform, grid)[None]
    return both[:, :-1], both[:, -1:]


def joined(batches: list[PairBatch]) -> PairBatch:
    """Several batches on grids of one shape and spacing as one.

    What only some of them have (labels, points) is left out.

    Raises:
        BadInput: the shapes or spacings differ (spacings by more than 1 %).
    """
    first = batches[0]
    for other in batches[1:]:
        same = other.fixed.shape[1:] == first.fixed.shape[1:]
        if not same or not np.allclose(other.spacing, first.spacing, rtol=0.01, atol=0):
            found = " and ".join(f"{tuple(b.fixed.shape[2:])} voxels of {b.spacing} mm" for b in (first, other))
            raise BadInput(
                f"{other.names[0]}: images of one batch must have one shape and spacing, found {found}; expected a shape and"
                " a spacing in the model's preparation, or a batch of 1"
            )

    def together(name: str) -> Tensor | None:
        parts = [getattr(b, name) for b in batches]
        return None if any(p is None for p in parts) else torch.cat(parts)

    def listed(name: str) -> tuple[Tensor, ...] | None:
        parts = [getattr(b, name) for b in batches]
        return None if any(p is None for p in parts) else tuple(p for part in parts for p in part)

    return PairBatch(
        fixed=torch.cat([b.fixed for b in batches]),
        moving=torch.cat([b.moving for b in batches]),
        spacing=first.spacing,
        fixed_weight=together("fixed_weight"),
        moving_weight=together("moving_weight"),
        fixed_labels=together("fixed_labels"),
        moving_labels=together("moving_labels"),
        fixed_points=listed("fixed_points"),
        moving_points=listed("moving_points"),
        names=tuple(name for b in batches for name in b.names),
    )
