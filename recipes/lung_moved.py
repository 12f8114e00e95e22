"""The follow-up of a lung CT under a further smooth displacement that no affine map explains: vessels far from where they were.

From `lung_ct_elastix` (Apache-2.0): one lung, baseline (fixed, as it is, 115 x 157 x 129 voxels) and follow-up (moving, 115 x
166 x 131), 1.366 x 1.366 x 2.5 mm, HU, 26 landmarks. The moving image gets a margin of the length of the displacement (159 x
210 x 155 voxels), so that no part of the lung is moved out of it, and is interpolated once; its mask and its landmarks move
with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from smooth_motion import curved, grid_points, longest, scaled, smooth_motion
from warpwright.geometry import Grid, Image
from warpwright.io import Points, read_mask, read_points, read_scalar, write_image, write_points
from warpwright.transforms import DisplacementField, carried_points, resample

__all__ = ["SEEDS", "LungPair", "further_motion", "write_lung_pair"]

SEEDS = (0, 1, 2)
LONGEST = 30.0  # displacement in the lung, mm
SCALE, STEP = 90.0, 5.0  # mm between control points, between nodes of the field
SPARSE = 4  # one of so many voxels along each axis counts in the fit of the affine part
AIR = -1000.0  # HU, beyond the image


class LungPair(NamedTuple):
    """Files of a pair; landmarks in space "ras", row by row of the same places.

    Args:
        fixed: baseline, as it is.
        moving: follow-up, moved.
        fixed_mask: lung, as it is.
        moving_mask: lung, moved.
        fixed_points: landmarks.
        moving_points: landmarks, moved.
    """

    fixed: Path
    moving: Path
    fixed_mask: Path
    moving_mask: Path
    fixed_points: Path
    moving_points: Path


def further_motion(mask: Image, grid: Grid, rng: np.random.Generator) -> DisplacementField:
    """Where a moved image on `grid` looks in the original: a smooth map without an affine part, over the original.

    Args:
        mask: (1, *S) on the grid of the original, above 0 in the organ.
        grid: which the map covers.
        rng: where the numbers come from.

    Returns:
        A field whose longest vector in the mask is 30 mm.
    """
    organ = mask.grid.to_world((mask.data[0] > 0).nonzero().to(torch.float64))
    field = smooth_motion(grid, LONGEST, STEP, SCALE, rng)
    field = curved(field, grid_points(mask.grid.downsample((SPARSE,) * mask.grid.dim)))
    return scaled(field, LONGEST / longest(field, organ))


def write_lung_pair(data: Path, folder: Path, seed: int) -> LungPair:
    """Write a pair unless it is there.

    Args:
        data: folder `lung_ct_elastix`.
        folder: where the moved image, its mask and both sets of landmarks go.
        seed: of the displacement.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"moving-{seed}.nii.gz", f"moving-{seed}-mask.nii.gz", "fixed.csv", f"moving-{seed}.csv"]
    moved, moved_mask, *tables = (folder.resolve() / name for name in names)
    sources = [(data / f"{name}.nii.gz").resolve() for name in ("fixed_baseline", "fixed_lung_mask")]
    pair = LungPair(sources[0], moved, sources[1], moved_mask, *tables)
    if not all(path.exists() for path in pair):
        image, mask = read_scalar(data / "moving_followup.nii.gz"), read_mask(data / "moving_lung_mask.nii.gz")
        margin = tuple(int(np.ceil(LONGEST / s)) for s in image.grid.spacing)
        wide = tuple(n + 2 * m for n, m in zip(image.grid.shape, margin, strict=True))
        grid = image.grid.crop(tuple(-m for m in margin), wide)
        motion = further_motion(mask, grid, np.random.default_rng(seed))
        landmarks = data / "landmarks_lps_mm.csv"
        fixed, moving = read_points(landmarks, "lps", columns="fixed"), read_points(landmarks, "lps", columns="moving")
        write_points(pair.fixed_points, fixed, "ras")
        write_points(pair.moving_points, Points(carried_points(moving.world, motion), moving.names), "ras")
        lung = resample(mask, motion, grid, interpolation="nearest").data
        write_image(pair.moving_mask, Image(lung.to(torch.uint8), grid))
        grey = resample(image, motion, grid, background=AIR).data
        write_image(pair.moving, Image(grey.round().to(torch.int16), grid))
    return pair
