"""Weights that follow from residuals by a formula: of the regulariser (AdaReg), of the data (AdaFrame).

Reference: Wong et al., CVPR 2019, arXiv 1903.07309 (AdaReg); Wong and Soatto, ICRA 2021 (AdaFrame); as AdaCS (Zhang et al.,
ECCV 2024, arXiv 2312.00837) compares with them, with the constants of its code. For AdaReg the paper prints `exp(-c r / s)`;
its code, and ours, has the product of the local residual with the mean one. Unlike that code, each direction has its own
residuals, and means and deviations are over what both images cover.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.energies.losses import Images, Smoothness, Term, VelocityPrior
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.similarity import reduce
from warpwright.errors import BadInput
from warpwright.methods import Model, Solving
from warpwright.networks.affine_net import AffineNetwork
from warpwright.sampling import downsample
from warpwright.schemes.weighting import Weighting, WeightingSettings, check_factors, check_pointwise, residuals, terms_of

__all__ = ["AdaFrame", "AdaReg"]

TINY = 1e-7
OTHERS = {Solving: "solves for its map", AffineNetwork: "has a step that gives a linear map"}


@dataclass(frozen=True, kw_only=True)
class AdaReg(WeightingSettings):
    """The field is regularised less where residuals are large: the smoothness is that of `a u` with `a = exp(-c r mean(r))`.

    r is the absolute residual. Gradients flow through a.

    Args:
        contrast: c.

    Raises:
        BadInput: c is negative or not finite.
    """

    contrast: float = 50.0

    def __post_init__(self) -> None:
        check_factors(self, contrast=self.contrast)

    def build(self, model: Model, steps: int, precision: torch.dtype | None = None) -> Weighting:
        check_pointwise("adareg", model)
        if not terms_of(model, Smoothness):
            raise BadInput("the weighting adareg weighs the smoothness of a field, the loss has none: expected that term")
        for kind, what in OTHERS.items():
            if any(isinstance(part, kind) for part in model.modules()):
                raise BadInput(f"the weighting adareg scales a field that a network gives, this model {what}: expected another")
        if terms_of(model, VelocityPrior):
            raise BadInput("the weighting adareg and the term velocityprior are two ideas of smoothness: expected one of them")
        return Regularising(self, model)


class Regularising(Weighting):
    """As `AdaReg` says."""

    def __init__(self, settings: AdaReg, model: Model) -> None:
        self.settings = settings
        self.images = terms_of(model, Images)[0]

    def value(self, term: Term, batch: PairBatch, prediction: Prediction) -> Tensor:
        if not isinstance(term, Smoothness):
            return term.value(batch, prediction)
        rest, mean = _absolute(*residuals(self.images, batch, prediction))
        weight = (-self.settings.contrast * rest * mean).exp()
        if term.on == "displacement":
            return term.of(weight * prediction.displacement, batch.spacing)
        if not prediction.velocities:
            return term.value(batch, prediction)  # says what is missing
        total = weight.new_zeros(len(weight))
        for velocity in prediction.velocities:
            spacing = tuple(s * k for s, k in zip(batch.spacing, velocity.factors, strict=True))
            total = total + term.of(downsample(weight, velocity.factors) * velocity.values, spacing)
        return total


@dataclass(frozen=True, kw_only=True)
class AdaFrame(WeightingSettings):
    """Large residuals count less: a sigmoid of the residual's distance from its mean, in standard deviations.

    `1 - sigmoid(a (r - mean) / sd - b)` with `a = slope / mean` and `b = shift (1 - cos(pi mean))`, without a gradient.

    Args:
        slope: of the sigmoid.
        shift: of the sigmoid.

    Raises:
        BadInput: a number is negative or not finite.
    """

    slope: float = 0.1
    shift: float = 10.0

    def __post_init__(self) -> None:
        check_factors(self, slope=self.slope, shift=self.shift)

    def build(self, model: Model, steps: int, precision: torch.dtype | None = None) -> Weighting:
        check_pointwise("adaframe", model)
        return Framing(self)


class Framing(Weighting):
    """As `AdaFrame` says."""

    def __init__(self, settings: AdaFrame) -> None:
        self.settings = settings

    def value(self, term: Term, batch: PairBatch, prediction: Prediction) -> Tensor:
        if not isinstance(term, Images):
            return term.value(batch, prediction)
        found, weight = residuals(term, batch, prediction)
        rest, mean = _absolute(found.detach(), weight)
        deviation = _as_map(reduce((rest - mean).square(), weight), rest).sqrt()
        slope = self.settings.slope / (mean + TINY)
        shift = self.settings.shift * (1 - (math.pi * mean).cos())
        counted = 1 - (slope * (rest - mean) / (deviation + TINY) - shift).sigmoid()
        return reduce(found * counted, weight)


def _absolute(squared: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute residuals (B, 1, *S) of squared ones, and their mean (B, 1, ...) over what is covered."""
    rest = (squared + TINY**2).sqrt()
    return rest, _as_map(reduce(rest, weight), rest)


def _as_map(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))
