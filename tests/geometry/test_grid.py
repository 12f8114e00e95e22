"""Grids: where voxels are, and that coarser and cropped grids keep exact centres."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from nibabel.orientations import aff2axcodes
from scipy.spatial.transform import Rotation

from oracles.make import homogeneous, normal, oblique, rotation
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image, transform_points


def _world(grid: Grid, index: tuple[float, ...]) -> np.ndarray:
    return grid.affine[:-1, :-1] @ np.array(index) + grid.affine[:-1, -1]


def test_voxels_and_world(shape: tuple[int, ...], spacing: tuple[float, ...], generator: torch.Generator) -> None:
    grid = Grid(shape, oblique(spacing))
    points = 5 * normal(generator, 4, 3, len(shape))
    world = grid.to_world(points)
    for index in np.ndindex(4, 3):
        np.testing.assert_allclose(world[index], _world(grid, tuple(points[index].tolist())), atol=1e-12)
    torch.testing.assert_close(grid.to_voxel(world), points, atol=1e-12, rtol=0)


def test_what_an_oblique_grid_says_of_itself(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    grid = Grid(shape, oblique(spacing))
    dim = len(shape)
    assert grid.spacing == pytest.approx(spacing, abs=1e-12)
    np.testing.assert_allclose(grid.direction.T @ grid.direction, np.eye(dim), atol=1e-12)
    assert np.linalg.det(grid.direction) == pytest.approx(-1.0)
    np.testing.assert_allclose(grid.origin, _world(grid, (0.0,) * dim), atol=1e-12)
    corners = [_world(grid, c) for c in product(*((0, n - 1) for n in shape))]
    np.testing.assert_allclose(grid.centre, np.mean(corners, 0), atol=1e-12)
    assert grid.shear < 1e-12
    assert grid.size == np.prod(shape)
    np.testing.assert_allclose(grid.inverse_affine @ grid.affine, np.eye(dim + 1), atol=1e-12)


def test_shear_is_seen(spacing: tuple[float, ...]) -> None:
    linear = np.diag(spacing)
    linear[0, 1] = spacing[1] * np.tan(0.1)
    assert Grid((4,) * len(spacing), homogeneous(linear, np.zeros(len(spacing)))).shear == pytest.approx(np.sin(0.1))


def test_a_coarse_voxel_lies_in_the_middle_of_its_block(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    factors = (2, 3, 2)[: len(shape)]
    grid = Grid(tuple(n * k for n, k in zip(shape, factors, strict=True)), oblique(spacing))
    coarse = grid.downsample(factors)
    assert coarse.shape == shape
    for index in np.ndindex(coarse.shape):
        block = product(*(range(k * i, k * i + k) for i, k in zip(index, factors, strict=True)))
        np.testing.assert_allclose(_world(coarse, index), np.mean([_world(grid, p) for p in block], 0), atol=1e-12)


def test_a_coarse_grid_that_does_not_fit_is_in_the_middle_and_inside(
    shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    grid = Grid(shape, oblique(spacing))
    for factors in ((2, 3, 4), (3, 2, 5), (4, 4, 4)):
        coarse = grid.downsample(factors[: len(shape)])
        assert coarse.shape == tuple(-(-n // k) for n, k in zip(shape, factors, strict=False))
        np.testing.assert_allclose(coarse.centre, grid.centre, atol=1e-12)
        for corner in product(*((0, n - 1) for n in coarse.shape)):
            voxel = grid.inverse_affine[:-1] @ [*_world(coarse, corner), 1]
            assert (voxel >= -1e-9).all()
            assert (voxel <= np.array(shape) - 1 + 1e-9).all()


def test_downsampling_twice_is_downsampling_once(spacing: tuple[float, ...]) -> None:
    grid = Grid((12, 24, 18)[: len(spacing)], oblique(spacing))
    twice = grid.downsample((2,) * len(spacing)).downsample((3,) * len(spacing))
    assert twice.same_as(grid.downsample((6,) * len(spacing)), tolerance=1e-10)


def test_a_crop_keeps_its_voxels(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    grid = Grid(shape, oblique(spacing))
    start = (1, -2, 3)[: len(shape)]
    crop = grid.crop(start, (3, 4, 2)[: len(shape)])
    for index in np.ndindex(crop.shape):
        np.testing.assert_allclose(_world(crop, index), _world(grid, tuple(np.add(index, start))), atol=1e-12)


def test_voxel_matrix_goes_through_the_world(spacing: tuple[float, ...]) -> None:
    dim = len(spacing)
    fixed = Grid((5, 7, 6)[:dim], oblique(spacing))
    moving = Grid((8, 4, 9)[:dim], oblique(spacing[::-1], 0.9))
    affine = homogeneous(rotation(dim, 0.2), np.ones(dim))
    point = torch.arange(1.0, dim + 1, dtype=torch.float64)
    expected = moving.to_voxel(transform_points(affine, fixed.to_world(point)))
    torch.testing.assert_close(transform_points(fixed.voxel_matrix(moving, affine), point), expected, atol=1e-12, rtol=0)
    plain = moving.to_voxel(fixed.to_world(point))
    torch.testing.assert_close(transform_points(fixed.voxel_matrix(moving), point), plain, atol=1e-12, rtol=0)


def test_corner_distance_and_sameness(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    grid = Grid(shape, oblique(spacing))
    other = Grid(shape, oblique(spacing, 0.5))
    corners = list(product(*((0, n - 1) for n in shape)))
    expected = max(np.linalg.norm(_world(grid, c) - _world(other, c)) for c in corners)
    assert grid.corner_distance(other.affine) == pytest.approx(expected)
    assert grid.same_as(other, expected + 1e-9)
    assert not grid.same_as(other, expected - 1e-9)
    assert not grid.same_as(grid.crop((0,) * len(shape), (4,) * len(shape)))


def test_a_grid_keeps_its_own_affine() -> None:
    matrix = np.eye(3)
    grid = Grid((2, 3), matrix)
    matrix[0, 0] = 9
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((4,), np.eye(2), "2 or 3 axes"),
        ((4, 0), np.eye(3), "at least one voxel"),
        ((4, 5), np.eye(4), "3 x 3"),
        ((4, 5), np.diag([1.0, np.nan, 1.0]), "finite"),
        ((4, 5), np.diag([1.0, 0.0, 1.0]), "singular"),
        ((4, 5), homogeneous(np.ones((2, 2)), (0.0, 0.0)), "singular"),
    ],
)
def test_bad_grids(shape: tuple[int, ...], affine: np.ndarray, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Grid(shape, affine)


def test_tiny_voxels_are_not_singular() -> None:
    assert Grid.regular((4, 5, 6), (1e-6, 1e-6, 1e-6)).spacing == pytest.approx((1e-6,) * 3)


def test_an_image_fits_its_grid(shape: tuple[int, ...]) -> None:
    grid = Grid.regular(shape)
    assert Image(torch.zeros(4, *shape), grid).channels == 4
    with pytest.raises(BadInput, match="scan"):
        Image(torch.zeros(1, *shape[::-1]), grid, "scan")


@pytest.mark.parametrize("seed", range(20))
def test_orientation_is_that_of_nibabel(seed: int) -> None:
    random = np.random.default_rng(seed)
    turned = Rotation.from_rotvec(random.normal(size=3) * 0.25).as_matrix()
    linear = np.eye(3)[random.permutation(3)] * random.choice([-1, 1], 3) @ turned * random.uniform(0.5, 3, 3)
    affine = np.eye(4)
    affine[:3, :3] = linear
    grid = Grid((5, 7, 6), affine)
    assert grid.orientation == "".join(aff2axcodes(affine))
    assert grid.text.endswith(f"{grid.orientation} (oblique)")


def test_a_grid_and_an_image_in_words() -> None:
    grid = Grid((5, 7, 6), np.array([[-0.7, 0, 0, 10.0], [0, -1.3, 0, 20.25], [0, 0, 2.1, -0.0], [0, 0, 0, 1]]))
    assert repr(grid) == "<Grid of 5 x 7 x 6 voxels of 0.7 x 1.3 x 2.1 mm, LPS, the first at (10, 20.25, 0) mm>"
    flat = Image(torch.tensor([[[0.0, 0.125]], [[1.0, -2.0]]]), Grid.regular((1, 2)), "a" * 90)
    assert repr(flat) == f"<Image '...{'a' * 37}': 1 x 2 voxels of 1 mm, 2 channels, float32 from -2 to 1>"
    assert repr(Image(torch.zeros(0, 1, 2), flat.grid)) == "<Image 'image': 1 x 2 voxels of 1 mm, 0 channels, float32>"
    labels = Image(torch.tensor([[[0, 300]]]), flat.grid, "it's")
    assert repr(labels) == '<Image "it\'s": 1 x 2 voxels of 1 mm, int64 from 0 to 300>'
