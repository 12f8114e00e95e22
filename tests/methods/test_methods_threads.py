"""A registration gives the same bytes whatever the number of threads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from methods_pairs import small, warped_pair
from torch import Tensor

from oracles.threads import same_bytes
from warpwright.methods import SimilarityName, TransformName, register_pair
from warpwright.transforms import split

CASES: list[tuple[TransformName, SimilarityName]] = [
    ("greedy", "lncc"),
    ("greedy", "mi"),
    ("displacement", "mind"),
    ("velocity", "lncc"),
    ("bspline", "mse"),
    ("affine", "mi"),
]


@pytest.mark.parametrize(("transform", "similarity"), CASES)
def test_same_bytes(transform: TransformName, similarity: SimilarityName) -> None:
    pytest.importorskip("numba")  # plain torch cuts its sums and products into as many parts as there are threads
    fixed, moving, _ = warped_pair((40, 48, 44))
    settings = replace(small(transform, similarity=similarity, initialise="affine"), levels=(2, 1), steps=(4, 3))

    def compute() -> tuple[Tensor, ...]:
        found = register_pair(fixed, moving, settings)
        affine, field = split(found.forward, fixed.grid)
        _, back = split(found.backward, fixed.grid)
        return torch.from_numpy(affine.matrix.copy()), field.displacement, back.displacement

    assert same_bytes(compute)
