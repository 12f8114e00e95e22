"""AdaCS: residuals are weighed by a score of how far a voxel has a counterpart at all, which is learned alongside.

A second network looks at the fixed image alone and gives a score S in [0, 1]. The model learns from residuals weighed by S;
the score learns to be small where residuals stay large, is drawn towards 1, and is smooth. The model is used without it; the
score is kept beside it, to tell where residuals can be trusted.

    model:  mean[stop(S) r] + its other terms            score:  mean[S stop(r)] + alpha mean[(S - 1)^2] + w mean|grad S|^2 / D

r is the squared residual; means are over what images cover and masks count, in proportion to their weights, so that the model's
loss is the plain one where S is 1. w rises as residuals fall: `w = beta m`, where m follows `cos(min(factor mu, 1) pi/2)`, mu
being the mean of r in a step. Squared slopes are averaged over the D axes, as in the published code, whose values of beta these
are; the paper prints their sum.

Reference: Zhang et al., AdaCS, ECCV 2024, arXiv 2312.00837, equations 2 to 9 and algorithm 1; the factor of 50 is that of its
code (in the paper it is 1, with which w hardly changes), which we do not let take w beyond its zero. The score begins at 0.88
everywhere: from fresh weights, of which it is about 0.5, all gradients push it up at first, the optimiser runs on to where the
sigmoid has no slope left, and it stays at 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from warpwright.energies.losses import Images, Term
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.similarity import reduce
from warpwright.errors import BadInput, Failed
from warpwright.geometry import computing_in
from warpwright.methods import Model, evaluating, laid_out, views
from warpwright.networks.scoring import VoxelMap
from warpwright.networks.widths import check_scale
from warpwright.schemes.base import Synchronise
from warpwright.schemes.optimisers import AnyOptimiser, Muon, at_rate
from warpwright.schemes.state import optimiser_state, restore_optimiser, under
from warpwright.schemes.weighting import (
    Weighting,
    WeightingSettings,
    check_factors,
    check_pointwise,
    residuals,
    solved_pairs,
    terms_of,
)

__all__ = ["AdaptiveScoring"]

BEGIN = 2.0  # logit of the score before it has learned anything, 0.88
COLLAPSED = 1e-3  # mean score of what counts in a batch below which nothing is learned from its images any more


@dataclass(frozen=True, kw_only=True)
class AdaptiveScoring(WeightingSettings):
    """The weighting of AdaCS.

    Args:
        alpha: how strongly the score is drawn towards 1; 0 lets it collapse, which ends the training.
        beta: how smooth it is.
        momentum: decay of the average m.
        factor: of the mean residual in the cosine; 1 as printed, 50 as in the code for losses over both directions.
        warmup: share of the training in which the model learns alone, and again the score alone.
        optimiser: of the score; its rate follows the scheme's schedule. The paper's is `Adam(rate=1e-4)`, at one rate.
        scale: factor of the widths of its network.
        paper_code: as the published code has it: voxels that are 0 in both images do not count, though means are over all of
            them, mu is that of `S r`, the gradient of the score's loss also reaches the model, the score begins as fresh
            weights have it, beta stands within the average, whose decay grows from 0 over 100 epochs of 50 steps, and the
            cosine goes on beyond its zero. What is not copied: there mu is the mean since the epoch began, and twice as large
            in one direction alone; what the map takes from outside the moving image counts as 0; TransMorph's map is taken
            to be undone by its negative, its score keeps its rate, and with DiffuseMorph epochs count from 1 and the loss
            of the score sees one pair.

    Raises:
        BadInput: a number is out of range.
    """

    alpha: float = 0.02
    beta: float = 1.5
    momentum: float = 0.99
    factor: float = 50.0
    warmup: float = 0.06
    optimiser: AnyOptimiser = Muon(rate=5e-3)
    scale: float = 1.0
    paper_code: bool = False

    def __post_init__(self) -> None:
        check_factors(self, alpha=self.alpha, beta=self.beta, factor=self.factor)
        if not (0 <= self.momentum < 1 and 0 <= self.warmup < 0.5):
            raise BadInput(f"momentum must lie in [0, 1) and warmup in [0, 0.5), got {self.momentum} and {self.warmup}")
        check_scale(self, self.scale)

    def build(self, model: Model, steps: int, precision: torch.dtype | None = None) -> Scoring:
        check_pointwise("adaptivescoring", model)
        return Scoring(self, model, steps, precision)


class Scoring(Weighting):
    """As `AdaptiveScoring` says."""

    EPOCH = 50  # steps, of the published code

    def __init__(self, settings: AdaptiveScoring, model: Model, steps: int, precision: torch.dtype | None) -> None:
        self.settings, self.model, self.steps, self.precision = settings, model, steps, precision
        like = next(model.parameters())
        begin = None if settings.paper_code else BEGIN
        network = VoxelMap(model.settings.dim, model.settings.channels, settings.scale, begin)
        self.network = network.to(like.device, like.dtype)
        laid_out(self.network, model.settings.dim)
        self.optimiser = settings.optimiser.build(self.network.parameters())
        self.number, self.average, self.learned = 0, 0.0, False
        self.alone = True  # one batch to the step
        self.maps: dict[int, tuple[Tensor, Tensor]] = {}  # images of the step and their scores, by the former's identity
        self.term = terms_of(model, Images)[0]
        self.residual: list[Tensor] = []  # sum of the mean residuals mu of pairs, and their number, of the step so far
        self.leaked: dict[str, Tensor] = {}  # gradients of the model's weights from the score's loss

    def begin(self, number: int, batches: int = 1, factor: float = 1.0) -> bool:
        at_rate(self.optimiser, self.settings.optimiser.rate * factor)
        self.number, self.alone = number, batches == 1
        self.residual.clear()
        self.maps.clear()
        return not self.scores_alone

    @property
    def score(self) -> VoxelMap | None:
        return self.network if self.learned else None

    @property
    def beside(self) -> tuple[nn.Module, ...]:
        return (self.network,)

    @property
    def model_alone(self) -> bool:
        """Whether the score does not count yet."""
        return self.number < self.settings.warmup * self.steps

    @property
    def scores_alone(self) -> bool:
        """Whether the model rests."""
        return not self.model_alone and self.number < 2 * self.settings.warmup * self.steps

    def value(self, term: Term, batch: PairBatch, prediction: Prediction) -> Tensor:
        if not isinstance(term, Images):
            return term.value(batch, prediction)
        found, weight = residuals(term, batch, prediction)
        value = plain = self._mean(found, weight, batch)
        if not self.model_alone:
            score = self._score(batch.fixed).detach()
            counted = weight.sum()
            if float(counted):
                mean = float((score * weight).sum() / counted)
                if not math.isfinite(mean):
                    raise Failed(f"the mean of the score is {mean}")
                if mean <= COLLAPSED:
                    raise Failed(f"the score has collapsed, its mean is {mean:.2g}: expected a larger alpha")
            value = self._mean(found * score, weight, batch)
        followed = (value if self.settings.paper_code else plain).detach()
        solved = solved_pairs(prediction, followed)
        self.residual.append(torch.stack(((followed * solved).sum(), solved.sum())).double())
        return value

    def adjust(self) -> None:
        for name, weight in self.model.named_parameters():
            if name in self.leaked:
                weight.grad = self.leaked[name] if weight.grad is None else weight.grad + self.leaked[name]
        self.leaked.clear()

    def learn(self, batches: Sequence[PairBatch], synchronise: Synchronise) -> dict[str, float]:
        total = torch.stack(self.residual).sum(0)
        synchronise([total])
        mean = float(total[0] / total[1]) if float(total[1]) else 0.0
        if float(total[1]) and not self.scores_alone:
            self._follow(mean)
        if self.model_alone:
            return {"residual": mean, "score": 1.0, "score_loss": 0.0, "score_smoothness": self.smoothness}
        self.optimiser.zero_grad(set_to_none=True)
        self.model.zero_grad(set_to_none=True)
        count = sum(len(batch) for batch in batches)
        sums = torch.zeros(2, device=batches[0].fixed.device, dtype=batches[0].fixed.dtype)
        for batch in batches:
            loss, score = self._losses(batch)
            (loss.sum() / count).backward()
            sums += torch.stack((loss.detach().sum(), score.sum())) / count
        learning = [*self.network.parameters(), *self.model.parameters()]
        synchronise([*(w.grad for w in learning if w.grad is not None), sums])
        loss, score = sums.tolist()
        if not math.isfinite(loss):
            raise Failed(f"the loss of the score is {loss}")
        self.optimiser.step()
        self.learned = True
        for name, weight in self.model.named_parameters():  # none but for the published code
            if weight.grad is not None:
                self.leaked[name] = weight.grad + self.leaked.get(name, 0)
        return {"residual": mean, "score": score, "score_loss": loss, "score_smoothness": self.smoothness}

    @property
    def smoothness(self) -> float:
        """The weight w of the smoothness of the score."""
        return self.average if self.settings.paper_code else self.settings.beta * self.average

    def _follow(self, mean: float) -> None:
        """The average, a step with that mean residual later."""
        settings = self.settings
        angle = math.pi / 2 * settings.factor * mean
        found = math.cos(angle if settings.paper_code else min(angle, math.pi / 2))
        if settings.paper_code:
            decay = min(1 - 1 / (self.number // self.EPOCH + 1), settings.momentum)
            self.average = decay * self.average + (1 - decay) * settings.beta * found
        else:
            self.average = settings.momentum * self.average + (1 - settings.momentum) * found

    def _losses(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """(B,) each: the score's loss, and its mean, over directions."""
        if self.settings.paper_code:
            seen = views(self.model, batch, self.precision)
        else:
            with evaluating(self.model), torch.no_grad():
                seen = views(self.model, batch, self.precision)
        losses, scores = zip(*(self._loss(*view) for view in seen), strict=True)
        return torch.stack(losses).mean(0), torch.stack(scores).mean(0)

    def _loss(self, batch: PairBatch, prediction: Prediction) -> tuple[Tensor, Tensor]:
        score = self._score(batch.fixed)
        found, weight = residuals(self.term, batch, prediction)
        total = self._mean(found * score + self.settings.alpha * (score - 1).square(), weight, batch)
        counted = torch.ones_like(weight) if self.settings.paper_code else weight
        axes = [axis for axis in range(2, score.ndim) if score.shape[axis] > 1]
        total = total + self.smoothness * torch.stack([_slope(score, counted, axis) for axis in axes]).mean(0)
        return total * solved_pairs(prediction, total), reduce(score.detach(), weight)

    def _score(self, fixed: Tensor) -> Tensor:
        """(B, 1, *S) with the graph of the network; where a step is one batch, it is run once for an image.

        Of several batches, graphs would be kept until all have passed the model: accumulation is there to save memory.
        """
        if id(fixed) in self.maps:
            return self.maps[id(fixed)][1]
        with torch.enable_grad(), computing_in(self.precision, fixed):
            found = self.network.scores(fixed)
        if self.alone:
            self.maps[id(fixed)] = (fixed, found)
        return found

    def _mean(self, values: Tensor, weight: Tensor, batch: PairBatch) -> Tensor:
        """(B,) mean of a map in proportion to weights; as published, of what is not 0 in both images, over all voxels."""
        if not self.settings.paper_code:
            return reduce(values, weight)
        seen = ((batch.fixed != 0) | (batch.moving != 0)).any(1, keepdim=True)
        return reduce(values * weight * seen.to(weight.dtype))

    def state(self) -> dict[str, Tensor]:
        found = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        found |= optimiser_state(self.optimiser, "optimiser")
        found |= {f"leaked.{name}": value for name, value in self.leaked.items()}
        found["average"] = torch.tensor(self.average, dtype=torch.float64)
        found["learned"] = torch.tensor(int(self.learned))
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(under(state, "network."))
        like = next(self.model.parameters())
        self.leaked = {name: value.to(like) for name, value in under(state, "leaked.").items()}
        restore_optimiser(self.optimiser, state, "optimiser")
        self.average, self.learned = float(state["average"]), bool(state["learned"])


def _slope(score: Tensor, weight: Tensor, axis: int) -> Tensor:
    """(B,) mean squared difference of neighbours along an axis, which count as much as the lesser of their weights."""
    here, there = (weight.narrow(axis, k, score.shape[axis] - 1) for k in (0, 1))
    return reduce(torch.diff(score, dim=axis).square(), torch.minimum(here, there))
