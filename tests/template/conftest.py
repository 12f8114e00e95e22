"""Discs of different size in different poses, whose template is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from oracles.make import homogeneous, rotation
from warpwright.geometry import Grid, Image
from warpwright.io import write_image

RADII = (9.0, 11.0, 13.0)  # mm
POSES = ((0.0, 3.0, -2.0), (0.15, 40.0, 10.0), (-0.2, -20.0, 5.0))  # radians, and mm


def ring(radius: float, pose: tuple[float, float, float]) -> Image:
    """A textured disc of a radius, (1, 44, 48), on a grid that is turned and shifted."""
    shape, spacing = (44, 48), (1.0, 0.9)
    places = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"), -1) * spacing / radius
    length, angle = np.linalg.norm(places, axis=-1), np.arctan2(places[..., 1], places[..., 0])
    inside = 0.6 + 0.3 * np.cos(2 * angle) * length + 0.1 * places[..., 0]
    value = gaussian_filter(np.where(length < 1, inside, 0.0), 0.7)
    matrix = homogeneous(rotation(2, pose[0]), pose[1:]) @ np.diag([*spacing, 1.0])
    return Image(torch.from_numpy(1000 * value).float()[None], Grid(shape, matrix))


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("discs")
    (folder / "settings.toml").write_text("steps = [30]\nlevels = [1]\n[similarity]\nkind = 'mse'\n")
    for k, (radius, pose) in enumerate(zip(RADII, POSES, strict=True)):
        write_image(folder / f"disc{k}.nii.gz", ring(radius, pose))
    return tuple(sorted(folder.glob("*.nii.gz")))
