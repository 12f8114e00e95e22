"""What is known of a pair that was run: from which bytes, how, with what outcome. `ID/provenance.json`, written last.

A pair counts as run if its record is there, says the options that are asked for now, and its input files are what they
were: of the same number, size and time of change, or, where a time differs (a copy, another place), of the same SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from warpwright.cohort.work import Pair
from warpwright.product.inputs import digest
from warpwright.product.output import write_json

__all__ = [
    "OUTPUTS",
    "RECORD",
    "Seen",
    "State",
    "Status",
    "clear",
    "described",
    "output_sizes",
    "read_record",
    "same_run",
    "state_of",
    "write_record",
]

Status = Literal["done", "failed", "missing", "changed"]
RECORD = "provenance.json"
FORMAT = 1  # of a record; another one counts as missing
OUTPUTS = (
    "transform.h5",
    "inverse.h5",
    "moved.nii.gz",
    "moved.png",
    "jacobian.nii.gz",
    "score.nii.gz",
    "figure.png",
    "thumbnail.jpg",
    "result.json",
    "report.html",
)


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a pair stands.

    Args:
        status: "done"; "failed", and the record says why; "missing", not run, or its results are gone; "changed", run with
            other options or from other files.
        record: of the run, if it is done or failed; else empty.
        old: what the record was, if files are known by their SHA-256 only, so that it should be written anew.
    """

    status: Status
    record: Mapping[str, Any]
    old: Mapping[str, Any] | None = None


class Seen:
    """What was found of files in one look at a cohort: each is looked at once, and its bytes read once at most."""

    def __init__(self) -> None:
        self._stats: dict[Path, list[Any]] = {}
        self._sums: dict[Path, str] = {}

    def stat(self, path: Path) -> list[Any]:
        """As `described` has it.

        Raises:
            OSError: it is gone.
        """
        if path not in self._stats:
            self._stats[path] = _stat(path)
        return self._stats[path]

    def sha256(self, path: Path) -> str:
        """Of its bytes.

        Raises:
            OSError: it cannot be read.
        """
        if path not in self._sums:
            self._sums[path] = digest(path)["sha256"]
        return self._sums[path]


def described(path: Path) -> dict[str, Any]:
    """An input as a record has it: path, [files, bytes, time of change in ns], SHA-256 of its bytes.

    Of a folder the third is the SHA-256 of its files' names, sizes and times.

    Raises:
        OSError: it cannot be read.
    """
    return {"path": str(path), "stat": _stat(path), "sha256": digest(path)["sha256"]}


def output_sizes(folder: Path) -> dict[str, int]:
    """Name to bytes of the results that are in a pair's folder."""
    try:
        found = {entry.name: entry.stat().st_size for entry in os.scandir(folder)}
    except OSError:
        return {}
    return {name: found[name] for name in OUTPUTS if name in found}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a pair, whole or not at all.

    Raises:
        BadInput, Failed: it cannot be written.
    """
    write_json(folder / RECORD, {"format": FORMAT, **record})


def clear(folder: Path) -> None:
    """Remove the results of an earlier run of a pair, the record first; other files stay.

    Raises:
        OSError: they cannot be removed.
    """
    for name in (RECORD, *OUTPUTS):
        (folder / name).unlink(missing_ok=True)


def state_of(pair: Pair, folder: Path, options: str, wanted: Collection[str], seen: Seen) -> State:
    """Where a pair stands.

    Args:
        pair: the row of the table.
        folder: its folder.
        options: digest of the options.
        wanted: results that it must have.
        seen: what was found of files earlier in the same look; is added to.
    """
    record = read_record(folder)
    if record is None:
        return State(status="missing", record={})
    try:
        known: Mapping[str, Any] = record["inputs"]
        if record["options"] != options or known.keys() != pair.files.keys():
            return State(status="changed", record={})
        fresh = {column: _compared(known[column], path, seen) for column, path in pair.files.items()}
        if None in fresh.values():
            return State(status="changed", record={})
        if record["state"] == "done":
            there = output_sizes(folder)
            if not set(wanted) <= there.keys() or any(there.get(name) != size for name, size in record["outputs"].items()):
                return State(status="missing", record={})
        status: Status = "done" if record["state"] == "done" else "failed"
        moved = any(new is not known[column] for column, new in fresh.items())
        return State(status=status, record={**record, "inputs": fresh}, old=record if moved else None)
    except (KeyError, TypeError, AttributeError):  # no record of ours
        return State(status="missing", record={})


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a pair; None if there is none of ours."""
    try:
        found = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def same_run(first: Mapping[str, Any] | None, second: Mapping[str, Any]) -> bool:
    """Whether two records are of the same options and the same bytes."""
    try:
        return (
            first is not None
            and first["options"] == second["options"]
            and {name: entry["sha256"] for name, entry in first["inputs"].items()}
            == {name: entry["sha256"] for name, entry in second["inputs"].items()}
        )
    except (KeyError, TypeError, AttributeError):  # no record of ours
        return False


def _compared(known: Mapping[str, Any], path: Path, seen: Seen) -> Mapping[str, Any] | None:
    """The entry of an input that is what it was, brought up to date; None if it is another or gone."""
    try:
        found = seen.stat(path)
        if known["path"] == str(path) and known["stat"] == found:
            return known
        if known["stat"][:2] != found[:2] or known["sha256"] != seen.sha256(path):
            return None
    except OSError:
        return None
    return {**known, "path": str(path), "stat": found}


def _stat(path: Path) -> list[Any]:
    """Files, bytes and time of change (ns) of a file; of a folder, whose files may change places, a digest of each one's."""
    if not os.path.isdir(path):
        found = os.stat(path)
        return [1, found.st_size, found.st_mtime_ns]
    files = sorted((entry.name, entry.stat()) for entry in os.scandir(path) if entry.is_file())
    told = json.dumps([(name, found.st_size, found.st_mtime_ns) for name, found in files])
    return [len(files), sum(found.st_size for _, found in files), hashlib.sha256(os.fsencode(told)).hexdigest()]
