"""Squares and cubes: the truth is exact, half of the pairs overlap, apart no small move changes the difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from warpwright.data.synthetic import SquareSettings, SyntheticPair, square_pair
from warpwright.errors import BadInput
from warpwright.sampling import warp, warp_labels

SMALL = SquareSettings(active=17, side=5)


def known(truth: Tensor | None) -> Tensor:
    assert truth is not None
    return truth


def canvas(dim: int) -> tuple[int, ...]:
    return (20, 27, 22)[:dim]


def pairs(dim: int, settings: SquareSettings, count: int, seed: int = 3) -> list[SyntheticPair]:
    rng = np.random.default_rng(seed)
    return [square_pair(canvas(dim), settings, rng) for _ in range(count)]


def overlaps(pair: SyntheticPair) -> bool:
    return bool(((known(pair.fixed_labels) == 1) & (known(pair.moving_labels) == 1)).any())


def test_the_truth_is_exact(dim: int) -> None:
    for pair in pairs(dim, SMALL, 20):
        assert pair.fixed.dtype == pair.moving.dtype == known(pair.displacement).dtype == torch.float32
        assert torch.equal(warp(pair.moving[None], known(pair.displacement)[None])[0], pair.fixed)
        assert torch.equal(
            warp_labels(known(pair.moving_labels)[None], known(pair.displacement)[None])[0], known(pair.fixed_labels)
        )
        assert torch.equal(pair.fixed, known(pair.fixed_labels).float())
        assert torch.equal(
            known(pair.displacement), known(pair.displacement)[(..., *(slice(1),) * dim)].expand_as(known(pair.displacement))
        )


def test_squares_lie_in_the_middle(dim: int) -> None:
    reached = torch.zeros(1, *canvas(dim), dtype=torch.bool)
    for pair in pairs(dim, SMALL, 300):
        for labels in (known(pair.fixed_labels), known(pair.moving_labels)):
            assert int(labels.sum()) == 5**dim
            reached |= labels == 1
    corner = [(n - 17) // 2 for n in canvas(dim)]
    active = torch.zeros_like(reached)
    active[(0, *(slice(k, k + 17) for k in corner))] = True
    assert not (reached & ~active).any()
    for axis in range(dim):  # both ends of the region are used
        others = [k + 1 for k in range(dim) if k != axis]
        used = reached.amax(others)[0].nonzero()[:, 0]
        assert (int(used.min()), int(used.max())) == (corner[axis], corner[axis] + 16)


def test_half_of_the_pairs_overlap(dim: int) -> None:
    """1000 draws of a chance of one half: three standard deviations are 0.047."""
    drawn = pairs(dim, SMALL, 1000)
    together = np.array([overlaps(pair) for pair in drawn])
    assert together.mean() == pytest.approx(0.5, abs=0.047)
    moves = np.array([known(pair.displacement).flatten(1)[:, 0].abs().max() for pair in drawn])
    assert moves[together].max() == 2  # half a side, in whole voxels
    assert moves[~together].min() == 6  # a side and a column of zeros
    assert moves[~together].max() == 12
    assert not any(overlaps(pair) for pair in pairs(dim, SquareSettings(active=17, side=5, overlap=0.0), 50))
    assert all(overlaps(pair) for pair in pairs(dim, SquareSettings(active=17, side=5, overlap=1.0), 50))


def test_only_overlapping_squares_feel_a_move(dim: int) -> None:
    for pair in pairs(dim, SMALL, 40):
        still = (pair.moving - pair.fixed).square().sum()
        felt = [
            (torch.roll(pair.moving, by, axis + 1) - pair.fixed).square().sum() != still
            for axis in range(dim)
            for by in (-1, 1)
        ]
        assert any(felt) == overlaps(pair)


def test_the_sizes_of_the_paper() -> None:
    pair = square_pair((256, 256), SquareSettings(), np.random.default_rng(0))
    assert int(known(pair.fixed_labels).sum()) == 32**2
    cube = square_pair((128, 128, 128), SquareSettings(active=64, side=20), np.random.default_rng(0))
    assert int(known(cube.moving_labels).sum()) == 20**3


def test_the_seed_decides(dim: int) -> None:
    first, second = pairs(dim, SMALL, 5), pairs(dim, SMALL, 5)
    assert all(
        torch.equal(known(a.displacement), known(b.displacement)) and torch.equal(a.fixed, b.fixed)
        for a, b in zip(first, second, strict=True)
    )
    assert any(not torch.equal(a.fixed, b.fixed) for a, b in zip(first, pairs(dim, SMALL, 5, seed=4), strict=True))


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"side": 0}, "the side of squares must be"),
        ({"overlap": 1.5}, r"the probability that squares overlap must be in \[0, 1\], got 1.5"),
        ({"overlap": float("nan")}, r"must be in \[0, 1\], got nan"),
        ({"active": 96}, "must be longer than three sides, got 96 and sides of 32"),
    ],
)
def test_bad_settings(bad: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        SquareSettings(**bad)


def test_a_small_canvas() -> None:
    with pytest.raises(BadInput, match=r"at least 17 voxels along each axis, got shape \(16, 30\)"):
        square_pair((16, 30), SMALL, np.random.default_rng(0))
