"""Ours beside every installed peer: the same files, one run, interleaved, medians. See README.md in this folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from contest import Contest
from front import draw_front, draw_scaling
from own_rows import compiling, kernels, scaling
from pair_rows import brain, hippocampus, lung
from record import Journal, Line, as_markdown, machine_facts, table_lines
from runner import begin, finish, measure, parser_of, say, teller
from tools import PEERS, Tool, find_tools
from warpwright.errors import BadInput
from warpwright.product.choices import Preset

PROGRAM = "benchmarks/side_by_side.py"
PRESETS = get_args(Preset)
ROWS: dict[str, Callable[[Contest], Iterator[Line]]] = {
    "brain": brain,
    "lung": lung,
    "hippocampus": hippocampus,
    "scaling": scaling,
    "compiling": compiling,
    "kernels": kernels,
}
HEADINGS = (
    "tool",
    "accuracy",
    "arrays to field, s",
    "whole process, s",
    "CPU, s",
    "peak memory, GB",
    "folded voxels",
    "runs",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = parser_of(PROGRAM, __doc__, ROWS)
    parser.add_argument("--presets", default=",".join(PRESETS), help="presets of ours")
    parser.add_argument("--judged", choices=PRESETS, default="balanced", help="the preset that must reach the targets")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"which peers to look for, of {','.join(PEERS)}; or none")
    parser.add_argument(
        "--peer-python", action="append", default=[], metavar="NAME=PATH", help="the Python in which a peer is installed"
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds; every tool runs once in each")
    parser.add_argument("--patience", type=float, default=300, help="seconds of a run from which a tool is not run again")
    parser.add_argument("--figure", type=Path, help="draw accuracy against time into this PNG file")
    parser.add_argument("--scaling-figure", type=Path, help="draw time and memory against size into this PNG file")
    return finish(PROGRAM, _work, parser.parse_args(arguments))


def _work(options: argparse.Namespace) -> int:
    names = begin(options, ROWS, also=(options.figure, options.scaling_figure))
    tools, absent = _tools(options)
    header = machine_facts(preset=", ".join(_presets(options)), threads=options.threads, seed=options.seed)
    header |= {
        "tools": {tool.kind: [tool.version, tool.settings] for tool in tools},
        "absent": absent,
        "judged": options.judged,
        "rounds": options.repeats,
    }
    journal = Journal(header, table=options.output, data=options.json, render=_page)
    tell = teller(options.verbose)
    contest = Contest(
        data=options.data,
        tools=tuple(tools),
        judged=options.judged,
        threads=options.threads,
        seed=options.seed,
        rounds=options.repeats,
        patience=options.patience,
        tell=tell,
    )
    say(_tool_lines(header))
    code = measure(options, journal, ROWS, names, contest, tell)
    if options.figure is not None:
        draw_front(journal.lines, options.figure)
    if options.scaling_figure is not None:
        draw_scaling(journal.lines, options.scaling_figure)
    return code


def _presets(options: argparse.Namespace) -> list[str]:
    names = [name.strip() for name in options.presets.split(",") if name.strip()]
    unknown = [name for name in names if name not in PRESETS]
    if unknown or not names:
        raise BadInput(f"--presets {options.presets}: expected some of {', '.join(PRESETS)}")
    if options.judged not in names:
        raise BadInput(f"--judged {options.judged} is not among --presets {options.presets}, expected it there")
    return names


def _tools(options: argparse.Namespace) -> tuple[list[Tool], dict[str, str]]:
    """Ours and the peers that can be run, and why the others cannot."""
    presets = _presets(options)
    kinds = [name.strip() for name in options.peers.split(",") if name.strip() not in ("", "none")]
    unknown = [kind for kind in kinds if kind not in PEERS]
    if unknown:
        raise BadInput(f"--peers {options.peers}: knows no {', '.join(unknown)}, expected of {', '.join(PEERS)} or none")
    if options.repeats < 1 or options.patience < 0:
        raise BadInput(f"--repeats must be at least 1 and --patience at least 0, got {options.repeats}, {options.patience}")
    pythons: dict[str, str] = {}
    for entry in options.peer_python:
        kind, _, path = entry.partition("=")
        if kind not in PEERS or not Path(path).is_file():
            raise BadInput(f"--peer-python {entry}: expected NAME=PATH, NAME of {', '.join(PEERS)}, PATH an interpreter")
        pythons[kind] = path
    return find_tools(kinds, presets, pythons, sys.executable)


def _page(header: Mapping[str, Any], lines: Sequence[Line]) -> str:
    """The targets, then what every tool took in every work."""
    parts = [as_markdown(header, lines), *_tool_lines(header), ""]
    for line in lines:
        if "tools" in line.details:
            facts = line.details
            parts += [f"### {facts['title']}", "", *table_lines(HEADINGS, [_cells(one) for one in facts["tools"]]), ""]
    return "\n".join(parts)


def _tool_lines(header: Mapping[str, Any]) -> list[str]:
    runs = f"medians of {header['rounds']} interleaved rounds; the preset `{header['judged']}` must reach the targets"
    told = [f"- {kind} {version}: {settings}" for kind, (version, settings) in header["tools"].items()]
    return [f"- {runs}", *told, *(f"- {kind} {why}" for kind, why in header["absent"].items())]


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    if not one["runs"]:
        return one["name"], f"failed: {one['failed']}", "", "", "", "", "", "0"
    return (
        f"**{one['name']}**" if one["own"] else one["name"],
        f"{one['measure']} {one['accuracy']:.4f}",
        f"{one['seconds']:.2f}",
        f"{one['whole']:.1f}",
        f"{one['cpu']:.1f}",
        f"{one['peak_gb']:.2f}",
        f"{one['folds']:.0f}",
        str(len(one["runs"])),
    )


if __name__ == "__main__":
    sys.exit(main())
