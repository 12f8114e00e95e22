"""What every benchmark program does: options, checks before any work, rows measured one after the other, exit codes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from record import Journal, Line, fact_lines
from warpwright.errors import BadInput, WarpwrightError
from warpwright.product.output import check_file

__all__ = ["begin", "finish", "measure", "parser_of", "say", "teller"]

Setting = TypeVar("Setting")


def parser_of(program: str, description: str | None, rows: Iterable[str]) -> argparse.ArgumentParser:
    """The options that all programs share."""
    names = ",".join(rows)
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets (see benchmarks/README.md)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0, help="of the images that are made here")
    parser.add_argument("--rows", default=names, help=f"which rows, of {names}")
    parser.add_argument("--output", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--json", type=Path, help="write every figure to this JSON file, row by row")
    parser.add_argument("--resume", action="store_true", help="keep the finished rows of the JSON file if the code is the same")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument("--verbose", action="store_true", help="a line for every registration")
    return parser


def begin(options: argparse.Namespace, rows: Iterable[str], *, also: Sequence[Path | None] = ()) -> list[str]:
    """Check everything that was given before any work starts; the rows that were asked for.

    Args:
        options: of `parser_of`.
        rows: all that there are.
        also: other files that will be written.

    Raises:
        BadInput: something that was given cannot be used.
    """
    known = list(rows)
    if not options.data.is_dir():
        raise BadInput(f"{options.data}: does not exist or is no folder, expected the folder of the data sets")
    if options.threads < 1:
        raise BadInput(f"--threads must be at least 1, got {options.threads}")
    names = [name.strip() for name in options.rows.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise BadInput(f"--rows {options.rows}: knows no row {', '.join(unknown) or 'at all'}, expected of {', '.join(known)}")
    if options.resume and options.json is None:
        raise BadInput("--resume needs the file of the earlier run, expected --json FILE")
    for path in (options.output, options.json, *also):
        if path is not None:
            check_file(path, force=options.force or options.resume)
    return names


def measure(
    options: argparse.Namespace,
    journal: Journal,
    rows: Mapping[str, Callable[[Setting], Iterator[Line]]],
    names: Sequence[str],
    setup: Setting,
    tell: Callable[[str], None],
) -> int:
    """Measure the rows that are not in the journal yet and print them; 1 if one failed, else 0."""
    torch.set_num_threads(options.threads)
    say(fact_lines(journal.header))
    if options.resume:
        say([f"- {journal.resume()}"])
    for line in journal.lines:
        say(_described(line))
    for name in names:
        if not journal.finished(name):
            say(["", f"{name} ..."])
            journal.add(_row(name, rows[name], setup, tell))
    missed = [line.work for line in journal.lines if not line.met]
    say(["", f"{len(journal.lines) - len(missed)} of {len(journal.lines)} met", *(f"not met: {work}" for work in missed)])
    return 1 if any("failed" in line.details for line in journal.lines) else 0


def _row(name: str, row: Callable[[Setting], Iterator[Line]], setup: Setting, tell: Callable[[str], None]) -> list[Line]:
    """The lines of a row, printed as they come; a failure is a line too, so that the other rows go on."""
    lines: list[Line] = []
    start = time.perf_counter()
    try:
        for line in row(setup):
            lines.append(line)
            tell("")
            say(_described(line))
    except WarpwrightError as error:
        seconds = time.perf_counter() - start
        facts = {"row": name, "work": name, "others": "", "target": "", "seconds": seconds}
        lines.append(Line(**facts, reached=f"failed: {error}", met=False, details={"failed": str(error)}))
        say(_described(lines[-1]))
    return lines


def _described(line: Line) -> list[str]:
    return [
        line.work,
        f"    target   {line.target}",
        f"    reached  {line.reached}",
        f"    met      {'yes' if line.met else 'NO'}    ({line.seconds:.1f} s)",
    ]


def say(lines: Sequence[str]) -> None:
    """Print lines at once."""
    print("\n".join(lines), flush=True)


def teller(verbose: bool) -> Callable[[str], None]:
    """Progress inside a row: lines if verbose, else one line that is overwritten, on a terminal only."""
    live = sys.stderr.isatty() and not verbose

    def tell(sentence: str) -> None:
        if live:
            sys.stderr.write(f"\r\033[K{sentence}")
            sys.stderr.flush()
        elif verbose and sentence:
            sys.stderr.write(f"    {sentence}\n")
            sys.stderr.flush()

    return tell


def finish(program: str, work: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Do the work; 0 if every row was measured (met or not), 1 if one failed or on interruption, 2 for bad input."""
    try:
        return work(options)
    except WarpwrightError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        kept = f"; the finished rows are in {options.json}, go on with --resume" if options.json else ""
        sys.stderr.write(f"\n{program}: interrupted{kept}\n")
        return 1
