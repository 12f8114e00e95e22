"""The table of `warpwright register`: measured row after row, with its targets. See README.md in this folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from made_rows import export, help_page, inverse, memory
from real_rows import Setup, cardiac, hippocampus, lung, spine
from record import Journal, Line, machine_facts
from runner import begin, finish, measure, parser_of, teller
from warpwright.product.choices import Preset

PROGRAM = "benchmarks/register.py"
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
    """Measure and print."""
    parser = parser_of(PROGRAM, __doc__, ROWS)
    parser.add_argument("--preset", choices=get_args(Preset), default="balanced", help="the preset of every row")
    return finish(PROGRAM, _work, parser.parse_args(arguments))


def _work(options: argparse.Namespace) -> int:
    names = begin(options, ROWS)
    header = machine_facts(preset=options.preset, threads=options.threads, seed=options.seed)
    journal = Journal(header, table=options.output, data=options.json)
    tell = teller(options.verbose)
    setup = Setup(data=options.data, preset=options.preset, threads=options.threads, seed=options.seed, tell=tell)
    return measure(options, journal, ROWS, names, setup, tell)


if __name__ == "__main__":
    sys.exit(main())
