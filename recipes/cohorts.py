"""The images of the recipes: which are learned from, which choose the model, which are only scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from warpwright.errors import BadInput

__all__ = ["COHORTS", "Cohort", "TestPair"]


@dataclass(frozen=True, kw_only=True)
class TestPair:
    """A pair that is only scored.

    Args:
        name: for a person.
        fixed: image file.
        moving: image file.
        fixed_labels: label file or None.
        moving_labels: label file or None.
        labels: labels that are scored.
        drawn_slices: only slices are scored in which both maps have the label (contours were drawn in some slices only).
    """

    name: str
    fixed: Path
    moving: Path
    fixed_labels: Path | None = None
    moving_labels: Path | None = None
    labels: tuple[int, ...] = ()
    drawn_slices: bool = False


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """One recipe's data.

    Args:
        rows: the manifest, header first.
        test: pairs that nothing is learned from or tuned on.
    """

    rows: list[Sequence[str]]
    test: list[TestPair]


def hippocampus(data: Path) -> Cohort:
    """The 201 volumes by sorted name: 40 test (as 20 consecutive pairs), 21 validation, 140 training."""
    folder = data / "hippocampus_msd"
    images = _files(folder / "images", 201)
    labels = [folder / "labels" / image.name for image in images]
    splits = ["test"] * 40 + ["validation"] * 21 + ["train"] * 140
    table = zip(images, labels, splits, strict=True)
    rows = [(image.name.split(".")[0], str(image), str(label), split) for image, label, split in table]
    test = [
        TestPair(
            name=f"{images[k].name.split('.')[0]} {images[k + 1].name.split('.')[0]}",
            fixed=images[k],
            moving=images[k + 1],
            fixed_labels=labels[k],
            moving_labels=labels[k + 1],
            labels=(1, 2),
        )
        for k in range(0, 40, 2)
    ]
    return Cohort(rows=[("id", "image", "labels", "split"), *rows], test=test)


def cardiac(data: Path) -> Cohort:
    """Phases of two patients (the last four validate); the third, end-diastole to end-systole, is the test."""
    folder = data / "cardiac_sunnybrook"
    *learned, unseen = [path.parent.name for path in _files(folder, 3, "*/es.nii.gz")]
    rows: list[Sequence[str]] = [("id", "image", "group", "split")]
    for name in learned:
        frames = _files(folder / name / "cine", 20)
        splits = ["train"] * 16 + ["validation"] * 4
        rows += [(f"{name}-{f.name.split('.')[0]}", str(f), name, s) for f, s in zip(frames, splits, strict=True)]
    test = TestPair(
        name=unseen,
        fixed=folder / unseen / "es.nii.gz",
        moving=folder / unseen / "ed.nii.gz",
        fixed_labels=folder / unseen / "es_label.nii.gz",
        moving_labels=folder / unseen / "ed_label.nii.gz",
        labels=(1,),
        drawn_slices=True,
    )
    return Cohort(rows=rows, test=[test])


def oasis2d(data: Path) -> Cohort:
    """The 100 slices by sorted name: 20 test (as 10 consecutive pairs), 10 validation, 70 training."""
    images = _files(data / "brain2d_oasis", 100)
    splits = ["test"] * 20 + ["validation"] * 10 + ["train"] * 70
    rows = [(image.name.split(".")[0], str(image), split) for image, split in zip(images, splits, strict=True)]
    test = [TestPair(name=f"{a.stem} {b.stem}", fixed=a, moving=b) for a, b in _consecutive(images[:20])]
    return Cohort(rows=[("id", "image", "split"), *rows], test=test)


def _consecutive(images: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    return zip(images[::2], images[1::2], strict=True)


def _files(folder: Path, count: int, pattern: str = "*.nii.gz") -> list[Path]:
    found = sorted(folder.glob(pattern))
    if len(found) != count:
        raise BadInput(f"{folder}: holds {len(found)} of {pattern}, expected {count}")
    return [path.resolve() for path in found]


COHORTS = {"hippocampus": hippocampus, "cardiac": cardiac, "oasis2d": oasis2d}
