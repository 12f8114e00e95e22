"""What is to be done of a cohort, and doing it: nothing that is done already, and everything that can be done.

The outcome of a pair is decided by its row and the options alone, so neither the order nor the number of workers matters,
nor how often a pair was begun.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from warpwright.cohort.check import check_files, check_options, check_work
from warpwright.cohort.derivatives import write_derivatives
from warpwright.cohort.page import write_page
from warpwright.cohort.pair import run_pair
from warpwright.cohort.place import left, save_token
from warpwright.cohort.provenance import Seen, State, read_record, same_run, state_of, write_record
from warpwright.cohort.table import outcome, require_parquet, write_pairs, write_parquet, write_tables
from warpwright.cohort.work import DESCRIPTION, Work, load_work, options_digest, save_work
from warpwright.config import to_mapping
from warpwright.errors import BadInput, Failed, WarpwrightError, first_of
from warpwright.product.output import check_folder

__all__ = ["Engine", "Plan", "Shard", "execute", "in_order", "look_at", "make_plan"]

Task: TypeAlias = Mapping[str, Any]
Engine: TypeAlias = Callable[[Iterable[Task]], Generator[Mapping[str, Any], None, None]]  # tasks to records, in any order
Shard: TypeAlias = tuple[int, int]  # (i, n): the i-th of n parts, from 1
RESULTS = ("transform.h5", "inverse.h5", "moved.nii.gz", "jacobian.nii.gz", "result.json")
DRAWN = ("figure.png", "thumbnail.jpg")
TOLD = ("report.html",)
DEATHS = 3  # processes that may end at a pair of a part, before it counts as failed
TRIES, PAUSE = 10, 0.1  # of looking whether another process is just beginning the same work, and seconds between
VISIBLE = 5.0  # seconds until a file that was written on another machine is seen
OLD = 3600.0  # seconds, after which a temporary folder of another machine is no longer being written
OURS = re.compile(r"\.warpwright-[a-z0-9_]{8}|\.[0-9a-f]{12}(\..*)?|\.cohort-token")  # of a process that begins the work


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """What is to be done of a cohort.

    Args:
        work: the whole of it.
        folder: absolute, where it goes.
        digest: of the options.
        states: where each pair stands, in the order of the table.
        todo: numbers of the pairs that are to be run.
        command: the command line, for `result.json`.
        shard: which part of the work this is; None for all.
        skipped: ids of pairs that were left to another process.
    """

    work: Work
    folder: Path
    digest: str
    states: tuple[State, ...]
    todo: tuple[int, ...]
    command: str
    shard: Shard | None = None
    skipped: tuple[str, ...] = ()

    def task(self, number: int) -> dict[str, Any]:
        """What a process must know to run a pair: a small mapping of plain values."""
        pair = self.work.pairs[number]
        return {
            "id": pair.id,
            "folder": str(self.folder / pair.id),
            "files": {column: str(path) for column, path in pair.files.items()},
            "options": to_mapping(self.work.options),
            "digest": self.digest,
            "command": self.command,
            "version": version("warpwright"),
            **({} if self.shard is None else {"deaths": DEATHS}),
        }

    def counts(self) -> dict[str, int]:
        """How many pairs there are, and how many of each status."""
        found = Counter(state.status for state in self.states)
        return {"pairs": len(self.states), **{name: found[name] for name in ("done", "failed", "missing", "changed")}}

    def failures(self) -> Iterator[tuple[str, str]]:
        """Id and sentence of the pairs that failed."""
        for pair, state in zip(self.work.pairs, self.states, strict=True):
            if state.status == "failed":
                yield pair.id, str(state.record["sentence"])

    def notes(self) -> tuple[str, ...]:
        """What a person should know of results that stay."""
        now, again = version("warpwright"), set(self.todo)
        others = Counter(s.record.get("version") for k, s in enumerate(self.states) if s.record and k not in again)
        left = (f"left out, because other processes run them now: {first_of(self.skipped)}",)
        return (left if self.skipped else ()) + tuple(
            f"{count} results are of Warpwright {other}, this is {now}: --force runs them again"
            for other, count in sorted(others.items(), key=str)
            if other != now
        )


def in_order(tasks: Iterable[Task]) -> Generator[Mapping[str, Any], None, None]:
    """An engine: one pair after the other, in this process."""
    for task in tasks:
        yield run_pair(task)


def look_at(folder: Path) -> Plan:
    """Where a cohort stands, with nothing to do; nothing is written.

    Raises:
        BadInput: the folder holds no cohort, or a file that its options name cannot be read.
    """
    folder = folder.absolute()
    work = load_work(folder)
    digest = options_digest(work.options)
    return Plan(work=work, folder=folder, digest=digest, states=_look(work, folder, digest), todo=(), command="")


def make_plan(
    work: Work,
    folder: Path,
    *,
    command: str = "",
    shard: Shard | None = None,
    force: bool = False,
    retry: bool = False,
) -> Plan:
    """Check the whole work, and find what is to be done.

    Args:
        work: what is asked for.
        folder: where it goes: absent, empty, or that of a cohort, whose results are kept where they are still good.
        command: the command line.
        shard: do the pairs i, i + n, i + 2 n ... of the table only.
        force: run every pair again.
        retry: run those that failed again.

    Raises:
        BadInput: anything cannot be used.
        Failed: PyArrow is asked for and not installed.
    """
    folder = folder.absolute()
    _check_place(folder)
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise BadInput(f"--shard {shard[0]}/{shard[1]}: expected the number of a part and that of all parts, 1/4 to 4/4 say")
    check_work(work)
    if work.options.parquet:
        require_parquet()
    digest = options_digest(work.options)
    states = _look(work, folder, digest)
    again = ("missing", "changed", *(("failed",) if retry else ()))
    todo = tuple(
        k
        for k, state in enumerate(states)
        if (force or state.status in again) and (shard is None or k % shard[1] == shard[0] - 1)
    )
    if todo:
        check_files(work, todo)
        check_options(work.options)
    return Plan(work=work, folder=folder, digest=digest, states=states, todo=todo, command=command, shard=shard)


def execute(plan: Plan, engine: Engine, listen: Callable[[int, int, int], None]) -> Plan:
    """Do what is to be done, and write the tables and the page.

    Args:
        plan: of `make_plan`.
        engine: takes tasks one by one as it can run them, gives records as they come.
        listen: is told how many of how many pairs were run, and how many of them failed.

    Returns:
        The plan with the states that the pairs have now, and nothing to do.

    Raises:
        Failed: interrupted, the scheduler is gone, or tables cannot be written. What was done stays and need not be done again.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    save_work(plan.work, plan.folder)
    if plan.work.rule is not None:
        write_pairs(plan.folder, plan.work.pairs)
    try:
        token = save_token(plan.folder)
    except OSError as error:
        raise Failed(f"{plan.folder}: cannot be written ({error.strerror})") from error
    numbers = {plan.work.pairs[k].id: k for k in plan.todo}
    states, failed, skipped = list(plan.states), 0, []
    _bring_up_to_date(plan)
    try:
        with closing(engine(plan.task(k) | {"token": token} for k in plan.todo)) as records:
            listen(0, len(plan.todo), 0)
            for count, record in enumerate(records, 1):
                name = record["id"]
                if "stop" in record:
                    raise Failed(record["stop"])
                if record["state"] == "skipped":
                    skipped.append(name)
                else:
                    _check_seen(plan.folder / name, record)
                    states[numbers[name]] = State(status=record["state"], record=record)
                failed += record["state"] == "failed"
                listen(count, len(plan.todo), failed)
    except BaseException as error:  # what was done until then is told; some pairs were done and not heard of
        states = list(_look(plan.work, plan.folder, plan.digest))
        with suppress(OSError, WarpwrightError):  # a full disk, say, which is told below
            _tell(replace(plan, states=tuple(states), todo=()))
        if not isinstance(error, KeyboardInterrupt):
            raise
        done = sum(state.status == "done" for state in states)
        raise Failed(f"interrupted, {done} of {len(states)} pairs are done: the same command goes on from there") from None
    _sweep(plan.folder, numbers)
    if skipped:
        now = _look(plan.work, plan.folder, plan.digest)
        states = [now[k] if pair.id in skipped else states[k] for k, pair in enumerate(plan.work.pairs)]
    plan = replace(plan, states=tuple(states), todo=(), skipped=tuple(skipped))
    _tell(plan)
    return plan


