"""Starts, rigid and affine registration, headers of every kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from methods_pairs import SPACING_3D, blobs, seen_through, small, warped_pair
from torch import Tensor

from oracles.make import homogeneous, oblique, orders, permute_image, rotation
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.methods import Linear, Settings, TransformName, register_pair
from warpwright.methods.initialise import best_start, overlap, start_factor
from warpwright.methods.levels import make_level, make_pair
from warpwright.methods.linear import LinearMap
from warpwright.transforms import Affine, Transform

GRIDS = {
    "2d": Grid((56, 48), oblique((0.7, 0.9))),
    "3d": Grid((28, 32, 24), oblique(SPACING_3D)),
}
# another lattice in another frame, wider than the fixed one
MOVING = {
    "2d": Grid((60, 72), homogeneous(np.array([[0.0, -0.8], [0.7, 0.0]]), (32.0, -22.0))),
    "3d": Grid((30, 30, 34), np.diag([1.2, 1.3, 1.3, 1.0])),
}


def _centred(grid: Grid, on: Grid) -> Grid:
    """A grid moved so that its middle lies on another's."""
    affine = grid.affine.copy()
    affine[:-1, -1] += on.centre - grid.centre
    return Grid(grid.shape, affine)


def _turn(grid: Grid, degrees: float, shift: tuple[float, ...], stretch: float = 1.0) -> np.ndarray:
    """A map of fixed to moving points: a turn about the middle of the grid, a shift in mm."""
    linear = rotation(grid.dim, np.deg2rad(degrees))
    linear = linear @ np.diag([stretch, 1 / stretch, *(1.0,) * (grid.dim - 2)])
    return homogeneous(linear, grid.centre - linear @ grid.centre + np.array(shift[: grid.dim]))


def _points(grid: Grid) -> Tensor:
    """World points in the middle half of the grid, where the object is."""
    lattice = np.stack(np.meshgrid(*(np.linspace(n / 4, 3 * n / 4, 3) for n in grid.shape), indexing="ij"), -1)
    return grid.to_world(torch.tensor(lattice.reshape(-1, grid.dim)))


def _far(found: Transform, truth: np.ndarray, grid: Grid) -> float:
    """Largest distance in mm between two maps."""
    points = _points(grid)
    return float((found(points) - Affine(truth)(points)).norm(dim=1).max())


@pytest.mark.parametrize("case", GRIDS)
@pytest.mark.parametrize("kind", ["rigid", "affine"])
def test_a_known_linear_map_is_recovered(case: str, kind: TransformName) -> None:
    grid = GRIDS[case]
    moving = blobs(_centred(MOVING[case], grid))
    truth = _turn(grid, 12.0, (2.0, -1.5, 1.0), 1.1 if kind == "affine" else 1.0)
    fixed = seen_through(moving, truth, grid)
    result = register_pair(fixed, moving, small(kind, "mse", spacing=grid.spacing))
    assert isinstance(result.forward, Affine)
    assert _far(Affine.identity(grid.dim), truth, grid) > 2.5
    # The images see different parts of the object, so their percentiles differ, and an affine map can trade size for
    # brightness: half a voxel; a rigid one cannot.
    assert _far(result.forward, truth, grid) < (0.1 if kind == "rigid" else 0.7)
    assert np.abs(result.forward.matrix[:-1, :-1] - truth[:-1, :-1]).max() < (0.005 if kind == "rigid" else 0.05)
    assert result.inverse_residual == 0
    points = _points(grid)
    torch.testing.assert_close(result.backward(result.forward(points)), points, atol=1e-9, rtol=0)
    assert result.energy_after < 0.05 * result.energy_before
    if kind == "rigid":
        linear = result.forward.matrix[:-1, :-1]
        np.testing.assert_allclose(linear @ linear.T, np.eye(grid.dim), atol=1e-9)


