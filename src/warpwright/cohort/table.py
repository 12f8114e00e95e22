"""A cohort as tables: `results.csv`, which is the same for the same work, and `timings.csv`, which is not; `pairs.csv`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from warpwright.cohort.provenance import State
from warpwright.cohort.work import Pair
from warpwright.errors import Failed
from warpwright.io.atomic import replacing, write_csv

__all__ = [
    "FIGURES",
    "PAIRS",
    "PARQUET",
    "RESULTS",
    "TIMINGS",
    "outcome",
    "require_parquet",
    "write_pairs",
    "write_parquet",
    "write_tables",
]

RESULTS, TIMINGS, PAIRS, PARQUET = "results.csv", "timings.csv", "pairs.csv", "results.parquet"
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
    write_csv(
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
    write_csv(
        folder / TIMINGS,
        ("id", "seconds", "version"),
        ((_harmless(pair.id), _cell(state.record.get("seconds")), state.record.get("version", "")) for pair, state in both),
    )


def write_pairs(folder: Path, pairs: Sequence[Pair]) -> None:
    """Write `pairs.csv`, as a table that `cohort` reads: the pairs as a rule made them, with absolute paths.

    Raises:
        BadInput, Failed: it cannot be written.
    """
    columns = ("id", *dict.fromkeys(column for pair in pairs for column in pair.files), "group")
    rows = ({"id": pair.id, "group": pair.group, **pair.files} for pair in pairs)
    write_csv(folder / PAIRS, columns, ([row.get(column, "") for column in columns] for row in rows))


def require_parquet() -> None:
    """That Parquet can be written.

    Raises:
        Failed: PyArrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise Failed('--parquet needs PyArrow, which is not installed: pip install "warpwright[parquet]"') from None


def write_parquet(folder: Path, pairs: Sequence[Pair], states: Sequence[State]) -> None:
    """Write `results.parquet`, whole or not at all: the columns of `results.csv`, with types.

    Texts are as they are, `improved` is a bool, `vanished_labels` and `warnings` are lists, all other figures are float64.

    Raises:
        BadInput, Failed: it cannot be written.
    """
    import pyarrow as pa
    from pyarrow.parquet import write_table

    kinds = {"improved": pa.bool_(), "vanished_labels": pa.list_(pa.int64())}
    columns = {
        "id": pa.array([_whole(pair.id) for pair in pairs], pa.string()),
        "group": pa.array([_whole(pair.group) for pair in pairs], pa.string()),
        "split": pa.array([pair.split for pair in pairs], pa.string()),
        "status": pa.array([outcome(state) for state in states], pa.string()),
        **{
            name: pa.array([state.record.get("figures", {}).get(name) for state in states], kinds.get(name, pa.float64()))
            for name in FIGURES
        },
        "warnings": pa.array([[*map(_whole, state.record.get("warnings", ()))] for state in states], pa.list_(pa.string())),
        "sentence": pa.array([_whole(state.record.get("sentence")) for state in states], pa.string()),
    }
    with replacing(folder / PARQUET) as temporary:
        write_table(pa.table(columns), temporary)


def _whole(text: str | None) -> str | None:
    """A text without halves of characters, which undecodable file names leave."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")


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
