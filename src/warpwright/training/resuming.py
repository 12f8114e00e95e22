"""What must be the same of two trainings for the second to go on from where the first was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warpwright.data import Cohort

__all__ = ["changed", "cohort_digests"]

MAY_CHANGE = ("log_every", "checkpoint_every", "tensorboard", "card", "weights")  # between a run and its resumption
PLACES = ("manifest", "images", "labels", "cache_gb")  # of the data, which may have been moved: see `cohort_digests`


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first key at which settings, as mappings, differ in what a run depends on, and what they say there as JSON.

    Args:
        before: of a run, as its checkpoint or its `training.json` holds them.
        now: of the one that is to go on.

    Returns:
        Dotted key, value before, value now; None if there is no difference.
    """
    return _difference(_comparable(before), _comparable(now))


def cohort_digests(cohort: Cohort) -> dict[str, str]:
    """Digests of what decides what is learned from images, row by row and wherever they lie, by what they are of.

    Of files the sizes count. Pairs are told by the ids, and by the settings that make them.
    """
    files = [(case.image, case.mask, case.labels, case.points) for case in cohort.cases]
    found = {
        "ids": [case.id for case in cohort.cases],
        "splits": [case.split for case in cohort.cases],
        "groups": [case.group for case in cohort.cases],
        "masks, labels or points": [[path is not None for path in each] for each in files],
        "sizes in bytes": [[_bytes(path) for path in each] for each in files],
    }
    return {what: hashlib.sha256(json.dumps(values).encode()).hexdigest() for what, values in found.items()}


def _bytes(path: Path | None) -> int:
    """The size of a file, or of all in a folder of DICOM slices; 0 for none."""
    if path is None:
        return 0
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What counts; through JSON, as a checkpoint holds it."""
    found = {k: v for k, v in json.loads(json.dumps(settings)).items() if k not in MAY_CHANGE}
    return {**found, "data": {k: v for k, v in found["data"].items() if k not in PLACES}}


def _difference(before: Any, now: Any, where: str = "") -> tuple[str, str, str] | None:
    """The first key at which two settings differ, and what they say there; None if they are the same."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*now, *before])
        each = (_difference(before.get(k), now.get(k), f"{where}.{k}" if where else k) for k in keys)
        return next((found for found in each if found is not None), None)
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return _difference(dict(enumerate(before)), dict(enumerate(now)), where)
    return None if before == now else (where, json.dumps(before), json.dumps(now))
