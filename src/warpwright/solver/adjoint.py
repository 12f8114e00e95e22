"""How a solution is differentiated in the parameters of its objective: a rule passed to `minimise`, never a mode.

A solve repeats `x <- R(x, U g(x, p))`: the gradient g of the energy, the linear part U of an update (preconditioning, and
everything that normalises a step, held fixed), the retraction R. At rest, with J = dR/dx + dR/du U H and H = dg/dx,

    dx/dp = (1 - J)^-1 (dR/du) U dg/dp,

so a cotangent w becomes the gradient in p of `<v, g(x, p)>` at a fixed v = U' (dR/du)' y, where (1 - J') y = w. That is a
derivative of the energy along v (`Objective.mixed`); the energy is never differentiated twice in x for its sake, and
nothing is kept of the steps. The value that `minimise` returns is the same whatever the rule.

References: Jena et al., DIO, 2025 (arXiv 2406.07361), which takes y = w ("Jacobian-free", after Fung et al., AAAI 2022); the
term of the filters in J, and Krylov steps for y, are ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from warpwright.errors import BadInput
from warpwright.kernels import plainly
from warpwright.solver.algorithms.base import Linear, Step

__all__ = ["Adjoint", "AtRest", "Krylov", "OneStep", "Truncated", "Unroll", "attached"]


@dataclass(frozen=True)
class Unroll:
    """Differentiate through every step, in the start as well: exact for the algorithm as run, memory grows with the steps.

    Of solves one behind the other each is differentiated by itself if it begins from a start without a graph, as the levels of
    `SolverLayer` do that are not linked.
    Compiled kernels, whose second derivatives would be worked out anew for each step behind them, are not used.
    """


@dataclass(frozen=True)
class Truncated:
    """Differentiate through some steps more, begun at the solution, whose value is not used.

    Args:
        steps: how many; memory grows with them.

    Raises:
        BadInput: there are none.
    """

    steps: int = 3

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"a truncated adjoint needs at least one step, got {self.steps}")


class AtRest(ABC):
    """A rule that takes the solution for a point of rest."""

    @abstractmethod
    def solve(self, transposed: Linear, cotangent: Tensor) -> Tensor:
        """What y - transposed(y) = `cotangent` (B, ...) asks for, or comes near it."""


@dataclass(frozen=True)
class OneStep(AtRest):
    """As if the last step did not depend on where it began: y is the cotangent.

    Its length is that of the solver's step for a gradient: with `GaussNewton` it does not depend on how near rest the solution
    is, with `Adam` on its memory, and with `GradientDescent`, whose steps have one length, it grows as the gradient vanishes.
    """

    def solve(self, transposed: Linear, cotangent: Tensor) -> Tensor:
        return cotangent


@dataclass(frozen=True)
class Krylov(AtRest):
    """GMRES: the y of the space of w, J'w, J'J'w, ... that fits best, for each sample by itself; 0 for one that failed.

    It needs `Objective.hessian_product`, which for images needs a similarity with a curvature (`MSE`, or sums of such).

    Args:
        steps: dimensions of that space beyond the first; 0 is the best multiple of the cotangent.

    Raises:
        BadInput: they are negative.
    """

    steps: int = 5

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise BadInput(f"a Krylov adjoint needs at least 0 steps, got {self.steps}")

    def solve(self, transposed: Linear, cotangent: Tensor) -> Tensor:
        size = _norm(cotangent)
        basis = [cotangent / _each(size.clamp_min(torch.finfo(size.dtype).tiny), cotangent)]
        columns: list[Tensor] = []
        for _ in range(self.steps + 1):
            new = basis[-1] - transposed(basis[-1])
            along: list[Tensor] = []
            for one in basis:
                along.append(_dot(one, new))
                new = new - _each(along[-1], new) * one
            length = _norm(new)
            columns.append(torch.stack([*along, length]))
            basis.append(new / _each(length.clamp_min(torch.finfo(length.dtype).tiny), new))
        rows = len(columns) + 1
        padded = [torch.cat([c, c.new_zeros(rows - len(c), c.shape[1])]) for c in columns]
        hessenberg = torch.stack(padded, 1).movedim(-1, 0).double()  # (B, rows, rows - 1)
        sound = hessenberg.isfinite().flatten(1).all(1)
        hessenberg = torch.where(_each(sound, hessenberg), hessenberg, torch.zeros_like(hessenberg))
        wanted = torch.zeros(len(size), rows, 1, dtype=torch.float64, device=size.device)
        wanted[:, 0, 0] = size
        smallest = rows * torch.finfo(cotangent.dtype).eps  # what is below is rounding, as where the energy is flat
        inverse = cast(Tensor, torch.linalg.pinv(hessenberg, rtol=smallest))  # pyright: ignore[reportUnknownMemberType]
        weights = (inverse @ wanted)[..., 0].to(cotangent.dtype)
        found = sum((_each(weights[:, k], one) * one for k, one in enumerate(basis[:-1])), torch.zeros_like(cotangent))
        return torch.where(_each(sound, found), found, torch.zeros_like(found))


Adjoint = Unroll | Truncated | OneStep | Krylov


def attached(x: Tensor, step: Step, params: tuple[Tensor, ...], rule: Truncated | AtRest) -> Tensor:
    """The value x with a gradient in `params`.

    Args:
        x: (B, ...) solution, without a graph.
        step: what led to it.
        params: of the objective.
        rule: how the gradient is found.

    Raises:
        BadInput: in the backward pass, if the rule takes the solution for a point of rest, and the algorithm has no update
            that is linear in the gradient.
    """
    if isinstance(rule, Truncated):
        with torch.enable_grad(), plainly():
            y, state = x, step.state
            for _ in range(rule.steps):
                y, _, state = step.solver.step(step.objective, y, params, state, step.precondition, step.retract)
            return torch.where(y.isfinite(), x + (y - y.detach()), x)
    return cast(Tensor, _Attach.apply(x, step, rule, *params))  # pyright: ignore[reportUnknownMemberType]


class _Attach(torch.autograd.Function):
    """Once differentiable: a derivative of the gradient raises."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Step, rule: AtRest, *params: Tensor) -> Tensor:
        ctx.step, ctx.rule = step, rule
        ctx.save_for_backward(x, *params)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, *params = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        own = [p.detach().requires_grad_(want) for p, want in zip(params, needed, strict=True)]
        direction = _direction(x.detach(), ctx.step, tuple(p.detach() for p in params), ctx.rule, cotangents[0])
        return (None, None, None, *ctx.step.objective.mixed(x.detach(), direction, *own))


