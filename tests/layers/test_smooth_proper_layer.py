"""SmoothProper: gradients of everything, what is kept for them, precision, permuted axes, the layer's settings, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from layers_distributions import BY_KIND, evidence, logits_of, run
from torch import Tensor
from torch.autograd import gradcheck

from oracles.make import normal, orders, permute_field, permute_image
from warpwright.errors import BadInput
from warpwright.kernels import plainly
from warpwright.layers import Smoothed, SmoothProper, smooth_proper
from warpwright.networks import Basis, Displacement

# ---------------------------------------------------------------------------------------------- gradients and numbers


@BY_KIND
@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 2)], ids=("2d", "3d"))
def test_gradients(kind: Any, shape: tuple[int, ...], generator: torch.Generator) -> None:
    """Of the field and the expectation, in the evidence, the displacements, every alpha and beta."""
    probability, vectors = evidence(generator, shape, Basis(reach=1))
    chosen = slice(0, None, 2 if len(shape) == 2 else 6)  # five displacements
    logits = probability.log()[:, chosen].requires_grad_()
    vectors = (vectors[chosen] + 0.1 * normal(generator, *vectors[chosen].shape)).requires_grad_()
    alphas = torch.tensor([4.0, 1.5], dtype=torch.float64, requires_grad=True)
    beta = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)

    def function(logits: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        found = smooth_proper(logits.softmax(1), *others, q_step=kind, start=1.0)
        return found.field, found.expectation

    assert gradcheck(function, (logits, vectors, alphas, beta), fast_mode=True)


@pytest.mark.parametrize("how", [{"q_step": "split"}, {"v_solver": "gaussian"}], ids=("plain", "gaussian"))
def test_gradients_of_other_paths(how: dict[str, Any], dim: int, generator: torch.Generator) -> None:
    probability, vectors = evidence(generator, (2, 3, 1)[:dim], Basis(reach=1))
    logits = probability.log().requires_grad_()

    def function(logits: Tensor) -> Tensor:
        return run(logits.softmax(1), vectors, [4.0, 1.5], 0.9, **how).field

    if "q_step" in how:
        with plainly():
            assert gradcheck(function, (logits,), fast_mode=True)
    else:
        assert gradcheck(function, (logits,), fast_mode=True)


@BY_KIND
@pytest.mark.parametrize("part", ["learned", "learned_basis"])
def test_alphas_beta_and_basis_are_learned(kind: Any, part: str, shape: tuple[int, ...], generator: torch.Generator) -> None:
    """They begin where the settings are, as factors of one; their gradients are differences of the result."""
    basis = Basis(reach=2)
    given = logits_of(evidence(generator, shape, basis)[0], basis)
    settings = {"iterations": 3, "q_step": kind, "last": 1.0}
    fixed, layer = (SmoothProper(**{part: learned}, **settings).build(len(shape)).double() for learned in (False, True))
    assert list(fixed.parameters()) == []
    learned = dict(layer.named_parameters())
    axes = (len(shape),)
    wanted = {
        "learned": {"log_alphas": (3,), "log_beta": ()},
        "learned_basis": {"log_stretch": axes, "log_exponent": axes},
    }
    assert {name: tuple(value.shape) for name, value in learned.items()} == wanted[part]
    weight = normal(generator, 1, len(shape), *shape)

    def loss() -> Tensor:
        return (cast(Displacement, layer(given)).values * weight).sum()

    torch.testing.assert_close(
        cast(Displacement, layer(given)).values, cast(Displacement, fixed(given)).values, rtol=0, atol=1e-12
    )
    loss().backward()
    for name, value in learned.items():
        assert value.grad is not None
        for k in range(value.numel()):
            ends: list[float] = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    value.view(-1)[k] += step
                    ends.append(float(loss()))
                    value.view(-1)[k] -= step
            slope = float(value.grad.view(-1)[k])
            assert abs(slope) > 1e-3, name
            assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-6), name


def test_a_learned_basis_finds_displacements_that_the_grid_lacks(dim: int) -> None:
    """Evidence for the neighbour of zero along one axis, which is to be 1.3 voxels off; zero and the other axes stay."""
    basis = Basis(reach=2)
    vectors = basis.vectors(dim)
    wanted = torch.zeros(dim)
    wanted[0] = 1.0
    logits = torch.where((vectors == wanted).all(1), 20.0, 0.0).reshape(1, -1, *[1] * dim).expand(1, -1, *[4] * dim)
    given = logits_of(logits.softmax(1), basis)
    layer = SmoothProper(learned_basis=True).build(dim)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        found = cast(Displacement, layer(given)).values
        (found[:, 0] - 1.3).square().mean().backward()
        optimiser.step()
    assert float(found[:, 0].detach().mean()) == pytest.approx(1.3, abs=0.02)
    assert float(found[:, 1:].detach().abs().max()) < 0.02


@BY_KIND
def test_a_gradient_changes_no_value(kind: Any, shape: tuple[int, ...], generator: torch.Generator) -> None:
    probability, vectors = evidence(generator, shape, Basis(reach=2), batch=2)
    without = run(probability, vectors, [20.0, 6.0, 2.0], q_step=kind)
    found = run(probability.requires_grad_(), vectors, [20.0, 6.0, 2.0], q_step=kind)
    assert found.field.requires_grad
    for one, other in ((found.field, without.field), (found.expectation, without.expectation)):
        assert torch.equal(one, other)
    assert torch.equal(found.distribution(), without.distribution())


@pytest.mark.parametrize("plain", [False, True], ids=["kernels", "plain"])
@BY_KIND
def test_nothing_as_large_as_the_evidence_is_kept(kind: Any, plain: bool, generator: torch.Generator) -> None:
    probability, vectors = evidence(generator, (5, 7), Basis(reach=2), batch=2)
    probability.requires_grad_()
    kept: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().nbytes() >= probability.numel():  # a byte for each entry would count
            kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    def compute() -> Smoothed:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            return run(probability, vectors.clone(), [20.0, 6.0, 2.0], q_step=kind)

    if plain:
        with plainly():
            compute()
    else:
        compute()
    assert {where for where in kept if where != probability.untyped_storage().data_ptr()} == set()
    assert kept


@BY_KIND
def test_single_precision(kind: Any, shape: tuple[int, ...], generator: torch.Generator) -> None:
    probability, vectors = evidence(generator, shape, Basis(reach=2), batch=2)
    alphas = SmoothProper().alphas(2, 1)
    expected = run(probability, vectors, alphas, q_step=kind)
    found = run(probability.float(), vectors, alphas, q_step=kind)
    for one, other in ((found.field, expected.field), (found.expectation, expected.expectation)):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", ["exact", "gaussian"])
@BY_KIND
def test_axes_have_no_order(kind: Any, solver: Any, shape: tuple[int, ...], generator: torch.Generator) -> None:
    probability, vectors = evidence(generator, shape, Basis(reach=2))
    expected = run(probability, vectors, [20.0, 6.0, 2.0], q_step=kind, v_solver=solver)
    for order in orders(len(shape)):
        turned = permute_image(probability, order)
        found = run(turned, vectors[:, list(order)], [20.0, 6.0, 2.0], q_step=kind, v_solver=solver)
        torch.testing.assert_close(found.field, permute_field(expected.field, order), rtol=0, atol=1e-10)
        torch.testing.assert_close(found.distribution(), permute_image(expected.distribution(), order), rtol=0, atol=1e-10)


# ----------------------------------------------------------------------------------------------- the layer's settings


def test_alphas_fall_geometrically_from_reach_to_step() -> None:
    found = SmoothProper(iterations=5, first=5, last=2).alphas(reach=8, step=0.5)
    assert found[0] == pytest.approx(5 * 64)
    assert found[-1] == pytest.approx(2 * 0.25)
    assert [b / a for a, b in pairwise(found)] == pytest.approx([(0.5 / 320) ** 0.25] * 4)
    assert SmoothProper(iterations=1, first=3).alphas(reach=2, step=1) == pytest.approx([12])


@pytest.mark.parametrize("output", ["field", "expectation"])
@pytest.mark.parametrize("solver", ["exact", "gaussian"])
@BY_KIND
def test_the_layer_is_the_function(
    kind: Any, solver: Any, output: Any, shape: tuple[int, ...], generator: torch.Generator
) -> None:
    basis, dim = Basis(reach=3, step=1.5), len(shape)
    probability, vectors = evidence(generator, shape, basis, batch=2)
    settings = SmoothProper(iterations=4, first=3, last=1.2, beta=0.4, start=2, q_step=kind, v_solver=solver, output=output)
    found = settings.build(dim)(logits_of(probability, basis))
    expected = run(probability, vectors, settings.alphas(3, 1.5), 0.4, start=2, q_step=kind, v_solver=solver)
    assert isinstance(found, Displacement)
    assert (found.shape, found.factors, found.inverse) == (shape, (1,) * dim, None)
    torch.testing.assert_close(found.values, getattr(expected, output), rtol=0, atol=1e-10)
    assert not torch.allclose(expected.field, expected.expectation, atol=1e-3)


# ------------------------------------------------------------------------------------------------------------ refusals


def flat(m: int = 9, shape: tuple[int, ...] = (3, 4)) -> Tensor:
    return torch.full((1, m, *shape), 1 / m, dtype=torch.float64)


def changed(place: tuple[int, ...], by: float) -> Tensor:
    out = flat()
    out[place] += by
    return out


def shifted() -> Tensor:
    """Negative, but its sums are one."""
    out = flat()
    out[0, 0, 1, 2], out[0, 1, 1, 2] = -0.5, 1 / 9 + 0.5 + 1 / 9
    return out


BASIS = Basis(reach=1).vectors(2).double()
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: run(flat(), BASIS, [1.0, 0.0]), r"alpha and beta must be positive, got \[1.0, 0.0\] and 1.3"),
    (lambda: run(flat(), BASIS, [1.0, -2.0]), r"alpha and beta must be positive, got \[1.0, -2.0\] and 1.3"),
    (lambda: run(flat(), BASIS, [1.0, math.nan]), r"alpha and beta must be positive, got \[1.0, nan\] and 1.3"),
    (lambda: run(flat(), BASIS, [1.0], 0.0), r"alpha and beta must be positive, got \[1.0\] and 0.0"),
    (lambda: run(flat(), BASIS, []), r"an alpha for each of at least 1 iteration was expected, got \(0,\)"),
    (
        lambda: run(changed((0, 2, 1, 1), 0.25), BASIS, [1.0]),
        "must not be negative and sum to one in every voxel, one is 0.25 off",
    ),
    (lambda: run(flat() * 0, BASIS, [1.0]), "must not be negative and sum to one in every voxel, one is 1 off"),
    (lambda: run(shifted(), BASIS, [1.0]), "must not be negative and sum to one in every voxel"),
    (
        lambda: run(changed((0, 2, 1, 1), math.nan), BASIS, [1.0]),
        "must not be negative and sum to one in every voxel, one is nan",
    ),
    (lambda: run(flat(8), BASIS, [1.0]), r"a basis \(m, D\) .* were expected, got \(1, 8, 3, 4\) and \(9, 2\)"),
    (lambda: run(flat(shape=(3, 4, 2)), BASIS, [1.0]), r"were expected, got \(1, 9, 3, 4, 2\) and \(9, 2\)"),
    (lambda: run(flat(), BASIS[:, 0], [1.0]), r"were expected, got \(1, 9, 3, 4\) and \(9,\)"),
    (lambda: SmoothProper(iterations=0), "SmoothProper needs at least 1 iteration, got 0"),
    (lambda: SmoothProper(first=0), "SmoothProper's first must be positive and finite, got 0"),
    (lambda: SmoothProper(last=-1), "SmoothProper's last must be positive and finite, got -1"),
    (lambda: SmoothProper(beta=math.nan), "SmoothProper's beta must be positive and finite, got nan"),
    (lambda: SmoothProper(start=math.inf), "SmoothProper's start must be positive and finite, got inf"),
    (
        lambda: SmoothProper(learned=True, v_solver="gaussian"),
        "learns its alphas and beta .* exact v_solver only, got gaussian",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), BAD, ids=range(len(BAD)))
def test_bad_input_is_named(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as error:
        call()
    assert "\n" not in str(error.value)
