"""Slicer's markups files (`.mrk.json`): control points with names, in the coordinate system that the file states."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from warpwright.errors import BadInput
from warpwright.io.frames import lps

__all__ = ["markups_text", "read_markups"]

SCHEMA = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.0.json#"
SYSTEMS = {"LPS": lps(3), "1": lps(3), "RAS": np.ones(3), "0": np.ones(3)}  # old files have numbers
PLACED = ("defined", "")  # Slicer also stores points that were not placed yet


def read_markups(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """All placed control points: (N, 3) float64 RAS mm, and their names (label, or id, or number).

    Raises:
        BadInput: the file is no markups file, or has no point, or another coordinate system or unit.
    """
    try:
        markups = json.loads(path.read_text(encoding="utf-8"))["markups"]
        found = [entry for markup in markups for entry in _points(path, markup)]
        world = np.array([position for position, _ in found], dtype=np.float64).reshape(-1, 3)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: cannot be read, a Slicer markups file (.mrk.json) was expected") from error
    if not len(world) or not np.isfinite(world).all():
        raise BadInput(f"{path}: has no placed control points with finite positions, at least one was expected")
    return world, tuple(name or str(number) for number, (_, name) in enumerate(found, 1))


def _points(path: Path, markup: dict[str, Any]) -> list[tuple[np.ndarray, str]]:
    system, unit = str(markup.get("coordinateSystem", "LPS")), markup.get("coordinateUnits", "mm")
    if system not in SYSTEMS:
        raise BadInput(f"{path}: has the coordinate system {system}, LPS or RAS was expected")
    if unit != "mm" and "mm" not in list(unit):
        raise BadInput(f"{path}: has coordinates in {unit}, mm was expected")
    placed = [point for point in markup["controlPoints"] if point.get("positionStatus", "defined") in PLACED]
    return [
        (SYSTEMS[system] * np.array(point["position"], dtype=np.float64), str(point.get("label") or point.get("id") or ""))
        for point in placed
    ]


def markups_text(positions: Sequence[Sequence[float]], names: Sequence[str], system: str) -> str:
    """The text of a file with one fiducial list.

    Args:
        positions: N positions of 2 or 3 coordinates, mm; a 2-D point gets z = 0.
        names: N labels.
        system: "LPS" or "RAS", of the positions.
    """
    points = [
        {
            "id": str(number),
            "label": name,
            "description": "",
            "associatedNodeID": "",
            "position": [*position, 0.0][:3],
            "orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for number, (position, name) in enumerate(zip(positions, names, strict=True), 1)
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": system,
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": points,
    }
    return json.dumps({"@schema": SCHEMA, "markups": [markup]}, indent=1, allow_nan=False) + "\n"
