"""Dice and Jaccard against sets of voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from warpwright.errors import BadInput
from warpwright.evaluation import dice, jaccard, mean_over_labels, vanished_labels


def _sets(labels: np.ndarray, label: int) -> set[tuple[int, ...]]:
    return {index for index in np.ndindex(labels.shape) if labels[index] == label}


def test_against_sets(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    fixed, moved = rng.integers(0, 5, shape), rng.integers(0, 5, shape)
    d, j = dice(fixed, moved), jaccard(torch.from_numpy(fixed), torch.from_numpy(moved))
    assert list(d) == list(j) == [1, 2, 3, 4]
    for label in d:
        f, m = _sets(fixed, label), _sets(moved, label)
        assert d[label] == pytest.approx(2 * len(f & m) / (len(f) + len(m)), abs=1e-15)
        assert j[label] == pytest.approx(len(f & m) / len(f | m), abs=1e-15)


def test_absent_labels(shape: tuple[int, ...]) -> None:
    fixed, moved = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    fixed[0], moved[1] = 7, 9
    assert dice(fixed, moved) == {7: 0.0, 9: 0.0}
    asked = jaccard(fixed, moved, labels=(7, 200))
    assert asked[7] == 0.0
    assert math.isnan(asked[200])


def test_background_only_is_empty(shape: tuple[int, ...]) -> None:
    nothing = torch.zeros(shape)
    assert dice(nothing, nothing) == {}
    assert math.isnan(mean_over_labels(dice(nothing, nothing)))


def test_identical_maps_score_one(shape: tuple[int, ...], generator: torch.Generator) -> None:
    labels = torch.randint(0, 3, shape, generator=generator)
    assert dice(labels, labels.float()) == {1: 1.0, 2: 1.0}


def test_mean_leaves_out_undefined() -> None:
    assert mean_over_labels({1: 0.5, 2: float("nan"), 3: 1.0}) == 0.75
    assert math.isnan(mean_over_labels({4: float("nan")}))


def test_vanished_labels() -> None:
    before = torch.tensor([[0, 1, 2], [5, 5, 2]])
    assert vanished_labels(before, torch.tensor([2, 7])) == (1, 5)
    assert vanished_labels(before, before) == ()
    assert vanished_labels(torch.tensor([0]), torch.tensor([1])) == ()


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="same shape"):
        dice(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(BadInput, match="whole numbers"):
        dice(np.full((2, 3), 0.5), np.zeros((2, 3)))
