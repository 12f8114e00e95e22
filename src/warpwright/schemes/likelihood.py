"""Residuals as noise whose variance is learned for every voxel.

Reference: Kendall and Gal, NeurIPS 2017, arXiv 1703.04977 (NLL); Seitzer et al., ICLR 2022, arXiv 2203.09168 (beta-NLL); as
AdaCS (Zhang et al., ECCV 2024, arXiv 2312.00837) compares with them. Its code has none: the head, the bounds and where the
variance begins are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from warpwright.energies.losses import Images, Term, VelocityPrior
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.similarity import reduce
from warpwright.errors import BadInput
from warpwright.geometry import computing_in
from warpwright.methods import Model, laid_out
from warpwright.networks.scoring import VoxelMap
from warpwright.networks.widths import check_scale
from warpwright.sampling import warp
from warpwright.schemes.base import Synchronise
from warpwright.schemes.optimisers import AnyOptimiser, Muon, at_rate
from warpwright.schemes.state import optimiser_state, restore_optimiser, under
from warpwright.schemes.weighting import (
    Weighting,
    WeightingSettings,
    check_pointwise,
    residuals,
    terms_of,
)

__all__ = ["Likelihood"]

BEGIN = 0.01  # variance
BOUND = 10.0  # of the logarithm of the variance, to either side


@dataclass(frozen=True, kw_only=True)
class Likelihood(WeightingSettings):
    """`mean[s^(2 beta) (r / s^2 + log s^2)]` in place of the mean residual r, the factor without a gradient.

    A network sees the fixed image and the moved one (without a gradient) and gives `log s^2`; it learns in the same step.

    Args:
        beta: 0 for NLL; 0.5 is beta-NLL's.
        optimiser: of the variance; its rate follows the scheme's schedule.
        scale: factor of the widths of its network.

    Raises:
        BadInput: a number is out of range.
    """

    beta: float = 0.0
    optimiser: AnyOptimiser = Muon(rate=5e-3)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise BadInput(f"beta of a likelihood must lie in [0, 1], got {self.beta}")
        check_scale(self, self.scale)

    def build(self, model: Model, steps: int, precision: torch.dtype | None = None) -> Weighting:
        check_pointwise("likelihood", model)
        if terms_of(model, VelocityPrior):
            raise BadInput("the weighting likelihood and the term velocityprior are two models of noise: expected one of them")
        return Variance(self, model, precision)


class Variance(Weighting):
    """As `Likelihood` says."""

    def __init__(self, settings: Likelihood, model: Model, precision: torch.dtype | None) -> None:
        self.settings, self.precision = settings, precision
        like, channels = next(model.parameters()), 2 * model.settings.channels
        network = VoxelMap(model.settings.dim, channels, settings.scale, math.log(BEGIN))
        self.network = network.to(like.device, like.dtype)
        laid_out(self.network, model.settings.dim)
        self.optimiser = settings.optimiser.build(self.network.parameters())
        self.seen: list[Tensor] = []

    @property
    def beside(self) -> tuple[nn.Module, ...]:
        return (self.network,)

    def begin(self, number: int, batches: int = 1, factor: float = 1.0) -> bool:
        at_rate(self.optimiser, self.settings.optimiser.rate * factor)
        self.optimiser.zero_grad(set_to_none=True)
        self.seen.clear()
        return True

    def value(self, term: Term, batch: PairBatch, prediction: Prediction) -> Tensor:
        if not isinstance(term, Images):
            return term.value(batch, prediction)
        found, weight = residuals(term, batch, prediction)
        with torch.no_grad():
            moved = warp(batch.moving, prediction.displacement)
        with computing_in(self.precision, moved):
            logarithm = self.network(torch.cat((batch.fixed, moved), 1)).clamp(-BOUND, BOUND)
        self.seen.append(reduce(logarithm.detach().exp(), weight).mean())
        energy = found * (-logarithm).exp() + logarithm
        return reduce(energy * (self.settings.beta * logarithm.detach()).exp(), weight)

    def learn(self, batches: Sequence[PairBatch], synchronise: Synchronise) -> dict[str, float]:
        mean = torch.stack(self.seen).mean()
        synchronise([*(w.grad for w in self.network.parameters() if w.grad is not None), mean])
        self.optimiser.step()
        return {"variance": float(mean)}

    def state(self) -> dict[str, Tensor]:
        found = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        return found | optimiser_state(self.optimiser, "optimiser")

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(under(state, "network."))
        restore_optimiser(self.optimiser, state, "optimiser")
