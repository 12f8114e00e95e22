"""Test volumes that differ from those of training in one respect, and images that are rendered from label maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from warpwright.data.synthetic.contrasts import ContrastSettings, render_labels
from warpwright.data.synthetic.fields import random_field
from warpwright.geometry import Grid, Image
from warpwright.io import read_labels, read_scalar, write_image
from warpwright.transforms import Affine, laid, resample

__all__ = ["SHIFTS", "write_rendered", "write_shifted"]

BORDER = 10  # voxels
SIZE = (36, 52, 36)  # voxels that models of `dio/shifts` see while training
Change = Callable[[Image, np.random.Generator], Image]


def _same(image: Image, _: np.random.Generator) -> Image:
    return image


def _spaced(spacing: tuple[float, ...]) -> Change:
    """Other voxels over the same extent, smoothed first where they are larger."""

    def change(image: Image, _: np.random.Generator) -> Image:
        grid = regridded(image.grid, spacing)
        return Image(laid(image, Affine.identity(image.grid.dim), grid), grid)

    return change


def _contrast(image: Image, rng: np.random.Generator) -> Image:
    """A gamma of 0.5 to 2, by chance inverted: what is bright is dark."""
    low, high = float(image.data.min()), float(image.data.max())
    share = ((image.data - low) / (high - low)) ** float(np.exp(rng.uniform(-np.log(2), np.log(2))))
    return Image(1 - share if rng.random() < 0.25 else share, image.grid)


def _marred(image: Image, rng: np.random.Generator) -> Image:
    """A bias field of up to half as bright again, and noise of 8 % of the range."""
    low, high = float(image.data.min()), float(image.data.max())
    bias = random_field(1, image.grid.shape, 20.0, 0.3, rng)[0].exp()
    noise = torch.from_numpy(rng.normal(0, 0.08, (1, *image.grid.shape)))
    return Image(((image.data - low) / (high - low) * bias + noise).float(), image.grid)


def _surrounded(image: Image, _: np.random.Generator) -> Image:
    """A larger field of view, in which there is nothing more: zeros around the volume."""
    return _around(image, tuple(n + 2 * BORDER for n in image.grid.shape))


def _cropped(image: Image, rng: np.random.Generator) -> Image:
    """The same, of which the middle is cut out again, as large as in training."""
    return _around(_surrounded(image, rng), SIZE)


def _around(image: Image, shape: tuple[int, ...]) -> Image:
    """So many voxels around the middle of a volume, zeros where it has none."""
    grid = image.grid.crop(tuple((n - m) // 2 for n, m in zip(image.grid.shape, shape, strict=True)), shape)
    return resample(image, Affine.identity(image.grid.dim), grid)


# a title, what is done to the fixed and to the moving image
SHIFTS: dict[str, tuple[Change, Change]] = {
    "as in training": (_same, _same),
    "slices of 3 mm": (_spaced((1.0, 1.0, 3.0)), _spaced((1.0, 1.0, 3.0))),
    "fixed 1 mm, moving 2 mm": (_same, _spaced((2.0, 2.0, 2.0))),
    "other contrasts": (_contrast, _contrast),
    "bias and noise": (_marred, _marred),
    "10 mm of zeros around": (_surrounded, _surrounded),
    "zeros around, cropped to the size of training": (_cropped, _cropped),
}


def regridded(grid: Grid, spacing: tuple[float, ...]) -> Grid:
    """Voxels of another size over the extent of a grid, around its middle."""
    size = tuple(round(n * s / t) for n, s, t in zip(grid.shape, grid.spacing, spacing, strict=True))
    affine = np.eye(grid.dim + 1)
    affine[:-1, :-1] = grid.direction * np.asarray(spacing)
    affine[:-1, -1] = grid.centre - affine[:-1, :-1] @ ((np.asarray(size) - 1) / 2)
    return Grid(size, affine)


def write_shifted(image: Path, labels: Path, folder: Path, title: str, side: int) -> tuple[Path, Path]:
    """A volume and its labels under a shift; nothing is written that is there already.

    Args:
        image: the volume.
        labels: on its grid.
        folder: where the files go.
        title: a key of `SHIFTS`.
        side: 0 as a fixed image, 1 as a moving one.

    Returns:
        Their paths.
    """
    change = SHIFTS[title][side]
    if change is _same:
        return image, labels
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{image.name.split('.')[0]}-{title.replace(' ', '_').replace(',', '')}-{side}"
    files = folder.resolve() / f"{stem}.nii.gz", folder.resolve() / f"{stem}-labels.nii.gz"
    if not all(file.exists() for file in files):
        volume = change(read_scalar(image), np.random.default_rng((side, *image.name.encode())))
        drawn = resample(read_labels(labels), Affine.identity(volume.grid.dim), volume.grid, interpolation="label")
        write_image(files[1], drawn)
        write_image(files[0], volume)
    return files


def write_rendered(labels: Path, folder: Path, number: int) -> Path:
    """An image of a label map in the random contrast of a number; nothing is written that is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.resolve() / f"{labels.name.split('.')[0]}-rendered-{number}.nii.gz"
    if not file.exists():
        drawn = read_labels(labels)
        rng = np.random.default_rng((number, *labels.name.encode()))
        write_image(file, Image(render_labels(drawn.data, ContrastSettings(noise=0.05), rng), drawn.grid))
    return file
