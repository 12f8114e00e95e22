"""Intensities brought to [0, 1]: percentiles inside a mask, fixed windows."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.sampling import Percentiles, Window


def waves(dim: int) -> Tensor:
    """(2, *S) float32: two channels of different range."""
    generator = torch.Generator().manual_seed(3)
    shape = (24, 20, 22)[:dim]
    smooth = torch.randn(2, *shape, generator=generator).cumsum(1).cumsum(-1)
    return torch.stack([smooth[0] / 40, 300 - 5 * smooth[1]])


def disc(dim: int) -> Tensor:
    """(1, *S) weights between 0 and 1, positive in the middle."""
    places = np.indices((24, 20, 22)[:dim]) - np.array([11.5, 9.5, 10.5][:dim]).reshape(-1, *(1,) * dim)
    return torch.tensor(np.clip(1 - (places / 8) ** 2, 0, None).prod(0)[None], dtype=torch.float32)


@pytest.mark.parametrize("bounds", [(0.5, 99.5), (0.0, 100.0), (10.0, 60.0)])
def test_percentiles_of_the_mask(dim: int, bounds: tuple[float, float]) -> None:
    data, weight = waves(dim), disc(dim)
    counted = weight[0] > 0
    normalise = Percentiles(low=bounds[0], high=bounds[1])
    got = normalise(data, weight)
    assert got.dtype == torch.float32
    for channel in range(2):
        low, high = np.percentile(data[channel][counted], bounds)
        expected = ((data[channel] - low) / (high - low)).clamp(0, 1)
        torch.testing.assert_close(got[channel], expected, atol=1e-5, rtol=0, check_dtype=False)  # float32
    everywhere = normalise(data)
    assert not torch.allclose(everywhere, got, atol=0.01)
    low, high = np.percentile(data[0], bounds)
    expected = ((data[0] - low) / (high - low)).clamp(0, 1)
    torch.testing.assert_close(everywhere[0], expected, atol=1e-5, rtol=0, check_dtype=False)


def test_the_size_of_a_weight_does_not_matter(dim: int) -> None:
    data, weight = waves(dim), disc(dim)
    assert torch.equal(Percentiles()(data, weight), Percentiles()(data, (weight > 0).to(torch.uint8)))
    assert torch.equal(Percentiles()(data, torch.ones_like(weight)), Percentiles()(data))


def test_what_lies_outside_the_mask_does_not_matter(dim: int) -> None:
    data, weight = waves(dim), disc(dim)
    inside = (weight > 0).expand_as(data)
    spoilt = torch.where(inside, data, torch.full_like(data, 1e6))
    assert torch.equal(Percentiles()(data, weight)[inside], Percentiles()(spoilt, weight)[inside])


def test_rare_values_and_constants_are_normalised() -> None:
    rare = torch.zeros(1, 30, 30)
    rare[0, 10, 10] = 5.0  # both percentiles are zero
    got = Percentiles()(rare)
    assert got[0, 10, 10] == 1
    assert got.sum() == 1
    assert not Percentiles()(torch.full((1, 6, 7), 3.0)).any()
    integers = torch.arange(30, dtype=torch.int16).reshape(1, 5, 6)
    assert Percentiles()(integers).dtype == torch.float32
    assert Percentiles()(integers).max() == 1
    assert torch.equal(integers, torch.arange(30, dtype=torch.int16).reshape(1, 5, 6))  # left as it was


def test_large_images_are_looked_at_here_and_there() -> None:
    """Two million voxels: the percentiles are right to a thousandth, and two rare voxels are not overlooked."""
    data = torch.rand(1, 1500, 1400, generator=torch.Generator().manual_seed(1))
    low, high = np.percentile(data, (0.5, 99.5))
    torch.testing.assert_close(Percentiles()(data), ((data - low) / (high - low)).clamp(0, 1), atol=1e-3, rtol=0)
    rare = torch.zeros(1, 1500, 1400)
    rare[0, 700, 701], rare[0, 701, 701] = 5.0, 10.0  # both between those looked at
    assert Percentiles()(rare)[rare > 0].tolist() == [0.5, 1.0]


@pytest.mark.parametrize("bounds", [(-1.0, 99.0), (1.0, 101.0), (50.0, 50.0), (60.0, 40.0), (nan, 99.0)])
def test_percentiles_out_of_order_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(BadInput, match="percentiles must rise within 0 to 100, got"):
        Percentiles(low=bounds[0], high=bounds[1])


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.float64])
def test_window(dim: int, dtype: torch.dtype) -> None:
    data = torch.linspace(-1100, 3000, 2 * 4 * 5 * 6).reshape(2, 4, 5, 6).to(dtype)
    data = data if dim == 3 else data[..., 0]
    got = Window(low=-1000, high=600)(data, torch.zeros(1, *data.shape[1:]))  # a mask that says nothing
    assert got.dtype == torch.float32
    expected = np.clip((data.double().numpy() + 1000) / 1600, 0, 1)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)
    assert (got == 0).any()
    assert (got == 1).any()


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0), (-inf, 1.0), (0.0, inf), (nan, 1.0)])
def test_windows_must_rise(bounds: tuple[float, float]) -> None:
    with pytest.raises(BadInput, match="a window must rise, got"):
        Window(low=bounds[0], high=bounds[1])