@pytest.mark.parametrize("similarity", ["lncc", "mi", "mind"])
def test_every_similarity_serves_a_rigid_map(similarity: str) -> None:
    grid = GRIDS["3d"]
    moving = blobs(_centred(MOVING["3d"], grid))
    truth = _turn(grid, 8.0, (2.0, -1.5, 1.0))
    fixed = seen_through(moving, truth, grid)
    result = register_pair(fixed, moving, small("rigid", similarity, spacing=grid.spacing))  # pyright: ignore
    assert _far(result.forward, truth, grid) < 0.6  # half a voxel: only levels of two voxels and more are looked at


@pytest.mark.parametrize("turn", [((0.0, -1.0), (1.0, 0.0)), ((-1.0, 0.0), (0.0, -1.0))], ids=["quarter", "half"])
def test_a_large_turn_is_found(dim: int, turn: tuple[tuple[float, float], ...]) -> None:
    grid = GRIDS[f"{dim}d"]
    image = blobs(grid)
    linear = np.eye(dim)
    linear[-2:, -2:] = turn
    truth = homogeneous(linear, grid.centre - linear @ grid.centre)
    moving = Image(image.data, Grid(grid.shape, truth @ grid.affine), "turned")
    settings = small("rigid", "mse", spacing=grid.spacing, initialise="moments")
    assert _far(Affine.identity(dim), truth, grid) > 10
    assert _far(register_pair(image, moving, replace(settings, linear=())).forward, truth, grid) < 1.5  # two voxels
    assert _far(register_pair(image, moving, settings).forward, truth, grid) < 0.1


@pytest.mark.parametrize("start", ["moments", "centre"])
def test_fields_of_view_that_do_not_meet(dim: int, start: str) -> None:
    grid = GRIDS[f"{dim}d"]
    image = blobs(grid)
    truth = homogeneous(np.eye(dim), np.array([500.0, -300.0, 400.0])[:dim])
    moving = Image(image.data, Grid(grid.shape, truth @ grid.affine), "far away")
    result = register_pair(image, moving, small("rigid", "mse", spacing=grid.spacing, initialise=start))
    assert _far(result.forward, truth, grid) < 0.05
    assert result.energy_before == np.inf  # the images do not meet where they were given
    assert result.energy_after < 1e-3
    assert result.overlap > 0.9


def test_images_that_never_meet_are_refused() -> None:
    grid = GRIDS["2d"]
    image = blobs(grid)
    away = homogeneous(np.eye(2), np.array([500.0, -300.0])) @ grid.affine
    moving = Image(image.data, Grid(grid.shape, away), "far away")
    with pytest.raises(BadInput, match=r"far away and .* do not overlap where the search begins"):
        register_pair(image, moving, small("rigid", "mse", spacing=grid.spacing, initialise="none"))


def test_a_linear_stage_does_not_drive_images_apart() -> None:
    """Sliding off the other image lowers a mean over what is left; the overlap must not fall below where it began."""
    grid = GRIDS["2d"]
    image = blobs(grid)
    shifted = homogeneous(np.eye(2), np.array([0.7 * grid.shape[0] * grid.spacing[0], 0.0])) @ grid.affine
    moving = Image(image.data, Grid(grid.shape, shifted), "shifted")
    result = register_pair(image, moving, small("rigid", "mse", spacing=grid.spacing, initialise="none"))
    assert result.overlap >= 0.2


def test_a_stack_of_thick_slices() -> None:
    """Ten slices of 10 mm against an isotropic volume: linear, then deformable."""
    thick = Grid((40, 36, 10), np.diag([2.0, 2.0, 10.0, 1.0]))
    fine = _centred(Grid((44, 40, 36), np.diag([2.2, 2.2, 3.0, 1.0])), thick)
    moving = blobs(fine)
    truth = _turn(thick, 4.0, (3.0, -4.0, 5.0))
    fixed = seen_through(moving, truth, thick)
    result = register_pair(fixed, moving, small("rigid", "mse", spacing=thick.spacing))
    assert _far(result.forward, truth, thick) < 1.0  # half a voxel in the slice
    settings = small("greedy", "mse", spacing=thick.spacing, initialise="rigid", levels=(2, 1), steps=(15, 10))
    deformed = register_pair(fixed, moving, settings)
    assert _far(deformed.forward, truth, thick) < 2.0
    assert deformed.energy_after < 0.05 * deformed.energy_before


