"""How far the direction of a gradient is known without the fixed image."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from oracles.make import normal
from warpwright.geometry import Grid
from warpwright.methods import Displacement
from warpwright.methods.deformable import Scale
from warpwright.methods.levels import Lattice, Level, Pair
from warpwright.solver import Adam

ROOT = Path(__file__).parents[2] / "recipes"
FAMILY = Displacement(gradient_sigma=1.5, field_sigma=0.7, solver=Adam(length=1.0))


@pytest.fixture
def bias(monkeypatch: pytest.MonkeyPatch):
    for folder in (ROOT / "dio", ROOT):
        monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module("bias")
    for name in ("bias", "bump_pairs", "cohorts"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("channels", "low", "high"), [(1, 0.9999, 1.0001), (16, 0.45, 0.65)])
def test_one_channel_binds_the_gradient_and_many_that_are_unlike_do_not(
    bias, channels: int, low: float, high: float, generator: torch.Generator
) -> None:
    """Sixteen channels of noise leave little more than directions in space have in common by chance, 1/2 on average."""
    grid = Grid.regular((12, 13, 14))
    images = normal(generator, 2, 1, channels, *grid.shape).float()
    level = Level(Pair(images[0], images[1], None, None, grid, grid), Lattice((1, 1, 1)))
    field = 0.3 * normal(generator, 1, 3, *grid.shape).float()
    loss, plain, smoothed = bias.cosines(level, FAMILY, Scale(grid.spacing, 1), field)
    assert loss > 0.5
    assert low < float(plain.mean()) < high
    assert float(smoothed.mean()) < 0.7
