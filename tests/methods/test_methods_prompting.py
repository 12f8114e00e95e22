"""What a person marks pulls: labels overlap, landmarks meet, in any frame; what is no prompt is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from methods_pairs import regular, texture

from warpwright.energies.similarity import LNCC, MIND, MSE, MutualInformation
from warpwright.errors import BadInput
from warpwright.evaluation import dice
from warpwright.geometry import Grid, Image
from warpwright.methods import Prompting, preset, register_pair
from warpwright.methods.levels import Lattice, Level, Pair
from warpwright.methods.objective import FieldObjective
from warpwright.transforms import Affine, resample


def ball(grid: Grid, centre: np.ndarray, radius: float, value: int = 1) -> Image:
    voxels = torch.from_numpy(np.indices(grid.shape).reshape(grid.dim, -1).T.astype(np.float64))
    inside = (grid.to_world(voxels) - torch.from_numpy(centre)).norm(dim=1) < radius
    return Image((value * inside.reshape(1, *grid.shape)).int(), grid, "ball")


def test_labels_pull_where_images_say_nothing(dim: int) -> None:
    """The images are one and the same, so that without prompts nothing moves."""
    grid = regular((40, 36, 24)[:dim])
    image = Image(texture(grid.shape, sigma=3.0), grid, "image")
    shift = np.array((2.0, -1.5, 1.0)[:dim])
    labels = ball(grid, grid.centre, 6.0), ball(grid, grid.centre + shift, 6.0)
    settings = replace(preset("fast", grid.spacing, initialise="none"), levels=(2, 1), steps=(30, 30))
    still, pulled = (
        register_pair(image, image, settings, prompts=prompts) for prompts in (None, Prompting(labels=labels, weight=20.0))
    )
    before, after = (
        dice(labels[0].data, resample(labels[1], found.forward, grid, interpolation="label").data, (1,))[1]
        for found in (still, pulled)
    )
    assert before < 0.85
    assert after > before + 0.08


def test_prompts_pull_whatever_the_similarity(dim: int) -> None:
    """The energy of mutual information is negative, that of the others is not; the weight must be positive for all."""
    grid = regular((20, 18, 16)[:dim])
    images = [texture(grid.shape, seed=s)[None] for s in (1, 2)]
    level = Level(Pair(*images, None, None, grid, grid), Lattice((1,) * dim))
    for similarity in (LNCC(radius=2), MSE(), MutualInformation(), MIND()):
        assert float(FieldObjective(level, np.eye(dim + 1), similarity).unlike()) > 1e-3


def test_a_landmarks_distance_is_that_in_the_world(dim: int) -> None:
    """The moving grid has its axes in another order and thick slices; the same millimetre costs the same along any of them."""
    grid = Grid.regular((20, 18, 16)[:dim])
    turned = np.roll(np.diag((1.0, 2.0, 5.0)[:dim]), 1, axis=0)
    affine = np.eye(dim + 1)
    affine[:dim, :dim] = turned
    moving = Grid((9, 8, 7)[:dim], affine)
    level = Level(
        Pair(torch.rand(1, 1, *grid.shape), torch.rand(1, 1, *moving.shape), None, None, grid, moving), Lattice((1,) * dim)
    )
    place = torch.full((1, dim), 4.0, dtype=torch.float64)
    costs = []
    for axis in range(dim):
        off = place.clone()
        off[0, axis] += 0.8
        (term,) = Prompting(points=(place, off)).at(level, Affine.identity(dim), np.eye(dim + 1))
        costs.append(float(term.regularity(torch.zeros(1, dim, *grid.shape), grid.spacing)))
    assert costs == pytest.approx([costs[0]] * dim, rel=1e-4)


def test_landmarks_meet(dim: int) -> None:
    grid = regular((40, 36, 24)[:dim])
    image = Image(texture(grid.shape, sigma=3.0), grid, "image")
    places = torch.from_numpy(grid.centre + np.array(((-6.0, 2.0, 1.0), (5.0, -4.0, -2.0)))[:, :dim])
    ends = places + torch.tensor(((1.5, 1.0, -1.0), (-1.0, 1.5, 1.0)), dtype=torch.float64)[:, :dim]
    settings = replace(preset("fast", grid.spacing, initialise="none"), levels=(2, 1), steps=(30, 30))
    found = register_pair(image, image, settings, prompts=Prompting(points=(places, ends), weight=10.0))
    left = (found.forward(places) - ends).norm(dim=1)
    assert left.max() < 0.6 * (places - ends).norm(dim=1).min()
    assert found.energy_after < 0.2


@pytest.mark.parametrize("turn", [0.0, 0.4])
def test_prompts_lie_where_the_level_does(dim: int, turn: float) -> None:
    """In a frame that is not the moving image's own, and on a turned grid, prompts that agree cost nothing."""
    grid = regular((20, 18, 16)[:dim])
    matrix = np.eye(dim + 1)
    matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix[:dim, dim] = (3.0, -2.0, 1.0)[:dim]
    frame = Affine(matrix)
    moving = Grid(grid.shape, matrix @ grid.affine)  # the same voxels of a patient who lies elsewhere
    labels = ball(grid, grid.centre, 4.0), Image(ball(grid, grid.centre, 4.0).data, moving, "moved")
    places = torch.from_numpy(grid.centre + np.array(((-2.0, 2.0, 1.0), (3.0, -2.0, -2.0)))[:, :dim])
    prompting = Prompting(labels=labels, points=(places, frame(places)))
    level = Level(Pair(*torch.rand(2, 1, 1, *grid.shape), None, None, grid, grid), Lattice((1,) * dim))
    own = Level(Pair(*torch.rand(2, 1, 1, *grid.shape), None, None, grid, moving), Lattice((1,) * dim))
    still = torch.zeros(1, dim, *grid.shape)
    for one, to, affine in ((level, frame, np.eye(dim + 1)), (own, Affine.identity(dim), matrix)):
        overlap, points = (term.regularity(still, grid.spacing) for term in prompting.at(one, to, affine))
        assert float(overlap) < 0.02
        assert float(points) < 1e-8