def _quick(settings: Settings) -> Settings:
    """From the world positions, a few linear steps on one level."""
    linear = tuple(replace(stage, levels=(2,), steps=6) for stage in settings.linear)
    return replace(settings, start="none", linear=linear)


def _stored(image: Image, order: tuple[int, ...], flips: tuple[int, ...]) -> Image:
    """The same image in the same place of the world with its voxels stored in another order."""
    dim = image.grid.dim
    data = permute_image(image.data[None], order)[0].flip([1 + axis for axis in flips])
    place = np.eye(dim + 1)  # new voxel to old voxel
    place[:-1, :-1] = np.eye(dim)[:, list(order)]
    for axis in flips:
        place[:, axis] *= -1
        place[order[axis], -1] = image.grid.shape[order[axis]] - 1
    return Image(data.contiguous(), Grid(tuple(data.shape[1:]), image.grid.affine @ place), image.name)


@pytest.mark.parametrize("family", ["greedy", "velocity", "bspline"])
def test_the_order_of_storage_does_not_matter(family: TransformName, dim: int) -> None:
    fixed, moving, _ = warped_pair(((48, 40), (28, 32, 24))[dim - 2], 3.0)
    settings = _quick(small(family, "lncc", spacing=fixed.grid.spacing, initialise="rigid", levels=(2, 1), steps=(8, 8)))
    expected = register_pair(fixed, moving, settings).forward
    points = _points(fixed.grid)
    assert (expected(points) - points).norm(dim=1).max() > 0.7
    mirrored, turned, other = (tuple(range(dim)), (0,)), (orders(dim)[0], (dim - 1,)), (orders(dim)[-1], ())
    for pair in (
        (_stored(fixed, *turned), moving),
        (fixed, _stored(moving, *mirrored)),
        (_stored(fixed, *mirrored), _stored(moving, *other)),
    ):
        got = register_pair(*pair, settings).forward
        # float32 sums in another order, followed by normalised steps; knots begin at the first voxel stored
        far = 0.1 if family == "bspline" else 0.02
        assert (got(points) - expected(points)).norm(dim=1).max() < far


def test_the_frame_of_the_world_does_not_matter(dim: int) -> None:
    """Both images turned, mirrored and moved together: the map is the same in the moved world."""
    fixed, moving, _ = warped_pair(((48, 40), (28, 32, 24))[dim - 2], 3.0)
    settings = _quick(small("greedy", "lncc", spacing=fixed.grid.spacing, initialise="affine", levels=(2, 1), steps=(8, 8)))
    expected = register_pair(fixed, moving, settings).forward
    frame = oblique((1.0,) * dim)
    moved = [Image(i.data, Grid(i.grid.shape, frame @ i.grid.affine), i.name) for i in (fixed, moving)]
    got = register_pair(*moved, settings).forward
    points = _points(fixed.grid)
    carried = Affine(frame)(expected(points))
    assert (got(Affine(frame)(points)) - carried).norm(dim=1).max() < 0.02  # as above


def test_a_linear_start_is_honoured(dim: int) -> None:
    grid = GRIDS[f"{dim}d"]
    moving = blobs(_centred(MOVING[f"{dim}d"], grid))
    truth = _turn(grid, 12.0, (2.0, -1.5, 1.0))
    fixed = seen_through(moving, truth, grid)
    settings = replace(small("rigid", "mse", spacing=grid.spacing), linear=(Linear(kind="rigid", levels=(2,), steps=5),))
    result = register_pair(fixed, moving, settings, initial=Affine(truth))
    assert _far(result.forward, truth, grid) < 0.1
    assert [stage.name for stage in result.stages if "1/" in stage.name] == ["rigid 1/2"]
    assert result.stages[0].energy_start < 0.05 * register_pair(fixed, moving, replace(settings, start="none")).energy_before


