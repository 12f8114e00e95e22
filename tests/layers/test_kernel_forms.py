"""Forms of kernels: how each begins, what each keeps whatever its weights are, and gradients."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve
from torch import Tensor, nn
from torch.autograd import gradcheck

from oracles.make import normal
from warpwright.layers import KernelSmoothing, SmoothingKernel
from warpwright.layers.kernel_forms import Autocorrelation, Gaussian, Kernel, Line, Product, UpperProduct, outer
from warpwright.layers.kernel_properties import diagnostics
from warpwright.layers.kernel_smoothing import Form, made

FORMS: list[tuple[Form, int]] = [
    (form, dim) for form in ("free", "uut", "separable", "autocorrelation", "gaussian") for dim in (2, 3)
]
FORMS.remove(("uut", 3))
EVERY = pytest.mark.parametrize(("form", "dim"), FORMS)
PRODUCTS = pytest.mark.parametrize("form", ["separable", "autocorrelation", "gaussian"])


def layer(form: Form, dim: int, **settings: Any) -> SmoothingKernel:
    return KernelSmoothing(form=form, **settings).build(dim).double()


def drawn(module: nn.Module, generator: torch.Generator, size: float = 1.0) -> nn.Module:
    """With random weights."""
    for parameter in module.parameters():
        parameter.data = size * normal(generator, *parameter.shape)
    return module


def random(form: Form, groups: tuple[int, ...], taps: int, count: int, generator: torch.Generator) -> Kernel:
    kernel = made(form, tuple(Line(taps, 1.0) for _ in groups), groups, count).double()
    drawn(kernel, generator)
    return kernel


def line(taps: int, sigma: float) -> np.ndarray:
    values = np.exp(-0.5 * ((np.arange(taps) - taps // 2) / sigma) ** 2)
    return values / values.sum()


def product_of(lines: list[np.ndarray]) -> np.ndarray:
    return reduce(np.multiply.outer, lines)


def test_a_product_of_lines(dim: int, generator: torch.Generator) -> None:
    lines = tuple(normal(generator, 2, m) for m in (3, 5, 4)[:dim])
    found = outer(lines).numpy()
    for c in range(2):
        np.testing.assert_allclose(found[c], product_of([one[c].numpy() for one in lines]), rtol=1e-14)


@EVERY
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.9, 1.5, 0.9)], ids=("cubes", "boxes"))
def test_every_form_begins_as_a_gaussian_of_one_width_in_mm(form: Form, dim: int, spacing: tuple[float, ...]) -> None:
    spacing = (1.0, 1.0) if form == "uut" else spacing[:dim]
    found = layer(form, dim, taps=13, spacing=spacing).kernels().detach().numpy()
    assert found.shape == (dim, *(13,) * dim)
    assert found.sum(tuple(range(1, dim + 1))) == pytest.approx([1.0] * dim, abs=1e-6)
    sigmas = [13 / 6 * min(spacing) / s for s in spacing]
    expected = product_of([line(13, sigma) for sigma in sigmas])
    close = {"autocorrelation": 0.13, "uut": 5e-3}.get(form, 1e-6)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=0, atol=close * expected.max())
    at = np.arange(13) - 6
    for axis, s in enumerate(spacing):
        profile = found[0].sum(tuple(k for k in range(dim) if k != axis))
        width = math.sqrt((profile * at**2).sum()) * s
        assert width == pytest.approx(13 / 6 * min(spacing), rel=0.08 if form == "autocorrelation" else 0.02)


@pytest.mark.parametrize(("form", "dim"), [case for case in FORMS if case[0] != "gaussian"])
def test_a_delta_is_one_tap_to_begin_with(form: Form, dim: int) -> None:
    found = layer(form, dim, start="delta", taps=7, normalised=False).kernels()
    expected = torch.zeros_like(found)
    expected[(slice(None), *(3,) * dim)] = 1
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4 if form == "uut" else 0)


@pytest.mark.parametrize("groups", [(0, 0), (0, 1), (0, 0, 0), (0, 1, 0), (0, 1, 2)])
def test_autocorrelations_are_all_that_a_kernel_should_be(groups: tuple[int, ...], generator: torch.Generator) -> None:
    kernel = random("autocorrelation", groups, 13, 4, generator)
    found = diagnostics(kernel.dense(), groups)
    assert found["asymmetry"] < 1e-12
    assert found["imaginary"] < 1e-12
    assert found["rank"] < 1e-7
    assert found["spectrum"] > -1e-12
    if max(groups) == 0:
        assert found["anisotropy"] > 0.05  # only a Gaussian is round
    if groups == (0, 0):
        assert found["matrix"] > -1e-12
    assert isinstance(kernel, Autocorrelation)
    part = kernel.part.detach().numpy()
    assert part.shape == (4, max(groups) + 1, 7)
    for c in range(4):
        lines = [fftconvolve(part[c, g], part[c, g][::-1]) for g in groups]
        np.testing.assert_allclose(kernel.dense()[c].detach().numpy(), product_of(lines), rtol=0, atol=1e-12)


@pytest.mark.parametrize("groups", [(0, 0), (0, 1), (0, 0, 0), (0, 1, 0), (0, 1, 2)])
def test_separable_kernels_are_products_of_palindromes(groups: tuple[int, ...], generator: torch.Generator) -> None:
    kernel = random("separable", groups, 7, 3, generator)
    (weights,) = [p.detach().numpy() for p in kernel.parameters()]
    assert weights.shape == (3, max(groups) + 1, 4)
    for c in range(3):
        lines = [np.array([weights[c, g, abs(k)] for k in range(-3, 4)]) for g in groups]
        np.testing.assert_allclose(kernel.dense()[c].detach().numpy(), product_of(lines), rtol=0, atol=1e-14)
    found = diagnostics(kernel.dense(), groups)
    assert found["asymmetry"] < 1e-12
    assert found["rank"] < 1e-7
    assert found["spectrum"] < -0.05  # what an autocorrelation mends
    other = diagnostics(kernel.dense(), (0,) * len(groups))["asymmetry"]
    assert (other > 0.05) == (max(groups) > 0)


def test_upper_products_are_positive_matrices_and_no_more(generator: torch.Generator) -> None:
    kernel = random("uut", (0, 0), 13, 3, generator)
    assert isinstance(kernel, UpperProduct)
    found = kernel.dense().detach().numpy()
    above, diagonal = (p.detach().numpy() for p in (kernel.above, kernel.diagonal))
    for c in range(3):
        upper = np.where(np.arange(13)[:, None] < np.arange(13), above[c], 0) + np.diag(np.log1p(np.exp(diagonal[c])))
        np.testing.assert_allclose(found[c], upper @ upper.T, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found[c], found[c].T, rtol=0, atol=1e-14)
        assert np.linalg.eigvalsh(found[c]).min() > 0
    figures = diagnostics(kernel.dense(), (0, 0))
    assert figures["matrix"] > 0
    assert figures["asymmetry"] > 0.3
    assert figures["spectrum"] < -0.05
    (slopes,) = torch.autograd.grad(kernel.dense().square().sum(), kernel.above)
    assert slopes.tril().abs().max() == 0  # 91 numbers of 169
    assert slopes.triu(1).abs().max() > 0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 2.1)], ids=("cubes", "boxes"))
def test_the_width_of_gaussians_is_learned_for_each_component(spacing: tuple[float, ...], dim: int) -> None:
    module = layer("gaussian", dim, taps=15, spacing=spacing[:dim])
    assert isinstance(module.kernel, Gaussian)
    assert [tuple(p.shape) for p in module.parameters()] == [(dim,)]
    factors = [0.5, 0.8, 1.1][:dim]
    module.kernel.log_width.data = torch.tensor(factors, dtype=torch.float64).log()
    found = module.kernels().detach().numpy()
    for c, factor in enumerate(factors):
        sigmas = [factor * 15 / 6 * spacing[0] / s for s in spacing[:dim]]
        np.testing.assert_allclose(found[c], product_of([line(15, sigma) for sigma in sigmas]), rtol=0, atol=1e-7)


@PRODUCTS
def test_axes_of_one_spacing_share_a_line_and_components_do_not(form: Form, generator: torch.Generator) -> None:
    module = layer(form, 3, taps=5, spacing=(1.0, 2.0, 1.0))
    drawn(module, generator, 0.5)
    assert isinstance(module.kernel, Product)
    first, second, third = module.kernel.lines()
    assert torch.equal(first, third)
    assert (first - second).abs().max() > 0.01
    assert (first[0] - first[1]).abs().max() > 0.01
    alone = layer(form, 3, taps=5, shared=True)
    assert alone.kernels().shape == (1, 5, 5, 5)
    assert sum(p.numel() for p in alone.parameters()) == (1 if form == "gaussian" else 3)


@EVERY
def test_normalised_kernels_have_sum_one_whatever_the_weights(form: Form, dim: int, generator: torch.Generator) -> None:
    module = layer(form, dim, taps=5)
    for parameter in module.parameters():
        parameter.data = 0.5 + torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
    found = module.kernels()
    torch.testing.assert_close(found.flatten(1).sum(1), torch.ones(dim, dtype=torch.float64), rtol=0, atol=1e-13)
    raw = SmoothingKernel(KernelSmoothing(form=form, taps=5, normalised=False), dim).double()
    raw.load_state_dict(module.state_dict())
    sums = raw.kernels().flatten(1).sum(1)
    assert ((sums - 1).abs().min() < 1e-13) if form == "gaussian" else ((sums - 1).abs().min() > 0.1)
    torch.testing.assert_close(found, raw.kernels() / sums.reshape(-1, *(1,) * dim), rtol=1e-12, atol=1e-15)


@EVERY
def test_gradients_reach_every_weight(form: Form, dim: int, generator: torch.Generator) -> None:
    kernel = random(form, (0, 1, 0)[:dim] if form != "uut" else (0, 0), 3, 2, generator)
    names = [name for name, _ in kernel.named_parameters()]
    weights = [p.detach().clone().requires_grad_() for p in kernel.parameters()]

    def dense(*values: Tensor) -> Tensor:
        return torch.func.functional_call(Dense(kernel), {f"kernel.{n}": v for n, v in zip(names, values, strict=True)}, ())

    assert gradcheck(dense, weights)
    slopes = torch.autograd.grad((dense(*weights) * normal(generator, 2, *(3,) * dim)).sum(), weights)
    for name, slope in zip(names, slopes, strict=True):
        assert (slope.triu(1) if name == "above" else slope).count_nonzero() == (6 if name == "above" else slope.numel())


class Dense(nn.Module):
    """A kernel that is called."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self) -> Tensor:
        return self.kernel.dense()