def _check_place(folder: Path) -> None:
    """That the output folder is one to write to: of a cohort, empty, or absent.

    What another process that begins the same work writes at this moment does not count.

    Raises:
        BadInput: it is not.
    """
    for k in range(TRIES):
        try:
            others = [path.name for path in folder.iterdir() if not OURS.fullmatch(path.name)] if folder.is_dir() else []
        except OSError:
            break  # said by check_folder
        if not others or (folder / DESCRIPTION).is_file():
            break
        if k == TRIES - 1:
            raise BadInput(
                f"{folder}: is neither empty nor the folder of a cohort, it holds {first_of(sorted(others))}:"
                " expected a new or empty folder, or that of an earlier run"
            )
        time.sleep(PAUSE)
    check_folder(folder, force=True)


def _bring_up_to_date(plan: Plan) -> None:
    """Write where files are now into the records of pairs that are not run; others of the same cohort may write too."""
    again = set(plan.todo)
    for k, state in enumerate(plan.states):
        own = plan.shard is None or k % plan.shard[1] == plan.shard[0] - 1
        folder = plan.folder / plan.work.pairs[k].id
        if state.old is not None and own and k not in again and read_record(folder) == state.old:
            with suppress(OSError, WarpwrightError):  # the next run finds out the same again
                write_record(folder, state.record)


