"""The challenge's quirks against a second, literal reading of its definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from oracles.make import normal
from warpwright.errors import BadInput
from warpwright.evaluation import folding, hd95, learn2reg


def _literal_determinant(field: np.ndarray) -> np.ndarray:
    """Central differences with zeros outside, then two voxels cropped."""
    dim = len(field)
    matrix = np.zeros((*field.shape[1:], dim, dim))
    for component in range(dim):
        for axis in range(dim):
            slope = ndimage.correlate1d(field[component], [-0.5, 0, 0.5], axis=axis, mode="constant", cval=0.0)
            matrix[..., component, axis] = slope + (component == axis)
    return np.linalg.det(matrix)[(slice(2, -2),) * dim]


def test_sd_log_jacobian(shape: tuple[int, ...], generator: torch.Generator) -> None:
    big = tuple(n + 4 for n in shape)
    field = 1.5 * normal(generator, len(shape), *big)
    determinant = _literal_determinant(field.numpy())
    assert (determinant + 3 <= 0).any()
    values = np.log(np.clip(determinant + 3, 1e-9, 1e9))
    assert learn2reg.sd_log_jacobian(field) == pytest.approx(values.std(), abs=1e-10)
    mask = np.random.default_rng(1).integers(0, 2, big)
    inner = mask[(slice(2, -2),) * len(shape)] == 1
    assert learn2reg.sd_log_jacobian(field, mask) == pytest.approx(values[inner].std(), abs=1e-10)


def test_folds_are_never_counted(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = 3 * normal(generator, len(shape), *(n + 4 for n in shape))
    assert folding(field)["folded_percent"] > 10
    assert learn2reg.num_foldings(field) == 0


def test_too_small_for_the_crop() -> None:
    with pytest.raises(BadInput, match="5 voxels"):
        learn2reg.sd_log_jacobian(torch.zeros(2, 4, 9))


def test_tre_reads_the_field_with_cubic_splines(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    field = normal(generator, dim, *shape).numpy()
    fixed = np.random.default_rng(5).uniform(1, 3, (6, dim))
    moving = np.random.default_rng(6).uniform(1, 3, (6, dim))
    spacing = (0.7, 1.3, 2.1)[:dim]
    expected = []
    for f, m in zip(fixed, moving, strict=True):
        moved = [x + ndimage.map_coordinates(field[d], f[:, None], order=3)[0] for d, x in enumerate(f)]
        expected.append(math.dist([x * s for x, s in zip(moved, spacing, strict=True)], m * np.array(spacing)))
    got = learn2reg.target_registration_error(fixed, moving, field, spacing)
    np.testing.assert_allclose(got, expected, atol=1e-12)
    linear = [[ndimage.map_coordinates(field[d], f[:, None], order=1)[0] for d in range(dim)] for f in fixed]
    assert np.abs(np.linalg.norm((fixed + linear - moving) * spacing, axis=1) - got).max() > 1e-2


def test_labels_are_read_at_the_nearest_voxel_and_zero_outside(shape: tuple[int, ...]) -> None:
    labels = np.random.default_rng(2).integers(1, 4, shape)
    field = np.zeros((len(shape), *shape))
    field[0] = 1.4
    moved = learn2reg.warp_labels(labels, field)
    np.testing.assert_array_equal(moved[:-2], labels[1:-1])
    assert not moved[-1].any()


def test_absent_and_vanished_labels(shape: tuple[int, ...]) -> None:
    fixed, moving, moved = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    fixed[0], moving[0], moved[0] = 1, 1, 1  # there all along
    fixed[1, 0], moving[1, 0] = 2, 2  # lost by warping
    moving[1, 1] = 3  # not in the fixed image
    mean, scores = learn2reg.dice(fixed, moving, moved, (1, 2, 3))
    assert scores[:2] == [1.0, 0.0]
    assert math.isnan(scores[2])
    assert mean == 0.5
    mean, distances = learn2reg.hd95(fixed, moving, moved, (1, 2, 3))
    assert distances[:2] == [0.0, math.inf]
    assert math.isnan(distances[2])
    assert mean == math.inf


def test_hd95_is_in_voxels_whatever_the_spacing(dim: int) -> None:
    fixed = np.zeros((9, 11, 10)[:dim], int)
    fixed[(slice(2, 6),) * dim] = 4
    moved = np.roll(fixed, 2, -1)
    mean, values = learn2reg.hd95(fixed, fixed, moved, [4])
    assert mean == values[0] == hd95(fixed, moved, (1.0,) * dim) == 2.0


def test_thirty() -> None:
    cases = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1]
    assert learn2reg.thirty(cases, "dice") == learn2reg.thirty(cases, "hd95") == pytest.approx(0.4)
    assert learn2reg.thirty(cases, "tre") == learn2reg.thirty(cases, "sdlogj") == pytest.approx(0.8)
    assert math.isnan(learn2reg.thirty([0.5, math.nan], "dice"))
