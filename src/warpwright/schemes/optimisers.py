"""Optimisers of weights, learning rates over time, clipping and averaging of weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.methods.orthogonal import Orthogonal

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "AnyOptimiser",
    "AnySchedule",
    "Constant",
    "Cosine",
    "Muon",
    "Polynomial",
    "Stepwise",
    "at_rate",
]

LARGEST = 1e6  # of a learning rate, and of what multiplies it; far above all that makes sense, far below what float32 holds


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba, ICLR 2015, arXiv 1412.6980).

    Args:
        rate: learning rate.
        betas: decays of the two moments.
        amsgrad: keep the largest second moment.

    Raises:
        BadInput: a number is out of range.
    """

    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    amsgrad: bool = False

    def __post_init__(self) -> None:
        check(self.rate, betas=self.betas)

    def build(self, weights: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of some weights."""
        return torch.optim.Adam(weights, self.rate, self.betas, amsgrad=self.amsgrad, foreach=True)


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019, arXiv 1711.05101).

    Args:
        rate: learning rate.
        betas: decays of the two moments.
        decay: weight decay.

    Raises:
        BadInput: a number is out of range.
    """

    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 1e-2

    def __post_init__(self) -> None:
        check(self.rate, betas=self.betas)
        if not 0 <= self.decay <= LARGEST:
            raise BadInput(f"the weight decay must lie in 0 to {LARGEST:g}, got {self.decay}")

    def build(self, weights: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of some weights."""
        return torch.optim.AdamW(weights, self.rate, self.betas, weight_decay=self.decay, foreach=True)


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Gradient descent with momentum.

    Args:
        rate: learning rate.
        momentum: share of the last update that is kept.

    Raises:
        BadInput: a number is out of range.
    """

    rate: float = 1e-3
    momentum: float = 0.0

    def __post_init__(self) -> None:
        check(self.rate, momentum=(self.momentum,))

    def build(self, weights: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of some weights."""
        return torch.optim.SGD(weights, self.rate, self.momentum, foreach=True)


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Steps of one length in all directions of a kernel, Adam for biases and heads; see `methods.orthogonal`.

    Args:
        rate: learning rate of the kernels.
        momentum: share of the mean of earlier gradients that is kept.
        others: rate of the other weights, as a share of `rate`.

    Raises:
        BadInput: a number is out of range.
    """

    rate: float = 2e-3
    momentum: float = 0.95
    others: float = 0.5

    def __post_init__(self) -> None:
        check(self.rate, momentum=(self.momentum,))
        if not 0 < self.others <= LARGEST:
            raise BadInput(f"the rate of the other weights is a share above 0 and at most {LARGEST:g}, got {self.others}")

    def build(self, weights: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of some weights."""
        return Orthogonal(weights, self.rate, self.momentum, self.others)


AnyOptimiser = Adam | AdamW | SGD | Muon


def at_rate(optimiser: torch.optim.Optimizer, rate: float) -> float:
    """Have an optimiser take its next steps at a learning rate, which is given back."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    return rate


def check(rate: float, **shares: tuple[float, ...]) -> None:
    """Refuse a learning rate of 0 or less or beyond all sense, and shares that do not lie in 0 to 1 (1 left out)."""
    if not 0 < rate <= LARGEST:
        raise BadInput(f"the learning rate must be above 0 and at most {LARGEST:g}, got {rate}")
    for name, values in shares.items():
        if not all(0 <= value < 1 for value in values):
            raise BadInput(f"{name} of an optimiser must lie in 0 to 1, 1 left out, got {', '.join(map(str, values))}")


class Schedule(ABC):
    """The learning rate over time, as a factor of the optimiser's."""

    @abstractmethod
    def factor(self, share: float) -> float:
        """The factor when a share, 0 to 1, of the steps is done."""


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The same rate throughout."""

    def factor(self, share: float) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine, after a linear start.

    Args:
        warmup: share of the steps in which the rate rises from 0.
        least: factor at the end.

    Raises:
        BadInput: a number is out of range.
    """

    warmup: float = 0.0
    least: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise BadInput(f"the warm-up of a cosine schedule is a share in 0 to 1, 1 left out, got {self.warmup}")
        if not 0 <= self.least <= 1:
            raise BadInput(f"the least factor of a cosine schedule lies in 0 to 1, got {self.least}")

    def factor(self, share: float) -> float:
        if share < self.warmup:
            return share / self.warmup
        left = (share - self.warmup) / (1 - self.warmup)
        return self.least + (1 - self.least) * (1 + math.cos(math.pi * left)) / 2


@dataclass(frozen=True, kw_only=True)
class Polynomial(Schedule):
    """`(1 - share)^power`.

    Args:
        power: how soon the rate falls.

    Raises:
        BadInput: the power is negative.
    """

    power: float = 0.9

    def __post_init__(self) -> None:
        if self.power < 0:
            raise BadInput(f"the power of a polynomial schedule must be at least 0, got {self.power}")

    def factor(self, share: float) -> float:
        return (1 - share) ** self.power


@dataclass(frozen=True, kw_only=True)
class Stepwise(Schedule):
    """Multiplied by `by` at every milestone.

    Args:
        milestones: shares of the steps, rising.
        by: factor.

    Raises:
        BadInput: a number is out of range.
    """

    milestones: tuple[float, ...] = (0.6, 0.85)
    by: float = 0.1

    def __post_init__(self) -> None:
        if any(b <= a for a, b in pairwise((0.0, *self.milestones, 1.0))):
            raise BadInput(f"the milestones of a schedule are rising shares between 0 and 1, got {self.milestones}")
        if not self.by > 0:
            raise BadInput(f"the factor of a stepwise schedule must be above 0, got {self.by}")

    def factor(self, share: float) -> float:
        return self.by ** sum(share >= m for m in self.milestones)


AnySchedule = Constant | Cosine | Polynomial | Stepwise
