from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from oracles.make import normal, orders, permute_field, smooth_field
from warpwright.energies.regularity import (
    Bending,
    Diffusion,
    Folding,
    Regularity,
    TotalVariation,
    bending,
    diffusion,
    folding,
    total_variation,
)

REGULARITIES = [Diffusion(), TotalVariation(epsilon=0.1), Bending(), Folding(margin=0.8)]
every = pytest.mark.parametrize("regularity", REGULARITIES, ids=lambda r: type(r).__name__)


def places(shape: tuple[int, ...]) -> Tensor:
    axes = [torch.arange(n, dtype=torch.float64) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def along(axis: int, component: int, profile: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """A field with one component, which varies along one axis only."""
    out = torch.zeros(1, len(shape), *shape, dtype=torch.float64)
    out[0, component] = torch.tensor(profile)[places(shape)[axis].long()]
    return out


@every
def test_gradcheck(regularity: Regularity, dim: int, spacing: tuple[float, ...], generator: torch.Generator) -> None:
    shape = (3, 4, 3)[:dim]
    field = (0.4 * normal(generator, 4 - dim, dim, *shape)).requires_grad_()  # two samples in 2-D, one in 3-D
    energy = partial(regularity.regularity, spacing=spacing)
    assert energy(field).min() > 0
    assert gradcheck(energy, (field,))
    assert gradgradcheck(energy, (field,))


@every
def test_order_of_axes_does_not_matter(
    regularity: Regularity, shape: tuple[int, ...], spacing: tuple[float, ...], generator: torch.Generator
) -> None:
    field = normal(generator, 1, len(shape), *shape)
    value = regularity.regularity(field, spacing)
    assert value.item() > 0
    for order in orders(len(shape)):
        other = regularity.regularity(permute_field(field, order), [spacing[k] for k in order])
        torch.testing.assert_close(other, value)


@every
def test_a_batch_is_its_samples(
    regularity: Regularity, shape: tuple[int, ...], spacing: tuple[float, ...], generator: torch.Generator
) -> None:
    field = normal(generator, 2, len(shape), *shape)
    alone = [regularity.regularity(field[b : b + 1], spacing) for b in range(2)]
    torch.testing.assert_close(regularity.regularity(field, spacing), torch.cat(alone))


@every
def test_a_shift_costs_nothing(regularity: Regularity, shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    field = torch.tensor([2.0, -3.5, 0.25], dtype=torch.float64)[: len(shape)].reshape(1, -1, *(1,) * len(shape))
    field = field.expand(1, -1, *shape).clone().requires_grad_()
    value = regularity.regularity(field, spacing)
    value.sum().backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert field.grad is not None
    assert field.grad.abs().max() < 1e-12


@every
def test_axes_of_one_or_two_voxels(regularity: Regularity, dim: int, spacing: tuple[float, ...]) -> None:
    for shape in ((5, 1, 4)[:dim], (1, 2, 1)[:dim]):
        field = torch.ones(1, dim, *shape, dtype=torch.float64).requires_grad_()
        value = regularity.regularity(field, spacing)
        value.sum().backward()
        assert value.item() == 0
        assert field.grad is not None
        assert field.grad.abs().max() == 0
    assert regularity.regularity(torch.ones(1, dim, *(1,) * dim), spacing).item() == 0


@pytest.mark.parametrize("regularity", [Diffusion(), TotalVariation(), Bending(), Folding()])
def test_a_field_that_alternates_from_voxel_to_voxel_is_seen(
    regularity: Regularity, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    rough = ((-1) ** places(shape).sum(0))[None, None].expand(1, len(shape), *shape)
    assert regularity.regularity(rough, spacing).item() > 10 * regularity.regularity(smooth_field(shape, 1.0), spacing).item()


@every
def test_the_unit_is_the_millimetre(regularity: Regularity, dim: int) -> None:
    """One field in the world, on a grid and on another with voxels half the size, has one value."""
    size = (40, 44, 42)[:dim]
    values = []
    for refine in (1, 2):
        axes = [(torch.arange(refine * n, dtype=torch.float64) + 0.5) / (refine * n) for n in size]
        at = torch.meshgrid(*axes, indexing="ij")
        mm = torch.stack([6 * torch.stack([(3 * x + c).sin() for x in at]).prod(0) for c in range(dim)])[None]
        values.append(regularity.regularity(mm * refine, (1 / refine,) * dim).item())
    # 5 %: differences are of second order inside and one-sided at the border; those of folding are of first order
    rel = 0.15 if isinstance(regularity, Folding) else 0.05
    assert values[1] == pytest.approx(values[0], rel=rel, abs=1e-9)


def test_diffusion_of_a_linear_field(shape: tuple[int, ...], spacing: tuple[float, ...], generator: torch.Generator) -> None:
    matrix = normal(generator, len(shape), len(shape))
    field = torch.einsum("ij,j...->i...", matrix, places(shape))[None]
    mm = np.diag(spacing) @ matrix.numpy() @ np.diag(1 / np.array(spacing))
    assert diffusion(field, spacing).item() == pytest.approx((mm**2).sum())


@pytest.mark.parametrize("wave", [1, 3, 4])
def test_diffusion_of_a_cosine(shape: tuple[int, ...], spacing: tuple[float, ...], wave: int) -> None:
    """Half-sample cosines are the eigenvectors of the difference with a free border."""
    n, axis = shape[1], 1
    theta = np.pi * wave / n
    field = along(axis, 0, 2 * np.cos(theta * (np.arange(n) + 0.5)), shape)
    expected = (2 * spacing[0] / spacing[axis]) ** 2 * 4 * np.sin(theta / 2) ** 2 * (n / 2) / (n - 1)
    assert diffusion(field, spacing).item() == pytest.approx(expected)


def test_bending_of_a_quadratic_field(shape: tuple[int, ...], spacing: tuple[float, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    half = normal(generator, dim, dim, dim)
    hessian = half + half.transpose(1, 2)
    x = places(shape)
    affine = torch.einsum("ij,j...->i...", normal(generator, dim, dim), x)
    field = (0.5 * torch.einsum("cij,i...,j...->c...", hessian, x, x) + affine)[None]
    s = np.array(spacing)
    expected = ((hessian.numpy() * s[:, None, None] / (s[:, None] * s)) ** 2).sum()
    assert bending(field, spacing).item() == pytest.approx(expected)
    assert bending(affine[None], spacing).item() == pytest.approx(0, abs=1e-12)


def test_bending_of_a_sinusoid(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    n, theta = shape[1], 0.9
    profile = np.sin(theta * np.arange(n) + 0.3)
    expected = (spacing[0] / spacing[1] ** 2 * 4 * np.sin(theta / 2) ** 2) ** 2 * (profile[1:-1] ** 2).mean()
    assert bending(along(1, 0, profile, shape), spacing).item() == pytest.approx(expected)


def test_total_variation_of_a_step(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    n, jump, epsilon = shape[0], 3.0, 0.2
    field = along(0, 1, jump * (np.arange(n) >= 2), shape)
    slope = jump * spacing[1] / spacing[0]
    expected = (np.hypot(slope, epsilon) - epsilon) / n
    assert total_variation(field, spacing, epsilon).item() == pytest.approx(expected)
    spread = along(0, 1, np.interp(np.arange(n), [1, 4], [0, jump]), shape)
    # without rounding a step costs as much as a ramp, which diffusion would prefer
    assert total_variation(spread, spacing, 1e-9).item() == pytest.approx(total_variation(field, spacing, 1e-9).item())
    assert diffusion(spread, spacing).item() < 0.5 * diffusion(field, spacing).item()


def test_total_variation_has_one_root_for_all_components(dim: int) -> None:
    shape = (4, 5, 6)[:dim]
    field = along(0, 0, 3.0 * (np.arange(4) >= 2), shape) + along(0, 1, 4.0 * (np.arange(4) >= 2), shape)
    assert total_variation(field, (1.0,) * dim, 1e-9).item() == pytest.approx(5 / 4, abs=1e-6)  # epsilon 1e-9


def test_folding_counts_what_is_below_the_margin(shape: tuple[int, ...]) -> None:
    dim = len(shape)
    assert folding(torch.zeros(1, dim, *shape, dtype=torch.float64)).item() == 0
    mirrored = along(0, 0, -2.0 * np.arange(shape[0]), shape)  # det J = -1
    assert folding(mirrored).item() == pytest.approx(1)
    squeezed = along(0, 0, -0.75 * np.arange(shape[0]), shape)  # det J = 0.25
    assert folding(squeezed).item() == 0
    assert folding(squeezed, 0.4).item() == pytest.approx(0.15)
    assert Folding(margin=0.4).regularity(squeezed, (9.0,) * dim).item() == pytest.approx(0.15)


def test_weight_is_left_to_the_sum(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    field = smooth_field(shape, 1.0)
    torch.testing.assert_close(Diffusion(weight=7.0).regularity(field, spacing), diffusion(field, spacing))


def test_folding_sees_a_fold_that_alternates(shape: tuple[int, ...]) -> None:
    for axis in range(len(shape)):
        zigzag = along(axis, axis, 2.0 * (np.arange(shape[axis]) % 2), shape)  # x + u: 0, 3, 2, 5, 4, ...
        folded = shape[axis] - (1 if shape[axis] % 2 else 2)  # an end that looks at a rising step only is no fold
        assert folding(zigzag).item() == pytest.approx(folded / shape[axis])


def test_folding_takes_the_worst_of_all_neighbours(dim: int, generator: torch.Generator) -> None:
    shape = (4, 3, 3)[:dim]
    field = 0.5 * normal(generator, 1, dim, *shape)
    u = field[0].numpy()
    total = 0.0
    for voxel in np.ndindex(*shape):
        found = []
        for sides in product((-1, 1), repeat=dim):
            slopes = np.eye(dim)
            for axis, side in enumerate(sides):
                side = side if 0 <= voxel[axis] + side < shape[axis] else -side
                other = tuple(v + side * (a == axis) for a, v in enumerate(voxel))
                slopes[:, axis] += side * (u[(slice(None), *other)] - u[(slice(None), *voxel)])
            found.append(np.linalg.det(slopes))
        total += max(0.7 - min(found), 0.0)
    assert total > 0
    assert folding(field, 0.7).item() == pytest.approx(total / np.prod(shape))
