"""Landmarks: CSV tables in a named space, and Slicer's `.mrk.json`, which names its own.

A CSV has a header with columns x, y, z (x, y in 2-D) and, if the points have names, one of id, name or label; its space
must be said: "ras" or "lps" millimetres, or "voxel" of a grid (centres at whole numbers, first voxel 0). Two sets of
points may share a table as columns `fixed_x ... moving_z`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.io.atomic import replacing, write_csv
from warpwright.io.frames import lps
from warpwright.io.image import suffix_of
from warpwright.io.markups import markups_text, read_markups

__all__ = ["Points", "Space", "read_points", "write_points"]

Space = Literal["ras", "lps", "voxel"]
SLICER, TABLE = ".mrk.json", ".csv"
NAMES = ("id", "name", "label")


@dataclass(frozen=True, eq=False)
class Points:
    """Named points in the world.

    Args:
        world: (N, D) float64, RAS+ mm.
        names: one for each point.

    Raises:
        BadInput: there are not as many names as points.
    """

    world: Tensor
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.world):
            raise BadInput(f"{len(self.world)} points need as many names, got {len(self.names)}")


def read_points(
    path: str | Path,
    space: Space | None = None,
    grid: Grid | None = None,
    columns: Literal["fixed", "moving"] | None = None,
) -> Points:
    """Points from a `.csv` or `.mrk.json` file.

    Args:
        path: the file.
        space: of the numbers in a CSV; a `.mrk.json` says its own and ignores this.
        grid: whose voxels the space "voxel" means; a 2-D grid also takes x and y alone of a `.mrk.json`.
        columns: which set of a table that holds two.

    Raises:
        BadInput: missing file, unknown suffix, missing space, grid, column or number, no point.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: does not exist, a file of points was expected")
    if suffix_of(path, (SLICER, TABLE), "points") == SLICER:
        world, names = read_markups(path)
        world = world[:, : grid.dim] if grid is not None else world
        return Points(torch.from_numpy(np.ascontiguousarray(world)), names)
    frame = _space(path, space, grid)
    values, names = _read_table(path, columns)
    if grid is not None and values.shape[1] != grid.dim:
        raise BadInput(f"{path}: has points of {values.shape[1]} coordinates, {grid.dim} as the image's axes were expected")
    points = torch.from_numpy(values)
    if frame == "voxel" and grid is not None:
        return Points(grid.to_world(points), names)
    return Points(points * torch.from_numpy(lps(points.shape[1])) if frame == "lps" else points, names)


def _space(path: Path, space: Space | None, grid: Grid | None) -> Space:
    if space not in ("ras", "lps", "voxel"):
        raise BadInput(f"{path}: a CSV does not say the space of its points (got {space}), expected ras, lps or voxel")
    if space == "voxel" and grid is None:
        raise BadInput(f"{path}: points in voxels need the image whose voxels they are, none was given")
    return space


def _read_table(path: Path, columns: str | None) -> tuple[np.ndarray, tuple[str, ...]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read, a CSV table of points was expected") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    axes = _axes(path, header, f"{columns}_" if columns else "")
    if len(rows) < 2:
        raise BadInput(f"{path}: has no points, at least one row below the header was expected")
    named = next((header.index(name) for name in NAMES if name in header), None)
    values, names = [], []
    for number, row in enumerate(rows[1:], 1):
        values.append(_numbers(path, number, row, axes))
        names.append(row[named].strip() if named is not None and named < len(row) else str(number))
    return np.array(values, dtype=np.float64), tuple(names)


def _axes(path: Path, header: list[str], prefix: str) -> list[int]:
    wanted = [f"{prefix}{axis}" for axis in "xyz"]
    found = [header.index(name) for name in wanted if name in header]
    if wanted[0] in header and wanted[1] in header:
        return found
    hint = " (it has two sets of points: fixed or moving must be chosen)" if "fixed_x" in header and not prefix else ""
    raise BadInput(f"{path}: found the columns {', '.join(header) or 'none'}; expected {', '.join(wanted)}{hint}")


def _numbers(path: Path, number: int, row: list[str], axes: Sequence[int]) -> list[float]:
    try:
        values = [float(row[axis]) for axis in axes]
    except (ValueError, IndexError) as error:
        raise BadInput(f"{path}: its point {number} is not {len(axes)} numbers ({','.join(row)})") from error
    if not np.isfinite(values).all():
        raise BadInput(f"{path}: its point {number} is NaN or inf, finite coordinates were expected")
    return values


def write_points(path: str | Path, points: Points, space: Space | None = None, grid: Grid | None = None) -> None:
    """Write points to a `.csv` (id, x, y, z in `space`) or `.mrk.json` (LPS unless `space` is "ras"), atomically.

    Args:
        path: file; an old one is replaced.
        points: in the world.
        space: of the numbers in the file; a CSV needs it.
        grid: whose voxels the space "voxel" means.

    Raises:
        BadInput: unknown suffix, missing space or grid, or voxels for a `.mrk.json`.
        Failed: the file could not be written.
    """
    path = Path(path)
    slicer = suffix_of(path, (SLICER, TABLE), "points to write") == SLICER
    if slicer and space == "voxel":
        raise BadInput(f"{path}: a .mrk.json holds points in millimetres, the space ras or lps was expected")
    frame = _space(path, (space or "lps") if slicer else space, grid)
    values = points.world.detach().cpu().to(torch.float64)
    if frame == "voxel" and grid is not None:
        values = grid.to_voxel(values)
    elif frame == "lps":
        values = values * torch.from_numpy(lps(values.shape[1]))
    rows = (values + 0.0).tolist()  # no negative zeros
    if not slicer:
        cells = ([name, *(f"{value:.6f}" for value in row)] for name, row in zip(points.names, rows, strict=True))
        write_csv(path, ("id", *"xyz"[: values.shape[1]]), cells)
        return
    with replacing(path) as temporary:
        temporary.write_text(markups_text(rows, points.names, frame.upper()), encoding="utf-8", newline="")
