"""A solve from level to level: what one pair is told has nothing to do with the pairs beside it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from oracles.make import normal
from warpwright.energies.prompts import label_channels
from warpwright.energies.regularity import Regularity
from warpwright.energies.similarity import MSE
from warpwright.geometry import Grid
from warpwright.methods import Displacement
from warpwright.methods.levels import Carried, Lattice, Level, Pair
from warpwright.methods.prompting import LabelPrompt, PointPrompt
from warpwright.methods.solve import Task, solve_levels
from warpwright.sampling import gaussian
from warpwright.solver import Adam

SHAPE = (20, 18)
FAMILY = Displacement(gradient_sigma=1.5, field_sigma=0.7, solver=Adam(length=0.7, damping=0.1, beta1=0.8))


def solved(fixed: Tensor, moving: Tensor) -> Tensor:
    """The displacement of pairs that are all told of one label, and of one landmark: (B, 2, *S)."""
    grid = Grid.regular(SHAPE)
    labels = torch.zeros(1, 1, *SHAPE, dtype=torch.int64)
    labels[..., 5:12, 5:12] = 1
    label = gaussian(label_channels(labels, (1,), dtype=torch.float64), (1.0, 1.0)).expand(len(fixed), -1, -1, -1)
    point = torch.tensor([[[8.0, 9.0]]], dtype=torch.float64).expand(len(fixed), -1, -1)
    prompts: list[Regularity] = [
        LabelPrompt(weight=4.0, fixed=label, moving=label.roll(2, 2), matrix=np.eye(3)),
        PointPrompt(weight=0.3, fixed=point, moving=point + 2, matrix=np.eye(3)),
    ]
    level = Level(Pair(fixed, moving, None, None, grid, grid), Lattice((1, 1)))
    fields: list[Carried] = list(solve_levels([Task(level=level, factor=1, steps=20, terms=prompts)], FAMILY, MSE(), np.eye(3)))
    return fields[-1].field


def test_what_a_pair_is_told_weighs_the_same_alone_and_beside_a_flat_pair() -> None:
    base = gaussian(normal(torch.Generator().manual_seed(1), 1, 3, *SHAPE), (2.0, 2.0))
    fixed, moving = base / base.std(), (base / base.std()).roll(1, 2)
    flat = torch.zeros_like(fixed)
    flat[..., 0, 0] = 1e-3
    alone = solved(fixed, moving)
    beside = solved(torch.cat([fixed, flat]), torch.cat([moving, flat]))
    assert float(alone.abs().max()) > 1
    torch.testing.assert_close(beside[:1], alone, rtol=0, atol=1e-10)
