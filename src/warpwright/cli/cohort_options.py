"""The options that `warpwright cohort` and its sub-commands share: where work runs, and how each pair is registered."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from warpwright.errors import BadInput
from warpwright.product.choices import Header, Initialise, Kind, Photograph, Preset, SimilarityName, Space

if TYPE_CHECKING:
    from warpwright.cohort.run import Engine, Shard
    from warpwright.cohort.work import Options, Rule

__all__ = ["Each", "Paired", "Where"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Paired:
    """How the images of a folder become pairs.

    Args:
        fixed: of a folder: move every image of it to this one.
        all_pairs: of a folder: register every two images of it; the result of a pair holds the way back too.
        bids: the folder is a BIDS data set of which these images are meant: suffix=T1w,sub=01|02,run= (one of several
            labels; a key without a label must not be in the name); results get the names of BIDS derivatives too.
        sessions: of a BIDS data set: move each later session of a person to the first one.
    """

    fixed: Path | None = None
    all_pairs: bool = False
    bids: str | None = None
    sessions: bool = False

    def rule(self, folder: Path) -> Rule | None:
        """The rule that is asked for; None for a table.

        Raises:
            BadInput: none or several are, for a folder.
        """
        from warpwright.cohort.work import Rule

        asked = [self.fixed is not None, self.all_pairs, self.sessions]
        if sum(asked) > 1:
            raise BadInput("--fixed, --all-pairs and --sessions are ways to make pairs, got several, expected one of them")
        if any(asked) and folder.is_file():
            raise BadInput(f"{folder}: is a file, expected a folder of images with --fixed, --all-pairs or --sessions")
        if not any(asked):
            if folder.is_dir() or self.bids is not None:
                raise BadInput(
                    f"{folder}: expected --fixed ATLAS, --all-pairs or --sessions with a folder, or a table of pairs"
                )
            return None
        return Rule(
            folder=folder,
            pairs="fixed" if self.fixed is not None else "all" if self.all_pairs else "sessions",
            fixed=self.fixed,
            bids=self.bids,
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Each:
    """How each pair is registered, and what is left of it.

    Args:
        transform: kind of map, as of `register`; so are the options to --seed.
        similarity: what makes two images alike.
        preset: how much work to spend; balanced by default.
        config: TOML or JSON file whose settings are laid over the preset's.
        initialise: where the search begins.
        model: model folder (train leaves one).
        refine: steps on a copy of the model for each pair.
        refine_rate: learning rate of these steps.
        refine_field: steps of the solver on the field that the model gives.
        score: also write score.nii.gz.
        space: frame of the landmarks in .csv files.
        photograph: what to take of pictures in colour.
        header: which geometry of a NIfTI file to take where its two differ.
        device: auto, cpu, cuda or cuda:0.
        seed: of everything drawn at random.
        no_figures: draw no figure.png.
        report: also write report.html of each pair, a page about it.
        parquet: also write the table of results as results.parquet.
    """

    transform: Kind | None = None
    similarity: SimilarityName | None = None
    preset: Preset | None = None
    config: Path | None = None
    initialise: Initialise | None = None
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
    no_figures: bool = False
    report: bool = False
    parquet: bool = False

    def options(self) -> Options:
        """As `cohort` takes them."""
        from warpwright.cohort.work import Options

        told = {name: value for name, value in vars(self).items() if name != "no_figures"}
        return Options(**told, figures=not self.no_figures)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Where:
    """Where the work runs.

    Args:
        workers: processes on this machine, of one thread each; as many as there are processors by default.
        scheduler: address of a Dask scheduler whose workers do the work, tcp://HOST:PORT.
        slurm: TOML file that says which jobs SLURM is asked for, whose workers do the work.
        shard: I/N: do the I-th of N parts, one pair after the other, in this process; for job arrays.
    """

    workers: int | None = None
    scheduler: str | None = None
    slurm: Path | None = None
    shard: str | None = None

    def part(self) -> Shard | None:
        """The part of the work that is asked for; None for all of it.

        Raises:
            BadInput: more than one way to run was named, or one that is not understood.
        """
        if sum(way is not None for way in vars(self).values()) > 1:
            raise BadInput(
                "--workers, --scheduler, --slurm and --shard are ways to run, got several, expected one of them at most"
            )
        if self.workers is not None and self.workers < 1:
            raise BadInput(f"--workers must be at least 1, got {self.workers}")
        if self.shard is None:
            return None
        first, slash, second = self.shard.partition("/")
        if not (slash and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
            raise BadInput(f"--shard {self.shard}: expected the number of a part and that of all parts, 1/4 to 4/4 say")
        return int(first), int(second)

    def engine(self) -> Callable[[int], Engine]:
        """What gives an engine for so many pairs; a file that is named is read at once.

        Raises:
            BadInput: the file is not understood.
        """
        from warpwright.cohort.run import in_order
        from warpwright.cohort.slurm import read_jobs

        jobs = None if self.slurm is None else read_jobs(self.slurm)

        def engine(count: int) -> Engine:
            if self.shard is not None or not count:
                return in_order
            from warpwright.cohort.engine import workers_of_scheduler, workers_of_slurm, workers_on_this_machine

            if self.scheduler is not None:
                return workers_of_scheduler(self.scheduler)
            if jobs is not None:
                return workers_of_slurm(jobs)
            return workers_on_this_machine(min(self.workers or _processors(), count))

        return engine


def _processors() -> int:
    """How many of them this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
