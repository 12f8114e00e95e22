"""Vessel trees that are drawn, and the same trees under a known displacement: the synthetic experiments of SmoothProper.

The moving image is drawn, the fixed one is `moving(x + u(x))` by cubic interpolation, mirrored at the border so that nothing
comes in from outside, and each gets its own noise. Lengths are voxels, axes are those of the arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from warpwright.data.synthetic import VesselSettings, vessel_pair
from warpwright.data.synthetic.vessel_tree import VesselTree, render_tree
from warpwright.geometry import Grid, Image
from warpwright.io import Points, write_image, write_points

__all__ = [
    "LARGE_SEEDS",
    "ROWS",
    "Motion",
    "Truth",
    "VesselPair",
    "aperture_pair",
    "large_pair",
    "learned_pair",
    "read_truth",
    "write_vessel_pairs",
]

Motion = Literal["small", "medium", "large"]

VISIBLE = 0.3  # a voxel of the fixed image without noise that is brighter shows a vessel
BORDER = 6.0  # landmarks lie farther than that from the border of either image

APERTURE_SIDE = 96
SHIFT = (6.0, 6.0)  # of everything in the aperture pair
RADIUS, NOISE = 2.5, 0.03  # of its vessels, of either of its images

LARGE_SIDE = 128
LARGE_SEEDS = range(100, 106)
LARGE: dict[Motion, VesselSettings] = {
    "small": VesselSettings(translation=1.0, amplitude=2.0, smoothness=16.0, ends=False),
    "medium": VesselSettings(translation=4.0, amplitude=4.0, smoothness=20.0, ends=False),
    "large": VesselSettings(translation=8.0, amplitude=5.0, smoothness=20.0, ends=False),
}

LEARNED_SIDE = 96
LEARNED = VesselSettings(roots=6, translation=6.0, amplitude=3.5, smoothness=16.0, noise=0.02, ends=False)  # at the most
LEAST = 0.3  # of that amplitude; of the translation there may be none
PAIRS = {"train": 200, "validation": 10, "test": 40}
FIRST_SEEDS = {"train": 10_000, "validation": 20_000, "test": 0}
ROWS = ("id", "fixed", "moving", "fixed_points", "moving_points", "split")


@dataclass(frozen=True, eq=False, kw_only=True)
class Truth:
    """What is known of a pair.

    Args:
        displacement: (1, 2, *S) float32, `fixed(x) = moving(x + u(x))` but for noise.
        vessels: (1, 1, *S) bool, where the fixed image shows vessels.
        fixed_points: (L, 2) float32, where vessels branch (or cross), in both images away from the border.
        moving_points: (L, 2) float32, the same places in the moving image.
    """

    displacement: Tensor
    vessels: Tensor
    fixed_points: Tensor
    moving_points: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class VesselPair:
    """Two images with the truth.

    Args:
        fixed: (1, 1, *S) float32, about 0 to 1.
        moving: (1, 1, *S) float32.
        truth: what is known of them.
    """

    fixed: Tensor
    moving: Tensor
    truth: Truth


def aperture_pair(seed: int = 0) -> VesselPair:
    """Experiment 1: a straight vessel with a single crossing under a translation of (6, 6), which only that crossing tells.

    96 x 96. In the moving image the vessel runs along the second axis at 48 of the first, the other crosses it at 24.
    """
    along = np.arange(-20, APERTURE_SIDE + 20, 1.5)
    still = (np.full_like(along, APERTURE_SIDE / 2), np.full_like(along, APERTURE_SIDE / 4))
    starts = np.concatenate([np.stack([still[0], along], 1), np.stack([along, still[1]], 1)])
    steps = np.repeat([[0, 1.5], [1.5, 0]], len(along), axis=0)
    crossing = np.array([[APERTURE_SIDE / 2, APERTURE_SIDE / 4]])
    tree = VesselTree(starts, starts + steps, np.full(len(starts), RADIUS), crossing)
    places = np.indices((APERTURE_SIDE,) * 2).reshape(2, -1).T.astype(np.float64)
    moving = render_tree(tree, places)[0].reshape((APERTURE_SIDE,) * 2)
    displacement = np.broadcast_to(np.reshape(SHIFT, (2, 1, 1)), (2, *moving.shape))
    return _noisy(moving, displacement, crossing - SHIFT, crossing, NOISE, np.random.default_rng(seed))


def large_pair(motion: Motion, seed: int) -> VesselPair:
    """Experiment 2: a tree under a translation and a smooth field, together up to 3, 8 or 13 voxels; 128 x 128.

    Args:
        motion: how far.
        seed: one of `LARGE_SEEDS`, which the figures are means over.
    """
    return _drawn(LARGE_SIDE, LARGE[motion], np.random.default_rng(seed))


def learned_pair(seed: int, *, landmarks: bool = False) -> VesselPair:
    """Experiment 3: a tree under a displacement of random size, up to 9.5 voxels; 96 x 96.

    Args:
        seed: of everything.
        landmarks: whether a pair without any is passed over for the next one that the seed gives.
    """
    rng = np.random.default_rng(seed)
    while True:
        translation = LEARNED.translation * rng.uniform(0, 1)
        amplitude = LEARNED.amplitude * rng.uniform(LEAST, 1)
        pair = _drawn(LEARNED_SIDE, replace(LEARNED, translation=translation, amplitude=amplitude), rng)
        if len(pair.truth.fixed_points) or not landmarks:
            return pair


def write_vessel_pairs(folder: Path, pairs: Mapping[str, int] = PAIRS) -> list[tuple[str, ...]]:
    """Write the pairs of experiment 3 that are not there yet, and say what belongs together.

    Validation and test pairs come with landmarks, one at least (voxels), and the truth, `ID-truth.npz` for `read_truth`.

    Args:
        folder: where the images go.
        pairs: how many of each split.

    Returns:
        A row for each pair, as `ROWS` says; training pairs have no points.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbered = [(split, k) for split, number in pairs.items() for k in range(number)]
    return [(*_written(f"{split}-{k:03d}", FIRST_SEEDS[split] + k, folder, split != "train"), split) for split, k in numbered]


