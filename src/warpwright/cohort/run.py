"""What is to be done of a cohort, and doing it: nothing that is done already, and everything that can be done.

The outcome of a pair is decided by its row and the options alone, so neither the order nor the number of workers matters,
nor how often a pair was begun.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from warpwright.cohort.check import check_files, check_options, check_work
from warpwright.cohort.page import write_page
from warpwright.cohort.pair import run_pair
from warpwright.cohort.provenance import State, state_of, write_record
from warpwright.cohort.table import write_tables
from warpwright.cohort.work import DESCRIPTION, Work, load_work, options_digest, save_work
from warpwright.config import to_mapping
from warpwright.errors import BadInput, Failed
from warpwright.product.output import check_folder

__all__ = ["Engine", "Plan", "Shard", "execute", "in_order", "look_at", "make_plan"]

Task: TypeAlias = Mapping[str, Any]
Engine: TypeAlias = Callable[[Iterable[Task]], Generator[Mapping[str, Any], None, None]]  # tasks to records, in any order
Shard: TypeAlias = tuple[int, int]  # (i, n): the i-th of n parts, from 1
RESULTS = ("transform.h5", "inverse.h5", "moved.nii.gz", "jacobian.nii.gz", "result.json")
DRAWN = ("figure.png", "thumbnail.jpg")
LEFT = re.compile(r"\.(.+)-[a-z0-9_]{8}")  # temporary folder of a pair, which a worker that was killed leaves behind


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
    """

    work: Work
    folder: Path
    digest: str
    states: tuple[State, ...]
    todo: tuple[int, ...]
    command: str
    shard: Shard | None = None

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
        return tuple(
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
    """
    folder = folder.absolute()
    check_folder(folder, force=(folder / DESCRIPTION).is_file())
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise BadInput(f"--shard {shard[0]}/{shard[1]}: expected the number of a part and that of all parts, 1/4 to 4/4 say")
    check_work(work)
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
    numbers = {plan.work.pairs[k].id: k for k in plan.todo}
    states, failed = list(plan.states), 0
    for k, state in enumerate(states):
        if state.moved and plan.work.pairs[k].id not in numbers:
            write_record(plan.folder / plan.work.pairs[k].id, state.record)
    try:
        with closing(engine(plan.task(k) for k in plan.todo)) as records:
            listen(0, len(plan.todo), 0)
            for count, record in enumerate(records, 1):
                states[numbers[record["id"]]] = State(status=record["state"], record=record)
                failed += record["state"] == "failed"
                listen(count, len(plan.todo), failed)
    except BaseException as error:  # what was done until then is told; some pairs were done and not heard of
        states = list(_look(plan.work, plan.folder, plan.digest))
        _tell(replace(plan, states=tuple(states), todo=()))
        if not isinstance(error, KeyboardInterrupt):
            raise
        done = sum(state.status == "done" for state in states)
        raise Failed(f"interrupted, {done} of {len(states)} pairs are done: the same command goes on from there") from None
    _sweep(plan.folder, numbers)
    plan = replace(plan, states=tuple(states), todo=())
    _tell(plan)
    return plan


def _look(work: Work, folder: Path, digest: str) -> tuple[State, ...]:
    wanted = (*RESULTS, *(DRAWN if work.options.figures else ()))
    seen: dict[Path, list[int]] = {}
    return tuple(state_of(pair, folder / pair.id, digest, wanted, seen) for pair in work.pairs)


def _tell(plan: Plan) -> None:
    """Write the tables and the page; of a part of the work, until nothing has come from other parts while writing."""
    states: Sequence[State] = plan.states
    while True:
        if plan.shard is not None:
            states = _look(plan.work, plan.folder, plan.digest)
        write_tables(plan.folder, plan.work.pairs, states)
        write_page(plan.folder, plan.work, states)
        if plan.shard is None or [s.record for s in _look(plan.work, plan.folder, plan.digest)] == [s.record for s in states]:
            return


def _sweep(folder: Path, ids: Iterable[str]) -> None:
    """Remove the temporary folders that killed processes left beside the folders of these pairs."""
    known = set(ids)
    for path in folder.iterdir():
        found = LEFT.fullmatch(path.name)
        if found and found[1] in known:
            shutil.rmtree(path, ignore_errors=True)
