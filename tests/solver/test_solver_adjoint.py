"""Gradients through a solve, and what stays in memory."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from oracles.make import normal
from warpwright.errors import BadInput
from warpwright.solver import (
    LBFGS,
    Adam,
    Adjoint,
    CurvedObjective,
    GaussNewton,
    GradientDescent,
    Krylov,
    OneStep,
    Solver,
    Status,
    Truncated,
    Unroll,
    add,
    minimise,
)
from warpwright.solver.algorithms.base import Step

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


IMPLICIT: dict[str, Adjoint] = {"one": OneStep(), "krylov": Krylov(5), "truncated": Truncated(2)}
RULES: dict[str, Adjoint] = {"unroll": Unroll(), "one": OneStep(), "krylov": Krylov(1), "truncated": Truncated(2)}
ALL_SOLVERS: dict[str, Solver] = {**SOLVERS, "lbfgs": LBFGS(length=0.2, memory=3)}
HELD = [(name, rule) for name in ALL_SOLVERS for rule in RULES if name != "lbfgs" or rule in {"unroll", "truncated"}]


@pytest.mark.parametrize(("name", "rule"), HELD)
def test_stopped_samples_keep_their_gradient(convex: Convex, p: Tensor, name: str, rule: str) -> None:
    """The gradient of a sample that stopped early is that of its own, shorter run, and so is what the solver remembered."""
    p = torch.cat([0.01 * p[:1], 3 * p[1:]]).requires_grad_()
    kwargs = {"solver": ALL_SOLVERS[name], "adjoint": RULES[rule], "max_steps": 60, "tolerance": 0.03, "window": 3}
    one = torch.ones(2, dtype=p.dtype)
    together = minimise(convex, torch.zeros_like(p), (p,), reference=one, **kwargs)
    assert together.steps[0] < together.steps[1]
    (got,) = torch.autograd.grad(together.value.sum(), p)
    for k in range(2):
        own = p[k : k + 1].detach().requires_grad_()
        alone = minimise(convex, torch.zeros_like(own), (own,), reference=one[:1], **kwargs)
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


class Quadratic(CurvedObjective):
    """`x A x / 2 - (p + p^3 / 10) x`, whose curvature depends on nothing, so that holding it fixed is exact."""

    def __init__(self, generator: torch.Generator, size: int = 6) -> None:
        root = normal(generator, size, size)
        self.matrix = root @ root.T / size + torch.eye(size, dtype=torch.float64)

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        (p,) = params
        return 0.5 * torch.einsum("bi,ij,bj->b", x, self.matrix, x) - ((p + p**3 / 10) * x).sum(1)

    def curvature(self, x: Tensor, *params: Tensor) -> Tensor:
        return self.matrix.diagonal().expand_as(x)


class Filters:
    """A filter of the gradient and one of x after each update, both mixing neighbours, neither symmetric."""

    def __init__(self, generator: torch.Generator, size: int = 6) -> None:
        self.of_gradient, self.of_x = (
            0.8 * torch.eye(size, dtype=torch.float64) + 0.05 * normal(generator, size, size) for _ in range(2)
        )

    def precondition(self, gradient: Tensor) -> Tensor:
        return gradient @ self.of_gradient.T

    def retract(self, x: Tensor, update: Tensor) -> Tensor:
        return (x + update) @ self.of_x.T


SLOW = GaussNewton(length=10.0, damping=1.0)


@pytest.fixture
def quadratic(generator: torch.Generator) -> Quadratic:
    return Quadratic(generator)


@pytest.fixture
def filters(generator: torch.Generator) -> Filters:
    return Filters(generator)


def _filtered(objective: Quadratic, p: Tensor, filters: Filters, rule: Adjoint | None, steps: int = 400) -> Tensor:
    settings = {"solver": SLOW, "precondition": filters.precondition, "retract": filters.retract}
    return minimise(objective, torch.zeros_like(p), (p,), adjoint=rule, max_steps=steps, **settings).value


def _gradient(objective: Quadratic, p: Tensor, filters: Filters, rule: Adjoint, cotangent: Tensor) -> Tensor:
    (found,) = torch.autograd.grad((_filtered(objective, p, filters, rule) * cotangent).sum(), p)
    return found


@pytest.mark.parametrize("rule", IMPLICIT)
@pytest.mark.parametrize("name", SOLVERS)
def test_no_rule_changes_the_value(convex: Convex, p: Tensor, rule: str, name: str) -> None:
    settings = {"solver": SOLVERS[name], "max_steps": 7}
    plain = minimise(convex, torch.zeros_like(p), (p,), **settings)
    found = minimise(convex, torch.zeros_like(p), (p.requires_grad_(),), adjoint=IMPLICIT[rule], **settings)
    assert torch.equal(found.value, plain.value)
    assert found.value.requires_grad
    assert not plain.value.requires_grad


def test_krylov_is_the_gradient_of_the_whole_solve(quadratic: Quadratic, filters: Filters, generator: torch.Generator) -> None:
    """With filters the point of rest is no minimum; differences of the whole solve know that, and so does J."""
    p, cotangent = normal(generator, 2, 6).requires_grad_(), normal(generator, 2, 6)
    found = _gradient(quadratic, p, filters, Krylov(5), cotangent)  # 6 dimensions: exact
    step, differences = 1e-5, torch.zeros_like(p)
    with torch.no_grad():
        for k in range(6):
            move = torch.zeros_like(p)
            move[:, k] = step
            ends = [_filtered(quadratic, q, filters, None) for q in (p + move, p - move)]
            differences[:, k] = ((ends[0] - ends[1]) * cotangent).sum(1) / (2 * step)
    torch.testing.assert_close(found, differences, rtol=1e-6, atol=1e-8)
    unrolled = _gradient(quadratic, p, filters, Unroll(), cotangent)
    torch.testing.assert_close(found, unrolled, rtol=1e-8, atol=1e-10)


def test_one_step_is_one_more_step(quadratic: Quadratic, filters: Filters, generator: torch.Generator) -> None:
    """By hand, and as `Truncated(1)`, which differs only in normalisers, of which there are none that move here."""
    p, cotangent = normal(generator, 2, 6).requires_grad_(), normal(generator, 2, 6)
    found = _gradient(quadratic, p, filters, OneStep(), cotangent)
    diagonal = quadratic.matrix.diagonal()
    back = (cotangent @ filters.of_x @ filters.of_gradient) / (diagonal + diagonal.mean())
    torch.testing.assert_close(found, back * (1 + 0.3 * p.detach() ** 2))
    torch.testing.assert_close(found, _gradient(quadratic, p, filters, Truncated(1), cotangent))


def test_more_steps_come_nearer(quadratic: Quadratic, filters: Filters, generator: torch.Generator) -> None:
    p, cotangent = normal(generator, 1, 6).requires_grad_(), normal(generator, 1, 6)
    exact = _gradient(quadratic, p, filters, Krylov(5), cotangent)

    def miss(rule: Adjoint) -> float:
        return float((_gradient(quadratic, p, filters, rule, cotangent) - exact).norm() / exact.norm())

    one, *krylov = (miss(rule) for rule in (OneStep(), Krylov(0), Krylov(2), Krylov(4)))
    assert one > krylov[1] > krylov[2]
    assert krylov[0] > krylov[1]
    truncated = [miss(Truncated(n)) for n in (1, 5, 200)]
    assert truncated[0] > truncated[1] > truncated[2]
    assert truncated[2] < 1e-6


@pytest.mark.parametrize("steps", [0, 2, 4])
def test_krylov_has_the_least_residual(steps: int, generator: torch.Generator) -> None:
    """Against least squares in the explicit space; each sample of a batch by itself."""
    matrix, cotangent = 0.3 * normal(generator, 7, 7), normal(generator, 3, 7)
    found = Krylov(steps).solve(lambda y: y @ matrix.T, cotangent)
    system = torch.eye(7, dtype=torch.float64) - matrix
    for sample, right in zip(found, cotangent, strict=True):
        space = torch.stack([torch.linalg.matrix_power(system, k) @ right for k in range(steps + 1)], 1)
        weights = torch.linalg.lstsq(system @ space, right[:, None]).solution
        torch.testing.assert_close(sample, (space @ weights)[:, 0])


def test_krylov_of_nothing_is_nothing() -> None:
    zero = torch.zeros(2, 3, dtype=torch.float64)
    assert not Krylov(3).solve(lambda y: 0.5 * y, zero).any()
    torch.testing.assert_close(Krylov(3).solve(lambda y: 0.5 * y, zero + 1), zero + 2)  # done after one step


def test_krylov_of_a_flat_energy_in_single_precision() -> None:
    """Where 1 - J' is singular and the cotangent is not in its range: the answer of double precision, not rounding inverted."""
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(normal(generator, 3, 3))[0]
    system = turn @ torch.diag(torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)) @ turn.T
    cotangent = (turn @ torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64))[None]
    exact, single = (
        Krylov(4).solve(lambda y: y - y @ system.T.to(y.dtype), cotangent.to(dtype)).double()
        for dtype in (torch.float64, torch.float32)
    )
    residual = cotangent - single @ system.T
    assert float(single.norm()) < 10 * float(cotangent.norm())
    assert float(residual.norm()) == pytest.approx(1.0, abs=1e-3)  # what no y can reach
    torch.testing.assert_close((single - exact) @ system.T, torch.zeros_like(exact), rtol=0, atol=1e-3)


