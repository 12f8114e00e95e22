"""A pair searched by the features of a model: an affine is one everywhere, one field is worked out, what fails is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from methods_pairs import blobs, texture
from torch import Tensor

from oracles.make import homogeneous, oblique, rotation
from warpwright.errors import BadInput, Failed
from warpwright.geometry import Grid, Image
from warpwright.methods import (
    AffineField,
    Annotated,
    BSpline,
    Displacement,
    Greedy,
    Implicit,
    Model,
    ModelSettings,
    Prompting,
    Search,
    Velocity,
    family_named,
    lay_image,
    register_direct,
)
from warpwright.methods.deformable import AnyFamily
from warpwright.methods.search import STILL, searched
from warpwright.methods.settings import TransformName
from warpwright.networks.features import FeatureUNetEncoder
from warpwright.solver import LBFGS, Adam, GradientDescent
from warpwright.transforms import Affine, DisplacementField, Preparation, resample

FAMILY = Displacement(gradient_sigma=1.5, field_sigma=0.7, solver=Adam(length=0.7, damping=0.1, beta1=0.8))
SHAPE, SPACING = (26, 22, 24), (1.0, 1.2, 0.9)


def model_of(dim: int, family: AnyFamily = FAMILY, scales: tuple[int, ...] = (2, 1), steps: int = 4) -> Model:
    torch.manual_seed(3)
    features = FeatureUNetEncoder(outputs=4, scales=scales, widths=0.25)
    network = Implicit(features=features, family=family, steps=(steps,) * len(scales))
    preparation = Preparation(spacing=SPACING[:dim], start="none")
    return Model(ModelSettings(dim=dim, network=network, layers=(), preparation=preparation))


def search_of(model: Model) -> Search:
    return Search.trained(model.network.settings)  # type: ignore[arg-type]


def two(dim: int) -> list[Image]:
    grid = Grid.regular(SHAPE[:dim], SPACING[:dim])
    return [Image(texture(grid.shape, seed=seed), grid, f"image {seed}") for seed in (1, 2)]


# -------------------------------------------------------------------------------------------------------------- families

DENSE: dict[TransformName, type[AnyFamily]] = {"displacement": Displacement, "greedy": Greedy, "velocity": Velocity}
SPARSE = (AffineField(solver=Adam(length=1.0)), BSpline(knots=4.0, solver=LBFGS(length=0.5)))


@pytest.mark.parametrize("name", DENSE)
def test_a_dense_family_is_smoothed_and_stepped_as_the_dense_one_of_training(name: TransformName) -> None:
    found = family_named(name, FAMILY, 2.0)
    assert type(found) is DENSE[name]
    assert shared(found) == shared(FAMILY)


@pytest.mark.parametrize("trained", SPARSE, ids=lambda family: type(family).__name__)
@pytest.mark.parametrize("name", DENSE)
def test_features_of_a_sparse_family_are_searched_by_dense_ones_as_by_default(name: TransformName, trained: AnyFamily) -> None:
    """Lengths are those of the default for voxels of 1 mm, and grow with the voxels."""
    assert shared(family_named(name, trained, 1.0)) == shared(Implicit().family)
    sigmas = (2 * Implicit().family.gradient_sigma, 2 * Implicit().family.field_sigma)  # type: ignore[union-attr]
    found = family_named(name, trained, 2.0)
    assert type(found) is DENSE[name]
    assert shared(found) == (*sigmas, *shared(Implicit().family)[2:])


def shared(family: AnyFamily) -> tuple[object, ...]:
    assert isinstance(family, Displacement | Greedy | Velocity)
    return family.gradient_sigma, family.field_sigma, family.solver, family.regularities


def test_features_of_an_affine_move_voxels_by_a_dense_family(dim: int) -> None:
    fixed, moving = two(dim)
    model = model_of(dim, SPARSE[0])
    search = replace(search_of(model), family=family_named("greedy", SPARSE[0], min(SPACING[:dim])))
    found = register_direct(model, fixed, moving, search=search)
    assert [stage.name for stage in found.stages] == ["features", "greedy 1/2", "greedy 1/1", "map"]
    assert found.forward.parts[-1].displacement.abs().max() > 0.5  # type: ignore[attr-defined]


def test_a_rigid_map_of_features_is_refused() -> None:
    for trained in (FAMILY, *SPARSE):
        with pytest.raises(BadInput, match="a model of features gives no rigid map"):
            family_named("rigid", trained, 1.0)


# --------------------------------------------------------------------------------------------------------------- affine


def test_an_affine_that_is_searched_is_one_in_all_the_world(dim: int) -> None:
    """Of an oblique image of other voxels than the model's, far beyond which it goes on as it begins."""
    grid = Grid(SHAPE[:dim], oblique((1.1, 0.9, 1.2)[:dim], 0.2))
    linear = rotation(dim, 0.08) @ np.diag([1.04, 0.97, 1.02][:dim])
    moving, shift = blobs(grid), np.array([1.0, -0.7, 0.8])[:dim]
    fixed = resample(moving, Affine(homogeneous(linear, grid.centre - linear @ grid.centre + shift)), grid)
    found = register_direct(model_of(dim, AffineField(solver=Adam(length=1.0)), steps=20), fixed, moving)
    assert isinstance(found.forward, Affine)
    assert isinstance(found.backward, Affine)
    assert found.inverse_residual == 0
    after, before = (
        (resample(moving, t, grid).data - fixed.data).square().mean() for t in (found.forward, Affine.identity(dim))
    )
    assert after < 0.6 * before
    far = grid.to_world(torch.tensor(np.indices((2,) * dim).reshape(dim, -1).T * 300.0 - 100.0))
    torch.testing.assert_close(found.backward(found.forward(far)), far, atol=1e-9, rtol=0)
    middle = (found.forward(far[:1]) + found.forward(far[-1:])) / 2
    torch.testing.assert_close(found.forward((far[:1] + far[-1:]) / 2), middle, atol=1e-9, rtol=0)


