from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch import Tensor

from oracles.make import normal
from warpwright import kernels
from warpwright.energies.similarity import mutual_information as module
from warpwright.energies.similarity.mutual_information import MutualInformation
from warpwright.errors import BadInput


def slow_joint(fixed: np.ndarray, moved: np.ndarray, weight: np.ndarray, bins: int, outliers: float) -> np.ndarray:
    """One voxel and one pair of bins at a time, with SciPy's spline."""
    spline = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)

    def windows(values: np.ndarray) -> np.ndarray:
        ranked = np.sort(values[weight > 0])
        cut = int(outliers * (len(ranked) - 1))
        low, high = ranked[cut], ranked[len(ranked) - 1 - cut]
        t = 1 + (np.clip(values, low, high) - low) / (high - low) * (bins - 3)
        return np.nan_to_num(spline(t[:, None] - np.arange(bins)))

    joint = np.zeros((bins, bins))
    for a, b, w in zip(windows(fixed), windows(moved), weight, strict=True):
        joint += w * np.outer(a, b)
    return joint / joint.sum()


def entropy(p: np.ndarray) -> float:
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


@pytest.mark.parametrize(("bins", "outliers"), [(5, 0.0), (8, 0.0), (32, 0.0), (8, 0.1)])
def test_against_explicit_windows(shape: tuple[int, ...], generator: torch.Generator, bins: int, outliers: float) -> None:
    fixed = normal(generator, 1, 1, *shape)
    moved = -0.7 * fixed**2 + 0.3 * normal(generator, 1, 1, *shape)
    weight = torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64)
    weight[:, :, 0] = 0
    joint = slow_joint(fixed.numpy().ravel(), moved.numpy().ravel(), weight.numpy().ravel(), bins, outliers)
    alone = entropy(joint.sum(0)) + entropy(joint.sum(1))
    information = alone - entropy(joint)
    plain = MutualInformation(bins=bins, outliers=outliers).similarity(moved, fixed, weight)
    normalised = MutualInformation(bins=bins, outliers=outliers, normalised=True).similarity(moved, fixed, weight)
    assert plain.item() == pytest.approx(-information, abs=1e-10)
    assert normalised.item() == pytest.approx(-2 * information / alone, abs=1e-10)


@pytest.mark.parametrize("correlation", [0.0, 0.5, -0.9])
def test_gaussian_intensities_have_the_known_information(generator: torch.Generator, correlation: float) -> None:
    fixed = normal(generator, 1, 1, 400, 500)
    moved = correlation * fixed + math.sqrt(1 - correlation**2) * normal(generator, 1, 1, 400, 500)
    value = -MutualInformation(bins=64).similarity(moved, fixed).item()
    # 0.02: 64 x 64 bins add about 63^2 / (2 n) = 0.01 from chance, and the windows widen the ridge
    assert value == pytest.approx(-0.5 * math.log(1 - correlation**2), abs=0.02)


