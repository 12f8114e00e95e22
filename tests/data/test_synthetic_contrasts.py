"""Rendered label maps: what each step does to an image, and the truth between two warps of one map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from warpwright.data.synthetic import ContrastSettings, contrast_pair, render_labels
from warpwright.data.synthetic.fields import random_field
from warpwright.errors import BadInput
from warpwright.geometry import jacobian_determinant
from warpwright.kernels import plainly
from warpwright.sampling import warp_labels
from warpwright.transforms import exp

PLAIN = {"deviations": (0.0, 0.0), "blur": 0.0, "bias": 0.0, "gamma": 0.0, "black": 1.0}


def known(truth: Tensor | None) -> Tensor:
    assert truth is not None
    return truth


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def size(dim: int) -> tuple[int, ...]:
    return (46, 61, 52)[:dim]


def balls(dim: int, dtype: torch.dtype = torch.int16) -> Tensor:
    """(1, *S) three nested balls off the middle, labels 4, 17 and 5."""
    places = np.indices(size(dim)) - np.array([24, 28, 27])[:dim].reshape(-1, *(1,) * dim)
    distance = np.sqrt((places**2).sum(0))
    labels = np.select([distance < 6, distance < 12, distance < 18], [5, 17, 4], 0)
    return torch.from_numpy(labels)[None].to(dtype)


def dice(a: Tensor, b: Tensor) -> float:
    return float(np.mean([2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in (4, 5, 17)]))


def test_the_truth_joins_both_warps(dim: int) -> None:
    """Where the truth leads in the moving image, the label map is read at the place it was read at for the fixed one."""
    labels = balls(dim)
    for velocity, tolerance in ((1.0, 0.005), (4.0, 0.05)):  # root mean square; fields are interpolated between voxels
        settings = ContrastSettings(velocity=velocity)
        pair, again = contrast_pair(labels, settings, rng()), rng()
        fixed, moving = (
            exp(random_field(dim, size(dim), settings.velocity_scale, again.uniform(0, velocity), again)) for _ in range(2)
        )
        assert torch.equal(known(pair.fixed_labels), warp_labels(labels[None], fixed)[0])
        assert torch.equal(known(pair.moving_labels), warp_labels(labels[None], moving)[0])
        grid = np.indices(size(dim))
        at, meant = grid + known(pair.displacement).numpy(), grid + fixed[0].numpy()
        reached = at + np.stack([map_coordinates(u, at, order=1, mode="nearest") for u in moving[0].numpy()])
        limit = np.array(size(dim)).reshape(-1, *(1,) * dim) - 1
        inside = ((at >= 0) & (at <= limit) & (meant >= 0) & (meant <= limit)).all(0)
        assert inside.mean() > 0.6
        assert np.sqrt(((reached - meant)[:, inside] ** 2).mean()) < tolerance
        assert float(known(pair.displacement).square().mean().sqrt()) > 10 * tolerance


def test_labels_agree_through_the_truth(dim: int) -> None:
    pair = contrast_pair(balls(dim), ContrastSettings(velocity=4.0), rng(6))
    moved = warp_labels(known(pair.moving_labels)[None], known(pair.displacement)[None])[0]
    assert dice(moved, known(pair.fixed_labels)) > 0.93  # outlines are whole voxels
    assert dice(known(pair.moving_labels), known(pair.fixed_labels)) < 0.85
    assert set(known(pair.fixed_labels).unique().tolist()) == set(known(pair.moving_labels).unique().tolist()) == {0, 4, 5, 17}


def test_warps_do_not_fold(dim: int) -> None:
    for seed in range(4):
        field = known(contrast_pair(balls(dim), ContrastSettings(velocity=4.0), rng(seed)).displacement)
        assert float(jacobian_determinant(field[None]).min()) > 0


def test_without_velocity_nothing_moves(dim: int) -> None:
    labels = balls(dim)
    pair = contrast_pair(labels, ContrastSettings(velocity=0.0), rng())
    assert not known(pair.displacement).any()
    assert torch.equal(known(pair.fixed_labels), labels)
    assert torch.equal(known(pair.moving_labels), labels)
    assert not torch.equal(pair.fixed, pair.moving)  # two contrasts


def test_types_and_ranges(dim: int) -> None:
    for dtype in (torch.uint8, torch.int16, torch.int64):
        labels = balls(dim, dtype)
        kept = labels.clone()
        pair = contrast_pair(labels, ContrastSettings(noise=0.1), rng())
        assert torch.equal(labels, kept)
        assert known(pair.fixed_labels).dtype == known(pair.moving_labels).dtype == dtype
        assert known(pair.displacement).shape == (dim, *size(dim))
        assert known(pair.displacement).dtype == torch.float32
        for image in (pair.fixed, pair.moving):
            assert image.shape == labels.shape
            assert image.dtype == torch.float32
            assert float(image.min()) >= 0
            assert float(image.max()) <= 1
    for seed in range(5):
        image = render_labels(balls(dim), ContrastSettings(), rng(seed))
        assert (float(image.min()), float(image.max())) == (0, 1)


def test_each_label_has_an_intensity(dim: int) -> None:
    labels = balls(dim)
    image = render_labels(labels, ContrastSettings(**PLAIN), rng())
    values = {k: image[labels == k].unique() for k in (0, 4, 5, 17)}
    assert all(len(v) == 1 for v in values.values())
    assert float(values[0]) == 0  # black
    assert len({float(v) for v in values.values()}) == 4
    sparse = labels[(slice(None), *(slice(None, None, 4),) * dim)]
    ratios = []
    for seed in range(100):
        image = render_labels(sparse, ContrastSettings(**PLAIN, means=(50.0, 100.0)), rng(seed))
        ratios.append(float(image[image > 0].min()))  # the least of three means over the largest
    assert min(ratios) >= 0.5 - 1e-6
    assert max(ratios) > 0.9
    assert np.median(ratios) < 0.8


def test_noise_within_labels(dim: int) -> None:
    labels = balls(dim)
    settings = ContrastSettings(**{**PLAIN, "deviations": (10.0, 10.0)}, means=(100.0, 200.0))
    image = render_labels(labels, settings, rng())
    spread = [float(image[labels == k].std()) for k in (4, 5, 17)]
    np.testing.assert_allclose(spread, spread[0], rtol=0.15)  # the smallest ball has about a hundred voxels in 2-D
    smoothed = render_labels(
        labels, ContrastSettings(**{**PLAIN, "deviations": (10.0, 10.0), "blur": 3.0}, means=(100.0, 200.0)), rng()
    )
    inner = labels == 5
    assert float(smoothed[inner].std()) < 0.7 * spread[1]


def test_a_fifth_of_the_backgrounds_is_black() -> None:
    """300 draws: three standard deviations are 0.07."""
    labels = balls(2)[:, ::3, ::3]
    settings = ContrastSettings(blur=0.0)
    black = [bool((render_labels(labels, settings, rng(seed))[labels == 0] == 0).all()) for seed in range(300)]
    assert np.mean(black) == pytest.approx(0.2, abs=0.07)


def test_gamma_is_one_exponent(dim: int) -> None:
    """60 images: the logarithm of the exponent has the standard deviation 0.25, known to 0.023, and the mean 0, to 0.032."""
    labels = balls(dim)[(slice(None), *(slice(None, None, 4),) * dim)]
    exponents = []
    for seed in range(60):
        flat, curved = (render_labels(labels, ContrastSettings(gamma=gamma), rng(seed)).double() for gamma in (0.0, 0.25))
        between = (flat > 0.05) & (flat < 0.95)
        exponent = curved[between].log() / flat[between].log()
        assert float(exponent.std()) < 1e-4
        exponents.append(float(exponent.mean().log()))
    assert np.std(exponents) == pytest.approx(0.25, abs=0.07)
    assert np.mean(exponents) == pytest.approx(0, abs=0.1)


def test_the_bias_field_is_smooth_and_multiplies(dim: int) -> None:
    flat, biased = (
        render_labels(balls(dim), ContrastSettings(**{**PLAIN, "bias": bias}, means=(40.0, 80.0)), rng()) for bias in (0.0, 0.3)
    )
    inside = balls(dim) != 0
    ratio = (biased / flat).double().where(inside, torch.nan)[0]
    assert float(ratio[inside[0]].std() / ratio[inside[0]].mean()) > 0.01
    for axis in range(dim):
        step = ratio.diff(dim=axis)
        assert float(step[~step.isnan()].abs().max()) < 0.05 * float(ratio[inside[0]].mean())


def test_random_fields_have_the_deviation_everywhere(dim: int) -> None:
    shape = (13, 9, 7)[:dim]
    fields = torch.cat([random_field(500, shape, 4.0, 0.5, rng(seed)) for seed in range(4)], 1)[0]
    assert fields.dtype == torch.float64
    deviation = fields.std(0)
    # 2000 fields: a standard error of 1.6 % at each place, beside the 7 % by which splines vary
    assert float(deviation.min()) > 0.43
    assert float(deviation.max()) < 0.57
    assert float(deviation.mean()) == pytest.approx(0.5, rel=0.03)
    wide = random_field(200, (40, 33, 31)[:dim], 16.0, 1.0, rng())
    assert float(wide.diff(dim=2).std()) < 0.15


def test_noise_on_the_image(dim: int) -> None:
    clean, noisy = (render_labels(balls(dim), ContrastSettings(**PLAIN, noise=noise), rng(8)) for noise in (0.0, 0.1))
    middle = (clean > 0.3) & (clean < 0.7)
    middle = middle if middle.any() else clean == clean[balls(dim) == 5][0]
    difference = (noisy - clean)[middle]
    assert 0 < float(difference.std()) <= 0.1
    assert float((noisy - clean)[balls(dim) == 0].mean()) > 0  # black cannot get darker


def test_the_seed_decides_with_and_without_kernels(dim: int) -> None:
    first, other = (contrast_pair(balls(dim), ContrastSettings(), rng(seed)) for seed in (3, 4))
    with plainly():
        second = contrast_pair(balls(dim), ContrastSettings(), rng())
    for name in ("fixed", "moving", "fixed_labels", "moving_labels", "displacement"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
        assert not torch.equal(getattr(first, name), getattr(other, name)), name


def test_one_label_alone() -> None:
    labels = torch.zeros(1, 9, 8, dtype=torch.int32)
    assert not render_labels(labels, ContrastSettings(black=1.0), rng()).any()
    image = render_labels(labels, ContrastSettings(black=0.0), rng())
    assert (float(image.min()), float(image.max())) == (0, 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"means": (225.0, 25.0)},
        {"deviations": (-1.0, 5.0)},
        {"black": 2.0},
        {"blur": -1.0},
        {"bias": float("nan")},
        {"gamma": float("inf")},
        {"noise": -0.1},
        {"velocity": -1.0},
        {"bias_scale": 0.0},
        {"velocity_scale": 0.5},
    ],
)
def test_bad_settings(bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r" must be .*, got "):
        ContrastSettings(**bad)


@pytest.mark.parametrize("function", [contrast_pair, render_labels])
def test_bad_labels(function: Callable[..., object]) -> None:
    with pytest.raises(BadInput, match=r"labels must be integers of shape \(1, 5, 7\), got torch.float32"):
        function(torch.zeros(1, 5, 7), ContrastSettings(), rng())
    with pytest.raises(BadInput, match=r"labels must be integers of shape \(1, 5, 7\), got torch.int32 of shape \(2, 5, 7\)"):
        function(torch.zeros(2, 5, 7, dtype=torch.int32), ContrastSettings(), rng())
    with pytest.raises(BadInput, match=r"2 or 3 axes .* got shape \(5,\)"):
        function(torch.zeros(1, 5, dtype=torch.int32), ContrastSettings(), rng())
