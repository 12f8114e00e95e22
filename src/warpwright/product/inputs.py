"""What a person hands over (a path, an image or points in memory) as checked images and points."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io.image import check_on_grid, read_image, read_labels, read_mask, require_structure
from warpwright.io.memory import Array, ImageLike, as_array, memory_raw
from warpwright.io.points import Points, read_points
from warpwright.product.choices import Header, Side, Space
from warpwright.sampling import inside

__all__ = [
    "SIDES",
    "Header",
    "ImageLike",
    "PointsLike",
    "Space",
    "any_image",
    "digest",
    "labels_on",
    "mask_on",
    "on_unit_grid",
    "one_channel",
    "outside",
    "outside_note",
    "points_of",
    "scalar_image",
]

PointsLike: TypeAlias = str | Path | Points | Array

SIDES: tuple[Side, Side] = ("fixed", "moving")


def on_unit_grid(given: Mapping[str, ImageLike | None]) -> tuple[dict[str, ImageLike | None], tuple[str, ...]]:
    """Arrays alone, if both images of a pair are such, with an affine beside them: voxels 1 mm apart, the first at the origin.

    Args:
        given: "fixed", "moving" and their masks and labels, by role.

    Returns:
        The same, with `(array, affine)` in the place of each array alone, and a note about them.

    Raises:
        BadInput: there are arrays alone, but an image says where its voxels are; or one is not of 2 or 3 axes.
    """
    alone = {role: value for role, value in given.items() if isinstance(value, (np.ndarray, Tensor))}
    if not alone:
        return dict(given), ()
    for role in alone:
        placed = [side for side in SIDES if side not in alone]
        if placed:
            raise BadInput(
                f"{_spoken(role)}: an array alone does not say where its voxels are and {placed[0]} does,"
                " expected (array, affine), or arrays alone for both images"
            )
    beside = {role: (value, _unit_affine(_spoken(role), tuple(value.shape))) for role, value in alone.items()}
    names = ", ".join(_spoken(role) for role in alone)
    note = f"{names}: without an affine, so voxels are taken as 1 mm apart along the world's axes, from the origin on"
    return {**given, **beside}, (note,)


def _unit_affine(role: str, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) not in (2, 3) or 1 in shape:
        raise BadInput(
            f"{role}: expected an array of 2 or 3 axes of at least 2 voxels, without those of channels or batch, got one of"
            f" shape {shape}"
        )
    return np.eye(len(shape) + 1)


def _spoken(role: str) -> str:
    return role.replace("_", " ")


def scalar_image(value: ImageLike, role: str, header: Header, series: str | None = None) -> Image:
    """As `any_image`, of one channel.

    Raises:
        BadInput: as there, or it has several channels.
    """
    return one_channel(any_image(value, role, header, series))


def any_image(value: ImageLike, role: str, header: Header, series: str | None = None) -> Image:
    """An image of any number of channels, float32, finite, not constant.

    Args:
        value: see `ImageLike`.
        role: what a message calls it when it has no name of its own.
        header: which affine of a NIfTI image counts when its two disagree.
        series: which series (UID or its ending) of a DICOM folder that holds several.

    Raises:
        BadInput: it cannot be read, holds NaN or inf, or is constant, or a series is named and it is no folder.
    """
    if series is not None and not (isinstance(value, (str, Path)) and Path(value).is_dir()):
        raise BadInput(f"{_called(value, role)}: is no DICOM folder, so the series {series!r} cannot be chosen from it")
    image = read_image(value, header=header, series=series, name=role)
    require_structure(image)
    return image


def one_channel(image: Image, advice: str = "") -> Image:
    """The image, if it has one channel.

    Args:
        image: of any number of channels.
        advice: what a message says at its end.

    Raises:
        BadInput: it has several.
    """
    if image.channels != 1:
        raise BadInput(f"{image.name}: has {image.channels} channels (4-D or RGB), an image of one was expected{advice}")
    return image


def mask_on(value: ImageLike | None, image: Image, role: str, header: Header) -> Image | None:
    """Weights of an image's voxels, on its grid, >= 0 and not all zero; None for None."""
    if value is None:
        return None
    mask = read_mask(value, header=header, name=role)
    check_on_grid(mask, image.grid, image.name)
    return mask


