"""ICON and GradICON: reference values, affine maps, both derivatives, gradients, points."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Literal, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles.make import permute_field, smooth_field
from warpwright.energies.consistency import FieldMap, gradient_inverse_consistency, inverse_consistency, sampling_points
from warpwright.energies.regularity import bending, diffusion
from warpwright.errors import BadInput
from warpwright.geometry import Grid, identity_points
from warpwright.transforms import Affine, DisplacementField, exp

Derivative = Literal["difference", "exact"]
DERIVATIVES: tuple[Derivative, ...] = ("difference", "exact")
SHAPES = {2: (48, 64), 3: (24, 28, 32)}
GOLDEN = {  # spec: values of the authors' code at the points of the grid, dim and amplitude to GradICON and ICON
    (2, 0.05): (0.00492543, 3.22042e-5),
    (2, 0.2): (1.392768, 0.01224411),
    (2, 0.3): (7.164819, 0.07451271),
    (3, 0.05): (0.00312480, 1.73804e-5),
    (3, 0.2): (0.8861958, 0.00605868),
    (3, 0.3): (4.594769, 0.03547259),
}


def wave(amplitude: float) -> Callable[[Tensor], Tensor]:
    """The map of the reference values, on the unit cube."""

    def mapped(points: Tensor) -> Tensor:
        sines, cosines = torch.sin(2 * math.pi * points), torch.cos(2 * math.pi * points)
        product = cosines.prod(1, keepdim=True)
        return points + amplitude * sines * product / cosines

    return mapped


def cube(dim: int) -> Tensor:
    axes = [torch.linspace(0, 1, n, dtype=torch.float64) for n in SHAPES[dim]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None] + 1e-12  # beside the zeros of a cosine


@pytest.mark.parametrize(("dim", "amplitude"), GOLDEN)
def test_reference_values(dim: int, amplitude: float) -> None:
    there, back, points = wave(amplitude), wave(-amplitude), cube(dim)
    first, second = GOLDEN[dim, amplitude]
    assert gradient_inverse_consistency(there, back, points).item() == pytest.approx(first, rel=1e-3)
    assert inverse_consistency(there, back, points).item() == pytest.approx(second, rel=1e-5)


OTHERS = {  # likewise: bending and diffusion
    (2, 0.05): (0.968461, 0.0400082),
    (2, 0.2): (15.49537, 0.6401313),
    (2, 0.3): (34.86458, 1.440295),
    (3, 0.05): (0.486801, 0.0311339),
    (3, 0.2): (7.788817, 0.4981430),
    (3, 0.3): (17.52484, 1.120822),
}


@pytest.mark.parametrize(("dim", "amplitude"), OTHERS)
def test_reference_values_of_what_it_is_compared_with(dim: int, amplitude: float) -> None:
    """There a mean over components too, on the unit cube; diffusion has the length of the first axis for every axis, bending
    a further 1 / D^2 and mixed derivatives over two voxels, which ours takes over one."""
    steps = [1 / (n - 1) for n in SHAPES[dim]]
    moved = wave(amplitude)(cube(dim)) - cube(dim)
    voxels = moved / torch.tensor(steps, dtype=torch.float64).reshape(1, -1, *(1,) * dim)
    first = SHAPES[dim][0]
    of_bending, of_diffusion = OTHERS[dim, amplitude]
    assert bending(voxels, steps).item() / dim**3 == pytest.approx(of_bending, rel=5e-3)
    assert diffusion(first * moved, [1 / first] * dim).item() / dim == pytest.approx(of_diffusion, rel=1e-5)


def inner_points(dim: int, count: int = 40) -> Tensor:
    """Off the faces between cells, and away from the border."""
    generator = torch.Generator().manual_seed(4)
    return 4 + 5 * torch.rand(1, dim, count, generator=generator, dtype=torch.float64)


def fields(dim: int, amplitude: float = 1.0) -> tuple[Tensor, Tensor]:
    shape = (13, 15, 14)[:dim]
    field = smooth_field(shape, amplitude)
    return field, 0.8 * field.flip(1)


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_a_stretch_that_nothing_undoes(dim: int, derivative: Derivative) -> None:
    """`D(there o back) - I` is a tenth of the identity."""
    at = identity_points((14, 15, 13)[:dim], dtype=torch.float64, device=torch.device("cpu"))
    found = gradient_inverse_consistency(0.1 * at, 0 * at, inner_points(dim), derivative=derivative)
    torch.testing.assert_close(found, torch.tensor([0.01], dtype=torch.float64), atol=1e-10, rtol=0)


def test_a_shift_has_no_derivative(dim: int) -> None:
    shift = torch.full((1, dim, *(9, 8, 7)[:dim]), 0.7, dtype=torch.float64)
    points = sampling_points((9, 8, 7)[:dim], dtype=torch.float64)
    still = torch.zeros_like(shift)
    assert gradient_inverse_consistency(shift, still, points).item() == pytest.approx(0, abs=1e-20)
    assert inverse_consistency(shift, still, points).item() == pytest.approx(2 * 0.49)


def test_inverses_cost_next_to_nothing(dim: int) -> None:
    velocity, _ = fields(dim)
    points = inner_points(dim)
    there, back, other = exp(velocity), exp(-velocity), fields(dim)[1]
    for penalty in (inverse_consistency, gradient_inverse_consistency):
        assert penalty(there, back, points).item() < 0.1 * penalty(there, other, points).item()


def test_both_derivatives_agree(dim: int) -> None:
    """Where no cell's face lies within the step, the interpolant is as good as linear along it."""
    there, back = fields(dim)
    points = inner_points(dim)
    exact = gradient_inverse_consistency(there, back, points, derivative="exact")
    near = gradient_inverse_consistency(there, back, points, step=1e-6)
    torch.testing.assert_close(near, exact, rtol=1e-4, atol=0)


