"""Which images there are to learn from, and how they become pairs: a table, or a folder of images.

A table is a `.csv` with a header or a `.jsonl` with one object a line, in UTF-8; its paths are relative to the file. It has
one row an image (id, image and optionally mask, labels, points, group, split), or one row a pair (id, fixed, moving and
optionally fixed_mask ... moving_points, group, split). An empty cell is the same as none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from warpwright.data.rows import SIDES, Split, check_rows, read_rows
from warpwright.errors import BadInput, did_you_mean, first_of
from warpwright.io import Header, Space
from warpwright.io.image import READABLE, suffix_of

__all__ = ["Case", "CasePair", "Cohort", "Data", "Pairing", "Split", "read_cohort", "read_pair_table"]

Pairing = Literal["random", "group", "paired", "atlas"]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the images are and how they are paired.

    Args:
        manifest: table of images or of pairs, `.csv` or `.jsonl`.
        images: in place of a table, a folder: every image file in it, in the order of their names; hidden files are left
            out, and an id is the name without its suffix.
        labels: folder with a label map for each image of `images`, of the same name but for the suffix and for capitals.
        pairing: "random": any two images; "group": two of one group; "paired": the rows of a table of pairs; "atlas": one
            fixed image for all.
        atlas: id of the fixed image where pairing is "atlas"; it may be of any split and serves all.
        validation: of a folder, how many of the last names are kept for validation.
        space: frame of the points in `.csv` files.
        header: which geometry of a NIfTI file to take where its qform and sform differ.
        cache_gb: memory for images that have been read, 10^9 bytes.

    Raises:
        BadInput: neither or both of a table and a folder, a setting that does not go with the others, or out of range.
    """

    manifest: Path | None = None
    images: Path | None = None
    labels: Path | None = None
    pairing: Pairing = "random"
    atlas: str | None = None
    validation: int = 0
    space: Space | None = None
    header: Header = "strict"
    cache_gb: float = 4.0

    def __post_init__(self) -> None:
        if (self.manifest is None) == (self.images is None):
            found = "neither" if self.images is None else "both"
            raise BadInput(f"data come from a manifest or from a folder of images, got {found}: expected one of the two")
        if self.labels is not None and self.images is None:
            raise BadInput("a folder of labels goes with a folder of images, got a manifest: expected a column of labels in it")
        if self.labels is not None and self.labels == self.images:
            raise BadInput(f"the folders of images and of labels are both {self.labels}, expected two")
        if self.images is not None and self.pairing in ("paired", "group"):
            raise BadInput(f"pairing = '{self.pairing}' needs a manifest that says what belongs together, got a folder")
        if (self.pairing == "atlas") != (self.atlas is not None):
            found = f"pairing = '{self.pairing}' and atlas = {self.atlas!r}"
            raise BadInput(f"an atlas is named where pairing is 'atlas' and nowhere else, got {found}")
        if self.validation < 0 or (self.validation and self.images is None):
            where = "a folder" if self.images is not None else "a manifest, which has a column 'split'"
            raise BadInput(f"validation is a number of images of a folder, at least 0, got {self.validation} for {where}")
        if not 0 <= self.cache_gb < inf:
            raise BadInput(f"cache_gb must be a number of at least 0, got {self.cache_gb}")


@dataclass(frozen=True, kw_only=True)
class Case:
    """An image and the files that say more about it, none of them read yet.

    Args:
        id: unique; of an image in a table of pairs "ROW:fixed" or "ROW:moving".
        image: file, or folder with DICOM slices.
        mask: weights of its voxels.
        labels: label map on its grid.
        points: landmarks.
        group: what it belongs to (a person, say); "" for none.
        split: what it is for.
    """

    id: str
    image: Path
    mask: Path | None = None
    labels: Path | None = None
    points: Path | None = None
    group: str = ""
    split: Split = "train"


