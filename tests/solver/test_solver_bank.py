"""Every solver on every problem of the bank."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize as scipy_minimize
from solver_bank import HIMMELBLAU, PROBLEMS, ROSENBROCK, SOLVERS

from warpwright.errors import BadInput
from warpwright.solver import LBFGS, Adam, Function, GaussNewton, GradientDescent, add, minimise
from warpwright.solver.algorithms.base import same

# steps and distance to the minimum. Descent takes steps of one length (0.02) for ever and so stays within some steps of the
# minimum; Adam and diagonal Gauss-Newton walk along curved and thin valleys slowly.
NEAR = {
    ("descent", "round"): (300, 0.02),
    ("descent", "long"): (1000, 0.05),
    ("descent", "himmelblau"): (300, 0.02),
    ("adam", "round"): (800, 1e-6),
    ("adam", "long"): (1500, 0.01),
    ("adam", "rosenbrock"): (2000, 1e-2),
    ("adam", "himmelblau"): (1000, 1e-6),
    ("lbfgs", "round"): (20, 1e-8),
    ("lbfgs", "long"): (40, 1e-8),
    ("lbfgs", "thin"): (60, 1e-8),
    ("lbfgs", "rosenbrock"): (80, 1e-8),
    ("lbfgs", "himmelblau"): (40, 1e-8),
    ("gauss-newton", "round"): (100, 1e-8),
    ("gauss-newton", "long"): (800, 1e-6),
    ("gauss-newton", "rosenbrock"): (2000, 0.2),
    ("gauss-newton", "himmelblau"): (200, 1e-8),
}


@pytest.mark.parametrize(("solver", "problem"), NEAR, ids=lambda name: name)
def test_the_minimum_is_found(solver: str, problem: str) -> None:
    steps, distance = NEAR[solver, problem]
    case = PROBLEMS[problem]
    solution = minimise(case, case.begin(), solver=SOLVERS[solver], max_steps=steps)
    assert case.distance(solution.value).max() < distance


def test_all_minima_of_himmelblau_are_met() -> None:
    solution = minimise(HIMMELBLAU, HIMMELBLAU.begin(), solver=LBFGS(length=0.5), max_steps=40)
    minima = torch.tensor(HIMMELBLAU.minima, dtype=torch.float64)
    found = (solution.value[:, None] - minima).norm(dim=2).argmin(1)
    assert set(found.tolist()) == {0, 1, 2, 3}


def test_lbfgs_needs_about_as_many_steps_as_scipy() -> None:
    start = ROSENBROCK.begin()[:1]
    oracle = scipy_minimize(lambda p: float(ROSENBROCK.value(torch.tensor(p)[None])), start[0].numpy(), method="L-BFGS-B")
    solution = minimise(ROSENBROCK, start, solver=LBFGS(length=1.0), max_steps=2 * oracle.nit)
    assert float(ROSENBROCK.value(solution.value)) < 1e-10


@pytest.mark.parametrize("problem", PROBLEMS)
def test_lbfgs_never_rises(problem: str) -> None:
    case = PROBLEMS[problem]
    history = minimise(case, case.begin(), solver=LBFGS(length=0.5), max_steps=60).history
    assert (history.diff(dim=0) <= 0).all()


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("problem", ["long", "rosenbrock", "himmelblau"])
def test_the_scale_of_the_energy_changes_nothing(name: str, factor: float, problem: str) -> None:
    case = PROBLEMS[problem]
    plain = minimise(case, case.begin(), solver=SOLVERS[name], max_steps=25)
    scaled = minimise(case.scaled(factor), case.begin(), solver=SOLVERS[name], max_steps=25)
    # rounding grows along a chaotic path: 25 steps of a curved valley multiply 1e-16 by less than 1e8
    torch.testing.assert_close(scaled.value, plain.value, atol=1e-8, rtol=0)
    torch.testing.assert_close(scaled.history, plain.history * factor, rtol=1e-6, atol=1e-12 * factor)


@pytest.mark.parametrize("name", SOLVERS)
def test_no_step_is_longer_than_its_bound(name: str) -> None:
    places = [HIMMELBLAU.begin()]
    solver = SOLVERS[name]
    state = solver.init(places[0])
    for _ in range(20):
        x, _, state = solver.step(HIMMELBLAU, places[-1], (), state, same, add)
        places.append(x)
    jumps = torch.stack(places).diff(dim=0).norm(dim=2)
    assert jumps.max() <= _length(solver) * (1 + 1e-9)
    assert jumps.max() > 0


def _length(solver: object) -> float:
    assert isinstance(solver, LBFGS | Adam | GaussNewton | GradientDescent)
    return solver.length


def test_lbfgs_refuses_a_composition() -> None:
    case = PROBLEMS["round"]
    with pytest.raises(BadInput, match="L-BFGS adds its updates"):
        minimise(case, case.begin(), solver=LBFGS(), retract=lambda x, update: x + update)


def test_gauss_newton_refuses_an_objective_without_curvature() -> None:
    with pytest.raises(BadInput, match="Gauss-Newton needs an objective with a curvature, Function has none"):
        minimise(Function(lambda x: x.square().sum(1)), torch.ones(1, 2), solver=GaussNewton())


def test_axes_may_be_turned() -> None:
    """Adam's second moment is that of the vector: a rotation of the problem rotates the path."""
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    start = ROSENBROCK.begin()
    for solver in (SOLVERS["adam"], SOLVERS["descent"], SOLVERS["lbfgs"]):
        straight = minimise(ROSENBROCK, start, solver=solver, max_steps=30).value
        turned = minimise(Function(lambda x: ROSENBROCK.value(x @ turn)), start @ turn.T, solver=solver, max_steps=30).value
        torch.testing.assert_close(turned, straight @ turn.T, atol=1e-8, rtol=0)  # rounding along a curved path
