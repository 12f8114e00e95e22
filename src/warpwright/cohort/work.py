"""What a cohort is asked to do: the rows of a table of pairs, and how each of them is registered.

The description lies in the output folder as `cohort.json`, so that the folder can be looked at and gone on with alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from warpwright.config import from_mapping, read_mapping, to_mapping
from warpwright.data.manifest import Case, CasePair, read_pair_table
from warpwright.errors import BadInput
from warpwright.product.choices import Header, Initialise, Kind, Photograph, Preset, SimilarityName, Space
from warpwright.product.inputs import digest
from warpwright.product.output import write_json

if TYPE_CHECKING:
    from warpwright.product.choice import Choice

__all__ = [
    "DESCRIPTION",
    "Options",
    "Pair",
    "Rule",
    "Work",
    "absolute",
    "load_work",
    "named_files",
    "options_digest",
    "read_work",
    "save_work",
]

DESCRIPTION = "cohort.json"
FORMAT = 1  # of `cohort.json`
FIGURES = ("figures", "report", "parquet")  # options that say which files are left, and not what is in the others
CONTENT = ("config", "model")  # options that name files, which count by what is in them


@dataclass(frozen=True, kw_only=True)
class Options:
    """How every pair is registered: the options of `product.register` that can be the same for many pairs.

    Args:
        config: as there; an absolute path once it is part of a `Work`, like `model`.
        figures: draw figure.png, and a small picture of it for the page of the cohort.
        report: write report.html of each pair.
        parquet: write the table of results as results.parquet, too.
    """

    transform: Kind | None = None
    similarity: SimilarityName | None = None
    preset: Preset | None = None
    initialise: Initialise | None = None
    config: Path | None = None
    model: Path | None = None
    refine: int = 0
    refine_rate: float | None = None
    refine_field: int = 0
    score: bool = False
    space: Space | None = None
    photograph: Photograph | None = None
    header: Header = "strict"
    device: str = "auto"
    seed: int = 0
    figures: bool = True
    report: bool = False
    parquet: bool = False

    def choice(self) -> Choice:
        """What they say of the settings."""
        from warpwright.product.choice import Choice

        return Choice(
            transform=self.transform,
            similarity=self.similarity,
            preset=self.preset,
            initialise=self.initialise,
            config=self.config,
        )


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One row of the table.

    Args:
        id: unique; the name of its folder.
        files: column of the table to absolute path, of the columns that are not empty.
        group: what it belongs to; "" for none.
        split: train, validation or test.
    """

    id: str
    files: dict[str, Path]
    group: str = ""
    split: str = "train"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How pairs are made of the images of a folder, in the place of a table.

    Args:
        folder: of images, or a BIDS data set.
        pairs: "fixed": an atlas and each image; "all": every two images; "sessions": each subject's first and each later one.
        fixed: the atlas.
        bids: which images of a BIDS data set are meant, as `bids.read_filter` has it; None for a folder of images.
    """

    folder: Path
    pairs: Literal["fixed", "all", "sessions"]
    fixed: Path | None = None
    bids: str | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a cohort is asked to do.

    Args:
        table: absolute path of the table or folder that the pairs are from.
        options: how each is registered.
        pairs: in the order of the table.
        rule: by which the pairs were made; None if they are rows of a table.
    """

    table: Path
    options: Options
    pairs: tuple[Pair, ...]
    rule: Rule | None = None


def read_work(table: Path, options: Options) -> Work:
    """The work that a table and options describe.

    Args:
        table: `.csv` or `.jsonl` with one row a pair, in the format of `data.manifest`; paths are relative to it.
        options: paths in it may be relative to the working directory.

    Raises:
        BadInput: see `read_pair_table`.
    """
    pairs = tuple(_pair(row) for row in read_pair_table(table))
    config, model = (None if path is None else absolute(path) for path in (options.config, options.model))
    return Work(table=absolute(table), options=replace(options, config=config, model=model), pairs=pairs)


def save_work(work: Work, folder: Path) -> None:
    """Write `cohort.json`, whole or not at all; the same work gives the same bytes.

    Raises:
        BadInput, Failed: it cannot be written.
    """
    pairs = [{"id": p.id, "files": p.files, "group": p.group, "split": p.split} for p in work.pairs]
    rule = {} if work.rule is None else {"rule": to_mapping(work.rule)}
    told = {"format": FORMAT, "table": work.table, **rule, "options": to_mapping(work.options), "pairs": pairs}
    write_json(folder / DESCRIPTION, told)


def load_work(folder: Path) -> Work:
    """The work of a folder in which a cohort was begun.

    Raises:
        BadInput: it holds none, or one of another version.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise BadInput(f"{folder}: holds no {DESCRIPTION}, expected a folder that `warpwright cohort` wrote")
    found = read_mapping(path)
    if found.pop("format", None) != FORMAT:
        raise BadInput(f"{path}: is of another version of Warpwright, expected format {FORMAT}")
    try:
        options = from_mapping(Options, found["options"], where=f"{path}.options")
        pairs = tuple(
            Pair(id=p["id"], files={k: Path(v) for k, v in p["files"].items()}, group=p["group"], split=p["split"])
            for p in found["pairs"]
        )
        rule = from_mapping(Rule, found["rule"], where=f"{path}.rule") if "rule" in found else None
        return Work(table=Path(found["table"]), options=options, pairs=pairs, rule=rule)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: is not what `warpwright cohort` writes ({error!r})") from None


def options_digest(options: Options) -> str:
    """SHA-256 of all that decides what a pair's results are, beside its files: files that options name count by content.

    Raises:
        BadInput: such a file cannot be read.
    """
    told: dict[str, Any] = {name: value for name, value in to_mapping(options).items() if name not in FIGURES}
    told["preset"] = options.preset or "balanced"  # which is what none means
    for name in CONTENT:
        path = getattr(options, name)
        if path is not None:
            try:
                told[name] = _content(path, _states(path))
            except OSError as error:
                raise BadInput(f"{path}: cannot be read ({error.strerror}), expected what --{name} names") from None
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def named_files(options: Options) -> tuple[Path, ...]:
    """The files and folders that options name."""
    return tuple(path for name in CONTENT if (path := getattr(options, name)) is not None)


def _states(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, bytes and time of change of a file, or of each file in a folder."""
    files = [file for file in sorted(path.iterdir()) if file.is_file()] if path.is_dir() else [path]
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=16)
def _content(path: Path, _stats: tuple[tuple[str, int, int], ...]) -> str:
    """SHA-256 of a file or folder, which is read once as long as its files are what they were."""
    return digest(path)["sha256"]


def _pair(row: CasePair) -> Pair:
    files = {**_files("fixed", row.fixed), **_files("moving", row.moving)}
    return Pair(id=row.id, files=files, group=row.fixed.group, split=row.fixed.split)


def _files(side: str, case: Case) -> dict[str, Path]:
    extras = {"mask": case.mask, "labels": case.labels, "points": case.points}
    named = {side: case.image, **{f"{side}_{extra}": path for extra, path in extras.items()}}
    return {column: absolute(path) for column, path in named.items() if path is not None}


def absolute(path: Path) -> Path:
    """The path from the root, with links kept as they are."""
    return Path(os.path.abspath(path))
