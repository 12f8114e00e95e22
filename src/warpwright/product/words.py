"""Results in words: lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from warpwright.product.result import RegistrationResult
from warpwright.product.scores import energy_text, inverse_text

__all__ = ["fact_lines", "result_lines"]


def result_lines(result: RegistrationResult) -> list[str]:
    """The figures of a registration, before and after, and its notes; what the verdict warns of is not among them."""
    scores = result.scores
    lines = [f"similarity  {energy_text(scores.energy_before)} -> {energy_text(scores.energy_after)} (lower is better)"]
    before, after = scores.mean_dice
    if not math.isnan(after):
        each = ", ".join(f"{k}: {scores.dice_before[k]:.3f} -> {v:.3f}" for k, v in scores.dice_after.items())
        lines.append(f"Dice        {before:.3f} -> {after:.3f} ({each})")
    if scores.tre_after:
        one, two = scores.tre_before, scores.tre_after
        lines.append(
            f"landmarks   {one['mean']:.2f} -> {two['mean']:.2f} mm (median {two['median']:.2f}, max {two['max']:.2f})"
        )
    lines.append(f"folds       {scores.folded_percent:.3g} % of the voxels, least determinant {scores.min_determinant:.3g}")
    lines.append(f"inverse     {inverse_text(scores.inverse_consistency)}")
    stages = ", ".join(f"{stage.name} {stage.seconds:.1f}" for stage in result.registration.stages)
    lines.append(f"seconds     {result.record['seconds']['registration']:.1f} ({stages})")
    lines.extend(f"note        {note}" for note in result.notes)
    return lines


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
