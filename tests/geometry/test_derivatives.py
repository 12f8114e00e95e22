"""Finite differences and Jacobians against NumPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles.make import homogeneous, normal, oblique, orders, permute_field, permute_image, rotation, smooth_field
from warpwright.geometry import Grid, divergence, gradient, identity_points, jacobian, jacobian_determinant, world_gradient

CPU = torch.device("cpu")


def _linear_displacement(matrix: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """(matrix - 1) x."""
    points = identity_points(shape, dtype=torch.float64, device=CPU)
    return torch.einsum("ij,bj...->bi...", torch.from_numpy(matrix - np.eye(len(shape))), points)


def test_gradient_is_numpys(shape: tuple[int, ...], spacing: tuple[float, ...], generator: torch.Generator) -> None:
    field = normal(generator, 2, 3, *shape)
    got = gradient(field, spacing)
    for b, c in np.ndindex(2, 3):
        np.testing.assert_allclose(got[b, c], np.gradient(field[b, c].numpy(), *spacing), atol=1e-12)


def test_divergence_is_the_trace(shape: tuple[int, ...], spacing: tuple[float, ...], generator: torch.Generator) -> None:
    field = normal(generator, 2, len(shape), *shape)
    trace = gradient(field, spacing).diagonal(dim1=1, dim2=2).sum(-1)
    torch.testing.assert_close(divergence(field, spacing)[:, 0], trace, atol=1e-12, rtol=0)


def test_gradient_and_minus_divergence_are_adjoint_inside(spacing: tuple[float, ...], generator: torch.Generator) -> None:
    dim = len(spacing)
    inner = (slice(None), slice(None), *(slice(2, -2),) * dim)
    scalar, vector = torch.zeros(1, 1, *(9, 8, 10)[:dim]).double(), torch.zeros(1, dim, *(9, 8, 10)[:dim]).double()
    scalar[inner], vector[inner] = normal(generator, *scalar[inner].shape), normal(generator, *vector[inner].shape)
    left = (gradient(scalar, spacing)[:, 0] * vector).sum()
    torch.testing.assert_close(left, -(scalar * divergence(vector, spacing)).sum(), atol=1e-10, rtol=0)


def test_second_order_inside() -> None:
    errors = []
    for n in (20, 40, 80):
        x = torch.arange(n, dtype=torch.float64) / n
        error = gradient((4 * x).sin()[None, None], (1 / n,))[0, 0, 0] - 4 * (4 * x).cos()
        errors.append(float(error[n // 4 : n // 2].abs().max()))
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(rates, 2, atol=0.1)  # the rate is asymptotic


def test_singleton_axis_has_no_derivative(generator: torch.Generator) -> None:
    field = normal(generator, 1, 2, 5, 7)
    deep = gradient(field[..., None])
    assert not deep[:, :, 2].any()
    torch.testing.assert_close(deep[:, :, :2, ..., 0], gradient(field), atol=0, rtol=0)


def test_jacobian_determinant_of_an_affine(shape: tuple[int, ...]) -> None:
    dim = len(shape)
    matrix = rotation(dim, 0.4) @ np.diag([1.2, 0.7, 1.5][:dim])
    got = jacobian_determinant(_linear_displacement(matrix, shape))
    torch.testing.assert_close(got, torch.full_like(got, float(np.linalg.det(matrix))), atol=1e-12, rtol=0)
    entries = jacobian(_linear_displacement(matrix, shape)).movedim((1, 2), (-2, -1))
    torch.testing.assert_close(entries, torch.from_numpy(matrix).expand_as(entries), atol=1e-12, rtol=0)


def test_jacobian_determinant_is_lapacks(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = normal(generator, 2, len(shape), *shape)
    expected = torch.linalg.det(jacobian(field).movedim((1, 2), (-2, -1)))
    torch.testing.assert_close(jacobian_determinant(field), expected, atol=1e-12, rtol=0)


def test_determinant_of_a_composition_with_an_affine(shape: tuple[int, ...]) -> None:
    """det(A o phi) = det(A) det(phi), which is what the documentation promises."""
    dim = len(shape)
    matrix = homogeneous(rotation(dim, 0.3) * 1.1, np.zeros(dim))[:dim, :dim]
    field = smooth_field(shape, 0.5)
    points = identity_points(shape, dtype=torch.float64, device=CPU)
    whole = torch.einsum("ij,bj...->bi...", torch.from_numpy(matrix), points + field) - points
    expected = float(np.linalg.det(matrix)) * jacobian_determinant(field)
    torch.testing.assert_close(jacobian_determinant(whole), expected, atol=1e-12, rtol=0)


def test_permuted_axes(shape: tuple[int, ...], spacing: tuple[float, ...], generator: torch.Generator) -> None:
    field = normal(generator, 1, len(shape), *shape)
    for order in orders(len(shape)):
        turned = permute_field(field, order)
        expected = permute_image(jacobian_determinant(field)[:, None], order)[:, 0]
        torch.testing.assert_close(jacobian_determinant(turned), expected, atol=1e-12, rtol=0)
        got = divergence(turned, tuple(spacing[k] for k in order))
        torch.testing.assert_close(got, permute_image(divergence(field, spacing), order), atol=1e-12, rtol=0)


@pytest.mark.parametrize("function", [gradient, jacobian_determinant, divergence])
def test_gradcheck(function: object, dim: int, generator: torch.Generator) -> None:
    field = normal(generator, 1, dim, *(3, 4, 3)[:dim]).requires_grad_()
    assert torch.autograd.gradcheck(function, field)
    assert torch.autograd.gradgradcheck(function, field)


def test_world_gradient_of_a_linear_field_on_an_oblique_sheared_grid(
    shape: tuple[int, ...], spacing: tuple[float, ...], generator: torch.Generator
) -> None:
    dim = len(shape)
    affine = oblique(spacing)
    affine[0, 1] += 0.2  # sheared as well
    grid = Grid(shape, affine)
    slopes = normal(generator, 2, dim)
    world = grid.to_world(identity_points(shape, dtype=torch.float64, device=torch.device("cpu"))[0].movedim(0, -1))
    field = torch.einsum("cj,...j->c...", slopes, world)[None]
    got = world_gradient(field, grid)
    expected = slopes.reshape(1, 2, dim, *(1,) * dim).expand_as(got)
    torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)


def test_world_gradient_along_world_axes_is_the_gradient(
    shape: tuple[int, ...], spacing: tuple[float, ...], generator: torch.Generator
) -> None:
    field = normal(generator, 2, 3, *shape)
    got = world_gradient(field, Grid.regular(shape, spacing))
    torch.testing.assert_close(got, gradient(field, spacing), atol=1e-12, rtol=0)