@dataclass(frozen=True, kw_only=True)
class CasePair:
    """Two images to be registered.

    Args:
        id: of the row in a table of pairs, else "FIXED~MOVING".
        fixed: the image whose grid the result lives on.
        moving: the image that is moved.
    """

    id: str
    fixed: Case
    moving: Case


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The images of a table or folder, and how they become pairs.

    Args:
        cases: every image, in the order of the table; of a table of pairs fixed, moving, fixed, ...
        pairing: as in `Data`.
        pairs: the rows of a table of pairs; empty for images.
        atlas: the fixed image of all pairs where pairing is "atlas".
    """

    cases: tuple[Case, ...]
    pairing: Pairing
    pairs: tuple[CasePair, ...] = ()
    atlas: Case | None = None

    def draw(self, rng: np.random.Generator) -> CasePair:
        """A pair to train on: every ordered pair that the pairing allows is as likely as any other.

        Args:
            rng: where the choice comes from.
        """
        if self.pairing in ("paired", "atlas"):
            pairs = self.listed("train")
            return pairs[int(rng.integers(len(pairs)))]
        groups = list(self._grouped("train").values())
        counts = np.array([len(group) * (len(group) - 1) for group in groups])
        group = groups[int(rng.choice(len(groups), p=counts / counts.sum()))]
        fixed, moving = int(rng.integers(len(group))), int(rng.integers(len(group) - 1))
        return _pair(group[fixed], group[moving + (moving >= fixed)])

    def listed(self, split: Split, limit: int | None = None) -> tuple[CasePair, ...]:
        """The fixed list of pairs of a split.

        Args:
            split: which images.
            limit: so many pairs at most; None for all.

        Returns:
            The rows of a table of pairs; the atlas with each other image; or else images 0 and 1, 2 and 3, and so on, in
            order (within each group), of which an odd last one is in no pair.
        """
        if self.pairing == "paired":
            pairs = [pair for pair in self.pairs if pair.fixed.split == split]
        elif self.atlas is not None:
            pairs = [_pair(self.atlas, case) for case in self.cases if case.split == split and case != self.atlas]
        else:
            groups = self._grouped(split).values()
            pairs = [_pair(*two) for group in groups for two in zip(group[::2], group[1::2], strict=False)]
        return tuple(pairs[:limit])

    def _grouped(self, split: Split) -> dict[str, list[Case]]:
        """The images of a split that may be paired with each other, by group; one group "" for all if any may."""
        groups: defaultdict[str, list[Case]] = defaultdict(list)
        for case in self.cases:
            if case.split == split:
                groups[case.group if self.pairing == "group" else ""].append(case)
        return groups


def read_cohort(data: Data) -> Cohort:
    """The images that `data` names, all of whose files exist; none of them is opened.

    Raises:
        BadInput: the table or folder cannot be read, names something twice or nothing at all, points nowhere, does not suit
            the pairing, or has too few images to make a pair.
    """
    where = cast(Path, data.manifest or data.images)
    if data.manifest is not None:
        cases, pairs = _read_table(where, data.pairing)
    else:
        cases, pairs = _read_folder(where, data.labels, data.validation), ()
    cohort = Cohort(cases=cases, pairing=data.pairing, pairs=pairs, atlas=_atlas(where, cases, data.atlas))
    _check_pairs(where, cohort)
    if data.space is None and any(case.points is not None and case.points.suffix.lower() == ".csv" for case in cases):
        raise BadInput(f"{where}: has points in .csv files, which do not say their space: expected space = ras, lps or voxel")
    return cohort


def read_pair_table(table: Path) -> tuple[CasePair, ...]:
    """All rows of a table of pairs, of whatever split, in its order; all files exist, and none of them is opened.

    Raises:
        BadInput: the table cannot be read, is one of images, names something twice, or points nowhere.
    """
    return _read_table(table, "paired")[1]


def _pair(fixed: Case, moving: Case) -> CasePair:
    return CasePair(id=f"{fixed.id}~{moving.id}", fixed=fixed, moving=moving)


def _atlas(where: Path, cases: Sequence[Case], name: str | None) -> Case | None:
    found = [case for case in cases if case.id == name]
    if name is not None and not found:
        raise BadInput(f"{where}: has no image with the id {name!r} of the atlas{did_you_mean(name, [c.id for c in cases])}")
    return found[0] if found else None


def _check_pairs(where: Path, cohort: Cohort) -> None:
    """Refuse a cohort with nothing to train on, or with an image that is in no pair for want of another one."""
    if cohort.pairing in ("paired", "atlas"):
        if not cohort.listed("train"):
            missing = "image for training beside the atlas" if cohort.atlas else "pair for training"
            raise BadInput(f"{where}: has no {missing}, expected at least one")
        return
    training = sum(case.split == "train" for case in cohort.cases)
    if training < 2:
        raise BadInput(f"{where}: has {training} training image{'s' * (training != 1)}, expected at least 2")
    lonely: list[str] = []
    for split in get_args(Split):
        for name, cases in cohort._grouped(split).items():
            group = f"group {name!r} for {split}" if cohort.pairing == "group" else split
            lonely.extend([f"{group} ({cases[0].id!r})"] if len(cases) == 1 else [])
    if lonely:
        raise BadInput(f"{where}: has a single image in {first_of(lonely)}, expected at least 2, as they are paired")


def _read_folder(folder: Path, labels: Path | None, validation: int) -> tuple[Case, ...]:
    images = _images_in(folder)
    if not images:
        raise BadInput(f"{folder}: has no image file, expected files that end in one of {' '.join(READABLE)}")
    maps = None if labels is None else _images_in(labels)
    without = [path.name for key, path in images.items() if maps is not None and key not in maps]
    if without:
        raise BadInput(f"{labels}: has no label map for {first_of(without)}, expected one of the same name for each image")
    return tuple(
        Case(
            id=_stem(path),
            image=path,
            labels=None if maps is None else maps[key],
            split="train" if number < len(images) - validation else "validation",
        )
        for number, (key, path) in enumerate(images.items())
    )


def _images_in(folder: Path) -> dict[str, Path]:
    """Image files by their names without suffix and capitals, in the order of the names."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: is not a folder, a folder of images was expected")
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.lower().endswith(READABLE) or not path.is_file():
            continue
        other = images.setdefault(_stem(path).casefold(), path)
        if other != path:
            raise BadInput(f"{folder}: {other.name} and {path.name} differ in suffix or capitals only, expected one of them")
    return images


