"""Slices of public sets as two-dimensional images: hearts through a beat, and maps of cartilage at two visits."""

from __future__ import annotations

from pathlib import Path

import torch

from warpwright.geometry import Grid, Image
from warpwright.io import read_labels, read_scalar, write_image

__all__ = ["write_cartilage", "write_slices"]


def write_slices(image: Path, folder: Path, stem: str, labels: Path | None = None) -> list[tuple[Path, Path | None]]:
    """Write the slices of a volume across its third axis, with those of its labels, unless they are there.

    Args:
        image: volume.
        folder: where the files go.
        stem: what their names begin with.
        labels: on the same grid; None for none.

    Returns:
        Image and labels of each slice, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    volume = read_scalar(image)
    drawn = None if labels is None else read_labels(labels)
    grid = Grid.regular(volume.grid.shape[:2], volume.grid.spacing[:2])
    found: list[tuple[Path, Path | None]] = []
    for k in range(volume.grid.shape[2]):
        path = folder.resolve() / f"{stem}-{k:02d}.nii.gz"
        beside = None if drawn is None else path.with_name(f"{stem}-{k:02d}-labels.nii.gz")
        if not path.exists():
            if drawn is not None and beside is not None:
                write_image(beside, Image(drawn.data[..., k], grid))
            write_image(path, Image(volume.data[..., k], grid))
        found.append((path, beside))
    return found


def write_cartilage(labels: Path, folder: Path) -> Path:
    """A map of two cartilages as a picture, 0, 0.5 and 1, unless it is there: the images themselves cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / labels.name
    if not path.exists():
        drawn = read_labels(labels)
        write_image(path, Image(drawn.data.to(torch.float32) / 2, drawn.grid))
    return path
