"""`warpwright cohort`, `cohort status` and `cohort retry`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App

from warpwright.cli.cohort_options import Each, Paired, Where
from warpwright.cli.console import command_line, say, say_json, warn
from warpwright.errors import Failed

if TYPE_CHECKING:
    from warpwright.cohort.run import Engine, Plan

__all__ = ["app", "progress_of_pairs"]

NAMED = 20  # failures that are listed
QUIET = 20.0  # seconds between two lines about the progress
PAIRED, EACH, WHERE = Paired(), Each(), Where()  # nothing is asked for

app = App(name="cohort", help_format="plaintext")


@app.default
def cohort(
    pairs: Path,
    /,
    *,
    output: Path,
    paired: Paired = PAIRED,
    each: Each = EACH,
    where: Where = WHERE,
    dry_run: bool = False,
    force: bool = False,
    json: bool = False,
) -> None:
    """Register many pairs; the same command goes on where an earlier one stopped, and does only what is not done.

    Args:
        pairs: .csv or .jsonl with the columns id,fixed,moving and optionally fixed_mask, moving_mask, fixed_labels,
            moving_labels, fixed_points, moving_points, group, split; paths are relative to the file. Or a folder of images,
            with --fixed, --all-pairs or --sessions.
        output: new or empty folder, or that of an earlier run: a folder for each id, results.csv, timings.csv, index.html.
        paired: how images of a folder become pairs.
        each: how each pair is registered.
        where: where the work runs.
        dry_run: check everything, tell what is to be done, and stop.
        force: run every pair again.
        json: print the outcome for machines.
    """
    part, rule = where.part(), paired.rule(pairs)
    engine = where.engine()
    from warpwright.cohort.rule import work_of_rule
    from warpwright.cohort.run import make_plan
    from warpwright.cohort.work import read_work

    if rule is None:
        work, notes = read_work(pairs, each.options()), ()
    else:
        work, notes = work_of_rule(rule, each.options(), None if part is None else output)
    plan = make_plan(work, output, command=command_line(), shard=part, force=force)
    warn(notes)
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
def retry(folder: Path, /, *, where: Where = WHERE, json: bool = False) -> None:
    """Run the pairs that failed again, and those that were not run yet.

    Args:
        folder: what `cohort` was given as --output.
        where: where the work runs.
        json: print the outcome for machines.
    """
    part, engine = where.part(), where.engine()
    from warpwright.cohort.run import make_plan
    from warpwright.cohort.work import load_work

    _run(make_plan(load_work(folder), folder, command=command_line(), shard=part, retry=True), engine, folder, json=json)


def _run(plan: Plan, engine: Callable[[int], Engine], output: Path, *, json: bool) -> None:
    """Do it and tell.

    Raises:
        Failed: pairs failed, or the work stopped.
    """
    from warpwright.cohort.run import execute

    warn(plan.notes())
    with progress_of_pairs() as listen:
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
def progress_of_pairs() -> Iterator[Callable[[int, int, int], None]]:
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
