"""Deformable registration end to end: a known smooth field is found again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from methods_pairs import SHAPE, SHAPE_3D, SPACING, SPACING_3D, inner, regular, small, texture, voxel_error, warped_pair
from torch import Tensor

from oracles.make import smooth_field
from warpwright.energies.regularity import Bending
from warpwright.energies.similarity import MSE
from warpwright.errors import Failed
from warpwright.geometry import Image, jacobian_determinant
from warpwright.methods import Displacement, Greedy, Progress, SimilarityName, TransformName, register, register_pair
from warpwright.solver import GaussNewton, GradientDescent, Solution, Status
from warpwright.transforms import Affine, DisplacementField, VelocityField, displacement_on

FAMILIES: tuple[TransformName, ...] = ("greedy", "displacement", "velocity", "bspline")
CASES = {"2d": (SHAPE, SPACING, (40, 40, 30)), "3d": (SHAPE_3D, SPACING_3D, (20, 20, 15))}


@pytest.mark.parametrize("similarity", ["lncc", "mse"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_a_known_field_is_recovered(case: str, family: TransformName, similarity: SimilarityName) -> None:
    shape, spacing, steps = CASES[case]
    fixed, moving, truth = warped_pair(shape, 4.0)
    assert inner(truth).norm(dim=1).mean() > 1.3
    result = register_pair(fixed, moving, small(family, similarity, spacing=spacing, steps=steps))
    error = voxel_error(result.forward, truth, fixed.grid)
    assert error.mean() < 0.4  # interpolation blurs the pair, the smoothing bends the field: no exact answer exists
    assert error.max() < 2.0
    assert result.energy_after < 0.7 * result.energy_before
    assert [stage.name.split()[0] for stage in result.stages] == [family] * len(result.stages)


@pytest.mark.parametrize("family", ["greedy", "velocity"])
@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case: str, family: TransformName) -> None:
    shape, spacing, steps = CASES[case]
    fixed, moving, _ = warped_pair(shape, 4.0)
    result = register_pair(fixed, moving, small(family, "lncc", spacing=spacing, steps=steps))
    assert jacobian_determinant(displacement_on(result.forward, fixed.grid)[None]).min() > 0
    assert 0 <= result.inverse_residual < 0.01
    # voxels whose inverse leads out of the grid have none, hence the border
    there_and_back = inner(displacement_on(result.forward @ result.backward, fixed.grid)[None])
    assert there_and_back.norm(dim=1).max() <= result.inverse_residual + 1e-5  # float32 fields


def test_a_search_without_a_finite_energy_fails() -> None:
    """Not even at one level; it is no map that moves nothing."""
    fixed, moving, _ = warped_pair(SHAPE, 2.0)
    family = Displacement(gradient_sigma=1.5, field_sigma=0.5, solver=GradientDescent(), regularities=(Bending(weight=1e45),))
    settings = replace(small("displacement"), deformable=family)
    with pytest.raises(Failed, match="the energy of the search became NaN or infinite at every level, expected smaller"):
        register_pair(fixed, moving, settings)


def test_levels_without_a_finite_energy_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, moving, _ = warped_pair(SHAPE, 2.0)
    own, seen = register._Run._done, list[str]()

    def done(self: register._Run, name: str, begin: float, solution: Solution) -> None:
        seen.append(name)
        own(self, name, begin, replace(solution, status=(Status.NONFINITE,)) if len(seen) == 1 else solution)

    monkeypatch.setattr(register._Run, "_done", done)
    result = register_pair(fixed, moving, small("greedy"))
    assert len(seen) > 1
    assert result.notes == ("at some levels the energy became NaN or infinite: there nothing was found",)


@pytest.mark.parametrize("solver", [GaussNewton(length=0.5), GradientDescent(length=0.1)], ids=["demons", "descent"])
def test_other_solvers_serve_a_field(solver: GaussNewton | GradientDescent) -> None:
    fixed, moving, truth = warped_pair(SHAPE, 2.0)
    settings = replace(small("greedy"), deformable=Greedy(gradient_sigma=1.5, field_sigma=0.5, solver=solver))
    result = register_pair(fixed, moving, settings)
    assert voxel_error(result.forward, truth, fixed.grid).mean() < 0.3
    assert inner(truth).norm(dim=1).mean() > 0.6


@pytest.mark.parametrize("similarity", ["mse", "mind"])
@pytest.mark.parametrize("family", FAMILIES)
def test_without_motion_nothing_moves(family: TransformName, similarity: SimilarityName) -> None:
    image = Image(texture(SHAPE), regular(SHAPE), "image")
    result = register_pair(image, image, small(family, similarity))
    assert voxel_error(result.forward, torch.zeros(1, 2, *SHAPE), image.grid).max() < 1e-5  # world and back, float64
    assert result.energy_after <= result.energy_before + 1e-12  # rounding of float32 differences, squared


@pytest.mark.parametrize("similarity", ["lncc", "mi"])
@pytest.mark.parametrize("family", FAMILIES)
def test_without_motion_little_moves(family: TransformName, similarity: SimilarityName) -> None:
    """These energies are not smallest where an image meets itself: windows with more variance, and interpolated grey
    values, are worth a fraction of a voxel to them.
    """
    image = Image(texture(SHAPE), regular(SHAPE), "image")
    result = register_pair(image, image, small(family, similarity))
    assert voxel_error(result.forward, torch.zeros(1, 2, *SHAPE), image.grid).mean() < 0.15
    assert result.energy_after <= result.energy_before


def test_images_without_structure_give_no_motion() -> None:
    grid = regular(SHAPE)
    fixed, moving = Image(torch.full((1, *SHAPE), 3.0), grid), Image(torch.full((1, *SHAPE), 7.0), grid)
    for similarity in ("mse", "lncc", "mi"):
        result = register_pair(fixed, moving, small("greedy", similarity))
        assert displacement_on(result.forward, grid).abs().max() < 1e-12  # to the world and back


@pytest.mark.parametrize(
    ("similarity", "factor", "shift"),
    [
        *[(name, *change) for name in ("lncc", "mse") for change in ((0.1, 0.0), (100.0, 0.0), (1.0, -1000.0))],
        ("lncc", -20.0, 40.0),
    ],
)
def test_linear_changes_of_intensity_do_not_matter(similarity: SimilarityName, factor: float, shift: float) -> None:
    fixed, moving, truth = warped_pair(SHAPE)
    settings = small("greedy", similarity)
    plain = register_pair(fixed, moving, settings)
    other = register_pair(fixed, Image(moving.data * factor + shift, moving.grid), settings)
    # single precision of the intensities (6e-5 of the range at -1000), amplified where the image is flat by steps of one length
    difference = voxel_error(other.forward, displacement_on(plain.forward, fixed.grid)[None], fixed.grid)
    assert difference.max() < 0.2 * settings.deformable.solver.length  # one voxel; it differs between processors
    assert difference.mean() < 0.01
    assert voxel_error(other.forward, truth, fixed.grid).mean() < 0.3


def test_mutual_information_sees_through_a_change_of_contrast() -> None:
    """The fixed image's intensities remapped without order: neither a difference nor a global correlation is left."""
    shape = (60, 52)
    fixed, moving, truth = warped_pair(shape, 4.0)
    remapped = Image((fixed.data * 2.2 * torch.pi).cos().abs() + 0.3 * fixed.data, fixed.grid, "remapped")
    result = register_pair(remapped, moving, small("bspline", "mi"))
    error = voxel_error(result.forward, truth, fixed.grid)
    assert error.mean() < 0.5
    assert error.mean() < 0.4 * inner(truth).norm(dim=1).mean()


