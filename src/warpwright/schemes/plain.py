"""The plain scheme: one optimiser, the model's own loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from warpwright.energies.pairs import PairBatch
from warpwright.errors import BadInput, Failed
from warpwright.methods import Model, Solving, batch_loss, evaluating
from warpwright.networks.scoring import VoxelMap
from warpwright.schemes.adaptive_scoring import AdaptiveScoring
from warpwright.schemes.base import Scheme, SchemeSettings, Synchronise
from warpwright.schemes.likelihood import Likelihood
from warpwright.schemes.optimisers import AnyOptimiser, AnySchedule, Cosine, Muon, at_rate
from warpwright.schemes.reweighting import AdaFrame, AdaReg
from warpwright.schemes.state import optimiser_state, restore_optimiser, under

__all__ = ["AnyWeighting", "Plain"]

AnyWeighting = AdaFrame | AdaptiveScoring | AdaReg | Likelihood


@dataclass(frozen=True, kw_only=True)
class Plain(SchemeSettings):
    """One optimiser on the model's loss.

    Args:
        optimiser: how weights follow the gradient.
        schedule: its learning rate over time, and that of what learns beside the model.
        clip: largest norm of the gradient; None for any.
        average: decay of the moving average of the weights that is validated and kept; None for the weights themselves.
        unlock: shares of the training after which a model that solves also solves its second level, its third and so on;
            () for all levels from the beginning.
        patience: in how many steps in a row a model that solves may solve none of the pairs.
        weighting: what makes some residuals count more than others; None for all alike.

    Raises:
        BadInput: a number is out of range.
    """

    optimiser: AnyOptimiser = Muon()
    schedule: AnySchedule = Cosine(warmup=0.02)
    clip: float | None = None
    average: float | None = None
    unlock: tuple[float, ...] = ()
    patience: int = 20
    weighting: AnyWeighting | None = None

    def __post_init__(self) -> None:
        if list(self.unlock) != sorted(self.unlock) or not all(0 <= share < 1 for share in self.unlock):
            raise BadInput(f"the shares at which levels are unlocked must rise and lie in [0, 1), got {list(self.unlock)}")
        if self.patience < 0:
            raise BadInput(f"the patience with pairs that cannot be solved must be at least 0 steps, got {self.patience}")
        if self.clip is not None and not self.clip > 0:
            raise BadInput(f"the clipping norm must be above 0, got {self.clip}")
        if self.average is not None and not 0 < self.average < 1:
            raise BadInput(f"the decay of the weights' average must lie between 0 and 1, got {self.average}")

    def build(self, model: Model, steps: int, precision: torch.dtype | None = None) -> PlainScheme:
        return PlainScheme(self, model, steps, precision)


class PlainScheme(Scheme):
    """As `Plain` says."""

    def __init__(self, settings: Plain, model: Model, steps: int, precision: torch.dtype | None) -> None:
        self.settings, self.model, self.steps, self.precision = settings, model, steps, precision
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = settings.optimiser.build(self.weights)
        self.solving = [part for part in model.modules() if isinstance(part, Solving)]
        if settings.unlock and not self.solving:
            raise BadInput("scheme.unlock is for a model that solves (a network of the kind implicit), this one does not")
        if settings.unlock and any(len(part.settings.steps) != len(settings.unlock) + 1 for part in self.solving):
            levels = [len(part.settings.steps) for part in self.solving]
            raise BadInput(
                f"scheme.unlock has {len(settings.unlock)} shares for {levels} levels: expected one less than levels"
            )
        self.weighting = None if settings.weighting is None else settings.weighting.build(model, steps, precision)
        self.failing = 0  # steps in a row in which no pair could be solved
        self.kept = model if settings.average is None else copy.deepcopy(model).requires_grad_(False)

    @property
    def score(self) -> VoxelMap | None:
        return None if self.weighting is None else self.weighting.score

    @property
    def beside(self) -> tuple[nn.Module, ...]:
        return () if self.weighting is None else self.weighting.beside

    def step(self, number: int, batches: Sequence[PairBatch], synchronise: Synchronise) -> dict[str, float]:
        self.model.train()
        for part in self.solving if self.settings.unlock else ():
            part.active = 1 + sum(number >= share * self.steps for share in self.settings.unlock)
        if self.weighting is None:
            return self._learn(number, batches, synchronise)
        learns = self.weighting.begin(number, len(batches), self.settings.schedule.factor(number / self.steps))
        figures = (self._learn if learns else self._look)(number, batches, synchronise)
        return figures | self.weighting.learn(batches, synchronise)

    def _learn(self, number: int, batches: Sequence[PairBatch], synchronise: Synchronise) -> dict[str, float]:
        """The model's update."""
        self.optimiser.zero_grad(set_to_none=True)
        figures = self._figures(batches, synchronise)
        norm = torch.nn.utils.get_total_norm([w.grad for w in self.weights if w.grad is not None])
        for name, value in (("loss", figures["loss"]), ("norm of the gradient", float(norm))):
            if not math.isfinite(value):
                raise Failed(f"the {name} is {value}")
        if self.settings.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.weights, self.settings.clip, norm)
        self.failing = self.failing + 1 if figures.get("failed", 0) >= 1 else 0
        if self.failing > self.settings.patience:
            raise Failed(f"in {self.failing} steps in a row no pair could be solved: expected a smaller learning rate")
        rate = at_rate(self.optimiser, self.settings.optimiser.rate * self.settings.schedule.factor(number / self.steps))
        self.optimiser.step()
        self._average(number)
        return {**figures, "gradient": float(norm), "rate": rate}

    @torch.no_grad()
    def _look(self, _: int, batches: Sequence[PairBatch], synchronise: Synchronise) -> dict[str, float]:
        """The figures of a step in which the model rests, as it is used: its norms do not follow the batches either."""
        with evaluating(self.model):
            return {**self._figures(batches, synchronise), "gradient": 0.0, "rate": 0.0}

    def _figures(self, batches: Sequence[PairBatch], synchronise: Synchronise) -> dict[str, float]:
        """The loss of the batches and its parts, means over pairs; where gradients are on, with those of the weights."""
        count = sum(len(batch) for batch in batches)
        sums: dict[str, Tensor] = {}
        value = None if self.weighting is None else self.weighting.value
        for batch in batches:
            losses = batch_loss(self.model, batch, self.precision, value)
            if torch.is_grad_enabled():
                (losses.total.sum() / count).backward()
            for name, part in {"loss": losses.total.detach(), **losses.parts}.items():
                sums[name] = sums.get(name, 0) + part.sum() / count
        if self.weighting is not None and torch.is_grad_enabled():
            self.weighting.adjust()
        gradients = [w.grad for w in self.weights if w.grad is not None] if torch.is_grad_enabled() else []
        synchronise([*gradients, *sums.values()])
        return {name: float(part) for name, part in sums.items()}

    @torch.no_grad()
    def _average(self, number: int) -> None:
        decay = self.settings.average
        if decay is None:
            return
        decay = min(decay, (1 + number) / (10 + number))  # the first weights are soon forgotten
        for mean, now in zip(self.kept.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)
        for mean, now in zip(self.kept.buffers(), self.model.buffers(), strict=True):
            mean.copy_(now)

    def state(self) -> dict[str, Tensor]:
        found = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        if self.settings.average is not None:
            found |= {f"kept.{name}": value for name, value in self.kept.state_dict().items()}
        found["failing"] = torch.tensor(self.failing)
        found |= optimiser_state(self.optimiser, "optimiser")
        if self.weighting is not None:
            found |= {f"weighting.{name}": value for name, value in self.weighting.state().items()}
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(under(state, "model."))
        if self.settings.average is not None:
            self.kept.load_state_dict(under(state, "kept."))
        self.failing = int(state["failing"])
        restore_optimiser(self.optimiser, state, "optimiser")
        if self.weighting is not None:
            self.weighting.restore(under(state, "weighting."))
