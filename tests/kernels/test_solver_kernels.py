"""The arithmetic of solvers: kernels against the plain formula, sums that threads do not change."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from oracles.make import normal
from oracles.threads import same_bytes
from warpwright.kernels import plainly, total
from warpwright.solver import Adam


def _updates(solver: Adam, gradients: list[Tensor]) -> list[Tensor]:
    state, out = solver.init(gradients[0]), []
    with torch.no_grad():
        for gradient in gradients:
            update, state = solver.update(gradient.clone(), state)
            out.append(update.clone())
    return out


def test_adam_is_the_plain_formula(shape: tuple[int, ...], generator: torch.Generator) -> None:
    gradients = [normal(generator, 2, len(shape), *shape) * scale for scale in (1.0, 0.1, 30.0, 0.0, 1e-3)]
    for solver in (Adam(length=0.5, damping=0.1), Adam(length=2.0, damping=0.0, beta1=0.5), Adam(beta1=0.95, beta2=0.6)):
        with plainly():
            expected = _updates(solver, gradients)
        for found, wanted in zip(_updates(solver, gradients), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
            assert float(found.square().sum(1).max().sqrt()) <= solver.length * (1 + 1e-12)


def test_adam_stays_still_without_a_gradient() -> None:
    (update,) = _updates(Adam(), [torch.zeros(1, 3, 4, 5, 6)])
    assert torch.equal(update, torch.zeros_like(update))


def test_total_is_an_exact_sum(generator: torch.Generator) -> None:
    values = normal(generator, 2, 3, 5000)
    expected = [math.fsum(sample.flatten().tolist()) for sample in values]
    torch.testing.assert_close(total(values), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-11)
    assert torch.equal(total(values[:, :0]), torch.zeros(2, dtype=torch.float64))


def test_total_is_differentiable(generator: torch.Generator) -> None:
    assert torch.autograd.gradcheck(lambda v: total(v.square()), (normal(generator, 2, 50).requires_grad_(),))


def test_threads_change_no_byte(generator: torch.Generator) -> None:
    gradients = [normal(generator, 1, 3, 50, 60, 40).float() for _ in range(2)]
    assert same_bytes(lambda: [*_updates(Adam(), gradients), total(gradients[0])])
