"""The table of results as Parquet: what the CSV says, with types."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow.parquet import read_table
from small_cohort import options, run

from warpwright.cohort.provenance import State
from warpwright.cohort.run import make_plan
from warpwright.cohort.table import FIGURES, write_parquet, write_tables
from warpwright.cohort.work import Pair, read_work
from warpwright.errors import Failed

FIGURED = {"improved": True, "dice_after": 0.1 + 0.2, "energy_before": None, "vanished_labels": [1, 2], "folded_percent": 0}
STATES = (
    State(status="done", record={"figures": FIGURED, "warnings": ["a; b", "c"], "sentence": None}),
    State(status="failed", record={"figures": {}, "warnings": [], "sentence": "=cmd \ud800"}),
    State(status="changed", record={}),
)


def as_csv(value: object) -> str:
    """A value as the CSV has it, harmless apostrophes left out."""
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def test_columns_types_and_values_are_those_of_the_csv(tmp_path):
    pairs = [Pair(id=name, files={}, group="g") for name in ("a", "b", "c,d")]
    write_tables(tmp_path, pairs, STATES)
    write_parquet(tmp_path, pairs, STATES)
    table = read_table(tmp_path / "results.parquet")
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert table.column_names == list(rows[0])
    assert table.schema.field("dice_after").type == pa.float64()
    assert table.schema.field("improved").type == pa.bool_()
    assert table.schema.field("vanished_labels").type == pa.list_(pa.int64())
    for row, told in zip(rows, table.to_pylist(), strict=True):
        for name in ("id", "group", "split", "status", *FIGURES):
            if name in FIGURES and isinstance(told[name], float):
                assert float(row[name]) == told[name]
            else:
                assert row[name] == as_csv(told[name]), name
        assert row["warnings"] == "; ".join(told["warnings"])
    assert [told["sentence"] for told in table.to_pylist()] == [None, "=cmd ?", None]


def test_a_cohort_leaves_the_same_bytes_for_the_same_work(finished, images):
    _, folder = finished()
    work = read_work(images / "pairs.csv", options(images, parquet=True))
    assert run(work, folder).todo == ()
    first = (folder / "results.parquet").read_bytes()
    assert read_table(folder / "results.parquet")["status"].to_pylist() == ["done"] * 3 + ["failed"]
    run(work, folder)
    assert (folder / "results.parquet").read_bytes() == first


def test_without_pyarrow_one_sentence_says_what_to_install(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    work = read_work(images / "pairs.csv", options(images, parquet=True))
    with pytest.raises(Failed, match=r'pip install "warpwright\[parquet\]"'):
        make_plan(work, tmp_path / "out")
    assert not Path(tmp_path / "out").exists()
