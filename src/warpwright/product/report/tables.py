"""Rows of the tables of a report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from warpwright.geometry import Grid, Image
from warpwright.product.report.charts import sparkline
from warpwright.product.report.run import Run
from warpwright.product.scores import Scores, prompted_text

__all__ = [
    "LabelRow",
    "LandmarkRow",
    "Landmarks",
    "StageRow",
    "alone",
    "facts",
    "inputs",
    "label_rows",
    "landmark_table",
    "name_of",
    "pretty",
    "stage_rows",
    "trusted",
]

WORST = 8  # landmarks that are listed
COUNTED = 1 << 16  # the largest label of a map whose labels are counted one by one
UNKNOWN, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", " \N{MULTIPLICATION SIGN} "


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """A label: the index of its colour, its Dice before and after, and what else is to be said."""

    label: int
    colour: int
    before: str
    after: str
    change: str
    remark: str


@dataclass(frozen=True, kw_only=True)
class LandmarkRow:
    """A landmark, or a statistic of all, with its error before and after, mm."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """A stage: its name, how long it took, its energies, the line of their curve if it is known, why it ended."""

    name: str
    steps: int
    seconds: str
    start: str
    end: str
    curve: str
    message: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Landmarks:
    """Errors of the landmarks that count, mm.

    Args:
        remark: what was prompted; empty for nothing.
        statistics: of all.
        worst: those that fit least.
        errors: (N,) before and after, if they can be read.
    """

    remark: str
    statistics: tuple[LandmarkRow, ...]
    worst: tuple[LandmarkRow, ...]
    errors: tuple[np.ndarray, np.ndarray] | None


def alone(labels: tuple[Image, Image] | None) -> dict[int, str]:
    """Labels that only the map of the fixed image has, or only that of the moving one, so that no Dice is theirs, and which."""
    if labels is None:
        return {}
    fixed, moving = (_labels_of(image) - {0} for image in labels)
    return {label: f"in the {'fixed' if label in fixed else 'moving'} image only" for label in sorted(fixed ^ moving)}


def _labels_of(image: Image) -> set[int]:
    """All values of a label map; counted rather than sorted, which takes longer, where they are small."""
    flat = image.data.flatten()
    least, largest = (int(end) for end in flat.aminmax())
    if least < 0 or largest > COUNTED:
        return set(flat.unique().tolist())
    return set(torch.bincount(flat).nonzero().flatten().tolist())


def label_rows(scores: Scores, known: tuple[int, ...], lonely: Mapping[int, str]) -> tuple[LabelRow, ...]:
    """A row for every label that was scored, vanished, prompted, or is in one map only.

    Args:
        scores: the figures.
        known: labels of both maps, in the order of their colours.
        lonely: of `alone`.
    """
    rows = []
    for label in sorted({*scores.dice_after, *scores.vanished_labels, *scores.prompted_labels, *lonely}):
        before, after = (values.get(label, math.nan) for values in (scores.dice_before, scores.dice_after))
        remarks = [
            word
            for word, true in (("prompted", label in scores.prompted_labels), ("vanished", label in scores.vanished_labels))
            if true
        ]
        rows.append(
            LabelRow(
                label=label,
                colour=known.index(label) % 8 if label in known else 0,
                before=_figure(before),
                after=_figure(after),
                change="" if math.isnan(after - before) else f"{after - before:+.3f}".replace("-", MINUS),
                remark=", ".join([*remarks, *([lonely[label]] if label in lonely else [])]),
            )
        )
    return tuple(rows)


def landmark_table(scores: Scores, run: Run) -> Landmarks | None:
    """The errors of the landmarks, without those that were prompted unless all were; None where none were given."""
    if not scores.tre_after:
        return None
    names = {"mean": "mean", "median": "median", "p90": "90th percentile", "max": "largest"}
    statistics = tuple(
        LandmarkRow(name=text, before=_figure(scores.tre_before[key], 2), after=_figure(scores.tre_after[key], 2))
        for key, text in names.items()
    )
    remark = prompted_text(scores)
    if run.points is None:
        return Landmarks(remark=remark, statistics=statistics, worst=(), errors=None)
    from warpwright.evaluation import target_registration_error
    from warpwright.kernels import plainly

    fixed, moving = run.points
    with plainly():
        before, after = (
            target_registration_error(fixed.world, moving.world, through).numpy() for through in (run.initial, run.transform)
        )
    left_out = () if scores.tre_prompted else scores.prompted_landmarks
    counted = np.array([k for k in range(len(after)) if k not in left_out], dtype=int)
    order = counted[np.argsort(-after[counted], kind="stable")[:WORST]].tolist()
    worst = tuple(LandmarkRow(name=fixed.names[k], before=f"{before[k]:.2f}", after=f"{after[k]:.2f}") for k in order)
    return Landmarks(remark=remark, statistics=statistics, worst=worst, errors=(before[counted], after[counted]))


def stage_rows(stages: Sequence[Mapping[str, Any]]) -> tuple[StageRow, ...]:
    """A row for every stage, in order."""
    return tuple(
        StageRow(
            name=str(stage["name"]),
            steps=int(stage["steps"]),
            seconds=f"{stage['seconds']:.1f}",
            start=_energy(stage["energy_start"]),
            end=_energy(stage["energy_end"]),
            curve=sparkline(stage),
            message=str(stage["message"]),
        )
        for stage in stages
    )


def _energy(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}"


def trusted(record: Mapping[str, Any]) -> str:
    """What a score says of the whole image; empty where there is none."""
    percent = (record["scores"].get("trust") or {}).get("trusted_percent")
    return "" if percent is None else f"{percent:.1f} % of the image score at least 0.5."


def inputs(record: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    """Role, path and SHA-256 of every input."""
    found = []
    for role, value in record["inputs"].items():
        series = f", series {value['series']}" if "series" in value else ""
        found.append((role.replace("_", " "), f"{value.get('path', 'in memory')}{series}", str(value.get("sha256", ""))))
    return tuple(found)


def facts(record: Mapping[str, Any], grids: tuple[Grid, Grid]) -> tuple[tuple[str, str], ...]:
    """Names and values of a run that fit in a line each."""
    settings = record["settings"]
    deformable, linear = settings.get("deformable") or {}, settings.get("linear") or []
    kinds = [str(stage.get("kind")) for stage in linear] + ([str(deformable.get("kind"))] if deformable else [])
    model, threads = record.get("model") or {}, record.get("threads")
    return (
        *((f"{side.capitalize()} grid", _grid(grid)) for side, grid in zip(("fixed", "moving"), grids, strict=True)),
        ("Transform", " then ".join(kinds) or "none"),
        ("Similarity", str((settings.get("similarity") or {}).get("kind"))),
        *([("Model", f"{model.get('network')}, {model.get('path')}")] if model else []),
        *([("Photograph", str(record["photograph"]))] if record.get("photograph") else []),
        ("Time", f"{record['seconds']['registration']:.1f} s"),
        ("Device", f"{record.get('device')}, {threads} thread{'' if threads == 1 else 's'}"),
        ("Memory", f"{record.get('peak_memory_gb')} GB at most"),
    )


def _grid(grid: Grid) -> str:
    shape = TIMES.join(str(n) for n in grid.shape)
    return f"{shape} voxels of {TIMES.join(f'{s:.3g}' for s in grid.spacing)} mm"


def name_of(path: object, role: str) -> str:
    """What a heading calls a file."""
    return role if path is None else PurePath(str(path)).name or str(path)


def pretty(value: object) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _figure(value: float, digits: int = 3) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:.{digits}f}"
