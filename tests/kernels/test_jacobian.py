"""Jacobian determinants against NumPy, against their twin, and as an operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from oracles.make import normal
from oracles.threads import same_bytes
from warpwright.geometry import jacobian_determinant
from warpwright.kernels import plainly

SHAPES = {"2d": (5, 7), "3d": (5, 7, 6), "two": (2, 2, 2), "flat": (5, 1, 6), "line": (1, 9)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_and_gradients_are_those_of_the_twin(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field, weights = normal(generator, 2, len(shape), *shape), normal(generator, 2, *shape)

    def compute() -> tuple[Tensor, Tensor]:
        u = field.clone().requires_grad_()
        out = jacobian_determinant(u)
        return out.detach(), torch.autograd.grad(out, u, weights)[0]

    with plainly():
        expected = compute()
    for found, wanted in zip(compute(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_numpys_differences_and_lapacks_determinant(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = normal(generator, 1, len(shape), *shape)
    slopes = np.stack([np.stack(list(np.gradient(channel.numpy()))) for channel in field[0]])
    matrices = np.moveaxis(slopes, (0, 1), (-2, -1)) + np.eye(len(shape))
    np.testing.assert_allclose(jacobian_determinant(field)[0], np.linalg.det(matrices), atol=1e-12)


def test_a_single_voxel_keeps_its_size(dim: int, generator: torch.Generator) -> None:
    assert jacobian_determinant(normal(generator, 1, dim, *(1,) * dim)).item() == 1


def test_single_precision(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = normal(generator, 1, len(shape), *shape)
    found = jacobian_determinant(field.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), jacobian_determinant(field), rtol=0, atol=1e-4)


def test_derivatives(dim: int, generator: torch.Generator) -> None:
    field = normal(generator, 1, dim, *(3, 4, 3)[:dim]).requires_grad_()
    assert gradcheck(jacobian_determinant, field)
    assert gradgradcheck(jacobian_determinant, field)


def test_operator(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    torch.library.opcheck(torch.ops.warpwright.jacobian_determinant, (normal(generator, 2, 2, 4, 5).requires_grad_(),))


def test_threads_change_no_byte(generator: torch.Generator) -> None:
    field = normal(generator, 1, 3, 40, 33, 37).float()
    assert same_bytes(lambda: (jacobian_determinant(field),))
