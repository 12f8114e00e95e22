"""Folding figures against NumPy; inverse consistency of maps with a known inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from oracles.make import homogeneous, normal, oblique, permute_field, rotation, smooth_field
from warpwright.errors import BadInput
from warpwright.evaluation import folding, inverse_consistency
from warpwright.geometry import Grid
from warpwright.transforms import Affine, BSplineField, DisplacementField, VelocityField, control_shape


def _numpy_determinant(field: np.ndarray) -> np.ndarray:
    dim = len(field)
    matrix = np.array([np.gradient(component) for component in field]) + np.eye(dim).reshape(dim, dim, *(1,) * dim)
    return np.linalg.det(np.moveaxis(matrix, (0, 1), (-2, -1)))


def test_figures_of_a_random_field(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = normal(generator, len(shape), *shape)
    inner = _numpy_determinant(field.numpy())[(slice(1, -1),) * len(shape)]
    assert (inner <= 0).any()
    assert (inner > 0).any()
    figures = folding(field)
    assert figures["folded_percent"] == pytest.approx(100 * (inner <= 0).mean(), abs=1e-10)
    assert figures["min_determinant"] == pytest.approx(inner.min(), abs=1e-10)
    assert figures["sd_log_jacobian"] == pytest.approx(np.log(inner[inner > 0]).std(), abs=1e-10)
    everywhere = _numpy_determinant(field.numpy())
    assert folding(field[None], border=0)["min_determinant"] == pytest.approx(everywhere.min(), abs=1e-10)


def test_closed_forms(shape: tuple[int, ...]) -> None:
    dim = len(shape)
    still = torch.zeros(1, dim, *shape)
    assert folding(still) == {"folded_percent": 0.0, "min_determinant": 1.0, "sd_log_jacobian": 0.0}
    mirrored = still.clone()
    mirrored[0, 0] = -2 * torch.arange(shape[0]).reshape(-1, *(1,) * (dim - 1))
    figures = folding(mirrored)
    assert figures["folded_percent"] == 100.0
    assert figures["min_determinant"] == -1.0
    assert math.isnan(figures["sd_log_jacobian"])
    flattened = folding(mirrored / 2)  # everything onto one plane: determinant exactly 0 is a fold
    assert flattened["folded_percent"] == 100.0
    assert math.isnan(flattened["sd_log_jacobian"])


def test_the_order_of_axes_does_not_matter(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = normal(generator, 1, len(shape), *shape)
    turned = folding(permute_field(field, tuple(range(len(shape)))[::-1]))
    assert turned == pytest.approx(folding(field), abs=1e-10)


def test_a_singleton_axis_is_the_flat_case(generator: torch.Generator) -> None:
    flat = normal(generator, 2, 5, 7)
    deep = torch.cat([flat, torch.zeros(1, 5, 7, dtype=torch.float64)])[..., None]
    assert folding(deep) == pytest.approx(folding(flat), abs=1e-12)


def test_folding_refuses(shape: tuple[int, ...]) -> None:
    field = torch.zeros(len(shape), *shape)
    field[0].view(-1)[3] = torch.nan
    with pytest.raises(BadInput, match="finite"):
        folding(field)
    with pytest.raises(BadInput, match=r"\(D, \*S\)"):
        folding(torch.zeros(2, len(shape), *shape))


def test_there_and_back_through_an_affine(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    grid = Grid(shape, oblique(spacing))
    affine = Affine(homogeneous(1.2 * rotation(len(shape), 0.3), np.ones(len(shape))))
    figures = inverse_consistency(affine, affine.inverse(), grid)
    assert figures["max"] < 1e-12
    assert figures["counted_percent"] == 100.0
    shifted = Affine(homogeneous(np.eye(len(shape)), np.arange(1.0, len(shape) + 1))) @ affine.inverse()
    expected = np.linalg.norm(np.arange(1.0, len(shape) + 1))
    assert inverse_consistency(affine, shifted, grid) == pytest.approx(
        {"mean": expected, "p95": expected, "max": expected, "counted_percent": 100.0}, abs=1e-10
    )


def test_points_that_leave_the_known_region_do_not_count(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    grid = Grid(shape, oblique(spacing))
    field = torch.zeros(len(shape), *shape, dtype=torch.float64)
    field[0] = 2.0
    affine = Affine(homogeneous(rotation(len(shape), 0.3), np.ones(len(shape))))
    forward = affine @ DisplacementField(field, grid)
    backward = DisplacementField(-field, grid) @ affine.inverse()
    figures = inverse_consistency(forward, backward, grid)
    assert figures["max"] < 1e-12
    assert figures["counted_percent"] == pytest.approx(100 * (shape[0] - 2) / shape[0])
    far = torch.full_like(field, 50.0)
    nothing = inverse_consistency(DisplacementField(far, grid), DisplacementField(-far, grid), grid)
    assert nothing["counted_percent"] == 0
    assert math.isnan(nothing["max"])


def test_every_kind_of_field_is_measured(spacing: tuple[float, ...]) -> None:
    dim = len(spacing)
    shape = (11, 13, 12)[:dim]
    grid = Grid(shape, oblique(spacing))
    velocity = VelocityField(smooth_field(shape, 0.8)[0], grid)
    knots = (4.0, 3.0, 5.0)[:dim]
    spline = BSplineField(smooth_field(control_shape(shape, knots), 0.8)[0], knots, grid)
    for forward in (velocity, velocity.displacement_field(), spline):
        figures = inverse_consistency(forward, forward.inverse(), grid)
        assert figures["counted_percent"] > 75
        # linear interpolation between the voxels of either field: a small part of the spacing, far below the motion
        assert figures["mean"] < 0.03
        assert figures["mean"] <= figures["p95"] <= figures["max"]
        still = inverse_consistency(forward, Affine.identity(dim), grid)
        assert still["mean"] > 5 * figures["mean"]