@pytest.mark.parametrize("scales", [(2, 1), (4, 2)], ids=str)
def test_the_affine_is_what_the_solver_found(dim: int, scales: tuple[int, ...]) -> None:
    """On the working grid it moves voxels as the field does; at the border, where that is repeated, on from there."""
    fixed, moving = two(dim)
    model = model_of(dim, AffineField(solver=Adam(length=1.0)), scales)
    sides = Annotated(image=fixed), Annotated(image=moving)
    found = searched(
        model.network,  # type: ignore[arg-type]
        model.settings.preparation,
        sides,
        Affine.identity(dim),
        fixed.grid,
        search_of(model),
    )
    assert found.affine is not None
    size = torch.tensor(fixed.grid.shape, dtype=torch.float64) - 1
    voxels = 1 + torch.rand(50, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * (size - 2)
    points = fixed.grid.to_world(voxels)
    expected = DisplacementField(found.displacement[0], fixed.grid)(points)
    assert (expected - points).norm(dim=1).max() > 0.5
    torch.testing.assert_close(found.affine(points), expected, atol=1e-4, rtol=0)  # float32 fields


# ----------------------------------------------------------------------------------------------------------- the layer


def test_only_the_last_field_is_worked_out(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exponential of a coarser level is of no use; the result is bit for bit that of a layer that gives them all."""
    fixed, moving = two(dim)
    model = model_of(dim, Velocity(gradient_sigma=1.5, field_sigma=0.7, solver=Adam(length=0.7)))
    lowered: list[Tensor] = []
    lower = Velocity.lower

    def watched(family: Velocity, field: Tensor) -> Tensor:
        lowered.append(field)
        return lower(family, field)

    monkeypatch.setattr(Velocity, "lower", watched)
    found = register_direct(model, fixed, moving)
    assert len(lowered) == 1
    laid = [lay_image(model.settings.preparation, Annotated(image=i), Affine.identity(dim), i.grid)[0] for i in (fixed, moving)]
    ones = torch.ones_like(laid[0])
    with torch.no_grad():
        sides = [model.network.pyramid(image) for image in laid]  # type: ignore[operator]
        solved = model.network.solver(*sides, (fixed.grid,) * 2, weights=(ones, ones))  # type: ignore[operator]
    assert torch.equal(found.forward.parts[-1].displacement, solved.displacements[-1][0])  # type: ignore[attr-defined]
    assert len(lowered) == 3


def test_steps_and_tolerance_are_chosen_with_the_family(dim: int) -> None:
    fixed, moving = two(dim)
    model = model_of(dim)
    search = replace(search_of(model), steps=(12, 30), tolerance=1.0)  # which no energy falls by in a step
    found = register_direct(model, fixed, moving, search=search)
    assert [stage.steps for stage in found.stages] == [1, 9, 9, 1]  # after a window of ten energies
    whole = register_direct(model, fixed, moving, search=replace(search, tolerance=None))
    assert [stage.steps for stage in whole.stages] == [1, 12, 30, 1]
    trained = register_direct(model, fixed, moving)
    assert [stage.steps for stage in trained.stages] == [1, 4, 4, 1]


# --------------------------------------------------------------------------------------------------------------- failure


def test_a_search_whose_energy_is_not_finite_fails(dim: int) -> None:
    """What is told weighs more than float32 can hold; nothing was found, which is not the start."""
    fixed, moving = two(dim)
    model = model_of(dim)
    places = torch.from_numpy(fixed.grid.centre)[None], torch.from_numpy(fixed.grid.centre)[None] + 2.0
    search = replace(search_of(model), prompts=Prompting(points=places, weight=1e45))
    with pytest.raises(Failed) as error:
        register_direct(model, fixed, moving, search=search)
    assert str(error.value) == (
        "image 1 and image 2: the energy of the search became NaN or infinite at 1/2, 1/1 of the resolution, expected smaller"
        " weights of prompts, intensities and regularities"
    )


def test_images_that_lie_well_stay_where_they_are(dim: int) -> None:
    """No step makes the features more alike, which is no failure, and is told."""
    fixed, moving = two(dim)
    same = Image(fixed.data + 1e-5 * moving.data, fixed.grid, "nearly the same")
    model = model_of(dim, replace(FAMILY, solver=GradientDescent(length=3.0)))
    found = register_direct(model, fixed, same)
    assert STILL in found.notes
    assert not found.forward.parts[-1].displacement.any()  # type: ignore[attr-defined]
    assert STILL not in register_direct(model_of(dim), fixed, moving).notes
