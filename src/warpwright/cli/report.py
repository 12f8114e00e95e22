"""`warpwright report`."""

from __future__ import annotations

from pathlib import Path

from warpwright.cli.console import say, say_json

__all__ = ["report"]


def report(
    directory: Path, /, *, output: Path | None = None, interactive: bool = False, force: bool = False, json: bool = False
) -> None:
    """Write one HTML page about a registration: verdict, pictures, deformation, figures, settings; it opens without a network.

    Args:
        directory: what `register` left; its input images must still be where they were.
        output: file to write; report.html in DIRECTORY by default.
        interactive: also hold the volumes and a viewer of them, which needs WebGL2: up to 20 MB.
        force: replace an earlier report.
        json: print where it was written for machines.
    """
    from warpwright.product.report import write_report

    written = write_report(directory, output, interactive=interactive, force=force)
    if json:
        say_json({"output": written})
    else:
        say([f"written     {written}"])
