"""The correlation kernel against its twin and a loop, and as an operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from oracles import slow
from oracles.make import normal, smooth_field
from oracles.threads import same_bytes
from warpwright.energies.similarity.lncc import LNCC
from warpwright.kernels import plainly

SHAPES = {"2d": (23, 7), "3d": (23, 18, 6), "flat": (5, 1, 6), "line": (1, 9), "point": (1, 1, 1), "wide": (2, 3, 600)}
RADII = [1, 2, 3, 4, 7, (0, 3, 1), (5, 0, 0)]


def images(generator: torch.Generator, *shape: int) -> tuple[Tensor, Tensor]:
    fixed = normal(generator, *shape)
    return 0.5 * fixed + normal(generator, *shape) + 10, fixed


def value_and_gradient(lncc: LNCC, moved: Tensor, fixed: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of twice the first sample's energy plus that of the others."""
    moved = moved.clone().requires_grad_()
    value = lncc.similarity(moved, fixed, weight)
    cotangent = torch.ones_like(value)
    cotangent[0] = 2
    return value.detach(), torch.autograd.grad(value, moved, cotangent)[0]


def weight_of(kind: str, generator: torch.Generator, *shape: int) -> Tensor | None:
    if kind == "none":
        return None
    weight = torch.rand(2 if kind == "own" else 1, 1, *shape, generator=generator, dtype=torch.float64)
    weight[:, :, : shape[0] // 3] = 0
    return weight


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("radius", RADII, ids=str)
@pytest.mark.parametrize("weighted", ["none", "own", "shared"])
def test_value_and_gradient_are_those_of_the_twin(
    shape: tuple[int, ...], radius: int | tuple[int, ...], weighted: str, generator: torch.Generator
) -> None:
    lncc = LNCC(radius=radius if isinstance(radius, int) else radius[: len(shape)], epsilon=1e-2)
    moved, fixed = images(generator, 2, 2, *shape)
    weight = weight_of(weighted, generator, *shape)
    with plainly():
        expected = value_and_gradient(lncc, moved, fixed, weight)
    found = value_and_gradient(lncc, moved, fixed, weight)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-9, atol=1e-10 * (1e-3 + expected[1].abs().max().item()))
    with torch.no_grad():
        torch.testing.assert_close(lncc.similarity(moved, fixed, weight), expected[0], rtol=1e-12, atol=1e-13)


def test_windows_against_a_loop(generator: torch.Generator) -> None:
    shape, radius, epsilon = (21, 5, 19), (4, 1, 6), 1e-3
    moved, fixed = images(generator, *shape)
    w = torch.rand(*shape, generator=generator, dtype=torch.float64).numpy()
    m, f = moved.numpy(), fixed.numpy()

    def mean(values: np.ndarray) -> np.ndarray:
        return slow.box_sum(w * values, radius) / slow.box_sum(w, radius)

    covariance = mean(m * f) - mean(m) * mean(f)
    variances = (mean(m * m) - mean(m) ** 2 + epsilon) * (mean(f * f) - mean(f) ** 2 + epsilon)
    expected = (w * (1 - (abs(covariance) + epsilon) ** 2 / variances)).sum() / w.sum()
    value = LNCC(radius=radius, epsilon=epsilon).similarity(*(torch.as_tensor(t)[None, None] for t in (m, f, w)))
    assert value.item() == pytest.approx(expected, abs=1e-11)


def test_one_sample_broadcasts(generator: torch.Generator) -> None:
    moved, fixed = images(generator, 2, 1, 6, 5, 4)
    for one, other in ((moved[:1], fixed), (moved, fixed[:1])):
        with plainly():
            expected = value_and_gradient(LNCC(), one, other, None)
        torch.testing.assert_close(value_and_gradient(LNCC(), one, other, None), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_single_precision(weighted: bool) -> None:
    shape = (50, 40, 30)
    waves = smooth_field(shape, 0.5, channels=4)
    fixed, moved = 1000 + waves[:, 1:2] + waves[:, 3:], 0.7 * waves[:, 1:2] + 0.3 * waves[:, 2:3]
    weight = (waves[:, :1] > 0.01).double() if weighted else None
    wanted = value_and_gradient(LNCC(epsilon=1e-3), moved, fixed.float().double(), weight)
    found = value_and_gradient(LNCC(epsilon=1e-3), moved.float(), fixed.float(), None if weight is None else weight.float())
    assert found[0].dtype == found[1].dtype == torch.float32
    torch.testing.assert_close(found[0].double(), wanted[0], rtol=0, atol=1e-6)
    assert (found[1] - wanted[1]).abs().max() < 2e-5 * wanted[1].abs().max()


def test_weights_that_end_leave_nothing_behind(generator: torch.Generator) -> None:
    moved, fixed = images(generator, 1, 1, 20, 20, 20)
    weight = torch.zeros(1, 1, 20, 20, 20)
    weight[..., :9, :9, :9] = 1e3 * torch.rand(9, 9, 9, generator=generator)
    value, gradient = value_and_gradient(LNCC(), moved.float(), fixed.float(), weight)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert not gradient[weight == 0].any()


def test_derivatives(dim: int, generator: torch.Generator) -> None:
    shape = (4, 3, 3)[:dim]
    moved, fixed = images(generator, 2, 1, *shape)
    weight = torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64)
    moved.requires_grad_()
    assert gradcheck(lambda m: LNCC(radius=1, epsilon=1e-2).similarity(m, fixed, weight), moved)
    assert gradgradcheck(lambda m: LNCC(radius=1, epsilon=1e-2).similarity(m, fixed, weight), moved)


def test_operator(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    moved, fixed = images(generator, 1, 1, 4, 5)
    LNCC().similarity(moved, fixed)  # registers
    operator = torch.ops.warpwright.lncc
    for weight in (None, torch.ones_like(fixed)):
        torch.library.opcheck(operator, (moved.clone().requires_grad_(), fixed, weight, [2, 1], 1e-4, True))
    torch.library.opcheck(operator, (moved, fixed, None, [2, 1], 1e-4, False))


def test_compiled(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    moved, fixed = images(generator, 1, 1, 6, 5)
    moved.requires_grad_()
    (expected,) = torch.autograd.grad(LNCC().similarity(moved, fixed).sum(), moved)
    compiled = torch.compile(lambda m: LNCC().similarity(m, fixed).sum(), fullgraph=True, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(moved), moved)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(67, 33, 37), (90, 41)])
def test_threads_change_no_byte(shape: tuple[int, ...], generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    moved, fixed = (t.float() for t in images(generator, 1, 1, *shape))
    weight = torch.rand(1, 1, *shape, generator=generator)
    for given in (None, weight):
        assert same_bytes(lambda given=given: value_and_gradient(LNCC(), moved, fixed, given))
