"""LNCC of GradICON: reference values of its code, windows at the border, weights, gradients."""

from __future__ import annotations

import math
from typing import Literal, cast

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor

from warpwright.energies.similarity import MIND, MSE, LocalCorrelation
from warpwright.errors import BadInput
from warpwright.sampling import gaussian_zero_padded

SHAPES = {2: (48, 64), 3: (24, 28, 32)}
GOLDEN = {  # spec, measured with the authors' code
    (2, "5"): 0.1565979,
    (3, "5"): 0.1964796,
    (2, "3"): 0.1618391,
    (3, "3"): 0.2016221,
    (2, "squared"): 0.2883120,
    (3, "squared"): 0.3534633,
    (2, "inner 1"): 0.2038849,
    (2, "inner 2"): 0.1824006,
    (2, "inner 3"): 0.1687739,
    (3, "inner 1"): 0.2381923,
    (3, "inner 2"): 0.1976194,
    (3, "inner 3"): 0.1801336,
}
SETTINGS = {
    "5": LocalCorrelation(),
    "3": LocalCorrelation(sigma=3),
    "squared": LocalCorrelation(power=2),
    "inner 1": LocalCorrelation(sigma=1, inner=True),
    "inner 2": LocalCorrelation(sigma=2, inner=True),
    "inner 3": LocalCorrelation(sigma=3, inner=True),
}


def wave(dim: int, phase: float) -> Tensor:
    i, j, *k = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in SHAPES[dim]), indexing="ij")
    out = torch.sin(0.3 * i + 0.5 * phase) * torch.cos(0.2 * j + 0.3 * phase)
    for z in k:
        out = out * torch.cos(0.25 * z + 0.2 * phase)
    return out[None, None]


def outermost(dim: int) -> Tensor:
    """A weight of one, zero on the outermost voxels."""
    weight = torch.zeros(1, 1, *SHAPES[dim])
    weight[(..., *(slice(1, -1),) * dim)] = 1
    return weight


@pytest.mark.parametrize(("dim", "name"), GOLDEN)
def test_reference_values(dim: int, name: str) -> None:
    one, two = wave(dim, 0), wave(dim, 1)
    weight = outermost(dim) if "inner" in name else None
    assert SETTINGS[name].similarity(one, two, weight).item() == pytest.approx(GOLDEN[dim, name], rel=2e-5)


@pytest.mark.parametrize(("dim", "expected"), [(2, 5.275e-5), (3, 1.798e-4)])
def test_equal_images_leave_what_is_flat(dim: int, expected: float) -> None:
    one = wave(dim, 0).double()
    assert LocalCorrelation().similarity(one, one).item() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(("dim", "plain", "inner"), [(2, 0.0802259, 0.0791590), (3, 0.0420805, 0.0408932)])
def test_squares_where_the_moving_image_is(dim: int, plain: float, inner: float) -> None:
    """The code's "SSD only interpolated"."""
    one, two, weight = wave(dim, 0), wave(dim, 1), outermost(dim)
    assert MSE().similarity(one, two).item() == pytest.approx(plain, rel=1e-5)
    assert MSE().similarity(one, two, weight).item() == pytest.approx(inner, rel=1e-5)


def test_a_gaussian_average_with_zeros_outside(dim: int) -> None:
    field = torch.rand(2, 3, *(7, 23, 12)[:dim], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sigma = (2.0, 0.0, 3.3)[:dim]
    expected = field.numpy()
    for axis, s in enumerate(sigma):
        if s:
            taps = np.exp(-0.5 * (np.arange(-int(2 * s), int(2 * s) + 1) / s) ** 2)
            expected = correlate1d(expected, taps / taps.sum(), axis + 2, mode="constant")
    torch.testing.assert_close(gaussian_zero_padded(field, sigma), torch.from_numpy(expected), atol=1e-12, rtol=0)


def test_taps_of_the_reference() -> None:
    impulse = torch.zeros(1, 1, 61, 1, dtype=torch.float64)
    impulse[0, 0, 30] = 1
    found = gaussian_zero_padded(impulse, (5.0, 0.0))[0, 0, :, 0]
    assert found[30].item() == pytest.approx(0.08272, abs=5e-6)
    assert found[20].item() == pytest.approx(0.01119, abs=5e-6)
    assert int((found > 0).sum()) == 21


def test_the_value_does_not_depend_on_the_size_of_the_mask(dim: int) -> None:
    """A repeated texture, half of it hidden."""
    one, two = (torch.cat([wave(dim, p), wave(dim, p).flip(2)], 2) for p in (0, 1))
    weight = torch.ones_like(one)
    weight[:, :, : one.shape[2] // 2] = 0
    whole, half = LocalCorrelation(sigma=2).similarity(one, two), LocalCorrelation(sigma=2).similarity(one, two, weight)
    torch.testing.assert_close(half, whole, rtol=0.1, atol=0)


@pytest.mark.parametrize("name", ["3", "squared", "inner 1"])
def test_gradients(dim: int, name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    shape = (7, 6, 8)[:dim]
    one, two = (torch.rand(2, 2, *shape, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64) if "inner" not in name else None
    settings = LocalCorrelation(sigma=1.0, power=SETTINGS[name].power, inner="inner" in name, epsilon=1e-3)
    assert torch.autograd.gradcheck(lambda a, b: settings.similarity(a, b, weight), (one, two), fast_mode=True)


def test_a_pair_without_anything_is_no_nan(dim: int) -> None:
    nothing = torch.zeros(1, 1, *(8, 9, 7)[:dim], requires_grad=True)
    for inner in (False, True):
        value = LocalCorrelation(sigma=1.0, inner=inner).similarity(nothing, nothing.detach())
        (gradient,) = torch.autograd.grad(value.sum(), nothing)
        assert math.isfinite(value.item())
        assert gradient.isfinite().all()


def test_self_similarity_descriptors_of_the_protocol() -> None:
    """Our MIND-SSC repeats the border voxel and bounds the variance; where it differs from the code's stays in bounds."""
    value = MIND(radius=2, dilation=2).similarity(wave(3, 0), wave(3, 1)).item()
    assert value == pytest.approx(0.0735425, rel=0.05)
    assert value == pytest.approx(0.0759450, rel=1e-5)  # ours, so that nothing changes unseen


def test_images_without_a_whole_window_are_refused(dim: int) -> None:
    image = torch.rand(1, 1, *(20, 12, 20)[:dim])
    with pytest.raises(BadInput, match=r"has windows of 13 voxels, the images have \(20, 12"):
        LocalCorrelation(sigma=3.0, inner=True).similarity(image, image)


def test_other_powers_are_refused() -> None:
    with pytest.raises(BadInput, match="to the power of 1 or 2, got 3"):
        LocalCorrelation(power=cast(Literal[1, 2], 3))


@pytest.mark.parametrize("settings", [{"sigma": 0.0}, {"epsilon": 0.0}, {"sigma": math.inf}])
def test_what_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="needs sigma and epsilon above 0"):
        LocalCorrelation(**settings)
