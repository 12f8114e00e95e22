"""Inversion by kernels: that it inverts, and as well as its twin does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from oracles.make import normal, smooth_field
from oracles.threads import same_bytes
from warpwright.kernels import plainly
from warpwright.sampling import gaussian
from warpwright.transforms import inverse_residual, invert

SHAPES = {"2d": (15, 18), "3d": (15, 18, 16), "flat": (15, 1, 16), "line": (1, 19), "point": (1, 1)}


def _misses(displacement: Tensor, inverse: Tensor) -> np.ndarray:
    """|w + u(y + w)| where y + w is in the grid, by SciPy."""
    shape = displacement.shape[2:]
    out = []
    for u, w in zip(displacement.double().numpy(), inverse.double().numpy(), strict=True):
        at = np.indices(shape) + w
        error = w + np.stack([map_coordinates(channel, at, order=1, mode="nearest") for channel in u])
        size = np.array(shape).reshape(-1, *(1,) * len(shape))
        out.append(np.linalg.norm(error, axis=0)[((at >= -0.5) & (at < size - 0.5)).all(0)])
    return np.concatenate(out)


def _rough(generator: torch.Generator, shape: tuple[int, ...], smoothing: float, size: float) -> Tensor:
    field = gaussian(normal(generator, 1, len(shape), *shape), (smoothing,) * len(shape))
    return field * size / field.abs().max()


@pytest.mark.parametrize("tolerance", [1e-3, 1e-9])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_voxel_reaches_the_tolerance(shape: tuple[int, ...], tolerance: float) -> None:
    field = torch.cat([smooth_field(shape, size) for size in (0.5, 2.0)])
    inverse, residual = invert(field, tolerance=tolerance, max_steps=60)
    assert inverse.shape == field.shape
    assert residual == pytest.approx(_misses(field, inverse).max(), abs=1e-12)
    assert residual <= tolerance
    with plainly():
        other, _ = invert(field, tolerance=tolerance, max_steps=60)
    torch.testing.assert_close(inverse, other, rtol=0, atol=8 * tolerance)  # a voxel of the map may shrink to an eighth


@pytest.mark.parametrize("size", [3.0, 4.0, 6.0])
def test_no_worse_than_the_twin_on_rough_fields(size: float, generator: torch.Generator) -> None:
    """From a compression near folding to folds, where some voxels have no inverse."""
    field = _rough(generator, (30, 26, 28), 3.0, size)
    found, _ = invert(field)
    with plainly():
        expected, _ = invert(field)
    left, left_by_twin = ((_misses(field, w) > 1.01e-3).sum() for w in (found, expected))
    assert left <= left_by_twin + 0.1 * left_by_twin


def test_strong_compression_in_few_steps(dim: int) -> None:
    """The map stretches by 2.9 in its middle: Newton's method must finish what the fixed point does not reach in time."""
    shape = (21, *(5,) * (dim - 1))
    x = torch.arange(21, dtype=torch.float64).reshape(-1, *(1,) * (dim - 1)).expand(shape)
    field = torch.zeros(1, dim, *shape, dtype=torch.float64)
    field[0, 0] = 1.9 * (x - 10) * torch.exp(-(((x - 10) / 3) ** 2))
    inverse, residual = invert(field, tolerance=1e-8)
    assert residual <= 1e-8
    assert _misses(field, inverse).max() <= 1.01e-8


def test_residual_is_scipys(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field, inverse = (normal(generator, 2, len(shape), *shape) for _ in range(2))
    expected = _misses(field, inverse).max()
    assert inverse_residual(field, inverse) == pytest.approx(expected, abs=1e-12)
    with plainly():
        assert inverse_residual(field, inverse) == pytest.approx(expected, abs=1e-12)
    outside = torch.full_like(field, 100.0)
    assert inverse_residual(field, outside) == 0


def test_single_precision(dim: int) -> None:
    field = smooth_field((15, 18, 16)[:dim], 2.0)
    inverse, residual = invert(field.float())
    assert inverse.dtype == torch.float32
    assert residual <= 1e-3
    assert _misses(field, inverse).max() < 1.01e-3


def test_what_is_not_a_number_is_told(dim: int) -> None:
    field = smooth_field((15, 18, 16)[:dim], 2.0)
    field.flatten()[40] = torch.nan
    assert np.isnan(invert(field)[1])


def test_a_gradient_is_still_recorded(dim: int) -> None:
    """Moving everything by a little moves the inverse back by as much."""
    field = torch.full((1, dim, *(9, 8, 7)[:dim]), 0.25, dtype=torch.float64).requires_grad_()
    inverse, _ = invert(field)
    (found,) = torch.autograd.grad(inverse.sum(), field)
    assert found.sum() == pytest.approx(-field.numel())


def test_threads_change_no_byte(generator: torch.Generator) -> None:
    field = _rough(generator, (40, 33, 37), 2.0, 5.0).float()

    def compute() -> tuple[Tensor, Tensor]:
        inverse, residual = invert(field)
        return inverse, torch.tensor([residual, inverse_residual(field, inverse)], dtype=torch.float64)

    assert same_bytes(compute)
