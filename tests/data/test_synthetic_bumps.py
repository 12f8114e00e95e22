"""Bump displacements: the formula, the severity that was calibrated, folds, and pairs of a real image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from warpwright.data.synthetic import BumpSettings, bump_displacement, bump_pair
from warpwright.errors import BadInput
from warpwright.geometry import jacobian_determinant
from warpwright.kernels import plainly


def known(truth: Tensor | None) -> Tensor:
    assert truth is not None
    return truth


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def ellipses(shape: tuple[int, ...]) -> Tensor:
    """(1, *shape) a large and a small organ, labels 1 and 2."""
    places = np.stack(np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij"), -1)
    labels = np.zeros((1, *shape), dtype=np.int16)
    for value, centre, radii in ((1, (0.45, 0.35, 0.5), (0.2, 0.22, 0.2)), (2, (0.5, 0.78, 0.5), (0.12, 0.09, 0.12))):
        away = (places - centre[: len(shape)]) / radii[: len(shape)]
        labels[0][(away**2).sum(-1) < 1] = value
    return torch.from_numpy(labels)


def dice(a: Tensor, b: Tensor) -> float:
    return float(np.mean([2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in (1, 2)]))


def test_the_formula(shape: tuple[int, ...]) -> None:
    settings = BumpSettings(energy=30.0, count=4, widths=(0.2, 0.5))
    field = bump_displacement(shape, settings, rng())
    dim, edge, again = len(shape), float(np.prod(shape)) ** (1 / len(shape)), rng()
    heights = again.normal(0, 30 * edge / 256, (4, dim))
    centres = again.uniform(-0.5, np.array(shape) - 0.5, (4, dim))
    widths = again.uniform(0.2, 0.5, 4) * edge
    assert field.shape == (dim, *shape)
    assert field.dtype == torch.float32
    for x in np.ndindex(shape):
        squared = ((np.array(x) - centres) ** 2).sum(1)
        expected = (heights * np.exp(-squared / (2 * widths**2))[:, None]).sum(0)
        np.testing.assert_allclose(field[(slice(None), *x)], expected, rtol=1e-6, atol=1e-6)


def test_severity_on_the_liver_pairs() -> None:
    """Mean and longest vector 11.6 and 30 voxels of 256 at energy 10, 18.6 and 48 at 16; start Dice 0.74 and 0.60; few folds.

    On half of the size, where all lengths are half.
    """
    organs = ellipses((128, 128))
    for energy, length, longest, overlap in ((10.0, 11.6, 30.0, 0.742), (16.0, 18.6, 48.0, 0.604)):
        draws = rng(0)
        pairs = [bump_pair(organs, BumpSettings(energy=energy), draws, organs) for _ in range(40)]
        lengths = 2 * torch.stack([known(pair.displacement).square().sum(0).sqrt() for pair in pairs])
        assert float(lengths.mean()) == pytest.approx(length, rel=0.1)  # 40 fields: standard error about 3 %
        assert float(lengths.flatten(1).amax(1).mean()) == pytest.approx(longest, rel=0.1)
        determinants = torch.cat([jacobian_determinant(known(pair.displacement)[None]) for pair in pairs])
        assert float((determinants > 0).double().mean()) > (0.99999 if energy == 10 else 0.999)
        start = np.mean([dice(known(pair.fixed_labels), known(pair.moving_labels)) for pair in pairs])
        assert start == pytest.approx(overlap, abs=0.06)  # organs of another shape than those of the calibration


def test_severity_follows_the_size_and_the_energy() -> None:
    small = bump_displacement((64, 64), BumpSettings(), rng())
    large = bump_displacement((128, 128), BumpSettings(), rng())
    ratio = large.square().sum(0).sqrt().mean() / small.square().sum(0).sqrt().mean()
    assert float(ratio) == pytest.approx(2, rel=0.02)
    stronger = bump_displacement((64, 64), BumpSettings(energy=16.0), rng())
    torch.testing.assert_close(stronger, small * 1.6, atol=1e-5, rtol=1e-5)
    still = bump_displacement((9, 7, 8), BumpSettings(energy=0.0), rng())
    assert not still.any()


def test_a_pair_is_what_scipy_warps(dim: int) -> None:
    shape = (15, 22, 18)[:dim]
    image = torch.from_numpy(rng(1).normal(size=(2, *shape)))
    pair = bump_pair(image, BumpSettings(energy=30.0), rng())
    assert pair.fixed_labels is None
    assert pair.moving_labels is None
    assert pair.fixed.dtype == pair.moving.dtype == torch.float32
    torch.testing.assert_close(pair.moving, image.float(), atol=0, rtol=0)
    at = np.indices(shape) + known(pair.displacement).numpy()
    for channel in range(2):
        expected = map_coordinates(pair.moving[channel].numpy(), at, order=1, mode="nearest")
        np.testing.assert_allclose(pair.fixed[channel], expected, atol=1e-6)  # float32 on values of about 3
    assert float((pair.fixed - pair.moving).abs().max()) > 0.1


def test_a_smooth_image_is_carried_by_the_truth(dim: int) -> None:
    shape = (30, 41, 36)[:dim]

    def wave(at: np.ndarray) -> np.ndarray:
        return np.sin(0.2 * at[0] + 0.1) + sum(np.cos(0.15 * place) for place in at[1:])

    pair = bump_pair(torch.from_numpy(wave(np.indices(shape).astype(float)))[None], BumpSettings(energy=16.0), rng())
    at = np.indices(shape) + known(pair.displacement).numpy()
    limit = np.array(shape).reshape(-1, *(1,) * dim) - 1
    within = ((at >= 0) & (at <= limit)).all(0)
    # linear interpolation errs by an eighth of the second derivatives, 0.04 and 0.0225 for each further axis
    bound = (0.04 + 0.0225 * (dim - 1)) / 8 + 1e-5
    assert within.mean() > 0.8
    assert np.abs(pair.fixed[0].numpy() - wave(at))[within].max() < bound


def test_labels_go_with_the_image(dim: int) -> None:
    shape = (40, 36, 44)[:dim]
    labels = ellipses(shape)
    pair = bump_pair((labels == 2).float(), BumpSettings(energy=16.0), rng(), labels)
    assert pair.moving_labels is labels
    assert known(pair.fixed_labels).dtype == labels.dtype
    assert 0 < dice(known(pair.fixed_labels), labels) < 0.95
    # where label 2 has more than half of the weight it wins; with less than a third of three labels it cannot
    assert (known(pair.fixed_labels)[pair.fixed > 0.51] == 2).all()
    assert (known(pair.fixed_labels)[pair.fixed < 0.33] != 2).all()


def test_folds_are_drawn_again(dim: int) -> None:
    shape = (20, 24, 22)[:dim]
    often = BumpSettings(energy=24.0, count=20)
    seeds = range(12)

    def folds(settings: BumpSettings) -> list[bool]:
        fields = [bump_displacement(shape, settings, rng(seed)) for seed in seeds]
        return [float(jacobian_determinant(field[None]).min()) <= 0 for field in fields]

    assert any(folds(often))
    assert not any(folds(BumpSettings(energy=24.0, count=20, without_folds=True)))
    with pytest.raises(BadInput, match=r"folded in each of 100 draws"):
        bump_displacement(shape, BumpSettings(energy=2000.0, without_folds=True), rng())


def test_the_seed_decides_with_and_without_kernels(shape: tuple[int, ...]) -> None:
    image, settings = torch.from_numpy(rng(1).random((1, *shape))), BumpSettings()
    first, other = (bump_pair(image, settings, rng(seed)) for seed in (3, 4))
    with plainly():
        second = bump_pair(image, settings, rng())
    assert torch.equal(first.fixed, second.fixed)
    assert torch.equal(known(first.displacement), known(second.displacement))
    assert not torch.equal(known(first.displacement), known(other.displacement))


@pytest.mark.parametrize("bad", [{"energy": -1.0}, {"energy": float("nan")}, {"count": 0}, {"widths": (0.2, 0.1)}])
def test_bad_settings(bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"of bumps must be .*, got "):
        BumpSettings(**bad)


def test_bad_arguments() -> None:
    with pytest.raises(BadInput, match=r"2 or 3 axes .* got shape \(7,\)"):
        bump_displacement((7,), BumpSettings(), rng())
    image = torch.zeros(1, 5, 7)
    for labels in (torch.zeros(1, 7, 5, dtype=torch.int32), torch.zeros(1, 5, 7), torch.zeros(5, 7, dtype=torch.int32)):
        with pytest.raises(BadInput, match=r"labels must be integers of shape \(1, 5, 7\), got"):
            bump_pair(image, BumpSettings(), rng(), labels)
