"""Score one case: two label maps, two sets of landmarks, one transform; from files, or from what was read already."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warpwright.errors import BadInput
from warpwright.evaluation import (
    dice,
    inverse_consistency,
    jaccard,
    mean_over_labels,
    summarise,
    surface_figures,
    target_registration_error,
    vanished_labels,
)
from warpwright.geometry import Grid, Image
from warpwright.io.image import check_on_grid, read_image, read_labels
from warpwright.io.points import Points, read_points
from warpwright.product.apply import outside_sentence
from warpwright.product.choices import Header, Side, Space
from warpwright.product.inputs import outside
from warpwright.product.scores import determinant, determinant_figures
from warpwright.product.source import Source, load_source
from warpwright.transforms import Affine, Transform

__all__ = [
    "evaluate_labels",
    "evaluate_points",
    "evaluate_transform",
    "label_figures",
    "overlap",
    "point_figures",
    "point_pair",
    "transform_figures",
]


def evaluate_labels(fixed: str | Path, moved: str | Path, *, header: Header = "strict") -> dict[str, Any]:
    """Overlap and surface distances of two label maps on one grid: see `label_figures`.

    Raises:
        BadInput: a map cannot be read, or they lie on different grids.
    """
    return label_figures(read_labels(fixed, header=header), read_labels(moved, header=header))


def label_figures(fixed: Image, moved: Image) -> dict[str, Any]:
    """Overlap and surface distances of two label maps on one grid.

    Returns:
        `labels`: for each label Dice, Jaccard, and HD95, HD, ASSD in mm (surface elements, real spacing; NaN for a label
        that one map lacks); `mean_dice` and so on over the labels whose value is a number; `counted_labels`: how many these
        are, for each score; `vanished_labels` of the moved map against the fixed one; `warnings`.

    Raises:
        BadInput: they lie on different grids, or neither holds a label.
    """
    by_label, index = overlap(fixed, moved), jaccard(fixed.data, moved.data)
    scores = {n: {"dice": by_label[n], "jaccard": index[n], **_surfaces(fixed, moved, n)} for n in by_label}
    by_key = {key: {label: row[key] for label, row in scores.items()} for key in next(iter(scores.values()))}
    counted = {key: sum(not math.isnan(value) for value in values.values()) for key, values in by_key.items()}
    return {
        "labels": scores,
        **{f"mean_{key}": mean_over_labels(values) for key, values in by_key.items()},
        "counted_labels": counted,
        "vanished_labels": vanished_labels(fixed.data, moved.data),
        "warnings": [*fixed.notes, *moved.notes, *_left_out(moved.name, by_key["hd95_mm"])],
    }


def overlap(fixed: Image, moved: Image) -> dict[int, float]:
    """Label to Dice of two label maps on one grid, at least one label.

    Raises:
        BadInput: they lie on different grids, or neither holds a label.
    """
    check_on_grid(moved, fixed.grid, fixed.name)
    found = dice(fixed.data, moved.data)
    if not found:
        raise BadInput(f"{fixed.name}: neither this map nor {moved.name} holds a label, expected voxels above zero")
    return found


def _left_out(name: str, distances: Mapping[int, float]) -> list[str]:
    """A sentence if labels have no surface distance, because one map lacks them."""
    without = [str(label) for label, value in distances.items() if math.isnan(value)]
    if not without:
        return []
    kept = len(distances) - len(without)
    return [
        f"{name}: the means of the distances count {kept} of {len(distances)} labels; in one map only: {', '.join(without)}"
    ]


def _surfaces(fixed: Image, moved: Image, label: int) -> dict[str, float]:
    one, two = ((image.data[0] == label).numpy() for image in (fixed, moved))
    return surface_figures(one, two, fixed.grid.spacing)


def evaluate_points(
    fixed: str | Path,
    moving: str | Path,
    *,
    transform: str | Path | None = None,
    space: Space | None = None,
    images: tuple[str | Path | None, str | Path | None] = (None, None),
    header: Header = "strict",
) -> dict[str, Any]:
    """Distances of landmarks, as they lie and through a transform: see `point_figures`.

    Args:
        fixed: points of the fixed image.
        moving: the same places in the moving image, in the same order.
        transform: file or folder of a registration; None for the distances as they are.
        space: frame of the coordinates of a `.csv`.
        images: fixed and moving image, which "voxel" coordinates need; points outside them are told.
        header: which affine of a NIfTI file counts when its two disagree.

    Raises:
        BadInput: a file cannot be read, or the points do not pair up.
    """
    source = None if transform is None else load_source(transform, header=header)
    known = (None, None) if source is None else (source.fixed_grid, source.moving_grid)
    at = [read_image(g, header=header).grid if g is not None else k for g, k in zip(images, known, strict=True)]
    points = point_pair(fixed, moving, space=space, grids=(at[0], at[1]))
    return point_figures(str(fixed), points, source, at[0])


def point_pair(
    fixed: str | Path, moving: str | Path, *, space: Space | None, grids: tuple[Grid | None, Grid | None]
) -> tuple[Points, Points]:
    """Landmarks of the fixed and of the moving image, which pair up.

    Args:
        fixed: points of the fixed image.
        moving: the same places in the moving image, in the same order; the same file if it holds both sets.
        space: frame of the coordinates of a `.csv`.
        grids: of the fixed and of the moving image, which "voxel" coordinates need.

    Raises:
        BadInput: a file cannot be read, or the points do not pair up.
    """
    columns: tuple[Side | None, Side | None] = ("fixed", "moving") if Path(fixed) == Path(moving) else (None, None)
    first, second = (
        read_points(p, space=space, grid=g, columns=c) for p, g, c in zip((fixed, moving), grids, columns, strict=True)
    )
    if len(first.world) != len(second.world):
        raise BadInput(f"{fixed} holds {len(first.world)} points and {moving} {len(second.world)}, expected as many")
    dim = first.world.shape[1]
    if second.world.shape[1] != dim:
        raise BadInput(f"{moving}: has points of {second.world.shape[1]} axes, expected the {dim} of {fixed}")
    return first, second


def point_figures(name: str, points: tuple[Points, Points], source: Source | None, grid: Grid | None) -> dict[str, Any]:
    """Distances of landmarks, as they lie and through a transform.

    Args:
        name: what a message calls the fixed points.
        points: of the fixed and of the moving image, from `point_pair`.
        source: the transform; None for the distances as they are.
        grid: of the fixed image, if known: points outside it are told.

    Returns:
        `before` (and `after` with a transform): mean, median, p90 and max, mm; `each`: the last list of distances;
        `outside`: names of the fixed points outside their image; `warnings`.

    Raises:
        BadInput: the transform has another number of axes.
    """
    first, second = points
    dim = first.world.shape[1]
    if source is not None and source.forward.dim != dim:
        raise BadInput(f"{name}: has points of {dim} axes, expected the {source.forward.dim} of the transform {source.name}")
    through: dict[str, Transform] = {"before": Affine.identity(dim)}
    if source is not None:
        through["after"] = source.forward
    errors = {key: target_registration_error(first.world, second.world, t) for key, t in through.items()}
    last = list(errors.values())[-1]
    return {
        "unit": "mm",
        **{key: summarise(e) for key, e in errors.items()},
        "each": last.tolist(),
        "outside": list(outside(first, grid)) if grid is not None else [],
        "warnings": list(outside_sentence(name, first, through["before"], grid)),
    }


def evaluate_transform(
    transform: str | Path, *, reference: str | Path | None = None, header: Header = "strict"
) -> dict[str, Any]:
    """Folds, volume changes and inverse consistency of a transform.

    Raises:
        BadInput: it cannot be read, or its grid is not known.
    """
    source = load_source(transform, header=header)
    grid = source.fixed_grid if reference is None else read_image(reference, header=header).grid
    if grid is None:
        raise BadInput(f"{source.name}: brings no grid along, expected the fixed image with --fixed")
    return transform_figures(source, grid, str(reference))


def transform_figures(source: Source, grid: Grid, name: str) -> dict[str, Any]:
    """Folds, volume changes and inverse consistency of a transform on a grid, which a message calls `name`.

    Raises:
        BadInput: the grid has another number of axes.
    """
    if grid.dim != source.forward.dim:
        raise BadInput(f"{name}: has {grid.dim} axes, expected the {source.forward.dim} of the transform {source.name}")
    consistency = inverse_consistency(source.forward, source.directed(inverse=True), grid)
    return {**determinant_figures(determinant(source.forward, grid)), "inverse_consistency_mm": consistency}
