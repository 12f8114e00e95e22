from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch import Tensor

from oracles.make import normal
from warpwright import kernels
from warpwright.energies.similarity import intensity_range
from warpwright.energies.similarity import mutual_information as module
from warpwright.energies.similarity.mutual_information import MutualInformation

pytest.importorskip("numba")

ENDS = torch.tensor([[-1.2, 1.4], [-0.9, 1.8]], dtype=torch.float64)


def slow_joint(fixed: Tensor, moved: Tensor, weight: Tensor, ends: Tensor, bins: int) -> np.ndarray:
    """One row and one voxel at a time, with SciPy's spline."""
    spline = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)
    out = np.zeros((len(fixed), bins, bins))
    for r, (low, high) in enumerate(ends.tolist()):

        def window(value: float, low: float = low, high: float = high) -> np.ndarray:
            t = 1 + (min(max(value, low), high) - low) / (high - low) * (bins - 3)
            return np.nan_to_num(spline(t - np.arange(bins)))

        for a, b, w in zip(fixed[r].tolist(), moved[r].tolist(), weight[r].tolist(), strict=True):
            out[r] += w * np.outer(window(a), window(b))
    return out


@pytest.mark.parametrize("bins", [5, 9])
def test_joint_is_the_sum_of_outer_products(generator: torch.Generator, bins: int) -> None:
    fixed, moved = normal(generator, 2, 300), normal(generator, 2, 300)  # many beyond the ends, more than one chunk
    weight = torch.rand(2, 300, generator=generator, dtype=torch.float64)
    expected = slow_joint(fixed, moved, weight, ENDS, bins)
    np.testing.assert_allclose(module._joint(fixed, moved, weight, ENDS, ENDS, bins), expected, atol=1e-12)
    single = module._joint(fixed.float(), moved.float(), weight.float(), ENDS.float(), ENDS.float(), bins)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, expected, atol=1e-4)


def test_joint_has_first_and_second_derivatives(generator: torch.Generator) -> None:
    inputs = [normal(generator, 2, 9).requires_grad_() for _ in range(2)]
    inputs.append(torch.rand(2, 9, generator=generator, dtype=torch.float64).requires_grad_())

    def joint(fixed: Tensor, moved: Tensor, weight: Tensor | None = None) -> Tensor:
        return module._joint(fixed, moved, weight, ENDS, ENDS, 6)

    for given in (inputs, inputs[:2]):
        assert torch.autograd.gradcheck(joint, given)
        assert torch.autograd.gradgradcheck(joint, given)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_energy_and_gradients_are_those_of_the_twin(
    shape: tuple[int, ...], generator: torch.Generator, weighted: bool, kind: torch.dtype
) -> None:
    fixed, moved = normal(generator, 2, 2, *shape).to(kind), normal(generator, 2, 2, *shape).to(kind)
    weight = torch.rand(1, 1, *shape, generator=generator).to(kind) if weighted else None

    def run() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (moved, fixed, weight) if t is not None]
        energy = MutualInformation(bins=11, outliers=0.05).similarity(*leaves)
        return [energy, *torch.autograd.grad(energy.square().sum(), leaves)]

    found = run()
    with kernels.plainly():
        expected = run()
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if kind == torch.float64 else {"rtol": 1e-3, "atol": 1e-5}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def images(generator: torch.Generator) -> dict[str, Tensor]:
    count = 1 << 17
    noise = torch.randn(1, count, generator=generator)
    ramp = torch.linspace(0, 1, count)[None]
    return {
        "noise": noise,
        "ramp": ramp,
        "half empty": noise.clamp_min(0),
        "few levels": (4 * noise).round(),
        "one spike": torch.zeros(1, count).index_fill(1, torch.tensor([77]), 1.0),
        "constant": torch.full((1, count), -1000.0),
        "infinite": noise.index_fill(1, torch.tensor([5]), torch.inf),
        "extremes in one slab": torch.cat([noise[:, :-2000], 9 + noise[:, -2000:]], 1),
    }


@pytest.mark.parametrize("outliers", [0.0, 1e-7, 0.001, 0.2, 0.49])
@pytest.mark.parametrize("weighted", [None, "half", "few", "none"])
def test_ends_are_exact_ranks(generator: torch.Generator, outliers: float, weighted: str | None) -> None:
    for name, image in images(generator).items():
        weight = None
        if weighted is not None:
            keep = {"half": 0.5, "few": 0.0002, "none": 0.0}[weighted]
            weight = (torch.rand(image.shape, generator=generator) < keep).float()
        for values in (image, image.double()):
            inside = None if weight is None else weight.to(values.dtype)
            found = intensity_range.intensity_ends(values, inside, outliers)
            expected = intensity_range._plain(values, inside, outliers)
            assert torch.equal(found, expected), name


def test_a_value_that_is_no_number_stays_one(generator: torch.Generator) -> None:
    fixed, moved = normal(generator, 1, 1, 300, 300), normal(generator, 1, 1, 300, 300)
    moved[0, 0, 3, 4] = torch.nan
    assert MutualInformation().similarity(moved, fixed).isnan().all()


def test_operators_are_sound(generator: torch.Generator) -> None:
    fixed, moved = normal(generator, 2, 20).requires_grad_(), normal(generator, 2, 20).requires_grad_()
    weight = torch.rand(2, 20, generator=generator, dtype=torch.float64)
    for own in (weight, None):
        torch.library.opcheck(module._joint, (fixed, moved, own, ENDS, ENDS, 7))
        torch.library.opcheck(intensity_range._compiled, (fixed.detach(), own, 0.1))
        gradient = normal(generator, 2, 7, 7)
        torch.library.opcheck(module._joint_gradient, (gradient, fixed.detach(), moved.detach(), own, ENDS, ENDS, True))


@pytest.mark.parametrize("weighted", [True, False])
def test_same_bytes_for_any_number_of_threads(generator: torch.Generator, weighted: bool) -> None:
    fixed = torch.randn(1, 1, 60, 50, 41, generator=generator)
    moved = fixed.square() + torch.randn(fixed.shape, generator=generator)
    weight = torch.rand(fixed.shape, generator=generator) if weighted else None
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaf = moved.clone().requires_grad_()
            value = MutualInformation().similarity(leaf, fixed, weight)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
            found.append((value.item(), gradient.numpy().tobytes()))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]
