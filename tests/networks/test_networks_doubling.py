"""The transposed convolution that doubles: both ways of it agree, values and derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from warpwright.networks import doubling
from warpwright.networks.doubling import DOUBLING, by_product

SHAPES = pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 1), (1, 1, 1), (2, 3, 4), (1, 4, 2)])
PLAIN = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def of_torch(features: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    own = PLAIN[features.ndim - 2](layer.in_channels, layer.out_channels, 4, 2, 1).to(features.dtype)
    own.load_state_dict(layer.state_dict())
    return own(features)


@SHAPES
def test_product_is_the_transposed_convolution(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = DOUBLING[len(shape)](5, 3).double()
    features = torch.randn(2, 5, *shape, dtype=torch.float64)
    assert_same(by_product(features, layer.weight, layer.bias), of_torch(features, layer))
    assert_same(by_product(features, layer.weight, None) + layer.bias.view(-1, *(1,) * len(shape)), of_torch(features, layer))


@SHAPES
def test_gradient(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = DOUBLING[len(shape)](3, 2).double()
    features = torch.randn(2, 3, *shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(by_product, (features, layer.weight, layer.bias))


@SHAPES
def test_layer_takes_the_product_for_few_places_of_many_weights(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = DOUBLING[len(shape)](3, 2).double()
    features = torch.randn(2, 3, *shape, dtype=torch.float64)
    expected = of_torch(features, layer)
    ways: list[str] = []
    monkeypatch.setattr(doubling, "by_product", lambda *given: ways.append("product") or by_product(*given))
    assert_same(layer(features), expected)
    assert ways == []
    monkeypatch.setattr(doubling, "MANY", 1)
    assert_same(layer(features), expected)
    assert ways == ["product"]
    monkeypatch.setattr(doubling, "FEW", 0)
    assert_same(layer(features), expected)
    assert ways == ["product"]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)])
def test_autocast_gives_what_torch_does(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(doubling, "MANY", 1)
    layer, features = DOUBLING[len(shape)](5, 3), torch.randn(2, 5, *shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = layer(features), of_torch(features, layer)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)
