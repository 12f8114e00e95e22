"""What the commands write: results on standard output, progress and warnings on standard error."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from warpwright.product.output import plain

if TYPE_CHECKING:
    from warpwright.methods import Progress

__all__ = ["command_line", "progress", "say", "say_json", "tell_memory", "warn"]

LARGE = 1e9  # bytes, from which a person should know before the work starts


def say(lines: Iterable[str]) -> None:
    """Lines on standard output."""
    sys.stdout.writelines(f"{line}\n" for line in lines)


def say_json(value: Mapping[str, Any]) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def warn(sentences: Iterable[str]) -> None:
    """Lines on standard error."""
    sys.stderr.writelines(f"warpwright: warning: {sentence}\n" for sentence in sentences)


def tell_memory(needed: int) -> None:
    """A line on standard error before a large job starts."""
    if needed >= LARGE:
        sys.stderr.write(f"up to about {needed / 1e9:.1f} GB of memory will be needed\n")


def command_line() -> str:
    """The command that is running, fit for a shell."""
    return shlex.join(["warpwright", *sys.argv[1:]])


@contextmanager
def progress(name: str = "") -> Iterator[Callable[[Progress], None]]:
    """A listener: a bar on a terminal, else a line when a stage begins."""
    if sys.stderr.isatty():
        with _bar(name) as listen:
            yield listen
    else:
        yield _lines(name)


def _lines(name: str) -> Callable[[Progress], None]:
    seen: list[str] = []

    def listen(now: Progress) -> None:
        if not seen or seen[-1] != now.stage:
            seen.append(now.stage)
            sys.stderr.write(f"{name + ': ' if name else ''}{now.stage}, similarity {now.energy:.4f}\n")

    return listen


@contextmanager
def _bar(name: str) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[energy]}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None, energy="")

        def listen(now: Progress) -> None:
            text = f"{name} {now.stage}".strip()
            bar.update(task, description=text, completed=now.step, total=now.steps, energy=f"{now.energy:.4f}")

        yield listen
