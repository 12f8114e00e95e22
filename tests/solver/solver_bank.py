"""Problems with known minima, for every solver: energies (B,) of points (B, 2), and the diagonal of a curvature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.solver import LBFGS, Adam, CurvedObjective, GaussNewton, GradientDescent, Solver

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Problem(CurvedObjective):
    energy: Map
    bend: Map
    starts: tuple[tuple[float, float], ...]
    minima: tuple[tuple[float, float], ...]

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        return self.energy(x)

    def curvature(self, x: Tensor, *params: Tensor) -> Tensor:
        return self.bend(x)

    def begin(self) -> Tensor:
        return torch.tensor(self.starts, dtype=torch.float64)

    def distance(self, x: Tensor) -> Tensor:
        """(B,) to the nearest minimum."""
        minima = torch.tensor(self.minima, dtype=torch.float64)
        return (x[:, None] - minima).norm(dim=2).amin(1)

    def scaled(self, factor: float) -> Problem:
        return Problem(lambda x: factor * self.energy(x), lambda x: factor * self.bend(x), self.starts, self.minima)


def quadratic(condition: float) -> Problem:
    weight = torch.tensor([1.0, condition], dtype=torch.float64)
    centre = torch.tensor([0.3, -0.7], dtype=torch.float64)
    return Problem(
        lambda x: (weight * (x - centre).square()).sum(1),
        lambda x: (2 * weight).expand_as(x),
        ((-2.0, 1.0), (0.5, -0.7)),
        ((0.3, -0.7),),
    )


def _rosenbrock(x: Tensor) -> Tensor:
    return (1 - x[:, 0]).square() + 100 * (x[:, 1] - x[:, 0].square()).square()


def _himmelblau(x: Tensor) -> Tensor:
    a, b = x.unbind(1)
    return (a.square() + b - 11).square() + (a + b.square() - 7).square()


ROSENBROCK = Problem(
    _rosenbrock,
    lambda x: torch.stack([2 + 800 * x[:, 0].square(), torch.full_like(x[:, 1], 200)], 1),
    ((-1.2, 1.0), (0.5, 0.5)),
    ((1.0, 1.0),),
)
# all four minima are reached from these starts; the second start lies where the Hessian is not positive
HIMMELBLAU = Problem(
    _himmelblau,
    lambda x: 8 * x.square() + 2,
    ((1.0, 1.0), (0.0, 0.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)),
    (
        (3.0, 2.0),
        (-2.805118086952745, 3.131312518250573),
        (-3.779310253377747, -3.28318599128617),
        (3.584428340330492, -1.848126526964404),
    ),
)
PROBLEMS = {
    "round": quadratic(1),
    "long": quadratic(100),
    "thin": quadratic(1e4),
    "rosenbrock": ROSENBROCK,
    "himmelblau": HIMMELBLAU,
}
SOLVERS: dict[str, Solver] = {
    "descent": GradientDescent(length=0.02),
    "adam": Adam(length=0.02),
    "lbfgs": LBFGS(length=0.5),
    "gauss-newton": GaussNewton(length=0.5),
}