def test_two_runs_are_the_same_bytes() -> None:
    fixed, moving, _ = warped_pair((20, 24, 18))
    for family in ("greedy", "bspline"):
        settings = small(family, "lncc", spacing=SPACING_3D, initialise="rigid", steps=(3, 3, 2))
        first, second = (register_pair(fixed, moving, settings) for _ in range(2))
        assert torch.equal(_field(first.forward), _field(second.forward))
        assert first.energy_after == second.energy_after


def _field(transform: object) -> Tensor:
    parts = getattr(transform, "parts", (transform,))
    return next(part.displacement for part in parts if isinstance(part, DisplacementField))


def test_progress_is_told() -> None:
    fixed, moving, _ = warped_pair(SHAPE)
    told: list[Progress] = []
    settings = replace(small("greedy", initialise="rigid", levels=(2, 1), steps=(7, 5)), tolerance=None)
    result = register_pair(fixed, moving, settings, progress=told.append)
    assert [p.step for p in told if p.stage == "greedy 1/2"] == list(range(7))
    assert [p.step for p in told if p.stage == "greedy 1/1"] == list(range(5))
    assert all(p.step < p.steps for p in told)
    assert {p.stage for p in told} == {s.name for s in result.stages if "1/" in s.name}
    assert [s.steps for s in result.stages][-2:] == [7, 5]
    assert told[-5].energy == result.stages[-1].energy_start
    assert told[-1].energy == result.stages[-1].energy_end