def test_no_start_takes_the_world_as_it_is(dim: int) -> None:
    grid = GRIDS[f"{dim}d"]
    image = blobs(grid)
    settings = replace(small("rigid", "mse", spacing=grid.spacing), start="none", linear=())
    result = register_pair(image, image, settings)
    assert isinstance(result.forward, Affine)
    np.testing.assert_array_equal(result.forward.matrix, np.eye(dim + 1))
    assert result.energy_before == result.energy_after


def test_generators_span_what_they_promise(dim: int) -> None:
    grid = GRIDS[f"{dim}d"]
    start = _turn(grid, 20.0, (1.0, 2.0, 3.0))
    for kind, free in (("rigid", dim * (dim - 1) // 2), ("similarity", dim * (dim - 1) // 2 + 1), ("affine", dim * dim)):
        family = LinearMap.around(kind, start, grid)  # pyright: ignore
        assert family.parameters == free + dim
        x = torch.linspace(-3, 4, family.parameters, dtype=torch.float64)[None]
        np.testing.assert_allclose(family.matrix(0 * x)[0], start, atol=1e-12)
        linear = (np.linalg.inv(start) @ family.matrix(x)[0].numpy())[:-1, :-1]
        gram = linear @ linear.T
        scale = np.linalg.det(gram) ** (1 / dim)
        assert np.allclose(gram, scale * np.eye(dim), atol=1e-9) == (kind != "affine")
        assert np.isclose(scale, 1, atol=1e-9) == (kind == "rigid")
        assert torch.autograd.gradcheck(family.matrix, x.requires_grad_())


def test_a_generator_moves_the_rim_by_its_length(dim: int) -> None:
    grid = GRIDS[f"{dim}d"]
    family = LinearMap.around("rigid", np.eye(dim + 1), grid)
    x = torch.zeros(1, family.parameters, dtype=torch.float64)
    x[0, 0] = 0.01
    matrix = family.matrix(x)[0]
    rim = torch.tensor([*grid.centre, 1.0])
    rim[0] += family.radius
    assert float((matrix @ rim - rim).norm()) == pytest.approx(0.01, rel=1e-3)  # an arc and its chord
    centre = torch.tensor([*grid.centre, 1.0])
    torch.testing.assert_close(matrix @ centre, centre, atol=1e-12, rtol=0)


def test_overlap_is_a_share_of_the_smaller_image(dim: int) -> None:
    grid = GRIDS[f"{dim}d"]
    image = blobs(grid)
    level = make_level(make_pair(image, image, None, None, torch.device("cpu")), 1)
    assert overlap(level, np.eye(dim + 1)) == pytest.approx(1, abs=1e-5)  # float32 sum
    along = grid.affine[:-1, 0] * grid.shape[0]
    assert overlap(level, homogeneous(np.eye(dim), along / 2)) == pytest.approx(0.5, abs=0.03)  # half a voxel of the rim
    assert overlap(level, homogeneous(np.eye(dim), 2 * along)) == 0


def test_a_start_is_never_where_images_hardly_meet(dim: int) -> None:
    grid = GRIDS[f"{dim}d"]
    image = blobs(grid)
    pair = make_pair(image, image, None, None, torch.device("cpu"))
    level = make_level(pair, start_factor(grid))
    away = homogeneous(np.eye(dim), np.full(dim, 1000.0))
    settings = small("rigid", "mse")
    assert overlap(level, best_start(level, settings.similarity, away)) > 0.9


def test_tilted_images_are_read_between_their_voxels() -> None:
    """The fixed grid is finer than the moving one; the map does not depend on either."""
    fine, coarse = Grid.regular((56, 64), (0.5, 0.4)), Grid.regular((18, 26), (1.5, 1.0))
    moving = blobs(coarse)
    truth = _turn(fine, 10.0, (1.0, -1.0))
    fixed = seen_through(moving, truth, fine)
    settings = small("greedy", "mse", spacing=fine.spacing, initialise="rigid")
    forward = register_pair(fixed, moving, settings).forward
    points = _points(fine)
    assert (forward(points) - Affine(truth)(points)).norm(dim=1).mean() < 0.25  # a quarter of a moving voxel
