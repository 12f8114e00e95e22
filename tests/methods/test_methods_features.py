"""Feature images of many channels, handed to the solver as `register_pair` does; nothing normalises them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from methods_pairs import inner, texture
from torch import Tensor

from oracles.make import normal
from warpwright.energies.regularity import Bending
from warpwright.energies.similarity import LNCC, MSE
from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.methods import Displacement
from warpwright.methods.deformable import Scale
from warpwright.methods.levels import Level, Pair, make_level
from warpwright.methods.objective import FieldObjective
from warpwright.sampling import resize_displacement
from warpwright.solver import Adam, GaussNewton, Solver, minimise

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
    field = resize_displacement(field, coarse.factors, shape, (1, 1, 1))
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
    level = Level(Pair(fixed, moving, weight, torch.ones_like(weight), grid, grid), (1, 1, 1))
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


def test_only_some_energies_have_a_curvature(generator: torch.Generator) -> None:
    level, field = _small(generator)
    objective = FieldObjective(level, np.eye(4), MSE())
    curvature = objective.curvature(field, *objective.images)
    assert curvature.shape == (1, 1, 5, 7, 6)
    assert (curvature >= 0).all()
    assert curvature.any()
    with pytest.raises(BadInput, match="LNCC has no curvature"):
        FieldObjective(level, np.eye(4), LNCC()).curvature(field, *objective.images)
