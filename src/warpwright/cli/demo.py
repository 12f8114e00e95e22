"""`warpwright demo`."""

from __future__ import annotations

from pathlib import Path

from warpwright.cli.console import command_line, progress, say, say_json, warn
from warpwright.product.output import check_folder

__all__ = ["demo"]


def demo(*, output: Path = Path("warpwright-demo"), force: bool = False, json: bool = False) -> None:
    """Register the bundled real pairs and print how well it went; a minute or two.

    Args:
        output: new or empty folder; each pair leaves its picture and results in a folder of its own.
        force: replace the results of an earlier run.
        json: print the figures for machines.
    """
    check_folder(output, force=force)
    from warpwright.product.demo import HEADER
    from warpwright.product.demo import demo as run

    rows = []
    if not json:
        say([HEADER])
    for row in run(output, force=force, command=command_line(), listen=progress):
        rows.append(row.to_mapping())
        if not json:
            say([row.line()])
        warn(f"{row.name}: {sentence}" for sentence in row.result.verdict.sentences)
    if json:
        say_json({"output": output, "pairs": rows})
    else:
        say([f"pictures and results are in {output}: look at figure.png of each pair"])
