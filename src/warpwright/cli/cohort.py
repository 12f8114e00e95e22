"""`warpwright cohort`, `cohort status` and `cohort retry`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from warpwright.cli.console import command_line, say, say_json, warn
from warpwright.errors import BadInput, Failed
from warpwright.product.choices import Header, Initialise, Kind, Photograph, Preset, SimilarityName, Space

if TYPE_CHECKING:
    from warpwright.cohort.run import Engine, Plan

__all__ = ["app"]

NAMED = 20  # failures that are listed
QUIET = 20.0  # seconds between two lines about the progress

app = App(name="cohort", help_format="plaintext")


@app.default
def cohort(
    pairs: Path,
    /,
    *,
    output: Path,
    transform: Kind | None = None,
    similarity: SimilarityName | None = None,
    preset: Preset = "balanced",
    config: Path | None = None,
    initialise: Initialise | None = None,
    model: Path | None = None,
    refine: int = 0,
    refine_rate: float | None = None,
    refine_field: int = 0,
    score: bool = False,
    space: Space | None = None,
    photograph: Photograph | None = None,
    header: Header = "strict",
    device: str = "auto",
    seed: int = 0,
    no_figures: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    shard: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Register many pairs; the same command goes on where an earlier one stopped, and does only what is not done.

    Args:
        pairs: .csv or .jsonl with the columns id,fixed,moving and optionally fixed_mask, moving_mask, fixed_labels,
            moving_labels, fixed_points, moving_points, group, split; paths are relative to the file.
        output: new or empty folder, or that of an earlier run: a folder for each id, results.csv, timings.csv, index.html.
        transform: kind of map, as of `register`; so are the options to --seed.
        similarity: what makes two images alike.
        preset: how much work to spend.
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
        workers: processes on this machine, of one thread each; as many as there are processors by default.
        scheduler: address of a Dask scheduler whose workers do the work, tcp://HOST:PORT.
        shard: I/N: do the I-th of N parts, one pair after the other, in this process; for job arrays.
        dry_run: check everything, tell what is to be done, and stop.
        force: run every pair again.
        json: print the outcome for machines.
    """
    part, engine = _engine(workers, scheduler, shard)
    from warpwright.cohort.run import make_plan
    from warpwright.cohort.work import Options, read_work

    options = Options(
        transform=transform,
        similarity=similarity,
        preset=preset,
        config=config,
        initialise=initialise,
        model=model,
        refine=refine,
        refine_rate=refine_rate,
        refine_field=refine_field,
        score=score,
        space=space,
        photograph=photograph,
        header=header,
        device=device,
        seed=seed,
        figures=not no_figures,
    )
    plan = make_plan(read_work(pairs, options), output, command=command_line(), shard=part, force=force)
    if dry_run:
        _tell(plan, output, {"to_do": len(plan.todo)}, json=json)
        return
    _run(plan, engine, output, json=json)


@app.command
def status(folder: Path, /, *, json: bool = False) -> None:
    """Tell how far a cohort has come, and which pairs failed.

    Args:
        folder: what `cohort` was given as --output.
        json: print it for machines.
    """
    from warpwright.cohort.run import look_at

    _tell(look_at(folder), folder, {}, json=json)


@app.command
def retry(
    folder: Path,
    /,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    shard: str | None = None,
    json: bool = False,
) -> None:
    """Run the pairs that failed again, and those that were not run yet.

    Args:
        folder: what `cohort` was given as --output.
        workers: processes on this machine, of one thread each; as many as there are processors by default.
        scheduler: address of a Dask scheduler whose workers do the work, tcp://HOST:PORT.
        shard: I/N: do the I-th of N parts, one pair after the other, in this process.
        json: print the outcome for machines.
    """
    part, engine = _engine(workers, scheduler, shard)
    from warpwright.cohort.run import make_plan
    from warpwright.cohort.work import load_work

    _run(make_plan(load_work(folder), folder, command=command_line(), shard=part, retry=True), engine, folder, json=json)


def _engine(
    workers: int | None, scheduler: str | None, shard: str | None
) -> tuple[tuple[int, int] | None, Callable[[int], Engine]]:
    """The part of the work that is asked for, and what gives an engine for so many pairs.

    Raises:
        BadInput: more than one way to run was named, or one that is not understood.
    """
    if sum(way is not None for way in (workers, scheduler, shard)) > 1:
        raise BadInput("--workers, --scheduler and --shard are ways to run, got several, expected one of them at most")
    if workers is not None and workers < 1:
        raise BadInput(f"--workers must be at least 1, got {workers}")
    part = None if shard is None else _part(shard)

    def engine(count: int) -> Engine:
        from warpwright.cohort.run import in_order

        if part is not None or not count:
            return in_order
        from warpwright.cohort.engine import workers_of_scheduler, workers_on_this_machine

        if scheduler is not None:
            return workers_of_scheduler(scheduler)
        return workers_on_this_machine(min(workers or _processors(), count))

    return part, engine


def _processors() -> int:
    """How many of them this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _part(shard: str) -> tuple[int, int]:
    first, slash, second = shard.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise BadInput(f"--shard {shard}: expected the number of a part and that of all parts, 1/4 to 4/4 say")
    return int(first), int(second)


def _run(plan: Plan, engine: Callable[[int], Engine], output: Path, *, json: bool) -> None:
    """Do it and tell.

    Raises:
        Failed: pairs failed, or the work stopped.
    """
    from warpwright.cohort.run import execute

    warn(plan.notes())
    with _progress() as listen:
        after = execute(plan, engine(len(plan.todo)), listen)
    warn(after.notes()[:1] if after.skipped else ())
    _tell(after, output, {"run": len(plan.todo)}, json=json)
    count = after.counts()["failed"]
    if count:
        raise Failed(f"{count} of {len(after.states)} pairs failed; `warpwright cohort retry {output}` runs them again")


def _tell(plan: Plan, output: Path, more: dict[str, Any], *, json: bool) -> None:
    counts, failures = plan.counts(), dict(plan.failures())
    if json:
        say_json({"output": output, **counts, **more, "failures": failures})
        return
    told = {**counts, **{name.replace("_", " "): value for name, value in more.items()}}
    say(f"{name:<12}{value}" for name, value in told.items() if value or name in ("pairs", "done", "to do", "run"))
    for name, sentence in list(failures.items())[:NAMED]:
        say([f"failed      {name}: {sentence}"])
    if len(failures) > NAMED:
        say([f"            and {len(failures) - NAMED} more"])
    if (output / "index.html").is_file():
        say([f"look at     {output / 'index.html'}"])


@contextmanager
def _progress() -> Iterator[Callable[[int, int, int], None]]:
    """A listener: a bar on a terminal, else a line from time to time."""
    if sys.stderr.isatty():
        with _bar() as listen:
            yield listen
    else:
        yield _lines()


def _lines() -> Callable[[int, int, int], None]:
    last = time.monotonic()

    def listen(count: int, total: int, failed: int) -> None:
        nonlocal last
        now = time.monotonic()
        if total and (now - last >= QUIET or count == total):
            last = now
            sys.stderr.write(f"{count} of {total} pairs{f', {failed} failed' if failed else ''}\n")

    return listen


@contextmanager
def _bar() -> Iterator[Callable[[int, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("pairs"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, failed="")

        def listen(count: int, total: int, failed: int) -> None:
            bar.update(task, completed=count, total=total, failed=f"{failed} failed" if failed else "")

        yield listen
