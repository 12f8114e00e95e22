"""Score a table of pairs: each case, each label over the cases, the cohort, and whether two results differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from warpwright.errors import BadInput
from warpwright.evaluation import (
    learn2reg,
    mean_over_labels,
    summarise,
    summary,
    target_registration_error,
    vanished_labels,
    wilcoxon,
)
from warpwright.geometry import Grid, Image
from warpwright.io.atomic import write_csv
from warpwright.io.image import read_image, read_labels
from warpwright.io.points import Points
from warpwright.product.choices import Header, Space
from warpwright.product.evaluate_case import label_figures, overlap, point_figures, point_pair, transform_figures
from warpwright.product.pair_table import Row, read_pairs
from warpwright.product.source import Source, load_source
from warpwright.transforms import Affine, displacement_on, resample

__all__ = ["check_label_table", "evaluate_pairs", "write_label_table"]

HIGH_IS_GOOD = {"dice": True, "hd95_mm": False, "assd_mm": False, "tre_mm": False}  # what is summed up over the cases
COLUMNS = ("dice", "jaccard", "hd95_mm", "hd_mm", "assd_mm")
THIRTY: dict[Literal["dice", "hd95", "tre", "sdlogj"], str] = {  # a measure of the challenge to the name of its "30" figure
    "dice": "dice30",
    "hd95": "hd95_30",
    "tre": "tre30",
    "sdlogj": "sdlogj30",
}
CROPPED = 5  # voxels along each axis that the challenge's SDlogJ needs


@dataclass(frozen=True, eq=False, kw_only=True)
class _Case:
    """What one row names, read; None where it names nothing.

    Args:
        row: the files.
        source: the transform.
        fixed: labels of the fixed image.
        moving: labels of the moving image, on its own grid.
        moved: labels on the fixed grid, as they were given or else pulled through the transform.
        points: landmarks of the fixed and of the moving image.
        grids: of the fixed and of the moving image.
        warnings: sentences about the labels that were pulled.
    """

    row: Row
    source: Source | None
    fixed: Image | None
    moving: Image | None
    moved: Image | None
    points: tuple[Points, Points] | None
    grids: tuple[Grid | None, Grid | None]
    warnings: tuple[str, ...]


def evaluate_pairs(
    table: str | Path, *, against: str | Path | None = None, space: Space | None = None, header: Header = "strict"
) -> dict[str, Any]:
    """Score the cases of a table, whose columns `product.pair_table` lists.

    Labels are those of moved_labels, or else moving_labels pulled through the transform onto the grid of fixed_labels, each
    voxel the label with the largest share. Landmarks go through the transform if there is one.

    Args:
        table: `.csv` of pairs.
        against: a second table with the same ids: another result of the same cases.
        space: frame of the coordinates of a `.csv` of points.
        header: which affine of a NIfTI file counts when its two disagree.

    Returns:
        `pairs`: id to what `label_figures` gives, and `points` with `mean_tre_mm`, `transform` and `learn2reg` where the
        table has these columns;
        `mean_dice` over the cases, and `labels`: each label to the `summary` over the cases that have it of Dice, HD95 and
        ASSD, if there are labels;
        `summary`: over the cases, of mean Dice, HD95, ASSD, landmark error and folds, and how many cases fold;
        `learn2reg`: the challenge's numbers, NaN where the columns for one are missing;
        `against`: for the mean Dice and the landmark error that both tables have: the mean over the cases of either, their
        difference, and Wilcoxon's test paired by id;
        `warnings` of all.

    Raises:
        BadInput: a table cannot be used, the ids of the two differ, or a file cannot be used (the sentence names the row).
    """
    table = Path(table)
    rows = read_pairs(table)
    others = {} if against is None else _partners(table, rows, Path(against))
    found: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        with _named(table, name):
            found[name] = _figures(_read(row, space, header))
    told = [f"{name}: {sentence}" for name, figures in found.items() for sentence in figures.pop("warnings")]
    cases = list(found.values())
    out: dict[str, Any] = {"pairs": found}
    if "labels" in cases[0]:
        out["mean_dice"] = float(np.mean([figures["mean_dice"] for figures in cases]))
        out["labels"] = _label_summaries(cases)
    out["summary"], out["learn2reg"] = _cohort(cases), _challenge_numbers(cases)
    if against is not None:
        second: dict[str, dict[str, float]] = {}
        for name, row in others.items():
            with _named(Path(against), name):
                second[name] = _means(_read(row, space, header))
        out["against"] = _compared(found, second)
    return {**out, "warnings": told}


def check_label_table(output: Path, table: Path | None) -> None:
    """Refuse a `.csv` of label scores if there is no table of pairs, or one without labels.

    Raises:
        BadInput: as said, or the table cannot be used.
    """
    if table is None or "fixed_labels" not in next(iter(read_pairs(table).values())):
        raise BadInput(f"{output}: a .csv holds the scores of the labels of --pairs, which has none, expected a .json file")


def write_label_table(path: Path, pairs: Mapping[str, Mapping[str, Any]]) -> None:
    """Write one line for each label of each case: id, label, dice, jaccard, hd95_mm, hd_mm, assd_mm; empty where undefined.

    Args:
        path: `.csv` file, whole or not at all; an old one is replaced.
        pairs: what `evaluate_pairs` gives under this key.

    Raises:
        BadInput: the folder does not exist or cannot be written.
        Failed: the file could not be written.
    """
    rows = (
        [name, label, *("" if math.isnan(scores[column]) else scores[column] for column in COLUMNS)]
        for name, figures in pairs.items()
        for label, scores in figures["labels"].items()
    )
    write_csv(path, ("id", "label", *COLUMNS), rows)


@contextmanager
def _named(table: Path, name: str) -> Iterator[None]:
    """Puts the row before the sentence of a BadInput."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{table}, row {name!r}: {error}") from None


