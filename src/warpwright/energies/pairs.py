"""What a loss looks at: a batch of prepared pairs, and what a model says about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from warpwright.networks import Displacement, Estimate, Velocity, VelocityDistribution

__all__ = ["PairBatch", "Prediction"]


@dataclass(frozen=True, eq=False, kw_only=True)
class PairBatch:
    """Pairs on one grid; the moving images are laid where the start puts them.

    Args:
        fixed: (B, C, *S), intensities in [0, 1].
        moving: (B, C, *S).
        spacing: mm of a voxel along each axis.
        fixed_weight: (B, 1, *S), weight of each fixed voxel, 0 outside the image; None for one everywhere.
        moving_weight: (B, 1, *S), the same for the moving image.
        fixed_labels: (B, 1, *S) whole numbers, or None.
        moving_labels: (B, 1, *S) whole numbers, or None.
        fixed_points: for each pair (N, D) voxels of the grid, or None.
        moving_points: for each pair (N, D) voxels of the grid in the same order, or None.
        names: what messages call each pair.
    """

    fixed: Tensor
    moving: Tensor
    spacing: tuple[float, ...]
    fixed_weight: Tensor | None = None
    moving_weight: Tensor | None = None
    fixed_labels: Tensor | None = None
    moving_labels: Tensor | None = None
    fixed_points: tuple[Tensor, ...] | None = None
    moving_points: tuple[Tensor, ...] | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.fixed)

    def swapped(self) -> PairBatch:
        """The same pairs, fixed for moving."""
        return replace(
            self,
            fixed=self.moving,
            moving=self.fixed,
            fixed_weight=self.moving_weight,
            moving_weight=self.fixed_weight,
            fixed_labels=self.moving_labels,
            moving_labels=self.fixed_labels,
            fixed_points=self.moving_points,
            moving_points=self.fixed_points,
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> PairBatch:
        """Everything on a device, with intensities, weights and points in a floating dtype."""

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device, dtype)

        def placed(points: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
            return None if points is None else tuple(p.to(device, dtype) for p in points)

        return replace(
            self,
            fixed=self.fixed.to(device, dtype),
            moving=self.moving.to(device, dtype),
            fixed_weight=moved(self.fixed_weight),
            moving_weight=moved(self.moving_weight),
            fixed_labels=None if self.fixed_labels is None else self.fixed_labels.to(device),
            moving_labels=None if self.moving_labels is None else self.moving_labels.to(device),
            fixed_points=placed(self.fixed_points),
            moving_points=placed(self.moving_points),
        )


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about a batch: every estimate from the network's to the displacement on the image's own lattice.

    Args:
        trail: the estimates in order; the last one is a `Displacement` of factors 1.
    """

    trail: tuple[Estimate, ...]

    @property
    def final(self) -> Displacement:
        """The last estimate."""
        return cast(Displacement, self.trail[-1])

    @property
    def displacement(self) -> Tensor:
        """(B, D, *S), voxels."""
        return self.final.values

    @property
    def inverse(self) -> Tensor | None:
        """(B, D, *S), voxels: the displacement of the inverse map, where the model gives it."""
        return self.final.inverse

    @property
    def velocities(self) -> tuple[Velocity, ...]:
        """The velocities that were integrated, one for every step of the model that has one."""
        return tuple(e for e, after in pairwise(self.trail) if isinstance(e, Velocity) and not isinstance(after, Velocity))

    @property
    def distributions(self) -> tuple[VelocityDistribution, ...]:
        """The distributions that velocities were drawn from, one for every step that has one."""
        return tuple(e for e in self.trail if isinstance(e, VelocityDistribution))

    @property
    def noise_errors(self) -> tuple[Tensor, ...]:
        """(B,) each: how far networks were from the noise they were to find, one for every step that looks for any."""
        found = [e.noise_error for e in self.trail if isinstance(e, Displacement) and e.noise_error is not None]
        return tuple({id(error): error for error in found}.values())  # later estimates of a step carry the same one on

    def reversed(self) -> Prediction | None:
        """The prediction for the swapped pairs, where the model gives the inverse; else None."""
        if self.final.inverse is None:
            return None
        return Prediction(tuple(back for estimate in self.trail for back in swapped(estimate)))


def swapped(estimate: Estimate) -> tuple[Estimate, ...]:
    """The estimate of the swapped pair, with its coarser levels; nothing where it does not follow from that of the pair."""
    coarser = tuple(back for level in estimate.coarser for back in swapped(level))
    if isinstance(estimate, Displacement) and estimate.inverse is not None:
        return (replace(estimate, values=estimate.inverse, inverse=estimate.values, coarser=coarser),)
    if isinstance(estimate, Velocity):
        return (replace(estimate, values=-estimate.values, coarser=coarser),)
    if isinstance(estimate, VelocityDistribution):
        return (replace(estimate, mean=-estimate.mean, coarser=coarser),)
    return ()
