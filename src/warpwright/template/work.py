"""What a template is asked to be, what came of its rounds, and the files that hold both.

FOLDER/template.json    what decides the template, and the figures of each round
FOLDER/template.nii.gz  the last round's
FOLDER/pairs.csv        the images and the template, for `warpwright cohort`
FOLDER/index.html       to look at
FOLDER/rounds/          N.nii.gz and N-mask.nii.gz, the template after round N and where it is known; N/, its cohort
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from warpwright.cohort.check import fault_of_id
from warpwright.cohort.work import Options, options_digest
from warpwright.config import read_mapping
from warpwright.errors import BadInput, first_of
from warpwright.io.image import READABLE, read_scalar, require_structure, suffix_of
from warpwright.product.inputs import digest
from warpwright.product.output import check_folder, write_json

__all__ = [
    "PAIRS",
    "ROUNDS",
    "TEMPLATE",
    "Names",
    "Round",
    "Template",
    "begun",
    "check_images",
    "described",
    "digest_of",
    "mask_of",
    "named",
    "round_of",
    "save",
]

FORMAT = 1  # of `template.json`
DESCRIPTION, TEMPLATE, PAIRS = "template.json", "template.nii.gz", "pairs.csv"
ROUNDS = "rounds"
LONGEST = 80  # letters of an image's name that are kept

Names = Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class Template:
    """What is asked for.

    Args:
        images: at least two, of one channel each.
        rounds: of registration and mean.
        sharpen: how much of what a blur of one voxel takes away is added to a mean.
        initial: the image that the first round registers to, on whose grid the template is then; by default the mean of the
            images laid with their centres of mass on one place.
        spacing: mm, of the grid without `initial`; by default along each axis the median of the images'.
        options: how images are registered to the template.

    Raises:
        BadInput: numbers are out of range, or there are fewer than two images.
    """

    images: tuple[Path, ...]
    rounds: int = 4
    sharpen: float = 0.25
    initial: Path | None = None
    spacing: float | None = None
    options: Options

    def __post_init__(self) -> None:
        if len(self.images) < 2:
            raise BadInput(f"a template was asked for of {len(self.images)} images, expected at least 2")
        if self.rounds < 1:
            raise BadInput(f"--rounds must be at least 1, got {self.rounds}")
        if not (0 <= self.sharpen < math.inf):
            raise BadInput(f"--sharpen must be at least 0, got {self.sharpen}")
        if self.spacing is not None and not 0 < self.spacing < math.inf:
            raise BadInput(f"--spacing must be above 0, got {self.spacing}")
        if self.spacing is not None and self.initial is not None:
            raise BadInput("--spacing is of a new grid, and --initial brings its own: expected one of them")


@dataclass(frozen=True, kw_only=True)
class Round:
    """What came of a round; of the start, round 0, only what a mean alone has.

    Args:
        sha256: of the template and where it is known.
        sharpness: root of the mean squared slope of its intensities (0 to 1), per mm.
        change: root of the mean squared difference to the template before.
        shape_mm: root of the mean squared shift by which the mean shape was off the template before, weighed by the intensities
            of that, mm.
        energy: mean over images of what was minimised, at its end.
        warnings: images about whose registration there are warnings.
    """

    sha256: str
    sharpness: float
    change: float | None = None
    shape_mm: float | None = None
    energy: float | None = None
    warnings: tuple[str, ...] = ()


def round_of(folder: Path, number: int) -> Path:
    """The template after a round."""
    return folder / ROUNDS / f"{number}.nii.gz"


def mask_of(folder: Path, number: int) -> Path:
    """Where it is known."""
    return folder / ROUNDS / f"{number}-mask.nii.gz"


def digest_of(folder: Path, number: int) -> str:
    """SHA-256 of the template after a round and where it is known."""
    both = [digest(path(folder, number))["sha256"] for path in (round_of, mask_of)]
    return hashlib.sha256("".join(both).encode()).hexdigest()


def named(images: Sequence[Path]) -> dict[str, Path]:
    """Images by the names of their folders, in the order of those: their own, as a folder can have it, numbered if need be.

    Raises:
        BadInput: an image has no known suffix, or a path is no text.
    """
    paths = sorted(path.absolute() for path in images)
    odd = [repr(path.name) for path in paths if not str(path).isprintable()]
    if odd:
        raise BadInput(f"paths with characters that cannot be printed: {first_of(odd)}; expected others")
    stems = [path.name[: -len(suffix_of(path, READABLE, "an image"))] for path in paths]
    safe = [re.sub(r"[^0-9A-Za-z.+-]+", "_", stem)[:LONGEST].strip("._") for stem in stems]
    if len({name.casefold() for name in safe}) == len(safe) and all(safe) and not any(map(fault_of_id, safe)):
        return dict(sorted(zip(safe, paths, strict=True)))
    return {f"{k:04d}-{name}": path for k, (name, path) in enumerate(zip(safe, paths, strict=True))}


def check_images(wanted: Template, names: Names) -> None:
    """That every image can be read and is of the same axes as the others; each is read once.

    Raises:
        BadInput: all faults, in one sentence.
    """
    faults: list[str] = []
    axes: dict[int, str] = {}
    for path in (*([] if wanted.initial is None else [wanted.initial]), *names.values()):
        try:
            image = read_scalar(path, header=wanted.options.header)
            require_structure(image)
        except BadInput as error:
            faults.append(str(error))
            continue
        axes.setdefault(image.grid.dim, str(path))
    if faults:
        raise BadInput(f"{len(faults)} of the images cannot be used: {first_of(faults, '; ')}")
    if len(axes) > 1:
        told = " and ".join(f"{axes[dim]} has {dim} axes" for dim in sorted(axes))
        raise BadInput(f"{told}: expected images of one kind")


def described(wanted: Template, names: Names) -> dict[str, Any]:
    """What decides a template, but for the number of rounds.

    Raises:
        BadInput: files are not there, or two are the same image.
    """
    paths = [*names.values(), *([] if wanted.initial is None else [wanted.initial])]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise BadInput(f"images that are not there: {first_of(missing)}; expected files")
    digests = {name: digest(path)["sha256"] for name, path in names.items()}
    alike = [" and ".join(str(names[name]) for name in digests if digests[name] == one) for one in _twice(digests.values())]
    if alike:
        raise BadInput(f"images that are the same: {first_of(alike)}; expected each once")
    return {
        "format": FORMAT,
        "version": version("warpwright"),
        "images": digests,
        "initial": None if wanted.initial is None else digest(wanted.initial)["sha256"],
        "spacing": wanted.spacing,
        "sharpen": wanted.sharpen,
        "options": options_digest(wanted.options),
    }


def _twice(values: Iterable[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def begun(folder: Path, told: dict[str, Any]) -> list[Round]:
    """The rounds of an earlier run, whose templates are still as they were.

    Raises:
        BadInput: the folder holds something else.
    """
    if not (folder / DESCRIPTION).is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise BadInput(f"{folder}: is neither empty nor the folder of a template, expected a new or empty one")
        check_folder(folder, force=False)
        return []
    check_folder(folder, force=True)
    found = read_mapping(folder / DESCRIPTION)
    other = [name for name, value in told.items() if found.get(name) != value]
    if other:
        raise BadInput(f"{folder}: holds a template of other {first_of(other)}, expected a new folder, or the same as before")
    rounds = _load(folder)
    for number, one in enumerate(rounds):
        there = round_of(folder, number).is_file() and mask_of(folder, number).is_file()
        if not there or digest_of(folder, number) != one.sha256:
            return rounds[:number]
    return rounds


def _load(folder: Path) -> list[Round]:
    """The start and the rounds that a folder holds.

    Raises:
        BadInput: it is not what `build` writes.
    """
    path = folder / DESCRIPTION
    try:
        found = read_mapping(path)
        return [Round(**(one | {"warnings": tuple(one["warnings"])})) for one in found["rounds"]]
    except (KeyError, TypeError) as error:
        raise BadInput(f"{path}: is not what `warpwright template` writes ({error!r})") from None


def save(folder: Path, told: Mapping[str, Any], rounds: Sequence[Round]) -> None:
    """Write `template.json`, whole or not at all.

    Raises:
        BadInput, Failed: it cannot be written.
    """
    write_json(folder / DESCRIPTION, {**told, "rounds": [vars(one) for one in rounds]})