def read_truth(path: Path) -> Truth:
    """What `write_vessel_pairs` wrote."""
    with np.load(path) as arrays:
        return Truth(**{name: torch.from_numpy(arrays[name]) for name in arrays.files})


def _drawn(side: int, settings: VesselSettings, rng: np.random.Generator) -> VesselPair:
    drawn = vessel_pair((side, side), replace(settings, noise=0.0), rng)
    displacement, points = drawn.displacement, (drawn.fixed_points, drawn.moving_points)
    assert displacement is not None
    places = [p.numpy() for p in points if p is not None]
    return _noisy(drawn.moving[0].numpy(), displacement.numpy(), *places, settings.noise, rng)


def _noisy(
    moving: np.ndarray,
    displacement: np.ndarray,
    fixed_points: np.ndarray,
    moving_points: np.ndarray,
    noise: float,
    rng: np.random.Generator,
) -> VesselPair:
    fixed = map_coordinates(moving.astype(np.float64), np.indices(moving.shape) + displacement, order=3, mode="reflect")
    seen = np.concatenate([fixed_points, moving_points], 1)
    kept = ((seen > BORDER) & (seen < len(moving) - 1 - BORDER)).all(1)
    truth = Truth(
        displacement=_tensor(displacement[None]),
        vessels=torch.from_numpy(fixed > VISIBLE)[None, None],
        fixed_points=_tensor(fixed_points[kept]),
        moving_points=_tensor(moving_points[kept]),
    )
    images = [_tensor((image + rng.normal(0, noise, image.shape))[None, None]) for image in (fixed, moving)]
    return VesselPair(fixed=images[0], moving=images[1], truth=truth)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _written(name: str, seed: int, folder: Path, known: bool) -> tuple[str, ...]:
    """Its name and its files, made unless they are there."""
    images = [folder.resolve() / f"{name}-{side}.nii.gz" for side in ("fixed", "moving")]
    points = [folder.resolve() / f"{name}-{side}.csv" for side in ("fixed", "moving")] if known else []
    if not all(path.exists() for path in (*points, *images)):
        pair = learned_pair(seed, landmarks=known)
        truth, grid = pair.truth, Grid.regular((LEARNED_SIDE,) * 2)
        if known:
            np.savez_compressed(folder / f"{name}-truth.npz", **{key: value.numpy() for key, value in vars(truth).items()})
            for path, places in zip(points, (truth.fixed_points, truth.moving_points), strict=True):
                named = Points(places.double(), tuple(map(str, range(1, len(places) + 1))))
                write_points(path, named, "voxel", grid)
        for path, data in zip(images, (pair.fixed, pair.moving), strict=True):
            write_image(path, Image(data[0], grid))
    return (name, *map(str, images), *(map(str, points) if known else ("", "")))
