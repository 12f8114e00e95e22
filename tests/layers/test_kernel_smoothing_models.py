"""Kernels that are learned: penalties alone, in the loss of a model, the spacing of layers, the network before."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal, cast

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from oracles.make import normal
from warpwright.energies.losses import Images, Smoothness
from warpwright.energies.pairs import PairBatch
from warpwright.energies.similarity import MSE
from warpwright.errors import BadInput
from warpwright.layers import AnyLayer, FullSize, Integrate, KernelPenalty, KernelSmoothing, SmoothingKernel, SplineField
from warpwright.layers.kernel_forms import Free
from warpwright.layers.kernel_properties import asymmetry, negative_spectrum, spread_of_rank, traces
from warpwright.methods import Losses, Model, ModelSettings, batch_loss
from warpwright.methods.implicit import Implicit
from warpwright.methods.multistep import AnyNetwork, AtScale, Direct, TwoStep, layered
from warpwright.methods.pyramid import Pyramid
from warpwright.networks import FCNSS, DIRNet, Estimate, Velocity, VoxelMorph
from warpwright.networks.voxelmorph import Upsampling
from warpwright.transforms import Preparation

Positivity = Literal["linear", "hinge", "spectral"]
FREE = KernelSmoothing(form="free", taps=3, penalty=KernelPenalty())
MM = Preparation(spacing=(1.0, 1.0, 1.0))


def weights(layer: SmoothingKernel) -> nn.Parameter:
    return cast(Free, layer.kernel).taps


def penalty(layer: SmoothingKernel) -> Tensor:
    found = layer.penalty()
    assert found is not None
    return found


def descend(layer: SmoothingKernel) -> None:
    """Down the penalty of a layer, alone."""
    descent = torch.optim.LBFGS(layer.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def value() -> float:
        descent.zero_grad()
        found = penalty(layer)
        found.backward()
        return found.item()

    descent.step(value)


# ----------------------------------------------------------------------------------------------------------- penalties


@pytest.mark.parametrize("by", ["linear", "hinge", "spectral"])
def test_a_penalty_is_its_weighted_parts_of_all_components(by: Positivity, dim: int, generator: torch.Generator) -> None:
    kernels, groups = normal(generator, 3, *(5,) * dim), (0, 1, 0)[:dim]
    found = KernelPenalty(symmetry=0.3, positivity=2.0, by=by, rank=0.7).of(kernels, groups)
    negative = {
        "linear": -traces(kernels).sum(),
        "hinge": (-traces(kernels)).clamp_min(0).sum(),
        "spectral": negative_spectrum(kernels).sum(),
    }
    expected = 0.3 * asymmetry(kernels, groups).sum() + 2 * negative[by] + 0.7 * spread_of_rank(kernels).sum()
    assert found.shape == ()
    assert found.item() == pytest.approx(expected.item())
    assert KernelPenalty(symmetry=0, positivity=0, rank=0).of(kernels, groups).item() == 0


def test_the_trace_as_printed_has_no_bound_below_and_others_have() -> None:
    line = torch.exp(-0.5 * ((torch.arange(13, dtype=torch.float64) - 6) / 2) ** 2)
    kernel, scales = (torch.outer(line, line) / line.sum() ** 2)[None], (1, 10, 1e3, 1e6)

    def of(by: Positivity) -> list[float]:
        return [KernelPenalty(group="eq12", positivity=1e-3, by=by, rank=0).of(s * kernel, (0, 0)).item() for s in scales]

    assert of("linear") == pytest.approx([-0.000283 * s for s in scales], rel=2e-3)
    assert of("hinge") == pytest.approx([0, 0, 0, 0], abs=1e-12)
    assert min(of("spectral")) >= 0
    turned = KernelPenalty(symmetry=0, positivity=2, by="hinge", rank=0).of(-kernel, (0, 0)).item()
    assert turned == pytest.approx(2 * traces(kernel).sum().item())
    assert turned > 0


@pytest.mark.parametrize("name", ["symmetry", "positivity", "rank"])
@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_cannot_be_is_refused(name: str, weight: float) -> None:
    weights: dict[str, Any] = {name: weight}
    with pytest.raises(BadInput, match=f"weights of a kernel's penalty must be at least 0 and finite, got .*{name}={weight}"):
        KernelPenalty(**weights)


@pytest.mark.parametrize("normalised", [True, False])
def test_descent_makes_a_free_kernel_one_that_is_accepted(normalised: bool, dim: int, generator: torch.Generator) -> None:
    layer = KernelSmoothing(form="free", taps=5, normalised=normalised, penalty=KernelPenalty()).build(dim).double()
    weights(layer).data += 0.02 * normal(generator, dim, *(5,) * dim)
    before = layer.figures()
    assert before["kernel_asymmetry"] > 0.2
    assert before["kernel_spectrum"] < -0.1
    assert before["kernel_rank"] > 0.2
    first = penalty(layer).item()
    descend(layer)
    assert penalty(layer).item() < 1e-3 * first
    after = layer.figures()
    assert after["kernel_asymmetry"] < 0.05
    assert after["kernel_spectrum"] > -0.02
    assert after["kernel_rank"] < 0.1
    assert after["kernel_width"] > 0.5  # and no delta


def test_a_form_leaves_out_of_the_penalty_what_it_cannot_break(dim: int) -> None:
    """Products have all symmetries and rank one, autocorrelations also a spectrum that is not negative; a box has none such."""
    wanted = KernelPenalty(symmetry=2.0, positivity=3.0, rank=0.5)
    assert KernelSmoothing(form="free", penalty=wanted).build(dim).held == wanted
    assert KernelSmoothing(form="autocorrelation", penalty=wanted).build(dim).penalty() is None
    assert KernelSmoothing(penalty=None).build(dim).penalty() is None
    layer = KernelSmoothing(taps=5, penalty=wanted).build(dim).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(1.0)  # a box
    assert layer.figures()["kernel_spectrum"] < -0.1
    assert penalty(layer).item() == pytest.approx(3 * negative_spectrum(layer.kernels()).sum().item())
    box = layer.figures()["kernel_spectrum"]
    descend(layer)
    assert layer.figures()["kernel_spectrum"] > -0.02 > box


@pytest.mark.parametrize("by", ["linear", "hinge", "spectral"])
@pytest.mark.parametrize("group", ["eq12", "full"])
def test_gradients_of_a_penalty_reach_the_taps(group: Any, by: Positivity, dim: int, generator: torch.Generator) -> None:
    if group == "eq12" and dim == 3:
        with pytest.raises(BadInput, match="equation 12 is for kernels of 2 axes"):
            KernelSmoothing(form="free", penalty=KernelPenalty(group=group)).build(dim)
        product = KernelSmoothing(penalty=KernelPenalty(group=group)).build(dim).held  # has all symmetries by construction
        assert product is not None
        assert product.symmetry == 0
        return
    settings = KernelSmoothing(form="free", taps=3, penalty=KernelPenalty(group=group, by=by, positivity=0.5, rank=0.2))
    layer = settings.build(dim).double()
    taps = (weights(layer).detach() + 0.1 * normal(generator, dim, *(3,) * dim)).requires_grad_()

    def of(values: Tensor) -> Tensor:
        weights(layer).data = values.detach()
        scaled = values / values.flatten(1).sum(1).reshape(-1, *(1,) * dim)
        return cast(KernelPenalty, settings.penalty).of(scaled, layer.groups)

    assert gradcheck(of, (taps,))
    (expected,) = torch.autograd.grad(of(taps), taps)
    (found,) = torch.autograd.grad(penalty(layer), layer.parameters())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert found.count_nonzero() == found.numel()


# ----------------------------------------------------------------------------------------------------------- in models


def model(*layers: KernelSmoothing, network: AnyNetwork | None = None, spacing: tuple[float, ...] | None = None) -> Model:
    """Of images of two axes, or of as many as the spacing has."""
    torch.manual_seed(1)
    settings = ModelSettings(
        dim=2 if spacing is None else len(spacing),
        network=network or VoxelMorph(scale=0.25),
        layers=(*layers, Integrate(steps=2), FullSize()),
        preparation=Preparation(spacing=spacing),
        loss=(Images(similarity=MSE()), Smoothness(on="velocity", weight=0.1)),
    )
    return Model(settings)


def kernels(of: Model) -> list[SmoothingKernel]:
    return [layer for layer in of.modules() if isinstance(layer, SmoothingKernel)]


@pytest.mark.parametrize("steps", [1, 2])
def test_the_penalty_of_all_layers_is_in_the_loss_once(steps: int, generator: torch.Generator) -> None:
    one = VoxelMorph(scale=0.25)
    network = one if steps == 1 else TwoStep(first=one, second=one)
    both = [model(replace(FREE, penalty=p), network=network).double() for p in (FREE.penalty, None)]
    layers = kernels(both[0])
    for layer in layers:
        weights(layer).data += 0.1 * normal(generator, 2, 3, 3)
    both[1].load_state_dict(both[0].state_dict())
    images = torch.rand(2, 2, 1, 21, 18, generator=generator, dtype=torch.float64)
    found, other = (batch_loss(m, PairBatch(fixed=images[0], moving=images[1], spacing=(1.0, 1.0))) for m in both)
    assert list(other.parts) == ["similarity", "smoothness"]
    assert list(found.parts) == ["similarity", "smoothness", "kernel"]
    expected = sum(penalty(layer).item() for layer in layers)
    assert len(layers) == steps
    assert expected > 0.05
    assert found.parts["kernel"].tolist() == pytest.approx([expected] * 2)
    assert not found.parts["kernel"].requires_grad
    torch.testing.assert_close(found.total - other.total, found.parts["kernel"], rtol=1e-12, atol=0)

    def slopes(of: Model, loss: Losses) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss.total.mean(), [weights(layer) for layer in kernels(of)])

    for layer, new, old in zip(layers, slopes(both[0], found), slopes(both[1], other), strict=True):
        (own,) = torch.autograd.grad(penalty(layer), [weights(layer)])
        assert own.abs().max() > 0.1
        torch.testing.assert_close(new - old, own, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spacing", [(0.7, 1.3), (1.0, 1.0, 2.5)])
def test_the_spacing_of_the_preparation_reaches_layers(spacing: tuple[float, ...]) -> None:
    one, separable = VoxelMorph(scale=0.1), KernelSmoothing(taps=7)
    expected = KernelSmoothing(taps=7, spacing=spacing).build(len(spacing))
    assert len(set(expected.groups)) == 2
    steps = AtScale(network=TwoStep(first=one, second=Direct(network=one, layers=(separable, Integrate(), FullSize()))))
    for network, count in ((one, 1), (steps, 2)):
        found = kernels(model(separable, network=network, spacing=spacing))
        assert len(found) == count
        for layer in found:
            assert layer.groups == expected.groups
            torch.testing.assert_close(layer.kernels(), expected.kernels())
    (own,) = kernels(model(replace(separable, spacing=(1.0,) * len(spacing)), spacing=spacing))
    assert own.groups == (0,) * len(spacing)
    assert kernels(model(separable))[0].groups == (0, 0)


@pytest.mark.parametrize(
    ("network", "after"),
    [
        (DIRNet(spacing=8, kernels=4), (SplineField(), FullSize())),
        (FCNSS(), (FullSize(),)),
        (VoxelMorph(form="vm2", field="displacement", scale=0.25), (FullSize(),)),
    ],
)
def test_a_kernel_learns_behind_any_estimator(
    network: AnyNetwork, after: tuple[AnyLayer, ...], dim: int, generator: torch.Generator
) -> None:
    torch.manual_seed(1)
    layers = (KernelSmoothing(taps=3), *after)
    of = Model(ModelSettings(dim=dim, network=network, layers=layers, loss=(Images(similarity=MSE()),), directions="forward"))
    for name, parameter in of.named_parameters():
        if "head" in name:
            nn.init.normal_(parameter, std=0.3)
    images = torch.rand(2, 2, 1, *(21, 18, 19)[:dim], generator=generator)
    batch_loss(of, PairBatch(fixed=images[0], moving=images[1], spacing=(1.0,) * dim)).total.mean().backward()
    (layer,) = kernels(of)
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in layer.parameters())


def step_of_its_own(which: str) -> AnyNetwork:
    one = Direct(network=VoxelMorph(scale=0.1), layers=(Integrate(), FullSize()))
    return {"implicit": Implicit(), "pyramid": Pyramid(), "direct": one, "twostep": TwoStep(first=one, second=one)}[which]


@pytest.mark.parametrize("which", ["implicit", "pyramid", "direct", "twostep"])
def test_a_kernel_is_where_an_estimator_is(which: str) -> None:
    network = step_of_its_own(which)
    assert not layered(network)
    mixed = TwoStep(first=network, second=VoxelMorph(scale=0.1))
    assert layered(mixed)
    assert len(kernels(Model(ModelSettings(network=mixed, layers=(KernelSmoothing(), FullSize()), preparation=MM)))) == 1


# ------------------------------------------------------------------------------------------------- the network before it


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("shape", [(13, 18), (17, 9), (9, 13, 11)])
@pytest.mark.parametrize(
    ("settings", "narrower"),
    [({}, 0), ({"half_resolution": True}, 0), ({"form": "vm1"}, 0), ({"form": "vm2"}, 4)],
    ids=("dense", "half", "vm1", "vm2"),
)
def test_transposed_convolutions_in_place_of_repeated_voxels(
    settings: dict[str, Any], narrower: int, shape: tuple[int, ...]
) -> None:
    """The finest level of the second form has half the features, so that its first convolution then is narrower."""
    dim, factor = len(shape), 2 if "half_resolution" in settings else 1
    torch.manual_seed(1)
    choices: tuple[Upsampling, Upsampling] = ("nearest", "transposed")
    near, net = (VoxelMorph(**settings, scale=0.25, upsampling=choice).build(dim).double() for choice in choices)
    nn.init.normal_(cast(Tensor, net.head.weight), std=0.3)
    estimate: Estimate = net(*torch.rand(2, 1, 1, *shape, dtype=torch.float64))
    assert isinstance(estimate, Velocity)
    assert (estimate.shape, estimate.factors) == (shape, (factor,) * dim)
    assert estimate.values.shape == (1, dim, *(-(-n // factor) for n in shape))
    estimate.values.square().mean().backward()
    enlarge = list(net.core.enlarge.parameters())
    assert [tuple(p.shape[2:]) for p in enlarge[::2]] == [(2,) * dim] * (3 if factor == 2 else 4)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in enlarge)
    assert count(near.core.enlarge) == 0
    assert count(net) == count(near) + count(net.core.enlarge) - narrower * narrower * 3**dim


def test_the_count_of_transposed_convolutions_at_full_width(dim: int) -> None:
    with torch.device("meta"):
        near, net = (count(VoxelMorph(upsampling=choice).build(dim)) for choice in ("nearest", "transposed"))
    assert near == {2: 109_170, 3: 327_331}[dim]
    assert net - near == 4 * (32 * 32 * 2**dim + 32)
