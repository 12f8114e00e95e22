"""What a registration left in its folder, and the inputs that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io.image import read_image
from warpwright.io.points import Points
from warpwright.io.transform import read_transform
from warpwright.product.choices import Header, Side
from warpwright.product.inputs import digest, labels_on, points_of
from warpwright.product.photographs import Seen, seen
from warpwright.product.source import read_named
from warpwright.transforms import Affine, Transform

__all__ = ["RESULT", "Record", "Run", "read_record", "read_run"]

RESULT = "result.json"
SIDES: tuple[Side, Side] = ("fixed", "moving")
ROLES = {
    "fixed": "the fixed image",
    "moving": "the moving image",
    "fixed_labels": "the labels of the fixed image",
    "moving_labels": "the labels of the moving image",
    "fixed_points": "the landmarks of the fixed image",
    "moving_points": "the landmarks of the moving image",
    "initial": "the transform that the search began from",
}
PARTS = {"verdict": dict, "scores": dict, "stages": list, "notes": list, "inputs": dict, "grids": dict}
PARTS |= {"settings": dict, "versions": dict, "seconds": dict}


@dataclass(frozen=True, eq=False, kw_only=True)
class Record:
    """`result.json`.

    Args:
        path: of the file.
        values: what it holds.
        grids: of the fixed and of the moving image.
    """

    path: Path
    values: Mapping[str, Any]
    grids: tuple[Grid, Grid]

    def place(self, role: str) -> Path | None:
        """Where an input lay, seen from here; None for one that was not given, or not as a file."""
        path = self.values["inputs"].get(role, {}).get("path")
        return None if path is None else Path(self.values.get("directory") or "", path)

    def input(self, role: str) -> Path | None:
        """As `place`, of a file that is still what was registered.

        Raises:
            BadInput: it is gone, or is another one now.
        """
        path = self.place(role)
        if path is None:
            return None
        if not path.exists():
            raise BadInput(f"{path}: is gone, {ROLES[role]} of {self.path} was expected there; put it back or register again")
        if digest(path)["sha256"] != self.values["inputs"][role]["sha256"]:
            raise BadInput(f"{path}: has changed since it was registered, {ROLES[role]} of {self.path} was expected")
        return path


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """A finished registration, read back.

    Args:
        record: `result.json`.
        fixed: the fixed image, as the registration saw it.
        moving: the moving image on its own grid, likewise.
        initial: where the moving image lay at first, world points of fixed to world points of moving.
        transform: the result, likewise.
        inverse: the map back; None where there are no landmarks to carry.
        colours: the moved photograph on the fixed grid, (C, *S), 0 to 255; None of an image that is none.
        jacobian: determinant of the full map, on the fixed grid.
        score: where residuals can be trusted, 0 to 1, on the fixed grid, if that was asked for.
        labels: label maps of fixed and of moving, each on its own grid.
        points: landmarks of fixed and of moving, in the same order.
    """

    record: Record
    fixed: Seen
    moving: Seen
    initial: Transform
    transform: Transform
    inverse: Transform | None
    colours: Image | None
    jacobian: Image
    score: Image | None
    labels: tuple[Image, Image] | None
    points: tuple[Points, Points] | None


def read_record(folder: Path) -> Record:
    """The `result.json` of a folder.

    Raises:
        BadInput: there is no such folder or file, or it is not what `register` writes.
    """
    path = folder / RESULT
    if not path.is_file():
        found = f"has no {RESULT}" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise BadInput(f"{folder}: {found}, the folder that `register` left was expected")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name, kind in PARTS.items() if not isinstance(values[name], kind)]
        if missing:
            raise TypeError(f"its {missing[0]} is of another kind")
        inputs = values["inputs"]
        if not all(isinstance(one, dict) for one in inputs.values()) or not set(SIDES) <= set(inputs):
            raise TypeError("its inputs are of another kind")
        fixed, moving = (
            Grid(tuple(values["grids"][side]["shape"]), np.array(values["grids"][side]["affine"], dtype=float))
            for side in SIDES
        )
    except (OSError, ValueError, KeyError, TypeError, BadInput) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise BadInput(f"{path}: is not what `register` writes ({reason})") from None
    return Record(path=path, values=values, grids=(fixed, moving))


def read_run(record: Record) -> Run:
    """The outputs beside a `result.json` and the inputs that it names.

    Raises:
        BadInput: a file is gone, has changed, cannot be read, or does not belong to the others.
    """
    folder, values, grid = record.path.parent, record.values, record.grids[0]
    header: Header = values.get("header") or "strict"
    with ThreadPoolExecutor(2) as beside:  # files are unpacked without Python's lock
        transform = beside.submit(read_transform, folder / "transform.h5")
        jacobian = beside.submit(_on, grid, folder / "jacobian.nii.gz")
        looks = tuple(_seen(record, side, header) for side in SIDES)
        images = (looks[0].image, looks[1].image)
        points = _points(record, images)
        return Run(
            record=record,
            fixed=looks[0],
            moving=looks[1],
            initial=_initial(record),
            transform=transform.result(),
            inverse=None if points is None else read_transform(folder / "inverse.h5"),
            colours=None if looks[1].colours is None else _on(grid, folder / "moved.png", placed=False),
            jacobian=jacobian.result(),
            score=_on(grid, folder / "score.nii.gz") if values["scores"].get("trust") else None,
            labels=_labels(record, images, header),
            points=points,
        )


def _seen(record: Record, side: Side, header: Header) -> Seen:
    path = record.input(side)
    if path is None:
        raise BadInput(f"{record.path}: {ROLES[side]} was no file but in memory, a report needs a registration of files")
    look = seen(path, side, header, record.values["inputs"][side].get("series"), record.values.get("photograph"))
    if not look.image.grid.same_as(record.grids[SIDES.index(side)]):
        raise BadInput(f"{path}: lies on another grid than {record.path} says, {ROLES[side]} was expected")
    return look


def _initial(record: Record) -> Transform:
    if "initial" not in record.values["inputs"]:
        return Affine.identity(record.grids[0].dim)
    path = record.input("initial")
    if path is None:
        raise BadInput(f"{record.path}: {ROLES['initial']} was no file but in memory, a report needs a registration of files")
    return read_named(path)


def _on(grid: Grid, path: Path, *, placed: bool = True) -> Image:
    """An output on the fixed grid; a picture, which does not say where it lies, is taken to lie there."""
    image = read_image(path)
    if image.grid.shape != grid.shape or (placed and not image.grid.same_as(grid)):
        raise BadInput(f"{path}: lies on another grid than the fixed image, the output of the same registration was expected")
    return Image(image.data, grid, image.name, image.notes)


def _labels(record: Record, images: tuple[Image, Image], header: Header) -> tuple[Image, Image] | None:
    paths = [record.input(f"{side}_labels") for side in SIDES]
    fixed, moving = (labels_on(path, image, "labels", header) for path, image in zip(paths, images, strict=True))
    return None if fixed is None or moving is None else (fixed, moving)


def _points(record: Record, images: tuple[Image, Image]) -> tuple[Points, Points] | None:
    paths = [record.input(f"{side}_points") for side in SIDES]
    one_table = paths[0] == paths[1]
    space = record.values.get("space")
    if any(path is not None and path.suffix.lower() == ".csv" for path in paths) and space is None:
        return None  # of a version that did not record the frame of a table
    fixed, moving = (
        points_of(path, image, space, "landmarks", side if one_table else None)
        for path, image, side in zip(paths, images, SIDES, strict=True)
    )
    return None if fixed is None or moving is None else (fixed, moving)
