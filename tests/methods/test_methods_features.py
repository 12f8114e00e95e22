"""Feature images of many channels, handed to the solver as `register_pair` does; nothing normalises them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from methods_pairs import inner, texture
from torch import Tensor

from oracles.make import normal, rotation, smooth_field
from warpwright.energies.regularity import Bending
from warpwright.energies.similarity import LNCC, MSE, Similarity
from warpwright.errors import BadInput
from warpwright.geometry import Grid, moved_points
from warpwright.methods import Displacement
from warpwright.methods.deformable import BSpline, Family, Scale, Velocity
from warpwright.methods.levels import Lattice, Level, Pair, make_level
from warpwright.methods.objective import FieldObjective
from warpwright.sampling import resize_displacement, warp
from warpwright.solver import Adam, GaussNewton, Krylov, Objective, OneStep, Solver, minimise

SHIFT = (2, -2, 0)


def _shifted(size: int, channels: int) -> tuple[Tensor, Tensor]:
    """Fixed and moving features (1, C, size^3) of mean 0 and variance 1, with `fixed(x) = moving(x + SHIFT)`."""
    wide = texture((size + 4,) * 3, sigma=1.5, channels=channels)[None]
    flat = wide.flatten(2)
    wide = (wide - flat.mean(2)[..., None, None, None]) / flat.std(2)[..., None, None, None]
    moving = wide[..., 2 : size + 2, 2 : size + 2, 2 : size + 2]
    starts = [2 + s for s in SHIFT]
    fixed = wide[(..., *(slice(s, s + size) for s in starts))]
    return fixed.contiguous(), moving.contiguous()


def _solve(fixed: Tensor, moving: Tensor, solver: Solver, steps: tuple[int, ...]) -> Tensor:
    """Two levels of the displacement family; (1, 3, *S)."""
    shape = tuple(fixed.shape[2:])
    grid = Grid.regular(shape)
    pair = Pair(fixed, moving, None, torch.ones(1, 1, *shape), grid, grid)
    assert isinstance(solver, Adam | GaussNewton)
    family = Displacement(gradient_sigma=1.7, field_sigma=0.7, solver=solver)
    coarse = make_level(pair, 2)
    field = torch.zeros(1, 3, *coarse.grid.shape)
    field = _level(coarse, family, Scale(coarse.grid.spacing, 2), field, steps[0])
    field = resize_displacement(field, coarse.lattice.factors, shape, (1, 1, 1))
    return _level(make_level(pair, 1), family, Scale((1.0, 1.0, 1.0), 1), field, steps[1])


def _level(level: Level, family: Displacement, scale: Scale, field: Tensor, steps: int) -> Tensor:
    shape = level.grid.shape
    objective = FieldObjective(level, np.eye(4), MSE(), (), lambda x: family.displacement(x, shape, scale))
    solution = minimise(
        objective,
        family.parameters(field, scale),
        objective.images,
        solver=family.solver,
        precondition=lambda g: family.precondition(g, scale),
        retract=lambda x, update: family.retract(x, update, scale),
        max_steps=steps,
    )
    return family.carried(solution.value, shape, scale)


@pytest.mark.parametrize(
    ("solver", "steps"),
    [(Adam(length=0.5, damping=0.1), (40, 20)), (GaussNewton(length=1.0), (10, 8))],
    ids=["adam", "gauss-newton"],
)
def test_a_shift_of_feature_images_is_recovered_whatever_their_scale(solver: Solver, steps: tuple[int, int]) -> None:
    fixed, moving = _shifted(40, 16)
    assert moving.var() == pytest.approx(1, abs=0.2)  # the rim, cut off, varies more
    found = {factor: _solve(factor * fixed, factor * moving, solver, steps) for factor in (0.1, 1.0, 100.0)}
    truth = torch.tensor(SHIFT, dtype=torch.float32).reshape(1, 3, 1, 1, 1)
    for field in found.values():
        # the rim looks at features beyond the image; smoothing carries that a few voxels inwards
        assert inner(field - truth, 8).norm(dim=1).mean() < 0.1
        assert inner(field - found[1.0]).norm(dim=1).max() < 0.05 * 2.8  # five per cent of the motion


def _small(generator: torch.Generator) -> tuple[Level, Tensor]:
    shape = (5, 7, 6)
    grid = Grid.regular(shape, (0.7, 1.3, 2.1))
    fixed, moving = normal(generator, 1, 2, *shape), normal(generator, 1, 2, *shape)
    weight = torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64)
    level = Level(Pair(fixed, moving, weight, torch.ones_like(weight), grid, grid), Lattice((1, 1, 1)))
    # away from the kinks between voxels
    return level, 0.2 + 0.3 * torch.rand(1, 3, *shape, generator=generator, dtype=torch.float64)


def test_the_objective_is_its_terms(generator: torch.Generator) -> None:
    level, field = _small(generator)
    bending = Bending(weight=0.3)
    objective = FieldObjective(level, np.eye(4), MSE(), (bending,), lambda x: 2 * x)
    spacing = level.grid.spacing
    expected = objective.data_term(2 * field, *objective.images) + 0.3 * bending.regularity(2 * field, spacing)
    torch.testing.assert_close(objective.value(field, *objective.images), expected, atol=1e-12, rtol=0)
    assert objective.data_term(2 * field, *objective.images) != objective.data_term(field, *objective.images)


def test_the_gradient_of_the_objective(generator: torch.Generator) -> None:
    """Fully inside, so that the moving weight, which is not differentiated, does not change."""
    level, field = _small(generator)
    middle = torch.zeros_like(field)
    middle[..., 1:-1, 1:-1, 1:-1] = 1
    objective = FieldObjective(level, np.eye(4), MSE(), (Bending(weight=0.3),), lambda x: x * middle)
    images = objective.images
    assert torch.autograd.gradcheck(lambda x: objective.value(x, *images), field.clone().requires_grad_())
    energy, gradient = objective.value_and_gradient(field, *images)
    direction = torch.randn(field.shape, generator=generator, dtype=field.dtype)
    step = 1e-6
    ahead, behind = (objective.value(field + s * direction, *images) for s in (step, -step))
    # central difference: second order in the step, so about 1e-8 of the value
    torch.testing.assert_close((gradient * direction).sum(), ((ahead - behind) / (2 * step))[0], atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(objective.directional(field, direction, *images)[0], (gradient * direction).sum())
    assert energy.shape == (1,)


def test_the_directional_derivative_is_differentiable_in_the_images(generator: torch.Generator) -> None:
    level, field = _small(generator)
    objective = FieldObjective(level, np.eye(4), MSE())
    direction = torch.randn(field.shape, generator=generator, dtype=field.dtype)
    images = tuple(image.clone().requires_grad_() for image in objective.images)
    assert torch.autograd.gradcheck(lambda f, m: objective.directional(field, direction, f, m), images)


def gathered(moving: Tensor, places: Tensor) -> Tensor:
    """Linear interpolation by differentiable indexing, the border repeated: (1, C, *M) at (1, D, *S) voxels to (1, C, *S)."""
    dim = moving.ndim - 2
    inside = [places[0, k].clamp(0, n - 1) for k, n in enumerate(moving.shape[2:])]
    total = torch.zeros((), dtype=moving.dtype)
    for corner in itertools.product((0, 1), repeat=dim):
        weight = torch.ones_like(inside[0])
        index: list[Tensor] = []
        for at, bit, n in zip(inside, corner, moving.shape[2:], strict=True):
            low = at.detach().floor().clamp(max=max(n - 2, 0))
            share = at - low
            weight = weight * (share if bit else 1 - share)
            index.append((low.long() + bit).clamp(max=n - 1))
        total = total + weight * moving[(0, slice(None), *index)]
    return total[None]


def directions(objective: FieldObjective, field: Tensor, direction: Tensor) -> list[tuple[Tensor, ...]]:
    """Gradients in both images of the derivative along a direction: ours, by torch's second derivative, by indexing."""
    images = tuple(image.clone().requires_grad_() for image in objective.images)
    matrix = torch.as_tensor(objective.matrix)
    weight = objective._weight(images[1].detach(), objective.field(field))

    def by_indexing(fixed: Tensor, moving: Tensor) -> Tensor:
        at = field.detach().clone().requires_grad_()
        moved = gathered(moving, moved_points(objective.field(at), matrix))
        energy = objective.similarity.similarity(moved, fixed, weight)
        (force,) = torch.autograd.grad(energy.sum(), at, create_graph=True)
        return (force * direction).sum()

    ways = (
        lambda *pair: objective.directional(field, direction, *pair).sum(),
        lambda *pair: Objective.directional(objective, field, direction, *pair).sum(),
        by_indexing,
    )
    return [torch.autograd.grad(way(*images), images) for way in ways]


