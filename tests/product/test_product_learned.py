"""How a model of features searches: what it was trained with, but for what a person says in a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from warpwright.config import to_mapping
from warpwright.energies.similarity import LNCC
from warpwright.errors import BadInput, Failed
from warpwright.geometry import Grid, Image, identity_points
from warpwright.methods import AnyFamily, BSpline, Displacement, Implicit, Intensities, Model, ModelSettings, Search, Solving
from warpwright.methods.implicit import AnyFeatures
from warpwright.methods.search import search_memory
from warpwright.networks.features import FeatureLKU, FeatureUNetEncoder
from warpwright.product import resources
from warpwright.product.choice import Choice
from warpwright.product.choices import Kind
from warpwright.product.learned import OfFeatures
from warpwright.product.model_folder import ModelFolder, read_model, write_model
from warpwright.product.plan import Plan, prepare
from warpwright.product.register import register
from warpwright.product.result import RegistrationResult
from warpwright.solver import Adam
from warpwright.transforms import Preparation

FAMILY = Displacement(gradient_sigma=1.5, field_sigma=0.7, solver=Adam(length=0.7, damping=0.1, beta1=0.8))
SHAPE = (20, 18, 16)


def folder_of(place: Path, dim: int, family: AnyFamily = FAMILY, tolerance: float | None = None) -> ModelFolder:
    torch.manual_seed(2)
    features = FeatureUNetEncoder(outputs=4, scales=(2, 1), widths=0.25)
    network = Implicit(features=features, family=family, steps=(8, 6), tolerance=tolerance)
    settings = ModelSettings(dim=dim, network=network, layers=(), preparation=Preparation(spacing=(1.0,) * dim, start="none"))
    write_model(place, Model(settings), card="made up", summary={})
    return read_model(place)


def pair(dim: int) -> list[Image]:
    """A pattern of waves, and the same where it is bent."""
    grid = Grid.regular(SHAPE[:dim])
    at = identity_points(grid.shape, dtype=torch.float32, device=torch.device("cpu"))[0]
    bent = at + 1.2 * torch.sin(at.flip(0) / 3)
    return [Image(torch.sin(x / 2.3).prod(0)[None], grid, name) for name, x in (("fixed", at), ("moving", bent))]


def searched(folder: ModelFolder, config: Path | None = None, **more: Any) -> RegistrationResult:
    dim = folder.model.settings.dim
    return register(*pair(dim), model=folder, config=config, threads=1, **more)


def steps(result: RegistrationResult) -> list[int]:
    return [stage.steps for stage in result.registration.stages]


def test_the_smoothing_is_any_without_training_anew(dim: int, tmp_path: Path) -> None:
    folder, file = folder_of(tmp_path / "m", dim), tmp_path / "c.toml"
    trained = searched(folder)
    told = trained.record["model"]
    assert (told["steps"], told["tolerance"]) == ([8, 6], None)
    assert told["family"] == {"kind": "displacement", **to_mapping(FAMILY)}
    spread = [trained.scores.sd_log_jacobian]
    for sigma in (2.5, 4.0):
        file.write_text(f"[deformable]\ngradient_sigma = {sigma}\nfield_sigma = 1.5\n")
        smooth = searched(folder, file)
        assert smooth.record["model"]["family"] == told["family"] | {"gradient_sigma": sigma, "field_sigma": 1.5}
        assert steps(smooth) == steps(trained)
        spread.append(smooth.scores.sd_log_jacobian)
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 0.5 * spread[0]


def test_a_file_lets_the_images_count_beside_their_features(dim: int, tmp_path: Path) -> None:
    folder, file = folder_of(tmp_path / "m", dim), tmp_path / "c.toml"
    trained = searched(folder)
    assert trained.record["model"]["intensities"] is None
    file.write_text('[intensities]\nweight = 2.0\nsimilarity = { kind = "lncc", radius = 3 }\n')
    beside = searched(folder, file)
    assert beside.record["model"]["intensities"]["weight"] == 2.0
    assert beside.record["model"]["intensities"]["similarity"]["radius"] == 3
    assert beside.record["model"]["family"] == trained.record["model"]["family"]
    unlike = [LNCC().similarity(found.moved.data[None], pair(dim)[0].data[None]).item() for found in (beside, trained)]
    assert unlike[0] < 0.97 * unlike[1]
    file.write_text("[intensities]\nweight = -1.0\n")
    with pytest.raises(BadInput, match=r"c\.toml.*: the weight of intensities must be above 0 and finite, got -1.0"):
        searched(folder, file)


def test_a_window_of_other_axes_is_refused_before_the_search(dim: int, tmp_path: Path) -> None:
    folder, file = folder_of(tmp_path / "m", dim), tmp_path / "c.toml"
    file.write_text(f'[intensities]\nsimilarity = {{ kind = "lncc", radius = {[1] * (5 - dim)} }}\n')
    said = f"LNCC has a radius of {5 - dim} numbers, the images have {dim} axes: expected one number, or {dim}"
    with pytest.raises(BadInput) as error:
        prepare(*pair(dim), choice=Choice(config=file), model=folder, threads=1)
    assert str(error.value) == f"{file}.intensities.similarity: {said}"


def test_steps_and_tolerance_are_laid_over_those_of_training(dim: int, tmp_path: Path) -> None:
    folder, file = folder_of(tmp_path / "m", dim, tolerance=1e-6), tmp_path / "c.json"
    file.write_text('{"steps": [3, 12]}')
    assert steps(searched(folder, file)) == [1, 3, 12, 1]
    file.write_text('{"steps": [12, 12], "tolerance": 1.0}')  # which no energy falls by in a step
    early = searched(folder, file)
    assert steps(early) == [1, 9, 9, 1]
    assert (early.record["model"]["steps"], early.record["model"]["tolerance"]) == ([12, 12], 1.0)
    file.write_text('{"tolerance": null}')
    assert searched(folder, file).record["model"]["tolerance"] is None


@pytest.mark.parametrize("tolerance", [-1.0, float("nan")])
def test_training_and_a_file_refuse_the_same_tolerances(tolerance: float) -> None:
    for refused in (
        lambda: Implicit(tolerance=tolerance),
        lambda: OfFeatures(deformable=FAMILY, steps=(1,), tolerance=tolerance),
    ):
        with pytest.raises(BadInput, match=f"tolerance must be at least 0 or absent, got {tolerance}"):
            refused()


def test_a_kind_in_the_file_means_what_its_name_means(tmp_path: Path) -> None:
    folder, file = folder_of(tmp_path / "m", 2), tmp_path / "c.toml"
    for name, kind, text in (
        ("velocity", "velocity", "squarings = 4"),
        ("bspline", "bspline", "knots = 6.0"),
        ("affine", "affinefield", "[deformable.solver]\nkind = 'adam'\nlength = 2.0"),
    ):
        file.write_text(f"[deformable]\nkind = '{kind}'\n{text}\n")
        alone, both = (searched(folder, file, **more) for more in ({}, {"transform": name}))
        assert alone.record["model"] == both.record["model"]
        named = searched(folder, transform=name).record["model"]["family"]
        assert alone.record["model"]["family"] != named
        assert alone.record["model"]["family"].keys() == named.keys()
        assert alone.registration.stages[1].name == f"{kind} 1/2"


def test_a_partial_table_is_laid_over_the_family_of_training(tmp_path: Path) -> None:
    """Not over the preset's, which is of another kind."""
    file = tmp_path / "c.toml"
    file.write_text("[deformable]\nknots = 3.0\n")
    folder = folder_of(tmp_path / "m", 2, BSpline(knots=5.0, solver=Adam(length=0.5)))
    assert searched(folder, file).record["model"]["family"]["knots"] == 3.0