def _stem(path: Path) -> str:
    return path.name[: -len(suffix_of(path, READABLE, "an image"))]


def _read_table(table: Path, pairing: Pairing) -> tuple[tuple[Case, ...], tuple[CasePair, ...]]:
    of_pairs, rows = read_rows(table)
    if of_pairs != (pairing == "paired"):
        kind, expected = ("pairs", "'paired'") if of_pairs else ("images", "'random', 'group' or 'atlas'")
        raise BadInput(f"{table}: is a table of {kind}, which does not go with pairing = '{pairing}': expected {expected}")
    needed = ("id", *(SIDES if of_pairs else ("image",)), *(("group",) if pairing == "group" else ()))
    check_rows(table, rows, needed, of_pairs=of_pairs)
    if not of_pairs:
        return tuple(_case(table, row) for row in rows), ()
    pairs = tuple(CasePair(id=row["id"], fixed=_case(table, row, "fixed"), moving=_case(table, row, "moving")) for row in rows)
    return tuple(case for pair in pairs for case in (pair.fixed, pair.moving)), pairs


def _case(table: Path, row: Mapping[str, str], side: str = "") -> Case:
    """The image of a row, or one of its two."""

    def file(extra: str) -> Path | None:
        cell = row.get(f"{side}_{extra}" if side else extra)
        return table.parent / cell if cell else None

    split: Split = next((name for name in get_args(Split) if name == row.get("split")), "train")
    return Case(
        id=f"{row['id']}:{side}" if side else row["id"],
        image=table.parent / row[side or "image"],
        mask=file("mask"),
        labels=file("labels"),
        points=file("points"),
        group=row.get("group", ""),
        split=split,
    )
