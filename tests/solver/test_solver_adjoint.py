"""Gradients through a solve, and what stays in memory."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from oracles.make import normal
from warpwright.solver import LBFGS, Adam, CurvedObjective, GaussNewton, GradientDescent, Solver, Unroll, minimise

SOLVERS: dict[str, Solver] = {
    "descent": GradientDescent(length=0.05),
    "adam": Adam(length=0.1),
    "gauss-newton": GaussNewton(),
}


class Convex(CurvedObjective):
    """`x A x / 2 + sum x^4 / 20 - p x`, strongly convex."""

    def __init__(self, generator: torch.Generator) -> None:
        root = normal(generator, 4, 4)
        self.matrix = root @ root.T / 4 + torch.eye(4, dtype=torch.float64)

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        (p,) = params
        return 0.5 * torch.einsum("bi,ij,bj->b", x, self.matrix, x) + 0.05 * x.pow(4).sum(1) - (p * x).sum(1)

    def curvature(self, x: Tensor, *params: Tensor) -> Tensor:
        return self.matrix.diagonal() + 0.6 * x.square()

    def hessian(self, x: Tensor) -> Tensor:
        return self.matrix + torch.diag_embed(0.6 * x.square())


@pytest.fixture
def convex(generator: torch.Generator) -> Convex:
    return Convex(generator)


@pytest.fixture
def p(generator: torch.Generator) -> Tensor:
    return normal(generator, 2, 4)


def _solve(convex: Convex, p: Tensor, solver: Solver, steps: int, x0: Tensor | None = None) -> Tensor:
    x0 = torch.zeros_like(p) if x0 is None else x0
    return minimise(convex, x0, (p,), solver=solver, adjoint=Unroll(), max_steps=steps).value


@pytest.mark.parametrize("name", SOLVERS)
def test_unrolled_gradients_are_finite_differences(convex: Convex, p: Tensor, name: str) -> None:
    """At any number of steps, converged or not; also in the start."""
    x0 = torch.full_like(p, 0.1).requires_grad_()
    # gradcheck's difference quotient has a step of 1e-6; descent bends sharply near the minimum, hence few steps
    assert torch.autograd.gradcheck(
        lambda q, x: _solve(convex, q, SOLVERS[name], 6, x), (p.requires_grad_(), x0), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", ["adam", "gauss-newton"])
def test_unrolled_gradients_become_the_implicit_one(convex: Convex, p: Tensor, name: str, generator: torch.Generator) -> None:
    """`dx*/dp = H^-1` at the minimum. Descent by steps of one length never comes to rest, so it has no such limit."""
    cotangent = normal(generator, 2, 4)
    value = _solve(convex, p.requires_grad_(), SOLVERS[name], 500)
    (got,) = torch.autograd.grad((value * cotangent).sum(), p)
    expected = torch.linalg.solve(convex.hessian(value.detach()), cotangent)
    torch.testing.assert_close(got, expected, atol=1e-7, rtol=0)  # what is left of a geometric series


@pytest.mark.parametrize("name", SOLVERS)
def test_stopped_samples_keep_their_gradient(convex: Convex, p: Tensor, name: str) -> None:
    """The gradient of a sample that stopped early is that of its own, shorter run."""
    p = torch.cat([0.01 * p[:1], 3 * p[1:]]).requires_grad_()
    kwargs = {"solver": SOLVERS[name], "adjoint": Unroll(), "max_steps": 60, "tolerance": 1e-2, "window": 3}
    together = minimise(convex, torch.zeros_like(p), (p,), **kwargs)
    assert together.steps[0] != together.steps[1]
    (got,) = torch.autograd.grad(together.value.sum(), p)
    for k in range(2):
        own = p[k : k + 1].detach().requires_grad_()
        alone = minimise(convex, torch.zeros_like(own), (own,), **kwargs)
        (expected,) = torch.autograd.grad(alone.value.sum(), own)
        torch.testing.assert_close(got[k : k + 1], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("solver", [*SOLVERS.values(), LBFGS()], ids=[*SOLVERS, "lbfgs"])
def test_no_graph_without_an_adjoint(convex: Convex, p: Tensor, solver: Solver) -> None:
    p.requires_grad_()
    x0 = torch.zeros_like(p, requires_grad=True)
    solution = minimise(convex, x0, (p,), solver=solver, max_steps=5)
    for tensor in (solution.value, solution.energy, solution.history):
        assert not tensor.requires_grad
    assert torch.is_grad_enabled()
    unrolled = _solve(convex, p, solver, 5)
    assert unrolled.requires_grad
    plain = minimise(convex, torch.zeros_like(p), (p,), solver=solver, max_steps=5).value
    torch.testing.assert_close(unrolled.detach(), plain, rtol=1e-14, atol=1e-14)  # a kernel rounds products and sums at once


def _alive() -> int:
    gc.collect()
    return sum(type(thing) is Tensor for thing in gc.get_objects())


@pytest.mark.parametrize("solver", [*SOLVERS.values(), LBFGS()], ids=[*SOLVERS, "lbfgs"])
def test_nothing_stays_alive(convex: Convex, p: Tensor, solver: Solver) -> None:
    p.requires_grad_()

    def once() -> None:
        value = _solve(convex, p, solver, 8)
        value.sum().backward()
        p.grad = None

    once()
    before = _alive()
    for _ in range(3):
        once()
    assert _alive() == before
