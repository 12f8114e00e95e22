"""The verdict as a table: what was looked at, what was found, what would have been good enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from warpwright.product.scores import (
    APART,
    INEXACT,
    Scores,
    better,
    energy_text,
    inverse_text,
    nothing_to_improve,
    prompted_text,
)

__all__ = ["Check", "Headline", "checks", "headline"]

Status = Literal["good", "warn", "bad", "none"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One row: its name, what was found, what is asked for, and how that stands ("none": not measured)."""

    name: str
    found: str
    asked: str
    status: Status


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The verdict in a few words, and what it rests on."""

    status: Status
    text: str
    basis: str


def headline(verdict: Mapping[str, Any], scores: Scores, rows: Sequence[Check]) -> Headline:
    """The verdict that was recorded, for the top of the page.

    Args:
        verdict: `improved`, `folds`, `sentences`, `notes` of `result.json`.
        scores: the figures it was given on.
        rows: of `checks`, on the same figures; where one failed there was something to improve.
    """
    warnings = len(verdict["sentences"])
    count = f"{warnings} warning{'s' if warnings > 1 else ''}"
    judged = {"labels": scores.mean_dice, "landmarks": scores.mean_tre}
    basis = [name for name, (_, after) in judged.items() if not math.isnan(after)]
    rests = (
        f"Judged by similarity and by {' and '.join(basis)}." if basis else f"Judged by similarity alone: {_unjudged(scores)}."
    )
    if verdict["improved"]:
        return Headline(
            status="warn" if warnings else "good", text=f"Improved, with {count}" if warnings else "Improved", basis=rests
        )
    if not nothing_to_improve(scores) or any(row.status == "bad" for row in rows):
        return Headline(status="bad", text="Not improved", basis=rests)
    text = f"Nothing to improve, with {count}" if warnings else "Nothing to improve"
    return Headline(status="warn" if warnings else "good", text=text, basis=rests)


def _unjudged(scores: Scores) -> str:
    """Why neither labels nor landmarks have a part in a verdict."""
    given = [name for name, after in (("labels", scores.dice_after), ("landmarks", scores.tre_after)) if after]
    return f"the {' and '.join(given)} that were given were prompted" if given else "no labels or landmarks"


def checks(scores: Scores, voxel: float) -> tuple[Check, ...]:
    """All rows, in the order in which a person asks.

    Args:
        scores: the figures.
        voxel: finest spacing of the fixed image, mm.
    """
    return (
        _similarity(scores),
        Check(
            name="Images overlap",
            found=f"{100 * scores.overlap:.3g} % of the smaller one",
            asked=f"at least {100 * APART:g} %",
            status=_good(scores.overlap >= APART),
        ),
        _labels(scores),
        _landmarks(scores),
        Check(
            name="Folds",
            found=f"{scores.folded_percent:.3g} % of the voxels; least volume ratio {scores.min_determinant:.2g}",
            asked="none",
            status=_good(not scores.folded_percent > 0, "warn"),
        ),
        _inverse(scores, voxel),
        _vanished(scores),
    )


def _good(well: bool, otherwise: Status = "bad") -> Status:
    return "good" if well else otherwise


def _similarity(scores: Scores) -> Check:
    before, after = energy_text(scores.energy_before), energy_text(scores.energy_after)
    equal = nothing_to_improve(scores)
    return Check(
        name="Similarity energy",
        found=f"{before} → {after}{', alike from the start' if equal else ''}",
        asked="lower than before",
        status=_good(equal or better(scores)),
    )


def _labels(scores: Scores) -> Check:
    before, after = scores.mean_dice
    if not scores.dice_after:
        return Check(name="Mean Dice", found="no labels given", asked="not lower than before", status="none")
    if math.isnan(after):
        return Check(name="Mean Dice", found="all labels were prompted", asked="not lower than before", status="none")
    return Check(
        name="Mean Dice",
        found=f"{before:.3f} → {after:.3f}",
        asked="not lower than before",
        status=_good(not after < before - 1e-6),
    )


def _landmarks(scores: Scores) -> Check:
    if not scores.tre_after:
        return Check(name="Landmark error", found="no landmarks given", asked="not larger than before", status="none")
    before, after = scores.tre_before["mean"], scores.tre_after["mean"]
    told = prompted_text(scores)
    return Check(
        name="Landmark error",
        found=f"{before:.2f} → {after:.2f} mm on average{told and f', {told}'}",
        asked="not larger than before",
        status="none" if scores.tre_prompted else _good(not after > before + 1e-6),
    )


def _inverse(scores: Scores, voxel: float) -> Check:
    error = scores.inverse_consistency["p95"]
    unknown = math.isnan(error)
    return Check(
        name="There and back",
        found=inverse_text(scores.inverse_consistency),
        asked=f"95th percentile at most {INEXACT * voxel:.2g} mm, half a voxel",
        status="none" if unknown else _good(not error > INEXACT * voxel, "warn"),
    )


def _vanished(scores: Scores) -> Check:
    gone = ", ".join(str(label) for label in scores.vanished_labels)
    if not scores.dice_after:
        return Check(name="Labels that vanish", found="no labels given", asked="none", status="none")
    return Check(name="Labels that vanish", found=gone or "none", asked="none", status=_good(not gone, "warn"))