def test_a_landmark_costs_the_same_in_the_voxels_of_any_level(dim: int) -> None:
    """Per unit of volume: half the voxels along each axis, the same millimetres."""
    found = []
    for factor in (1, 2):
        grid = Grid.regular(tuple(n // factor for n in (32, 24, 16)[:dim]), (float(factor),) * dim)
        level = Level(Pair(*torch.rand(2, 1, 1, *grid.shape), None, None, grid, grid), Lattice((1,) * dim))
        places = torch.full((1, dim), 6.0, dtype=torch.float64)
        (term,) = Prompting(points=(places, places + 0.5 * factor)).at(level, Affine.identity(dim), np.eye(dim + 1))
        found.append(float(term.regularity(torch.zeros(1, dim, *grid.shape), grid.spacing)) * grid.size)
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize(
    ("fixed", "moving", "said"),
    [
        ((2, 2), (3, 2), "prompts have 2 fixed and 3 moving landmarks, expected as many, at least 1"),
        ((0, 3), (0, 3), "prompts have 0 fixed and 0 moving landmarks, expected as many, at least 1"),
        ((3, 2), (3, 3), "prompts have fixed landmarks of 2 axes and moving ones of 3, expected the same"),
        ((2,), (2,), "the fixed landmarks of a prompt have the shape (2,), expected (N, 2) or (N, 3)"),
        ((3, 3), (1, 3, 3), "the moving landmarks of a prompt have the shape (1, 3, 3), expected (N, 2) or (N, 3)"),
        ((3, 4), (3, 4), "the fixed landmarks of a prompt have the shape (3, 4), expected (N, 2) or (N, 3)"),
        ((), (), "the fixed landmarks of a prompt have the shape (), expected (N, 2) or (N, 3)"),
    ],
)
def test_points_that_are_no_landmarks_of_both_images_are_refused(
    fixed: tuple[int, ...], moving: tuple[int, ...], said: str
) -> None:
    with pytest.raises(BadInput, match=f"^{re.escape(said)}$"):
        Prompting(points=(torch.zeros(fixed), torch.zeros(moving)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_landmarks_that_are_not_finite_are_refused(dim: int, side: str, value: float) -> None:
    points = torch.zeros(2, 4, dim, dtype=torch.float64)
    points[int(side == "moving"), 2, 1] = value
    with pytest.raises(BadInput, match=f"^the {side} landmarks of a prompt hold NaN or inf, expected finite coordinates$"):
        Prompting(points=(points[0], points[1]))


def test_what_is_no_prompt_is_refused() -> None:
    grid = Grid.regular((8, 8))
    one, two = ball(grid, grid.centre, 3.0), ball(grid, grid.centre, 3.0, value=2)
    with pytest.raises(BadInput, match="needs labels or landmarks"):
        Prompting()
    for weight in (0.0, float("nan"), float("inf")):
        with pytest.raises(BadInput, match=f"the weight of a prompt must be above 0 and finite, got {weight}"):
            Prompting(labels=(one, one), weight=weight)
    with pytest.raises(BadInput, match="no label in common"):
        Prompting(labels=(one, two))
    image = Image(texture((8, 8)), grid, "image")
    with pytest.raises(BadInput, match="prompts are for a deformable transform"):
        register_pair(image, image, preset("fast", (1.0, 1.0), transform="affine"), prompts=Prompting(labels=(one, one)))
