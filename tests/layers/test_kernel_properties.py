"""Penalties and figures of kernels: against sums over taps, over signed permutations and over waves, for kernels one knows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from oracles.make import normal
from warpwright.layers.kernel_properties import (
    asymmetry,
    diagnostics,
    eq12_asymmetry,
    negative_spectrum,
    spectrum,
    spread_of_rank,
    traces,
)

Groups = tuple[int, ...]


def places(taps: int, dim: int) -> list[np.ndarray]:
    return np.meshgrid(*[np.arange(taps) - taps // 2] * dim, indexing="ij")


Y, X = places(13, 2)
RADIUS = np.sqrt(X**2 + Y**2)
ZOO: dict[str, np.ndarray] = {
    "gaussian": np.exp(-(RADIUS**2) / 8),
    "delta": np.where(RADIUS == 0, 1.0, 0.0),
    "oblique": np.exp(-(RADIUS**2 - 1.6 * X * Y) / 2.88),
    "box": np.where(np.maximum(abs(X), abs(Y)) <= 2, 1.0, 0.0),
    "disc": np.where(RADIUS <= 4, 1.0, 0.0),
    "difference": np.exp(-(RADIUS**2) / 4) - 0.4 * np.exp(-(RADIUS**2) / 16),
    "exponential": np.exp(-RADIUS / 2),
    "sharpening": np.where(RADIUS == 0, 3.0, 0.0) - 0.05 * np.exp(-(RADIUS**2) / 8),  # of negative second moment, width 0
    "random": 0.1 * np.random.default_rng(3).standard_normal((13, 13)),
}
CUBE = places(7, 3)
OBLIQUE = np.exp(-(sum(c**2 for c in CUBE) - 0.8 * (CUBE[0] * CUBE[1] + CUBE[1] * CUBE[2] + CUBE[0] * CUBE[2])) / 4)
ZOO_3D: dict[str, np.ndarray] = {
    "gaussian": np.exp(-sum(c**2 for c in CUBE) / 3),
    "wide along one axis": np.exp(-(CUBE[0] ** 2 + CUBE[2] ** 2) / 2 - CUBE[1] ** 2 / 8),
    "oblique": OBLIQUE,
    "random": np.random.default_rng(4).standard_normal((7, 7, 7)),
}
CASES = [(name, (0, 0)) for name in ZOO] + [("random", (0, 1)), ("oblique", (0, 1))]
CASES_3D = [(name, groups) for name in ZOO_3D for groups in ((0, 0, 0), (0, 1, 0), (0, 1, 2))]
EVERY = pytest.mark.parametrize(("name", "groups"), CASES + CASES_3D)


def of(name: str, groups: Groups) -> np.ndarray:
    return (ZOO if len(groups) == 2 else ZOO_3D)[name]


def one(kernel: np.ndarray) -> Tensor:
    return torch.from_numpy(kernel.copy())[None]


def mean_over_symmetries(kernel: np.ndarray, groups: Groups) -> np.ndarray:
    """Tap by tap: every signed permutation that keeps groups takes places, as integers, to places."""
    at = np.stack(places(len(kernel), len(groups)))
    found = []
    for order in permutations(range(len(groups))):
        if all(groups[a] == groups[b] for a, b in enumerate(order)):
            for signs in product((1, -1), repeat=len(groups)):
                moved = [s * at[a] + len(kernel) // 2 for a, s in zip(order, signs, strict=True)]
                found.append(kernel[tuple(moved)])
    return np.mean(found, 0)


def waves(kernel: np.ndarray) -> np.ndarray:
    """The transform as a sum over taps, at as many frequencies as `spectrum` has."""
    count = 64 if kernel.ndim == 2 else 32
    wave = np.exp(-2j * np.pi * np.outer(np.arange(count), np.arange(len(kernel)) - len(kernel) // 2) / count)
    found = kernel.astype(complex)
    for axis in range(kernel.ndim):
        found = np.moveaxis(np.tensordot(wave, found, (1, axis)), 0, axis)
    return found


def figures(kernel: np.ndarray, groups: Groups) -> dict[str, float]:
    """What `diagnostics` should say, by other means."""
    m, dim, size = len(kernel), kernel.ndim, np.sqrt(np.square(kernel).sum())
    squares = sum(place**2 for place in places(m, dim))
    rings = np.vectorize({r: kernel[squares == r].mean() for r in np.unique(squares)}.__getitem__)(squares)
    unfolded = [np.moveaxis(kernel, axis, 0).reshape(m, -1) for axis in range(dim)]
    energies = [np.sort(np.linalg.eigvalsh(flat @ flat.T)) for flat in unfolded]
    found = waves(kernel)
    planes = [kernel] if dim == 2 else [np.take(kernel, m // 2, axis) for axis in range(3)]
    out = {
        "asymmetry": np.linalg.norm(kernel - mean_over_symmetries(kernel, groups)) / size,
        "spectrum": found.real.min() / abs(found).max(),
        "imaginary": abs(found.imag).max() / abs(found).max(),
        "rank": max(np.sqrt(max(e[-2], 0) / e[-1]) for e in energies),
        "width": np.sqrt(max((squares * kernel).sum() / kernel.sum(), 0)),
        "sum": kernel.sum(),
        "trace": np.mean([sum(plane[i, i] for i in range(m)) for plane in planes]),
        "cross_trace": np.mean([sum(plane[i, m - 1 - i] for i in range(m)) for plane in planes]),
    }
    if max(groups) == 0:
        out["anisotropy"] = np.linalg.norm(kernel - rings) / size
    if dim == 2 and max(groups) == 0:
        values = np.linalg.eigvals((kernel + kernel.T) / 2).real
        out["matrix"] = values.min() / abs(values).max()
    return out


@EVERY
def test_figures_are_those_of_sums_over_taps(name: str, groups: Groups) -> None:
    kernel = of(name, groups)
    assert diagnostics(one(kernel), groups) == pytest.approx(figures(kernel, groups), abs=1e-7, rel=1e-7)


def test_a_width_is_one_of_space_and_not_of_taps() -> None:
    """Gaussians as wide in space along an axis of coarse taps as along one of fine taps."""
    lines = [torch.exp(-0.5 * ((torch.arange(41) - 20.0) * size / 3) ** 2) for size in (1.0, 2.5)]
    found = diagnostics(torch.outer(*lines)[None], (0, 1), (1.0, 2.5))
    assert found["width"] == pytest.approx(3 * 2**0.5, rel=1e-5)
    assert {"anisotropy", "matrix"}.isdisjoint(found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gaussian", (0, 0, 0, -0.0007, 0)),
        ("delta", (0, 0, 0, 1, 0)),
        ("oblique", (0.4472, 0.4490, 0.0002, -0.0006, 0.5)),
        ("box", (0, 0, 0, -0.2487, 0)),  # positive as a matrix, of rank one, and no kernel
        ("disc", (0, 0, -0.2506, -0.1389, 0.2506)),
        ("difference", (0, 0, -0.6076, -1, 0.6076)),
        ("exponential", (0, 0, 0, -0.0009, 0.12)),
    ],
)
def test_figures_of_kernels_one_knows(name: str, expected: tuple[float, ...]) -> None:
    found = diagnostics(one(ZOO[name]), (0, 0))
    names = ("asymmetry", "anisotropy", "matrix", "spectrum", "rank")
    assert tuple(found[key] for key in names) == pytest.approx(expected, abs=6e-5)
    assert found["imaginary"] < 1e-12
    assert eq12_asymmetry(one(ZOO[name])).item() < 1e-24  # passes the oblique one as well


def test_figures_of_many_are_the_worst_and_know_no_scale() -> None:
    names = ("gaussian", "oblique", "box", "random")
    each = [diagnostics(one(ZOO[name]), (0, 0)) for name in names]
    many = diagnostics(3 * torch.cat([one(ZOO[name]) for name in names]), (0, 0))
    worst = {"spectrum": min, "matrix": min, "width": min, "asymmetry": max, "anisotropy": max, "imaginary": max, "rank": max}
    for key, choice in worst.items():
        assert many[key] == pytest.approx(choice(found[key] for found in each), abs=1e-9)
    for key in ("sum", "trace", "cross_trace"):
        assert many[key] == pytest.approx(3 * np.mean([found[key] for found in each]))


@EVERY
def test_asymmetry_is_a_sum_over_generators(name: str, groups: Groups) -> None:
    kernel = of(name, groups)
    turned = [np.flip(kernel, axis) for axis in range(len(groups))]
    pairs = {(0, 0): [(0, 1)], (0, 0, 0): [(0, 1), (0, 2)], (0, 1, 0): [(0, 2)]}.get(groups, [])
    turned += [np.swapaxes(kernel, *pair) for pair in pairs]
    expected = sum(np.square(kernel - other).sum() for other in turned)
    assert asymmetry(one(kernel), groups).item() == pytest.approx(expected, rel=1e-12, abs=1e-24)
    lasting = np.linalg.norm(kernel - mean_over_symmetries(kernel, groups)) > 1e-12
    assert (expected > 1e-20) == lasting  # generators are enough


def test_equation_12_has_its_two_terms(generator: torch.Generator) -> None:
    kernels = normal(generator, 2, 5, 5)
    exchange = np.fliplr(np.eye(5))
    expected = [np.square(k - k.T).sum() + np.square(k @ exchange - exchange @ k).sum() for k in kernels.numpy()]
    assert eq12_asymmetry(kernels).tolist() == pytest.approx(expected)


def test_an_oblique_kernel_of_three_axes_is_caught_by_mirrors_alone() -> None:
    """Swaps of its axes and the point inversion, which is equation 12 taken to three axes, leave it as it is."""
    for first, second in ((0, 1), (0, 2), (1, 2)):
        np.testing.assert_allclose(OBLIQUE, np.swapaxes(OBLIQUE, first, second), rtol=1e-15)
    np.testing.assert_allclose(OBLIQUE, np.flip(OBLIQUE), rtol=1e-15)
    share = np.linalg.norm(OBLIQUE - np.flip(OBLIQUE, 0)) / np.linalg.norm(OBLIQUE)
    assert share == pytest.approx(0.77, abs=0.005)
    found = asymmetry(one(OBLIQUE), (0, 0, 0)).item() / np.square(OBLIQUE).sum()
    assert found == pytest.approx(3 * share**2)
    assert diagnostics(one(OBLIQUE), (0, 0, 0))["asymmetry"] > 0.3


@EVERY
def test_spectrum_traces_and_rank(name: str, groups: Groups) -> None:
    kernel = of(name, groups)
    expected = waves(kernel)
    np.testing.assert_allclose(spectrum(one(kernel))[0].numpy(), expected, rtol=0, atol=1e-11)
    assert negative_spectrum(one(kernel)).item() == pytest.approx(np.maximum(-expected.real, 0).mean(), abs=1e-14)
    unfolded = [np.moveaxis(kernel, axis, 0).reshape(len(kernel), -1) for axis in range(kernel.ndim)]
    energies = [np.linalg.eigvalsh(flat @ flat.T) for flat in unfolded]
    assert spread_of_rank(one(kernel)).item() == pytest.approx(np.mean([1 - e[-1] / e.sum() for e in energies]), abs=1e-12)
    if kernel.ndim == 3:
        c, m = 3, range(7)
        sides = [(kernel[c, i, j], kernel[i, c, j], kernel[i, j, c]) for i, j in [(i, i) for i in m] + [(i, 6 - i) for i in m]]
        straight, crossed = np.sum(sides[:7], 0), np.sum(sides[7:], 0)
        assert traces(one(kernel))[0].tolist() == pytest.approx(np.stack((straight, crossed), 1).ravel().tolist())


@pytest.mark.parametrize(
    "function",
    [negative_spectrum, spread_of_rank, traces, lambda k: asymmetry(k, (0, 1, 0)[: k.ndim - 1]), lambda k: eq12_asymmetry(k)],
    ids=["negative_spectrum", "spread_of_rank", "traces", "asymmetry", "eq12_asymmetry"],
)
def test_gradients(
    function: Callable[[Tensor], Tensor], dim: int, generator: torch.Generator, request: pytest.FixtureRequest
) -> None:
    kernels = normal(generator, 2, *(3,) * (2 if "eq12" in request.node.name else dim)).requires_grad_()
    assert gradcheck(function, (kernels,))