def test_the_jacobian_is_that_of_autograd(dim: int) -> None:
    field, _ = fields(dim)
    points = inner_points(dim, 7).requires_grad_(True)
    mapped = FieldMap(field)(points)
    expected = torch.stack([torch.autograd.grad(mapped[0, i].sum(), points, retain_graph=True)[0][0] for i in range(dim)])
    torch.testing.assert_close(FieldMap(field).jacobian(points.detach())[0], expected)


def test_beyond_the_grid_a_field_is_constant(dim: int) -> None:
    field, _ = fields(dim)
    points = inner_points(dim, 5) - 40
    jacobian = FieldMap(field).jacobian(points)
    torch.testing.assert_close(jacobian, torch.eye(dim, dtype=torch.float64)[None, ..., None].expand_as(jacobian))
    corner = field[(0, slice(None), *(0,) * dim)]
    torch.testing.assert_close(FieldMap(field)(points)[0], points[0] + corner[:, None])


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_gradients(dim: int, derivative: Derivative) -> None:
    there, back = (field.requires_grad_(True) for field in fields(dim, 0.5))
    points = inner_points(dim, 3)

    def penalty(a: Tensor, b: Tensor) -> Tensor:
        return gradient_inverse_consistency(a, b, points, derivative=derivative, step=1e-2) + inverse_consistency(a, b, points)

    assert torch.autograd.gradcheck(penalty, (there, back), fast_mode=True)


def test_axes_have_no_order(dim: int) -> None:
    there, back = fields(dim)
    points = inner_points(dim)
    expected = gradient_inverse_consistency(there, back, points) + inverse_consistency(there, back, points)
    for order in permutations(range(dim)):
        a, b = (permute_field(field, order) for field in (there, back))
        at = points[:, list(order)]
        found = gradient_inverse_consistency(a, b, at) + inverse_consistency(a, b, at)
        torch.testing.assert_close(found, expected)


def test_a_batch_is_what_its_pairs_are(dim: int) -> None:
    there, back = (torch.cat(pair) for pair in (fields(dim), fields(dim, 0.3)))
    points = inner_points(dim)
    for derivative in DERIVATIVES:
        found = gradient_inverse_consistency(there, back, points, derivative=derivative)
        for k in range(2):
            one = gradient_inverse_consistency(there[k : k + 1], back[k : k + 1], points, derivative=derivative)
            torch.testing.assert_close(found[k : k + 1], one)


