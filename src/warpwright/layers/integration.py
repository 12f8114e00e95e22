"""From velocities to displacements: a draw from a distribution, and the exponential.

Reference: Dalca et al., MICCAI 2018, arXiv 1805.04605 (the distribution and its integration at half the resolution). Unlike
the code that came with it, a velocity is divided by 2^steps before it is squared, and vectors change their length with the
lattice they live on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch

from warpwright.errors import BadInput
from warpwright.layers.base import FieldLayer, LayerSettings
from warpwright.networks import Displacement, Estimate, Velocity, VelocityDistribution
from warpwright.sampling import resize_displacement
from warpwright.transforms import exp

__all__ = ["DrawVelocity", "Integrate"]


@dataclass(frozen=True, kw_only=True)
class DrawVelocity(LayerSettings):
    """`VelocityDistribution` to `Velocity`: a sample of it while training, its mean otherwise."""

    def build(self, dim: int) -> FieldLayer:
        return Drawing()


class Drawing(FieldLayer):
    """As `DrawVelocity` says; noise from torch's generator."""

    name: ClassVar[str] = "drawvelocity"
    accepts: ClassVar[tuple[type[Estimate], ...]] = (VelocityDistribution,)

    def apply_to(self, estimate: Estimate) -> Estimate:
        drawn = cast(VelocityDistribution, estimate)
        values = drawn.mean
        if self.training:
            values = values + (drawn.log_variance / 2).exp() * torch.randn_like(values)
        return Velocity(values=values, shape=drawn.shape, factors=drawn.factors)


@dataclass(frozen=True, kw_only=True)
class Integrate(LayerSettings):
    """`Velocity` to `Displacement` by scaling and squaring; keeps the inverse, the exponential of the negated velocity.

    Args:
        steps: squarings.
        downsize: integrate on a lattice so many times coarser than the velocity's.
        inverse: whether to make the inverse, which costs as much again.

    Raises:
        BadInput: steps or downsize are out of range.
    """

    steps: int = 7
    downsize: int = 1
    inverse: bool = True

    def __post_init__(self) -> None:
        if self.steps < 0 or self.downsize < 1:
            raise BadInput(f"integration needs steps >= 0 and downsize >= 1, got {self.steps} and {self.downsize}")

    def build(self, dim: int) -> FieldLayer:
        return Integration(self)


class Integration(FieldLayer):
    """As `Integrate` says."""

    name: ClassVar[str] = "integrate"
    accepts: ClassVar[tuple[type[Estimate], ...]] = (Velocity,)

    def __init__(self, settings: Integrate) -> None:
        super().__init__()
        self.settings = settings

    def apply_to(self, estimate: Estimate) -> Estimate:
        velocity = cast(Velocity, estimate)
        values, factors = velocity.values, velocity.factors
        if self.settings.downsize > 1:
            coarse = tuple(k * self.settings.downsize for k in factors)
            shape = tuple(-(-n // k) for n, k in zip(velocity.shape, coarse, strict=True))
            values, factors = resize_displacement(values, factors, shape, coarse), coarse
        steps = self.settings.steps
        inverse = exp(-values, steps) if self.settings.inverse else None
        return Displacement(values=exp(values, steps), inverse=inverse, shape=velocity.shape, factors=factors)
