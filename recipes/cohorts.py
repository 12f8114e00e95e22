"""The images of the recipes: which are learned from, which choose the model, which are only scored.

Each is a function of the folder of the public sets and of one for images that are made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from moved_volumes import write_padded
from shifts import SHIFTS, write_rendered, write_shifted
from slices import write_cartilage, write_slices
from square_images import write_squares
from vessel_maps import ROWS, write_vessel_maps
from warpwright.errors import BadInput
from warpwright.io import read_labels

__all__ = ["COHORTS", "Cohort", "TestPair"]

RENDERED = 3  # contrasts of each label map
SQUARES = {"train": 400, "validation": 20}  # pairs


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
        test: pairs that nothing is learned from or tuned on, one table for each name.
        others: further manifests by their file's name, of images that are made.
        classical: what the classical row is asked for, beside the defaults.
    """

    rows: list[Sequence[str]]
    test: dict[str, list[TestPair]]
    others: dict[str, list[Sequence[str]]] = field(default_factory=dict)
    classical: dict[str, str] = field(default_factory=dict)


def hippocampus(data: Path, _: Path) -> Cohort:
    """The 201 volumes by sorted name: 40 test (as 20 consecutive pairs), 21 validation, 140 training."""
    folder = data / "hippocampus_msd"
    images = _files(folder / "images", 201)
    labels = [folder / "labels" / image.name for image in images]
    splits = ["test"] * 40 + ["validation"] * 21 + ["train"] * 140
    volumes = list(zip(images, labels, strict=True))
    test = [_two_labels(*volumes[k : k + 2]) for k in range(0, 40, 2)]
    return Cohort(rows=_table(volumes, splits), test={"test pairs": test})


def moved(data: Path, made: Path) -> Cohort:
    """The volumes of `hippocampus` with a border of zeros; the moving ones of the test pairs also turned and shifted."""
    plain = hippocampus(data, made)
    volumes = [write_padded(Path(image), Path(labels), made) for _, image, labels, _ in plain.rows[1:]]
    test: dict[str, list[TestPair]] = {"with a border": [], "with a border, turned and shifted": []}
    for number, pair in enumerate(plain.test["test pairs"]):
        fixed, moving = volumes[2 * number : 2 * number + 2]
        other = write_padded(pair.moving, cast(Path, pair.moving_labels), made, number)
        for tests, second in zip(test.values(), (moving, other), strict=True):
            tests.append(_two_labels(fixed, second))
    return Cohort(rows=_table(volumes, [row[3] for row in plain.rows[1:]]), test=test)


def shifts(data: Path, made: Path) -> Cohort:
    """The volumes of `hippocampus`; test pairs also as other scanners might give them; training volumes also rendered."""
    plain = hippocampus(data, made)
    test: dict[str, list[TestPair]] = {}
    for title in SHIFTS:
        test[title] = []
        for pair in plain.test["test pairs"]:
            sides = ((pair.fixed, pair.fixed_labels), (pair.moving, pair.moving_labels))
            files = [write_shifted(image, cast(Path, drawn), made, title, k) for k, (image, drawn) in enumerate(sides)]
            test[title].append(_two_labels(*files))
    rows: list[Sequence[str]] = [plain.rows[0]]
    for name, image, labels, split in plain.rows[1:]:
        if split == "validation":
            rows.append((name, image, labels, split))
        for number in range(RENDERED if split == "train" else 0):
            rows.append((f"{name}-{number}", str(write_rendered(Path(labels), made, number)), labels, "train"))
    return Cohort(rows=plain.rows, test=test, others={"rendered.csv": rows})


def _table(volumes: Sequence[tuple[Path, Path]], splits: Sequence[str]) -> list[Sequence[str]]:
    rows = [(_stem(i), str(i), str(labels), split) for (i, labels), split in zip(volumes, splits, strict=True)]
    return [("id", "image", "labels", "split"), *rows]


def _two_labels(fixed: tuple[Path, Path], moving: tuple[Path, Path]) -> TestPair:
    name = f"{_stem(fixed[0])} {_stem(moving[0])}"
    sides = {"fixed": fixed[0], "moving": moving[0], "fixed_labels": fixed[1], "moving_labels": moving[1]}
    return TestPair(name=name, **sides, labels=(1, 2))


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def cardiac(data: Path, _: Path) -> Cohort:
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
    return Cohort(rows=rows, test={"test pair": [test]})


