"""What a person hands over (a path, an `Image`, an array with its affine) as checked images and points."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io.frames import named_grid
from warpwright.io.image import check_on_grid, read_image, read_labels, read_mask, require_structure
from warpwright.io.points import Points, read_points
from warpwright.product.choices import Header, Side, Space
from warpwright.sampling import inside

__all__ = [
    "Header",
    "ImageLike",
    "PointsLike",
    "Space",
    "any_image",
    "digest",
    "labels_on",
    "mask_on",
    "one_channel",
    "outside",
    "outside_note",
    "points_of",
    "scalar_image",
]

ImageLike: TypeAlias = str | Path | Image | tuple[np.ndarray | Tensor, np.ndarray]
PointsLike: TypeAlias = str | Path | Points | Tensor | np.ndarray


def scalar_image(value: ImageLike, role: str, header: Header, series: str | None = None) -> Image:
    """As `any_image`, of one channel.

    Raises:
        BadInput: as there, or it has several channels.
    """
    return one_channel(any_image(value, role, header, series))


def any_image(value: ImageLike, role: str, header: Header, series: str | None = None) -> Image:
    """An image of any number of channels, float32, finite, not constant.

    Args:
        value: a path, an `Image`, or an array (*S) with its (D+1, D+1) voxel to world RAS+ mm affine.
        role: what a message calls it when it has no path.
        header: which affine of a NIfTI file counts when its two disagree.
        series: which series (UID or its ending) of a DICOM folder that holds several.

    Raises:
        BadInput: it cannot be read, holds NaN or inf, or is constant, or a series is named and it is no folder.
    """
    if series is not None and not (isinstance(value, (str, Path)) and Path(value).is_dir()):
        raise BadInput(f"{_called(value, role)}: is no DICOM folder, so the series {series!r} cannot be chosen from it")
    image = read_image(value, header=header, series=series) if isinstance(value, (str, Path)) else _in_memory(value, role)
    image = Image(image.data.to(torch.float32), image.grid, image.name, image.notes)
    if not bool(torch.isfinite(image.data).all()):
        raise BadInput(f"{image.name}: holds NaN or inf, expected finite intensities")
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
    mask = read_mask(value, header=header) if isinstance(value, (str, Path)) else _in_memory(value, role)
    if not bool(torch.isfinite(mask.data).all()) or bool((mask.data < 0).any()):
        raise BadInput(f"{mask.name}: a mask holds finite weights that are not negative, found others")
    if not bool((mask.data > 0).any()):
        raise BadInput(f"{mask.name}: the mask is empty (all zero), expected some voxels above zero")
    check_on_grid(mask, image.grid, image.name)
    return mask


def labels_on(value: ImageLike | None, image: Image | None, role: str, header: Header) -> Image | None:
    """Integer labels on an image's grid (any grid if `image` is None); None for None."""
    if value is None:
        return None
    labels = read_labels(value, header=header) if isinstance(value, (str, Path)) else _in_memory(value, role)
    if labels.data.dtype.is_floating_point:
        whole = labels.data.round()
        if not bool((whole == labels.data).all()):
            raise BadInput(f"{labels.name}: labels are whole numbers, found fractions")
        labels = Image(whole.to(torch.int32), labels.grid, labels.name, labels.notes)
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
        points, name = value if isinstance(value, Points) else _numbered(torch.as_tensor(value)), role
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


def _numbered(world: Tensor) -> Points:
    return Points(world.to(torch.float64), tuple(str(i + 1) for i in range(len(world))))


def digest(value: object) -> dict[str, str]:
    """Path (if any) and SHA-256 of an input: of a file's bytes, of a folder's files by name, of an array's numbers."""
    sha = hashlib.sha256()
    if isinstance(value, (str, Path)):
        path = Path(value)
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        sha.update(block)
        return {"path": str(path), "sha256": sha.hexdigest()}
    for part in _numbers(value):
        sha.update(np.ascontiguousarray(part).tobytes())
    return {"sha256": sha.hexdigest()}


def _numbers(value: object) -> Sequence[np.ndarray]:
    if isinstance(value, Image):
        return [value.data.numpy(), value.grid.affine]
    if isinstance(value, Points):
        return [value.world.numpy()]
    return [np.asarray(part) for part in (value if isinstance(value, tuple) else (value,))]


def _in_memory(value: Image | tuple[np.ndarray | Tensor, np.ndarray], role: str) -> Image:
    if isinstance(value, Image):
        return value
    if not isinstance(value, tuple) or len(value) != 2:
        raise BadInput(f"{role}: expected a path, an Image, or an array with its affine, got {type(value).__name__}")
    data = torch.as_tensor(np.array(value[0]) if isinstance(value[0], np.ndarray) else value[0])
    if data.ndim not in (2, 3):
        raise BadInput(f"{role}: expected an array of 2 or 3 axes, got shape {tuple(data.shape)}")
    return Image(data[None], named_grid(role, tuple(data.shape), np.asarray(value[1], dtype=np.float64)), role)
