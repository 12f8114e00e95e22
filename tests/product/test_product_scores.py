from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from warpwright.geometry import Grid, Image
from warpwright.io import Points
from warpwright.product.scores import common_labels, determinant, energy_text, inverse_text, judge, score
from warpwright.transforms import Affine, DisplacementField


def linear_field(grid: Grid, matrix: np.ndarray) -> DisplacementField:
    """The field of the voxel map `matrix`."""
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid.shape), indexing="ij")
    points = torch.stack(axes)
    return DisplacementField(torch.einsum("ij,j...->i...", torch.tensor(matrix).float(), points) - points, grid)


def test_determinant_is_of_affine_and_field_together(dim, shape, spacing):
    grid = Grid(shape, np.diag([*(-s for s in spacing[:1]), *spacing[1:], 1.0]))
    matrix, world = np.eye(dim), np.eye(dim + 1)
    matrix[0, 0], matrix[0, 1] = 1.5, 0.3
    world[0, 0], world[1, -1] = 0.8, 4.0
    image = determinant(Affine(world) @ linear_field(grid, matrix), grid)
    assert torch.allclose(image.data, torch.tensor(1.5 * 0.8), atol=1e-5)  # float32
    assert image.grid is grid


def scores_of(forward, grid, energies=(1.0, 0.5), overlap=1.0, inverse=None, **more):
    jacobian = determinant(forward, grid)
    back = forward.inverse() if inverse is None else inverse
    return score(forward, back, jacobian, energies=energies, overlap=overlap, inverse_residual=0.0, **more)


def test_folds_are_counted_and_told(dim, shape, spacing):
    grid = Grid.regular(shape, spacing)
    matrix = np.eye(dim)
    matrix[0, 0] = -1
    scores = scores_of(linear_field(grid, matrix), grid)
    assert scores.folded_percent == 100
    verdict = judge(scores, 1.0)
    assert verdict.folds
    assert verdict.improved
    assert "folds" in verdict.sentences[0]


def test_no_improvement_is_told(dim, shape):
    grid = Grid.regular(shape)
    verdict = judge(scores_of(Affine.identity(dim), grid, energies=(0.5, 0.5)), 1.0)
    assert not verdict.improved
    assert not verdict.folds
    assert "did not improve" in verdict.sentences[0]
    assert judge(scores_of(Affine.identity(dim), grid), 1.0).sentences == ()


@pytest.mark.parametrize("after", [0.5, 0.5 - 1e-8, math.nan, math.inf])
def test_hardly_less_is_no_improvement(after):
    verdict = judge(scores_of(Affine.identity(2), Grid.regular((5, 7)), energies=(0.5, after)), 1.0)
    assert not verdict.improved
    assert "did not improve" in verdict.sentences[0]


def test_equal_images_need_no_warning(dim, shape):
    verdict = judge(scores_of(Affine.identity(dim), Grid.regular(shape), energies=(2e-8, 3e-7)), 1.0)
    assert verdict.sentences == ()
    assert "nothing to improve" in verdict.notes[0]
    assert not verdict.improved


@pytest.mark.parametrize(("overlap", "words"), [(0.0, "share no voxel under the result"), (0.004, "(0.4 % of")])
def test_images_driven_apart_are_no_success(overlap, words):
    verdict = judge(scores_of(Affine.identity(2), Grid.regular((5, 7)), energies=(0.9, 0.0), overlap=overlap), 1.0)
    assert not verdict.improved
    assert words in verdict.sentences[0]


def test_images_that_did_not_meet_before_can_improve():
    found = scores_of(Affine.identity(2), Grid.regular((5, 7)), energies=(math.inf, 0.5))
    assert judge(found, 1.0).improved
    assert judge(found, 1.0).sentences == ()
    assert energy_text(found.energy_before) == "no overlap"


def test_an_inexact_inverse_is_judged_in_mm(dim, shape):
    shift = np.eye(dim + 1)
    shift[0, -1] = 0.6
    found = scores_of(Affine(shift), Grid.regular(shape), inverse=Affine.identity(dim))
    assert found.inverse_consistency["max"] == pytest.approx(0.6)
    assert inverse_text({"p95": 1e-9, "max": 2e-9}) == "off by less than 0.001 mm"
    assert "not measured" in inverse_text({"p95": math.nan, "max": math.nan})
    assert judge(found, 1.3).sentences == ()
    assert judge(found, 1.1).sentences == ("the inverse is inexact: off by 0.6 mm (95th percentile), at most 0.6 mm",)


