"""L-BFGS with a backtracking line search, sample by sample; additive updates only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.kernels import total
from warpwright.solver.algorithms.base import Precondition, Retract, Solver, State, add, longest, tiny
from warpwright.solver.objective import Objective

__all__ = ["LBFGS"]


@dataclass(frozen=True, kw_only=True)
class LBFGS(Solver):
    """Limited-memory BFGS: two-loop recursion, first step of length `length`, Armijo backtracking.

    A sample whose past steps tell no positive curvature takes a first step again, so the scale of the energy never matters.

    Args:
        length: length of the longest vector of a first step, and bound on others, units of x (voxels).
        memory: number of past steps kept.
        decrease: share of the predicted fall that a step must reach (Armijo).
        halvings: bound on the halvings of one line search; a sample that finds no lower point stays where it is.

    Raises:
        BadInput: from `step`, when the retraction is not addition.

    Reference: Nocedal and Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 3.1.
    """

    length: float = 1.0
    memory: int = 8
    decrease: float = 1e-4
    halvings: int = 12

    def __post_init__(self) -> None:
        if not (self.length > 0 and self.memory >= 1 and self.halvings >= 1):
            raise BadInput(f"L-BFGS needs length > 0, memory >= 1 and halvings >= 1, got {self}")

    def init(self, x: Tensor) -> State:
        return ()

    def step(
        self,
        objective: Objective,
        x: Tensor,
        params: tuple[Tensor, ...],
        state: State,
        precondition: Precondition,
        retract: Retract,
    ) -> tuple[Tensor, Tensor, State]:
        """State: energy and gradient at x, of the last search; the previous x and gradient; then pairs (s, y), newest last."""
        if retract is not add:
            raise BadInput("L-BFGS adds its updates: it cannot serve a transform that composes them")
        known = state and not torch.is_grad_enabled()  # what the state holds tells nothing of the parameters
        energy, gradient = state[:2] if known else objective.value_and_gradient(x, *params)
        pairs = state[4:]
        if state:
            pairs = (*pairs, x - state[2], gradient - state[3])[-2 * self.memory :]
        estimate, scaled = _two_loop(gradient, pairs, precondition)
        downhill = _dot(estimate, gradient) > 0
        direction = -torch.where(downhill, estimate, precondition(gradient))
        reach = longest(direction).clamp_min(tiny(x))
        direction = direction * (self.length / torch.where(scaled & downhill, reach.clamp_min(self.length), reach))
        new, *found = self._search(objective, x, params, energy, gradient, direction)
        return new, energy, (*found, x, gradient, *pairs)

    def together(self, states: Sequence[State]) -> State:
        """As the base; before the pairs of a sample that has fewer come pairs of zeros, which count for nothing."""
        most = max(len(state) for state in states)
        padded = [(*s[:4], *[torch.zeros_like(s[2])] * (most - len(s)), *s[4:]) for s in states]
        return super().together(padded)

    def _search(
        self, objective: Objective, x: Tensor, params: tuple[Tensor, ...], energy: Tensor, gradient: Tensor, direction: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The first point far enough down, with its energy and gradient; a sample that finds none stays where it is."""
        slope = _dot(direction, gradient)
        step, poor = torch.ones_like(slope), torch.ones_like(slope, dtype=torch.bool)
        now, there = energy, gradient
        for _ in range(self.halvings):
            trial = x + step * direction
            now, there = objective.value_and_gradient(trial, *params)
            fall = _like(now, x) - _like(energy, x)
            poor = ~(fall <= self.decrease * step * slope)  # also where the trial is not finite
            if not poor.any():
                return trial, now, there
            step = torch.where(poor, step / 2, step)
        point = x + torch.where(poor, 0, step) * direction  # not a number where the gradient is none
        return point, torch.where(poor.flatten(), energy, now), torch.where(poor, gradient, there)


def _like(energy: Tensor, x: Tensor) -> Tensor:
    return energy.reshape(-1, *(1,) * (x.ndim - 1))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return _like(total(a * b), a)


def _two_loop(gradient: Tensor, pairs: State, precondition: Precondition) -> tuple[Tensor, Tensor]:
    """Inverse-Hessian estimate times the gradient; pairs without positive curvature count for nothing.

    Also which samples (B, 1, ...) had a pair to take the scale from: the product of the others is of no length in x.
    """
    history: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    q = gradient
    for k in range(len(pairs) - 2, -1, -2):
        s, y = pairs[k], pairs[k + 1]
        sy = _dot(s, y)
        good = sy > 1e-10 * (_dot(s, s) * _dot(y, y)).sqrt()
        rho = torch.where(good, 1 / sy.where(good, 1), 0)
        alpha = rho * _dot(s, q)
        q = q - alpha * y
        history.append((s, y, rho, alpha))
    scale = torch.zeros_like(_dot(q, q))
    for s, y, rho, _ in history:  # that of the newest pair that counts
        size = _dot(y, precondition(y))
        scale = torch.where((scale == 0) & (rho > 0) & (size > 0), _dot(s, y) / size.where(size > 0, 1), scale)
        if (scale > 0).all():
            break
    q = precondition(q) * torch.where(scale > 0, scale, 1)
    for s, y, rho, alpha in reversed(history):
        q = q + s * (alpha - rho * _dot(y, q))
    return q, scale > 0
