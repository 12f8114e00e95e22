"""Steepest descent with a step measured in units of x, not of the energy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.solver.algorithms.base import FirstOrder, State, longest, tiny

__all__ = ["GradientDescent"]


@dataclass(frozen=True, kw_only=True)
class GradientDescent(FirstOrder):
    """Step along minus the gradient, scaled so that its longest vector is `length`.

    Scaling the energy by any factor changes nothing (up to rounding).

    Args:
        length: length of the longest update vector, units of x (voxels).
    """

    length: float = 0.5

    def __post_init__(self) -> None:
        if not (self.length > 0):
            raise BadInput(f"gradient descent needs length > 0, got {self}")

    def init(self, x: Tensor) -> State:
        return ()

    def update(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        return gradient * (-self.length / longest(gradient).clamp_min(tiny(gradient))), state

    def factor(self, gradient: Tensor, state: State) -> Tensor:
        size = longest(gradient)
        return torch.where(size > 0, -self.length / size.clamp_min(tiny(gradient)), torch.zeros_like(size))
