"""Displacements that distributions are read as without message passing: what `SmoothProper` is compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

from warpwright.errors import BadInput
from warpwright.layers.base import FieldLayer, LayerSettings
from warpwright.layers.simplex import confidence, expectation
from warpwright.networks import BasisLogits, Displacement, Estimate
from warpwright.sampling import gaussian

__all__ = ["Expected", "WeightedGaussian"]


@dataclass(frozen=True, kw_only=True)
class Expected(LayerSettings):
    """`BasisLogits` to the `Displacement` that is the mean of each distribution, voxel by voxel."""

    def build(self, dim: int) -> FieldLayer:
        return Expecting()


class Expecting(FieldLayer):
    """As `Expected` says."""

    name: ClassVar[str] = "expected"
    accepts: ClassVar[tuple[type[Estimate], ...]] = (BasisLogits,)

    def apply_to(self, estimate: Estimate) -> Estimate:
        given = cast(BasisLogits, estimate)
        values = expectation(given.values.softmax(1), given.vectors.to(given.values))
        return Displacement(values=values, shape=given.shape, factors=given.factors)


@dataclass(frozen=True, kw_only=True)
class WeightedGaussian(LayerSettings):
    """`BasisLogits` to a Gaussian average of their means, in which a voxel counts with its largest probability squared.

    Args:
        sigma: of the Gaussian, voxels of the lattice.

    Raises:
        BadInput: sigma is not positive and finite.
    """

    sigma: float = 6.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise BadInput(f"a weighted Gaussian needs a finite sigma > 0, got {self.sigma}")

    def build(self, dim: int) -> FieldLayer:
        return Weighting(self)


class Weighting(FieldLayer):
    """As `WeightedGaussian` says."""

    name: ClassVar[str] = "weightedgaussian"
    accepts: ClassVar[tuple[type[Estimate], ...]] = (BasisLogits,)

    def __init__(self, settings: WeightedGaussian) -> None:
        super().__init__()
        self.settings = settings

    def apply_to(self, estimate: Estimate) -> Estimate:
        given = cast(BasisLogits, estimate)
        probability = given.values.softmax(1)
        known = confidence(probability)
        sigma = [self.settings.sigma] * len(given.shape)
        total = gaussian(known, sigma)
        means = expectation(probability, given.vectors.to(probability))
        return Displacement(values=gaussian(known * means, sigma) / total, shape=given.shape, factors=given.factors)
