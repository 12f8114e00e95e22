"""The solver as a layer: where features lie, what is found whatever their scale, what fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from methods_models import batch_of, morph
from methods_pairs import texture
from torch import Tensor, nn

from oracles.make import normal
from warpwright.energies.losses import Images
from warpwright.energies.pairs import PairBatch
from warpwright.energies.similarity import MSE
from warpwright.errors import BadInput, Failed
from warpwright.geometry import Grid, Image
from warpwright.methods import (
    AffineField,
    Annotated,
    Displacement,
    Implicit,
    Model,
    ModelSettings,
    Solved,
    SolverLayer,
    Told,
    TwoStep,
    Velocity,
    batch_loss,
    lay_image,
    register_direct,
)
from warpwright.methods.deformable import Scale
from warpwright.methods.levels import Carried, Lattice
from warpwright.methods.search import moving_lattice
from warpwright.methods.solver_layer import AnyAdjoint, feature_levels
from warpwright.networks import VoxelMorph
from warpwright.networks.features import FeaturePyramid, FeatureUNetEncoder
from warpwright.sampling import gaussian
from warpwright.schemes import Plain
from warpwright.solver import Adam, GradientDescent, OneStep, Status, Unroll
from warpwright.transforms import Affine, Preparation

FAMILY = Displacement(gradient_sigma=1.5, field_sigma=0.7, solver=Adam(length=0.7, damping=0.1, beta1=0.8))
SHAPE, SPACING = (21, 26, 18), (1.0, 0.8, 1.3)
FACTORS = (2, 1)


def waves(points: Tensor) -> Tensor:
    """(1, C, *S) of points (D, *S), mm: smooth, different along every axis."""
    angles = [points[k] / (2.3 + 0.4 * k) for k in range(len(points))]
    return torch.stack([a.sin() for a in angles] + [sum(angles[1:], angles[0]).cos()])[None].float()


def pyramid(grid: Grid, offset: float, before: tuple[int, ...], shift: np.ndarray, times: float = 1.0) -> FeaturePyramid:
    """What `waves` is at the places where a pyramid's voxels are said to look, after a shift (mm)."""
    levels: list[Tensor] = []
    for factor in FACTORS:
        size = tuple(-(-(n + 2 * b) // FACTORS[0]) * FACTORS[0] // factor for n, b in zip(grid.shape, before, strict=True))
        lines = [
            factor * torch.arange(n, dtype=torch.float64) + offset * (factor - 1) - b for n, b in zip(size, before, strict=True)
        ]
        voxels = torch.stack(torch.meshgrid(*lines, indexing="ij"))
        world = grid.to_world(voxels.flatten(1).T) + torch.from_numpy(shift)
        levels.append(times * waves(world.T.reshape(voxels.shape)))
    return FeaturePyramid(levels=tuple(levels), factors=FACTORS, before=before, offset=offset)


def middle(field: Tensor) -> Tensor:
    """Without the border, where what lies outside has a part."""
    return field[(..., *(slice(5, n - 5) for n in field.shape[2:]))]


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("times", [0.1, 1.0, 100.0])
def test_a_shift_is_found_wherever_features_lie_and_whatever_their_scale(dim: int, offset: float, times: float) -> None:
    """The moving image is larger, lies elsewhere, and has other margins; a scale changes nothing but rounding."""
    fixed = Grid.regular(SHAPE[:dim], SPACING[:dim])
    moving = fixed.crop((-3, 2, -1)[:dim], tuple(n + 4 for n in fixed.shape))
    shift = np.array((1.1, -0.9, 0.7)[:dim])
    sides = (
        pyramid(fixed, offset, (1, 0, 2)[:dim], np.zeros(dim), times),
        pyramid(moving, offset, (0, 2, 1)[:dim], -shift, times),
    )
    found = SolverLayer(FAMILY, (40, 40))(*sides, (fixed, moving)).displacements
    assert [tuple(u.shape) for u in found] == [(1, dim, *fixed.shape)] * 2
    for k, u in enumerate(middle(found[-1]).flatten(2)[0]):
        assert abs(float(u.mean()) - shift[k] / SPACING[k]) < 0.1
    plain = SolverLayer(FAMILY, (40, 40))(
        *(replace(side, levels=tuple(f / times for f in side.levels)) for side in sides), (fixed, moving)
    )
    assert torch.allclose(plain.displacements[-1], found[-1], atol=0.05 * float(found[-1].abs().max()))


def test_a_registration_by_a_model_is_the_layer_bit_for_bit(dim: int) -> None:
    shape = (22, 19, 17)[:dim]
    spacing = (1.0, 1.2, 0.9)[:dim]
    torch.manual_seed(3)
    network = Implicit(features=FeatureUNetEncoder(outputs=4, scales=(2, 1), widths=0.25), family=FAMILY, steps=(6, 4))
    preparation = Preparation(spacing=spacing, start="none")
    model = Model(ModelSettings(dim=dim, network=network, layers=(), preparation=preparation)).eval()
    grid = Grid.regular(shape, spacing)
    images = [Image(texture(shape, seed=s), grid, f"image {s}") for s in (1, 2)]
    found = register_direct(model, *images)
    laid = [lay_image(preparation, Annotated(image=image), Affine.identity(dim), grid)[0] for image in images]
    pyramids = [model.network.pyramid(image) for image in laid]  # type: ignore[operator]
    ones = torch.ones_like(laid[0])
    with torch.no_grad():
        expected = model.network.solver(*pyramids, (grid, grid), weights=(ones, ones))  # type: ignore[operator]
    field = found.forward.parts[-1].displacement  # type: ignore[union-attr]
    assert torch.equal(field, expected.displacements[-1][0])
    assert field.abs().max() > 0.5
    assert [stage.name for stage in found.stages] == ["features", "displacement 1/2", "displacement 1/1", "map"]


def test_permuted_axes_permute_the_result() -> None:
    grid, turned = Grid.regular(SHAPE, SPACING), Grid.regular((18, 21, 26), (1.3, 1.0, 0.8))
    still = (0, 0, 0)
    sides = [pyramid(grid, 0.5, still, np.array(shift)) for shift in ((0.0, 0.0, 0.0), (0.6, -0.4, 0.5))]
    others = [replace(s, levels=tuple(f.permute(0, 1, 4, 2, 3).contiguous() for f in s.levels)) for s in sides]
    layer = SolverLayer(FAMILY, (5, 5))
    one = layer(*sides, (grid, grid)).displacements[-1]
    other = layer(*others, (turned, turned)).displacements[-1]
    assert torch.allclose(one.permute(0, 1, 4, 2, 3)[:, [2, 0, 1]], other, atol=1e-4)


@pytest.mark.parametrize("family", [FAMILY, Velocity(gradient_sigma=1.0, field_sigma=0.5, solver=Adam())])
def test_coarser_levels_alone_can_be_solved(family: Displacement | Velocity) -> None:
    grid = Grid.regular(SHAPE[:2], SPACING[:2])
    sides = [pyramid(grid, 0.5, (0, 0), np.array(shift)) for shift in ((0.0, 0.0), (0.6, -0.4))]
    whole, part = (SolverLayer(family, (4, 4))(*sides, (grid, grid), levels=n) for n in (None, 1))
    assert len(part.displacements) == 1
    assert torch.equal(part.displacements[0], whole.displacements[0])


@pytest.mark.parametrize("steps", [1, 2])
def test_a_solve_that_ends_worse_than_it_began_is_told_and_undone(steps: int) -> None:
    """The second sample is so nearly solved that every step of three voxels makes it worse, be it the last one."""
    grid = Grid.regular((24, 20))
    draw = torch.Generator().manual_seed(1)
    fixed = gaussian(normal(draw, 2, 3, 24, 20).float(), (2.0, 2.0))
    moving = torch.cat([fixed[:1].roll(3, 2), fixed[1:] + 1e-4 * fixed[:1]])
    sides = [FeaturePyramid(levels=(f,), factors=(1,), before=(0, 0), offset=0.5) for f in (fixed, moving)]
    family = Displacement(gradient_sigma=2.0, field_sigma=0.0, solver=GradientDescent(length=3.0))
    solved = SolverLayer(family, (steps,))(*sides, (grid, grid))
    assert solved.failed.tolist() == [False, True]
    assert solved.solutions[0].status[1] is Status.DIVERGED
    assert [bool(u.any()) for u in solved.displacements[0]] == [True, False]


class Flagged(nn.Module):
    """A solver layer's answer for two pairs that could not be solved, where it says so."""

    def __init__(self, *failed: bool) -> None:
        super().__init__()
        self.failed = torch.tensor(failed)

    def forward(
        self, fixed: FeaturePyramid, moving: FeaturePyramid, grids: tuple[Grid, Grid], levels: int | None, terms: None
    ) -> Solved:
        total = sum(f.mean() for f in (*fixed.levels, *moving.levels))
        field = torch.as_tensor(total) * torch.ones(2, 2, *grids[0].shape)
        carried = Carried(field, Lattice((1, 1)))
        return Solved(
            fields=(carried,),
            grids=grids[:1],
            family=FAMILY,
            fixed=grids[0],
            solutions=(),
            failed=self.failed,
            seconds=(),
        )


def flagged(*failed: bool) -> tuple[Model, PairBatch]:
    torch.manual_seed(1)
    network = Implicit(features=FeatureUNetEncoder(outputs=4, scales=(1,), widths=0.25), family=FAMILY, steps=(2,))
    loss = (Images(similarity=MSE()),)
    preparation = Preparation(spacing=(1.0, 1.0))
    model = Model(ModelSettings(dim=2, network=network, layers=(), preparation=preparation, loss=loss, directions="forward"))
    model.network.solver = Flagged(*failed)
    return model, replace(batch_of(2), spacing=(1.0, 1.0))


def test_a_pair_whose_solve_failed_teaches_nothing_and_is_counted() -> None:
    model, batch = flagged(False, True)
    losses = batch_loss(model, batch)
    assert losses.parts["failed"].tolist() == [0.0, 1.0]
    assert losses.total[0] > 0
    assert losses.total[1] == 0


@pytest.mark.parametrize("why", ["it ends worse than it began", "it is not finite"])
@pytest.mark.parametrize("adjoint", [OneStep(), Unroll()], ids=["one step", "unroll"])
def test_a_pair_that_cannot_be_solved_spoils_no_gradient(why: str, adjoint: AnyAdjoint) -> None:
    """By the layer itself: with such a pair beside it a good one teaches what it teaches alone, but for rounding."""
    torch.manual_seed(1)
    told = Told(points=True, chance=1.0) if why == "it is not finite" else None
    features = FeatureUNetEncoder(outputs=4, scales=(2, 1), widths=0.25)
    network = Implicit(features=features, family=FAMILY, steps=(3, 3), adjoint=adjoint, told=told)
    loss, preparation = (Images(similarity=MSE()),), Preparation(spacing=(1.0, 1.0))
    model = Model(ModelSettings(dim=2, network=network, layers=(), preparation=preparation, loss=loss, directions="forward"))
    batch = replace(batch_of(2), spacing=(1.0, 1.0))
    near, far = torch.tensor([[5.0, 4.0]]), torch.tensor([[1e30, 4.0]])
    good, bad = ((batch.fixed[:1], batch.moving[:1], near), (batch.fixed[1:], batch.fixed[1:] + 1e-5 * batch.moving[:1], near))
    if told is not None:
        bad = (*bad[:2], far)

    def taught(*pairs: tuple[Tensor, Tensor, Tensor]) -> tuple[list[float], Tensor]:
        fixed, moving, points = zip(*pairs, strict=True)
        many = PairBatch(
            fixed=torch.cat(fixed),
            moving=torch.cat(moving),
            spacing=(1.0, 1.0),
            fixed_points=(torch.tensor([[4.0, 4.0]]),) * len(pairs),
            moving_points=points,
        )
        losses = batch_loss(model, many)
        gradients = torch.autograd.grad(losses.total.sum(), list(model.parameters()), materialize_grads=True)
        return losses.parts["failed"].tolist(), torch.cat([g.flatten() for g in gradients])

    alone, beside = taught(good), taught(good, bad)
    assert (alone[0], beside[0]) == ([0.0], [0.0, 1.0])
    assert float(alone[1].abs().max()) > 0
    torch.testing.assert_close(beside[1], alone[1], rtol=0, atol=1e-5 * float(alone[1].abs().max()))  # float32


def test_training_gives_up_where_solves_keep_failing() -> None:
    model, batch = flagged(True, True)
    scheme = Plain(patience=2).build(model, 10)
    assert [scheme.step(k, [batch], lambda _: None)["failed"] for k in range(2)] == [1.0, 1.0]
    again = Plain(patience=2).build(model, 10)
    again.restore(scheme.state())
    for one in (scheme, again):  # a run that goes on remembers
        with pytest.raises(Failed, match="in 3 steps in a row no pair could be solved"):
            one.step(2, [batch], lambda _: None)
    model.network.solver = Flagged(False, True)
    patient = Plain(patience=0).build(model, 10)
    assert [patient.step(k, [batch], lambda _: None)["failed"] for k in range(2)] == [0.5, 0.5]
    model.network.solver = SolverLayer(FAMILY, (2,))
    calm = Plain(patience=0).build(model, 10)
    assert calm.step(0, [batch], lambda _: None)["failed"] == 0


def test_finer_levels_are_unlocked_as_training_goes_on() -> None:
    torch.manual_seed(1)
    network = Implicit(features=FeatureUNetEncoder(outputs=4, scales=(4, 2, 1), widths=0.25), family=FAMILY, steps=(2, 2, 2))
    loss = (Images(similarity=MSE(), coarser=(1.0, 1.0)),)
    settings = ModelSettings(dim=2, network=network, layers=(), preparation=Preparation(spacing=(1.0, 1.0)), loss=loss)
    model, batch = Model(settings), replace(batch_of(2), spacing=(1.0, 1.0))
    scheme = Plain(unlock=(0.3, 0.6)).build(model, 10)
    differ: list[tuple[bool, bool]] = []
    for step in (0, 3, 6):
        scheme.step(step, [batch], lambda _: None)
        final = model(batch.fixed, batch.moving).final
        fields = [u.values for u in (*final.coarser, final)]  # type: ignore[attr-defined]
        differ.append((not torch.equal(fields[0], fields[1]), not torch.equal(fields[1], fields[2])))
    assert differ == [(False, False), (True, False), (True, True)]
    scheme.step(0, [batch], lambda _: None)
    model.eval()
    final = model(batch.fixed, batch.moving).final
    assert not torch.equal(final.values, final.coarser[-1].values)  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="1 shares for \\[3\\] levels"):
        Plain(unlock=(0.5,)).build(model, 10)
    with pytest.raises(BadInput, match="is for a model that solves"):
        Plain(unlock=(0.5,)).build(morph(2), 10)
    with pytest.raises(BadInput, match="must rise and lie in"):
        Plain(unlock=(0.5, 0.2))


def test_a_step_behind_another_tells_what_either_could_not_do() -> None:
    implicit = Implicit(features=FeatureUNetEncoder(outputs=4, scales=(1,), widths=0.25), family=FAMILY, steps=(2,))
    settings = ModelSettings(
        dim=2, network=TwoStep(first=VoxelMorph(scale=0.25), second=implicit), preparation=Preparation(spacing=(1.0, 1.0))
    )
    model = Model(settings)
    model.network.second.solver = Flagged(False, True)
    batch = batch_of(2)
    assert model(batch.fixed, batch.moving).final.failed.tolist() == [False, True]  # type: ignore[union-attr]


def test_a_moving_image_is_looked_at_where_it_can_be_reached(dim: int) -> None:
    grid = Grid.regular((10, 12, 8)[:dim], (1.0, 2.0, 1.5)[:dim])
    still = Affine.identity(dim)
    assert moving_lattice(grid, grid, still).same_as(grid)
    shift = np.eye(dim + 1)
    shift[:dim, dim] = (2.0, -2.0, 3.0)[:dim]
    moved = moving_lattice(grid, Grid(grid.shape, shift @ grid.affine), Affine(shift))
    assert moved.same_as(grid)  # in the frame of the fixed image it lies where the affine puts it
    large = moving_lattice(grid, grid.crop((-100,) * dim, (300,) * dim), still)
    assert large.shape == tuple(n + 2 * (n // 2) for n in grid.shape)
    assert moving_lattice(grid, grid.crop((500,) * dim, (4,) * dim), still).size == 1


def plain(levels: tuple[Tensor, ...], factors: tuple[int, ...] = FACTORS) -> FeaturePyramid:
    return FeaturePyramid(levels=levels, factors=factors, before=(0, 0), offset=0.5)


def test_what_does_not_belong_together_is_refused() -> None:
    grid = Grid.regular((8, 8))
    good = plain((torch.rand(1, 2, 4, 4), torch.rand(1, 2, 8, 8)))
    none = (None, None)
    with pytest.raises(BadInput, match="the moving features have 3 axes, the image 2"):
        feature_levels(good, plain((torch.rand(1, 2, 4, 4, 4),) * 2), (grid, grid), none)
    with pytest.raises(BadInput, match="differ in scales, channels or samples"):
        feature_levels(good, plain((torch.rand(1, 3, 4, 4), torch.rand(1, 3, 8, 8))), (grid, grid), none)
    with pytest.raises(BadInput, match="2 levels, the solver has steps for 3"):
        SolverLayer(FAMILY, (1, 1, 1))(good, good, (grid, grid))
    for levels in (0, -1, 3):
        with pytest.raises(BadInput, match=f"{levels} levels are to be solved, expected 1 to 2"):
            SolverLayer(FAMILY, (1, 1))(good, good, (grid, grid), levels=levels)
    spoiled = plain((good.levels[0], good.levels[1] / 0))
    with pytest.raises(Failed, match="features of the moving image are not finite"):
        feature_levels(good, spoiled, (grid, grid), none)
    two, one_bad = (
        plain(tuple(torch.cat([f, g]) for f, g in zip(good.levels, p.levels, strict=True))) for p in (good, spoiled)
    )
    with pytest.raises(
        Failed, match="features of the moving image are not finite"
    ):  # of one sample: nothing is learned from any
        feature_levels(two, one_bad, (grid, grid), none)
    with pytest.raises(BadInput, match="at least 1 step for each of the scales"):
        Implicit(steps=(1, 1))
    with pytest.raises(BadInput, match="needs the spacing of the model's preparation"):
        Model(ModelSettings(network=Implicit(), layers=()))


@pytest.mark.parametrize("size", [5, 9, 60])
def test_features_of_another_image_are_refused(size: int) -> None:
    grid, whole, other = (Grid.regular((8, n)) for n in (8, 6, size))
    good = plain((torch.rand(1, 2, 4, 4), torch.rand(1, 2, 8, 8)))
    assert len(feature_levels(good, good, (whole, grid), (None, None))) == 2  # what was added makes a coarse voxel whole
    with pytest.raises(BadInput, match=r"moving features have 4x4 voxels at 1/2 .* not those of an image of \[8, "):
        feature_levels(good, good, (grid, other), (None, None))


@pytest.mark.parametrize("shape", [(1, 1, 30, 30), (3, 1, 8, 8), (1, 2, 8, 8), (1, 8, 8)])
@pytest.mark.parametrize("side", [0, 1])
def test_weights_of_another_image_are_refused(shape: tuple[int, ...], side: int) -> None:
    grid = Grid.regular((8, 8))
    good = plain((torch.rand(2, 2, 4, 4), torch.rand(2, 2, 8, 8)))
    for batch in (1, 2):
        assert len(feature_levels(good, good, (grid, grid), (torch.rand(batch, 1, 8, 8), None))) == 2
    weights = (None, torch.rand(shape)) if side else (torch.rand(shape), None)
    with pytest.raises(BadInput, match=rf"weights of the {('fixed', 'moving')[side]} image are \[.*expected \[2, 1, 8, 8\]"):
        feature_levels(good, good, (grid, grid), weights)


def test_an_affine_field_is_linear_and_keeps_its_parameters(
    dim: int, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    family, scale = AffineField(solver=Adam()), Scale(spacing, 1)
    given = normal(torch.Generator().manual_seed(4), 2, dim * (dim + 1))
    field = family.displacement(given, shape, scale)
    assert torch.allclose(family.parameters(field, scale), given, atol=1e-8)
    for axis in range(2, 2 + dim):
        bend = torch.diff(field, n=2, dim=axis)
        assert bend.abs().max() < 1e-10
    shift = given[:, dim :: dim + 1]
    expected = shift / torch.tensor(spacing, dtype=shift.dtype)
    assert torch.allclose(field.flatten(2).mean(2), expected, atol=1e-10)


def test_an_affine_field_finds_a_turn() -> None:
    grid = Grid.regular((40, 36))
    angle = 0.12
    turn = np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle)))) * 1.05
    voxels = torch.from_numpy(np.indices(grid.shape).astype(np.float64))
    centre = torch.from_numpy(grid.centre)[:, None, None]
    there = torch.einsum("ij,j...->i...", torch.from_numpy(turn), voxels - centre) + centre
    moving, fixed = waves(voxels), waves(there)
    sides = [FeaturePyramid(levels=(f,), factors=(1,), before=(0, 0), offset=0.5) for f in (fixed, moving)]
    found = SolverLayer(AffineField(solver=Adam(length=0.3)), (80,))(*sides, (grid, grid)).displacements[-1]
    assert (found[0] - (there - voxels)).abs().max() < 0.1
