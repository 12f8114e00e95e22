"""A cohort of a BIDS data set as BIDS derivatives: its results under the names that other programs look for.

The files of the pairs' folders are there once more as hard links, or as copies where the disk has none. They follow what the
pairs' records say each time the tables are written, so a run that was cut off leaves nothing that a later one does not settle.
Names that a run gave and the next one does not, as other images were chosen, are removed; the pairs' folders stay.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from warpwright.cohort.bids import VERSION
from warpwright.cohort.place import read_small
from warpwright.cohort.provenance import State
from warpwright.cohort.rule import bids_names
from warpwright.cohort.work import Pair, Work
from warpwright.io.atomic import replacing
from warpwright.product.output import write_json

__all__ = ["DATASET", "write_derivatives"]

DATASET, IGNORE = "dataset_description.json", ".bidsignore"
NAMES = ".bids-names.json"  # those that were given when the tables were written last
IGNORED = ("sub-*_*/", "*.csv", "*.parquet", "cohort.json", "index.html", "*_jacobian.nii.gz", "*_score.nii.gz", "*_xfm.*")
WITH_SIDECAR = ("transform.h5", "inverse.h5", "moved.nii.gz")


def write_derivatives(folder: Path, work: Work, states: Sequence[State]) -> None:
    """Bring the BIDS names in the output folder up to date.

    Args:
        folder: of the cohort.
        work: its rule is of a BIDS data set.
        states: where each pair stands; one that is not done has no such files.

    Raises:
        BadInput, Failed: something cannot be written.
    """
    assert work.rule is not None
    root = work.rule.folder
    every = bids_names(work)
    wanted = {name for names in every for name in _with_sidecars(names)}
    given = {name for name in read_small(folder / NAMES).get("names", []) if isinstance(name, str)}
    write_json(folder / NAMES, {"names": sorted(given | wanted)})
    _write_text(folder / IGNORE, "".join(f"{line}\n" for line in IGNORED))
    write_json(folder / DATASET, _description(folder, root))
    for pair, state, names in zip(work.pairs, states, every, strict=True):
        for file, name in names.items():
            source, target = folder / pair.id / file, folder / name
            sidecar = folder / _sidecar_of(name)
            if state.status != "done" or file not in state.record.get("outputs", {}):
                for path in (target, sidecar):
                    path.unlink(missing_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)
            if file in WITH_SIDECAR and read_small(sidecar) != (told := _sidecar(root, pair)):
                write_json(sidecar, told)
    for name in given - wanted:
        if name.startswith("sub-") and ".." not in Path(name).parts:
            (folder / name).unlink(missing_ok=True)
    write_json(folder / NAMES, {"names": sorted(wanted)})


def _with_sidecars(names: Mapping[str, str]) -> Iterator[str]:
    for file, name in names.items():
        yield name
        if file in WITH_SIDECAR:
            yield _sidecar_of(name)


def _sidecar_of(name: str) -> str:
    return f"{name.removesuffix('.nii.gz').removesuffix('.h5')}.json"


def _description(folder: Path, root: Path) -> dict[str, Any]:
    return {
        "Name": f"Warpwright: registrations of {root.name}",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "Warpwright", "Version": version("warpwright")}],
        "DatasetLinks": {"raw": _quoted(os.path.relpath(root, folder).replace(os.sep, "/"))},
    }


def _sidecar(root: Path, pair: Pair) -> dict[str, Any]:
    """Which images the result is of; the space is that of the fixed one."""
    fixed, moving = (_uri(root, pair.files[side]) for side in ("fixed", "moving"))
    return {"Sources": [moving, fixed], "SpatialReference": fixed}


def _uri(root: Path, path: Path) -> str:
    return f"bids:raw:{_quoted(path.relative_to(root).as_posix())}" if path.is_relative_to(root) else path.as_uri()


def _quoted(path: str) -> str:
    """For a URI; bytes that are no UTF-8 stay as they are."""
    return quote(path, errors="surrogateescape")


def _link(source: Path, target: Path) -> None:
    """One file under a second name, or a copy of it if the disk has no such links.

    Raises:
        Failed, BadInput: it cannot be written.
    """
    with suppress(OSError):
        there, found = target.stat(), source.stat()
        if os.path.samestat(there, found) or (there.st_size, there.st_mtime_ns) == (found.st_size, found.st_mtime_ns):
            return
    other = target.with_name(f".{uuid4().hex[:12]}")
    try:
        os.link(source, other)
        os.replace(other, target)
    except OSError:
        other.unlink(missing_ok=True)
        with replacing(target) as temporary:
            shutil.copy2(source, temporary)


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
