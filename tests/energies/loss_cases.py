"""Batches and predictions with everything that a loss may look at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from oracles.make import smooth_field
from warpwright.energies.losses import (
    AnyTerm,
    GradientInverseConsistency,
    Images,
    InverseConsistency,
    LandmarkDistance,
    Overlap,
    Smoothness,
    VelocityPrior,
)
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.regularity import Diffusion
from warpwright.energies.similarity import LNCC, MSE
from warpwright.networks import Displacement, Velocity, VelocityDistribution

SHAPE, SPACING = (9, 11, 8), (0.7, 1.3, 2.1)
TERMS: tuple[AnyTerm, ...] = (
    Images(similarity=MSE(), weight=0.5),
    Images(similarity=LNCC(), weight=2.0),
    Smoothness(on="velocity", regularity=Diffusion(weight=0.1), weight=3.0),
    Overlap(labels=(1, 2, 3), weight=0.7),
    LandmarkDistance(weight=0.05),
    InverseConsistency(weight=0.3),
    GradientInverseConsistency(weight=0.2),
    VelocityPrior(weight=0.01),
)


def batch_of(dim: int, *, channels: int = 2) -> PairBatch:
    """Two pairs with everything known about them."""
    generator = torch.Generator().manual_seed(4)
    shape = SHAPE[:dim]

    def random(count: int) -> Tensor:
        return torch.rand(2, count, *shape, generator=generator, dtype=torch.float64)

    def points() -> tuple[Tensor, ...]:
        size = torch.tensor(shape, dtype=torch.float64) - 1
        return tuple(torch.rand(n, dim, generator=generator, dtype=torch.float64) * size for n in (4, 3))

    return PairBatch(
        fixed=random(channels),
        moving=random(channels),
        spacing=SPACING[:dim],
        fixed_weight=random(1),
        moving_weight=random(1),
        fixed_labels=torch.randint(0, 4, (2, 1, *shape), generator=generator),
        moving_labels=torch.randint(0, 4, (2, 1, *shape), generator=generator),
        fixed_points=points(),
        moving_points=points(),
        names=("a", "b"),
    )


def field_of(dim: int, size: float = 0.8, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """(2, D, *S), different in the two samples."""
    return torch.cat([smooth_field(shape[:dim], size), -0.7 * smooth_field(shape[:dim], size).flip(2)])


def said(displacement: Tensor, **others: Any) -> Prediction:
    shape = tuple(displacement.shape[2:])
    return Prediction((Displacement(values=displacement, shape=shape, factors=(1,) * len(shape), **others),))


def full_prediction(dim: int) -> Prediction:
    """What a probabilistic network of velocities at half the resolution says, with a coarser level."""
    shape, factors = SHAPE[:dim], (2,) * dim
    known: dict[str, Any] = {"shape": shape, "factors": factors}
    half = tuple(-(-n // 2) for n in shape)
    velocity = field_of(dim, 0.5, half)
    coarse = Velocity(values=velocity / 3, **known)
    whole = Displacement(values=field_of(dim, 0.3), inverse=-field_of(dim, 0.2), shape=shape, factors=(1,) * dim)
    return Prediction(
        (
            VelocityDistribution(mean=velocity - 0.1, log_variance=velocity - 2, **known),
            Velocity(values=velocity, coarser=(coarse,), **known),
            replace(whole, values=whole.values[..., ::2], inverse=None, factors=factors),  # a layer that keeps no inverse
            replace(whole, coarser=(replace(whole, values=2 * whole.values),)),
        )
    )
