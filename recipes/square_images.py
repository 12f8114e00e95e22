"""Pairs of squares as images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from warpwright.data.synthetic.squares import SquareSettings, square_pair
from warpwright.geometry import Grid, Image
from warpwright.io import write_image

__all__ = ["write_squares"]

CANVAS, ACTIVE, SIDE = 64, 40, 10  # voxels; a quarter of the authors' canvas, and a little more room


def write_squares(name: str, folder: Path, overlap: float = 0.5) -> tuple[str, str, str, str]:
    """A pair drawn from its name; nothing is written that is there already.

    Args:
        name: of the pair.
        folder: where the files go.
        overlap: probability that the squares overlap.

    Returns:
        Files of the fixed and the moving image, and of their labels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder.resolve() / f"{name}-{part}.nii.gz" for part in ("fixed", "moving", "fixed-labels", "moving-labels")]
    if not all(file.exists() for file in files):
        settings = SquareSettings(active=ACTIVE, side=SIDE, overlap=overlap)
        pair = square_pair((CANVAS, CANVAS), settings, np.random.default_rng(list(name.encode())))
        for file, data in zip(files, (pair.fixed, pair.moving, pair.fixed_labels, pair.moving_labels), strict=True):
            write_image(file, Image(data, Grid.regular((CANVAS, CANVAS))))
    one, two, three, four = map(str, files)
    return one, two, three, four
