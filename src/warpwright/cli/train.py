"""`warpwright train`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from warpwright.cli.console import say, say_json
from warpwright.errors import BadInput
from warpwright.product.output import check_folder

if TYPE_CHECKING:
    from warpwright.training import Event

__all__ = ["train"]

KEPT = 12  # rows of the live table


def train(
    config: Path,
    /,
    *,
    output: Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
    device: str = "auto",
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Train a model on your images as a TOML file says; `register --model OUTPUT/model` uses it.

    Args:
        config: TOML file; only a table [data] is needed, everything else has a default.
        output: folder for checkpoint.safetensors, metrics.jsonl, model and pictures; default: CONFIG without its suffix.
        resume: go on from the checkpoint in OUTPUT; the same settings are needed, and images of the same ids and sizes.
        dry_run: check all data, do one step, print memory and seconds, and stop.
        device: auto, cpu, cuda or cuda:0.
        threads: CPU threads.
        json: print the outcome for machines.
    """
    folder = config.with_suffix("") if output is None else output
    if folder == config:
        raise BadInput(f"{config}: has no suffix, expected a .toml file or --output")
    if threads is not None and threads < 1:
        raise BadInput(f"threads must be at least 1, got {threads}")
    if not dry_run:
        check_folder(folder, force=True)
    if not (dry_run or resume) and folder.is_dir() and any(folder.iterdir()):
        raise BadInput(f"{folder}: the output folder is not empty; choose another with --output, or go on with --resume")
    from warpwright.product.plan import chosen_device
    from warpwright.product.resources import granted_threads
    from warpwright.product.resources import threads as using
    from warpwright.product.words import fact_lines
    from warpwright.training import train as run
    from warpwright.training import trial
    from warpwright.training.config import read_training

    training = read_training(config)
    where = chosen_device(device)
    with using(granted_threads(threads)[0]):
        if dry_run:
            found = trial(training, device=where)
            if _first():
                say_json(found) if json else say(fact_lines(found))
            return
        with table() as listen:
            outcome = run(training, folder, resume=resume, device=where, listen=listen)
    if not _first():
        return
    best = None if outcome.best is None else dict([outcome.best])
    facts = {"output": folder, "step": outcome.step, "finished": outcome.finished, "best": best}
    if json:
        say_json(facts)
        return
    ended = f"finished after {outcome.step} steps" if outcome.finished else f"stopped at step {outcome.step}; --resume goes on"
    say([ended, f"model       {folder / 'model'}" if (folder / "model").is_dir() else f"output      {folder}"])


def _first() -> bool:
    """Whether this is the one of several processes (`torchrun`) that speaks."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def table() -> Iterator[Callable[[Event], None]]:
    """A listener: a live table on a terminal, else lines on standard error; silent in all processes but the first."""
    if not _first():
        yield _nothing
    elif sys.stderr.isatty():
        with _live() as listen:
            yield listen
    else:
        yield _line


def _nothing(_: Event) -> None:
    pass


def _line(event: Event) -> None:
    sys.stderr.write(event.line())


@contextmanager
def _live() -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Column, Table

    seen: list[Event] = []

    def drawn() -> Table:
        names = list(dict.fromkeys(name for event in seen for name in event.figures))
        grid = Table(Column("", min_width=len("validation")), "step", "seconds", *names, box=None)
        for event in seen[-KEPT:]:
            cells = [f"{event.figures[n]:.4g}" if n in event.figures else "" for n in names]
            grid.add_row(event.kind, f"{event.step}/{event.steps}", f"{event.seconds:.0f}", *cells)
        return grid

    with Live(console=Console(stderr=True), auto_refresh=False) as live:

        def listen(event: Event) -> None:
            seen.append(event)
            live.update(drawn(), refresh=True)

        yield listen
