"""A pair of images, with what is known about them, laid on a model's working grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.energies.pairs import PairBatch
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.transforms import Preparation, Transform, laid

__all__ = ["Annotated", "joined", "lay_pair"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Annotated:
    """An image and what is known about it.

    Args:
        image: (C, *S).
        mask: (1, *S) weights on the same grid.
        labels: (1, *S) whole numbers on the same grid.
        points: (N, D) world points, RAS+ mm.
    """

    image: Image
    mask: Image | None = None
    labels: Image | None = None
    points: Tensor | None = None


def lay_pair(
    preparation: Preparation, fixed: Annotated, moving: Annotated, transforms: tuple[Transform, Transform], grid: Grid
) -> PairBatch:
    """A batch of one pair on a working grid.

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
    sides = [_lay(preparation, side, t, grid) for side, t in zip((fixed, moving), transforms, strict=True)]
    first, second = sides
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
        fixed_points=(first.points,) if marked and first.points is not None else None,
        moving_points=(second.points,) if marked and second.points is not None else None,
        names=(f"{fixed.image.name} and {moving.image.name}",),
    )


@dataclass(frozen=True, eq=False)
class _Side:
    image: Tensor
    weight: Tensor
    labels: Tensor | None
    points: Tensor | None


def _lay(preparation: Preparation, side: Annotated, transform: Transform, grid: Grid) -> _Side:
    weights = side.mask if side.mask is not None else Image(torch.ones_like(side.image.data[:1]), side.image.grid)
    labels = None if side.labels is None else laid(side.labels, transform, grid, "label")[None]
    points = None if side.points is None else grid.to_voxel(transform.inverse()(side.points))
    normalised = Image(preparation.intensity(side.image.data, None if side.mask is None else side.mask.data), side.image.grid)
    return _Side(laid(normalised, transform, grid)[None], laid(weights, transform, grid)[None], labels, points)


def joined(batches: list[PairBatch]) -> PairBatch:
    """Several batches on grids of one shape and spacing as one.

    What only some of them have (labels, points) is left out.

    Raises:
        BadInput: the shapes or spacings differ.
    """
    first = batches[0]
    for other in batches[1:]:
        if (
            other.fixed.shape[1:] != first.fixed.shape[1:]
            or max(abs(a / b - 1) for a, b in zip(other.spacing, first.spacing, strict=True)) > 0.01
        ):
            found = f"{tuple(first.fixed.shape[2:])} and {tuple(other.fixed.shape[2:])} voxels"
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
