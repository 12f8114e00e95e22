"""Counts of labels against sets and against their twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles.threads import same_bytes
from warpwright.evaluation import dice, jaccard, vanished_labels
from warpwright.kernels import plainly


def _oracle(fixed: np.ndarray, moved: np.ndarray) -> dict[int, float]:
    out = {}
    for label in sorted({int(k) for k in (*np.unique(fixed), *np.unique(moved))} - {0}):
        f, m = fixed == label, moved == label
        out[label] = 2 * int((f & m).sum()) / int(f.sum() + m.sum())
    return out


@pytest.mark.parametrize("labels", [(0, 1), (0, 40), (0, 300), (-3, 5), (65530, 65545), (2**40, 2**40 + 5)])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 6), (1, 9), (40, 33, 37)])
def test_against_masks_and_the_twin(shape: tuple[int, ...], labels: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    fixed = rng.integers(*labels, shape)
    moved = np.where(rng.random(shape) < 0.7, fixed, rng.integers(*labels, shape))  # runs of like pairs, and others
    expected = _oracle(fixed, moved)
    assert dice(fixed, moved) == expected
    with plainly():
        assert dice(fixed, moved) == expected
        plain = jaccard(fixed, moved, (1, 2, 70000))
    np.testing.assert_equal(jaccard(fixed, moved, (1, 2, 70000)), plain)


@pytest.mark.parametrize("kinds", [("uint8", "int64"), ("uint64", "uint16"), ("float32", "int16"), ("bool", "bool")])
def test_every_kind_of_number(kinds: tuple[str, str]) -> None:
    rng = np.random.default_rng(6)
    fixed, moved = rng.integers(0, 2, (6, 5)), rng.integers(0, 2, (6, 5))
    expected = _oracle(fixed, moved)
    for context in (plainly(), torch.no_grad()):
        with context:
            assert dice(fixed.astype(kinds[0]), moved.astype(kinds[1])) == expected
            assert vanished_labels(fixed.astype(kinds[0]), np.zeros(3, kinds[1])) == (1,)


def test_maps_that_are_views_or_empty() -> None:
    labels = np.arange(60).reshape(6, 10)
    assert dice(labels.T, labels.T[:, ::1]) == _oracle(labels, labels)
    assert dice(labels[::2, ::3], labels[1::2, ::3]) == _oracle(labels[::2, ::3], labels[1::2, ::3])
    assert dice(np.zeros((0, 4), int), np.zeros((0, 4), int)) == {}


def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(7)
    fixed, moved = rng.integers(0, 30, (2, 40, 33, 37))
    assert same_bytes(lambda: [torch.tensor(list(dice(fixed, moved).values()))])
