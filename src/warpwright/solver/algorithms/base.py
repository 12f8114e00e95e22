"""What an algorithm is: a frozen description with `init` and one `step`, pure in x and the parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.solver.objective import Objective

__all__ = [
    "FirstOrder",
    "Linear",
    "Precondition",
    "Retract",
    "Solver",
    "State",
    "Step",
    "add",
    "bounded",
    "longest",
    "same",
    "tiny",
]

State = tuple[Tensor, ...]
Precondition = Callable[[Tensor], Tensor]
Retract = Callable[[Tensor, Tensor], Tensor]
Linear = Callable[[Tensor], Tensor]

NOT_LINEAR = "{} has no step that an implicit gradient can be had from"


def same(gradient: Tensor) -> Tensor:
    """No preconditioning."""
    return gradient


def add(x: Tensor, update: Tensor) -> Tensor:
    """The additive retraction."""
    return x + update


def longest(x: Tensor) -> Tensor:
    """Length of the longest vector of each sample: (B, D, ...) to (B, 1, ...), vectors along axis 1."""
    length = x.square().sum(1).reshape(len(x), -1).amax(1).sqrt()
    return length.reshape(-1, *(1,) * (x.ndim - 1))


def bounded(x: Tensor, limit: float) -> Tensor:
    """Scale x down, sample by sample, so that no vector is longer than `limit`."""
    return x * (limit / longest(x).clamp_min(limit))


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """The step that a solve repeats.

    Args:
        objective: energies.
        solver: the algorithm.
        precondition: what is applied to the gradient.
        retract: what is done with an update.
        state: of the algorithm at the end.
    """

    objective: Objective
    solver: Solver
    precondition: Precondition
    retract: Retract
    state: State


class Solver(ABC):
    """An algorithm of `minimise`."""

    @abstractmethod
    def init(self, x: Tensor) -> State:
        """The state before the first step."""

    @abstractmethod
    def step(
        self,
        objective: Objective,
        x: Tensor,
        params: tuple[Tensor, ...],
        state: State,
        precondition: Precondition,
        retract: Retract,
    ) -> tuple[Tensor, Tensor, State]:
        """One step. It changes neither x nor the parameters; without a graph it may reuse the memory of the state.

        Returns:
            The next x, the energies (B,) at the x that was given, the next state.
        """

    def together(self, states: Sequence[State]) -> State:
        """The state of a batch from those of its samples, (1, ...) each, which need not have taken as many steps."""
        return tuple(torch.cat(parts) for parts in zip(*states, strict=True))

    def held(self, step: Step, x: Tensor, params: tuple[Tensor, ...], gradient: Tensor) -> Linear:
        """The update at x as a linear function of the gradient, everything that normalises it held fixed, without memory.

        Raises:
            BadInput: there is no such function.
        """
        raise BadInput(NOT_LINEAR.format(type(self).__name__))


class FirstOrder(Solver):
    """A solver whose update is a function of the preconditioned gradient and its state."""

    @abstractmethod
    def update(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """The update to retract with, in the units of x, and the next state.

        Without a graph (`torch.no_grad`) it may reuse the memory of both arguments.
        """

    def step(
        self,
        objective: Objective,
        x: Tensor,
        params: tuple[Tensor, ...],
        state: State,
        precondition: Precondition,
        retract: Retract,
    ) -> tuple[Tensor, Tensor, State]:
        energy, gradient = objective.value_and_gradient(x, *params)
        gradient = precondition(gradient)
        update, state = self.update(gradient, state)
        del gradient  # large, and not needed while the update is applied
        return retract(x, update), energy, state

    def factor(self, gradient: Tensor, state: State) -> Tensor:
        """What a preconditioned gradient is multiplied with, momentum apart; broadcasts against it. For implicit gradients.

        Raises:
            BadInput: this solver has no such factor.
        """
        raise BadInput(NOT_LINEAR.format(type(self).__name__))

    def held(self, step: Step, x: Tensor, params: tuple[Tensor, ...], gradient: Tensor) -> Linear:
        factor = self.factor(step.precondition(gradient), step.state)
        return lambda given: step.precondition(given) * factor


def tiny(x: Tensor) -> float:
    """The smallest normal number of x's dtype: a denominator that is never zero."""
    return torch.finfo(x.dtype).tiny