def _direction(x: Tensor, step: Step, params: tuple[Tensor, ...], rule: AtRest, cotangent: Tensor) -> Tensor:
    """The v of the head of this file."""
    with torch.no_grad():
        gradient = step.objective.value_and_gradient(x, *params)[1]
        held = step.solver.held(step, x, params, gradient)
    with torch.enable_grad():
        at, by = x.detach().requires_grad_(), gradient.detach().requires_grad_()
        update = held(by)
        end = update.detach().requires_grad_()
        after = step.retract(at, end)

    def pulled(y: Tensor, through: Tensor, to: Tensor) -> Tensor:
        given = torch.autograd.grad(through, to, y, retain_graph=True, allow_unused=True)
        found = cast("Tensor | None", given[0])
        return torch.zeros_like(to) if found is None else found

    def back(y: Tensor) -> Tensor:
        return pulled(pulled(y, after, end), update, by)

    def transposed(y: Tensor) -> Tensor:
        return pulled(y, after, at) + step.objective.hessian_product(x, back(y), *params)

    return back(rule.solve(transposed, cotangent)).detach()


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).flatten(1).sum(1)


def _norm(one: Tensor) -> Tensor:
    return _dot(one, one).sqrt()


def _each(values: Tensor, like: Tensor) -> Tensor:
    """One value for each sample (B,), to broadcast."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
