"""The page of a cohort: one HTML file, in which the worst pairs come first, every column sorts, and pairs are rated."""

from __future__ import annotations

import base64
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from warpwright.cohort.provenance import State
from warpwright.cohort.table import RESULTS, outcome
from warpwright.cohort.work import Pair, Work
from warpwright.io.atomic import replacing
from warpwright.product.html import inline, part, template

__all__ = ["PAGE", "page", "write_page"]

PAGE = "index.html"
PACKAGE = "warpwright.cohort"
PICTURES = 300  # so many pairs, the worst, have their picture in the page: 3 MB or so
COLUMNS = (  # figure, heading, decimals, whether a high value is good
    ("dice_before", "Dice before", 3, True),
    ("dice_after", "Dice after", 3, True),
    ("tre_before_mm", "Landmarks before, mm", 2, False),
    ("tre_after_mm", "Landmarks after, mm", 2, False),
    ("energy_before", "Energy before", 4, False),
    ("energy_after", "Energy after", 4, False),
    ("folded_percent", "Folds, %", 3, False),
    ("min_determinant", "Least determinant", 3, True),
    ("sd_log_jacobian", "SD of log determinant", 3, False),
    ("inverse_p95_mm", "Inverse error, mm", 3, False),
)
JUDGED = ("dice_after", "tre_after_mm", "energy_after")  # the first that pairs have says which of them is worse


def write_page(folder: Path, work: Work, states: Sequence[State]) -> Path:
    """Write `index.html`, whole or not at all.

    Args:
        folder: of the cohort; small pictures are read from the folders of its pairs.
        work: the pairs.
        states: where each stands.

    Raises:
        BadInput, Failed: it cannot be written.
    """
    target = folder / PAGE
    text = page(work, states, folder)
    with replacing(target) as temporary:
        temporary.write_bytes(text.encode("utf-8", "replace"))
    return target


def page(work: Work, states: Sequence[State], folder: Path) -> str:
    """The HTML of a cohort."""
    both = list(zip(work.pairs, states, strict=True))
    there = [c for c in COLUMNS if any(_number(state, c[0]) is not None for _, state in both)]
    judged = next((c for c in there if c[0] in JUDGED), None)
    ordered = sorted(both, key=lambda one: _badness(one[1], judged))
    rows = [_row(pair, state, there) for pair, state in ordered]
    for row, (pair, state) in list(zip(rows, ordered, strict=True))[:PICTURES]:
        row["picture"] = _picture(folder / pair.id / "thumbnail.jpg") if "thumbnail.jpg" in _outputs(state) else None
    counts = {name: sum(outcome(state) == name for state in states) for name in ("done", "failed", "pending")}
    warned = sum(bool(state.record.get("warnings")) for state in states)
    return template(PACKAGE, "cohort.html.jinja").render(
        name=work.table.name,
        counts=counts,
        warned=warned,
        total=len(states),
        columns=[{"title": title, "high": high} for _, title, _, high in there],
        judged=None if judged is None else judged[1],
        summary=[_summary(column, states) for column in there],
        rows=rows,
        failures=[row for row in rows if row["status"] == "failed"],
        pictures=any(row["picture"] for row in rows),
        left=max(0, len(rows) - PICTURES),
        results=RESULTS,
        **inline(part(PACKAGE, "cohort.css"), part(PACKAGE, "cohort.js") + part(PACKAGE, "ratings.js")),
    )


def _number(state: State, name: str) -> float | None:
    value = state.record.get("figures", {}).get(name)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _outputs(state: State) -> Mapping[str, Any]:
    return state.record.get("outputs", {})


def _badness(state: State, judged: tuple[str, str, int, bool] | None) -> tuple[int, float]:
    """Failed pairs first, then those with warnings, and within each the worst figure, those without one last."""
    rank = {"failed": 0, "pending": 3}.get(outcome(state), 1 if state.record.get("warnings") else 2)
    value = None if judged is None else _number(state, judged[0])
    if value is None or judged is None:
        return rank, math.inf
    return rank, value if judged[3] else -value


def _row(pair: Pair, state: State, columns: Sequence[tuple[str, str, int, bool]]) -> dict[str, Any]:
    where, outputs = quote(pair.id, safe=""), _outputs(state)
    numbers = [_number(state, name) for name, *_ in columns]
    seconds = state.record.get("seconds")
    return {
        "id": pair.id,
        "group": pair.group,
        "status": outcome(state),
        "sentence": state.record.get("sentence"),
        "warnings": list(state.record.get("warnings", ())),
        "cells": [
            ("", "") if value is None else (repr(value), f"{value:.{digits}f}")
            for value, (_, _, digits, _) in zip(numbers, columns, strict=True)
        ],
        "seconds": ("", "") if seconds is None else (repr(float(seconds)), f"{seconds:.1f}"),
        "figure": f"{where}/figure.png" if "figure.png" in outputs else None,
        "result": f"{where}/result.json" if "result.json" in outputs else None,
        "report": f"{where}/report.html" if "report.html" in outputs else None,
        "picture": None,
    }


def _summary(column: tuple[str, str, int, bool], states: Sequence[State]) -> tuple[str, str, str, str]:
    """Heading, median, and the range of a column."""
    name, title, digits, _ = column
    values = [value for state in states if (value := _number(state, name)) is not None]
    middle, least, most = statistics.median(values), min(values), max(values)
    return title, f"{middle:.{digits}f}", f"{least:.{digits}f}", f"{most:.{digits}f}"


def _picture(path: Path) -> str | None:
    try:
        return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    except OSError:
        return None