@pytest.mark.parametrize("rule", [OneStep(), Krylov(2), Truncated(2)])
def test_a_sample_that_failed_leaves_the_others_alone(convex: Convex, p: Tensor, rule: Adjoint) -> None:
    failed = torch.stack([p[0], torch.full_like(p[1], torch.nan)]).requires_grad_()
    found = minimise(convex, torch.zeros_like(failed), (failed,), solver=Adam(length=0.1), adjoint=rule, max_steps=6)
    assert found.status[1] is Status.NONFINITE
    assert found.value.isfinite().all()
    (gradient,) = torch.autograd.grad(found.value[0].sum(), failed)
    alone = p[:1].detach().requires_grad_()
    value = minimise(convex, torch.zeros_like(alone), (alone,), solver=Adam(length=0.1), adjoint=rule, max_steps=6).value
    torch.testing.assert_close(gradient[:1], torch.autograd.grad(value.sum(), alone)[0])


@pytest.mark.parametrize("name", ["descent", "adam"])
@pytest.mark.parametrize("rule", [OneStep(), Krylov(2)])
def test_where_nothing_moves_nothing_is_learned(convex: Convex, name: str, rule: Adjoint) -> None:
    p = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)  # the minimum is where it begins
    value = minimise(
        convex, torch.zeros(1, 4, dtype=torch.float64), (p,), solver=SOLVERS[name], adjoint=rule, max_steps=4
    ).value
    assert not value.any()
    assert not torch.autograd.grad(value.sum(), p)[0].any()


