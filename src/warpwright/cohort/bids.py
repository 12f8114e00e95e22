"""Names of the Brain Imaging Data Structure: what a path in a data set says, and how names are made. Text in, text out.

After version 1.10 of the specification: "Common principles" (file names), "Entities" (their order), "Derivatives".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from warpwright.errors import BadInput, did_you_mean

__all__ = ["EXTENSIONS", "VERSION", "Name", "derived", "label_of_file", "label_of_name", "read_filter", "read_name"]

VERSION = "1.10.0"
EXTENSIONS = (".nii.gz", ".nii")
ORDER = (  # of entities in a name; those of transforms, which the specification lacks yet, as fMRIPrep has them
    "sub", "tpl", "ses", "cohort", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec", "dir",
    "run", "mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk", "atlas", "seg",
    "scale", "res", "den", "label", "from", "to", "mode", "desc",
)  # fmt: skip
OTHER = ("suffix", "datatype")  # what else an image can be chosen by
PLACED = ("space", "res", "den", "desc")  # entities that say where the voxels are and how they were made
LABEL = re.compile(r"[0-9A-Za-z+]+")
ENTITY = re.compile(r"([a-z]+)-([0-9A-Za-z+]+)")


@dataclass(frozen=True, kw_only=True)
class Name:
    """What the path of an image says.

    Args:
        entities: key to label, in the order of the specification.
        suffix: T1w, bold.
        extension: .nii.gz or .nii.
        datatype: anat, func; "" for a file that lies in no such folder.
    """

    entities: tuple[tuple[str, str], ...]
    suffix: str
    extension: str
    datatype: str = ""

    def label(self, key: str) -> str:
        """The label of an entity, the suffix or the datatype; "" if the name has none."""
        return {"suffix": self.suffix, "datatype": self.datatype, **dict(self.entities)}.get(key, "")

    @property
    def stem(self) -> str:
        """The name without extension."""
        return _joined(self.entities, self.suffix)

    @property
    def folder(self) -> str:
        """Where it lies in the data set."""
        return "/".join(_folders(dict(self.entities), self.datatype))

    def fits(self, wanted: Mapping[str, str]) -> bool:
        """Whether it has one of the labels of each key, as `read_filter` gives them; one that is "" must not be there."""
        return all(self.label(key) in labels.split("|") for key, labels in wanted.items())


def read_name(path: str) -> Name:
    """What the path of an image in a data set says.

    Args:
        path: relative to the data set, with slashes.

    Raises:
        ValueError: it is not named as the specification wants it; the message is a clause that says why.
    """
    folders = list(PurePosixPath(path).parent.parts)
    stem, dot, end = PurePosixPath(path).name.partition(".")
    extension = dot + end
    if extension not in EXTENSIONS:
        raise ValueError(f"ends in {extension or 'nothing'}, not in {' or '.join(EXTENSIONS)}")
    *parts, suffix = stem.split("_")
    found = [ENTITY.fullmatch(part) for part in parts]
    odd = [part for part, match in zip(parts, found, strict=True) if match is None]
    if odd or not LABEL.fullmatch(suffix):
        raise ValueError(f"has {(odd or [suffix])[0]!r} where a key-label or the suffix is expected")
    pairs = [(match[1], match[2]) for match in found if match is not None]
    keys = [key for key, _ in pairs]
    if "sub" not in keys:
        raise ValueError("has no sub-")
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"has {twice[0]}- more than once")
    entities = dict(sorted(pairs, key=_rank))
    datatype = folders[-1] if folders and "-" not in folders[-1] else ""
    wanted = _folders(entities, datatype)
    if folders != wanted:
        raise ValueError(f"lies in {'/'.join(folders) or 'no folder'}, expected {'/'.join(wanted)}")
    return Name(entities=tuple(entities.items()), suffix=suffix, extension=extension, datatype=datatype)


def read_filter(text: str) -> dict[str, str]:
    """Which images are meant: `suffix=T1w,sub=01|02,run=`; a key without a label must not be in the name.

    Raises:
        BadInput: it is not understood, or names no suffix.
    """
    wanted: dict[str, str] = {}
    for part in text.split(","):
        key, equals, label = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise BadInput(f"--bids {text}: {part.strip()!r} is no key=label, expected suffix=T1w,acq=mprage say")
        if key not in (*ORDER, *OTHER):
            raise BadInput(f"--bids {text}: has the unknown key {key!r}{did_you_mean(key, (*ORDER, *OTHER))}")
        if key in wanted:
            raise BadInput(f"--bids {text}: has {key} more than once, expected it once")
        odd = [one for one in label.split("|") if label and not LABEL.fullmatch(one)]
        if odd:
            raise BadInput(f"--bids {text}: {odd[0]!r} is no label, expected letters and digits")
        wanted[key] = label
    if not wanted.get("suffix"):
        raise BadInput(f"--bids {text}: says no suffix, expected suffix=T1w say")
    return wanted


def label_of_file(name: str) -> str:
    """A label for an atlas by the name of its file: that of tpl-, or its letters and digits."""
    found = re.match(r"tpl-([0-9A-Za-z+]+)_", name)
    letters = re.sub(r"[^0-9A-Za-z]", "", name.partition(".")[0])
    return found[1] if found else letters or "atlas"


def label_of_name(fixed: Name, moving: Name) -> str:
    """A label for an image of the data set: what its name has and that of the other image has not, and its suffix."""
    own = [key + label for key, label in fixed.entities if moving.label(key) != label]
    return "".join(own) + fixed.suffix


def derived(moving: Name, fixed: str) -> dict[str, str]:
    """Results of a pair, and what they are called in a data set of derivatives.

    Args:
        moving: the image that was moved.
        fixed: label of what it was moved to.

    Returns:
        File that `register` leaves to path, relative to the data set.
    """
    kept = {key: label for key, label in moving.entities if key not in PLACED}
    source = moving.label("space") or moving.suffix
    there = {**kept, "from": source, "to": fixed, "mode": "image"}
    back = {**kept, "from": fixed, "to": source, "mode": "image"}
    moved = {**kept, "space": fixed, "desc": "moved"}
    names = {
        "transform.h5": _joined(there.items(), "xfm") + ".h5",
        "inverse.h5": _joined(back.items(), "xfm") + ".h5",
        "moved.nii.gz": _joined(moved.items(), moving.suffix) + ".nii.gz",
        "jacobian.nii.gz": _joined({**kept, "space": fixed}.items(), "jacobian") + ".nii.gz",
        "score.nii.gz": _joined({**kept, "space": fixed}.items(), "score") + ".nii.gz",
    }
    return {file: f"{moving.folder}/{name}" for file, name in names.items()}


def _folders(entities: Mapping[str, str], datatype: str) -> list[str]:
    kept = [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]
    return [*kept, *([datatype] if datatype else [])]


def _joined(entities: Iterable[tuple[str, str]], suffix: str) -> str:
    return "_".join([*(f"{key}-{label}" for key, label in sorted(entities, key=_rank)), suffix])


def _rank(entity: tuple[str, str]) -> tuple[int, str]:
    """Unknown keys come before those of transforms."""
    key = entity[0]
    return (2 * ORDER.index(key) if key in ORDER else 2 * ORDER.index("from") - 1), key
