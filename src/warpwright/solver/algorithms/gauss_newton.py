"""Gauss-Newton with a diagonal curvature: the Demons family."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from warpwright.errors import BadInput
from warpwright.kernels import total
from warpwright.solver.algorithms.base import Linear, Precondition, Retract, Solver, State, Step, bounded, longest, tiny
from warpwright.solver.objective import CurvedObjective, Objective

__all__ = ["GaussNewton"]


@dataclass(frozen=True, kw_only=True)
class GaussNewton(Solver):
    """Step `-gradient / (curvature + damping mean(curvature))`, then preconditioned, then bounded.

    For the squared difference of images this is the Demons force, smoothed ("fluid") by the preconditioner.

    Args:
        length: bound on the longest update vector, units of x (voxels).
        damping: relative to the sample's mean curvature; also where the curvature is zero.

    Raises:
        BadInput: from `step`, when the objective has no curvature.

    Reference: Vercauteren et al., NeuroImage 45 (2009), doi 10.1016/j.neuroimage.2008.10.040.
    """

    length: float = 2.0
    damping: float = 0.5

    def __post_init__(self) -> None:
        if not (self.length > 0 and self.damping >= 0):
            raise BadInput(f"Gauss-Newton needs length > 0 and damping >= 0, got {self}")

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
        energy, gradient = _curved(objective).value_and_gradient(x, *params)
        force = gradient / self._weight(objective, x, params)
        return retract(x, -bounded(precondition(force), self.length)), energy, state

    def held(self, step: Step, x: Tensor, params: tuple[Tensor, ...], gradient: Tensor) -> Linear:
        weight = self._weight(step.objective, x, params)
        factor = -self.length / longest(step.precondition(gradient / weight)).clamp_min(self.length)
        return lambda given: step.precondition(given / weight) * factor

    def _weight(self, objective: Objective, x: Tensor, params: tuple[Tensor, ...]) -> Tensor:
        curvature = _curved(objective).curvature(x, *params)
        mean = (total(curvature) / curvature[0].numel()).reshape(-1, *(1,) * (x.ndim - 1))
        return (curvature + self.damping * mean).clamp_min(tiny(x))


def _curved(objective: Objective) -> CurvedObjective:
    if not isinstance(objective, CurvedObjective):
        raise BadInput(f"Gauss-Newton needs an objective with a curvature, {type(objective).__name__} has none")
    return objective
