"""Results in words: lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from warpwright.product.result import RegistrationResult
from warpwright.product.scores import energy_text, inverse_text, prompted_text
from warpwright.product.trust import trust_text

__all__ = ["fact_lines", "pair_lines", "result_lines"]

CASE_COLUMNS = {  # of a table of pairs: heading to where the figure is, and its format
    "Dice": (("mean_dice",), ".3f"),
    "HD95 mm": (("mean_hd95_mm",), ".2f"),
    "TRE mm": (("mean_tre_mm",), ".2f"),
    "folds %": (("transform", "folded_percent"), ".3g"),
}
COHORT = {"dice": "Dice", "hd95_mm": "HD95 mm", "assd_mm": "ASSD mm", "tre_mm": "TRE mm", "folded_percent": "folds %"}


def result_lines(result: RegistrationResult) -> list[str]:
    """The figures of a registration, before and after, and its notes; what the verdict warns of is not among them."""
    scores = result.scores
    lines = [f"similarity  {energy_text(scores.energy_before)} -> {energy_text(scores.energy_after)} (lower is better)"]
    before, after = scores.mean_dice
    if scores.dice_after:
        each = ", ".join(f"{k}: {scores.dice_before[k]:.3f} -> {v:.3f}" for k, v in scores.dice_after.items())
        mean = "all prompted" if math.isnan(after) else f"{before:.3f} -> {after:.3f}"
        lines.append(f"Dice        {mean} ({each})")
    if scores.tre_after:
        one, two = scores.tre_before, scores.tre_after
        more = ", ".join(filter(None, (f"median {two['median']:.2f}", f"max {two['max']:.2f}", prompted_text(scores))))
        lines.append(f"landmarks   {one['mean']:.2f} -> {two['mean']:.2f} mm ({more})")
    lines.append(f"folds       {scores.folded_percent:.3g} % of the voxels, least determinant {scores.min_determinant:.3g}")
    lines.append(f"inverse     {inverse_text(scores.inverse_consistency)}")
    if result.trust is not None:
        lines.append(f"score       {trust_text(result.trust.figures)}")
    stages = ", ".join(f"{stage.name} {stage.seconds:.1f}" for stage in result.registration.stages)
    lines.append(f"seconds     {result.record['seconds']['registration']:.1f} ({stages})")
    lines.extend(f"note        {note}" for note in result.notes)
    return lines


def pair_lines(scores: Mapping[str, Any]) -> Iterator[str]:
    """What `evaluate_pairs` found: a line a case, a line a label, then the cohort, Learn2Reg's numbers and the comparison."""
    cases = scores["pairs"]
    first = next(iter(cases.values()))
    columns = {name: how for name, how in CASE_COLUMNS.items() if how[0][0] in first}
    rows = [[name, *(_figure(f, path, form) for path, form in columns.values())] for name, f in cases.items()]
    yield from _aligned(["case", *columns], rows)
    if "labels" in scores:
        keys = ("dice", "hd95_mm", "assd_mm")
        labels = scores["labels"].items()
        rows = [[str(n), *(_figure(s, (key, "mean"), ".3f") for key in keys), str(s["dice"]["cases"])] for n, s in labels]
        yield from _aligned(["label", "Dice", "HD95 mm", "ASSD mm", "cases"], rows)
    found = scores["summary"]
    rows = [[COHORT[key], *_summary_cells(found[key])] for key in COHORT if key in found]
    yield from _aligned(["all cases", "mean", "sd", "median", "30 % no better than", "95 % interval of the mean"], rows)
    if "folding_cases" in found:
        yield f"cases that fold: {found['folding_cases']} of {found['cases']}"
    known = [f"{key} {value:.4g}" for key, value in scores["learn2reg"].items() if not math.isnan(value)]
    if known:
        yield f"Learn2Reg: {', '.join(known)}"
    for key, test in scores.get("against", {}).items():
        means = f"{test['mean']:.4g} against {test['mean_against']:.4g}, difference {test['difference']:.3g}"
        yield f"{COHORT[key]}: {means}, p {test['p_value']:.3g} (Wilcoxon signed-rank, {test['pairs']} pairs)"


def _figure(figures: Mapping[str, Any], path: Sequence[str], form: str) -> str:
    value: Any = figures
    for key in path:
        value = value[key]
    return format(value, form)


def _summary_cells(found: Mapping[str, Any]) -> list[str]:
    low, high = found["interval"]
    return [*(f"{found[key]:.4g}" for key in ("mean", "sd", "median", "p30")), f"{low:.4g} to {high:.4g}"]


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for cells in (header, *rows):
        head, *others = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        yield "  ".join([head.strip().ljust(widths[0]), *others])


def fact_lines(facts: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Nested plain values, one a line; a list of numbers on one line."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from fact_lines(value, indent + "  ")
        elif isinstance(value, Sequence) and any(isinstance(v, Mapping) for v in value):
            for number, part in enumerate(value, 1):
                yield f"{indent}{key} {number}:"
                yield from fact_lines(part, indent + "  ")
        else:
            yield f"{indent}{key}: {_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return " ".join(f"[{_shown(v)}]" if isinstance(v, (list, tuple)) else _shown(v) for v in value) or "none"
    return str(value)
