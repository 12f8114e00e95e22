"""Maps of world points: the group laws for every pair of kinds, frames, flattening."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from itertools import product

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates
from torch import Tensor

from oracles.make import homogeneous, normal, oblique, permute_affine, permute_field, rotation, smooth_field
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.transforms import (
    Affine,
    BSplineField,
    Composite,
    DisplacementField,
    Transform,
    VelocityField,
    bspline_displacement,
    control_shape,
    displacement_on,
    exp,
    expanded,
    fit_bspline,
    invert,
    resample,
    residual_of,
    split,
)


def _grid(dim: int, angle: float = 0.4) -> Grid:
    return Grid((15, 18, 16)[:dim], oblique((0.7, 1.3, 2.1)[:dim], angle))


def _affine(dim: int) -> Affine:
    return Affine(homogeneous(np.diag([1.1, 0.9, 1.05][:dim]) @ rotation(dim, 0.1), (0.5, -0.3, 0.8)[:dim]))


def _field(dim: int) -> DisplacementField:
    return DisplacementField(smooth_field(_grid(dim).shape, 1.2)[0], _grid(dim))


def _velocity(dim: int) -> VelocityField:
    return VelocityField(smooth_field(_grid(dim).shape, -0.9)[0], _grid(dim))


def _spline(dim: int) -> BSplineField:
    knots = (4.0, 3.5, 5.0)[:dim]
    return BSplineField(smooth_field(control_shape(_grid(dim).shape, knots), 1.0)[0], knots, _grid(dim))


KINDS: dict[str, Callable[[int], Transform]] = {
    "affine": _affine,
    "displacement": _field,
    "velocity": _velocity,
    "bspline": _spline,
    "composite": lambda dim: _affine(dim) @ _field(dim),
}


def _inner_points(dim: int, generator: torch.Generator, count: int = 40) -> Tensor:
    """World points in the middle half of the grid."""
    size = torch.tensor(_grid(dim).shape, dtype=torch.float64)
    return _grid(dim).to_world((0.25 + 0.5 * torch.rand(count, dim, generator=generator, dtype=torch.float64)) * (size - 1))


@pytest.mark.parametrize(("f", "g"), list(product(KINDS, KINDS)))
def test_composition_is_application_after_application(dim: int, generator: torch.Generator, f: str, g: str) -> None:
    outer, inner, points = KINDS[f](dim), KINDS[g](dim), _inner_points(dim, generator)
    joined = outer @ inner
    assert joined.dim == dim
    torch.testing.assert_close(joined(points), outer(inner(points)), atol=1e-11, rtol=0)
    assert (joined(points) - points).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(dim: int, generator: torch.Generator, kind: str) -> None:
    forward, points = KINDS[kind](dim), _inner_points(dim, generator)
    mapped = forward(points)
    # linear interpolation between the voxels of the inverse field: a small part of a voxel of 0.7 to 2.1 mm
    tolerance = 1e-11 if kind == "affine" else 0.08
    torch.testing.assert_close(forward.inverse()(mapped), points, atol=tolerance, rtol=0)
    torch.testing.assert_close(forward(forward.inverse()(points)), points, atol=tolerance, rtol=0)


def test_inverse_of_a_composition_reverses_it(dim: int, generator: torch.Generator) -> None:
    f, g, points = _affine(dim), _field(dim), _inner_points(dim, generator)
    expected = g.inverse()(f.inverse()(points))
    torch.testing.assert_close((f @ g).inverse()(points), expected, atol=1e-12, rtol=0)


def test_composition_is_associative(dim: int, generator: torch.Generator) -> None:
    f, g, h, points = _affine(dim), _field(dim), _spline(dim), _inner_points(dim, generator)
    torch.testing.assert_close(((f @ g) @ h)(points), (f @ (g @ h))(points), atol=1e-12, rtol=0)


def test_neighbouring_affines_become_one(dim: int) -> None:
    affine, field = _affine(dim), _field(dim)
    assert isinstance(affine @ affine, Affine)
    joined = (field @ affine) @ (affine.inverse() @ field)
    assert isinstance(joined, Composite)
    assert [type(part) for part in joined.parts] == [DisplacementField, Affine, DisplacementField]


def test_affine(dim: int, generator: torch.Generator) -> None:
    affine, points = _affine(dim), normal(generator, 6, dim)
    expected = points.numpy() @ affine.matrix[:dim, :dim].T + affine.matrix[:dim, dim]
    np.testing.assert_allclose(affine(points), expected, atol=1e-12)
    assert torch.equal(Affine.identity(dim)(points), points)
    reversed_view = np.eye(dim + 1)[::-1][::-1]
    assert torch.equal(Affine(reversed_view)(points), points)


def test_a_field_is_scipy_in_the_world_and_zero_outside(dim: int, generator: torch.Generator) -> None:
    grid = _grid(dim)
    field = DisplacementField(normal(generator, dim, *grid.shape), grid)
    size = torch.tensor(grid.shape, dtype=torch.float64)
    voxels = torch.rand(200, dim, generator=generator, dtype=torch.float64) * (size + 4) - 2
    known = ((voxels >= -0.5) & (voxels < size - 0.5)).all(1).numpy()
    assert 0 < known.sum() < 200
    shift = np.stack([map_coordinates(c.numpy(), voxels.T.numpy(), order=1, mode="nearest") for c in field.displacement], 1)
    expected = voxels.numpy() + shift * known[:, None]
    world = expected @ grid.affine[:dim, :dim].T + grid.affine[:dim, dim]
    np.testing.assert_allclose(field(grid.to_world(voxels)), world, atol=1e-11)


def test_a_velocity_is_its_flow(dim: int, generator: torch.Generator) -> None:
    velocity, points = _velocity(dim), _inner_points(dim, generator)
    field = DisplacementField(exp(velocity.velocity[None], velocity.steps)[0], velocity.grid)
    torch.testing.assert_close(velocity(points), field(points), atol=1e-12, rtol=0)
    backward = exp(-velocity.velocity[None], velocity.steps)[0]
    torch.testing.assert_close(velocity.inverse().displacement_field().displacement, backward, atol=1e-12, rtol=0)


def test_a_spline_is_scipys_basis(dim: int, generator: torch.Generator) -> None:
    spline = _spline(dim)
    control = normal(generator, *spline.control.shape)
    spline = BSplineField(control, spline.knots, spline.grid)
    points = _inner_points(dim, generator, 10)
    voxels = spline.grid.to_voxel(points)
    rows = []
    for axis, (n, knot) in enumerate(zip(control.shape[1:], spline.knots, strict=True)):
        place = voxels[:, axis].numpy() / knot + 1
        basis = [BSpline.basis_element(np.arange(k - 2, k + 3), extrapolate=False)(place) for k in range(n)]
        rows.append(np.nan_to_num(np.array(basis)))
    letters = "abc"[:dim]
    shift = np.einsum(f"d{letters},{','.join(f'{a}n' for a in letters)}->nd", control.numpy(), *rows)
    np.testing.assert_allclose(spline.grid.to_voxel(spline(points)), voxels.numpy() + shift, atol=1e-11)


def test_a_spline_moves_nothing_outside_its_grid(dim: int) -> None:
    spline = BSplineField(torch.ones_like(_spline(dim).control), _spline(dim).knots, _grid(dim))
    voxels = torch.full((3, dim), 4.0, dtype=torch.float64)
    voxels[0, 0], voxels[1, 0] = -0.6, _grid(dim).shape[0] - 0.4
    moved = _grid(dim).to_voxel(spline(_grid(dim).to_world(voxels))) - voxels
    expected = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)[:, None].expand(3, dim)
    torch.testing.assert_close(moved, expected, atol=1e-11, rtol=0)


def test_a_spline_at_voxels_is_its_dense_field(dim: int, generator: torch.Generator) -> None:
    knots, grid = (4.0, 3.5, 5.0)[:dim], _grid(dim)
    control = normal(generator, 1, dim, *control_shape(grid.shape, knots))
    dense = bspline_displacement(control, grid.shape, knots)
    # displacement_on returns single precision
    flat = displacement_on(BSplineField(control[0], knots, grid), grid).double()
    torch.testing.assert_close(flat, dense[0], atol=1e-5, rtol=0)
    linear = 2.5 * bspline_displacement(control, grid.shape, knots)
    torch.testing.assert_close(bspline_displacement(2.5 * control, grid.shape, knots), linear, atol=1e-12, rtol=0)


def test_splines_reproduce_lines_and_are_refitted(dim: int, generator: torch.Generator) -> None:
    knots, shape = (4.0, 3.5, 5.0)[:dim], _grid(dim).shape
    lattice = control_shape(shape, knots)
    control = torch.zeros(1, dim, *lattice, dtype=torch.float64)
    for axis, (k, knot) in enumerate(zip(lattice, knots, strict=True)):
        place = (torch.arange(k, dtype=torch.float64) - 1) * knot
        control[0, axis] = place.reshape(-1, *(1,) * (dim - 1 - axis))
    identity = torch.from_numpy(np.indices(shape)).double()[None]
    torch.testing.assert_close(bspline_displacement(control, shape, knots), identity, atol=1e-11, rtol=0)
    dense = bspline_displacement(normal(generator, 1, dim, *lattice), shape, knots)
    refitted = bspline_displacement(fit_bspline(dense, knots), shape, knots)
    torch.testing.assert_close(refitted, dense, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_axes_is_invisible_in_the_world(dim: int, generator: torch.Generator, kind: str) -> None:
    """The same field stored with permuted and flipped axes moves world points to the same place."""
    transform, points = KINDS[kind](dim), _inner_points(dim, generator)
    order = tuple(range(dim))[::-1]

    def store(part: Transform) -> Transform:
        if isinstance(part, Composite):
            return Composite(tuple(store(p) for p in part.parts))
        if isinstance(part, Affine):
            return part
        assert isinstance(part, (DisplacementField, VelocityField, BSplineField))
        there = [*order, dim]
        grid = Grid(tuple(part.grid.shape[k] for k in order), part.grid.affine[:, there])
        if isinstance(part, BSplineField):
            return BSplineField(permute_field(part.control[None], order)[0], tuple(part.knots[k] for k in order), grid)
        if isinstance(part, VelocityField):
            return VelocityField(permute_field(part.velocity[None], order)[0], grid)
        return DisplacementField(permute_field(part.displacement[None], order)[0], grid)

    torch.testing.assert_close(store(transform)(points), transform(points), atol=1e-10, rtol=0)


def test_a_flipped_axis_is_invisible_in_the_world(dim: int, generator: torch.Generator) -> None:
    field, points = _field(dim), _inner_points(dim, generator)
    for axis in range(dim):
        flip = np.eye(dim + 1)
        flip[axis, axis], flip[axis, dim] = -1, field.grid.shape[axis] - 1
        stored = field.displacement.flip(axis + 1).clone()
        stored[axis] *= -1
        turned = DisplacementField(stored, Grid(field.grid.shape, field.grid.affine @ flip))
        torch.testing.assert_close(turned(points), field(points), atol=1e-11, rtol=0)


def test_permuting_the_world_permutes_the_result(dim: int, generator: torch.Generator) -> None:
    affine, points, order = _affine(dim), normal(generator, 5, dim), tuple(range(dim))[::-1]
    turned = Affine(permute_affine(affine.matrix, order))
    torch.testing.assert_close(turned(points[:, list(order)]), affine(points)[:, list(order)], atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_flattening_to_one_field(dim: int, generator: torch.Generator, kind: str) -> None:
    transform, grid = KINDS[kind](dim), Grid((6, 5, 7)[:dim], oblique((1.4, 2.6, 4.2)[:dim], 0.5))
    flat = displacement_on(transform, grid)
    voxels = torch.from_numpy(np.indices(grid.shape)).double().flatten(1).T
    # single precision fields of up to 20 voxels
    got = grid.to_world(voxels + flat.flatten(1).T.double())
    torch.testing.assert_close(got, transform(grid.to_world(voxels)), atol=1e-5, rtol=0)
    points = _inner_points(dim, generator, 5)
    assert transform(points).dtype == torch.float64


def test_split(dim: int, generator: torch.Generator) -> None:
    affine, field, points = _affine(dim), _field(dim), _inner_points(dim, generator)
    a, u = split(affine @ field, field.grid)
    assert a is affine
    assert u is field
    a, u = split(affine, field.grid)
    assert a is affine
    assert not u.displacement.any()
    a, u = split(field, field.grid)
    assert np.array_equal(a.matrix, np.eye(dim + 1))
    assert u is field
    whole = affine @ field @ _velocity(dim)
    a, u = split(whole, field.grid)
    # flattened: linear between voxels, a small part of a voxel of 0.7 to 2.1 mm
    torch.testing.assert_close((a @ u)(points), whole(points), atol=0.08, rtol=0)
    voxels = field.grid.to_world(torch.full((1, dim), 7.0, dtype=torch.float64))
    torch.testing.assert_close((a @ u)(voxels), whole(voxels), atol=1e-5, rtol=0)  # single precision at a voxel


def test_bad_transforms(dim: int) -> None:
    with pytest.raises(BadInput, match="singular"):
        Affine(np.diag([0.0] + [1.0] * dim))
    with pytest.raises(BadInput, match="finite"):
        Affine(np.diag([np.inf] + [1.0] * dim))
    with pytest.raises(BadInput, match="homogeneous"):
        Affine(np.ones((dim + 1, dim + 1)))
    with pytest.raises(BadInput, match="displacement"):
        DisplacementField(torch.zeros(dim, *(4,) * dim), _grid(dim))
    with pytest.raises(BadInput, match="same number of axes"):
        Affine.identity(2) @ _field(3) if dim == 2 else _field(2) @ Affine.identity(3) @ _field(2)


def test_an_inverse_field_keeps_its_residual(dim: int) -> None:
    field = _field(dim)
    inverse, residual = invert(field.displacement[None])
    back = field.inverse()
    assert field.residual == 0
    assert back.residual == residual == residual_of(back)
    assert 0 < residual <= 1e-3
    assert torch.equal(back.displacement, inverse[0])
    assert residual_of((_affine(dim) @ field).inverse()) == residual
    assert residual_of(_affine(dim)) == residual_of(_affine(dim) @ field) == 0


def test_a_velocity_is_integrated_once_for_a_whole_grid(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, calls = _grid(dim), []
    velocity = VelocityField(smooth_field(grid.shape, 1.2)[0], grid)
    transform = Composite((_affine(dim), Composite((velocity, _affine(dim)))))
    assert isinstance(expanded(velocity), DisplacementField)
    expected = displacement_on(_affine(dim) @ velocity.displacement_field() @ _affine(dim), grid)
    image = Image(torch.arange(float(grid.size)).reshape(1, *grid.shape), grid)
    pulled = resample(image, _affine(dim) @ velocity.displacement_field() @ _affine(dim), grid).data

    def counted(field: Tensor, steps: int = 7) -> Tensor:
        calls.append(steps)
        return exp(field, steps)

    monkeypatch.setattr("warpwright.transforms.transform.exp", counted)
    for module in ("transform", "resample"):
        monkeypatch.setattr(sys.modules[f"warpwright.transforms.{module}"], "SLAB", 50)
    torch.testing.assert_close(displacement_on(transform, grid), expected, atol=1e-5, rtol=0)  # float32
    assert len(calls) == 1
    # float32, values up to the number of voxels
    torch.testing.assert_close(resample(image, transform, grid).data, pulled, atol=1e-2, rtol=0)
    assert len(calls) == 2


def test_singular_is_relative_to_the_columns(dim: int) -> None:
    tiny = Affine(np.diag([1e-5] * dim + [1.0]))  # metres to micrometres and the like are no singularity
    np.testing.assert_allclose(tiny.inverse().matrix @ tiny.matrix, np.eye(dim + 1), atol=1e-12)
    large = np.diag([1e6] * dim + [1.0])
    large[:dim, 1] = large[:dim, 0]
    with pytest.raises(BadInput, match="parallel"):
        Affine(large)


def test_affines_of_different_dimension_are_refused() -> None:
    with pytest.raises(BadInput, match="same number of axes, got 2 and 3"):
        Affine.identity(2) @ Affine.identity(3)


def test_the_device_is_that_of_the_data(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No accelerator here: tensors on the device "meta" stand for one (PyTorch has no autocast for it)."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    grid = _grid(dim)
    field = DisplacementField(torch.zeros(dim, *grid.shape, device="meta"), grid)
    velocity = VelocityField(torch.zeros(dim, *grid.shape, device="meta"), grid)
    control = torch.zeros(dim, *control_shape(grid.shape, (3.0,) * dim), device="meta")
    assert _affine(dim).device.type == "cpu"
    for one in (field, velocity, BSplineField(control, (3.0,) * dim, grid)):
        assert one.device.type == "meta"
        assert (_affine(dim) @ one @ _field(dim)).device.type == "meta"
    assert displacement_on(_affine(dim) @ field, grid).device.type == "meta"
    image = Image(torch.zeros(1, *grid.shape, device="meta"), grid)
    assert resample(image, field, grid).data.device.type == "meta"


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", text)]


@pytest.mark.parametrize("degrees", [0.5, 30.0, 90.0, 180.0])
def test_an_affine_in_words(dim: int, degrees: float) -> None:
    turn = rotation(dim, np.radians(degrees))
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - (dim == 3)) / 2, -1, 1)))  # of its eigenvalues
    stretch = np.diag([1.5, 0.5, 1.0][:dim])
    matrix = homogeneous(turn @ stretch, np.array([1.25, -3.0, 0.0][:dim]))
    text = repr(Affine(matrix))
    shift = "(1.25, -3)" if dim == 2 else "(1.25, -3, 0)"
    assert text.startswith(f"<Affine {dim}-D: turns by ")
    assert text.endswith(f"degrees, stretches by 0.5 to 1.5, moves the origin by {shift} mm>")
    assert _numbers(text.partition("turns by ")[2])[0] == pytest.approx(angle, rel=1e-3)
    assert repr(Affine.identity(dim)) == f"<Affine {dim}-D: identity>"
    assert "mirrors, stretches by 1 to 1" in repr(Affine(np.diag([-1.0, *[1.0] * dim])))


def test_fields_in_words(dim: int) -> None:
    """On an oblique grid of spacings 0.7 and 1.3 mm: 2 voxels along the first axis are 1.4 mm."""
    grid = _grid(dim)
    step = torch.zeros(dim, *grid.shape)
    step[0] = 2.0
    length = 2 * grid.spacing[0]
    half = step * (torch.arange(grid.shape[0]) == 0).reshape(-1, *[1] * (dim - 1))
    mean = length / grid.shape[0]
    told = repr(DisplacementField(half, grid))
    assert told == f"<DisplacementField on {grid.text}: moves by {mean:.3g} mm in the mean, {length:.3g} mm at most>"
    assert "an inverse off by at most 0.12 voxels" in repr(DisplacementField(step, grid, 0.123))
    assert repr(VelocityField(step, grid)).endswith(f"{length:.3g} mm at most, per unit time, 7 squarings>")
    control = torch.zeros(dim, *control_shape(grid.shape, (3.0,) * dim))
    lattice = " x ".join(str(n) for n in control.shape[1:])
    assert repr(BSplineField(control, (3.0,) * dim, grid)).startswith(f"<BSplineField of {lattice} control points on ")
    both = Affine(homogeneous(np.eye(dim), np.ones(dim))) @ DisplacementField(step, grid)
    lines = repr(both).splitlines()
    assert lines[0] == f"<Composite {dim}-D, the last acts first:"
    assert lines[1].startswith("  <Affine")
    assert lines[2].startswith("  <DisplacementField")
