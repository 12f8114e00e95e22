"""What a gradient through the solver layer is, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles.make import normal
from warpwright.energies.regularity import Bending
from warpwright.energies.similarity import LNCC, MSE, Similarity
from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.kernels import plainly
from warpwright.methods import AffineField, AnyFamily, BSpline, Displacement, Implicit, SolverLayer
from warpwright.methods.levels import Lattice, Level, Pair
from warpwright.methods.objective import CHUNK, FieldObjective
from warpwright.methods.solver_layer import AnyAdjoint
from warpwright.networks.features import FeaturePyramid
from warpwright.sampling import gaussian
from warpwright.solver import LBFGS, Adam, GaussNewton, Krylov, Objective, OneStep, Truncated, Unroll

FAMILY = Displacement(gradient_sigma=1.5, field_sigma=0.7, solver=Adam(length=0.7, damping=0.1, beta1=0.8))
FAMILIES = {"adam": FAMILY, "gauss-newton": Displacement(gradient_sigma=1.5, field_sigma=0.7, solver=GaussNewton(length=1.0))}
FACTORS = (2, 1)


ADJOINTS: dict[str, AnyAdjoint] = {
    "one step": OneStep(),
    "krylov": Krylov(steps=2),
    "truncated": Truncated(steps=2),
    "unroll": Unroll(),
}


def learned(
    adjoint: AnyAdjoint, steps: int, *, linked: bool = False, family: AnyFamily = FAMILY
) -> tuple[Tensor, list[Tensor]]:
    """The displacement of two random pyramids, and its gradient in their levels."""
    grid = Grid.regular((12, 10))
    draw = torch.Generator().manual_seed(1)
    smooth = [gaussian(normal(draw, 1, 3, 12 // k, 10 // k).float(), (1.0, 1.0)) for _ in range(2) for k in FACTORS]
    levels = [level.requires_grad_() for level in smooth]
    sides = [FeaturePyramid(levels=tuple(two), factors=FACTORS, before=(0, 0), offset=0.5) for two in (levels[:2], levels[2:])]
    layer = SolverLayer(family, (steps,) * 2, adjoint=adjoint, linked=linked)
    out = layer(*sides, (grid, grid)).displacements[-1]
    out.square().sum().backward()
    return out.detach(), [torch.zeros_like(f) if f.grad is None else f.grad for f in levels]


@pytest.mark.parametrize("name", ADJOINTS)
def test_a_rule_changes_the_gradient_and_no_value(name: str) -> None:
    out, gradients = learned(ADJOINTS[name], 3)
    with plainly() if name == "unroll" else nullcontext():  # which is differentiated without compiled kernels
        other = learned(OneStep(), 3)[0]
    assert torch.allclose(out, other, atol=1e-5) if name == "unroll" else torch.equal(out, other)
    fine = [float(gradients[k].abs().max()) for k in (1, 3)]
    assert min(fine) > 0
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_the_coarser_level_learns_from_the_finer_one_where_they_are_linked() -> None:
    """Else each level is differentiated by itself; at the finer level that is the same."""
    apart, together = learned(Unroll(), 3), learned(Unroll(), 3, linked=True)
    assert torch.equal(apart[0], together[0])
    assert [bool(g.any()) for g in apart[1]] == [False, True, False, True]
    assert all(bool(g.any()) for g in together[1])
    for k in (1, 3):
        torch.testing.assert_close(apart[1][k], together[1][k])


@pytest.mark.parametrize("name", [name for name in ADJOINTS if name != "unroll"])
def test_a_rule_that_looks_at_no_start_links_no_levels(name: str) -> None:
    adjoint = ADJOINTS[name]
    said = f"linked levels need the adjoint Unroll: {type(adjoint).__name__} takes a solution not to depend on where it began"
    with pytest.raises(BadInput, match=said):
        SolverLayer(FAMILY, (3, 3), adjoint=adjoint, linked=True)
    with pytest.raises(BadInput, match=said):
        Implicit(adjoint=adjoint, linked=True)
    assert Implicit(adjoint=Unroll(), linked=True).layer().linked


@pytest.mark.parametrize(
    "searched", [BSpline(knots=4.0, solver=LBFGS(length=0.5)), AffineField(solver=LBFGS(length=0.5))], ids=["bspline", "affine"]
)
def test_a_solver_without_a_gradient_is_refused_before_training(searched: BSpline | AffineField) -> None:
    """By the adjoints that have none; the others, and the same adjoints with another solver, are not."""
    other = replace(searched, solver=Adam())
    for name, adjoint in ADJOINTS.items():
        assert Implicit(family=other, adjoint=adjoint).family == other
        if name in ("unroll", "truncated"):
            _, gradients = learned(adjoint, 3, family=searched)
            assert min(float(gradients[k].abs().max()) for k in (1, 3)) > 0
            assert all(bool(g.isfinite().all()) for g in gradients)
            assert Implicit(family=searched, adjoint=adjoint).family == searched
            continue
        said = (
            f"^the adjoint {type(adjoint).__name__} has no gradient through the solver LBFGS: expected another solver, such as"
        )
        with pytest.raises(BadInput, match=f"{said} Adam, or the adjoint Unroll$"):
            Implicit(family=searched, adjoint=adjoint)


@pytest.mark.parametrize("name", ADJOINTS)
def test_what_is_kept_for_the_gradient_does_not_grow_with_the_steps(name: str) -> None:
    def nodes(steps: int) -> int:
        """Of the graph behind the displacement."""
        draw = torch.Generator().manual_seed(1)
        levels = [normal(draw, 1, 3, 12, 10).float().requires_grad_() for _ in range(2)]
        sides = [FeaturePyramid(levels=(level,), factors=(1,), before=(0, 0), offset=0.5) for level in levels]
        grid = Grid.regular((12, 10))
        out = SolverLayer(FAMILY, (steps,), adjoint=ADJOINTS[name])(*sides, (grid, grid)).displacements[-1]
        found, new = set(), [out.grad_fn]
        while new:
            node = new.pop()
            if node is not None and node not in found:
                found.add(node)
                new += [other for other, _ in node.next_functions]
        return len(found)

    few, many = nodes(2), nodes(5)
    assert many == few if name != "unroll" else many > 1.5 * few


MARGIN = 4  # voxels by which a moving image is larger on every side, so that no place beyond it is looked at


def smooth(draw: torch.Generator, *shape: int) -> Tensor:
    """(1, 3, *S) of deviation 1."""
    found = gaussian(normal(draw, 1, 3, *shape), (1.0, 1.0))
    return found / found.std()


def off_the_lattice(factors: Sequence[int]) -> tuple[list[Tensor], tuple[Grid, Grid]]:
    """Levels of fixed features, then of moving ones like them, which begin between the voxels of each other.

    On the lattice linear interpolation has another slope to either side, and differences are half of each.
    """
    draw = torch.Generator().manual_seed(3)
    grid = Grid.regular((16, 12))
    wide = grid.crop((-MARGIN,) * 2, (16 + 2 * MARGIN, 12 + 2 * MARGIN))
    step = np.eye(3)
    step[:2, 2] = 0.3
    fixed = [smooth(draw, 16 // k, 12 // k) for k in factors]
    moving = [0.6 * smooth(draw, wide.shape[0] // k, wide.shape[1] // k) for k in factors]
    for k, f, m in zip(factors, fixed, moving, strict=True):
        m[..., MARGIN // k : (MARGIN + 16) // k, MARGIN // k : (MARGIN + 12) // k] += 0.8 * f
    return fixed + moving, (grid, Grid(wide.shape, step @ wide.affine))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("steps", [(8,), (8, 4)], ids=["one level", "two linked levels"])
def test_an_unrolled_gradient_is_finite_differences_of_all_levels(name: str, steps: tuple[int, ...]) -> None:
    """Along a direction of each level of each side by itself."""
    factors, draw = FACTORS[-len(steps) :], torch.Generator().manual_seed(5)
    features, grids = off_the_lattice(factors)
    cotangent = gaussian(normal(draw, 1, 2, 16, 12), (2.0, 2.0))
    layer = SolverLayer(FAMILIES[name], steps, adjoint=Unroll(), linked=len(steps) > 1)

    def value(levels: list[Tensor]) -> Tensor:
        sides = levels[: len(steps)], levels[len(steps) :]
        pyramids = [FeaturePyramid(levels=tuple(s), factors=factors, before=(0, 0), offset=0.5) for s in sides]
        return (layer(*pyramids, grids).displacement * cotangent).sum()

    own = [f.clone().requires_grad_() for f in features]
    gradients = torch.autograd.grad(value(own), own)
    length = 1e-7  # short, as a solve jumps where a place crosses from one voxel to the next
    for k, gradient in enumerate(gradients):
        along = smooth(draw, *features[k].shape[2:])
        with torch.no_grad(), plainly():
            ends = [value([f + s * length * along if j == k else f for j, f in enumerate(features)]) for s in (1, -1)]
        difference = (ends[0] - ends[1]) / (2 * length)
        assert abs(float(difference)) > 1e-2
        torch.testing.assert_close((gradient * along).sum(), difference, rtol=1e-5, atol=1e-5)  # rounding over the length


@pytest.mark.parametrize("name", ADJOINTS)
def test_what_is_said_of_a_level_keeps_no_graph(name: str) -> None:
    features, grids = off_the_lattice((1,))
    own = [f.requires_grad_() for f in features]
    solved = SolverLayer(FAMILY, (2,), adjoint=ADJOINTS[name])(
        *(FeaturePyramid(levels=(f,), factors=(1,), before=(0, 0), offset=0.5) for f in own), grids
    )
    assert solved.displacement.requires_grad
    for solution in solved.solutions:
        assert not any(t.requires_grad for t in (solution.value, solution.energy, solution.history))


def many_channels(dim: int, similarity: Similarity, draw: torch.Generator) -> tuple[FieldObjective, Tensor, Tensor]:
    """Two pairs of more channels than are differentiated at a time, a field, and a direction of it."""
    shape = (9, 8, 7)[:dim]
    grid = Grid.regular(shape, (0.7, 1.3, 1.1)[:dim])
    images = normal(draw, 2, CHUNK + 1, *shape), normal(draw, 2, CHUNK + 1, *shape)
    weights = [torch.rand(2, 1, *shape, generator=draw, dtype=torch.float64) for _ in range(2)]
    level = Level(Pair(*images, *weights, grid, grid), Lattice((1,) * dim))
    objective = FieldObjective(level, np.eye(dim + 1), similarity, (Bending(weight=0.3),))
    return objective, 0.3 + 0.4 * normal(draw, 2, dim, *shape), normal(draw, 2, dim, *shape)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("similarity", [MSE(), LNCC(radius=1)], ids=["mse", "lncc"])
@pytest.mark.parametrize("wanted", [(True, True), (False, True), (True, False)], ids=["both", "moving", "fixed"])
def test_a_mixed_derivative_in_chunks_of_channels_is_that_of_all(
    dim: int, similarity: Similarity, wanted: tuple[bool, bool], generator: torch.Generator
) -> None:
    objective, field, direction = many_channels(dim, similarity, generator)
    images = [image.clone().requires_grad_(want) for image, want in zip(objective.images, wanted, strict=True)]
    with plainly():
        found = objective.mixed(field, direction, *images)
        expected = Objective.mixed(objective, field, direction, *images)
    assert [g is not None for g in found] == list(wanted)
    for one, other in zip(found, expected, strict=True):
        if one is not None and other is not None:
            assert float(other.abs().max()) > 1e-4
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dim", [2, 3])
def test_a_curvature_product_in_chunks_of_channels_is_that_of_all(
    dim: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, field, direction = many_channels(dim, MSE(), generator)
    with plainly():
        found = objective.hessian_product(field, direction, *objective.images)
        monkeypatch.setattr("warpwright.methods.objective.CHUNK", CHUNK + 1)
        expected = objective.hessian_product(field, direction, *objective.images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert float(expected.abs().max()) > 1e-4