def plan_of(folder: ModelFolder, size: int, transform: Kind = "greedy") -> Plan:
    """A registration of two images of ramps, (size, ...) voxels of 1 mm."""
    grid = Grid.regular((size,) * folder.model.settings.dim)
    images = [Image(torch.arange(float(grid.size)).reshape(1, *grid.shape), grid, name) for name in ("fixed", "moving")]
    return prepare(*images, choice=Choice(transform=transform), model=folder, device="cpu", threads=1)


def test_the_memory_of_a_search_grows_with_the_images_and_the_family(dim: int, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", dim)
    small, large = (plan_of(folder, size).memory for size in (32, 64))
    assert large == pytest.approx(2**dim * small, rel=1e-3)
    assert 50 < large / 64**dim < 2000  # bytes a voxel, of a network of a quarter of the width
    assert plan_of(folder, 64, "bspline").memory >= large
    assert plan_of(folder, 64).to_mapping()["memory_gb"] == round(large / 1e9, 2)


@pytest.mark.parametrize("features", [FeatureUNetEncoder(), FeatureLKU(widths=0.5)], ids=lambda one: type(one).__name__)
def test_a_search_holds_both_pyramids_twice(features: AnyFeatures) -> None:
    """As they are and divided by their deviation; images are enlarged until the network can halve them."""
    grid = Grid.regular((64, 64, 64))

    def memory(lattice: Grid = grid, intensities: Intensities | None = None, **changed: Any) -> float:
        """Bytes for each voxel."""
        settings = replace(features, **changed)
        network = Solving(Implicit(features=settings, steps=(1,) * len(settings.scales)), 3, 1, (1.0, 1.0, 1.0))
        search = Search(family=FAMILY, steps=network.settings.steps, intensities=intensities)
        return search_memory(network, search, (lattice, grid), grid) / grid.size

    channel = 4 * 2 * (1 + 1 / 8 + 1 / 64)  # bytes of one channel of both pyramids for each voxel
    assert memory(outputs=64) > 64 * 2 * channel
    assert memory(outputs=128) - memory(outputs=64) == pytest.approx(64 * (2 * channel + 4))
    assert memory(scales=(4, 2)) < memory()
    assert memory(intensities=Intensities(), outputs=64) > memory(outputs=64)
    assert memory(grid.crop((0, 0, 0), (61, 62, 63))) == memory()


def test_a_search_that_needs_too_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(folder_of(tmp_path / "m", 3), 64)
    monkeypatch.setattr(resources, "available_memory", lambda: plan.memory - 1)
    with pytest.raises(
        Failed, match=r"^this registration needs about 0\.\d GB of memory, 0\.\d GB are free: expected a machine"
    ):
        plan.run()


@pytest.mark.parametrize("features", [True, False], ids=["of features", "of one pass"])
def test_a_model_for_other_axes_is_named(dim: int, features: bool, tmp_path: Path) -> None:
    place = tmp_path / "m"
    if features:
        folder_of(place, 5 - dim)
    else:
        write_model(place, Model(ModelSettings(dim=5 - dim)), card="made up", summary={})
    with pytest.raises(BadInput) as error:
        prepare(*pair(dim), choice=Choice(), model=place, threads=1)
    assert str(error.value) == f"fixed: has {dim} axes, the model {place} is for {5 - dim}: expected as many"


def test_an_affine_of_a_file_is_not_refined_by_a_field(tmp_path: Path) -> None:
    folder, file = folder_of(tmp_path / "m", 2), tmp_path / "c.toml"
    file.write_text('[deformable]\nkind = "affinefield"\n')
    with pytest.raises(BadInput, match="--refine-field refines a deformable map, a linear transform was asked for"):
        searched(folder, file, refine_field=2)


def test_a_file_may_speak_of_both_searches(tmp_path: Path) -> None:
    """Of that by images, which finds the start, and of that by features."""
    folder, file = folder_of(tmp_path / "m", 2), tmp_path / "c.toml"
    file.write_text('steps = [5, 2]\n[similarity]\nkind = "mse"\n')
    found = searched(folder, file, initialise="affine", preset="fast")
    assert found.record["settings"]["similarity"]["kind"] == "mse"
    assert found.record["settings"]["steps"] == [25, 25, 15, 8]  # the preset's
    assert steps(found)[-4:] == [1, 5, 2, 1]
