"""A start by matching: large displacements, what is linear in them, edges of the basis, bad settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from oracles.make import homogeneous
from warpwright.data.synthetic import VesselSettings, vessel_pair
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.layers import SmoothProper
from warpwright.methods import Matching, Settings, needed, preset, register_pair
from warpwright.methods.levels import Carried, Lattice, make_level, make_pair
from warpwright.methods.matching import Matched, fitted, matched
from warpwright.networks import Basis
from warpwright.sampling import gaussian

FAR = VesselSettings(translation=12.0, amplitude=2.0, smoothness=20.0, noise=0.01)
ALONE = Matching(reach=0.2, finest=1, measure="squares", layer=SmoothProper(iterations=8))


def pair(spacing: tuple[float, float] = (1.0, 1.0)) -> tuple[Image, Image, torch.Tensor, torch.Tensor]:
    """Two images of vessels, landmarks in the world."""
    drawn = vessel_pair((96, 80), FAR, np.random.default_rng(3))
    assert drawn.fixed_points is not None
    assert drawn.moving_points is not None
    grid = Grid((96, 80), homogeneous(np.diag(spacing), (5.0, -3.0)))
    points = (grid.to_world(p.double()) for p in (drawn.fixed_points, drawn.moving_points))
    return Image(drawn.fixed, grid, "fixed"), Image(drawn.moving, grid, "moving"), *points


def settings(matching: Matching, **others: object) -> Settings:
    return replace(preset("fast", (1.0,), initialise="matching"), start="none", matching=matching, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.7)])
def test_vessels_that_lie_far_apart_are_brought_together(spacing: tuple[float, float]) -> None:
    fixed, moving, here, there = pair(spacing)
    begin = float((here - there).norm(dim=1).mean()) / min(spacing)
    found = register_pair(fixed, moving, settings(ALONE, levels=(1,), steps=(1,)))
    error = float((found.forward(here) - there).norm(dim=1).mean()) / min(spacing)
    assert begin > 8
    assert error < 1.5
    assert found.stages[0].name == "matching"
    assert found.notes == ()


def test_a_linear_transform_takes_what_is_linear() -> None:
    fixed, moving, here, there = pair()
    found = register_pair(fixed, moving, settings(ALONE, deformable=None))
    error = float((found.forward(here) - there).norm(dim=1).mean())
    assert error < 2.5  # the field of the pair is no affine
    shift = np.median((there - here).numpy(), axis=0)
    middle = torch.tensor([[50.0, 40.0]], dtype=torch.float64)
    np.testing.assert_allclose((found.forward(middle) - middle)[0], shift, atol=3.0)


def test_a_rigid_transform_stays_rigid() -> None:
    """Although the images are stretched."""
    fixed, moving, *_ = pair()
    stretched = Image(moving.data, Grid(moving.grid.shape, moving.grid.affine @ np.diag([1.15, 1.0, 1.0])), "stretched")
    rigid = preset("fast", (1.0,), transform="rigid", initialise="matching")
    found = register_pair(fixed, stretched, replace(rigid, start="none", matching=ALONE))
    assert next(s for s in found.stages if s.name == "matching").message == "patches were matched"
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    first, *ends = found.forward(places).numpy()
    turn = np.stack([end - first for end in ends], 1)
    np.testing.assert_allclose(turn.T @ turn, np.eye(2), atol=1e-6)


def test_what_is_fitted_leaves_an_axis_of_one_voxel_alone(generator: torch.Generator) -> None:
    grid = Grid((9, 8, 1), homogeneous(np.eye(3), (1.0, 2.0, 50.0)))
    shift = torch.tensor([1.5, -0.5, 0.0]).reshape(1, 3, 1, 1, 1).expand(1, 3, *grid.shape)
    field, confidence = Carried(shift, Lattice((1, 1, 1))), torch.rand(1, 1, *grid.shape, generator=generator)
    for rigid in (True, False):
        matrix = fitted(Matched(carried=field, confidence=confidence, notes=()), grid, rigid=rigid)
        np.testing.assert_allclose(matrix, homogeneous(np.eye(3), (1.5, -0.5, 0.0)), atol=1e-6)


def test_a_basis_that_is_too_small_is_told() -> None:
    fixed, moving, *_ = pair()
    found = register_pair(fixed, moving, settings(replace(ALONE, reach=0.05), levels=(1,), steps=(1,)))
    (note,) = found.notes
    assert "matching looked as far as 5 %" in note
    assert "a larger reach may be needed" in note


def test_matching_that_does_not_help_is_undone() -> None:
    fixed, *_ = pair()
    same = Image(fixed.data, fixed.grid, "same")
    found = register_pair(fixed, same, settings(ALONE, levels=(1,), steps=(1,)))
    assert next(s for s in found.stages if s.name == "matching").message.startswith("undone")
    assert any(stage.name.startswith("affine") for stage in found.stages)
    places = torch.tensor([[20.0, 30.0]], dtype=torch.float64)
    torch.testing.assert_close(found.forward(places), places, atol=0.05, rtol=0)


def test_what_a_mask_hides_says_nothing() -> None:
    """Outside the masks the images move the other way."""
    fixed, moving, *_ = pair()
    hidden = torch.zeros(1, 96, 80)
    hidden[:, :, 40:] = 1
    confused = moving.data.clone()
    confused[:, :, :12] = moving.data[:, :, :12].flip(1)
    mask = Image(hidden, fixed.grid, "mask")
    one, two = (
        register_pair(
            fixed,
            Image(data, moving.grid, "moving"),
            settings(ALONE, levels=(1,), steps=(1,)),
            fixed_mask=mask,
            moving_mask=Image((torch.arange(80) >= 24).float().expand(1, 96, 80).contiguous(), fixed.grid, "mask"),
        )
        for data in (moving.data, confused)
    )
    places = torch.tensor([[50.0, 62.0]], dtype=torch.float64)
    torch.testing.assert_close(one.forward(places), two.forward(places), atol=0.3, rtol=0)


def textured(seed: int, *places: tuple[int, int], noise: float = 0.0, size: tuple[int, int] = (28, 20)) -> torch.Tensor:
    """(1, 128, 128) one texture at so many places, the first with noise."""
    generator = torch.Generator().manual_seed(seed)
    texture = gaussian(torch.rand(1, 1, 60, 60, generator=generator), (2.0, 2.0))[0]
    texture = (texture - texture.min()) / (texture.max() - texture.min())
    image = torch.zeros(1, 128, 128)
    for k, (row, column) in enumerate(places):
        shown = texture[:, : size[0], : size[1]]
        shown = shown if k else (shown + noise * torch.randn(size, generator=generator)).clamp(0, 1)
        image[:, row : row + size[0], column : column + size[1]] = shown
    return image


def shifts(here: torch.Tensor, there: torch.Tensor, reach: float, **masks: torch.Tensor) -> torch.Tensor:
    """(1, 2, *S) what matching alone finds, finest voxels, at twice their size."""
    grid = Grid.regular((128, 128))
    given = [Image(masks[side], grid) if side in masks else None for side in ("fixed", "moving")]
    pair = make_pair(Image(here, grid), Image(there, grid), *given, torch.device("cpu"))
    return 2 * matched(Matching(reach=reach), lambda factor: make_level(pair, factor), grid, np.eye(3)).carried.field


def box(rows: slice, columns: slice) -> torch.Tensor:
    mask = torch.zeros(1, 128, 128)
    mask[:, rows, columns] = 1
    return mask


def test_masks_that_do_not_meet_at_rest_are_matched() -> None:
    fixed, moving = (textured(0, (60, column), size=(12, 12)) for column in (60, 72))
    masks = {"fixed": box(slice(58, 74), slice(58, 74)), "moving": box(slice(58, 74), slice(74, 90))}
    for some in ({}, masks):
        found = shifts(fixed, moving, 0.15, **some)[0, :, 33, 33]
        torch.testing.assert_close(found, torch.tensor([0.0, 12.0]), atol=1.5, rtol=0)


def test_what_the_moving_mask_hides_is_not_matched() -> None:
    """The same texture, cleaner, lies on the other side, outside the mask."""
    fixed, moving = textured(0, (50, 55)), textured(0, (50, 60), (50, 37), noise=0.15)
    everything = shifts(fixed, moving, 0.18)[0, 1, 25:39, 29:36].mean()
    hidden = shifts(fixed, moving, 0.18, moving=box(slice(0, 128), slice(58, 128)))[0, 1, 25:39, 29:36].mean()
    assert float(everything) < -10
    assert abs(float(hidden) - 5) < 1.5


def test_the_coarsest_level_is_the_finest_that_fits() -> None:
    grid = Grid.regular((1000, 1000))
    assert Matching(finest=1).plan(grid)[0] == (4, Basis(reach=26, step=2))
    assert [k for k, _ in Matching(finest=1).plan(grid)] == [4, 2, 1]
    assert [k for k, _ in Matching(finest=2).plan(grid)] == [4, 2]
    small = Matching(entries=1 << 20)
    (factor, basis), *_ = small.plan(grid)
    assert factor > 4
    assert factor * basis.reach >= 100
    volume = Matching().plan(Grid.regular((256, 256, 256)))
    assert volume[0] == (8, Basis(reach=4, step=1))


def test_memory_of_matching_is_counted() -> None:
    grid = Grid.regular((256, 256, 256))
    asked = preset("fast", (1.0,), initialise="matching")
    assert needed(grid, grid, asked) >= 8 * 9**3 * 32**3
    assert needed(grid, grid, asked) >= needed(grid, grid, preset("fast", (1.0,)))


@pytest.mark.parametrize("wrong", [{"reach": 0.0}, {"reach": 1.5}, {"radius": 0}, {"entries": 0}, {"finest": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="matching needs a reach"):
        Matching(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("similarity", "measure"), [("lncc", "correlation"), ("mse", "squares"), ("mi", "mind"), ("mind", "mind")]
)
def test_the_measure_follows_the_similarity(similarity: str, measure: str) -> None:
    found = preset("balanced", (1.0,), similarity=similarity, initialise="matching")  # type: ignore[arg-type]
    assert found.matching is not None
    assert found.matching.measure == measure
    assert [stage.kind for stage in found.linear] == ["affine"]  # where matching does not help
    assert isinstance(found.matching.layer, SmoothProper)
