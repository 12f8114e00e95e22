"""Volumes with a border of zeros, and copies of them that are turned and shifted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from warpwright.geometry import Image
from warpwright.io import read_labels, read_scalar, write_image
from warpwright.transforms import Affine, resample

__all__ = ["motion", "write_padded"]

BORDER = 10  # voxels of 1 mm on every side
TURN, SHIFT = 15.0, 8.0  # degrees and mm that a copy is moved by at the most


def motion(image: Image, number: int) -> Affine:
    """A turn about the middle of a volume, around any axis, and a shift in any direction; sizes are uniform up to the most."""
    rng = np.random.default_rng(number)
    axis, way = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    angle, length = rng.uniform(0, (TURN, SHIFT))
    middle = image.grid.affine @ [*((n - 1) / 2 for n in image.grid.shape), 1]
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.deg2rad(angle) * axis).as_matrix()
    matrix[:3, 3] = middle[:3] - matrix[:3, :3] @ middle[:3] + length * way
    return Affine(matrix)


def write_padded(image: Path, labels: Path, folder: Path, number: int | None = None) -> tuple[Path, Path]:
    """A volume and its labels with a border, moved by the `motion` of a number unless that is None.

    Args:
        image: of 1 mm.
        labels: on the same grid.
        folder: where the files go, which are not written again if they are there.
        number: of the motion.

    Returns:
        Their paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = image.name.split(".")[0] + ("" if number is None else "-moved")
    files = folder.resolve() / f"{stem}.nii.gz", folder.resolve() / f"{stem}-labels.nii.gz"
    if not all(file.exists() for file in files):
        volume, drawn = read_scalar(image), read_labels(labels)
        where = Affine.identity(3) if number is None else motion(volume, number)
        grid = volume.grid.crop((-BORDER,) * 3, tuple(n + 2 * BORDER for n in volume.grid.shape))
        write_image(files[1], resample(drawn, where, grid, interpolation="label"))
        write_image(files[0], resample(volume, where, grid))
    return files