def _partners(table: Path, rows: Mapping[str, Row], against: Path) -> Mapping[str, Row]:
    """The rows of the second table, without points if there are none to compare them with.

    Raises:
        BadInput: the ids differ, or the tables have no measure in common.
    """
    others = read_pairs(against)
    alone = {table: rows.keys() - others.keys(), against: others.keys() - rows.keys()}
    if any(alone.values()):
        listed = "; ".join(f"only in {path}: {', '.join(map(repr, sorted(names)))}" for path, names in alone.items() if names)
        raise BadInput(f"{against}: its ids are not those of {table} ({listed}), expected the same in both")
    one, two = ({"fixed_labels", "fixed_points"} & next(iter(some.values())).keys() for some in (rows, others))
    if not one & two:
        raise BadInput(f"{against}: has no labels or points to compare with those of {table}, expected either in both")
    unused = set[str]() if "fixed_points" in one else {"fixed_points", "moving_points"}
    return {name: {column: path for column, path in row.items() if column not in unused} for name, row in others.items()}


def _read(row: Row, space: Space | None, header: Header) -> _Case:
    source = load_source(row["transform"], header=header) if "transform" in row else None
    fixed, moving, moved = (
        read_labels(row[column], header=header) if column in row else None
        for column in ("fixed_labels", "moving_labels", "moved_labels")
    )
    known = (None, None) if source is None else (source.fixed_grid, source.moving_grid)
    grids = (_grid(fixed, row.get("fixed"), known[0], header), _grid(moving, row.get("moving"), known[1], header))
    warnings: tuple[str, ...] = ()
    if moved is None and fixed is not None and moving is not None and source is not None:
        moved, warnings = _pulled(fixed, moving, source)
    points = point_pair(row["fixed_points"], row["moving_points"], space=space, grids=grids) if "fixed_points" in row else None
    return _Case(row=row, source=source, fixed=fixed, moving=moving, moved=moved, points=points, grids=grids, warnings=warnings)


def _grid(labels: Image | None, image: Path | None, known: Grid | None, header: Header) -> Grid | None:
    """Where an image is: by its labels, else by itself, else as the transform says."""
    if labels is not None:
        return labels.grid
    return known if image is None else read_image(image, header=header).grid


def _pulled(fixed: Image, moving: Image, source: Source) -> tuple[Image, tuple[str, ...]]:
    """The moving labels on the fixed grid, as `warpwright apply` makes them, and what a person should know."""
    for labels in (fixed, moving):
        if labels.grid.dim != source.forward.dim:
            raise BadInput(f"{labels.name}: has {labels.grid.dim} axes, the transform {source.name} has {source.forward.dim}")
    moved = resample(moving, source.forward, fixed.grid, interpolation="label")
    gone = vanished_labels(moving.data, moved.data)
    lost = (f"{moving.name}: labels that vanish when moved: {', '.join(map(str, gone))}",) if gone else ()
    return moved, (*moving.notes, *lost)


