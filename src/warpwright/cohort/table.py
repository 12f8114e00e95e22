"""The results of a cohort as tables: `results.csv`, which is the same for the same work, and `timings.csv`, which is not."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from warpwright.cohort.provenance import State
from warpwright.cohort.work import Pair
from warpwright.io.atomic import replacing

__all__ = ["FIGURES", "RESULTS", "TIMINGS", "outcome", "write_tables"]

RESULTS, TIMINGS = "results.csv", "timings.csv"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
FIGURES = (
    "improved",
    "dice_before",
    "dice_after",
    "tre_before_mm",
    "tre_after_mm",
    "energy_before",
    "energy_after",
    "overlap",
    "folded_percent",
    "min_determinant",
    "sd_log_jacobian",
    "inverse_p95_mm",
    "vanished_labels",
)


def outcome(state: State) -> str:
    """What a table says of a pair: done, failed, or pending."""
    return state.status if state.status in ("done", "failed") else "pending"


def write_tables(folder: Path, pairs: Sequence[Pair], states: Sequence[State]) -> None:
    """Write both tables, in the order of the pairs; each whole or not at all.

    Raises:
        BadInput, Failed: they cannot be written.
    """
    both = list(zip(pairs, states, strict=True))
    _write(
        folder / RESULTS,
        ("id", "group", "split", "status", *FIGURES, "warnings", "sentence"),
        (
            (
                _harmless(pair.id),
                _harmless(pair.group),
                pair.split,
                outcome(state),
                *(_cell(state.record.get("figures", {}).get(name)) for name in FIGURES),
                _harmless("; ".join(state.record.get("warnings", ()))),
                _harmless(_cell(state.record.get("sentence"))),
            )
            for pair, state in both
        ),
    )
    _write(
        folder / TIMINGS,
        ("id", "seconds", "version"),
        ((_harmless(pair.id), _cell(state.record.get("seconds")), state.record.get("version", "")) for pair, state in both),
    )


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _cell(value: Any) -> str:
    """A value as text that reads back as the same number; "" for what is not known."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _harmless(text: str) -> str:
    """With an apostrophe before what a spreadsheet would take for a formula, as OWASP advises ("CSV Injection")."""
    return f"'{text}" if text.startswith(FORMULA) else text