def test_single_precision_holds_under_autocast(dim: int) -> None:
    there, back = (field.float() for field in fields(dim))
    points = inner_points(dim)
    expected = gradient_inverse_consistency(there.double(), back.double(), points, derivative="exact")
    for derivative in DERIVATIVES:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = gradient_inverse_consistency(there, back, points.float(), derivative=derivative, step=1e-2)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=0)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_points_are_drawn_from_a_generator(dim: int, every: int) -> None:
    shape = (40, 41, 42)[:dim]
    points = sampling_points(shape, every=every, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    again = sampling_points(shape, every=every, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    other = sampling_points(shape, every=every, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert torch.equal(points, again)
    assert not torch.equal(points, other)
    assert points.shape == (1, dim, *(-(-n // every) for n in shape))
    grid = identity_points(shape, dtype=torch.float64, device=torch.device("cpu"))[(..., *(slice(None, None, every),) * dim)]
    assert (points - grid).std().item() == pytest.approx(every, rel=0.1)
    assert (points - grid).mean().item() == pytest.approx(0, abs=4 * every / math.sqrt(grid.numel()))


def oblique(dim: int) -> Grid:
    """The grid of `fields` in the world: turned, flipped, of uneven voxels."""
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(dim, dim)))
    affine = np.eye(dim + 1)
    affine[:-1, :-1] = turn * [1.5, -0.8, 2.5][:dim]
    affine[:-1, -1] = [7.0, -3.0, 11.0][:dim]
    return Grid((13, 15, 14)[:dim], affine)


def in_world(grid: Grid, points: Tensor) -> Tensor:
    return grid.to_world(points[0].T).T[None]


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_transforms_of_world_points(dim: int, derivative: Derivative) -> None:
    """As the displacements that they are made of, but in mm and along the axes of the world."""
    grid, (there, back), points = oblique(dim), fields(dim), inner_points(dim)
    a, b = (DisplacementField(field[0], grid) for field in (there, back))
    at = in_world(grid, points)
    linear = torch.from_numpy(grid.affine[:-1, :-1].copy())
    moved = points + FieldMap(back)(points) - points
    product = torch.einsum("bijn,bjkn->bikn", FieldMap(there).jacobian(moved), FieldMap(back).jacobian(points))
    error = torch.einsum("ij,bjkn,kl->biln", linear, product, linear.inverse()) - torch.eye(dim)[..., None]
    expected = error.square().sum(2).flatten(1).mean(1)
    found = gradient_inverse_consistency(a, b, at, derivative=derivative, step=1e-6)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    drift = linear @ (FieldMap(there)(moved) - points)[0], linear @ (FieldMap(back)(FieldMap(there)(points)) - points)[0]
    shift = sum(cast(Tensor, d.square().sum(0).mean()) for d in drift) / dim
    torch.testing.assert_close(inverse_consistency(a, b, at), cast(Tensor, shift)[None])


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_chains_of_transforms(dim: int, derivative: Derivative) -> None:
    """An affine undoes its inverse, a field between two affines that of the other frame, and a stretch is not undone."""
    matrix = np.eye(dim + 1)
    matrix[:-1, :-1] += 0.2 * np.random.default_rng(6).normal(size=(dim, dim))
    matrix[:-1, -1] = 3.0
    affine, grid = Affine(matrix), oblique(dim)
    at = in_world(grid, inner_points(dim))
    stretch = Affine(np.diag([1.1] * dim + [1.0]))
    still = Affine.identity(dim)
    known = gradient_inverse_consistency(stretch, still, at, derivative=derivative)
    torch.testing.assert_close(known, torch.tensor([0.01], dtype=torch.float64))
    field = DisplacementField(fields(dim)[0][0], grid)
    assert gradient_inverse_consistency(affine, affine.inverse(), at, derivative=derivative).item() < 1e-20
    chain = gradient_inverse_consistency(affine @ field, affine.inverse(), affine(at[0].T).T[None], derivative=derivative)
    alone = (affine @ field @ affine.inverse(), still)
    torch.testing.assert_close(
        chain, gradient_inverse_consistency(*alone, affine(at[0].T).T[None], derivative=derivative), rtol=1e-6, atol=0
    )


def test_transforms_pass_gradients(dim: int) -> None:
    grid, (there, back) = oblique(dim), fields(dim, 0.5)
    at = in_world(grid, inner_points(dim, 3))

    def penalty(a: Tensor, b: Tensor) -> Tensor:
        maps = DisplacementField(a[0], grid), DisplacementField(b[0], grid)
        return gradient_inverse_consistency(*maps, at, step=1e-2) + inverse_consistency(*maps, at)

    assert torch.autograd.gradcheck(penalty, (there.requires_grad_(True), back.requires_grad_(True)), fast_mode=True)


def test_what_is_refused(dim: int) -> None:
    there, _ = fields(dim)
    points = inner_points(dim)
    with pytest.raises(BadInput, match="expected one grid"):
        inverse_consistency(there, there[..., :-1], points)
    with pytest.raises(BadInput, match="needs displacement fields"):
        gradient_inverse_consistency(wave(0.1), there, points, derivative="exact")
    for a, b in ((FieldMap(there), there[..., :-1]), (there, FieldMap(there[..., :-1]))):
        with pytest.raises(BadInput, match="expected one grid"):
            gradient_inverse_consistency(a, b, points)
    with pytest.raises(BadInput, match="expected two of one kind"):
        gradient_inverse_consistency(Affine.identity(dim), there, points)
    with pytest.raises(BadInput, match="expected 'difference' or 'exact'"):
        gradient_inverse_consistency(there, there, points, derivative=cast(Derivative, "fd"))
    for step in (0.0, -1.0, math.nan):
        with pytest.raises(BadInput, match="must be above 0"):
            gradient_inverse_consistency(there, there, points, step=step)
    with pytest.raises(BadInput, match="every 1 voxel or more"):
        sampling_points((5, 5), every=0)
