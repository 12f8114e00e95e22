"""Muon: what is done to a kernel's momentum, which weights it is done to, and Adam for the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from warpwright.methods.orthogonal import POLYNOMIAL, orthogonalised
from warpwright.schemes import Muon


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 6), (1, 5)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e9])
def test_singular_values_become_alike_and_vectors_stay(shape: tuple[int, int], scale: float) -> None:
    matrix = drawn(*shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.mT @ orthogonalised(scale * matrix) @ v.mT
    values = inside.diagonal()
    torch.testing.assert_close(inside, torch.diag(values), rtol=0, atol=1e-9)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.25


@pytest.mark.parametrize("shape", [(64, 900), (900, 64), (48, 48)])
def test_single_precision_keeps_directions_of_any_size(shape: tuple[int, int]) -> None:
    """Against the polynomial of the singular values themselves, which fall over six decades."""
    u, _, v = torch.linalg.svd(drawn(*shape), full_matrices=False)
    values = torch.logspace(0, -6, len(v), dtype=torch.float64)
    expected = values / values.norm()
    for _ in range(5):
        expected = POLYNOMIAL[0] * expected + POLYNOMIAL[1] * expected**3 + POLYNOMIAL[2] * expected**5
    found = orthogonalised((u * values @ v).float()).double()
    torch.testing.assert_close(found, u * expected @ v, rtol=0, atol=1e-3)


def test_a_short_dtype_is_raised_for_the_square() -> None:
    """One direction and faint others, which rounding of the square would drown."""
    matrix = (drawn(24, 1) @ drawn(1, 90, seed=1) + 1e-3 * drawn(24, 90, seed=2)).to(torch.bfloat16)
    found = orthogonalised(matrix)
    assert found.dtype == torch.bfloat16
    assert float(torch.linalg.svdvals(found.double())[0]) < 1.3


def test_nothing_of_nothing() -> None:
    assert not orthogonalised(torch.zeros(4, 6)).any()


def follow(weights: list[Tensor], optimiser: torch.optim.Optimizer, steps: int = 3) -> list[list[Tensor]]:
    """The gradients of some steps that were taken with them."""
    gradients = [[drawn(*w.shape, seed=10 * k + j) for j, w in enumerate(weights)] for k in range(steps)]
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        optimiser.step()
    return gradients


@pytest.mark.parametrize("shape", [(5, 2, 3, 3), (4, 3, 1, 2, 2), (8, 5)])
def test_kernels_follow_nesterovs_momentum(shape: tuple[int, ...]) -> None:
    kernel = drawn(*shape, seed=99).requires_grad_(True)
    expected = kernel.detach().clone()
    gradients = follow([kernel], Muon(rate=0.02, momentum=0.8).build([kernel]))
    momentum = torch.zeros_like(expected)
    width = max(shape[0], expected[0].numel())
    for (gradient,) in gradients:
        momentum = 0.8 * momentum + 0.2 * gradient
        matrix = (0.2 * gradient + 0.8 * momentum).reshape(shape[0], -1)
        expected -= 0.02 * 0.2 * width**0.5 * orthogonalised(matrix).reshape(shape)
    torch.testing.assert_close(kernel.detach(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(7,), (3, 8, 3, 3), (2, 8, 3, 3), ()])
def test_biases_and_heads_follow_adam(shape: tuple[int, ...]) -> None:
    ours, theirs = (drawn(*shape, seed=99).requires_grad_(True) for _ in range(2))
    follow([ours], Muon(rate=0.02, others=0.25).build([ours]))
    follow([theirs], torch.optim.Adam([theirs], 0.005))
    torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=0, atol=1e-10)


def test_a_weight_without_gradient_stays() -> None:
    kernel, bias = drawn(5, 4).requires_grad_(True), drawn(5).requires_grad_(True)
    before = kernel.detach().clone()
    optimiser = Muon(rate=0.1).build([kernel, bias])
    bias.grad = torch.ones_like(bias)
    optimiser.step()
    assert torch.equal(kernel, before)
    assert kernel not in optimiser.state