FIELDS: dict[str, Family] = {
    "displacement": Displacement(gradient_sigma=1.0, field_sigma=0.5, solver=GaussNewton()),
    "velocity": Velocity(gradient_sigma=1.0, field_sigma=0.5, solver=GaussNewton(), squarings=3),
    "bspline": BSpline(knots=4.0, solver=Adam()),
}


def _oblique(dim: int, family: Family, similarity: Similarity, generator: torch.Generator) -> tuple[FieldObjective, Tensor]:
    """An objective with masks and an affine that leaves the moving image, and parameters off the kinks."""
    shape, spacing = (9, 11, 8)[:dim], (0.7, 1.3, 1.1)[:dim]
    grid = Grid.regular(shape, spacing)
    images = normal(generator, 1, 2, *shape), normal(generator, 1, 2, *shape)
    weights = [torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    level = Level(Pair(*images, *weights, grid, grid), Lattice((1,) * dim))
    affine = np.eye(dim + 1)
    affine[:dim, :dim] = rotation(dim, 0.2)
    affine[:dim, dim] = 0.31
    scale = Scale(spacing, 1)
    objective = FieldObjective(level, affine, similarity, (), lambda x: family.displacement(x, shape, scale))
    start = family.parameters(torch.zeros(1, dim, *shape, dtype=torch.float64), scale)
    return objective, 0.4 * torch.rand(start.shape, generator=generator, dtype=torch.float64) + 0.05


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("similarity", [MSE(), LNCC(radius=1)], ids=["mse", "lncc"])
@pytest.mark.parametrize("name", FIELDS)
def test_three_ways_to_the_mixed_derivative_agree(
    dim: int, similarity: Similarity, name: str, generator: torch.Generator
) -> None:
    """The directional form, torch's second derivative of sampling, and interpolation by indexing, to 1e-10."""
    objective, x = _oblique(dim, FIELDS[name], similarity, generator)
    direction = normal(generator, *x.shape)
    ours, native, indexed = directions(objective, x, direction)
    for one, other, third in zip(ours, native, indexed, strict=True):
        assert float(one.abs().max()) > 1e-4
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
        torch.testing.assert_close(one, third, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", FIELDS)
def test_the_curvature_product_is_gauss_newton(dim: int, name: str, generator: torch.Generator) -> None:
    """Against the Jacobian of the residuals, and of the regularity, row by row."""
    objective, x = _oblique(dim, FIELDS[name], MSE(), generator)
    objective.regularities = (Bending(weight=0.3),)
    fixed, moving = objective.images
    direction = normal(generator, *x.shape)
    at = x.clone().requires_grad_()
    weight = objective._weight(moving, objective.field(x))
    moved = warp(moving, objective.field(at), objective.matrix)
    size = weight.sum() * moved.shape[1]
    rows = torch.stack([torch.autograd.grad(value, at, retain_graph=True)[0].flatten() for value in moved.flatten()])
    stiff = (2 * weight / size).expand_as(moved).flatten()
    expected = (rows.T @ (stiff * (rows @ direction.flatten()))).reshape(x.shape)
    smooth = objective._smooth(objective.field(at)).sum()
    (force,) = torch.autograd.grad(smooth, at, create_graph=True)
    expected = expected + torch.autograd.grad(force, at, direction)[0]
    found = objective.hessian_product(x, direction, fixed, moving)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert float((found * direction).sum()) > 0


def test_krylov_steps_need_a_curvature(generator: torch.Generator) -> None:
    objective, x = _oblique(2, FIELDS["displacement"], LNCC(radius=1), generator)
    with pytest.raises(BadInput, match="LNCC has no curvature, which Gauss-Newton and Krylov steps need"):
        objective.hessian_product(x, x, *objective.images)


@pytest.mark.parametrize("rule", [OneStep(), Krylov(3)], ids=["one", "krylov"])
def test_a_solve_of_features_is_differentiated_in_them(rule: OneStep | Krylov) -> None:
    """A loss of the displacement falls when the features follow its gradient, and the solve is as it was without one."""
    shape, family = (14, 16), FIELDS["displacement"]
    grid = Grid.regular(shape)
    fixed, moving = texture(shape, sigma=2.0, channels=3)[None], texture(shape, sigma=2.0, channels=3, seed=1)[None]
    truth = smooth_field(shape, 1.5).float()

    def solved(fixed: Tensor, moving: Tensor, adjoint: OneStep | Krylov | None) -> Tensor:
        level = Level(Pair(fixed, moving, None, None, grid, grid), Lattice((1, 1)))
        scale = Scale((1.0, 1.0), 1)
        return minimise(
            FieldObjective(level, np.eye(3), MSE()),
            torch.zeros(1, 2, *shape),
            (fixed, moving),
            solver=family.solver,
            adjoint=adjoint,
            precondition=lambda g: family.precondition(g, scale),
            retract=lambda x, update: family.retract(x, update, scale),
            max_steps=30,
        ).value

    features = [fixed.clone().requires_grad_(), moving.clone().requires_grad_()]
    optimiser = torch.optim.Adam(features, 0.02)
    losses: list[float] = []
    for _ in range(12):
        field = solved(*features, rule)
        loss = (field - truth).square().mean()
        optimiser.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        assert torch.equal(field.detach(), solved(*(f.detach() for f in features), None))
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]


def test_only_some_energies_have_a_curvature(generator: torch.Generator) -> None:
    level, field = _small(generator)
    objective = FieldObjective(level, np.eye(4), MSE())
    curvature = objective.curvature(field, *objective.images)
    assert curvature.shape == (1, 1, 5, 7, 6)
    assert (curvature >= 0).all()
    assert curvature.any()
    with pytest.raises(BadInput, match="LNCC has no curvature"):
        FieldObjective(level, np.eye(4), LNCC()).curvature(field, *objective.images)
