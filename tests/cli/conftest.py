"""Small pairs of files with a known smooth deformation, and one registration of them that many tests look at."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from warpwright.cli.main import main
from warpwright.geometry import Grid, Image, identity_points
from warpwright.io import Points, write_image, write_points, write_transform
from warpwright.transforms import Affine, DisplacementField, Transform

OBLIQUE = np.array([[0.0, -0.96, 0.28, 5.0], [1.0, 0.0, 0.0, -3.0], [0.0, 0.28, 0.96, 11.0], [0, 0, 0, 1.0]])


def oblique_grid(shape: tuple[int, ...], spacing: tuple[float, ...]) -> Grid:
    """A grid with permuted, flipped, oblique axes (2-D: permuted)."""
    dim = len(shape)
    matrix = OBLIQUE if dim == 3 else np.array([[0.0, -1.0, 5.0], [1.0, 0.0, -3.0], [0, 0, 1.0]])
    return Grid(shape, matrix @ np.diag([*spacing, 1.0]))


def world_points(grid: Grid) -> torch.Tensor:
    voxels = identity_points(grid.shape, dtype=torch.float64, device=torch.device("cpu"))[0].flatten(1).T
    return grid.to_world(voxels)


def scene(points: torch.Tensor, centre: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Intensities and labels of a few blobs around `centre` at world points (N, D)."""
    rng = np.random.default_rng(4)
    value = torch.zeros(len(points), dtype=torch.float64)
    labels = torch.zeros(len(points), dtype=torch.int16)
    for number in range(12):
        middle = torch.tensor(centre + rng.uniform(-9, 9, len(centre)))
        width = rng.uniform(2.5, 4.0)
        blob = torch.exp(-((points - middle) ** 2).sum(1) / (2 * width**2))
        value += rng.uniform(0.4, 1.0) * blob
        if number < 2:
            labels[blob > 0.5] = number + 1
    return 100 * value, labels


def smooth_map(grid: Grid) -> Transform:
    """A shift of 2 mm after a bump of about 1.5 mm: fixed to moving."""
    voxels = identity_points(grid.shape, dtype=torch.float64, device=torch.device("cpu"))[0]
    middle = torch.tensor([(n - 1) / 2 for n in grid.shape]).reshape(-1, *(1,) * grid.dim)
    width = torch.tensor([n / 5 for n in grid.shape]).reshape(middle.shape)
    bump = torch.exp(-(((voxels - middle) / width) ** 2).sum(0) / 2)
    field = torch.stack([1.5 * bump / s for s in grid.spacing]).to(torch.float32)
    shift = np.eye(grid.dim + 1)
    shift[0, -1] = 2.0
    return Affine(shift) @ DisplacementField(field, grid)


@dataclass(frozen=True)
class Case:
    """Files of one pair, and the map between them."""

    folder: Path
    grid: Grid
    truth: Transform

    def path(self, name: str) -> str:
        return str(self.folder / name)


def make_case(folder: Path, shape: tuple[int, ...], spacing: tuple[float, ...]) -> Case:
    grid = oblique_grid(shape, spacing)
    truth = smooth_map(grid)
    points = world_points(grid)
    images = {"fixed": scene(truth(points), grid.centre), "moving": scene(points, grid.centre)}
    for name, (values, labels) in images.items():
        write_image(folder / f"{name}.nii.gz", Image(values.reshape(1, *shape).float(), grid))
        write_image(folder / f"{name}_labels.nii.gz", Image(labels.reshape(1, *shape), grid))
    write_image(folder / "mask.nii.gz", Image(torch.ones(1, *shape), grid))
    landmarks = grid.to_world(torch.tensor([[n * f for n in shape] for f in (0.3, 0.45, 0.6)], dtype=torch.float64))
    names = ("a", "b", "c")
    write_points(folder / "fixed.csv", Points(landmarks, names), "ras")
    write_points(folder / "moving.csv", Points(truth(landmarks), names), "ras")
    write_transform(folder / "truth.h5", truth)
    matrix = np.eye(grid.dim + 1)
    matrix[0, -1], matrix[0, 1] = 3.0, 0.1
    write_transform(folder / "affine.tfm", Affine(matrix))
    return Case(folder, grid, truth)


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("volume"), (22, 24, 13), (1.0, 0.9, 1.7))


@pytest.fixture(scope="session")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("flat"), (28, 33), (0.8, 0.7))


@pytest.fixture(scope="session")
def registered(volume: Case) -> Path:
    """The folder that `register` leaves for the volume."""
    output = volume.folder / "registered"
    arguments = ["register", volume.path("fixed.nii.gz"), volume.path("moving.nii.gz"), "--output", str(output)]
    for side in ("fixed", "moving"):
        arguments += [f"--{side}-labels", volume.path(f"{side}_labels.nii.gz")]
        arguments += [f"--{side}-points", volume.path(f"{side}.csv")]
    assert main([*arguments, "--space", "ras", "--preset", "fast"]) == 0
    return output


@pytest.fixture
def result(registered: Path) -> dict:
    return json.loads((registered / "result.json").read_text())
