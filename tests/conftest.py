"""What every core test starts from: both dimensions, distinct axis lengths, anisotropic spacing, a seeded generator."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)  # each worker of pytest -n has one core


@pytest.fixture(params=(2, 3), ids=("2d", "3d"))
def dim(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def shape(dim: int) -> tuple[int, ...]:
    return (5, 7, 6)[:dim]


@pytest.fixture
def spacing(dim: int) -> tuple[float, ...]:
    return (0.7, 1.3, 2.1)[:dim]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20)
