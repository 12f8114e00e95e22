"""Composition of displacements against its twin, and as an operator. SciPy is asked in tests/transforms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from oracles.make import normal, smooth_field
from oracles.threads import same_bytes
from warpwright.kernels import plainly
from warpwright.transforms import compose

SHAPES = {"2d": (5, 7), "3d": (5, 7, 6), "flat": (5, 1, 6), "line": (1, 9)}


@pytest.mark.parametrize("batches", [(2, 2), (1, 2), (2, 1)])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_fields_and_gradients_are_those_of_the_twin(
    shape: tuple[int, ...], batches: tuple[int, int], generator: torch.Generator
) -> None:
    outer, inner = (2 * normal(generator, batch, len(shape), *shape) for batch in batches)
    weights = normal(generator, 2, len(shape), *shape)

    def compute() -> tuple[Tensor, ...]:
        inputs = (outer.clone().requires_grad_(), inner.clone().requires_grad_())
        out = compose(*inputs)
        return (out.detach(), *torch.autograd.grad(out, inputs, weights))

    with plainly():
        expected = compute()
    for found, wanted in zip(compute(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_single_precision(shape: tuple[int, ...], generator: torch.Generator) -> None:
    outer, inner = normal(generator, 1, len(shape), *shape), normal(generator, 1, len(shape), *shape)
    found = compose(outer.float(), inner.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), compose(outer, inner), rtol=0, atol=2e-5)


def test_derivatives(shape: tuple[int, ...], generator: torch.Generator) -> None:
    outer, inner = normal(generator, 1, len(shape), *shape), smooth_field(shape, 0.4) + 0.3  # away from the voxels' centres
    inputs = (outer.requires_grad_(), inner.requires_grad_())
    assert gradcheck(compose, inputs)
    assert gradgradcheck(compose, inputs)


def test_operator(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    fields = [normal(generator, 2, 2, 3, 4).requires_grad_() for _ in range(2)]
    torch.library.opcheck(torch.ops.warpwright.compose, tuple(fields))


def test_threads_change_no_byte(generator: torch.Generator) -> None:
    outer, inner = (3 * normal(generator, 1, 3, 40, 33, 37).float() for _ in range(2))

    def compute() -> tuple[Tensor, ...]:
        inputs = (outer.clone().requires_grad_(), inner.clone().requires_grad_())
        out = compose(*inputs)
        return (out.detach(), *torch.autograd.grad(out, inputs, outer))

    assert same_bytes(compute)


def test_in_owned_memory(shape: tuple[int, ...], generator: torch.Generator) -> None:
    outer, inner = (2 * normal(generator, 2, len(shape), *shape) for _ in range(2))
    expected, given = compose(outer, inner), inner.clone()
    with torch.no_grad():
        found = compose(outer, inner, owned=True)
    assert torch.equal(found, expected)
    graph = compose(outer, given.requires_grad_(), owned=True)
    assert graph.requires_grad
    torch.testing.assert_close(graph.detach(), expected)
