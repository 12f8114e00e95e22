"""`warpwright info`."""

from __future__ import annotations

from pathlib import Path

from warpwright.cli.console import say, say_json
from warpwright.product.choices import Header

__all__ = ["info"]


def info(file: Path, /, *, header: Header = "strict", series: str | None = None, json: bool = False) -> None:
    """Tell what an image, a transform file or a model folder holds.

    Args:
        file: image, DICOM folder, transform, ANTs prefix, the folder that `register` left, or a model folder.
        header: which geometry of a NIfTI file to take where its two differ.
        series: which series of a DICOM folder that holds several: its UID, or the UID's ending.
        json: print the result for machines.
    """
    from warpwright.product.info import describe
    from warpwright.product.words import fact_lines

    facts = describe(file, header=header, series=series)
    if json:
        say_json(facts)
    else:
        say(fact_lines(facts))
