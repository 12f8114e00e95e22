"""The convolution of one volume against torch's own, forwards and backwards."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from warpwright.networks.convolution import Convolution3d, Transposed3d

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"padding": 1},
    "stride": {"padding": 1, "stride": 2},
    "groups": {"padding": 1, "groups": 2},
    "wide": {"padding": 4, "dilation": 2, "kernel_size": 5},
    "uneven": {"padding": (0, 1, 2), "stride": (1, 2, 1), "kernel_size": (1, 3, 5)},
    "no bias": {"padding": 1, "bias": False},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "same": {"padding": "same"},
}


def both(settings: dict[str, Any], volume: Tensor) -> list[list[Tensor]]:
    """Output and derivatives of our layer and of torch's, with the same weights."""
    found = []
    known = {"kernel_size": 3} | settings
    for cls in (Convolution3d, nn.Conv3d):
        torch.manual_seed(3)
        layer = cls(4, 6, **known).to(volume.dtype)
        given = volume.clone().requires_grad_()
        out = layer(given)
        cotangent = torch.rand(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
        found.append([out, *torch.autograd.grad(out, [given, *layer.parameters()], cotangent)])
    return found


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=("channels first", "channels last"))
@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_the_convolution_of_torch(name: str, layout: Any) -> None:
    volume = torch.rand(1, 4, 9, 11, 8, generator=torch.Generator().manual_seed(1)).to(memory_format=layout)
    for ours, theirs in zip(*both(SETTINGS[name], volume), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("volume", [torch.rand(2, 4, 5, 6, 7), torch.rand(1, 4, 5, 6, 7).double(), torch.rand(4, 5, 6, 7)])
def test_other_inputs_go_the_way_of_torch(volume: Tensor) -> None:
    for ours, theirs in zip(*both({"padding": 1}, volume), strict=True):
        assert torch.equal(ours, theirs)


def test_a_frozen_layer_passes_the_gradient_on() -> None:
    layer = Convolution3d(4, 6, 3, padding=1).requires_grad_(False)
    volume = torch.rand(1, 4, 5, 6, 7, requires_grad=True)
    layer(volume).sum().backward()
    assert volume.grad is not None
    assert volume.grad.abs().max() > 0


def test_a_second_derivative(generator: torch.Generator) -> None:
    """Of the square of the layer: in its input, against a product with the transposed layer by torch."""
    layers = [cls(2, 3, 3, padding=1) for cls in (Convolution3d, nn.Conv3d)]
    layers[1].load_state_dict(layers[0].state_dict())
    volume = torch.rand(1, 2, 4, 5, 3, generator=generator)
    found = []
    for layer in layers:
        given = volume.clone().requires_grad_()
        (slope,) = torch.autograd.grad(layer(given).square().sum(), given, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [given, layer.weight]))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_autocast_and_the_meta_device() -> None:
    layer = Convolution3d(4, 6, 3, padding=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.rand(1, 4, 5, 6, 7)).dtype == torch.bfloat16
    assert layer.to("meta")(torch.rand(1, 4, 5, 6, 7, device="meta")).shape == (1, 6, 5, 6, 7)


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 2, 2), (2, 5, 3), (3, 2, 2), (4, 2, 3)])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Convolution3d(16, 8, 3, padding=1),
        lambda: Convolution3d(16, 8, 5, padding=2),
        lambda: Transposed3d(16, 8, 2, 2),
        lambda: Transposed3d(16, 8, 3, 2, 1, output_padding=1),
        lambda: Transposed3d(16, 8, 4, 2, 1),
    ],
)
def test_bfloat16_has_the_gradients_of_small_volumes(shape: tuple[int, ...], make: Callable[[], nn.Module]) -> None:
    """Whatever was in the memory before, which torch 2.13.0 reads where the first axis is shorter than the kernel."""
    torch.manual_seed(5)
    layer = make()
    exact = copy.deepcopy(layer).double()
    given = torch.randn(2, 16, *shape)
    wanted = exact(given.double())
    cotangent = torch.randn(wanted.shape)
    wanted.backward(cotangent.double())
    for _ in range(5):
        torch.full((50_000,), math.nan)  # and freed
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = layer(given)
        assert out.dtype == torch.bfloat16
        out.backward(cotangent.to(out.dtype))
        for ours, theirs in zip(layer.parameters(), exact.parameters(), strict=True):
            scale = float(theirs.grad.abs().max())  # type: ignore[union-attr]
            torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=0.0, atol=0.03 * scale)  # type: ignore[union-attr]
