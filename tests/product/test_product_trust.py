"""Scores carried to the fixed image, against the network itself; figures of trust, by brute force."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from oracles.make import oblique
from warpwright.energies.losses import Images
from warpwright.energies.similarity import MSE
from warpwright.geometry import Grid, Image
from warpwright.methods import Annotated, ModelSettings
from warpwright.networks.scoring import VoxelMap
from warpwright.product.trust import residual_figures, score_map, trust, trust_text
from warpwright.sampling import Window
from warpwright.transforms import Affine, Preparation

SHAPE = (17, 12, 14)


def settings_of(dim: int, **preparation: Any) -> ModelSettings:
    window = Window(low=0.0, high=2.0)
    return ModelSettings(dim=dim, preparation=Preparation(intensity=window, **preparation), loss=(Images(similarity=MSE()),))


def lively(dim: int) -> VoxelMap:
    """A network whose scores lie on both sides of a half."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        network = VoxelMap(dim, 1, 0.5)
        logits = network(torch.rand(1, 1, *SHAPE[:dim]))
        network.head.weight.div_(logits.std())
        assert network.head.bias is not None
        network.head.bias.sub_(logits.mean()).div_(logits.std())
    return network


def turned(dim: int) -> Grid:
    """Anisotropic, oblique; its first two axes exchanged and the second turned round."""
    affine = oblique((0.8, 1.3, 2.1)[:dim], 0.2)
    affine[:-1, :2] = affine[:-1, [1, 0]]
    return Grid(SHAPE[:dim], affine)


def image_on(grid: Grid, seed: int = 0) -> Image:
    generator = torch.Generator().manual_seed(seed)
    return Image(2 * torch.rand(1, *grid.shape, generator=generator), grid, f"image {seed}")


@torch.no_grad()
def seen(network: VoxelMap, data: Tensor) -> Tensor:
    return network.scores(data[None] / 2)[0]


def test_with_the_image_s_own_voxels_a_score_is_what_the_network_says(dim: int) -> None:
    """It sees the voxels along the axes of the world: exchanged, and the first of them turned round."""
    network, fixed = lively(dim), image_on(turned(dim))
    found = score_map(network, settings_of(dim), Annotated(image=fixed), "cpu")
    expected = seen(network, fixed.data.transpose(1, 2).flip(1)).flip(1).transpose(1, 2)
    assert found.grid is fixed.grid
    assert found.data.dtype == torch.float32
    torch.testing.assert_close(found.data, expected, atol=1e-5, rtol=0)  # read between voxels that coincide, float32
    assert 0 < float(found.data.min()) < 0.4 < 0.6 < float(found.data.max()) < 1
    assert network.training


def test_with_the_model_s_voxels_a_score_is_read_between_them(dim: int) -> None:
    network, fixed = lively(dim), image_on(turned(dim))
    settings = settings_of(dim, spacing=(0.9, 1.1, 1.6)[:dim])
    found = score_map(network, settings, Annotated(image=fixed), "cpu").data[0].numpy()
    lattice = settings.lattice(fixed.grid)
    voxels = torch.tensor(np.indices(fixed.grid.shape).reshape(dim, -1).T, dtype=torch.float64)
    own = torch.tensor(np.indices(lattice.shape).reshape(dim, -1).T, dtype=torch.float64)
    places = [lattice.to_voxel(fixed.grid.to_world(voxels)).numpy(), fixed.grid.to_voxel(lattice.to_world(own)).numpy()]
    laid = map_coordinates(fixed.data[0].double().numpy(), places[1].T, order=1, mode="nearest").reshape(lattice.shape)
    outside = ((places[1] < -0.5) | (places[1] > np.array(fixed.grid.shape) - 0.5)).any(1).reshape(lattice.shape)
    scores = seen(network, torch.from_numpy(np.where(outside, 0, laid)).float()[None])[0].double().numpy()
    expected = map_coordinates(scores, places[0].T, order=1, mode="nearest").reshape(fixed.grid.shape)
    assert np.abs(found - expected).max() < 1e-4  # float32 through a network


def test_residuals_are_those_of_prepared_intensities_under_the_map(dim: int) -> None:
    grid = Grid.regular(SHAPE[:dim], (0.8, 1.3, 2.1)[:dim])
    fixed, moving, network = image_on(grid), image_on(grid, 1), lively(dim)
    matrix = np.eye(dim + 1)
    matrix[0, -1] = 3 * grid.spacing[0]  # three voxels, the last three see nothing
    mask = (torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(2)) * 3).floor() / 2
    sides = (Annotated(image=fixed, mask=Image(mask, grid)), Annotated(image=moving))
    found = trust(network, settings_of(dim), *sides, Affine(matrix), "cpu")
    score = seen(network, fixed.data)
    sums = {True: [0.0, 0.0, 0.0], False: [0.0, 0.0, 0.0]}
    for place in np.ndindex(grid.shape):
        there = (0, place[0] + 3, *place[1:])
        weight, mine = float(mask[(0, *place)]), sums[bool(score[(0, *place)] >= 0.5)]
        mine[2] += weight
        if there[1] < grid.shape[0]:
            mine[0] += weight * abs(float(fixed.data[(0, *place)]) - float(moving.data[there])) / 2
            mine[1] += weight
    torch.testing.assert_close(found.score_map.data, score, atol=1e-5, rtol=0)
    assert found.figures == pytest.approx(
        {
            "trusted_percent": 100 * sums[True][2] / (sums[True][2] + sums[False][2]),
            "residual_trusted": sums[True][0] / sums[True][1],
            "residual_elsewhere": sums[False][0] / sums[False][1],
        },
        rel=1e-4,
    )
    assert 5 < found.figures["trusted_percent"] < 95


def test_a_mean_over_nothing_is_no_number() -> None:
    residual, ones = torch.full((1, 1, 4, 5), 0.25), torch.ones(1, 1, 4, 5)
    found = residual_figures(residual, 0.5 * ones, ones, ones)
    assert (found["trusted_percent"], found["residual_trusted"]) == (100, 0.25)
    assert math.isnan(found["residual_elsewhere"])
    assert trust_text(found) == "at least 0.5 in 100.0 % of the image; mean residual there 0.25, elsewhere not measured"
    found = residual_figures(residual, 0.4 * ones, ones, 0 * ones)
    assert found["trusted_percent"] == 0
    assert math.isnan(found["residual_trusted"])
    assert math.isnan(found["residual_elsewhere"])
