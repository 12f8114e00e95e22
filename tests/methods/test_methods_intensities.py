"""Images that count beside their features in a search: what the term says, where it comes from, and what it is good for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from methods_pairs import texture
from torch import Tensor

from oracles.make import normal, oblique
from warpwright.energies.similarity import LNCC, MIND, MSE, AnySimilarity, LocalCorrelation, MutualInformation
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.methods import (
    Displacement,
    Implicit,
    Intensities,
    Model,
    ModelSettings,
    Search,
    register_direct,
)
from warpwright.methods.intensities import at_level
from warpwright.methods.levels import Lattice, Level, Pair
from warpwright.networks.features import FeatureUNetEncoder
from warpwright.sampling import warp
from warpwright.solver import Adam
from warpwright.transforms import Preparation, displacement_on

SPACING = (1.0, 0.8, 1.3)
SHAPE = (28, 22, 18)
FAMILY = Displacement(gradient_sigma=1.5, field_sigma=0.7, solver=Adam(length=0.7, damping=0.1, beta1=0.8))


def level_of(grid: Grid, factor: int = 1, batch: int = 1, weight: Tensor | None = None) -> Level:
    """Of features that are nothing to the images."""
    coarse = grid.downsample((factor,) * grid.dim)
    features = torch.rand(2, batch, 4, *coarse.shape)
    return Level(Pair(features[0], features[1], weight, None, coarse, coarse), Lattice((factor,) * grid.dim))


def model_of(dim: int) -> Model:
    torch.manual_seed(3)
    features = FeatureUNetEncoder(outputs=4, scales=(2, 1), widths=0.25)
    network = Implicit(features=features, family=FAMILY, steps=(15, 15))
    preparation = Preparation(spacing=SPACING[:dim], start="none")
    return Model(ModelSettings(dim=dim, network=network, layers=(), preparation=preparation))


@pytest.mark.parametrize("similarity", [LNCC(radius=1), MSE()], ids=lambda one: type(one).__name__)
def test_the_term_is_the_similarity_in_units_of_unlike_images(
    similarity: AnySimilarity, dim: int, generator: torch.Generator
) -> None:
    """With masks, for each pair of a batch."""
    grid = Grid.regular(SHAPE[:dim], SPACING[:dim])
    fixed, moving = (torch.stack([texture(SHAPE[:dim], seed=seed) for seed in seeds]) for seeds in ((0, 1), (2, 3)))
    weight = torch.ones(1, 1, *grid.shape)
    weight[:, :, :9] = 0
    level = level_of(grid, batch=2, weight=weight)
    term = Intensities(similarity=similarity, weight=0.5).at(level, (fixed, moving), (grid, grid))
    assert term.weight == 0.5
    field = normal(generator, 2, dim, *grid.shape).float()
    found = term.regularity(field, grid.spacing)
    spaced = similarity.for_spacing(grid.spacing)
    axes = tuple(range(2, 2 + dim))
    other = moving.flip(axes).roll([n // 4 for n in grid.shape], axes)
    unlike = spaced.similarity(other, fixed, weight) - spaced.similarity(fixed, fixed, weight)
    torch.testing.assert_close(found, spaced.match(fixed, moving, field, None, weight) / unlike)


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("size", [21, 24, 35])
def test_a_level_sees_the_images_where_its_voxels_lie(factor: int, size: int, dim: int) -> None:
    """A ramp, oblique and flipped, has there the height of the place; where the network padded, that of the border."""
    shape = (size, 18, 23)[:dim]
    grid = Grid(shape, oblique((1.1, 0.9, 1.2)[:dim], 0.2))
    before = 1 + (-size % factor) // 2
    lattice = grid.crop((-before,) * dim, tuple(n + 2 * before + -(n + 2 * before) % factor for n in shape))
    lattice = lattice.downsample((factor,) * dim)
    ramp = torch.arange(float(size)).reshape(1, 1, -1, *(1,) * (dim - 1)).expand(1, 2, *shape)
    found = at_level(torch.cat([ramp, size - ramp]), grid, lattice)
    assert found.shape == (2, 2, *lattice.shape)
    torch.testing.assert_close(found[0], size - found[1])
    places = torch.from_numpy(np.indices(lattice.shape)).flatten(1).T.double()
    at = grid.to_voxel(lattice.to_world(places))[:, 0].reshape(lattice.shape).float()
    whole = (at >= 1.5 * factor) & (at <= size - 1 - 1.5 * factor)  # where the filter lies within the image
    assert whole.any()
    torch.testing.assert_close(found[0, 0][whole], at[whole], atol=1e-4, rtol=0)
    assert ((found[0, 0] - at.clamp(0, size - 1)).abs() <= 0.5 * factor).all()


@pytest.mark.parametrize("similarity", [MSE(), LNCC(), LocalCorrelation(), MutualInformation(), MIND()], ids=repr)
def test_images_that_are_flat_or_do_not_meet_neither_say_nor_pull(similarity: AnySimilarity, dim: int) -> None:
    grid = Grid.regular(SHAPE[:dim])
    flat, image = torch.full((1, 1, *grid.shape), 0.5), texture(SHAPE[:dim])[None]
    far = torch.zeros(1, 1, *grid.shape)
    for images, weight in (((flat, flat), None), ((image, image), far)):
        term = Intensities(similarity=similarity).at(level_of(grid, weight=weight), images, (grid, grid))
        at = torch.ones(1, dim, *grid.shape, requires_grad=True)
        value = term.regularity(at, grid.spacing)
        value.sum().backward()
        assert value.item() == 0
        assert at.grad is not None
        assert (at.grad == 0).all()
    term, at = Intensities(similarity=similarity).at(level_of(grid), (flat, image), (grid, grid)), at.detach().requires_grad_()
    term.regularity(at, grid.spacing).sum().backward()
    assert at.grad is not None
    assert at.grad.isfinite().all()


def test_what_features_mistake_intensities_still_show(dim: int) -> None:
    """Features of weights by chance take a negative for something else; local correlation knows it again."""
    grid = Grid.regular(SHAPE[:dim], SPACING[:dim])
    still = texture(SHAPE[:dim])
    shift = torch.zeros(1, dim, *SHAPE[:dim])
    shift[:, 0] = 1.5
    fixed, moving = Image(1 - warp(still[None], shift)[0], grid, "fixed"), Image(still, grid, "moving")
    off: list[float] = []
    model = model_of(dim)
    for intensities in (None, Intensities(weight=8.0)):
        search = replace(Search.trained(model.network.settings), intensities=intensities)  # type: ignore[arg-type]
        found = register_direct(model, fixed, moving, search=search)
        error = displacement_on(found.forward, grid) - shift[0]
        off.append(error[(slice(None), *(slice(5, -5),) * dim)].norm(dim=0).mean().item())
    assert off[1] < 0.5 < 1.0 < off[0]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(BadInput, match=f"the weight of intensities must be above 0 and finite, got {weight}"):
        Intensities(weight=weight)
