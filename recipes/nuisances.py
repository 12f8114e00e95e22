"""Hearts and hippocampi with planted nuisances: slices of hearts through a beat, and volumes under smooth bumps.

Every image is brought to [0, 1] and corrupted on its own, by a stream of numbers that its name seeds, so that fixed and moving
images hold different things. Labels are those of the clean images. Beside each test image lies where something was planted.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from warpwright.data.synthetic import BumpSettings, NuisanceSettings, bump_pair, corrupt
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import read_labels, read_scalar, write_image
from warpwright.sampling import Percentiles

__all__ = ["CONDITIONS", "Given", "hearts", "hippocampi", "planted", "trusted", "usual_places"]

CONDITIONS = {"clean": 0.0, "half": 0.5, "corrupted": 1.0}  # how strong nuisances are
PATIENTS = ("SC-HF-I-1", "SC-HF-I-2", "SC-HF-I-4")
COARSE = 24  # places along an axis
SIDE = 128  # voxels of a slice, around the middle of what was drawn at end-diastole
PHASES = {"ed": "ed.nii.gz", "es": "es.nii.gz"}
HEART = NuisanceSettings(speckle=0.15, rician=0.02, drift=0.1, shadows=1, patches=2)
HIPPOCAMPUS = NuisanceSettings(
    speckle=0.05, rician=0.02, drift=0.1, shadows=2, depth=0.9, width=(0.25, 0.45), patches=1, radius=(0.16, 0.25)
)
BUMPS = BumpSettings(energy=16.0, count=20)  # heights of about 2.6 voxels


class Given(NamedTuple):
    """What a training and its test need.

    Args:
        rows: the table of images or of pairs, its header first.
        test: id, fixed and moving image, fixed and moving labels of every pair that is scored.
        labels: which of them.
        made: tells images of these settings from others.
    """

    rows: list[tuple[str, ...]]
    test: list[tuple[str, Path, Path, Path, Path]]
    labels: tuple[int, ...]
    made: str

    @property
    def watched(self) -> list[Path]:
        """The fixed images of the validation, of hearts both of a pair."""
        return [Path(row[1]) for row in self.rows[1:] if row[-1] == "validation"]


def hearts(data: Path, folder: Path, condition: str, fold: int) -> Given:
    """Slices of two patients to learn from, any two phases of one slice, and of the third one to score, one a fold.

    The figures of the validation are of the two patients at end-diastole and end-systole: hearts that are learned from, though
    not their contours. No step of a training is chosen by them, but settings are (`adacs/trials.py`), and in the other folds
    these patients are scored.

    Args:
        data: folder of the public sets.
        folder: where the images go.
        condition: one of `CONDITIONS`.
        fold: which patient is left out, 0 to 2.
    """
    rows: list[tuple[str, ...]] = [("id", "image", "labels", "group", "split")]
    test: list[tuple[str, Path, Path, Path, Path]] = []
    for number, patient in enumerate(PATIENTS):
        source = data / "cardiac_sunnybrook" / patient
        ends = {phase: _slices(source / file, folder, patient, phase, condition) for phase, file in PHASES.items()}
        pairs = [(a, b) for a, b in zip(ends["ed"], ends["es"], strict=True) if a[1] is not None and b[1] is not None]
        if number == fold:
            test += [(b[0].name.split(".")[0], b[0], a[0], b[1], a[1]) for a, b in pairs]  # type: ignore[misc]
            continue
        for image, labels in (side for pair in pairs for side in pair):
            name = image.name.split(".")[0]
            rows.append((name, str(image), str(labels), name.replace("-ed-", "-").replace("-es-", "-"), "validation"))
        for frame in _files(source / "cine", 20):
            phase = frame.name.split(".")[0]
            for k, (image, _) in enumerate(_slices(frame, folder, patient, phase, condition)):
                rows.append((image.name.split(".")[0], str(image), "", f"{patient}-{k:02d}", "train"))
    return Given(rows, test, (1,), _named(condition))


def hippocampi(data: Path, folder: Path, condition: str, fold: int = 0) -> Given:
    """Volumes and themselves under smooth bumps: of 140 people to learn from, 21 to watch, 20 to score.

    The first twenty by name are scored. Between people squared differences of these crops say little (`adacs/RESULTS.md`), and
    the heart that this stands for is one person's. Arguments as in `hearts`; folds are all the same.
    """
    del fold
    source = data / "hippocampus_msd"
    files = _files(source / "images", 201)
    splits = ["test"] * 20 + [""] * 20 + ["validation"] * 21 + ["train"] * 140
    rows: list[tuple[str, ...]] = [("id", "fixed", "moving", "fixed_labels", "moving_labels", "split")]
    test: list[tuple[str, Path, Path, Path, Path]] = []
    for file, split in zip(files, splits, strict=True):
        if split:
            name, found = (
                file.name.split(".")[0],
                _bumped(file, source / "labels" / file.name, folder / _named(condition), condition),
            )
            rows.append((name, *map(str, found), split))
            test += [(name, *found)] if split == "test" else []
    return Given(rows, test, (1, 2), _named(condition))


def usual_places(given: Given) -> Tensor:
    """How often something was planted at each place of the training images, (1, 1, *(COARSE,) * D), all brought to one shape.

    A score that says no more than this points at places, not at what an image shows.
    """
    masks = [read_labels(planted(Path(row[1]))).data[None].float() for row in given.rows[1:] if row[-1] == "train"]
    return torch.stack([F.interpolate(mask, (COARSE,) * (mask.ndim - 2), mode="area") for mask in masks]).mean(0)


def planted(image: Path) -> Path:
    """The file that says where something was planted in an image."""
    return image.with_name(image.name.replace(".nii.gz", "-planted.nii.gz"))


def trusted(image: Path) -> Path:
    """A mask of an image beside it, 0 where something was planted; it is written where it is not there yet."""
    path = image.with_name(image.name.replace(".nii.gz", "-trusted.nii.gz"))
    if not path.exists():
        where = read_labels(planted(image))
        write_image(path, Image(1 - where.data, where.grid))
    return path


def _slices(file: Path, folder: Path, patient: str, phase: str, condition: str) -> list[tuple[Path, Path | None]]:
    """Image and, where end-diastole and end-systole have a contour, label of every slice of a volume."""
    volume = read_scalar(file)
    drawn = {name: read_labels(file.parent / f"{name}_label.nii.gz") for name in PHASES} if phase in PHASES else {}
    begin = _crop(patient, file.parent if drawn else file.parent.parent)
    grid = Grid.regular((SIDE, SIDE))  # voxels of 1, as distances are published in voxels
    window = tuple(slice(b, b + SIDE) for b in begin)
    scaled = Percentiles()(volume.data)
    found: list[tuple[Path, Path | None]] = []
    for k in range(volume.grid.shape[2]):
        path = folder.resolve() / _named(condition) / f"{patient}-{phase}-{k:02d}.nii.gz"
        labelled = bool(drawn) and all(bool((one.data[..., k] == 1).any()) for one in drawn.values())
        beside = path.with_name(path.name.replace(".nii.gz", "-labels.nii.gz")) if labelled else None
        if not path.exists():
            if beside is not None:
                inner = (drawn[phase].data[(slice(None), *window, k)] == 1).to(torch.uint8)
                write_image(_made(beside), Image(inner.contiguous(), grid))
            _write(path, scaled[(slice(None), *window, k)].contiguous(), grid, HEART, condition)
        found.append((path, beside))
    return found


def _crop(patient: str, source: Path) -> tuple[int, ...]:
    """Where the window of a patient begins: around the middle of the cavity at end-diastole, within the image."""
    drawn = read_labels(source / "ed_label.nii.gz").data[0] == 1
    middle = torch.nonzero(drawn).double().mean(0)[:2]
    sizes = drawn.shape[:2]
    if min(sizes) < SIDE:
        raise BadInput(f"{source}: slices of {patient} have {sizes} voxels, expected at least {SIDE}")
    return tuple(int(min(max(round(float(m)) - SIDE // 2, 0), n - SIDE)) for m, n in zip(middle, sizes, strict=True))


def _bumped(image: Path, labels: Path, folder: Path, condition: str) -> tuple[Path, Path, Path, Path]:
    """Fixed and moving image, fixed and moving labels of a volume (the moving one) and itself under bumps."""
    stem = image.name.split(".")[0]
    fixed, moving, drawn = (folder.resolve() / f"{stem}{part}.nii.gz" for part in ("-fixed", "-moving", "-fixed-labels"))
    if not moving.exists():
        volume, own = read_scalar(image), read_labels(labels)
        pair = bump_pair(Percentiles()(volume.data), BUMPS, np.random.default_rng(list(stem.encode())), own.data)
        assert pair.fixed_labels is not None
        write_image(_made(drawn), Image(pair.fixed_labels, volume.grid))
        _write(fixed, pair.fixed, volume.grid, HIPPOCAMPUS, condition)
        _write(moving, pair.moving, volume.grid, HIPPOCAMPUS, condition)
    return fixed, moving, drawn, labels.resolve()


def _named(condition: str) -> str:
    """A folder for a condition and the settings here; what else makes the images (`corrupt`, say) is not in its name."""
    made = hashlib.sha256(repr((HEART, HIPPOCAMPUS, BUMPS, SIDE)).encode()).hexdigest()
    return f"{condition}-{made[:8]}"


def _write(path: Path, values: Tensor, grid: Grid, settings: NuisanceSettings, condition: str) -> None:
    """Write an image, corrupted if it is to be, after the places of what was planted."""
    if strength := CONDITIONS[condition]:
        done = corrupt(values, settings.at(strength), np.random.default_rng(list(path.name.encode())))
        write_image(_made(planted(path)), Image(done.planted.to(torch.uint8), grid))
        values = done.image
    write_image(_made(path), Image(values, grid))


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _files(folder: Path, count: int) -> list[Path]:
    found = sorted(folder.glob("*.nii.gz"))
    if len(found) != count:
        raise BadInput(f"{folder}: holds {len(found)} images, expected {count}")
    return found
