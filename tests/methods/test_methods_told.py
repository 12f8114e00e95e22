"""Labels and landmarks that a solve is told while features are trained: the terms, when they count, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from methods_pairs import texture

from oracles.make import normal
from warpwright.energies.losses import Images, Overlap
from warpwright.energies.pairs import PairBatch
from warpwright.energies.prompts import label_channels, soft_dice
from warpwright.energies.similarity import MSE
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.methods import Direct, Displacement, Implicit, Model, ModelSettings, Prompting, Told, TwoStep, batch_loss
from warpwright.methods.levels import Lattice, Level, Pair
from warpwright.methods.model import predict
from warpwright.networks import VoxelMorph
from warpwright.networks.features import FeatureUNetEncoder
from warpwright.sampling import warp
from warpwright.solver import Adam
from warpwright.transforms import Affine, Preparation

SPACING = (1.0, 0.8, 1.3)
FAMILY = Displacement(gradient_sigma=1.5, field_sigma=0.7, solver=Adam(length=0.7, damping=0.1, beta1=0.8))


def squares(shape: tuple[int, ...], at: int, values: tuple[int, ...] = (1, 2)) -> torch.Tensor:
    """(1, 1, *S): blocks of some voxels, one behind the other along the first axis."""
    labels = torch.zeros(1, 1, *shape, dtype=torch.int32)
    for k, value in enumerate(values):
        labels[(..., slice(at + 8 * k, at + 8 * k + 6), *(slice(6, 13),) * (len(shape) - 1))] = value
    return labels


def pairs(dim: int, *shifts: int) -> PairBatch:
    """Equal images, so that only what is told can move anything; labels that lie some voxels apart."""
    shape = (28, 20, 18)[:dim]
    image = torch.cat([texture(shape, seed=s, sigma=3.0)[None] for s in range(1, len(shifts) + 1)])
    points = [torch.tensor([[8.0, 9, 9][:dim], [17.0, 9, 9][:dim]]) for _ in shifts]
    return PairBatch(
        fixed=image,
        moving=image,
        spacing=SPACING[:dim],
        fixed_labels=torch.cat([squares(shape, 4) for _ in shifts]),
        moving_labels=torch.cat([squares(shape, 4 + shift) for shift in shifts]),
        fixed_points=tuple(points),
        moving_points=tuple(p + torch.tensor([float(s), 0, 0][:dim]) for p, s in zip(points, shifts, strict=True)),
        names=tuple(f"pair {k}" for k in range(len(shifts))),
    )


def level_of(batch: PairBatch, factor: int) -> Level:
    grid = Grid.regular(tuple(batch.fixed.shape[2:]), batch.spacing)
    coarse = grid.downsample((factor,) * grid.dim)
    images = torch.rand(2, len(batch), 1, *coarse.shape)
    return Level(Pair(images[0], images[1], None, None, coarse, coarse), Lattice((factor,) * grid.dim))


@pytest.mark.parametrize("factor", [1, 2])
def test_a_batch_is_told_what_each_of_its_pairs_would_be(factor: int, dim: int, generator: torch.Generator) -> None:
    batch = pairs(dim, 2, -1)
    assert batch.fixed_labels is not None
    assert batch.moving_labels is not None
    level = level_of(batch, factor)
    field = normal(generator, 2, dim, *level.grid.shape).float()
    grid = Grid.regular(tuple(batch.fixed.shape[2:]), batch.spacing)
    told = Told(labels=(1, 2), points=True, weight=3.0).at(level, batch, grid)
    found = [term.regularity(field, level.grid.spacing) for term in told]
    for k in range(2):
        labels = (Image(batch.fixed_labels[k], grid, "fixed"), Image(batch.moving_labels[k], grid, "moving"))
        assert batch.fixed_points is not None
        assert batch.moving_points is not None
        points = (grid.to_world(batch.fixed_points[k].double()), grid.to_world(batch.moving_points[k].double()))
        one = Prompting(labels=labels, points=points, weight=3.0)
        terms = one.at(level_of(pairs(dim, (2, -1)[k]), factor), Affine.identity(dim), np.eye(dim + 1))
        assert [t.weight for t in terms] == [3.0, 3.0]
        for mine, term in zip(found, terms, strict=True):
            torch.testing.assert_close(mine[k], term.regularity(field[k : k + 1], level.grid.spacing)[0], rtol=1e-5, atol=1e-6)


def test_a_label_in_one_image_alone_is_not_told() -> None:
    batch = pairs(2, 2)
    assert batch.moving_labels is not None
    batch = replace(batch, moving_labels=batch.moving_labels * (batch.moving_labels == 1))
    level, field = level_of(batch, 1), torch.zeros(1, 2, 28, 20)
    costs = [
        Told(labels=told).at(level, batch, level.grid)[0].regularity(field, (1.0, 1.0)).item() for told in ((1, 2), (1,), (2,))
    ]
    assert costs[0] == costs[1] > 0
    assert costs[2] == 0


def model(told: Told | None, dim: int = 2) -> Model:
    torch.manual_seed(1)
    features = FeatureUNetEncoder(outputs=4, scales=(2, 1), widths=0.25)
    network = Implicit(features=features, family=FAMILY, steps=(20, 20), told=told)
    return Model(
        ModelSettings(
            dim=dim,
            network=network,
            layers=(),
            preparation=Preparation(spacing=SPACING[:dim]),
            loss=(Images(similarity=MSE()), Overlap(labels=(1, 2))),
            directions="both",
        )
    )


def overlap(of: Model, batch: PairBatch) -> list[float]:
    """Soft Dice of both labels under what a model answers."""
    with torch.no_grad():
        field = predict(of, batch).displacement
    fixed, moving = (label_channels(x, (1, 2)) for x in (batch.fixed_labels, batch.moving_labels) if x is not None)
    return [1 - soft_dice(fixed[:, k : k + 1], warp(moving, field)[:, k : k + 1]).item() for k in range(2)]


def test_what_is_told_pulls_while_training_and_never_after(dim: int) -> None:
    batch = pairs(dim, 2)
    still, of = (model(told, dim) for told in (None, Told(labels=(1,), weight=4.0, chance=1.0)))
    before = overlap(still, batch)
    assert overlap(of.eval(), batch) == before
    after = overlap(of.train(), batch)
    assert before[0] < 0.75
    assert after[0] > before[0] + 0.1
    losses = batch_loss(of, batch)
    losses.total.sum().backward()
    slopes = [p.grad for p in of.parameters() if p.grad is not None]  # the finest level's
    assert all(slope.isfinite().all() for slope in slopes)
    assert max(slope.abs().max() for slope in slopes) > 1e-3


def test_a_share_of_the_solves_is_told() -> None:
    of, batch = model(Told(points=True, weight=4.0, chance=0.5)).train(), pairs(2, 2)
    plain = overlap(model(None).train(), batch)
    torch.manual_seed(0)
    told = [overlap(of, batch) != plain for _ in range(12)]
    torch.manual_seed(0)
    assert told == [bool(torch.rand(()) < 0.5) for _ in range(12)]
    assert 0 < sum(told) < 12


def test_what_cannot_be_told_is_refused() -> None:
    batch, level = pairs(2, 2, 1), level_of(pairs(2, 2, 1), 1)
    with pytest.raises(BadInput, match="what is told while training must be labels or points, got neither"):
        Told()
    for labels in ((0, 1), (2, 2), (-1,)):
        with pytest.raises(BadInput, match="labels that are told while training must be above 0, each once, got"):
            Told(labels=labels)
    wrong: tuple[dict[str, Any], ...] = (
        {"weight": 0.0},
        {"weight": float("nan")},
        {"weight": float("inf")},
        {"chance": 0.0},
        {"chance": 1.5},
    )
    for settings in wrong:
        with pytest.raises(BadInput, match=r"needs a finite weight above 0 and a chance in \(0, 1\], got"):
            Told(points=True, **settings)
    with pytest.raises(BadInput, match="pair 0, pair 1: has no labels, expected labels that the solve can be told"):
        Told(labels=(1,)).at(level, replace(batch, moving_labels=None), level.grid)
    with pytest.raises(BadInput, match=r"pair 0, pair 1: expected landmarks .*, equally many in each pair"):
        Told(points=True).at(level, replace(batch, fixed_points=None), level.grid)
    assert batch.fixed_points is not None
    uneven = (batch.fixed_points[0], batch.fixed_points[1][:1])
    with pytest.raises(BadInput, match="equally many in each pair"):
        Told(points=True).at(level, replace(batch, fixed_points=uneven, moving_points=uneven), level.grid)
    alone = model(Told(points=True)).settings
    behind = TwoStep(first=alone.network, second=Direct(network=VoxelMorph(scale=0.1)))
    with pytest.raises(BadInput, match="only where it is the whole network"):
        Model(replace(alone, network=behind))
