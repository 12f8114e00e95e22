"""Masks, intensities and levels: what is counted and what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from methods_pairs import SHAPE, SPACING_3D, inner, regular, small, texture, voxel_error, warped_pair
from scipy.ndimage import binary_dilation
from torch import Tensor

from oracles.make import oblique
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.methods import Linear, Settings, TransformName, register_pair
from warpwright.methods.levels import factors_for, level_factors, make_level, make_pair
from warpwright.sampling import warp
from warpwright.transforms import Affine, DisplacementField, displacement_on

CPU = torch.device("cpu")


def _disc(shape: tuple[int, ...], share: float = 0.3) -> Tensor:
    """(1, *shape) mask of the middle."""
    places = np.indices(shape) - (np.array(shape).reshape(-1, *(1,) * len(shape)) - 1) / 2
    inside = sum((p / (share * n)) ** 2 for p, n in zip(places, shape, strict=True)) < 1
    return torch.tensor(inside[None], dtype=torch.float32)


def _spoilt(image: Image, kept: Tensor, size: float) -> Image:
    """Large noise wherever `kept` is zero."""
    generator = torch.Generator().manual_seed(9)
    noise = size * torch.randn(image.data.shape, generator=generator)
    return Image(torch.where(kept > 0, image.data, noise), image.grid, image.name)


@pytest.mark.parametrize("family", ["greedy", "displacement", "velocity", "bspline"])
@pytest.mark.parametrize("similarity", ["mse", "lncc", "mi"])
def test_nothing_outside_the_fixed_mask_counts(family: TransformName, similarity: str) -> None:
    """On the full resolution exactly; the percentiles too are taken inside."""
    fixed, moving, _ = warped_pair(SHAPE)
    mask = Image(_disc(SHAPE), fixed.grid, "mask")
    settings = small(family, similarity, levels=(1,), steps=(15,))  # pyright: ignore
    spoilt = _spoilt(fixed, mask.data, 50.0)
    plain, other = (register_pair(f, moving, settings, fixed_mask=mask) for f in (fixed, spoilt))
    expected = displacement_on(plain.forward, fixed.grid)[None]
    far = {"mse": 1e-4, "mi": 1e-4, "lncc": 2e-2}[similarity]  # windows sum numbers of size 1 outside, then subtract them
    assert voxel_error(other.forward, expected, fixed.grid).max() < far
    assert other.energy_after == pytest.approx(plain.energy_after, rel=1e-3)
    assert inner(expected).norm(dim=1).max() > 0.5
    # without the mask the noise does matter
    assert voxel_error(register_pair(spoilt, moving, settings).forward, expected, fixed.grid).max() > 0.3


def test_coarse_levels_see_a_rim_around_the_mask() -> None:
    """Anti-aliasing reaches three standard deviations, 1.5 coarse voxels, beyond a voxel that counts."""
    fixed, moving, _ = warped_pair((64, 56))
    mask = Image(_disc((64, 56), 0.25), fixed.grid, "mask")
    rim = torch.tensor(binary_dilation(mask.data[0].numpy(), iterations=8)[None]).float()
    settings = small("greedy", "mse", levels=(2, 1), steps=(15, 15))
    assert len(level_factors(settings.levels, fixed.grid)) == 2
    plain, other = (register_pair(f, moving, settings, fixed_mask=mask) for f in (fixed, _spoilt(fixed, rim, 50.0)))
    assert voxel_error(other.forward, displacement_on(plain.forward, fixed.grid)[None], fixed.grid).max() < 1e-4


def test_nothing_outside_the_moving_mask_counts() -> None:
    fixed, moving, _ = warped_pair(SHAPE, 1.0)
    mask = Image(_disc(SHAPE), moving.grid, "mask")
    rim = torch.tensor(binary_dilation(mask.data[0].numpy(), np.ones((3, 3)))[None]).float()  # linear interpolation
    settings = small("greedy", "mse", levels=(1,), steps=(15,))
    plain, other = (register_pair(fixed, m, settings, moving_mask=mask) for m in (moving, _spoilt(moving, rim, 50.0)))
    difference = voxel_error(other.forward, displacement_on(plain.forward, fixed.grid)[None], fixed.grid)
    assert difference.max() < 1e-4


def test_a_mask_of_ones_is_no_mask() -> None:
    fixed, moving, _ = warped_pair(SHAPE)
    ones = Image(torch.ones(1, *SHAPE), fixed.grid, "ones")
    settings = small("greedy", "lncc", steps=(5, 5, 5))
    plain = register_pair(fixed, moving, settings)
    masked = register_pair(fixed, moving, settings, fixed_mask=ones, moving_mask=ones)
    difference = voxel_error(masked.forward, displacement_on(plain.forward, fixed.grid)[None], fixed.grid)
    assert difference.max() < 1e-3  # float32: a weighted mean and a mean


def test_linear_stages_obey_the_mask() -> None:
    """Two parts of the image moved in opposite directions: the mask chooses the one that is followed."""
    image = texture((64, 48), seed=8)[0]
    apart = torch.cat([image[:32].roll(2, 1), image[32:].roll(-2, 1)])
    grid = regular((64, 48))
    fixed, moving = Image(apart[None], grid), Image(image[None], grid)
    settings = replace(small("rigid", "mse"), start="none", linear=(Linear(kind="rigid", levels=(2, 1)),))
    for half, shift in ((slice(2, 30), -2.0), (slice(34, 62), 2.0)):
        mask = torch.zeros(1, 64, 48)
        mask[:, half, 4:44] = 1
        found = register_pair(fixed, moving, settings, fixed_mask=Image(mask, grid)).forward
        middle = grid.to_world(torch.tensor([[(half.start + half.stop) / 2, 24.0]], dtype=torch.float64))
        torch.testing.assert_close(found(middle) - middle, torch.tensor([[0.0, shift * 1.3]]).double(), atol=0.15, rtol=0)


def _with_a_wrong_place(shape: tuple[int, ...]) -> tuple[Image, Image, Tensor, Tensor, Image]:
    """A pair whose middle moved another way: both, the true displacement, what is near, a score of the voxels."""
    moving = texture(shape)[None]
    truth, wrong = (torch.tensor(shift).reshape(1, 2, 1, 1).expand(1, 2, *shape) for shift in ([1.2, -0.8], [-1.8, 2.2]))
    places = torch.tensor(np.indices(shape) - np.array(shape).reshape(-1, 1, 1) / 2, dtype=torch.float32)
    distance = places.norm(dim=0, keepdim=True)
    share, grid = torch.exp(-((distance / 5) ** 4)), regular(shape)
    fixed = warp(moving, truth.contiguous())[0] * (1 - share) + warp(moving, wrong.contiguous())[0] * share
    score = Image((1 - share).clamp_min(0.02), grid, "score")
    return Image(fixed, grid, "fixed"), Image(moving[0], grid, "moving"), truth, distance[None] < 8, score


@pytest.mark.parametrize(
    ("family", "similarity", "share"),
    [
        ("greedy", "mse", 0.6),
        ("greedy", "lncc", 0.9),
        ("greedy", "mi", 0.75),
        ("velocity", "mind", 0.7),
        ("affine", "mse", 0.3),
    ],
)
def test_a_soft_mask_spares_what_has_no_counterpart(family: TransformName, similarity: str, share: float) -> None:
    """A low weight brings the map nearer to the truth; one weight everywhere changes nothing, so weights are no thresholds."""
    fixed, moving, truth, near, score = _with_a_wrong_place(SHAPE)
    settings = small(family, similarity)  # pyright: ignore
    maps = [register_pair(fixed, moving, settings, fixed_mask=mask).forward for mask in (None, score)]
    fields = [displacement_on(found, fixed.grid)[None] for found in maps]
    plain, soft = ((field - truth).norm(dim=1, keepdim=True)[near].mean() for field in fields)
    assert soft < share * plain
    even = Image(torch.full((1, *SHAPE), 0.4), fixed.grid, "even")
    few = replace(settings, steps=(3, 3, 3))  # so that float32 has no time to part the ways
    maps = [register_pair(fixed, moving, few, fixed_mask=mask).forward for mask in (None, even)]
    plain, same = (displacement_on(found, fixed.grid) for found in maps)
    assert plain.abs().max() > 0.1
    torch.testing.assert_close(same, plain, rtol=0, atol=2e-3)


def test_a_level_keeps_the_world(dim: int) -> None:
    """The matrix between the voxels of a level is the world's, whatever the factors."""
    spacing = (0.7, 1.3, 2.1)[:dim]
    grid, other = Grid((48, 40, 24)[:dim], oblique(spacing)), Grid((30, 26, 28)[:dim], np.diag([*([1.5] * dim), 1.0]))
    pair = make_pair(Image(texture(grid.shape), grid), Image(texture(other.shape), other), None, None, CPU)
    world = oblique((1.0,) * dim, 0.1)
    for factor in (1, 2, 4):
        level = make_level(pair, factor)
        assert level.lattice.factors == factors_for(grid, factor * 0.7)
        assert level.pair.fixed.shape[2:] == level.grid.shape
        voxel = torch.tensor([[3.0, 1.0, 2.0][:dim]], dtype=torch.float64)
        expected = level.pair.moving_grid.to_voxel(Affine(world)(level.grid.to_world(voxel)))
        matrix = torch.tensor(level.matrix(world))
        torch.testing.assert_close(voxel @ matrix[:-1, :-1].T + matrix[:-1, -1], expected, atol=1e-9, rtol=0)
    assert factors_for(grid, 2.8) == (4, 2, 1)[:dim]  # the coarse axes wait for the fine ones