def _check_seen(folder: Path, record: Mapping[str, Any]) -> None:
    """That what a worker says is done can be seen from here.

    Raises:
        Failed: it cannot.
    """
    if record["state"] != "done":
        return
    end = time.monotonic() + VISIBLE
    while not same_run(found := read_record(folder), record) or found is None or found.get("state") != "done":
        if time.monotonic() > end:
            raise Failed(
                f"{folder}: a worker says that it has written results there, which cannot be seen from here, expected a folder"
                " that all workers share"
            )
        time.sleep(PAUSE)


def _look(work: Work, folder: Path, digest: str) -> tuple[State, ...]:
    wanted = (*RESULTS, *(DRAWN if work.options.figures else ()), *(TOLD if work.options.report else ()))
    seen = Seen()
    return tuple(state_of(pair, folder / pair.id, digest, wanted, seen) for pair in work.pairs)


def _tell(plan: Plan) -> None:
    """Write the tables, BIDS names and the page; of a part of the work with what the other parts have done until now."""
    states: Sequence[State] = plan.states
    if plan.shard is not None:
        now = _look(plan.work, plan.folder, plan.digest)
        states = [
            told if told.status == "failed" and outcome(found) == "pending" else found
            for told, found in zip(plan.states, now, strict=True)
        ]
    write_tables(plan.folder, plan.work.pairs, states)
    if plan.work.options.parquet:
        write_parquet(plan.folder, plan.work.pairs, states)
    if plan.work.rule is not None and plan.work.rule.bids is not None:
        write_derivatives(plan.folder, plan.work, states)
    write_page(plan.folder, plan.work, states)


def _sweep(folder: Path, ids: Iterable[str]) -> None:
    """Remove the temporary folders that killed processes left beside the folders of these pairs."""
    known = set(ids)
    for found in left(folder):
        with suppress(OSError):
            old = found.runs is None and time.time() - found.path.stat().st_mtime > OLD
            if found.id in known and (found.runs is False or old):
                shutil.rmtree(found.path, ignore_errors=True)
