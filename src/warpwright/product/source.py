"""A transform as a person names it: a file, an ANTs prefix, or the folder that `register` left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.io.ants import ants_files
from warpwright.io.transform import own_grid, read_transform
from warpwright.product.choices import Header
from warpwright.transforms import BSplineField, Composite, DisplacementField, Transform, VelocityField

__all__ = ["Source", "fields_of", "load_source", "read_named"]

TRANSFORM = "transform.h5"


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """Both directions of a transform and where its images are.

    Args:
        name: what a message calls it.
        forward: world points of fixed to world points of moving.
        inverse_path: file of the map back, if there is one; otherwise it is computed.
        fixed_grid: where the fixed image is, if known.
        moving_grid: where the moving image is, if known.
    """

    name: str
    forward: Transform
    inverse_path: Path | None = None
    fixed_grid: Grid | None = None
    moving_grid: Grid | None = None

    def directed(self, *, inverse: bool) -> Transform:
        """The forward map, or the one back."""
        if not inverse:
            return self.forward
        return self.forward.inverse() if self.inverse_path is None else read_transform(self.inverse_path)


def load_source(path: str | Path, *, header: Header = "strict") -> Source:
    """Read a transform file, the files of an ANTs prefix, or the folder of a registration.

    Raises:
        BadInput: there is no such thing, or it cannot be read.
    """
    path, forward = Path(path), read_named(path, header=header)
    if path == _file_of(path):
        return Source(name=str(path), forward=forward, fixed_grid=own_grid(forward))
    back = path / "inverse.h5"
    fixed, moving = _grids(path / "result.json")
    return Source(
        name=str(path),
        forward=forward,
        inverse_path=back if back.is_file() else None,
        fixed_grid=fixed or own_grid(forward),
        moving_grid=moving,
    )


def read_named(path: str | Path, *, header: Header = "strict") -> Transform:
    """The map of a transform file, of an ANTs prefix, or of the folder that `register` left.

    Args:
        path: file, prefix or folder.
        header: which geometry of a displacement NIfTI to take where its two differ.

    Raises:
        BadInput: there is no such thing, or it cannot be read.
    """
    return read_transform(_file_of(Path(path)), header=header)


def _file_of(path: Path) -> Path:
    """The transform file of a registration's folder; any other path as it is."""
    if not path.is_dir() or any(file.exists() for file in ants_files(path)[:2]):
        return path
    if not (path / TRANSFORM).is_file():
        raise BadInput(f"{path}: is a folder without {TRANSFORM}, expected a transform file or what `register` left")
    return path / TRANSFORM


def fields_of(transform: Transform) -> tuple[DisplacementField | VelocityField | BSplineField, ...]:
    """The parts that are fields, first applied last."""
    parts = transform.parts if isinstance(transform, Composite) else (transform,)
    return tuple(part for part in parts if isinstance(part, (DisplacementField, VelocityField, BSplineField)))


def _grids(path: Path) -> tuple[Grid | None, Grid | None]:
    """Fixed and moving grid as `result.json` has them; None where there is no such file."""
    if not path.is_file():
        return None, None
    try:
        grids = json.loads(path.read_text(encoding="utf-8"))["grids"]
        fixed, moving = (Grid(tuple(grids[k]["shape"]), np.array(grids[k]["affine"])) for k in ("fixed", "moving"))
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: is not a result of `register` ({error})") from None
    return fixed, moving
