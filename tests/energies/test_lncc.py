from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np
import pytest
import torch

from oracles.make import normal
from warpwright.energies.similarity.lncc import LNCC
from warpwright.errors import BadInput


def slow_lncc(moved: np.ndarray, fixed: np.ndarray, weight: np.ndarray, radius: tuple[int, ...], epsilon: float) -> float:
    """Weighted correlation of one window at a time."""
    total = 0.0
    for voxel in np.ndindex(*fixed.shape):
        window = tuple(slice(max(v - r, 0), v + r + 1) for v, r in zip(voxel, radius, strict=True))
        m, f, w = moved[window].ravel(), fixed[window].ravel(), weight[window].ravel()
        m, f = m - np.average(m, weights=w), f - np.average(f, weights=w)
        covariance = np.average(m * f, weights=w)
        variances = (np.average(m * m, weights=w) + epsilon) * (np.average(f * f, weights=w) + epsilon)
        total += weight[voxel] * (1 - (abs(covariance) + epsilon) ** 2 / variances)
    return total / weight.sum()


@pytest.mark.parametrize("radius", [1, 2, (1, 2, 0)])
@pytest.mark.parametrize("weighted", [True, False])
def test_box_against_a_loop(
    shape: tuple[int, ...], generator: torch.Generator, radius: int | tuple[int, ...], weighted: bool
) -> None:
    dim = len(shape)
    fixed = normal(generator, 1, 1, *shape)
    moved = 0.5 * fixed + normal(generator, 1, 1, *shape) + 10
    weight = torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64) + 0.1
    radius = radius if isinstance(radius, int) else radius[:dim]
    radii = (radius,) * dim if isinstance(radius, int) else radius
    used = weight if weighted else torch.ones_like(weight)
    expected = slow_lncc(moved[0, 0].numpy(), fixed[0, 0].numpy(), used[0, 0].numpy(), radii, 1e-4)
    value = LNCC(radius=radius).similarity(moved, fixed, weight if weighted else None)
    assert value.item() == pytest.approx(expected, abs=1e-9)


def test_gaussian_against_a_loop(shape: tuple[int, ...], generator: torch.Generator) -> None:
    fixed, moved = normal(generator, *shape).numpy(), normal(generator, *shape).numpy()
    sigma, reach, total = 1, 3, 0.0
    for voxel in np.ndindex(*shape):
        places = [np.add(voxel, o) for o in product(range(-reach, reach + 1), repeat=len(shape))]
        places = [p for p in places if (p >= 0).all() and (p < shape).all()]
        w = np.array([np.exp(-0.5 * np.sum((p - np.array(voxel)) ** 2) / sigma**2) for p in places])
        m, f = (np.array([image[tuple(p)] for p in places]) for image in (moved, fixed))
        m, f = m - np.average(m, weights=w), f - np.average(f, weights=w)
        variances = (np.average(m * m, weights=w) + 1e-4) * (np.average(f * f, weights=w) + 1e-4)
        total += 1 - (abs(np.average(m * f, weights=w)) + 1e-4) ** 2 / variances
    value = LNCC(radius=sigma, window="gaussian").similarity(torch.tensor(moved)[None, None], torch.tensor(fixed)[None, None])
    assert value.item() == pytest.approx(total / fixed.size, abs=1e-9)


def test_any_linear_contrast_agrees(shape: tuple[int, ...], generator: torch.Generator) -> None:
    image = normal(generator, 1, 1, *shape)
    for scale, shift in ((2.0, 0.0), (-1.0, 5.0), (100.0, -1000.0)):
        value = LNCC(epsilon=1e-8).similarity(scale * image + shift, image)
        assert value.item() == pytest.approx(0, abs=1e-6)


def test_spacing_shortens_the_window_along_coarse_axes() -> None:
    assert LNCC(radius=4).for_spacing((0.5, 1.0, 10.0)).radius == (4, 2, 0)
    assert LNCC(radius=(1, 2)).for_spacing((1.0, 5.0)).radius == (1, 2)


@pytest.mark.parametrize("window", ["box", "gaussian"])
@pytest.mark.parametrize("learns", [False, True], ids=["a value", "a gradient in the fixed image"])
def test_a_radius_of_other_axes_is_refused(
    dim: int, shape: tuple[int, ...], generator: torch.Generator, window: Literal["box", "gaussian"], learns: bool
) -> None:
    fixed, moved = normal(generator, 1, 1, *shape).requires_grad_(learns), normal(generator, 1, 1, *shape)
    for count in {1, 2, 3, 4} - {dim}:
        lncc = LNCC(radius=(1,) * count, window=window)
        said = f"^LNCC has a radius of {count} numbers, the images have {dim} axes: expected one number, or {dim}$"
        for refused in (lambda lncc=lncc: lncc.similarity(moved, fixed), lambda lncc=lncc: lncc.for_spacing((1.0,) * dim)):
            with pytest.raises(BadInput, match=said):
                refused()


def test_a_radius_of_no_number_is_refused() -> None:
    with pytest.raises(BadInput, match=r"LNCC needs radius >= 1 and epsilon > 0, got radius = \(\)"):
        LNCC(radius=())
