"""`warpwright features`."""

from __future__ import annotations

from pathlib import Path

from warpwright.cli.console import say
from warpwright.product.output import check_folder

__all__ = ["features"]


def features(model: Path, image: Path, /, *, output: Path, force: bool = False) -> None:
    """Show what a model of features sees in an image: every channel of every level, and a picture of them.

    Args:
        model: folder of a model of features (a network of the kind implicit).
        image: image file.
        output: new or empty folder for features_4x.nii.gz and so on, and features.png.
        force: replace the results of an earlier run.
    """
    check_folder(output, force=force)
    from warpwright.product.features import features as found_in
    from warpwright.product.features import lines, save

    found = found_in(model, image)
    save(found, output, force=force)
    say([*lines(found), f"written     {output}"])
