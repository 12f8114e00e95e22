"""A model applied to a pair: networks whose answer is known, worlds of every kind, energies, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from methods_pairs import texture, warped_pair
from scipy.ndimage import map_coordinates
from torch import Tensor, nn

from oracles.make import homogeneous, oblique, rotation, smooth_field
from warpwright.energies.losses import Images, Overlap
from warpwright.energies.similarity import LNCC, MSE
from warpwright.errors import BadInput, Failed
from warpwright.geometry import Grid, Image
from warpwright.layers import FullSize, Integrate, LinearField
from warpwright.methods import AtScale, Direct, Model, ModelSettings, TwoStep, register_direct
from warpwright.methods.direct import carried
from warpwright.methods.multistep import AnyNetwork
from warpwright.networks import (
    AffineNet,
    Architecture,
    Displacement,
    Estimate,
    Estimator,
    LKUNet,
    TallUNet,
    Velocity,
    VoxelMorph,
)
from warpwright.transforms import Affine, Preparation, Transform, centring, exp, resample

Answer = Callable[[Tensor], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Known(Architecture):
    """A network that answers whatever the test wants, from the fixed image."""

    answer: Answer

    def build(self, dim: int, channels: int = 1) -> KnownNetwork:
        return KnownNetwork(self.answer)


class KnownNetwork(Estimator):
    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, fixed: Tensor, moving: Tensor) -> Estimate:
        shape = tuple(fixed.shape[2:])
        self.seen.append(shape)
        known: dict[str, Any] = {"shape": shape, "factors": (1,) * len(shape)}
        return Displacement(**(known | self.answer(fixed)))


def model_of(answer: Answer, dim: int, **settings: Any) -> Model:
    known: dict[str, Any] = {"network": Known(answer=answer), "layers": (FullSize(),), "loss": (Images(similarity=MSE()),)}
    return Model(ModelSettings(dim=dim, **(known | settings)))


def still(fixed: Tensor) -> dict[str, Any]:
    return {"values": torch.zeros(len(fixed), fixed.ndim - 2, *fixed.shape[2:])}


def through(world: Transform, grid: Grid) -> Answer:
    """The displacement, voxels of a grid, that a map of the world onto itself is there; worked out point by point."""

    def answer(fixed: Tensor) -> dict[str, Any]:
        assert tuple(fixed.shape[2:]) == grid.shape
        at = torch.tensor(np.indices(grid.shape).reshape(grid.dim, -1).T, dtype=torch.float64)
        values = grid.to_voxel(world(grid.to_world(at))) - at
        return {"values": values.T.reshape(1, grid.dim, *grid.shape).to(fixed)}

    return answer


def small_affine(grid: Grid) -> Affine:
    """Turns, stretches and shifts by a few voxels about the middle of a grid."""
    dim = grid.dim
    linear = rotation(dim, 0.04) @ np.diag([1.05, 0.96, 1.02][:dim])
    shift = np.array([0.9, -0.6, 0.8])[:dim]
    return Affine(homogeneous(linear, grid.centre - linear @ grid.centre + shift))


def headers(dim: int) -> list[Grid]:
    """Oblique and anisotropic, in every order and direction of the axes."""
    shape, spacing = (17, 14, 12)[:dim], (0.7, 1.3, 2.1)[:dim]
    base = Grid(shape, oblique(spacing, 0.25))
    grids: list[Grid] = []
    for order, flips in product(permutations(range(dim)), product((1, -1), repeat=dim)):
        change = np.zeros((dim + 1, dim + 1))
        change[dim, dim] = 1
        for new, (old, way) in enumerate(zip(order, flips, strict=True)):
            change[old, new], change[old, dim] = way, 0 if way > 0 else shape[old] - 1
        grids.append(Grid(tuple(shape[k] for k in order), base.affine @ change))
    return grids


def inner_points(grid: Grid, border: float) -> Tensor:
    """(40, D) world points, at least `border` voxels from the border."""
    generator = torch.Generator().manual_seed(8)
    size = torch.tensor(grid.shape, dtype=torch.float64) - 1
    return grid.to_world(border + torch.rand(40, grid.dim, generator=generator, dtype=torch.float64) * (size - 2 * border))


def image_on(grid: Grid, channels: int = 1, name: str = "image") -> Image:
    return Image(texture(grid.shape, channels=channels, sigma=1.5), grid, name)


def elsewhere(dim: int) -> Grid:
    """Where moving images lie."""
    return Grid((15, 16, 13)[:dim], homogeneous(np.diag([-1.1, 1.2, 1.6][:dim]), np.array([30.0, -20.0, 9.0])[:dim]))


# ------------------------------------------------------------------------------------------------------------- the map


@pytest.mark.parametrize("spacing", [None, (0.9, 1.1, 1.8)], ids=("own", "new"))
@pytest.mark.parametrize("start", ["none", "centre", "box", "given"])
def test_the_map_of_the_world_is_the_networks(dim: int, start: Any, spacing: tuple[float, ...] | None) -> None:
    """Whatever the header of the fixed image, the network's field is one and the same map in millimetres, then the start."""
    spacing = spacing and spacing[:dim]
    preparation = Preparation(spacing=spacing, start="none" if start == "given" else start)
    moving = image_on(elsewhere(dim))
    for grid in headers(dim)[:: len(headers(dim)) // 8]:
        working = preparation.whole(grid)
        field = small_affine(working)
        begin = Affine(homogeneous(rotation(dim, 0.3), np.array([3.0, 1.0, -2.0])[:dim])) if start == "given" else None
        affine = preparation.affine(grid, moving.grid) if begin is None else begin
        model = model_of(through(field, working), dim, preparation=preparation)
        found = register_direct(model, image_on(grid), moving, start=begin)
        points = inner_points(grid, 2.5)  # the border voxels of a working grid with another spacing are not those of the image
        expected = affine(field(points))
        assert (expected - affine(points)).norm(dim=1).min() > 0.2
        torch.testing.assert_close(found.forward(points), expected, atol=2e-4, rtol=0)  # float32 fields
        torch.testing.assert_close(found.backward(expected), points, atol=5e-3, rtol=0)  # voxels to 1e-3, of up to 2.1 mm
        assert found.inverse_residual < 2e-3


def test_a_curved_field_too(dim: int) -> None:
    """A field of smooth waves, in voxels of the working grid, moves the same points for every header."""
    grids = headers(dim)[:: len(headers(dim)) // 8]
    working = Preparation().whole(grids[0])
    waves = smooth_field(working.shape, 1.2).float()
    moving = image_on(elsewhere(dim))
    points = inner_points(grids[0], 3)
    results = [register_direct(model_of(lambda _: {"values": waves}, dim), image_on(g), moving) for g in grids]
    at = working.to_voxel(points)
    expected = centring(grids[0], moving.grid)(working.to_world(at + _read(waves, at)))
    for found in results:
        torch.testing.assert_close(found.forward(points), expected, atol=2e-4, rtol=0)
        back = working.to_voxel(found.backward(found.forward(points)))
        torch.testing.assert_close(back, at, atol=0.1, rtol=0)  # linear between voxels of a wave of 1.2
        assert found.inverse_residual < 2e-3


def _read(field: Tensor, points: Tensor) -> Tensor:
    """(1, D, *S) at (N, D) voxels, linearly."""
    return torch.tensor(np.stack([map_coordinates(c.double().numpy(), points.T.numpy(), order=1) for c in field[0]], 1))


def test_the_moved_image_is_what_the_network_saw_moved(dim: int) -> None:
    """Forward resamples the moving image onto the fixed one: the field that made the pair brings it back."""
    fixed, moving, field = warped_pair((24, 20, 22)[:dim], 1.5)
    found = register_direct(model_of(lambda _: {"values": field}, dim, preparation=Preparation(start="none")), fixed, moving)
    moved = resample(moving, found.forward, fixed.grid).data
    inner = (slice(None), *(slice(3, -3),) * dim)
    torch.testing.assert_close(moved[inner], fixed.data[inner], atol=1e-5, rtol=0)
    assert found.energy_after < 1e-2 * found.energy_before


def test_a_model_looks_at_the_whole_image(dim: int) -> None:
    """Its shape is that of training."""
    grid = headers(dim)[0]
    for shape in ((5, 30, 6), (40, 4, 40)):
        model = model_of(still, dim, preparation=Preparation(shape=shape[:dim]))
        register_direct(model, image_on(grid), image_on(elsewhere(dim)))
        network = model.get_submodule("network.network")
        assert isinstance(network, KnownNetwork)
        assert network.seen == [Preparation().whole(grid).shape]


@pytest.mark.parametrize(
    "network", [TallUNet(scale=0.05), LKUNet(start=1), AffineNet(scale=0.05)], ids=["tall", "lku", "affine"]
)
def test_a_network_that_gives_shares_of_a_size_looks_at_that_of_its_training(network: AnyNetwork, dim: int) -> None:
    shape = (9, 30, 12)[:dim]
    layers = (LinearField(),) if isinstance(network, AffineNet) else ()
    nested = TwoStep(first=AtScale(network=Direct(network=network, layers=layers)), second=VoxelMorph(field="displacement"))
    for one, size in ((network, shape), (nested, shape), (VoxelMorph(field="displacement"), None)):
        settings = ModelSettings(dim=dim, network=one, layers=layers, preparation=Preparation(shape=shape))
        grid = headers(dim)[0]
        assert settings.lattice(grid).shape == (settings.preparation.whole(grid).shape if size is None else size)
    model = Model(ModelSettings(dim=dim, network=network, layers=layers, preparation=Preparation(shape=shape)))
    seen: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _, images: seen.append(tuple(images[0].shape[2:])))
    found = register_direct(model, image_on(headers(dim)[0]), image_on(elsewhere(dim)))
    assert seen == [shape]
    assert [note.split(" voxels")[0] for note in found.notes] == [f"image does not fit into the {' x '.join(map(str, shape))}"]
    roomy = ModelSettings(dim=dim, network=network, layers=layers, preparation=Preparation(shape=(60,) * dim))
    assert not register_direct(Model(roomy), image_on(headers(dim)[0]), image_on(elsewhere(dim))).notes


def test_fields_are_carried_between_grids(dim: int) -> None:
    """Cropped, padded, turned, of another spacing: one map of the world, and the border's value beyond the source."""
    target = Grid((12, 15, 11)[:dim], oblique((0.7, 1.3, 2.1)[:dim], 0.2))
    field = small_affine(target)
    sources = [
        target.crop((2, -3, 1)[:dim], (8, 20, 12)[:dim]),
        Grid((14, 12, 18)[:dim], target.crop((-1, 0, 0)[:dim], target.shape).affine @ np.diag([*(1.1, 1.2, 0.9)[:dim], 1.0])),
        *headers(dim)[1::5],
    ]
    at = torch.tensor(np.indices(target.shape).reshape(dim, -1).T, dtype=torch.float64)
    world = target.to_world(at)
    for source in sources:
        values = through(field, source)(torch.zeros(1, 1, *source.shape, dtype=torch.float64))["values"]
        found = carried(values, source, target)
        assert (found.dtype, tuple(found.shape)) == (torch.float32, (1, dim, *target.shape))
        moved = target.to_world(at + found[0].flatten(1).T)
        there = source.to_voxel(world)
        size = torch.tensor(source.shape, dtype=torch.float64) - 1
        inside = ((there >= 0) & (there <= size)).all(1)
        assert inside.double().mean() > 0.1
        torch.testing.assert_close(moved[inside], field(world)[inside], atol=2e-4, rtol=0)  # float32
        nearest = source.to_world(torch.minimum(there.clamp_min(0), size))
        torch.testing.assert_close(moved - world, field(nearest) - nearest, atol=2e-4, rtol=0)
    own = torch.rand(1, dim, *target.shape)
    assert carried(own, target, Grid(target.shape, target.affine)) is own


# ------------------------------------------------------------------------------------------------------------- inverse


def test_the_models_own_inverse_is_used(dim: int) -> None:
    """Even a poor one; how poor it is, is told."""
    grid = Grid((12, 15, 11)[:dim], oblique((0.7, 1.3, 2.1)[:dim], 0.2))
    shift = torch.tensor([1.0, -0.5, 0.3][:dim]).reshape(1, dim, *(1,) * dim)
    full = shift.expand(1, dim, *Preparation().whole(grid).shape)
    moving, points = image_on(elsewhere(dim)), inner_points(grid, 3)
    for error in (0.0, 0.25):
        answer = {"values": full, "inverse": -full + error}
        found = register_direct(model_of(lambda _, a=answer: a, dim), image_on(grid), moving)
        back = found.backward(found.forward(points))
        missed = (grid.to_voxel(back) - grid.to_voxel(points)).norm(dim=1)
        expected = error * dim**0.5
        torch.testing.assert_close(missed, torch.full_like(missed, expected), atol=1e-4, rtol=0)
        assert found.inverse_residual == pytest.approx(expected, abs=1e-4)


def test_a_velocity_gives_its_inverse(dim: int) -> None:
    """From the network to the registration: the exponential of the negated velocity."""
    grid = headers(dim)[0]
    working = Preparation().whole(grid)
    velocity = smooth_field(working.shape, 1.0).float()

    class Flow(KnownNetwork):
        def forward(self, fixed: Tensor, moving: Tensor) -> Estimate:
            return Velocity(values=velocity, shape=working.shape, factors=(1,) * dim)

    model = model_of(still, dim, layers=(Integrate(), FullSize()))
    model.network.network = Flow(still)
    found = register_direct(model, image_on(grid), image_on(elsewhere(dim)))
    back = found.backward(centring(grid, elsewhere(dim))(inner_points(grid, 3)))
    at = working.to_voxel(inner_points(grid, 3))
    torch.testing.assert_close(back, working.to_world(at + _read(exp(-velocity), at)), atol=2e-4, rtol=0)
    assert 0 < found.inverse_residual < 0.1


# ------------------------------------------------------------------------------------------------------------ energies


def test_energies(dim: int) -> None:
    fixed, moving, field = warped_pair((24, 20, 22)[:dim], 1.5)
    plain = Preparation(start="none")
    nothing = register_direct(model_of(still, dim, preparation=plain), fixed, moving)
    assert nothing.energy_before > 0
    assert nothing.energy_after == pytest.approx(nothing.energy_before, rel=1e-6)  # moved by nothing, in other arithmetic
    (stage,) = nothing.stages
    assert (stage.name, stage.steps) == ("network", 1)
    assert (stage.energy_start, stage.energy_end) == (nothing.energy_before, nothing.energy_after)
    assert nothing.overlap == 1
    right = register_direct(model_of(lambda _: {"values": field}, dim, preparation=plain), fixed, moving)
    assert right.energy_before == nothing.energy_before
    assert right.energy_after < 1e-2 * right.energy_before
    one, two = (plain.intensity(image.data)[None] for image in (fixed, moving))
    assert nothing.energy_before == pytest.approx(float((one - two).square().mean()), rel=1e-5)
    windowed = register_direct(model_of(still, dim, preparation=plain, loss=(Overlap(labels=(1,)),)), fixed, moving)
    expected = LNCC().for_spacing(fixed.grid.spacing).match(one, two, torch.zeros(1, dim, *fixed.grid.shape))
    assert windowed.energy_before == pytest.approx(float(expected), rel=1e-5)  # a loss that compares no images


def test_before_is_measured_where_the_pair_was_given(dim: int) -> None:
    """Images far apart do not meet there; the start brings them together."""
    fixed, moving, _ = warped_pair((24, 20, 22)[:dim], 1.5)
    shift = Affine(homogeneous(np.eye(dim), np.full(dim, 500.0)))
    far = Image(moving.data, Grid(moving.grid.shape, shift.matrix @ moving.grid.affine), "far")
    model = model_of(still, dim)
    found = register_direct(model, fixed, far)
    assert math.isinf(found.energy_before)
    there = register_direct(model, fixed, far, given=shift)
    assert there.energy_before == pytest.approx(found.energy_after)
    assert (there.energy_after, there.overlap) == (found.energy_after, found.overlap)
    apart = register_direct(model, fixed, far, start=Affine.identity(dim))
    assert math.isinf(apart.energy_after)
    assert apart.overlap == 0


def test_overlap_is_that_of_the_end(dim: int) -> None:
    fixed, moving, _ = warped_pair((24, 20, 22)[:dim], 1.5)
    away = torch.zeros(1, dim, *fixed.grid.shape)
    away[:, 0] = 12.0
    found = register_direct(model_of(lambda _: {"values": away}, dim), fixed, moving)
    assert found.overlap == pytest.approx(0.5)


def test_masks_choose_what_counts(dim: int) -> None:
    """Percentiles and energies are those of the mask."""
    fixed, moving, _ = warped_pair((24, 20, 22)[:dim], 1.5)
    mask = torch.zeros_like(fixed.data)
    mask[(slice(None), *(slice(4, -4),) * dim)] = 1
    spoilt = Image(torch.where(mask > 0, fixed.data, 50 * torch.rand_like(fixed.data)), fixed.grid, "spoilt")
    model = model_of(still, dim, preparation=Preparation(start="none"))
    energies = [register_direct(model, f, moving, fixed_mask=Image(mask, fixed.grid)).energy_after for f in (fixed, spoilt)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-5)
    assert register_direct(model, spoilt, moving).energy_after != pytest.approx(energies[0], rel=0.1)


# ------------------------------------------------------------------------------------------------------------ refusals


def test_other_images_are_refused() -> None:
    model = model_of(still, 2, channels=2)
    flat, deep = (image_on(Grid.regular(s), 2, n) for s, n in (((9, 8), "flat"), ((9, 8, 7), "deep")))
    grey = image_on(flat.grid, 1, "grey")
    with pytest.raises(BadInput, match="deep: has 3 axes and 2 channels, the model is for 2 and 2"):
        register_direct(model, deep, deep)
    with pytest.raises(BadInput, match="grey: has 2 axes and 1 channels, the model is for 2 and 2"):
        register_direct(model, flat, grey)
    with pytest.raises(BadInput, match="the model is on cpu, the registration was asked for on meta: expected the same"):
        register_direct(model, flat, flat, device="meta")
    aside = Image(torch.ones(1, 9, 8), flat.grid.crop((1, 0), (9, 8)), "aside")
    with pytest.raises(BadInput, match="aside is not on the grid of its image flat: expected the same shape and affine"):
        register_direct(model, flat, flat, moving_mask=aside)
    nothing = Image(torch.zeros(1, 9, 8), flat.grid, "nothing")
    with pytest.raises(BadInput, match="nothing is zero everywhere: expected a mask with positive weights"):
        register_direct(model, flat, flat, fixed_mask=nothing)


@pytest.mark.parametrize("which", ["values", "inverse"])
def test_fields_that_are_not_finite_are_refused(dim: int, which: str) -> None:
    image = image_on(headers(dim)[1], name="one")

    def answer(fixed: Tensor) -> dict[str, Any]:
        good = still(fixed)["values"]
        bad = good.clone()
        bad[0, 0].view(-1)[3] = math.nan
        return {"values": good, "inverse": good} | {which: bad}

    with pytest.raises(Failed, match="the model gives a field that is not finite for one and one"):
        register_direct(model_of(answer, dim), image, image)


def test_models_whose_layers_end_elsewhere_are_refused(dim: int) -> None:
    image = image_on(headers(dim)[0])
    half = VoxelMorph(form="vm1", half_resolution=True, scale=0.25)
    for layers, found in (((), "Velocity"), ((Integrate(),), "Displacement")):
        model = Model(ModelSettings(dim=dim, network=half, layers=layers))
        with pytest.raises(BadInput, match=rf"end at a {found} on a lattice of factors \(2, 2.*\(a layer FullSize\)"):
            register_direct(model, image, image)
    with pytest.raises(BadInput, match="2 or 3 axes and at least 1 channel, got 4 and 1"):
        ModelSettings(dim=4)
    with pytest.raises(BadInput, match="2 or 3 axes and at least 1 channel, got 3 and 0"):
        ModelSettings(channels=0)
    with pytest.raises(BadInput, match="the preparation's shape has 3 axes, the model 2: expected as many"):
        ModelSettings(dim=2, preparation=Preparation(shape=(8, 8, 8)))
    with pytest.raises(BadInput, match="at least one term in its loss"):
        ModelSettings(loss=())