@pytest.mark.parametrize(("scale", "shift"), [(0.1, 0.0), (100.0, 0.0), (1.0, -1000.0), (100.0, -1000.0), (-1.0, 0.0)])
def test_linear_changes_of_intensity_change_nothing(
    shape: tuple[int, ...], generator: torch.Generator, scale: float, shift: float
) -> None:
    fixed = normal(generator, 1, 1, *shape)
    moved = fixed**3 + normal(generator, 1, 1, *shape)
    similarity = MutualInformation(bins=12)
    value = similarity.similarity(moved, fixed)
    torch.testing.assert_close(similarity.similarity(scale * moved + shift, fixed), value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(similarity.similarity(moved, scale * fixed + shift), value, rtol=1e-9, atol=1e-12)


def test_air_and_fat_are_told_apart(dim: int, generator: torch.Generator) -> None:
    """Negative intensities carry information: a CT of air, fat and tissue is not its positive part."""
    shape = (12, 11, 10)[:dim]
    classes = torch.randint(0, 4, (1, 1, *shape), generator=generator)
    units = torch.tensor([-1000.0, -900.0, -100.0, 40.0], dtype=torch.float64)
    fixed = units[classes] + normal(generator, 1, 1, *shape)
    moved = torch.tensor([3.0, 0.0, 2.0, 1.0], dtype=torch.float64)[classes]
    similarity = MutualInformation()
    told_apart = similarity.similarity(moved, fixed).item()
    merged = torch.where(classes == 0, fixed + 100, fixed)
    clipped = fixed.clamp_min(0)
    assert told_apart < similarity.similarity(moved, merged).item() - 0.1
    assert similarity.similarity(moved, merged).item() < similarity.similarity(moved, clipped).item() - 0.1


def test_a_few_extreme_voxels_do_not_matter(generator: torch.Generator) -> None:
    fixed = normal(generator, 1, 1, 60, 70)
    moved = fixed + 0.3 * normal(generator, 1, 1, 60, 70)
    spoilt = fixed.clone()
    spoilt[0, 0, 5, :3] = 1e4
    clean = MutualInformation().similarity(moved, fixed).item()
    assert MutualInformation().similarity(moved, spoilt).item() == pytest.approx(clean, abs=0.02)  # three voxels of 4200
    assert MutualInformation(outliers=0.0).similarity(moved, spoilt).item() > 0.1 * clean


def test_a_mostly_constant_image_keeps_its_range(generator: torch.Generator) -> None:
    fixed = torch.zeros(1, 1, 60, 70, dtype=torch.float64)
    fixed[0, 0, 30, 30:33] = 1
    noise = normal(generator, 1, 1, 60, 70)
    similarity = MutualInformation(outliers=0.01)
    assert similarity.similarity(fixed, fixed).item() < similarity.similarity(noise, fixed).item() - 1e-4


def test_equal_images_have_most_information_and_independent_ones_least(generator: torch.Generator) -> None:
    image, other = normal(generator, 1, 1, 60, 70), normal(generator, 1, 1, 60, 70)
    similarity = MutualInformation(normalised=True)
    assert -1 <= similarity.similarity(image, image).item() < -0.4  # the windows keep it from -1
    assert -0.05 < similarity.similarity(other, image).item() <= 0  # chance: at most 31^2 / (2 n) = 0.11 nats of about 3


def value_and_gradients(moved: Tensor, fixed: Tensor, weight: Tensor | None) -> list[Tensor]:
    inputs = [t.clone().requires_grad_() for t in (moved, fixed, weight) if t is not None]
    value = MutualInformation(bins=9).similarity(*inputs)
    first = torch.autograd.grad(value.sum(), inputs, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), inputs)
    return [value, *first, *second]


@pytest.mark.parametrize("weighted", [True, False])
def test_chunks_do_not_matter(
    shape: tuple[int, ...], generator: torch.Generator, monkeypatch: pytest.MonkeyPatch, weighted: bool
) -> None:
    moved, fixed = normal(generator, 2, 2, *shape), normal(generator, 2, 2, *shape)
    weight = torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64) if weighted else None
    whole = value_and_gradients(moved, fixed, weight)
    monkeypatch.setattr(module, "CHUNK", 11)
    monkeypatch.setattr(module, "SLAB", 4)
    with kernels.plainly():
        cut = value_and_gradients(moved, fixed, weight)
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_no_matrix_of_voxels_by_bins_is_kept(generator: torch.Generator) -> None:
    fixed = torch.randn(1, 1, 60, 70, generator=generator)
    moved = torch.randn(1, 1, 60, 70, generator=generator).requires_grad_()
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        MutualInformation().similarity(moved, fixed)
    assert max(sizes) == fixed.numel()


def test_same_bytes_whatever_the_number_of_threads(generator: torch.Generator) -> None:
    fixed = torch.randn(1, 1, 190, 203, generator=generator)
    moved = fixed.square() + torch.randn(1, 1, 190, 203, generator=generator)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaf = moved.clone().requires_grad_()
            value = MutualInformation().similarity(leaf, fixed)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
            found.append((value.item(), gradient.numpy().tobytes()))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("settings", [{"bins": 4}, {"outliers": 0.5}, {"outliers": -0.1}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="got"):
        MutualInformation(**settings)
