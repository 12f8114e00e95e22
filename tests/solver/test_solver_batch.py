"""One energy per sample: each sample of a batch is solved, stopped and reported as if it were alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from solver_bank import HIMMELBLAU, PROBLEMS, ROSENBROCK, SOLVERS, quadratic
from torch import Tensor

from oracles.make import normal
from warpwright.solver import LBFGS, Adam, CurvedObjective, Function, GradientDescent, Solver, Status, Unroll, minimise


class Bowl(CurvedObjective):
    """Sum of squares of any tensor, one stiffness for each sample."""

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        stiffness, centre = params
        return stiffness * (x - centre).square().flatten(1).sum(1)

    def curvature(self, x: Tensor, *params: Tensor) -> Tensor:
        return 2 * params[0].reshape(-1, *(1,) * (x.ndim - 1)).expand(len(x), 1, *x.shape[2:])


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_a_batch_is_its_samples(name: str, tolerance: float | None) -> None:
    start = HIMMELBLAU.begin()
    together = minimise(HIMMELBLAU, start, solver=SOLVERS[name], max_steps=200, tolerance=tolerance)
    for k in range(len(start)):
        alone = minimise(HIMMELBLAU, start[k : k + 1], solver=SOLVERS[name], max_steps=200, tolerance=tolerance)
        assert torch.equal(alone.value[0], together.value[k])
        assert (alone.status[0], alone.steps[0]) == (together.status[k], together.steps[k])
        assert torch.equal(alone.energy[0], together.energy[k])
        assert torch.equal(alone.history[:, 0], together.history[: len(alone.history), k])
        assert (together.history[len(alone.history) :, k] == alone.energy[0]).all()
    assert tolerance is None or len(set(together.steps)) > 1


@pytest.mark.parametrize("name", SOLVERS)
def test_a_field_of_any_dimension(name: str, shape: tuple[int, ...], generator: torch.Generator) -> None:
    centre = normal(generator, 2, len(shape), *shape)
    stiffness = torch.tensor([1.0, 30.0], dtype=torch.float64)
    solver = SOLVERS[name]
    if isinstance(solver, Adam | GradientDescent):
        solver = replace(solver, length=0.02)
    solution = minimise(Bowl(), torch.zeros_like(centre), (stiffness, centre), solver=solver, max_steps=500)
    # descent takes steps of its full length for ever; Adam is still on its way
    far = {"descent": 0.03, "adam": 1e-4}.get(name, 1e-6)
    assert (solution.value - centre).abs().max() < far


@pytest.mark.parametrize("name", SOLVERS)
def test_arguments_stay_as_they_are(name: str, generator: torch.Generator) -> None:
    x0, centre, stiffness = normal(generator, 2, 3, 4), normal(generator, 2, 3, 4), torch.ones(2, dtype=torch.float64)
    copies = [t.clone() for t in (x0, centre, stiffness)]
    solution = minimise(Bowl(), x0, (stiffness, centre), solver=SOLVERS[name], max_steps=7)
    for tensor, copy in zip((x0, centre, stiffness), copies, strict=True):
        assert torch.equal(tensor, copy)
        assert not tensor.requires_grad
    assert not torch.equal(solution.value, x0)


@pytest.mark.parametrize("name", SOLVERS)
def test_without_a_slope_nothing_moves(name: str) -> None:
    flat = PROBLEMS["round"].scaled(0.0)
    solution = minimise(flat, flat.begin(), solver=SOLVERS[name], max_steps=12, tolerance=1e-4, window=5)
    assert torch.equal(solution.value, flat.begin())
    assert solution.status == (Status.CONVERGED,) * 2
    assert solution.steps == (4, 4)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_sample_at_its_minimum_stays_while_others_move(name: str) -> None:
    case = quadratic(100)
    start = torch.tensor([case.minima[0], (2.0, 2.0)], dtype=torch.float64)
    solution = minimise(case, start, solver=SOLVERS[name], max_steps=20)
    assert torch.equal(solution.value[0], start[0])
    assert not torch.equal(solution.value[1], start[1])


def test_history_and_progress() -> None:
    seen: list[tuple[int, Tensor]] = []
    solution = minimise(
        ROSENBROCK, ROSENBROCK.begin(), solver=Adam(length=0.1), max_steps=9, progress=lambda step, e: seen.append((step, e))
    )
    assert solution.history.shape == (9, 2)
    torch.testing.assert_close(solution.history[0], ROSENBROCK.value(ROSENBROCK.begin()))
    assert [step for step, _ in seen] == list(range(9))
    assert torch.equal(torch.stack([e for _, e in seen]), solution.history)
    assert torch.equal(solution.energy, solution.history[-1])
    assert solution.status == (Status.MAX_STEPS,) * 2
    assert solution.steps == (9, 9)


@pytest.mark.parametrize("adjoint", [None, Unroll()], ids=["none", "unroll"])
def test_the_point_after_the_last_step_is_looked_at_where_that_is_asked_for(adjoint: Unroll | None) -> None:
    """The first sample begins so near the minimum that its one step ends higher up."""
    case, solver = PROBLEMS["round"], GradientDescent(length=0.5)
    start = torch.tensor([(0.31, -0.7), (-2.0, 1.0)], dtype=torch.float64, requires_grad=adjoint is not None)
    before, after = (
        minimise(case, start, solver=solver, adjoint=adjoint, max_steps=1, closing=closing) for closing in (False, True)
    )
    assert torch.equal(before.value, after.value)
    assert before.status == (Status.MAX_STEPS,) * 2
    assert after.status == (Status.DIVERGED, Status.MAX_STEPS)
    assert before.history.shape == (1, 2)
    assert torch.equal(after.history, torch.stack([before.energy, case.value(before.value.detach())]))
    assert torch.equal(after.energy, after.history[-1])
    assert not after.history.requires_grad
    assert after.steps == (1, 1)


def test_a_last_step_to_where_the_energy_is_undefined_is_taken_back() -> None:
    start = torch.tensor([[0.9, 0.9], [0.0, 0.0]], dtype=torch.float64)
    solution = minimise(Function(_cliff), start, solver=GradientDescent(length=0.3), max_steps=1, closing=True)
    assert solution.status == (Status.NONFINITE, Status.MAX_STEPS)
    assert torch.equal(solution.value[0], start[0])
    assert not torch.equal(solution.value[1], start[1])


def test_a_sample_that_stopped_is_not_looked_at_again() -> None:
    start = HIMMELBLAU.begin()
    settings = {"solver": LBFGS(length=0.5), "max_steps": 10, "tolerance": 1e-3, "window": 4}
    before, after = (minimise(HIMMELBLAU, start, closing=closing, **settings) for closing in (False, True))
    stopped = [k for k, taken in enumerate(before.steps) if taken < 10]
    assert 0 < len(stopped) < len(start)
    assert torch.equal(after.history[:-1], before.history)
    for k in range(len(start)):
        assert torch.equal(after.history[-1, k], before.history[-1, k] if k in stopped else HIMMELBLAU.value(after.value)[k])


def test_no_steps_give_the_start() -> None:
    solution = minimise(ROSENBROCK, ROSENBROCK.begin(), solver=LBFGS(), max_steps=0)
    assert torch.equal(solution.value, ROSENBROCK.begin())
    assert solution.history.shape == (1, 2)
    torch.testing.assert_close(solution.energy, ROSENBROCK.value(ROSENBROCK.begin()))


def test_convergence_is_measured_against_the_reference() -> None:
    start = torch.tensor([[-2.0, 1.0]], dtype=torch.float64)
    case, solver = PROBLEMS["round"], GradientDescent(length=0.01)
    own = minimise(case, start, solver=solver, max_steps=500, tolerance=1e-3, window=4)
    assert own.status == (Status.CONVERGED,)
    # with a scale that is ten times larger the walk ends sooner, with one that is tiny later
    coarse = minimise(case, start, solver=solver, max_steps=500, tolerance=1e-3, window=4, reference=10 * own.history[0])
    fine = minimise(case, start, solver=solver, max_steps=500, tolerance=1e-3, window=4, reference=1e-3 * own.history[0])
    assert coarse.steps[0] < own.steps[0] < fine.steps[0]


def test_the_window_holds_the_stop_back() -> None:
    case = PROBLEMS["round"]
    for window in (2, 5, 11):
        solution = minimise(case, case.begin(), solver=LBFGS(), max_steps=50, tolerance=10.0, window=window)
        assert solution.steps == (window - 1,) * 2


class Uphill(GradientDescent):
    """Walks the wrong way."""

    def update(self, gradient: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        update, state = super().update(gradient, state)
        return -update, state


def test_a_rising_energy_is_divergence() -> None:
    case = PROBLEMS["round"]
    stopped = minimise(case, case.begin(), solver=Uphill(length=0.1), max_steps=50, tolerance=1e-4, window=6)
    assert stopped.status == (Status.DIVERGED,) * 2
    assert stopped.steps == (5, 5)
    counted = minimise(case, case.begin(), solver=Uphill(length=0.1), max_steps=8)
    assert counted.status == (Status.DIVERGED,) * 2
    assert counted.steps == (8, 8)


def _cliff(x: Tensor) -> Tensor:
    """Falls to the right; NaN at a coordinate above 1."""
    return -x.sum(1) + (1 - x).amin(1).sqrt() * 0


@pytest.mark.parametrize("solver", [GradientDescent(length=0.3), Adam(length=0.3)], ids=["descent", "adam"])
def test_an_undefined_energy_ends_at_the_last_point_that_has_one(solver: Solver) -> None:
    start = torch.tensor([[0.0, 0.0], [-50.0, -50.0]], dtype=torch.float64)
    solution = minimise(Function(_cliff), start, solver=solver, max_steps=20)
    assert solution.status == (Status.NONFINITE, Status.MAX_STEPS)
    assert solution.value[0].max() <= 1
    assert solution.value[0].min() > 0.5
    assert _cliff(solution.value).isfinite().all()
    assert solution.energy[0].isnan()
    alone = minimise(Function(_cliff), start[1:], solver=solver, max_steps=20)
    assert torch.equal(alone.value[0], solution.value[1])


def test_lbfgs_does_not_step_where_the_energy_is_undefined() -> None:
    start = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    solution = minimise(Function(_cliff), start, solver=LBFGS(length=0.3), max_steps=20)
    assert solution.history.isfinite().all()
    assert _cliff(solution.value).isfinite().all()


def _spike(x: Tensor) -> Tensor:
    """A finite energy whose gradient is not, at 0."""
    return x.abs().sqrt().sum(1)


@pytest.mark.parametrize("name", ["descent", "adam", "lbfgs"])
def test_an_undefined_gradient_keeps_the_point(name: str) -> None:
    start = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    solution = minimise(Function(_spike), start, solver=SOLVERS[name], max_steps=5)
    assert solution.status == (Status.NONFINITE,)
    assert torch.equal(solution.value, start)
    assert solution.steps == (0,)


@pytest.mark.parametrize("name", SOLVERS)
def test_an_undefined_start_is_returned(name: str) -> None:
    case = PROBLEMS["round"].scaled(float("nan"))
    solution = minimise(case, case.begin(), solver=SOLVERS[name], max_steps=5)
    assert solution.status == (Status.NONFINITE,) * 2
    assert torch.equal(solution.value, case.begin())
