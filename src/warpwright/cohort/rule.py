"""Pairs that nobody wrote down: the images of a folder or of a BIDS data set, and the rule by which they are paired."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from warpwright.cohort.bids import EXTENSIONS, Name, derived, label_of_file, label_of_name, read_filter, read_name
from warpwright.cohort.work import DESCRIPTION, Options, Pair, Rule, Work, absolute, load_work
from warpwright.errors import BadInput, first_of
from warpwright.io.image import READABLE

__all__ = ["bids_names", "work_of_rule"]


def work_of_rule(rule: Rule, options: Options, begun: Path | None = None) -> tuple[Work, tuple[str, ...]]:
    """The work that a rule and options describe.

    Args:
        rule: paths in it may be relative to the working directory.
        options: as of `read_work`.
        begun: an output folder; where the same rule was begun there, its pairs are taken as they were found then, so that
            the parts of a job array agree on them whatever comes into the folder meanwhile.

    Returns:
        The work, and sentences of what a person should know.

    Raises:
        BadInput: the folder or the atlas is not there, no image fits, or images cannot be told apart; all in one message.
    """
    rule = replace(rule, folder=absolute(rule.folder), fixed=None if rule.fixed is None else absolute(rule.fixed))
    config, model = (None if path is None else absolute(path) for path in (options.config, options.model))
    options = replace(options, config=config, model=model)
    earlier = load_work(begun) if begun is not None and (begun / DESCRIPTION).is_file() else None
    if earlier is None or earlier.rule != rule:
        return Work(table=rule.folder, options=options, pairs=_pairs(rule), rule=rule), ()
    known, new = {pair.id for pair in earlier.pairs}, []
    with suppress(BadInput):
        new = [pair.id for pair in _pairs(rule) if pair.id not in known]
    told = f"{rule.folder}: pairs are new since the work began: {first_of(new)}; the command without --shard takes them"
    return replace(earlier, options=options), (told,) if new else ()


def bids_names(work: Work) -> list[dict[str, str]]:
    """What the results of each pair are called in a BIDS data set of derivatives, as `derived` gives it.

    Args:
        work: its rule is of a BIDS data set.
    """
    assert work.rule is not None
    return [_derived(work.rule.folder, pair) for pair in work.pairs]


def _pairs(rule: Rule) -> tuple[Pair, ...]:
    """The table that a rule stands for.

    Raises:
        BadInput: see `work_of_rule`.
    """
    if rule.pairs == "sessions" and rule.bids is None:
        raise BadInput("--sessions pairs the sessions of a BIDS data set, expected --bids suffix=T1w say with it")
    wanted = None if rule.bids is None else read_filter(rule.bids)
    faults = _faults_of_places(rule)
    if not rule.folder.is_dir():
        raise BadInput("; ".join(faults))
    names, twisted = ({}, []) if wanted is None else _bids_images(rule.folder, wanted)
    images, twice = (
        _images(rule.folder) if wanted is None else ({name.stem: rule.folder / path for path, name in names.items()}, [])
    )
    images = {name: path for name, path in images.items() if rule.fixed is None or not _same(path, rule.fixed)}
    faults += [*twisted, *twice]
    least = 1 if rule.pairs == "fixed" else 2
    if len(images) < least and not faults:
        faults.append(_too_few(rule, wanted, len(images), least))
    if faults:
        raise BadInput("; ".join(faults))
    if rule.fixed is not None:
        pairs = [_pair(name, rule.fixed, path) for name, path in images.items()]
    else:
        both = combinations(images, 2) if rule.pairs == "all" else _sessions(rule.folder, names.values())
        pairs = [_pair(f"{fixed}~{moving}", images[fixed], images[moving]) for fixed, moving in both]
    if wanted is not None:
        pairs = [replace(pair, group=f"sub-{_name(rule.folder, pair.files['moving']).label('sub')}") for pair in pairs]
        _check_derived(rule, pairs)
    return tuple(pairs)


def _pair(name: str, fixed: Path, moving: Path) -> Pair:
    return Pair(id=name, files={"fixed": fixed, "moving": moving})


def _faults_of_places(rule: Rule) -> list[str]:
    faults = [] if rule.folder.is_dir() else [f"{rule.folder}: is not a folder, a folder of images was expected"]
    if rule.fixed is not None and not rule.fixed.exists():
        faults.append(f"--fixed {rule.fixed}: there is no such file, expected the image that all others are moved to")
    return faults


def _too_few(rule: Rule, wanted: Mapping[str, str] | None, found: int, least: int) -> str:
    if wanted is not None:
        asked = ", ".join(f"{key}={label}" for key, label in wanted.items())
        what = f"images with {asked} in folders sub-*"
    else:
        what = f"files that end in one of {' '.join(READABLE)}"
    beside = " beside the atlas" if rule.fixed is not None else ""
    return f"{rule.folder}: has {found or 'no'} such image{'s' * (found != 1)}{beside}, expected {least} or more {what}"


def _images(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Image files of a folder by their names without suffix, in the order of the names; a fault if two have one name."""
    found: dict[str, Path] = {}
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        suffix = next((s for s in READABLE if path.name.lower().endswith(s)), None)
        if suffix is None or path.name.startswith(".") or path.is_dir():
            continue
        name = path.name[: -len(suffix)]
        found[name] = path
        alike[name.casefold()].append(path.name)
    twice = [" and ".join(names) for names in alike.values() if len(names) > 1]
    told = f"{folder}: files that differ in suffix or capitals only: {first_of(twice)}; expected one of each"
    return found, [told] if twice else []


