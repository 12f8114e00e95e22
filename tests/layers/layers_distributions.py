"""Distributions over displacements for tests of layers, and message passing between them with plain numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from oracles.make import normal
from warpwright.layers import Smoothed, smooth_proper
from warpwright.networks import Basis, BasisLogits

BY_KIND = pytest.mark.parametrize("kind", ["split", "exact", "kl"])
BETA = 1.3


def evidence(generator: torch.Generator, shape: tuple[int, ...], basis: Basis, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Distributions, some narrow and some flat, and the displacements."""
    vectors = basis.vectors(len(shape)).double()
    sharpness = 1 + 3 * torch.rand(batch, 1, *shape, generator=generator, dtype=torch.float64)
    return (sharpness * normal(generator, batch, len(vectors), *shape)).softmax(1), vectors


def run(probability: Tensor, vectors: Tensor, alphas: list[float], beta: float = BETA, **how: Any) -> Smoothed:
    made = probability.new_tensor
    return smooth_proper(probability, vectors.to(probability), made(alphas), made(beta), **how)


def logits_of(probability: Tensor, basis: Basis) -> BasisLogits:
    dim = probability.ndim - 2
    shape = tuple(probability.shape[2:])
    vectors = basis.vectors(dim).to(probability)
    return BasisLogits(values=probability.log() + 3, vectors=vectors, basis=basis, shape=shape, factors=(1,) * dim)