def hearts(data: Path, made: Path) -> Cohort:
    """Slices of `cardiac`: two phases of one slice of two patients (the last four validate); of the third ED to ES."""
    volumes = cardiac(data, made)
    rows: list[Sequence[str]] = [volumes.rows[0]]
    for name, image, group, split in volumes.rows[1:]:
        slices = write_slices(Path(image), made, name)
        rows += [(f"{name}-{k:02d}", str(path), f"{group}-{k:02d}", split) for k, (path, _) in enumerate(slices)]
    (whole,) = volumes.test["test pair"]
    fixed, moving = (
        write_slices(image, made, f"{whole.name}-{phase}", drawn)
        for phase, image, drawn in (("es", whole.fixed, whole.fixed_labels), ("ed", whole.moving, whole.moving_labels))
    )
    pairs = [
        TestPair(name=a.stem, fixed=a, moving=b, fixed_labels=c, moving_labels=d, labels=(1,))
        for (a, c), (b, d) in zip(fixed, moving, strict=True)
        if c is not None and d is not None and all(bool((read_labels(drawn).data == 1).any()) for drawn in (c, d))
    ]
    return Cohort(rows=rows, test={"slices of the third heart, end-diastole to end-systole": pairs})


def knee(data: Path, made: Path) -> Cohort:
    """Maps of cartilage of one knee at two visits: 39 people are learned from, 4 validate, 16 are the test."""
    files = _files(data / "knee_oai_slices", 118)
    rows: list[Sequence[str]] = [("id", "fixed", "moving", "fixed_labels", "moving_labels", "split")]
    splits = ["test"] * 16 + ["validation"] * 4 + ["train"] * 39
    test: list[TestPair] = []
    for (fixed, moving), split in zip(_consecutive(files), splits, strict=True):
        name, images = fixed.name.split("_")[0], [write_cartilage(side, made) for side in (fixed, moving)]
        rows.append((name, *map(str, (*images, fixed, moving)), split))
        if split == "test":
            sides = {"fixed": images[0], "moving": images[1], "fixed_labels": fixed, "moving_labels": moving}
            test.append(TestPair(name=name, **sides, labels=(1, 2)))
    return Cohort(rows=rows, test={"knees at two visits": test})


def oasis2d(data: Path, _: Path) -> Cohort:
    """The 100 slices by sorted name: 20 test (as 10 consecutive pairs), 10 validation, 70 training."""
    images = _files(data / "brain2d_oasis", 100)
    splits = ["test"] * 20 + ["validation"] * 10 + ["train"] * 70
    rows = [(image.name.split(".")[0], str(image), split) for image, split in zip(images, splits, strict=True)]
    test = [TestPair(name=f"{a.stem} {b.stem}", fixed=a, moving=b) for a, b in _consecutive(images[:20])]
    return Cohort(rows=[("id", "image", "split"), *rows], test={"test pairs": test})


def vessels(data: Path, made: Path) -> Cohort:
    """Vessel maps of retinas (fixed: a warped copy, moving: the original) of seven, one and two children."""
    rows = write_vessel_maps(_files(data / "retina_chase", 20, "*_1stHO.png"), made)
    test = [
        TestPair(name=name, fixed=Path(a), moving=Path(b), fixed_labels=Path(c), moving_labels=Path(d), labels=(1,))
        for name, a, b, c, d, split in rows
        if split == "test"
    ]
    return Cohort(rows=[ROWS, *rows], test={"test pairs": test})


def squares(_: Path, made: Path) -> Cohort:
    """Two squares on a plane, which overlap in every second pair; from where they are, by intensities and an affine map."""
    header = ("id", "fixed", "moving", "fixed_labels", "moving_labels", "split")
    rows = [(name, *write_squares(name, made), split) for split, n in SQUARES.items() for name in _numbered(split, n)]
    test: dict[str, list[TestPair]] = {}
    for number, (title, overlap) in enumerate({"squares that overlap": 1.0, "squares apart": 0.0}.items()):
        test[title] = []
        for name in _numbered(f"test-{number}", 50):
            a, b, c, d = (Path(file) for file in write_squares(name, made, overlap))
            test[title].append(TestPair(name=name, fixed=a, moving=b, fixed_labels=c, moving_labels=d, labels=(1,)))
    asked = {"transform": "affine", "similarity": "mse", "initialise": "none"}
    return Cohort(rows=[header, *rows], test=test, classical=asked)


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}-{k:04d}" for k in range(count)]


def _consecutive(images: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    return zip(images[::2], images[1::2], strict=True)


def _files(folder: Path, count: int, pattern: str = "*.nii.gz") -> list[Path]:
    found = sorted(folder.glob(pattern))
    if len(found) != count:
        raise BadInput(f"{folder}: holds {len(found)} of {pattern}, expected {count}")
    return [path.resolve() for path in found]


COHORTS = {
    "hippocampus": hippocampus,
    "ablation": hippocampus,
    "adjoint": hippocampus,
    "moved": moved,
    "shifts": shifts,
    "cardiac": cardiac,
    "hearts": hearts,
    "knee": knee,
    "oasis2d": oasis2d,
    "squares": squares,
    "vessels": vessels,
}
