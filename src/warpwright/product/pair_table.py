"""The table of pairs: one row a pair, in a `.csv` or `.jsonl` as training reads it; paths are relative to the file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from warpwright.data.rows import read_cells
from warpwright.errors import BadInput
from warpwright.io.ants import ants_files

__all__ = ["Row", "read_pairs"]

Row: TypeAlias = Mapping[str, Path]  # column to the file it names

TOGETHER = (  # columns that make one thing to score
    ("fixed_labels", "moved_labels"),
    ("fixed_labels", "moving_labels", "transform"),
    ("fixed_points", "moving_points"),
    ("transform",),
)
GRIDS = {"fixed": "fixed_labels", "moving": "moving_labels"}  # images whose grid is asked for, unless labels have it


def read_pairs(table: str | Path) -> dict[str, Row]:
    """The rows of a table by their id, with the files that are to be scored, all of which exist.

    Args:
        table: with the column id and any of: fixed_labels and moved_labels; fixed_labels, moving_labels and
            transform; fixed_points and moving_points; transform. Where points or a transform are scored the images fixed
            and moving are used for their grids. Other columns are not looked at.

    Returns:
        id to column to path, for the columns that are used.

    Raises:
        BadInput: the table cannot be read, a column that is needed is missing, an id is missing or there twice, or rows
            name files that do not exist (one sentence for all).
    """
    table = Path(table)
    header, rows = read_cells(table)
    columns = _used(table, header)
    names = [row.get("id", "") for row in rows]
    if not all(names):
        raise BadInput(f"{table}: row {1 + [bool(n) for n in names].index(False)} has no id, expected one in each row")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BadInput(f"{table}: the id {', '.join(map(repr, twice))} is there more than once, expected each once")
    nowhere = [f"{row['id']!r} ({', '.join(bad)})" for row in rows if (bad := _nowhere(table, row, columns))]
    if nowhere:
        raise BadInput(f"{table}: rows that point nowhere: {', '.join(nowhere)}; expected files, relative to the table")
    return {row["id"]: {column: table.parent / row[column] for column in columns} for row in rows}


def _used(table: Path, header: Sequence[str]) -> list[str]:
    """The columns whose files are read.

    Raises:
        BadInput: there is no id, nothing to score, or a column without those it is scored with.
    """
    whole = [columns for columns in TOGETHER if {"id", *columns} <= set(header)]
    if not whole:
        wanted = "; ".join(",".join(columns) for columns in TOGETHER)
        found = f"the columns {','.join(header)}"
        raise BadInput(f"{table}: has {found}, expected the column id and those of one or more of these sets: {wanted}")
    used = dict.fromkeys(column for columns in whole for column in columns)
    spare = {"moving_labels"} if "moved_labels" in used else set[str]()  # of a table that was also registered from
    for column in header:
        sets = [",".join(columns) for columns in TOGETHER if column in columns]
        if sets and column not in used and column not in spare:
            raise BadInput(f"{table}: has the column {column} without those it is scored with, expected {' or '.join(sets)}")
    if "transform" in used or "fixed_points" in used:
        used |= dict.fromkeys(image for image, labels in GRIDS.items() if image in header and labels not in used)
    return list(used)


def _nowhere(table: Path, row: Mapping[str, str], columns: Sequence[str]) -> list[str]:
    """What is wrong with the files of a row: each column that is empty or names nothing."""
    cells = {column: row.get(column, "") for column in columns}
    return [f"{column} {cell or 'is empty'}" for column, cell in cells.items() if not cell or not _exists(table.parent / cell)]


def _exists(path: Path) -> bool:
    """Whether a path is there: a file, a folder, or the prefix of ANTs' files."""
    return os.path.exists(path) or any(os.path.exists(file) for file in ants_files(path)[:2])
