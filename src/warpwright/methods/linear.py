"""Rigid, similarity and affine registration: an update about the fixed image's centre, coarse to fine.

The map is `start o U(x)`, with `U(x)(p) = c + expm(G(x)) (p - c) + t(x)`: the exponential of generators keeps a rotation a
rotation. All parameters are lengths in mm (a generator is divided by the radius of the image), so one step length
serves every one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.similarity import Similarity
from warpwright.geometry import Grid
from warpwright.methods.levels import Level
from warpwright.solver import LBFGS, Objective, Solution, minimise

__all__ = ["Kind", "LinearMap", "solve_linear"]

HALVINGS = 6  # of a line search: what a shorter step would gain is not worth looking for

Kind = Literal["rigid", "similarity", "affine"]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Parameters to world matrices, around a start.

    Args:
        kind: which generators are free.
        start: (D+1, D+1) world matrix that acts after the update.
        centre: (D,) world point the update turns about, mm.
        radius: mm; a unit generator moves a point at this distance by one mm.
    """

    kind: Kind
    start: np.ndarray
    centre: np.ndarray
    radius: float

    @classmethod
    def around(cls, kind: Kind, start: np.ndarray, grid: Grid) -> LinearMap:
        """The family around `start` for images on `grid`."""
        extent = np.asarray(grid.shape) * np.asarray(grid.spacing)
        return cls(kind, start, grid.centre, float(extent.mean() / 2))

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.centre)

    def generators(self) -> Tensor:
        """(K, D, D) matrices spanning the allowed velocities of the linear part."""
        dim = self.dim
        units = torch.eye(dim * dim, dtype=torch.float64).reshape(-1, dim, dim)
        if self.kind == "affine":
            return units
        skew = [units[i * dim + j] - units[j * dim + i] for i in range(dim) for j in range(i)]
        return torch.stack(skew + ([torch.eye(dim, dtype=torch.float64)] if self.kind == "similarity" else []))

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return len(self.generators()) + self.dim

    def matrix(self, x: Tensor) -> Tensor:
        """World matrices (B, D+1, D+1) of parameters (B, P), float64, mm."""
        generators = self.generators().to(x)
        k = len(generators)
        linear = torch.matrix_exp(torch.einsum("bk,kij->bij", x[:, :k], generators) / self.radius)
        centre = torch.tensor(self.centre).to(x)
        shift = centre - linear @ centre + x[:, k:]
        bottom = torch.eye(self.dim + 1).to(x)[-1:].expand(len(x), 1, -1)
        update = torch.cat([torch.cat([linear, shift[..., None]], 2), bottom], 1)
        return torch.tensor(self.start).to(x) @ update


class LinearObjective(Objective):
    """Similarity of a level as a function of the parameters of a `LinearMap`; `params` are the fixed and moving image."""

    def __init__(self, level: Level, family: LinearMap, similarity: Similarity) -> None:
        self.pair = level.pair
        self.family = family
        self.similarity = similarity.for_spacing(level.grid.spacing)
        self.still = torch.zeros(1, level.grid.dim, *level.grid.shape, device=level.pair.fixed.device)

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        pair = self.pair
        inverse, forward = pair.moving_grid.inverse_affine, pair.fixed_grid.affine
        matrix = torch.tensor(inverse).to(x) @ self.family.matrix(x) @ torch.tensor(forward).to(x)
        fixed, moving = params
        return self.similarity.match(fixed, moving, self.still, matrix, pair.fixed_weight, pair.moving_weight)


def solve_linear(
    level: Level,
    kind: Kind,
    start: np.ndarray,
    similarity: Similarity,
    *,
    steps: int,
    tolerance: float = 1e-4,
    progress: Callable[[int, Tensor], None] | None = None,
) -> tuple[np.ndarray, Solution]:
    """One level of a linear registration by L-BFGS.

    Args:
        level: the pair.
        kind: which maps are allowed, around the start.
        start: (D+1, D+1) world matrix, fixed to moving.
        similarity: the energy.
        steps: bound on the steps.
        tolerance: relative fall a step below which it stops.
        progress: see `minimise`.

    Returns:
        The world matrix (D+1, D+1) float64 and the `Solution`.
    """
    family = LinearMap.around(kind, start, level.grid)
    x0 = torch.zeros(1, family.parameters, dtype=torch.float64, device=level.pair.fixed.device)
    solution = minimise(
        LinearObjective(level, family, similarity),
        x0,
        (level.pair.fixed, level.pair.moving),
        solver=LBFGS(length=max(level.grid.spacing), halvings=HALVINGS),
        max_steps=steps,
        tolerance=tolerance,
        window=4,
        progress=progress,
    )
    return family.matrix(solution.value)[0].cpu().numpy(), solution
