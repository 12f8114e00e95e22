"""Composition, inversion, exponential and logarithm of fields in voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm, logm
from scipy.ndimage import map_coordinates
from torch import Tensor

from oracles.make import normal, orders, permute_field, smooth_field
from warpwright.geometry import identity_points
from warpwright.sampling import inside, sample
from warpwright.transforms import compose, exp, invert, log

CPU = torch.device("cpu")


def _big(dim: int) -> tuple[int, ...]:
    return (15, 18, 16)[:dim]


def _inner(dim: int, border: int) -> tuple[slice, ...]:
    return (slice(None), slice(None), *(slice(border, -border),) * dim)


def test_compose_is_scipy(shape: tuple[int, ...], generator: torch.Generator) -> None:
    outer, inner = normal(generator, 2, len(shape), *shape), normal(generator, 2, len(shape), *shape)
    got = compose(outer, inner)
    for b, c in np.ndindex(2, len(shape)):
        at = np.indices(shape) + inner[b].numpy()
        expected = inner[b, c].numpy() + map_coordinates(outer[b, c].numpy(), at, order=1, mode="nearest")
        np.testing.assert_allclose(got[b, c], expected, atol=1e-12)


def test_the_zero_field_is_neutral(shape: tuple[int, ...], generator: torch.Generator) -> None:
    field = normal(generator, 1, len(shape), *shape)
    still = torch.zeros_like(field)
    torch.testing.assert_close(compose(field, still), field, atol=1e-12, rtol=0)
    torch.testing.assert_close(compose(still, field), field, atol=0, rtol=0)
    assert not exp(still).any()
    assert not invert(still)[0].any()
    assert not log(still)[0].any()


def test_compose_has_derivatives(dim: int, generator: torch.Generator) -> None:
    shape = (3, 4, 3)[:dim]
    outer = normal(generator, 1, dim, *shape).requires_grad_()
    # whole points plus 0.3 stay away from the kinks between voxels
    inner = (torch.randint(-1, 2, (1, dim, *shape), generator=generator) + 0.3).double().requires_grad_()
    assert torch.autograd.gradcheck(compose, (outer, inner))
    assert torch.autograd.gradgradcheck(compose, (outer, inner))


def test_exp_has_derivatives(dim: int) -> None:
    velocity = (smooth_field((4, 5, 4)[:dim], 0.9) + 0.11).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: exp(v, 3), velocity)


def test_permuted_axes(dim: int) -> None:
    field = smooth_field(_big(dim), 1.5)
    for order in orders(dim):
        turned = permute_field(field, order)
        for function in (exp, lambda f: invert(f)[0], lambda f: log(f)[0], lambda f: compose(f, f)):
            expected = permute_field(function(field), order)
            torch.testing.assert_close(function(turned), expected, atol=1e-10, rtol=0)


def test_a_flat_field_in_space(dim: int) -> None:
    del dim
    field = smooth_field(_big(2), 1.5)
    deep = torch.cat([field, torch.zeros_like(field[:, :1])], 1)[..., None]
    for function in (exp, lambda f: invert(f)[0], lambda f: log(f)[0], lambda f: compose(f, f)):
        expected = function(field)
        got = function(deep)
        torch.testing.assert_close(got[:, :2, ..., 0], expected, atol=1e-12, rtol=0)
        assert not got[:, 2].any()


def test_inverse_undoes_from_either_side(dim: int) -> None:
    field = smooth_field(_big(dim), 2.0)
    inverse, residual = invert(field, tolerance=1e-10, max_steps=500)
    assert residual <= 1e-10
    # exact where the inverse is evaluated at voxels
    assert compose(field, inverse)[_inner(dim, 2)].abs().max() < 1e-9
    # the inverse is linear between voxels and the true one is not: second order in the voxel, far below the motion of 2
    assert compose(inverse, field)[_inner(dim, 2)].abs().max() < 0.15


def test_invert_reports_its_residual(dim: int) -> None:
    field = smooth_field(_big(dim), 2.0)
    inverse, residual = invert(field, tolerance=0.0, max_steps=3)
    points = identity_points(_big(dim), dtype=torch.float64, device=CPU)
    assert 0 < residual < 0.1
    assert residual == pytest.approx(float(invert(field, tolerance=0.0, max_steps=3)[1]))
    assert (points + inverse).isfinite().all()


def test_a_fold_gets_one_of_its_preimages(dim: int) -> None:
    points = identity_points(_big(dim), dtype=torch.float64, device=CPU)
    folded = torch.zeros(1, dim, *_big(dim), dtype=torch.float64)
    folded[:, 0] = -3 * (points[0, 0] - 7)  # turns the axis over about its middle
    folded[:, 0] *= (points[0, 0] - 7).abs() < 4
    inverse, residual = invert(folded)
    there = points + inverse
    defect = inverse + sample(folded, there)
    known = inside(there, _big(dim))
    assert residual == pytest.approx(float((defect.norm(dim=1, keepdim=True) * known).max()))


def test_strong_compression_is_inverted(dim: int) -> None:
    """The map stretches by 2.6 in its middle, so the plain fixed point diverges and the relaxed steps are needed."""
    shape = (21, *(5,) * (dim - 1))
    x = torch.arange(21, dtype=torch.float64).reshape(-1, *(1,) * (dim - 1)).expand(shape)
    field = torch.zeros(1, dim, *shape, dtype=torch.float64)
    field[0, 0] = 1.6 * (x - 10) * torch.exp(-(((x - 10) / 3) ** 2))
    inverse, residual = invert(field, tolerance=1e-6, max_steps=400)
    assert residual <= 1e-6
    assert compose(field, inverse)[0, 0, 3:-3].abs().max() < 1e-5


def test_exp_of_a_constant_is_a_translation(shape: tuple[int, ...]) -> None:
    speed = torch.tensor((0.7, -1.9, 3.2)[: len(shape)], dtype=torch.float64).reshape(1, -1, *(1,) * len(shape))
    velocity = speed.expand(1, len(shape), *shape).contiguous()
    torch.testing.assert_close(exp(velocity), velocity, atol=1e-12, rtol=0)
    torch.testing.assert_close(invert(velocity, tolerance=1e-12)[0], -velocity, atol=1e-12, rtol=0)
    torch.testing.assert_close(log(velocity)[0], velocity, atol=1e-12, rtol=0)


def _linear_velocity(generator: np.ndarray, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """v(x) = generator (x - centre), and the exact displacement after unit time."""
    centre = torch.tensor([(n - 1) / 2 for n in shape], dtype=torch.float64).reshape(1, -1, *(1,) * len(shape))
    points = identity_points(shape, dtype=torch.float64, device=CPU) - centre
    flow = expm(generator) - np.eye(len(shape))
    return tuple(torch.einsum("ij,bj...->bi...", torch.from_numpy(m), points) for m in (generator, flow))


def _affine_generator(dim: int) -> np.ndarray:
    return np.array([[0.06, -0.2, 0.05], [0.15, -0.08, 0.1], [-0.07, 0.04, 0.05]])[:dim, :dim]


def test_the_error_of_exp_halves_with_every_squaring(dim: int) -> None:
    velocity, exact = _linear_velocity(_affine_generator(dim), _big(dim))
    middle = _inner(dim, 6)
    errors = [float((exp(velocity, k) - exact)[middle].abs().max()) for k in range(4, 10)]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(rates, 1, atol=0.05)  # the rate is asymptotic
    assert errors[-1] < 1e-3


def test_exp_of_a_rotation(dim: int) -> None:
    angle, turn = 0.3, np.eye(dim)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    velocity, exact = _linear_velocity(np.real(logm(turn)), _big(dim))
    # first order in the step 0.3 / 2^12, at most 3 voxels from the centre
    torch.testing.assert_close(exp(velocity, 12)[_inner(dim, 6)], exact[_inner(dim, 6)], atol=2e-4, rtol=0)


def test_exp_of_minus_v_is_the_inverse(dim: int) -> None:
    velocity = smooth_field(_big(dim), 1.5)
    forward, backward = exp(velocity, 10), exp(-velocity, 10)
    inverse, residual = invert(forward, tolerance=1e-8, max_steps=500)
    assert residual <= 1e-8
    # fields are linear between voxels: second order in the voxel, far below the motion of 1.5
    assert (backward - inverse).abs().max() < 0.06
    assert compose(backward, forward).abs().max() < 0.06


def test_exp_adds_along_one_flow(dim: int) -> None:
    velocity = smooth_field(_big(dim), 1.0)
    whole = exp(velocity, 8)
    # 2^k times the small step is the same composition, so exact
    half = exp(velocity / 2, 7)
    torch.testing.assert_close(compose(half, half), whole, atol=1e-12, rtol=0)


def test_log_of_exp(dim: int) -> None:
    for scale in (1, 2):
        velocity = smooth_field(tuple(scale * n for n in _big(dim)), 0.8 * scale)
        got, error = log(exp(velocity), tolerance=1e-4)
        assert error <= 1e-4
        torch.testing.assert_close(exp(got), exp(velocity), atol=error, rtol=0)
        # a velocity is seen only through its flow: the tolerance on the flow allows a little more on the velocity
        torch.testing.assert_close(got, velocity, atol=5 * error, rtol=0)


def test_log_tells_what_it_could_not_reach(dim: int) -> None:
    field = smooth_field(_big(dim), 3.0)
    velocity, error = log(field, iterations=1, tolerance=0.0)
    assert error == pytest.approx(float((exp(velocity) - field).abs().max()))
    assert 0 < error < float((exp(field) - field).abs().max())


def test_samples_of_a_batch_do_not_meet(dim: int) -> None:
    field = torch.cat([smooth_field(_big(dim), size) for size in (0.5, 1.5)])
    for function in (exp, lambda f: compose(f, f), lambda f: invert(f, tolerance=0.0, max_steps=20)[0]):
        together = function(field)
        for k in range(2):
            torch.testing.assert_close(together[k : k + 1], function(field[k : k + 1]), atol=1e-12, rtol=0)