def _figures(case: _Case) -> dict[str, Any]:
    """All figures of one case, and `warnings`."""
    found: dict[str, Any] = {"warnings": []}
    if case.fixed is not None and case.moved is not None:
        found |= label_figures(case.fixed, case.moved)
    if case.points is not None:
        found["points"] = point_figures(str(case.row["fixed_points"]), case.points, case.source, case.grids[0])
        found["mean_tre_mm"] = found["points"].get("after", found["points"]["before"])["mean"]
    if case.source is not None:
        if case.grids[0] is None:
            raise BadInput(f"{case.source.name}: brings no grid along, expected the fixed image in a column fixed")
        name = str(case.row.get("fixed_labels", case.row.get("fixed")))
        found["transform"] = transform_figures(case.source, case.grids[0], name)
        found["learn2reg"] = _challenge(case, case.source, case.grids[0], case.grids[1] or case.grids[0])
    told = found["points"].pop("warnings") if "points" in found else []
    found["warnings"] = [*case.warnings, *found["warnings"], *told]
    return found


def _challenge(case: _Case, source: Source, fixed: Grid, moving: Grid) -> dict[str, float]:
    """The measures of Learn2Reg of one case; NaN for what its files do not allow.

    The challenge's field leads from voxels of the fixed image to voxels of the moving one, which it takes as given. So does
    this one, also where the two images lie on different grids; a moving grid that is not known is taken as the fixed one.
    """
    found: dict[str, float] = dict.fromkeys(THIRTY, math.nan)
    field = displacement_on(Affine(fixed.affine @ np.linalg.inv(moving.affine)) @ source.forward, fixed)
    if case.fixed is not None and case.moving is not None:
        maps = [image.data[0].numpy() for image in (case.fixed, case.moving)]
        maps.append(learn2reg.warp_labels(maps[1], field))
        labels = [label for label in np.unique(maps[0]).tolist() if label]
        found["dice"] = learn2reg.dice(maps[0], maps[1], maps[2], labels)[0]
        found["hd95"] = learn2reg.hd95(maps[0], maps[1], maps[2], labels)[0]
    if case.points is not None:
        voxels = [grid.to_voxel(points.world) for grid, points in zip((fixed, moving), case.points, strict=True)]
        errors = learn2reg.target_registration_error(voxels[0], voxels[1], field, moving.spacing)
        found["tre"] = float(errors.mean())
    if min(fixed.shape) >= CROPPED:
        found["sdlogj"] = learn2reg.sd_log_jacobian(field)
    return found


def _challenge_numbers(cases: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean and the "30" figure over the cases of each measure of Learn2Reg; NaN if a case lacks it."""
    out: dict[str, float] = {}
    for measure, thirty in THIRTY.items():
        values = [figures["learn2reg"][measure] if "learn2reg" in figures else math.nan for figures in cases]
        with np.errstate(invalid="ignore"):  # a quantile between two infinite distances
            out |= {measure: float(np.mean(values)), thirty: learn2reg.thirty(values, measure)}
    return out


def _label_summaries(cases: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    labels = sorted({label for figures in cases for label in figures["labels"]})
    rows = {label: [f["labels"][label] for f in cases if label in f["labels"]] for label in labels}
    keys = ("dice", "hd95_mm", "assd_mm")
    return {
        label: {key: summary([scores[key] for scores in own], high_is_good=HIGH_IS_GOOD[key]) for key in keys}
        for label, own in rows.items()
    }


def _cohort(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {"cases": len(cases)}
    for key, high_is_good in HIGH_IS_GOOD.items():
        if f"mean_{key}" in cases[0]:
            out[key] = summary([figures[f"mean_{key}"] for figures in cases], high_is_good=high_is_good)
    if "transform" in cases[0]:
        folds = [figures["transform"]["folded_percent"] for figures in cases]
        out["folded_percent"] = summary(folds, high_is_good=False)
        out["folding_cases"] = sum(share > 0 for share in folds)
    return out


def _means(case: _Case) -> dict[str, float]:
    """What is compared with another result: `mean_dice` and `mean_tre_mm`, where there are labels and landmarks."""
    found: dict[str, float] = {}
    if case.fixed is not None and case.moved is not None:
        found["mean_dice"] = mean_over_labels(overlap(case.fixed, case.moved))
    if case.points is not None:
        first, second = case.points
        through = Affine.identity(first.world.shape[1]) if case.source is None else case.source.forward
        found["mean_tre_mm"] = summarise(target_registration_error(first.world, second.world, through))["mean"]
    return found


def _compared(found: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Both results beside each other, paired by id."""
    out: dict[str, Any] = {}
    for key in ("dice", "tre_mm"):
        name = f"mean_{key}"
        if all(name in some for id_ in found for some in (found[id_], second[id_])):
            own, other = (np.array([some[id_][name] for id_ in found]) for some in (found, second))
            means = {"mean": float(own.mean()), "mean_against": float(other.mean())}
            out[key] = {**means, "difference": float((own - other).mean()), **wilcoxon(own, other)}
    return out
