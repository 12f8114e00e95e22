"""Score what another tool (or this one) made: labels, landmarks, transforms."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from warpwright.errors import BadInput
from warpwright.evaluation import (
    assd,
    dice,
    hausdorff,
    hd95,
    inverse_consistency,
    jaccard,
    mean_over_labels,
    summarise,
    target_registration_error,
    vanished_labels,
)
from warpwright.geometry import Image
from warpwright.io.atomic import last_line
from warpwright.io.image import check_on_grid, read_image, read_labels
from warpwright.io.points import read_points
from warpwright.product.apply import outside_sentence
from warpwright.product.choices import Header, Side, Space
from warpwright.product.inputs import outside
from warpwright.product.scores import determinant, determinant_figures
from warpwright.product.source import load_source
from warpwright.transforms import Affine, Transform

__all__ = ["evaluate", "evaluate_labels", "evaluate_pairs", "evaluate_points", "evaluate_transform"]


def evaluate(
    *,
    labels: tuple[str | Path, str | Path] | None = None,
    points: tuple[str | Path, str | Path] | None = None,
    transform: str | Path | None = None,
    pairs: str | Path | None = None,
    space: Space | None = None,
    images: tuple[str | Path | None, str | Path | None] = (None, None),
    header: Header = "strict",
) -> dict[str, Any]:
    """Score all that is given, each under its own key.

    Args:
        labels: label maps of the fixed image and of the moved one, on one grid.
        points: landmarks of the fixed and of the moving image; with a transform also through it.
        transform: file, ANTs prefix, or the folder of a registration.
        pairs: table of label maps, see `evaluate_pairs`.
        space: frame of the coordinates of a `.csv` of points.
        images: fixed and moving image: the grids that points in voxels, or a transform without a field, need.
        header: which affine of a NIfTI file counts when its two disagree.

    Returns:
        What was asked for, and `warnings`: sentences that a person should read.

    Raises:
        BadInput: nothing is given, or something cannot be used.
    """
    found: dict[str, Any] = {}
    if labels is not None:
        found["labels"] = evaluate_labels(*labels, header=header)
    if points is not None:
        found["points"] = evaluate_points(*points, transform=transform, space=space, images=images, header=header)
    if transform is not None:
        found["transform"] = evaluate_transform(transform, reference=images[0], header=header)
    if pairs is not None:
        found["pairs"] = evaluate_pairs(pairs, header=header)
    if not found:
        raise BadInput("nothing to evaluate was given, expected labels, points, a transform or a table of pairs")
    found["warnings"] = [sentence for scores in found.values() for sentence in scores.pop("warnings", ())]
    return found


def evaluate_labels(fixed: str | Path, moved: str | Path, *, header: Header = "strict") -> dict[str, Any]:
    """Overlap and surface distances of two label maps on one grid.

    Returns:
        `labels`: for each label Dice, Jaccard, and HD95, HD, ASSD in mm (surface elements, real spacing; NaN for a label
        that one map lacks); `mean_dice` and so on over the labels whose value is a number; `counted_labels`: how many these
        are, for each score; `vanished_labels` of the moved map against the fixed one; `warnings`.

    Raises:
        BadInput: a map cannot be read, or they lie on different grids.
    """
    first, second = read_labels(fixed, header=header), read_labels(moved, header=header)
    check_on_grid(second, first.grid, first.name)
    overlap, index = dice(first.data, second.data), jaccard(first.data, second.data)
    if not overlap:
        raise BadInput(f"{first.name}: neither this map nor {second.name} holds a label, expected voxels above zero")
    scores = {label: {"dice": overlap[label], "jaccard": index[label], **_surfaces(first, second, label)} for label in overlap}
    by_key = {key: {label: row[key] for label, row in scores.items()} for key in next(iter(scores.values()))}
    counted = {key: sum(not math.isnan(value) for value in values.values()) for key, values in by_key.items()}
    return {
        "labels": scores,
        **{f"mean_{key}": mean_over_labels(values) for key, values in by_key.items()},
        "counted_labels": counted,
        "vanished_labels": vanished_labels(first.data, second.data),
        "warnings": [*first.notes, *second.notes, *_left_out(second.name, by_key["hd95_mm"])],
    }


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
    masks = [(image.data[0] == label).numpy() for image in (fixed, moved)]
    spacing = fixed.grid.spacing
    return {
        "hd95_mm": hd95(masks[0], masks[1], spacing),
        "hd_mm": hausdorff(masks[0], masks[1], spacing),
        "assd_mm": assd(masks[0], masks[1], spacing),
    }


def evaluate_points(
    fixed: str | Path,
    moving: str | Path,
    *,
    transform: str | Path | None = None,
    space: Space | None = None,
    images: tuple[str | Path | None, str | Path | None] = (None, None),
    header: Header = "strict",
) -> dict[str, Any]:
    """Distances of landmarks, as they lie and through a transform.

    Args:
        fixed: points of the fixed image.
        moving: the same places in the moving image, in the same order.
        transform: file or folder of a registration; None for the distances as they are.
        space: frame of the coordinates of a `.csv`.
        images: fixed and moving image, which "voxel" coordinates need; points outside them are told.
        header: which affine of a NIfTI file counts when its two disagree.

    Returns:
        `before` (and `after` with a transform): mean, median, p90 and max, mm; `each`: the last list of distances;
        `outside`: names of the fixed points outside their image; `warnings`.

    Raises:
        BadInput: a file cannot be read, or the points do not pair up.
    """
    source = None if transform is None else load_source(transform, header=header)
    known = (None, None) if source is None else (source.fixed_grid, source.moving_grid)
    at = [read_image(g, header=header).grid if g is not None else k for g, k in zip(images, known, strict=True)]
    columns: tuple[Side | None, Side | None] = ("fixed", "moving") if Path(fixed) == Path(moving) else (None, None)
    first, second = (
        read_points(p, space=space, grid=g, columns=c) for p, g, c in zip((fixed, moving), at, columns, strict=True)
    )
    if len(first.world) != len(second.world):
        raise BadInput(f"{fixed} holds {len(first.world)} points and {moving} {len(second.world)}, expected as many")
    dim = first.world.shape[1]
    if second.world.shape[1] != dim:
        raise BadInput(f"{moving}: has points of {second.world.shape[1]} axes, expected the {dim} of {fixed}")
    if source is not None and source.forward.dim != dim:
        raise BadInput(f"{fixed}: has points of {dim} axes, expected the {source.forward.dim} of the transform {source.name}")
    through: dict[str, Transform] = {"before": Affine.identity(dim)}
    if source is not None:
        through["after"] = source.forward
    errors = {key: target_registration_error(first.world, second.world, t) for key, t in through.items()}
    last = list(errors.values())[-1]
    return {
        "unit": "mm",
        **{key: summarise(e) for key, e in errors.items()},
        "each": last.tolist(),
        "outside": list(outside(first, at[0])) if at[0] is not None else [],
        "warnings": list(outside_sentence(str(fixed), first, through["before"], at[0])),
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
    if grid.dim != source.forward.dim:
        raise BadInput(f"{reference}: has {grid.dim} axes, expected the {source.forward.dim} of the transform {source.name}")
    consistency = inverse_consistency(source.forward, source.directed(inverse=True), grid)
    return {**determinant_figures(determinant(source.forward, grid)), "inverse_consistency_mm": consistency}


def evaluate_pairs(table: str | Path, *, header: Header = "strict") -> dict[str, Any]:
    """Score many label maps: a `.csv` with the columns id, fixed_labels, moved_labels; paths relative to the file.

    Returns:
        `pairs`: id to what `evaluate_labels` gives; `mean_dice` over the pairs; `warnings` of all.

    Raises:
        BadInput: a column is missing, an id is there twice, or a file cannot be used (the sentence names the row).
    """
    table = Path(table)
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{table}: cannot be read ({last_line(error)}), expected a .csv of pairs in UTF-8") from None
    wanted = ("id", "fixed_labels", "moved_labels")
    missing = [name for name in wanted if not rows or name not in rows[0]]
    if missing:
        raise BadInput(f"{table}: has no rows or lacks the columns {', '.join(missing)}, expected {','.join(wanted)}")
    _unique(table, (row["id"] for row in rows))
    found: dict[str, Any] = {}
    for row in rows:
        empty = [name for name in wanted if not row[name]]
        if empty:
            raise BadInput(f"{table}, row {row['id']!r}: the column {empty[0]} is empty, expected a value in each")
        try:
            fixed, moved = (table.parent / row[name] for name in wanted[1:])
            found[row["id"]] = evaluate_labels(fixed, moved, header=header)
        except BadInput as error:
            raise BadInput(f"{table}, row {row['id']!r}: {error}") from None
    told = [f"{name}: {sentence}" for name, scores in found.items() for sentence in scores.pop("warnings")]
    mean = float(np.mean([scores["mean_dice"] for scores in found.values()]))
    return {"pairs": found, "mean_dice": mean, "warnings": told}


def _unique(table: Path, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadInput(f"{table}: the id {name!r} is there twice, expected each once")
        seen.add(name)