def labels_on(value: ImageLike | None, image: Image | None, role: str, header: Header) -> Image | None:
    """Integer labels on an image's grid (any grid if `image` is None); None for None."""
    if value is None:
        return None
    labels = read_labels(value, header=header, name=role)
    if not bool((labels.data != 0).any()):
        raise BadInput(f"{labels.name}: holds no label (all zero), expected some voxels above zero")
    if image is not None:
        check_on_grid(labels, image.grid, image.name)
    return labels


def points_of(
    value: PointsLike | None, image: Image, space: Space | None, role: str, columns: Side | None = None
) -> Points | None:
    """World points RAS+ mm; None for None.

    Args:
        value: a path (`.csv` needs `space`, `.mrk.json` does not), `Points`, or an array (N, D) of world RAS+ mm.
        image: the image they belong to: its grid gives "voxel" a meaning.
        space: frame of the coordinates of a `.csv`.
        role: what a message calls an array.
        columns: which set of a `.csv` that holds two.

    Raises:
        BadInput: they cannot be read, are not finite, or lie outside the image, all of them.
    """
    if value is None:
        return None
    if isinstance(value, (str, Path)):
        points, name = read_points(value, space=space, grid=image.grid, columns=columns), str(value)
    else:
        points, name = value if isinstance(value, Points) else _numbered(as_array(value, role)), role
    if points.world.ndim != 2 or points.world.shape[1] != image.grid.dim or not len(points.world):
        raise BadInput(f"{name}: expected points of shape (N, {image.grid.dim}), got {tuple(points.world.shape)}")
    if not bool(torch.isfinite(points.world).all()):
        raise BadInput(f"{name}: holds NaN or inf, expected finite coordinates")
    if not len(outside(points, image.grid)) < len(points.world):
        raise BadInput(f"{name}: all {len(points.world)} points lie outside {image.name}, expected them inside (right space?)")
    return points


def outside(points: Points, grid: Grid) -> tuple[str, ...]:
    """Names of the points that lie outside a grid."""
    known = inside(grid.to_voxel(points.world).T[None], grid.shape)[0, 0]
    return tuple(name for name, within in zip(points.names, known.tolist(), strict=True) if not within)


def outside_note(name: str, points: Points, grid: Grid) -> tuple[str, ...]:
    """A sentence if points lie outside a grid: which, of what `name` calls them; none if all lie inside."""
    names = outside(points, grid)
    if not names:
        return ()
    listed = f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
    return (f"{name}: {len(names)} of {len(points.world)} points lie outside the image ({listed}), their place is a guess",)


def _called(value: object, role: str) -> str:
    return str(value) if isinstance(value, (str, Path)) else role


def _numbered(world: np.ndarray) -> Points:
    return Points(torch.from_numpy(world.astype(np.float64)), tuple(str(i + 1) for i in range(len(world))))


def digest(value: ImageLike | PointsLike, role: str = "input", header: Header = "strict") -> dict[str, str]:
    """Path (if any) and SHA-256 of an input: of a file's bytes, of a folder's files by name, of numbers in memory.

    Args:
        value: a path, points, or an image; an array alone is taken for points.
        role: what a message calls it.
        header: as it is read.

    Raises:
        BadInput: see `read_image`.
    """
    sha = hashlib.sha256()
    if isinstance(value, (str, Path)):
        path = Path(value)
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        sha.update(block)
        return {"path": str(path), "sha256": sha.hexdigest()}
    for part in _numbers(value, role, header):
        sha.update(np.ascontiguousarray(part).tobytes())
    return {"sha256": sha.hexdigest()}


def _numbers(value: ImageLike | PointsLike, role: str, header: Header) -> Sequence[np.ndarray]:
    if isinstance(value, Points):
        return [value.world.numpy()]
    if isinstance(value, (np.ndarray, Tensor)):
        return [as_array(value, role)]
    raw = memory_raw(value, role, header)
    return [raw.array, raw.grid.affine]