def test_the_energy_of_every_step_is_kept() -> None:
    fixed, moving, _ = warped_pair(SHAPE)
    told: list[Progress] = []
    settings = replace(small("greedy", initialise="affine", levels=(2, 1), steps=(40, 6)), tolerance=1e-3)
    result = register_pair(fixed, moving, settings, progress=told.append)
    levels = [stage for stage in result.stages if "1/" in stage.name]
    assert [stage.name.split()[0] for stage in levels][-2:] == ["greedy", "greedy"]
    assert any(stage.steps < 40 for stage in levels)  # a level that stopped before its steps were used up
    for stage in levels:
        seen = [p.energy for p in told if p.stage == stage.name]
        assert stage.energies == tuple(float(f"{energy:.6g}") for energy in seen)
        assert len(stage.energies) in (stage.steps, stage.steps + 1)
        assert stage.energies[0] == pytest.approx(stage.energy_start, rel=1e-5)
        assert stage.energies[-1] == pytest.approx(stage.energy_end, rel=1e-5)
    assert register_pair(fixed, moving, settings).stages[-1].energies == levels[-1].energies  # whether or not one is told


@pytest.mark.parametrize("family", FAMILIES)
def test_a_true_start_stays(family: TransformName) -> None:
    fixed, moving, truth = warped_pair(SHAPE)
    start = Affine.identity(2) @ DisplacementField(truth[0], fixed.grid)
    settings = small(family, "mse", levels=(1,), steps=(8,))
    result = register_pair(fixed, moving, settings, initial=start)
    assert voxel_error(result.forward, truth, fixed.grid).max() < 0.2  # knots, and the logarithm, cannot hold every field
    assert result.stages[0].energy_start < 0.05 * register_pair(fixed, moving, settings).stages[0].energy_start


def test_a_start_may_be_any_transform() -> None:
    """A velocity field behind an affine, on another grid than the fixed image's."""
    fixed, moving, _ = warped_pair(SHAPE, 1.0)
    coarse = fixed.grid.downsample((2, 2))
    velocity = VelocityField(smooth_field(coarse.shape, 0.8)[0].float(), coarse)
    start = Affine(_shift(0.4)) @ velocity
    settings = small("greedy", "mse", levels=(1,), steps=(1,))
    result = register_pair(fixed, moving, settings, initial=start)
    expected = displacement_on(start, fixed.grid)[None]
    # one bounded step and one smoothing away from the start
    assert voxel_error(result.forward, expected, fixed.grid).max() < settings.deformable.solver.length + 0.2
    assert inner(expected).norm(dim=1).max() > 1.5


def _shift(size: float) -> list[list[float]]:
    return [[1, 0, size], [0, 1, -size], [0, 0, 1]]


def test_channels_are_used_together() -> None:
    """Two channels, each blind along one axis: only both find a shift along both."""
    generator = torch.Generator().manual_seed(3)
    waves = torch.randn(2, 60, generator=generator)
    smooth = torch.nn.functional.avg_pool1d(waves[None], 9, 1, 4)[0]
    both = torch.stack([smooth[0, :, None].expand(60, 60), smooth[1, None].expand(60, 60)])
    grid = regular((48, 48))
    fixed, moving = Image(both[:, 4:52, 4:52].clone(), grid), Image(both[:, 2:50, 5:53].clone(), grid)
    result = register_pair(fixed, moving, replace(small("displacement", "mse"), similarity=MSE()))
    found = inner(displacement_on(result.forward, grid)[None], 10)
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.tensor([2.0, -1.0]), atol=0.15, rtol=0)  # blurred waves
