"""Rows of a table of images or of pairs, checked: a `.csv` with a header or a `.jsonl` with one object a line, in UTF-8."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args

from warpwright.errors import BadInput, did_you_mean, first_of
from warpwright.io.image import suffix_of

__all__ = ["SIDES", "Split", "check_rows", "read_cells", "read_rows"]

Split = Literal["train", "validation", "test"]

EXTRAS = ("mask", "labels", "points")  # files that an image may come with
SIDES = ("fixed", "moving")
OF_IMAGES = ("image", *EXTRAS)
OF_PAIRS = (*SIDES, *(f"{side}_{extra}" for extra in EXTRAS for side in SIDES))
COLUMNS = ("id", *OF_IMAGES, *OF_PAIRS, "group", "split")


def read_rows(table: Path) -> tuple[bool, list[dict[str, str]]]:
    """Whether a table has pairs rather than images, and its rows, at least one, cells without spaces around them.

    Raises:
        BadInput: it cannot be read, has no rows, or other columns than such a table.
    """
    columns, rows = read_cells(table)
    return _of_pairs(table, columns), rows


def check_rows(table: Path, rows: Sequence[Mapping[str, str]], needed: Sequence[str], *, of_pairs: bool) -> None:
    """Refuse empty cells where one is needed, ids that are there twice, unknown splits and files that are not there."""
    _check_cells(table, rows, needed)
    _check_files(table, rows, OF_PAIRS if of_pairs else OF_IMAGES)


def read_cells(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a table, whatever they are, and its rows, at least one; cells without spaces around them.

    Raises:
        BadInput: it cannot be read, has no rows, or one that does not go with its header.
    """
    suffix = suffix_of(table, (".csv", ".jsonl"), "a table of images or pairs")
    try:
        text = table.read_text(encoding="utf-8-sig")
        columns, rows = _rows_of_csv(table, text) if suffix == ".csv" else _rows_of_lines(table, text)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{table}: cannot be read ({error}), expected a .csv or .jsonl table in UTF-8") from None
    if not rows:
        raise BadInput(f"{table}: has no rows, expected one for each image or pair")
    return columns, rows


def _rows_of_csv(table: Path, text: str) -> tuple[list[str], list[dict[str, str]]]:
    lines = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), strict=True)]
    header, *rows = [row for row in lines if any(row)] or [[]]
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise BadInput(f"{table}: has the column {first_of(map(repr, twice))} more than once, expected each once")
    odd = [f"row {k} with {len(row)}" for k, row in enumerate(rows, 1) if len(row) != len(header)]
    if odd:
        raise BadInput(f"{table}: has {first_of(odd)} cells, expected {len(header)} as in the header")
    return header, [dict(zip(header, row, strict=True)) for row in rows]


def _rows_of_lines(table: Path, text: str) -> tuple[list[str], list[dict[str, str]]]:
    rows: list[dict[str, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found: Any = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(type(value) in (str, int, NoneType) for value in found.values()):
            raise BadInput(f"{table}: line {number} is not one JSON object of strings, expected keys as the columns of a .csv")
        rows.append({key: "" if value is None else str(value).strip() for key, value in found.items()})
    return list(dict.fromkeys(key for row in rows for key in row)), rows


def _of_pairs(table: Path, columns: Sequence[str]) -> bool:
    """Whether a table with these columns has pairs; otherwise it has images."""
    for column in columns:
        if column not in COLUMNS:
            raise BadInput(f"{table}: has the unknown column {column!r}{did_you_mean(column, COLUMNS)}")
    images, pairs = ([name for name in columns if name in kind] for kind in (OF_IMAGES, OF_PAIRS))
    if images and pairs:
        found = f"{','.join(images)} of a table of images and {','.join(pairs)} of a table of pairs"
        raise BadInput(f"{table}: has the columns {found}, expected either")
    missing = [name for name in ("id", *(SIDES if pairs else ("image",))) if name not in columns]
    if missing:
        wanted = "id,fixed,moving" if pairs else "id,image or id,fixed,moving"
        raise BadInput(f"{table}: has the columns {','.join(columns)}, expected {wanted} ({first_of(missing)} is missing)")
    return bool(pairs)


def _check_cells(table: Path, rows: Sequence[Mapping[str, str]], needed: Sequence[str]) -> None:
    """Refuse empty cells, ids that are there twice and unknown splits."""
    empty = [f"row {k} ({name})" for k, row in enumerate(rows, 1) for name in needed if not row.get(name)]
    if empty:
        raise BadInput(f"{table}: has empty cells in {first_of(empty)}, expected {', '.join(needed)} in each row")
    twice = [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
    if twice:
        raise BadInput(f"{table}: the id {first_of(map(repr, twice))} is there more than once, expected each once")
    splits = get_args(Split)
    odd = [f"{row['id']!r} ({row['split']})" for row in rows if row.get("split") and row["split"] not in splits]
    if odd:
        raise BadInput(f"{table}: rows of an unknown split: {first_of(odd)}; expected {', '.join(splits)} or nothing for train")


def _check_files(table: Path, rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> None:
    """Refuse files that are not there, all by name, so that they can be looked for."""
    nowhere: list[str] = []
    for row in rows:
        bad = [f"{name} {row[name]}" for name in columns if row.get(name) and not os.path.exists(table.parent / row[name])]
        nowhere.extend([f"{row['id']!r} ({', '.join(bad)})"] if bad else [])
    if nowhere:
        raise BadInput(f"{table}: rows that point nowhere: {', '.join(nowhere)}; expected files, relative to the table")
