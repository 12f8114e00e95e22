"""Vessel maps of retinas and warped copies of them, as GradICON's authors make them of another set (DRIVE).

Bright background, dark vessels. A copy is warped twice by random displacements that a cubic spline lays between normal numbers
on a few control points, then both are averaged over blocks and smoothed a little.

Reference: Tian et al., GradICON, CVPR 2023, section 5.1; deviations of 25 and 12 voxels of 584 x 565 as in its code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from warpwright.geometry import Grid, Image
from warpwright.io import write_image

__all__ = ["ROWS", "write_vessel_maps"]

SIDE = 192  # voxels along an axis of what is written, blocks of 5 x 5
BLOCK = 5
STAGES = ((3, 25 / 565), (6, 12 / 565))  # control points along an axis, deviation as a share of the side
WARPS = {"train": 20, "validation": 2, "test": 5}  # copies of each map
SPLITS = ["train"] * 14 + ["validation"] * 2 + ["test"] * 4  # by sorted name: seven children, one, two
ROWS = ("id", "fixed", "moving", "fixed_labels", "moving_labels", "split")


def write_vessel_maps(maps: list[Path], folder: Path) -> list[tuple[str, ...]]:
    """Write what is not there yet, and say what belongs together.

    Args:
        maps: 20 pictures of vessels above 0, eyes of one child after each other.
        folder: where the images go.

    Returns:
        A row for each pair, as `ROWS` says: the warped copy is fixed, the original moving. Labels are 1 where vessels
        fill at least a quarter of a block.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = []
    for number, (path, split) in enumerate(zip(maps, SPLITS, strict=True)):
        moving = written(path, None, folder / f"{path.stem}.nii.gz")
        for copy in range(WARPS[split]):
            name = f"{path.stem}-{copy:02d}"
            fixed = written(path, np.random.default_rng((number, copy)), folder / f"{name}.nii.gz")
            rows.append((name, *(str(f) for pair in zip(fixed, moving, strict=True) for f in pair), split))
    return rows


def read_map(path: Path) -> np.ndarray:
    """A square of ones with zeros in vessels, float32, from the middle of the picture."""
    vessels = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) > 0
    begin = [(n - SIDE * BLOCK) // 2 for n in vessels.shape]
    middle = vessels[tuple(slice(b, b + SIDE * BLOCK) for b in begin)]
    return 1 - middle.astype(np.float32)


def warped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square image under one random displacement after the other, border repeated."""
    side = len(image)
    for points, share in STAGES:
        line = np.linspace(0, points - 1, side)[None]
        along = np.stack([map_coordinates(one, line, order=3, mode="mirror") for one in np.eye(points)])
        moves = along.T @ rng.normal(0, share * side, (2, points, points)) @ along
        image = map_coordinates(image, np.indices(image.shape) + moves, order=1, mode="nearest")
    return image


def written(source: Path, warp: np.random.Generator | None, path: Path) -> tuple[Path, Path]:
    """The files of a map, or of a warped copy, and of its vessels; made unless they are there."""
    image, labels = path.resolve(), path.with_name(path.name.replace(".nii.gz", "_vessels.nii.gz")).resolve()
    if not (image.exists() and labels.exists()):
        whole = read_map(source) if warp is None else warped(read_map(source), warp)
        blocks = whole.reshape(SIDE, BLOCK, SIDE, BLOCK).mean((1, 3))
        for file, data in ((labels, (blocks < 0.75).astype(np.uint8)), (image, gaussian_filter(blocks, 1).astype(np.float32))):
            write_image(file, Image(torch.from_numpy(data)[None], Grid.regular((SIDE, SIDE))))
    return image, labels
