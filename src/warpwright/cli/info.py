"""`warpwright info`."""

from __future__ import annotations

from pathlib import Path

from warpwright.cli.console import say, say_json
from warpwright.product.choices import Header

__all__ = ["info"]


def info(file: Path, /, *, header: Header = "strict", json: bool = False) -> None:
    """Tell what an image or a transform file holds.

    Args:
        file: image, DICOM folder, transform, or the folder that `register` left.
        header: which geometry of a NIfTI file to take where its two differ.
        json: print the result for machines.
    """
    from warpwright.product.info import describe
    from warpwright.product.words import fact_lines

    facts = describe(file, header=header)
    if json:
        say_json(facts)
    else:
        say(fact_lines(facts))
