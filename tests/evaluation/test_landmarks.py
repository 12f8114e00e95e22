"""TRE of known maps, and its summary."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from oracles.make import homogeneous, normal, oblique, rotation
from warpwright.errors import BadInput
from warpwright.evaluation import summarise, target_registration_error
from warpwright.geometry import Grid
from warpwright.transforms import Affine, DisplacementField


def test_translation_leaves_its_length(dim: int, generator: torch.Generator) -> None:
    points = normal(generator, 9, dim)
    shift = np.array([3.0, -4.0, 12.0])[:dim]
    affine = Affine(homogeneous(np.eye(dim), shift))
    assert torch.allclose(target_registration_error(points, points, affine), torch.tensor(np.linalg.norm(shift)).expand(9))
    assert target_registration_error(points, points + torch.from_numpy(shift), affine).max() < 1e-12


def test_direction_is_fixed_to_moving(dim: int, generator: torch.Generator) -> None:
    points = normal(generator, 9, dim)
    turn = Affine(homogeneous(rotation(dim, 0.5), np.ones(dim)))
    assert target_registration_error(points, turn(points), turn).max() < 1e-12
    assert target_registration_error(turn(points), points, turn).min() > 0.1


def test_field_on_an_oblique_grid_is_measured_in_mm(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    grid = Grid(shape, oblique(spacing))
    field = torch.zeros(len(shape), *shape, dtype=torch.float64)
    field[1] = 1.5
    points = grid.to_world(torch.full((2, len(shape)), 2.0, dtype=torch.float64))
    error = target_registration_error(points, points, DisplacementField(field, grid))
    assert torch.allclose(error, torch.tensor(1.5 * spacing[1], dtype=torch.float64).expand(2))


def test_single_precision_points_are_measured_in_double() -> None:
    points = torch.tensor([[100.0, 200.0, 300.0]])
    assert target_registration_error(points, points, Affine.identity(3)).dtype == torch.float64


def test_summary() -> None:
    errors = torch.arange(11, dtype=torch.float64)
    assert summarise(errors) == {"mean": 5.0, "median": 5.0, "p90": 9.0, "max": 10.0}
    assert all(math.isnan(value) for value in summarise(torch.zeros(0)).values())


def test_points_that_do_not_pair_up() -> None:
    with pytest.raises(BadInput, match=r"\(N, 3\)"):
        target_registration_error(torch.zeros(4, 3), torch.zeros(5, 3), Affine.identity(3))
    with pytest.raises(BadInput, match=r"\(N, 3\)"):
        target_registration_error(torch.zeros(4, 2), torch.zeros(4, 2), Affine.identity(3))
