"""Field layers: what they accept, the exponential, sizes, draws, splines; gradients and permuted axes of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor

from oracles.make import normal, orders, permute_field, permute_image, smooth_field
from warpwright.errors import BadInput
from warpwright.geometry import Grid, identity_points
from warpwright.layers import (
    AnyLayer,
    DrawVelocity,
    Expected,
    FieldLayer,
    FullSize,
    Integrate,
    Pipeline,
    SmoothProper,
    SplineField,
    WeightedGaussian,
)
from warpwright.networks import (
    Basis,
    BasisLogits,
    ControlPoints,
    Displacement,
    Estimate,
    FieldKind,
    Velocity,
    VelocityDistribution,
)
from warpwright.sampling import resize_displacement
from warpwright.transforms import bspline_displacement, compose, control_shape, exp

SHAPE = (19, 22, 17)


def lattice(shape: tuple[int, ...], factors: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // k) for n, k in zip(shape, factors, strict=True))


def velocity(values: Tensor, **others: Any) -> Velocity:
    """At full resolution, if nothing else is said."""
    known: dict[str, Any] = {"shape": tuple(values.shape[2:]), "factors": (1,) * values.shape[1]}
    return Velocity(values=values, **(known | others))


def integrated(estimate: Velocity, settings: Integrate | None = None) -> Displacement:
    found = (settings or Integrate()).build(len(estimate.shape))(estimate)
    assert isinstance(found, Displacement)
    return found


def inner(values: Tensor, border: int) -> Tensor:
    return values[(..., *(slice(border, -border),) * (values.ndim - 2))]


# --------------------------------------------------------------------------------------------------------------- kinds


def sample_of(kind: type[Estimate], dim: int, dtype: torch.dtype = torch.float64) -> Estimate:
    """A smooth estimate of a kind at half the resolution, with a batch of two."""
    shape, factors = (9, 11, 8)[:dim], (2,) * dim
    known: dict[str, Any] = {"shape": shape, "factors": factors}
    part = torch.cat([smooth_field(lattice(shape, factors), size) for size in (0.7, -0.4)]).to(dtype)
    if kind is VelocityDistribution:
        return VelocityDistribution(mean=part, log_variance=part - 3, **known)
    if kind is ControlPoints:
        knots = (2.0, 1.5, 2.5)[:dim]
        control = torch.cat([smooth_field(control_shape(lattice(shape, factors), knots), size) for size in (0.7, -0.4)])
        return ControlPoints(values=control.to(dtype), knots=knots, of="velocity", **known)
    if kind is BasisLogits:
        many = torch.cat([smooth_field(lattice(shape, factors), size, 3**dim) for size in (4.0, -3.0)])
        return logits(many.to(dtype), dim, **known)
    return Displacement(values=part, inverse=-part, **known) if kind is Displacement else Velocity(values=part, **known)


def logits(values: Tensor, dim: int, **known: Any) -> BasisLogits:
    basis = Basis(reach=1)
    return BasisLogits(values=values, vectors=basis.vectors(dim).to(values), basis=basis, **known)


SERVED: list[tuple[AnyLayer, type[Estimate], type[Estimate]]] = [
    (DrawVelocity(), VelocityDistribution, Velocity),
    (SplineField(), ControlPoints, Velocity),
    (Integrate(steps=3), Velocity, Displacement),
    (FullSize(), Displacement, Displacement),
    (Expected(), BasisLogits, Displacement),
    (WeightedGaussian(sigma=1.5), BasisLogits, Displacement),
    (SmoothProper(iterations=2, learned=True), BasisLogits, Displacement),
]
EVERY = pytest.mark.parametrize(("settings", "kind", "result"), SERVED, ids=[type(s).__name__ for s, _, _ in SERVED])


@EVERY
def test_every_layer_serves_one_kind_and_names_others(
    settings: AnyLayer, kind: type[Estimate], result: type[Estimate], dim: int
) -> None:
    layer = settings.build(dim)
    for given in (VelocityDistribution, ControlPoints, Velocity, Displacement, BasisLogits):
        estimate = sample_of(given, dim)
        if given is kind:
            assert isinstance(layer(estimate), result)
            continue
        with pytest.raises(BadInput) as error:
            Pipeline([layer])(estimate)
        (sentence,) = error.value.args
        assert (
            sentence == f"the layer {type(settings).__name__.lower()} works on {kind.__name__}, it was given {given.__name__}"
        )


@EVERY
def test_coarser_levels_are_treated_too(settings: AnyLayer, kind: type[Estimate], result: type[Estimate], dim: int) -> None:
    layer = settings.build(dim).eval()
    estimate = sample_of(kind, dim)
    coarse = replace(sample_of(kind, dim), factors=(2,) * dim)
    found = layer(replace(estimate, coarser=(coarse, replace(coarse, coarser=(coarse,)))))
    assert [len(level.coarser) for level in found.coarser] == [0, 1]
    for level in (found, found.coarser[0], found.coarser[1], found.coarser[1].coarser[0]):
        assert isinstance(level, result)
        assert torch.equal(fields(level)[0], fields(layer(estimate))[0])


def fields(estimate: Estimate) -> list[Tensor]:
    if isinstance(estimate, VelocityDistribution):
        return [estimate.mean, estimate.log_variance]
    assert isinstance(estimate, (Displacement, Velocity, ControlPoints, BasisLogits))
    inverse = estimate.inverse if isinstance(estimate, Displacement) else None
    return [estimate.values] if inverse is None else [estimate.values, inverse]


def test_a_pipeline_keeps_the_trail(dim: int) -> None:
    pipeline = Pipeline([s.build(dim) for s in (DrawVelocity(), Integrate(), FullSize())]).eval()
    given = sample_of(VelocityDistribution, dim)
    trail = pipeline(given)
    assert [type(e) for e in trail] == [VelocityDistribution, Velocity, Displacement, Displacement]
    assert trail[0] is given
    assert [e.factors for e in trail] == [(2,) * dim] * 3 + [(1,) * dim]
    assert fields(trail[3])[0].shape == (2, dim, *given.shape)
    assert [type(e) for e in Pipeline([])(given)] == [VelocityDistribution]


# ----------------------------------------------------------------------------------------------------------- integrate


def test_integration_is_the_exponential(dim: int) -> None:
    values = torch.cat([smooth_field(SHAPE[:dim], 2.0), smooth_field(SHAPE[:dim], -1.0)])
    for steps in (0, 3, 7):
        found = integrated(velocity(values), Integrate(steps=steps))
        assert found.inverse is not None
        torch.testing.assert_close(found.values, exp(values, steps), atol=0, rtol=0)
        torch.testing.assert_close(found.inverse, exp(-values, steps), atol=0, rtol=0)
        assert (found.shape, found.factors) == (SHAPE[:dim], (1,) * dim)
    assert integrated(velocity(values), Integrate(inverse=False)).inverse is None


def test_a_constant_velocity_is_a_translation(dim: int) -> None:
    shift = torch.tensor([1.7, -2.3, 0.4][:dim], dtype=torch.float64).reshape(1, dim, *(1,) * dim)
    values = shift.expand(2, dim, *SHAPE[:dim])
    found = integrated(velocity(values))
    assert found.inverse is not None
    torch.testing.assert_close(found.values, values, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.inverse, -values, atol=1e-12, rtol=0)


def test_inverse_composes_to_the_identity(dim: int) -> None:
    """Up to linear interpolation: the error is of second order in the voxel, so a wave twice as long has a quarter of it."""
    worst: list[float] = []
    for shape in (SHAPE[:dim], tuple(2 * n for n in SHAPE[:dim])):
        found = integrated(velocity(smooth_field(shape, 1.5)))
        assert found.inverse is not None
        assert found.values.abs().max() > 0.4
        both = [compose(found.inverse, found.values), compose(found.values, found.inverse)]
        worst.append(max(float(each.abs().max()) for each in both))
    assert worst[0] < 0.05
    assert worst[1] < 0.4 * worst[0]


def test_an_affine_velocity_is_a_matrix_exponential(dim: int) -> None:
    """Linear interpolation is exact on affine fields, so what is left is the first-order small step, v / 2^steps."""
    shape = (27, 25, 23)[:dim]
    generator = np.random.default_rng(5)
    matrix = generator.uniform(-0.12, 0.12, (dim, dim))
    middle = (np.array(shape) - 1) / 2
    at = identity_points(shape, dtype=torch.float64, device=torch.device("cpu")) - torch.tensor(middle).reshape(
        1, dim, *(1,) * dim
    )
    found = integrated(velocity(torch.einsum("ij,bj...->bi...", torch.tensor(matrix), at)), Integrate(steps=12))
    assert found.inverse is not None
    for values, sign in ((found.values, 1), (found.inverse, -1)):
        expected = torch.einsum("ij,bj...->bi...", torch.tensor(expm(sign * matrix) - np.eye(dim)), at)
        reach = 6  # voxels: paths from further inside meet no border, where values are repeated
        assert inner(expected, reach).abs().max() > 0.4
        torch.testing.assert_close(inner(values, reach), inner(expected, reach), atol=1e-4, rtol=0)


def test_downsizing_integrates_on_a_coarser_lattice(dim: int) -> None:
    shape, factors, coarse = SHAPE[:dim], (1,) * dim, (3,) * dim
    values = smooth_field(shape, 1.5)
    found = integrated(velocity(values), Integrate(downsize=3))
    assert (found.shape, found.factors) == (shape, coarse)
    small = resize_displacement(values, factors, lattice(shape, coarse), coarse)
    assert small.abs().max() < 0.6 * values.abs().max()  # in coarse voxels
    torch.testing.assert_close(found.values, exp(small), atol=0, rtol=0)
    twice = integrated(velocity(small, shape=shape, factors=coarse), Integrate(downsize=2))
    assert twice.factors == (6,) * dim
    assert twice.values.shape[2:] == lattice(shape, (6,) * dim)


def test_downsizing_a_constant_keeps_the_translation(dim: int) -> None:
    shift = torch.tensor([1.7, -2.3, 0.4][:dim], dtype=torch.float64).reshape(1, dim, *(1,) * dim)
    found = integrated(velocity(shift.expand(1, dim, *SHAPE[:dim])), Integrate(downsize=2))
    full = FullSize().build(dim)(found)
    assert isinstance(full, Displacement)
    torch.testing.assert_close(full.values, shift.expand(1, dim, *SHAPE[:dim]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("settings", [{"steps": -1}, {"downsize": 0}])
def test_bad_integration_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="integration needs steps >= 0 and downsize >= 1, got"):
        Integrate(**settings)


# ----------------------------------------------------------------------------------------------------------- full size


@pytest.mark.parametrize("factors", [(2, 2, 2), (4, 1, 3), (1, 1, 1)])
def test_affine_fields_are_enlarged_exactly(dim: int, factors: tuple[int, ...]) -> None:
    """Between the outermost points of the lattice, where nothing is extrapolated; in voxels of the image."""
    shape, factors = (13, 10, 12)[:dim], factors[:dim]
    matrix = torch.tensor(np.random.default_rng(3).normal(0, 0.1, (dim, dim)))
    shift = torch.tensor([0.3, -0.8, 1.1][:dim], dtype=torch.float64)
    fine = Grid.regular(shape)
    coarse = fine.downsample(factors)

    def field(grid: Grid) -> Tensor:
        """In mm, which are voxels of the image."""
        voxels = torch.tensor(np.indices(grid.shape).reshape(dim, -1).T, dtype=torch.float64)
        return (grid.to_world(voxels) @ matrix.T + shift).T.reshape(1, dim, *grid.shape)

    steps = torch.tensor(factors, dtype=torch.float64).reshape(1, dim, *(1,) * dim)
    given = Displacement(values=field(coarse) / steps, shape=shape, factors=factors, inverse=-2 * field(coarse) / steps)
    found = FullSize().build(dim)(given)
    assert isinstance(found, Displacement)
    assert found.inverse is not None
    assert (found.shape, found.factors, tuple(found.values.shape)) == (shape, (1,) * dim, (1, dim, *shape))
    first = coarse.to_world(torch.zeros(1, dim, dtype=torch.float64))[0].tolist()
    last = coarse.to_world(torch.tensor([[n - 1.0 for n in coarse.shape]], dtype=torch.float64))[0].tolist()
    within = (..., *(slice(int(np.ceil(a)), int(np.floor(b)) + 1) for a, b in zip(first, last, strict=True)))
    torch.testing.assert_close(found.values[within], field(fine)[within], atol=1e-12, rtol=0)
    torch.testing.assert_close(found.inverse[within], -2 * field(fine)[within], atol=1e-12, rtol=0)


def test_a_field_without_an_inverse_gets_none(dim: int) -> None:
    given = Displacement(values=torch.rand(1, dim, *(3, 4, 2)[:dim]), shape=(6, 8, 4)[:dim], factors=(2,) * dim)
    found = FullSize().build(dim)(given)
    assert isinstance(found, Displacement)
    assert found.inverse is None


# --------------------------------------------------------------------------------------------------------------- draws


def distribution(dim: int, batch: int = 1) -> VelocityDistribution:
    shape = (5, 7, 6)[:dim]
    mean = torch.linspace(-2, 3, batch * dim * int(np.prod(shape)), dtype=torch.float64).reshape(batch, dim, *shape)
    return VelocityDistribution(mean=mean, log_variance=mean.flip(1) / 2 - 1, shape=(10, 13, 11)[:dim], factors=(2,) * dim)


def draw(layer: FieldLayer, estimate: Estimate) -> Tensor:
    return cast(Velocity, layer(estimate)).values


def test_in_evaluation_the_draw_is_the_mean(dim: int) -> None:
    given = distribution(dim)
    found = DrawVelocity().build(dim).eval()(given)
    assert isinstance(found, Velocity)
    assert torch.equal(found.values, given.mean)
    assert (found.shape, found.factors) == (given.shape, given.factors)


def test_draws_have_the_mean_and_variance_they_should(dim: int) -> None:
    layer, given, count = DrawVelocity().build(dim).train(), distribution(dim), 20_000
    torch.manual_seed(7)
    wide = (500, *given.mean.shape[1:])
    many = replace(given, mean=given.mean.expand(wide), log_variance=given.log_variance.expand(wide))
    draws = torch.cat([draw(layer, many) for _ in range(count // len(many.mean))])
    error = (draws.mean(0) - given.mean[0]) / (given.log_variance[0] / 2).exp()
    assert error.abs().max() < 5 / count**0.5  # standard errors; the largest of 630 is near 3.3
    assert (draws.var(0) / given.log_variance[0].exp() - 1).abs().max() < 5 * (2 / count) ** 0.5
    some = torch.corrcoef(draws.flatten(1)[:, :: int(np.prod(given.mean.shape[2:])) - 1].T)  # of other points and components
    assert (some - torch.eye(len(some))).abs().max() < 5 / count**0.5


def test_draws_follow_the_seed_and_differ(dim: int) -> None:
    layer, given = DrawVelocity().build(dim).train(), distribution(dim, batch=2)
    torch.manual_seed(3)
    first, second = draw(layer, given), draw(layer, given)
    torch.manual_seed(3)
    assert torch.equal(draw(layer, given), first)
    assert not torch.equal(first, second)
    spread = (given.log_variance / 2).exp()
    noise = (first - given.mean) / spread
    assert not torch.allclose(noise[0], noise[1], atol=0.1)


# ------------------------------------------------------------------------------------------------------------- splines


@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 1, 3)])
def test_spline_field_is_the_spline(dim: int, factors: tuple[int, ...]) -> None:
    shape, knots, factors = (13, 16, 14)[:dim], (4.0, 3.5, 5.0)[:dim], factors[:dim]
    size = lattice(shape, factors)
    control = smooth_field(control_shape(size, knots), 1.0)
    kinds: dict[FieldKind, type[Displacement | Velocity]] = {"displacement": Displacement, "velocity": Velocity}
    for of, kind in kinds.items():
        given = ControlPoints(values=control, knots=knots, of=of, shape=shape, factors=factors)
        found = SplineField().build(dim)(given)
        assert isinstance(found, kind)
        assert (found.shape, found.factors) == (shape, factors)
        assert torch.equal(fields(found)[0], bspline_displacement(control, size, knots))
        assert found.values.shape == (1, dim, *size)


def test_a_constant_spline_is_a_translation(dim: int) -> None:
    shape, knots = (13, 16, 14)[:dim], (4.0,) * dim
    control = torch.full((1, dim, *control_shape(shape, knots)), 1.25, dtype=torch.float64)
    given = ControlPoints(values=control, knots=knots, of="velocity", shape=shape, factors=(1,) * dim)
    found = Pipeline([SplineField().build(dim), Integrate().build(dim)])(given)[-1]
    assert isinstance(found, Displacement)
    torch.testing.assert_close(found.values, torch.full_like(found.values, 1.25), atol=1e-12, rtol=0)


# ------------------------------------------------------------------------------------------- gradients and permutation


def small(kind: type[Estimate], dim: int, generator: torch.Generator) -> tuple[Estimate, tuple[Tensor, ...]]:
    """An estimate with values that are far from kinks of linear interpolation, and these values."""
    shape, factors = ((2, 3, 2) if kind is BasisLogits else (3, 4, 2))[:dim], (2, 1, 1)[:dim]
    size = lattice(shape, factors)
    known: dict[str, Any] = {"shape": shape, "factors": factors}
    values = 0.3 + 0.05 * normal(generator, 1, dim, *size)
    if kind is VelocityDistribution:
        inputs = (values, normal(generator, 1, dim, *size))
        return VelocityDistribution(mean=inputs[0], log_variance=inputs[1], **known), inputs
    if kind is ControlPoints:
        knots = (1.5, 2.0, 2.0)[:dim]
        control = normal(generator, 1, dim, *control_shape(size, knots))
        return ControlPoints(values=control, knots=knots, of="displacement", **known), (control,)
    if kind is BasisLogits:
        many = normal(generator, 1, 3**dim, *size)
        return logits(many, dim, **known), (many,)
    if kind is Displacement:
        return Displacement(values=values, inverse=-values, **known), (values, -values)
    return Velocity(values=values, **known), (values,)


def with_values(estimate: Estimate, inputs: tuple[Tensor, ...]) -> Estimate:
    names = {VelocityDistribution: ("mean", "log_variance"), Displacement: ("values", "inverse")}
    return replace(estimate, **dict(zip(names.get(type(estimate), ("values",)), inputs, strict=False)))


@pytest.mark.parametrize(("settings", "kind"), [case[:2] for case in SERVED], ids=[type(s).__name__ for s, _, _ in SERVED])
def test_gradients(settings: AnyLayer, kind: type[Estimate], dim: int) -> None:
    generator = torch.Generator().manual_seed(11)
    estimate, inputs = small(kind, dim, generator)
    layer = settings.build(dim).train()

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(2)  # the same draw each time
        return tuple(fields(layer(with_values(estimate, values))))

    assert torch.autograd.gradcheck(function, [v.clone().requires_grad_() for v in inputs])


def permuted(estimate: Estimate, order: tuple[int, ...]) -> Estimate:
    def turned(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(values[k] for k in order)

    if isinstance(estimate, BasisLogits):
        moved = replace(estimate, values=permute_image(estimate.values, order), vectors=estimate.vectors[:, list(order)])
    else:
        moved = with_values(estimate, tuple(permute_field(v, order) for v in fields(estimate)))
    moved = replace(moved, shape=turned(estimate.shape), factors=turned(estimate.factors))  # pyright: ignore
    return replace(moved, knots=turned(moved.knots)) if isinstance(moved, ControlPoints) else moved


SETTINGS: list[tuple[Callable[[], AnyLayer], type[Estimate]]] = [
    (DrawVelocity, VelocityDistribution),
    (SplineField, ControlPoints),
    (Integrate, Velocity),
    (lambda: Integrate(downsize=2), Velocity),
    (FullSize, Displacement),
    (Expected, BasisLogits),
    (lambda: WeightedGaussian(sigma=1.5), BasisLogits),
    (lambda: SmoothProper(iterations=2), BasisLogits),
]


@pytest.mark.parametrize(("make", "kind"), SETTINGS)
def test_axes_have_no_order(make: Callable[[], AnyLayer], kind: type[Estimate], dim: int, generator: torch.Generator) -> None:
    layer = make().build(dim).eval()
    estimate, _ = small(kind, dim, generator)
    for order in orders(dim):
        found, expected = layer(permuted(estimate, order)), permuted(layer(estimate), order)
        assert (found.shape, found.factors) == (expected.shape, expected.factors)
        for one, two in zip(fields(found), fields(expected), strict=True):
            torch.testing.assert_close(one, two, atol=1e-12, rtol=0)
