"""Smoothing layers: products with Gram matrices, scipy's sums, symmetries, kinds, refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import toeplitz
from scipy.ndimage import correlate
from torch import Tensor
from torch.autograd import gradcheck

from oracles.make import normal, orders, permute_field
from warpwright.errors import BadInput, Failed
from warpwright.layers import FullSize, Integrate, KernelPenalty, KernelSmoothing, Pipeline, SmoothingKernel
from warpwright.layers.kernel_forms import outer
from warpwright.layers.kernel_smoothing import Form, Padding, alike, smoothed_by
from warpwright.networks import ControlPoints, Displacement, Velocity

FORMS: list[tuple[Form, int]] = [(f, d) for f in ("free", "separable", "autocorrelation", "gaussian") for d in (2, 3)]
EVERY = pytest.mark.parametrize(("form", "dim"), [*FORMS, ("uut", 2)])
PADDINGS = pytest.mark.parametrize("padding", ["zeros", "replicate"])
SHAPE = (9, 13, 11)


def drawn(settings: KernelSmoothing, dim: int, generator: torch.Generator) -> SmoothingKernel:
    """With weights somewhat off their start, in double precision."""
    layer = settings.build(dim).double()
    for parameter in layer.parameters():
        parameter.data += 0.1 * normal(generator, *parameter.shape)
    return layer


def velocity(values: Tensor, **others: Any) -> Velocity:
    return Velocity(values=values, shape=tuple(values.shape[2:]), factors=(1,) * values.shape[1], **others)


def smoothed(layer: SmoothingKernel, values: Tensor) -> Tensor:
    found = layer(velocity(values))
    assert isinstance(found, Velocity)
    return found.values


# --------------------------------------------------------------------------------------------------------- convolution


def test_smoothing_is_the_product_with_the_banded_gram_matrix(dim: int, generator: torch.Generator) -> None:
    """Of a Gaussian kernel of points of the lattice, the border included; with the border repeated, only inside."""
    shape, taps, reach = SHAPE[:dim], 5, 2
    gaussian = [lambda r, s=s: np.exp(-0.5 * (r / s) ** 2) for s in (1.1, 1.4, 0.9)[:dim]]
    matrices = [toeplitz(np.where(np.arange(n) <= reach, k(np.arange(n)), 0)) for n, k in zip(shape, gaussian, strict=True)]
    points = np.indices(shape).reshape(dim, -1)
    apart = abs(points[:, :, None] - points[:, None])
    gram = np.prod([k(r) * (r <= reach) for k, r in zip(gaussian, apart, strict=True)], 0)
    np.testing.assert_allclose(reduce(np.kron, matrices), gram, rtol=1e-13)
    field = normal(generator, 1, dim, *shape)
    expected = torch.from_numpy((gram @ field.numpy().reshape(dim, -1).T).T.reshape(field.shape).copy())
    lines = tuple(torch.from_numpy(k(np.arange(taps) - reach))[None] for k in gaussian)
    within = (..., *(slice(reach, -reach),) * dim)
    for parts in (lines, (outer(lines),)):
        torch.testing.assert_close(smoothed_by(field, parts), expected, rtol=0, atol=1e-12)
        repeated = smoothed_by(field, parts, "replicate")
        torch.testing.assert_close(repeated[within], expected[within], rtol=0, atol=1e-12)
        assert (repeated - expected).abs().max() > 0.1


@PADDINGS
@pytest.mark.parametrize("one", [True, False], ids=("shared", "each"))
def test_lines_and_dense_kernels_are_the_sums_of_scipy(
    padding: Padding, one: bool, dim: int, generator: torch.Generator
) -> None:
    """For kernels that know left from right."""
    field = normal(generator, 2, dim, *SHAPE[:dim])
    lines = tuple(normal(generator, 1 if one else dim, 5) for _ in range(dim))
    dense, mode = outer(lines), {"zeros": "constant", "replicate": "nearest"}[padding]
    expected = [
        [correlate(part.numpy(), dense[0 if one else c].numpy(), mode=mode) for c, part in enumerate(each)] for each in field
    ]
    for parts in (lines, (dense,)):
        torch.testing.assert_close(smoothed_by(field, parts, padding), torch.tensor(np.array(expected)), rtol=0, atol=1e-11)


@EVERY
@PADDINGS
@pytest.mark.parametrize("settings", [{}, {"shared": True, "normalised": False}], ids=("each", "shared"))
def test_gradients(form: Form, dim: int, padding: Padding, settings: dict[str, Any], generator: torch.Generator) -> None:
    spacing = (1.0, 1.0) if form == "uut" else (1.0, 1.5, 1.0)[:dim]
    layer = drawn(KernelSmoothing(form=form, taps=3, padding=padding, spacing=spacing, **settings), dim, generator)
    names = [name for name, _ in layer.named_parameters()]
    weights = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def function(values: Tensor, *given: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, given, strict=True)), (velocity(values),)).values

    assert gradcheck(function, (normal(generator, 1, dim, *(3, 5, 4)[:dim]).requires_grad_(), *weights))


# ---------------------------------------------------------------------------------------------------------- symmetries


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [((1, 1), (0, 0)), ((2, 1), (0, 1)), ((1, 2, 1.0005), (0, 1, 0)), ((3, 1, 1), (0, 1, 1)), ((1, 1.002, 4), (0, 1, 2))],
)
def test_axes_of_one_spacing_are_alike(spacing: tuple[float, ...], expected: tuple[int, ...]) -> None:
    assert alike(spacing) == expected
    assert KernelSmoothing(spacing=spacing).build(len(spacing)).groups == expected


@PADDINGS
@pytest.mark.parametrize(("form", "dim"), [case for case in FORMS if case[0] != "free"])
def test_axes_have_no_order(form: Form, dim: int, padding: Padding, generator: torch.Generator) -> None:
    """With their spacing, and the lines that go with it; nor a direction."""
    spacing = (0.7, 1.3, 0.7)[:dim]
    layer = drawn(KernelSmoothing(form=form, taps=5, padding=padding, spacing=spacing), dim, generator)
    values = normal(generator, 1, dim, *SHAPE[:dim])
    expected = smoothed(layer, values)
    for order in orders(dim):
        turned = (
            KernelSmoothing(form=form, taps=5, padding=padding, spacing=tuple(spacing[k] for k in order)).build(dim).double()
        )
        for new, old in zip(turned.parameters(), layer.parameters(), strict=True):
            new.data = old.data[list(order)]
            for axis, k in enumerate(order if old.ndim > 1 else ()):
                new.data[:, turned.groups[axis]] = old.data[list(order), layer.groups[k]]
        found = smoothed(turned, permute_field(values, order))
        torch.testing.assert_close(found, permute_field(expected, order), rtol=0, atol=1e-13)
    for axis in range(2, 2 + dim):
        torch.testing.assert_close(smoothed(layer, values.flip(axis)), expected.flip(axis), rtol=0, atol=1e-13)


# --------------------------------------------------------------------------------------------------------------- kinds


def test_every_kind_is_smoothed_and_stays_what_it_is(dim: int, generator: torch.Generator) -> None:
    layer = drawn(KernelSmoothing(taps=3), dim, generator)
    values, coarse = normal(generator, 2, dim, *SHAPE[:dim]), normal(generator, 2, dim, *(4, 5, 6)[:dim])
    known: dict[str, Any] = {"shape": tuple(2 * n for n in SHAPE[:dim]), "factors": (2,) * dim}
    failed = torch.tensor([True, False])
    for estimate in (
        velocity(values),
        Displacement(values=values, failed=failed, **known),
        ControlPoints(values=values, knots=(2.0, 1.5, 3.0)[:dim], of="velocity", **known),
    ):
        low = replace(estimate, values=coarse, factors=(4,) * dim)
        found = layer(replace(estimate, coarser=(low,)))
        for one, given in ((found, estimate), (found.coarser[0], low)):
            assert type(one) is type(given)
            torch.testing.assert_close(one.values, smoothed_by(given.values, (layer.kernels(),)), rtol=0, atol=1e-13)
            kept = [{k: v for k, v in vars(each).items() if k not in ("values", "coarser")} for each in (one, given)]
            assert kept[0] == kept[1]


@EVERY
def test_a_translation_stays_one_and_a_delta_does_nothing(form: Form, dim: int, generator: torch.Generator) -> None:
    layer = drawn(KernelSmoothing(form=form, taps=5, padding="replicate"), dim, generator)
    shift = normal(generator, 1, dim, *(1,) * dim).expand(1, dim, *SHAPE[:dim])
    torch.testing.assert_close(smoothed(layer, shift), shift, rtol=0, atol=1e-13)
    values = normal(generator, 1, dim, *SHAPE[:dim])
    assert (smoothed(layer, values) - values).abs().max() > 0.1
    zeros = KernelSmoothing(form=form, taps=5).build(dim).double()
    assert smoothed(zeros, shift).abs().sum() < 0.95 * shift.abs().sum()  # the border is pulled down
    if form != "gaussian":
        nothing = KernelSmoothing(form=form, taps=5, start="delta").build(dim).double()
        torch.testing.assert_close(smoothed(nothing, values), values, rtol=0, atol=2e-3 if form == "uut" else 0)


# ------------------------------------------------------------------------------------------------------------ refusals

EQ12 = KernelPenalty(group="eq12")


@pytest.mark.parametrize(
    ("settings", "dim", "sentence"),
    [
        ({"taps": 4}, 2, "a smoothing kernel needs an odd number of taps, at least 1, got 4"),
        ({"taps": 0}, 2, "a smoothing kernel needs an odd number of taps, at least 1, got 0"),
        ({"taps": -3}, 2, "a smoothing kernel needs an odd number of taps, at least 1, got -3"),
        ({"spacing": (1.0, 0.0)}, 2, r"needs a finite spacing above 0 along each axis, got \(1.0, 0.0\)"),
        ({"spacing": (1.0, math.inf)}, 2, r"needs a finite spacing above 0 along each axis, got \(1.0, inf\)"),
        ({"form": "gaussian", "start": "delta"}, 2, "of the form gaussian has a width to learn"),
        ({"spacing": (1.0, 2.0)}, 3, r"a smoothing kernel of 3 axes needs a spacing for each, got \(1.0, 2.0\)"),
        ({"form": "uut"}, 3, "the form uut is for kernels of 2 axes with equal spacing, got 3 axes"),
        ({"form": "uut", "spacing": (1.0, 2.0)}, 2, "the form uut is for kernels of 2 axes with equal spacing, got 2 axes"),
        ({"form": "free", "penalty": EQ12}, 3, "equation 12 is for kernels of 2 axes with equal spacing, got 3 axes"),
        (
            {"form": "free", "penalty": EQ12, "spacing": (1.0, 2.0)},
            2,
            "equation 12 is for kernels of 2 axes with equal spacing, got 2 axes",
        ),
    ],
)
def test_kernels_that_cannot_be_are_refused(settings: dict[str, Any], dim: int, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        KernelSmoothing(**settings).build(dim)


@EVERY
def test_a_kernel_larger_than_the_field_is_refused(form: Form, dim: int) -> None:
    layer = KernelSmoothing(form=form, taps=7).build(dim)
    assert smoothed(layer, torch.zeros(1, dim, *(7, 8, 9)[:dim])).shape == (1, dim, *(7, 8, 9)[:dim])
    with pytest.raises(BadInput, match=r"a smoothing kernel of 7 taps is larger than a field of 8 x 6"):
        layer(velocity(torch.zeros(1, dim, *(8, 6, 9)[:dim])))


def test_what_is_no_raw_field_is_refused(dim: int) -> None:
    layer, values = KernelSmoothing(taps=3).build(dim), torch.zeros(1, dim, *SHAPE[:dim])
    with pytest.raises(BadInput, match="kernelsmoothing smooths the raw field, expected it before the layer integrate"):
        Pipeline([Integrate().build(dim), FullSize().build(dim), layer])
    with pytest.raises(BadInput, match="smooths a raw field, this one has an inverse that would no longer be its own"):
        layer(Displacement(values=values, inverse=-values, shape=SHAPE[:dim], factors=(1,) * dim))
    assert len(Pipeline([layer, Integrate().build(dim)])(velocity(values))) == 3


@pytest.mark.parametrize("form", ["free", "uut", "separable", "autocorrelation", "gaussian"])
def test_autocast_changes_nothing(form: Form, generator: torch.Generator) -> None:
    module = SmoothingKernel(KernelSmoothing(form=form, taps=5), 2)
    given = Displacement(values=normal(generator, 1, 2, 9, 8).float(), shape=(9, 8), factors=(1, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(given)
    assert isinstance(found, Displacement)
    assert torch.equal(found.values, module(given).values)


def test_a_single_tap_does_nothing_and_has_figures(generator: torch.Generator) -> None:
    for form in ("free", "separable", "autocorrelation", "gaussian"):
        module = SmoothingKernel(KernelSmoothing(form=form, taps=1), 2)  # pyright: ignore[reportArgumentType]
        given = Displacement(values=normal(generator, 1, 2, 4, 3).float(), shape=(4, 3), factors=(1, 1))
        found = module(given)
        assert isinstance(found, Displacement)
        torch.testing.assert_close(found.values, given.values)
        assert module.figures()["kernel_rank"] == module.figures()["kernel_width"] == 0


def test_a_kernel_that_sums_to_zero_is_named() -> None:
    module = SmoothingKernel(KernelSmoothing(form="separable", taps=3), 2)
    with torch.no_grad():
        next(module.parameters()).copy_(torch.tensor([2.0, -1.0]))
    with pytest.raises(Failed, match="is not finite: its taps sum to zero"):
        module.figures()


def test_an_empty_spacing_is_refused() -> None:
    with pytest.raises(BadInput, match="a finite spacing above 0 along each axis"):
        KernelSmoothing(spacing=())