def test_labels_and_landmarks_before_and_after(dim, shape):
    grid = Grid.regular(shape)
    labels = torch.zeros(1, *shape, dtype=torch.int16)
    labels[:, 1:3, 2:4] = 1
    moved = torch.zeros_like(labels)
    moved[:, 1:3, 3:5] = 1  # half of it overlaps
    moving = labels.clone()
    moving[:, 0, 0] = 7  # not in fixed: not scored, and it vanishes
    fixed_image, moving_image, moved_image = (Image(x, grid) for x in (labels, moving, moved))
    shift = np.eye(dim + 1)
    shift[0, -1] = 2.0
    points = torch.ones(3, dim, dtype=torch.float64)
    names = ("a", "b", "c")
    scores = scores_of(
        Affine(shift),
        grid,
        labels=(fixed_image, moving_image, moving_image, moved_image),
        points=(Points(points, names), Points(points, names), Affine.identity(dim)),
    )
    assert scores.dice_before == {1: 1.0}
    assert scores.dice_after == {1: 0.5}
    assert scores.vanished_labels == (7,)
    assert scores.tre_before["mean"] == 0
    assert scores.tre_after["mean"] == pytest.approx(2)
    verdict = judge(scores, 1.0)
    assert not verdict.improved
    assert len(verdict.sentences) == 3
    assert common_labels(fixed_image, moving_image) == (1,)


def marked(dim, prompted):
    """Scores of a shift by 1 mm: three landmarks that were 0 mm apart, a fourth that was 4; rows of them that were prompted."""
    shift = np.eye(dim + 1)
    shift[0, -1] = 1.0
    fixed = torch.arange(4.0 * dim, dtype=torch.float64).reshape(4, dim)
    moving = fixed.clone()
    moving[3, 0] += 4
    rows = list(prompted)
    told = fixed[rows] + 0.04, moving[rows]  # a table holds few digits
    points = (Points(fixed, ("a", "a", "b", "c")), Points(moving, ("a", "a", "b", "c")), Affine.identity(dim))
    return scores_of(Affine(shift), Grid.regular((9, 9, 9)[:dim]), points=points, prompted_points=told if rows else None)


def test_prompted_landmarks_are_left_out_of_the_error_and_the_verdict(dim):
    plain, told = marked(dim, ()), marked(dim, (0, 2))
    assert plain.prompted_landmarks == ()
    assert plain.mean_tre == (plain.tre_before["mean"], plain.tre_after["mean"]) == (1.0, 1.5)
    assert (told.prompted_landmarks, told.tre_prompted) == ((0, 2), False)
    assert (told.tre_before["mean"], told.tre_after["mean"]) == told.mean_tre == (2.0, 2.0)
    assert judge(plain, 1.0).sentences == ("got worse: mean landmark error 1.00 mm before, 1.50 mm after",)
    assert judge(told, 1.0).sentences == ()


def test_landmarks_that_were_all_prompted_keep_their_error_and_judge_nothing(dim):
    plain, told = marked(dim, ()), marked(dim, range(4))
    assert (told.prompted_landmarks, told.tre_prompted) == ((0, 1, 2, 3), True)
    assert (told.tre_before, told.tre_after) == (plain.tre_before, plain.tre_after)
    assert all(math.isnan(mean) for mean in told.mean_tre)
    assert judge(told, 1.0).sentences == ()
    assert told.to_mapping()["tre_prompted"] is True


@pytest.mark.parametrize(("off", "same"), [(0.09, True), (0.2, False)])
def test_a_landmark_is_that_of_a_prompt_within_a_tenth_of_a_voxel(off, same):
    place, far = torch.tensor([[2.0, 3.0]]).double(), torch.tensor([[5.0, 5.0]]).double()
    points = (Points(place, ("a",)), Points(place, ("a",)), Affine.identity(2))
    for told in ((place + torch.tensor([off, 0.0]), far), (far, place - torch.tensor([0.0, off]))):  # by either end
        found = scores_of(Affine.identity(2), Grid.regular((8, 8)), points=points, prompted_points=told)
        assert found.tre_prompted is same
