"""Distributions drawn towards a field: the kernels against plain torch and against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from oracles.make import normal
from oracles.threads import same_bytes
from warpwright.kernels import plainly, usable
from warpwright.layers.simplex import drawn

SHAPES = {"2d": (5, 7), "3d": (5, 7, 6), "flat": (9, 1, 6), "lanes": (8, 8), "a slab and one": (25, 41), "slabs": (13, 17, 11)}
BY_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def inputs(generator: torch.Generator, shape: tuple[int, ...], m: int = 11, batch: int = 2) -> tuple[Tensor, ...]:
    """Distributions, a field, a basis that is no grid, alpha; most projections are zero somewhere."""
    dim = len(shape)
    probability = normal(generator, batch, m, *shape).mul(2).softmax(1)
    basis, target = 2 * normal(generator, m, dim), normal(generator, batch, dim, *shape)
    return probability, target, basis, torch.tensor(3.0, dtype=torch.float64)


def with_gradients(given: tuple[Tensor, ...], cotangent: Tensor) -> list[Tensor]:
    wanted = [tensor.clone().requires_grad_() for tensor in given]
    found = drawn(*wanted)
    return [found.detach(), *torch.autograd.grad(found, wanted, cotangent)]


def by_loops(probability: np.ndarray, target: np.ndarray, basis: np.ndarray, alpha: float) -> np.ndarray:
    """In every voxel, what is taken from all entries is found by bisection."""
    out = np.zeros_like(target)
    for batch, *place in np.ndindex(len(target), *target.shape[2:]):
        here = (batch, slice(None), *place)
        values = probability[here] - np.square(basis - target[here]).sum(1) / (4 * alpha)
        low, high = values.max() - 1, values.max()
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.maximum(values - middle, 0).sum() > 1 else (low, middle)
        out[here] = np.maximum(values - low, 0) @ basis
    return out


def test_values_are_those_of_loops(shape: tuple[int, ...], generator: torch.Generator) -> None:
    given = inputs(generator, shape)
    expected = by_loops(*(tensor.numpy() for tensor in given[:3]), given[3].item())
    np.testing.assert_allclose(drawn(*given).numpy(), expected, rtol=0, atol=1e-13)
    with plainly():
        np.testing.assert_allclose(drawn(*given).numpy(), expected, rtol=0, atol=1e-13)


@BY_SHAPE
def test_kernels_are_their_twins(shape: tuple[int, ...], generator: torch.Generator) -> None:
    given = inputs(generator, shape)
    cotangent = normal(generator, 2, len(shape), *shape)
    with plainly():
        expected = with_gradients(given, cotangent)
    single = with_gradients(tuple(tensor.float() for tensor in given), cotangent.float())
    for found, small, wanted in zip(with_gradients(given, cotangent), single, expected, strict=True):
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)
        assert small.dtype == torch.float32
        scale = float(wanted.abs().max())  # a voxel whose support changes in single precision changes its gradient a little
        torch.testing.assert_close(small.double(), wanted, rtol=0, atol=1e-4 * scale)


def test_large_values_and_one_displacement(generator: torch.Generator) -> None:
    probability, target, basis, alpha = (tensor.float() for tensor in inputs(generator, (5, 7)))
    far = drawn(probability, target + 1e3, basis, alpha * 1e-3)  # 1e8 from zero, where single precision knows no one
    assert bool(far.isfinite().all())
    nearest = (target[:, :, None] + 1e3 - basis.T[..., None, None]).double().square().sum(1).argmin(1)
    torch.testing.assert_close(far, basis[nearest].movedim(-1, 1), rtol=0, atol=1e-5)
    one = drawn(torch.ones_like(probability[:, :1]), target, basis[:1], alpha)
    torch.testing.assert_close(one, basis[0].reshape(1, 2, 1, 1).expand_as(one), rtol=0, atol=1e-6)


def test_arguments_in_any_layout(generator: torch.Generator) -> None:
    probability, target, basis, alpha = inputs(generator, (6, 6), batch=3)
    expected = drawn(probability, target, basis, alpha)
    turned = [tensor.transpose(-1, -2).contiguous().transpose(-1, -2) for tensor in (probability, target, basis)]
    assert not any(tensor.is_contiguous() for tensor in turned)
    torch.testing.assert_close(drawn(*turned, alpha), expected, rtol=1e-12, atol=1e-12)  # torch alone may sum in another order
    same = drawn(probability[:1].expand(3, -1, -1, -1), target[:1].expand(3, -1, -1, -1), basis, alpha)
    torch.testing.assert_close(same, expected[:1].expand_as(same), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("plain", [False, True], ids=["kernels", "plain"])
@pytest.mark.parametrize("shape", [(3, 2), (2, 1, 3)], ids=("2d", "3d"))
def test_derivatives(shape: tuple[int, ...], plain: bool, generator: torch.Generator) -> None:
    given = [tensor.requires_grad_() for tensor in inputs(generator, shape, m=4, batch=1)]
    if plain:
        with plainly():
            assert gradcheck(drawn, given)
    else:
        assert gradcheck(drawn, given)
        assert gradgradcheck(drawn, given)  # by the twin, whose derivatives are differentiated


def test_no_more_is_computed_back_than_is_asked(generator: torch.Generator) -> None:
    """The distributions and the field have the same cotangents, whether the basis and alpha are learned or not."""
    probability, target, basis, alpha = inputs(generator, (5, 7))
    cotangent = normal(generator, 2, 2, 5, 7)
    _, *expected = with_gradients((probability, target, basis, alpha), cotangent)
    wanted = [probability.requires_grad_(), target.requires_grad_()]
    for found, whole in zip(torch.autograd.grad(drawn(*wanted, basis, alpha), wanted, cotangent), expected[:2], strict=True):
        assert torch.equal(found, whole)


def test_nothing_but_the_arguments_is_kept(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    given = [tensor.requires_grad_() for tensor in inputs(generator, (5, 7))]
    assert usable(*given)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        drawn(*given)
    assert set(kept) == {tensor.data_ptr() for tensor in given}


def test_operators(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    given, cotangent = inputs(generator, (5, 7), m=4), normal(generator, 2, 2, 5, 7)
    torch.library.opcheck(
        torch.ops.warpwright.drawn_back, (*given, cotangent, True), test_utils=("test_schema", "test_faketensor")
    )
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(torch.ops.warpwright.drawn, tuple(one.requires_grad_() for one in given), test_utils=checks)


def test_threads_change_no_byte(generator: torch.Generator) -> None:
    pytest.importorskip("numba")  # the twins are sums of torch's, whose bytes the threads change on some processors
    shape = (40, 33, 7)
    given = inputs(generator, shape)  # in double precision: sums are rounded to it as they are made, so their order counts
    cotangent = normal(generator, 2, 3, *shape)
    assert same_bytes(lambda: with_gradients(given, cotangent))