def _bids_images(root: Path, wanted: Mapping[str, str]) -> tuple[dict[str, Name], list[str]]:
    """Paths of images in a BIDS data set, relative to it, and what they say; in the order of subjects, sessions and names.

    Only folders sub-* are looked into, so neither derivatives nor hidden files count. The faults are files of the suffix that
    are not named as they should, and those that have the same entities.
    """
    found: dict[str, Name] = {}
    bad: list[str] = []
    ends = tuple(f"_{suffix}{extension}" for suffix in wanted["suffix"].split("|") for extension in EXTENSIONS)
    for path in sorted((path for path in _files(root) if path.endswith(ends)), key=_natural):
        try:
            name = read_name(path)
        except ValueError as error:
            bad.append(f"{path} ({error})")
            continue
        if name.fits(wanted):
            found[path] = name
    count = Counter(name.stem.casefold() for name in found.values())
    twice = [path for path, name in found.items() if count[name.stem.casefold()] > 1]
    misnamed = f"{root}: files that are not named as BIDS wants it: {first_of(bad)}; expected sub-01/anat/sub-01_T1w.nii.gz say"
    alike = f"{root}: files with the same entities: {first_of(twice)}; expected one of each, or more keys in --bids"
    nobody = [
        f"{key}={label}"
        for key, labels in wanted.items()
        for label in labels.split("|")
        if label and not any(name.label(key) == label for name in found.values())
    ]
    nothing = f"{root}: has no such image with {first_of(nobody)}, expected labels that are there"
    faults = ((misnamed, bad), (alike, twice), (nothing, found and nobody))
    return found, [sentence for sentence, ones in faults if ones]


def _files(root: Path) -> Iterator[str]:
    """Paths of the files of all subjects, relative to the data set, hidden ones left out."""
    for subject in root.glob("sub-*"):
        for place, folders, files in os.walk(subject):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                if not name.startswith("."):
                    yield Path(place, name).relative_to(root).as_posix()


def _natural(text: str) -> tuple[list[tuple[str, int]], str]:
    """To sort by: numbers within a text count as numbers."""
    return [(word, int(number or 0)) for word, number in re.findall(r"([^0-9]*)([0-9]*)", text)], text


def _sessions(root: Path, names: Iterable[Name]) -> list[tuple[str, str]]:
    """Of each subject the earliest session with each later one, of images that differ in nothing else.

    Raises:
        BadInput: no subject has two.
    """
    alike: defaultdict[tuple[object, ...], list[str]] = defaultdict(list)
    for name in names:
        if name.label("ses"):
            kept = tuple(entity for entity in name.entities if entity[0] != "ses")
            alike[kept, name.suffix, name.datatype].append(name.stem)
    found = [(first, other) for first, *others in alike.values() for other in others]
    if not found:
        raise BadInput(f"{root}: has no subject with two sessions of the same image, expected some for --sessions")
    return found


def _same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _name(root: Path, path: Path) -> Name:
    return read_name(path.relative_to(root).as_posix())


def _derived(root: Path, pair: Pair) -> dict[str, str]:
    moving, fixed = _name(root, pair.files["moving"]), pair.files["fixed"]
    try:
        return derived(moving, label_of_name(_name(root, fixed), moving))
    except ValueError:  # an atlas, which is no image of the data set
        return derived(moving, label_of_file(fixed.name))


def _check_derived(rule: Rule, pairs: Sequence[Pair]) -> None:
    """That no two pairs have results of one name.

    Raises:
        BadInput: some have.
    """
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        alike[_derived(rule.folder, pair)["transform.h5"].casefold()].append(pair.id)
    twice = [" and ".join(ids) for ids in alike.values() if len(ids) > 1]
    if twice:
        raise BadInput(f"{rule.folder}: results that would have one name: {first_of(twice)}; expected space or desc in --bids")