def test_levels_without_use_are_left_out() -> None:
    assert level_factors((8, 4, 2, 1), Grid.regular((256, 256))) == [8, 4, 2, 1]
    assert level_factors((8, 4, 2, 1), Grid.regular((48, 40))) == [2, 1]  # 12 x 10 voxels show nothing
    assert level_factors((4, 2), Grid.regular((9, 9))) == [2]  # the finest asked for stays
    thick = Grid.regular((64, 64, 9), (1.0, 1.0, 8.0))
    assert factors_for(thick, 4.0) == (4, 4, 1)


def _image(shape: tuple[int, ...], channels: int = 1, name: str = "image") -> Image:
    return Image(texture(shape, channels=channels), Grid.regular(shape), name)


def test_bad_input_is_refused_in_one_sentence() -> None:
    flat, deep = _image((20, 24), name="flat"), _image((12, 14, 10), name="deep")
    two = _image((20, 24), 2, "two")
    settings = small("greedy")
    with pytest.raises(BadInput, match="deep has 3 axes, flat has 2: expected the same"):
        register_pair(flat, deep, settings)
    with pytest.raises(BadInput, match="two has 2 channels, flat has 1: expected the same"):
        register_pair(flat, two, settings)
    elsewhere = Image(torch.ones(1, 20, 24), Grid((20, 24), np.diag([1.0, 1.1, 1.0])), "mask")
    with pytest.raises(BadInput, match="mask is not on the grid of its image flat"):
        register_pair(flat, flat, settings, fixed_mask=elsewhere)
    with pytest.raises(BadInput, match="mask is not on the grid of its image flat"):
        register_pair(flat, flat, settings, moving_mask=elsewhere)
    with pytest.raises(BadInput, match="initial transform has 3 axes, flat has 2"):
        register_pair(flat, flat, settings, initial=Affine.identity(3))
    field = DisplacementField(torch.full((2, 20, 24), 0.5), flat.grid)
    with pytest.raises(BadInput, match="holds a displacement field needs a deformable transform"):
        register_pair(flat, flat, small("rigid"), initial=field)


@pytest.mark.parametrize(
    ("levels", "steps", "message"),
    [
        ((4, 2, 1), (10, 10), "3 levels need as many steps, got 2"),
        ((2, 0), (10, 10), "must be at least 1"),
        ((2, 1), (10, 0), "must be at least 1"),
    ],
)
def test_bad_schedules_are_refused(levels: tuple[int, ...], steps: tuple[int, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replace(small("greedy"), levels=levels, steps=steps)


def test_settings_are_values() -> None:
    assert small("greedy", "lncc", spacing=SPACING_3D) == small("greedy", "lncc", spacing=SPACING_3D)
    assert small("greedy", "lncc", spacing=SPACING_3D) != small("velocity", "lncc", spacing=SPACING_3D)
    assert isinstance(hash(small("bspline")), int)
    assert isinstance(small("affine"), Settings)
    assert small("affine").deformable is None
