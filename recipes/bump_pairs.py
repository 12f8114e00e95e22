"""Slices of people under Gaussian bumps: pairs of one slice and its warped self, after Meta-Regularization, section 5.1.

There 1,000 training and 80 test pairs are made of one liver MRI. Here they are made of axial slices of an abdomen (MR, 20
slices, `abdomen_totalseg`), of hearts (end-diastole, `cardiac_autofd`, `cardiac_sunnybrook`) and, to learn from only, of
brains (`brain2d_oasis`), each resampled to a square. No slice that is scored is learned from: the lower slices of the abdomen
train, the upper ones, beyond one that is left out, are scored; other hearts are scored than train.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from warpwright.data import Split
from warpwright.data.synthetic import BumpSettings, bump_pair
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import read_labels, read_scalar, write_image
from warpwright.transforms import Affine, resample

__all__ = ["ENERGIES", "LABELS", "ROWS", "write_bump_pairs"]

ENERGIES = {"moderate": 10.0, "large": 16.0}  # as BumpSettings takes it: voxels of 256, so 5 and 8 of 128
PAIRS: dict[Split, int] = {"train": 1000, "validation": 40, "test": 80}
LABELS = (1, 2, 3, 5)  # of the abdomen: spleen, kidneys, liver; of hearts: blood pool, myocardium and right ventricle
ROWS = ("id", "fixed", "moving", "fixed_labels", "moving_labels", "split")
LEAST = 60  # pixels of 128 x 128 that a slice must show of a label for it to be scored

HEARTS: dict[Split, tuple[str, ...]] = {"train": ("A", "B", "SC-HF-I-1"), "validation": ("C",), "test": ("D", "SC-HF-I-4")}
ABDOMEN: dict[Split, range] = {"train": range(13), "validation": range(13, 15), "test": range(16, 20)}
BRAINS: dict[Split, range] = {"train": range(80), "validation": range(0), "test": range(0)}


class Slice(NamedTuple):
    """An image that pairs are made of.

    Args:
        image: (1, N, N) float32, 0 to 1.
        labels: (1, N, N) uint8.
    """

    image: Tensor
    labels: Tensor


def write_bump_pairs(data: Path, folder: Path, energy: str, side: int = 128) -> list[tuple[str, ...]]:
    """Write the pairs that are not there yet, and say what belongs together.

    Args:
        data: folder of the public sets.
        folder: where the images go.
        energy: one of `ENERGIES`.
        side: voxels along either axis.

    Returns:
        A row for each pair, as `ROWS` says. Validation and test pairs show at least one label.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = []
    for number, (split, count) in enumerate(PAIRS.items()):
        names = [f"{energy}-{side}-{split}-{k:04d}" for k in range(count)]
        files = [_files(folder, name) for name in names]
        if not all(path.exists() for some in files for path in some):
            slices = read_slices(data, split, side)
            for k, some in enumerate(files):
                rng = np.random.default_rng((number, k))
                _write(slices[int(rng.integers(len(slices)))], ENERGIES[energy], rng, some)
        rows += [(name, *map(str, some), split) for name, some in zip(names, files, strict=True)]
    return rows


def read_slices(data: Path, split: Split, side: int) -> list[Slice]:
    """The slices of a split, all the same in number of voxels; of one that is scored only those that show a label."""
    abdomen = data / "abdomen_totalseg"
    found = _planes(abdomen / "mr.nii.gz", abdomen / "mr_label.nii.gz", ABDOMEN[split], side)
    for name in HEARTS[split]:
        sunny = data / "cardiac_sunnybrook" / name
        one = data / "cardiac_autofd" / f"{name}_ed"
        files = (sunny / "ed.nii.gz", sunny / "ed_label.nii.gz") if name.startswith("SC") else _suffixed(one)
        found += _planes(*files, None, side)
    for path in sorted((data / "brain2d_oasis").glob("*.nii.gz"))[: BRAINS[split].stop]:
        found += _planes(path, None, None, side)
    if not found:
        raise BadInput(f"{data}: holds no slices, the public sets were expected")
    return found if split == "train" else [some for some in found if scored(some.labels)]


def scored(labels: Tensor) -> list[int]:
    """The labels that enough is seen of."""
    least = LEAST * (labels.shape[-1] / 128) ** 2
    return [label for label in LABELS if int((labels == label).sum()) >= least]


def _planes(image: Path, labels: Path | None, which: range | None, side: int) -> list[Slice]:
    """Slices across the third axis, or the only one, laid in the middle of a square as wide as the image is long."""
    volume = read_scalar(image)
    drawn = Image(torch.zeros_like(volume.data, dtype=torch.uint8), volume.grid) if labels is None else read_labels(labels)
    layers = [(volume.data, drawn.data)] if volume.grid.dim == 2 else _cut(volume.data, drawn.data, which)
    low, high = np.percentile(volume.data.numpy(), (0.5, 99.5))
    grid, square = _square(volume.grid.spacing[:2], tuple(volume.data.shape[1:3]), side)
    still = Affine.identity(2)
    found: list[Slice] = []
    for grey, label in layers:
        scaled = Image(((grey - low) / (high - low)).clamp(0, 1).float(), grid)
        found.append(
            Slice(
                image=resample(scaled, still, square).data,
                labels=resample(Image(label.to(torch.uint8), grid), still, square, interpolation="label").data,
            )
        )
    return found


def _cut(grey: Tensor, label: Tensor, which: range | None) -> Sequence[tuple[Tensor, Tensor]]:
    return [(grey[..., k], label[..., k]) for k in (range(grey.shape[-1]) if which is None else which)]


def _square(spacing: Sequence[float], shape: tuple[int, ...], side: int) -> tuple[Grid, Grid]:
    """The grid of a slice, and that of the square of so many voxels about its middle."""
    grid = Grid.regular(shape, tuple(spacing))
    extent = max(n * s for n, s in zip(shape, spacing, strict=True))
    step = extent / side
    affine = np.diag([step, step, 1.0])
    affine[:2, 2] = grid.centre - step * (side - 1) / 2
    return grid, Grid((side, side), affine)


def _suffixed(stem: Path) -> tuple[Path, Path]:
    return stem.with_name(f"{stem.name}.nii.gz"), stem.with_name(f"{stem.name}_label.nii.gz")


def _files(folder: Path, stem: str) -> tuple[Path, ...]:
    return tuple(folder.resolve() / f"{stem}-{part}.nii.gz" for part in ("fixed", "moving", "fixed-labels", "moving-labels"))


def _write(given: Slice, energy: float, rng: np.random.Generator, files: tuple[Path, ...]) -> None:
    pair = bump_pair(given.image, BumpSettings(energy=energy), rng, given.labels)
    grid = Grid.regular(tuple(given.image.shape[1:]))
    for path, data in zip(files, (pair.fixed, pair.moving, pair.fixed_labels, pair.moving_labels), strict=True):
        assert data is not None
        write_image(path, Image(data, grid))
