"""The table of `warpwright register`: measured row after row, with its targets. See README.md in this folder."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import torch

from made_rows import export, help_page, inverse, memory
from real_rows import Setup, cardiac, hippocampus, lung, spine
from record import Journal, Line, fact_lines, machine_facts
from warpwright.errors import BadInput, WarpwrightError
from warpwright.product.choices import Preset
from warpwright.product.output import check_file

ROWS: dict[str, Callable[[Setup], Iterator[Line]]] = {
    "hippocampus": hippocampus,
    "lung": lung,
    "cardiac": cardiac,
    "spine": spine,
    "export": export,
    "inverse": inverse,
    "memory": memory,
    "help": help_page,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if every row was measured (met or not), 1 if one failed or on interruption, 2 for bad input."""
    options = _options(arguments)
    try:
        journal, rows = _begin(options)
        return _measure(options, journal, rows)
    except WarpwrightError as error:
        sys.stderr.write(f"benchmarks/register.py: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        kept = f"; the finished rows are in {options.json}, go on with --resume" if options.json else ""
        sys.stderr.write(f"\nbenchmarks/register.py: interrupted{kept}\n")
        return 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/register.py", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets (see benchmarks/README.md)")
    parser.add_argument("--preset", choices=get_args(Preset), default="balanced", help="the preset of every row")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0, help="of the images that are made here")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"which rows, of {','.join(ROWS)}")
    parser.add_argument("--output", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--json", type=Path, help="write every figure to this JSON file, row by row")
    parser.add_argument("--resume", action="store_true", help="keep the finished rows of the JSON file if the code is the same")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument("--verbose", action="store_true", help="a line for every registration")
    return parser.parse_args(arguments)


def _begin(options: argparse.Namespace) -> tuple[Journal, list[str]]:
    """Check everything that was given before any work starts."""
    if not options.data.is_dir():
        raise BadInput(f"{options.data}: does not exist or is no folder, expected the folder of the data sets")
    if options.threads < 1:
        raise BadInput(f"--threads must be at least 1, got {options.threads}")
    rows = [name.strip() for name in options.rows.split(",") if name.strip()]
    unknown = [name for name in rows if name not in ROWS]
    if unknown or not rows:
        raise BadInput(f"--rows {options.rows}: knows no row {', '.join(unknown) or 'at all'}, expected of {', '.join(ROWS)}")
    if options.resume and options.json is None:
        raise BadInput("--resume needs the file of the earlier run, expected --json FILE")
    for path in (options.output, options.json):
        if path is not None:
            check_file(path, force=options.force or options.resume)
    header = machine_facts(preset=options.preset, threads=options.threads, seed=options.seed)
    return Journal(header, table=options.output, data=options.json), rows


def _measure(options: argparse.Namespace, journal: Journal, rows: Sequence[str]) -> int:
    torch.set_num_threads(options.threads)
    _say(fact_lines(journal.header))
    if options.resume:
        _say([f"- {journal.resume()}"])
    for line in journal.lines:
        _say(_described(line))
    setup = Setup(
        data=options.data, preset=options.preset, threads=options.threads, seed=options.seed, tell=_teller(options.verbose)
    )
    for name in rows:
        if not journal.finished(name):
            _say(["", f"{name} ..."])
            journal.add(_row(name, setup))
    missed = [line.work for line in journal.lines if not line.met]
    _say(["", f"{len(journal.lines) - len(missed)} of {len(journal.lines)} met", *(f"not met: {work}" for work in missed)])
    return 1 if any("failed" in line.details for line in journal.lines) else 0


def _row(name: str, setup: Setup) -> list[Line]:
    """The lines of a row, printed as they come; a failure is a line too, so that the other rows go on."""
    lines: list[Line] = []
    begin = time.perf_counter()
    try:
        for line in ROWS[name](setup):
            lines.append(line)
            setup.tell("")
            _say(_described(line))
    except WarpwrightError as error:
        seconds = time.perf_counter() - begin
        facts = {"row": name, "work": name, "others": "", "target": "", "seconds": seconds}
        lines.append(Line(**facts, reached=f"failed: {error}", met=False, details={"failed": str(error)}))
        _say(_described(lines[-1]))
    return lines


def _described(line: Line) -> list[str]:
    return [
        line.work,
        f"    target   {line.target}",
        f"    reached  {line.reached}",
        f"    met      {'yes' if line.met else 'NO'}    ({line.seconds:.1f} s)",
    ]


def _say(lines: Sequence[str]) -> None:
    print("\n".join(lines), flush=True)


def _teller(verbose: bool) -> Callable[[str], None]:
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


if __name__ == "__main__":
    sys.exit(main())