def test_no_step_no_gradient(convex: Convex, p: Tensor) -> None:
    found = minimise(convex, torch.ones_like(p), (p.requires_grad_(),), solver=Adam(), adjoint=OneStep(), max_steps=0)
    assert torch.equal(found.value, torch.ones_like(p))
    assert not found.value.requires_grad


@pytest.mark.parametrize(
    "solver",
    [GradientDescent(length=0.3), Adam(length=0.2, beta1=0.0), GaussNewton(damping=0.2), GaussNewton(length=0.01)],
    ids=["descent", "adam", "gauss-newton", "bounded"],
)
def test_the_held_update_of_the_own_gradient_is_the_update(convex: Convex, p: Tensor, solver: Solver) -> None:
    """At the same state, and with a preconditioner; Adam without memory of earlier gradients."""

    def smooth(gradient: Tensor) -> Tensor:
        return gradient + 0.3 * gradient.roll(1, 1)

    x, state = 0.4 * torch.ones_like(p), solver.init(p)
    with torch.no_grad():
        for _ in range(3):
            before = x
            after, _, state = solver.step(convex, before, (p,), state, smooth, add)
            gradient = convex.value_and_gradient(before, p)[1]
            step = Step(objective=convex, solver=solver, precondition=smooth, retract=add, state=state)
            held = solver.held(step, before, (p,), gradient)
            torch.testing.assert_close(held(gradient), after - before)
            torch.testing.assert_close(held(3 * gradient), 3 * (after - before))  # linear
            x = after


@pytest.mark.parametrize("rule", [OneStep(), Krylov(2)])
def test_a_second_derivative_is_refused(convex: Convex, p: Tensor, rule: Adjoint) -> None:
    value = minimise(convex, torch.zeros_like(p), (p.requires_grad_(),), solver=SLOW, adjoint=rule, max_steps=5).value
    (gradient,) = torch.autograd.grad(value.square().sum(), p, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("rule", [OneStep(), Krylov(3)])
def test_samples_are_differentiated_by_themselves(convex: Convex, p: Tensor, name: str, rule: Adjoint) -> None:
    def gradient(q: Tensor) -> Tensor:
        q = q.detach().requires_grad_()
        found = minimise(convex, torch.zeros_like(q), (q,), solver=SOLVERS[name], adjoint=rule, max_steps=5)
        return torch.autograd.grad(found.value.square().sum(), q)[0]

    torch.testing.assert_close(gradient(p), torch.cat([gradient(one[None]) for one in p]))


@pytest.mark.parametrize("rule", [OneStep(), Krylov(2)])
def test_nothing_is_kept_of_the_steps(convex: Convex, p: Tensor, rule: Adjoint) -> None:
    found = minimise(convex, torch.zeros_like(p), (p.requires_grad_(),), solver=SLOW, adjoint=rule, max_steps=50)
    behind = found.value.grad_fn
    assert behind is not None
    assert [type(node).__name__ for node, _ in behind.next_functions if node is not None] == ["AccumulateGrad"]


def test_rules_that_cannot_be(convex: Convex, p: Tensor) -> None:
    value = minimise(convex, torch.zeros_like(p), (p.requires_grad_(),), solver=LBFGS(), adjoint=OneStep(), max_steps=5).value
    with pytest.raises(BadInput, match="LBFGS has no step that an implicit gradient can be had from"):
        value.sum().backward()
    with pytest.raises(BadInput, match="a truncated adjoint needs at least one step, got 0"):
        Truncated(0)
    with pytest.raises(BadInput, match="a Krylov adjoint needs at least 0 steps, got -1"):
        Krylov(-1)
