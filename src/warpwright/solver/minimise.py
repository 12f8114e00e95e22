"""The loop around one pure step: `x, state <- step(x, state)` until a sample stops."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from warpwright.kernels import plainly, total
from warpwright.solver.adjoint import Adjoint, AtRest, Truncated, Unroll, attached
from warpwright.solver.algorithms.base import Precondition, Retract, Solver, State, Step, add, same
from warpwright.solver.objective import Objective
from warpwright.solver.solution import Solution, Status

__all__ = ["minimise"]


def minimise(
    objective: Objective,
    x0: Tensor,
    params: tuple[Tensor, ...] = (),
    *,
    solver: Solver,
    adjoint: Adjoint | None = None,
    precondition: Precondition = same,
    retract: Retract = add,
    max_steps: int = 100,
    tolerance: float | None = None,
    window: int = 10,
    reference: Tensor | None = None,
    closing: bool = False,
    progress: Callable[[int, Tensor], None] | None = None,
) -> Solution:
    """Minimise one energy per sample.

    Args:
        objective: energies (B,) of x and `params`.
        x0: (B, ...) start; not changed.
        params: tensors the objective depends on and the solution may be differentiated in.
        solver: the algorithm.
        adjoint: the gradient rule, in `params` (`Unroll` also in the start); None runs without a graph. It changes no value
            (but for rounding with `Unroll`, which goes without compiled kernels).
        precondition: applied to the gradient (a smoothing filter, as a rule).
        retract: `(x, update) -> x`: addition, or a composition of maps.
        max_steps: bound on the steps; with `tolerance=None` the count is the stopping rule.
        tolerance: a sample stops when its energy falls by no more than `tolerance * |reference|` a step, averaged over
            the window.
        window: number of steps looked back on; no sample stops sooner.
        reference: (B,) scale of the energy (that of the identity, as a rule); default the energy at x0.
        closing: whether the energy is also taken after the last step, once and without a gradient, so that what is said of a
            solve that uses up its steps holds for the point that is returned; else for the one before it.
        progress: called before each step with the step number and the energies (B,).

    Returns:
        A `Solution`; nothing is raised for a sample that fails.
    """
    x, previous, window = x0, x0, max(window, 2)
    del x0  # large, and not needed after the second step
    batch = len(x)
    status, steps = [Status.MAX_STEPS] * batch, [max_steps] * batch
    active = torch.ones(batch, dtype=torch.bool, device=x.device)
    history: list[Tensor] = []
    own: dict[int, State] = {}  # what a sample that stopped is differentiated with, whatever its mates do after it
    whole, unrolled = params, isinstance(adjoint, Unroll)
    rule = adjoint if isinstance(adjoint, (Truncated, AtRest)) and torch.is_grad_enabled() else None
    params = params if unrolled else tuple(p.detach() for p in params)
    with torch.set_grad_enabled(unrolled), plainly() if unrolled else nullcontext():
        state = solver.init(x)
        for step in range(max_steps):
            new, energy, state = solver.step(objective, x, params, state, precondition, retract)
            energy = torch.where(active, energy, history[-1]) if history else energy
            history.append(energy.detach())
            if progress is not None:
                progress(step, history[-1])
            defined = torch.isfinite(history[-1])
            sound = defined & torch.isfinite(total(new))  # one number that is not finite makes their sum so
            stopped = _stopped(history, sound, tolerance, window, reference)
            x, previous = (x if defined.all() else _choose(defined | ~active, x, previous)), x
            for sample, reason in enumerate(stopped):
                if active[sample] and reason is not None:
                    status[sample], steps[sample] = reason, step
                    if rule is not None and batch > 1:
                        own[sample] = _of(state, sample, x.ndim)
            active = active & torch.tensor([reason is None for reason in stopped], device=x.device)
            if not active.any():
                break
            x = new if active.all() else _choose(active, new, x)
        if closing and history and active.any():
            with torch.no_grad():
                history.append(torch.where(active, objective.value(x, *params), history[-1]))
            defined = torch.isfinite(history[-1])
            x = x if defined.all() else _choose(defined | ~active, x, previous)
            for sample, lost in enumerate(active & ~defined):
                status[sample] = Status.NONFINITE if lost else status[sample]
        trace = torch.stack(history) if history else objective.value(x, *params).detach()[None]
    for sample, rose in enumerate(trace[-1] > trace[0]):
        if rose and status[sample] is Status.MAX_STEPS:
            status[sample] = Status.DIVERGED
    if history and rule is not None:
        if own:
            state = solver.together([own[k] if k in own else _of(state, k, x.ndim) for k in range(batch)])
        repeated = Step(objective=objective, solver=solver, precondition=precondition, retract=retract, state=state)
        x = attached(x.detach(), repeated, whole, rule)
    return Solution(x, trace[-1], tuple(status), tuple(steps), trace)


def _choose(samples: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    """`chosen` for the samples (B,) marked True, `other` for the rest."""
    return torch.where(samples.reshape(-1, *(1,) * (chosen.ndim - 1)), chosen, other)


def _of(state: State, sample: int, axes: int) -> State:
    """The state of one sample of an x of so many axes: (1, ...) each, in memory of its own, as a step may reuse the batch's."""
    return tuple((one[sample : sample + 1] if one.ndim else one.reshape((1,) * axes)).clone() for one in state)


def _stopped(
    history: list[Tensor], finite: Tensor, tolerance: float | None, window: int, reference: Tensor | None
) -> list[Status | None]:
    """Why each sample should stop now, None to go on; `finite` (B,) tells which samples may go on at all."""
    now, start = history[-1], history[0]
    out: list[Status | None] = [None if ok else Status.NONFINITE for ok in finite]
    if tolerance is None or len(history) < window:
        return out
    recent, half = torch.stack(history[-window:]), window // 2
    fall = (recent[:half].mean(0) - recent[-half:].mean(0)) / (window - half)
    scale = (start if reference is None else reference).abs()
    for sample in range(len(now)):
        if out[sample] is None and fall[sample] <= tolerance * scale[sample]:
            out[sample] = Status.CONVERGED if now[sample] <= start[sample] else Status.DIVERGED
    return out
