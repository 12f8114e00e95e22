"""Images pulled through a transform onto another grid."""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from oracles import slow
from oracles.make import homogeneous, normal, oblique, rotation, smooth_field
from warpwright.geometry import Grid, Image
from warpwright.transforms import Affine, DisplacementField, Interpolation, Transform, resample


def _pair(dim: int) -> tuple[Grid, Grid, Transform]:
    fixed = Grid((8, 10, 9)[:dim], oblique((0.9, 1.2, 1.9)[:dim], 0.2))
    moving = Grid((9, 8, 11)[:dim], oblique((0.7, 1.3, 2.1)[:dim], 0.5))
    affine = Affine(homogeneous(rotation(dim, 0.1), moving.centre - rotation(dim, 0.1) @ fixed.centre))
    return fixed, moving, affine @ DisplacementField(smooth_field(fixed.shape, 1.0)[0], fixed)


def _places(fixed: Grid, moving: Grid, transform: Transform) -> tuple[np.ndarray, np.ndarray]:
    """(D, N) moving voxels of every fixed voxel, and which lie in the moving image."""
    voxels = torch.from_numpy(np.indices(fixed.shape)).double().flatten(1).T
    world = transform(fixed.to_world(voxels)).numpy()
    inverse = np.linalg.inv(moving.affine)
    at = inverse[:-1, :-1] @ world.T + inverse[:-1, -1:]
    size = np.array(moving.shape)[:, None]
    return at, ((at >= -0.5) & (at < size - 0.5)).all(0)


def test_linear_is_scipy(dim: int, generator: torch.Generator) -> None:
    fixed, moving, transform = _pair(dim)
    data = normal(generator, 2, *moving.shape).float()
    at, known = _places(fixed, moving, transform)
    assert 0 < known.sum() < known.size
    got = resample(Image(data, moving, "m"), transform, fixed, background=-3.0)
    assert got.grid is fixed
    assert got.name == "m"
    for c in range(2):
        expected = np.where(known, map_coordinates(data[c].double().numpy(), at, order=1, mode="nearest"), -3.0)
        # read in single precision: coordinates of about 10 voxels
        np.testing.assert_allclose(got.data[c].flatten(), expected, atol=2e-5)


def test_nearest_is_scipy(dim: int, generator: torch.Generator) -> None:
    fixed, moving, transform = _pair(dim)
    data = torch.randint(-5, 900, (1, *moving.shape), generator=generator, dtype=torch.int16)
    at, known = _places(fixed, moving, transform)
    expected = np.where(known, map_coordinates(data[0].numpy(), at, order=0, mode="nearest"), -7)
    got = resample(Image(data, moving), transform, fixed, interpolation="nearest", background=-7)
    assert got.data.dtype == torch.int16
    np.testing.assert_array_equal(got.data[0].flatten(), expected)


def test_label_is_the_largest_share(dim: int, generator: torch.Generator) -> None:
    fixed, moving, transform = _pair(dim)
    data = torch.randint(0, 4, (1, *moving.shape), generator=generator, dtype=torch.uint8)
    at, known = _places(fixed, moving, transform)
    got = resample(Image(data, moving), transform, fixed, interpolation="label")
    assert got.data.dtype == torch.uint8
    for value, point, inside in zip(got.data.flatten().tolist(), at.T, known, strict=True):
        shares = [slow.read_linear(data[0].numpy() == n, point, "edge") for n in range(4)]
        # places are single precision, so a near tie may go either way
        assert shares[value] >= max(shares) - 1e-4 if inside else value == 0


@pytest.mark.parametrize("interpolation", ["nearest", "label"])
def test_large_labels_survive(dim: int, interpolation: Interpolation) -> None:
    grid = Grid.regular((3, 4, 3)[:dim])
    data = torch.full((1, *grid.shape), 2**24 + 1, dtype=torch.int32)
    got = resample(Image(data, grid), Affine.identity(dim), grid, interpolation=interpolation)
    assert torch.equal(got.data, data)


def test_identity_on_the_same_grid_changes_nothing(dim: int, generator: torch.Generator) -> None:
    grid = Grid((5, 7, 6)[:dim], oblique((0.7, 1.3, 2.1)[:dim]))
    image = Image(normal(generator, 3, *grid.shape).float(), grid)
    # single precision places
    torch.testing.assert_close(resample(image, Affine.identity(dim), grid).data, image.data, atol=1e-5, rtol=0)
    nearest = resample(image, Affine.identity(dim), grid, interpolation="nearest")
    assert torch.equal(nearest.data, image.data)


def _stored(image: Image, flips: tuple[bool, ...], order: tuple[int, ...]) -> Image:
    """The same image of the world with voxel axes flipped and permuted, as RAS, LAS, LPS ... files hold it."""
    dim = image.grid.dim
    turn = np.eye(dim + 1)
    for axis, flip in enumerate(flips):
        if flip:
            turn[axis, axis], turn[axis, dim] = -1, image.grid.shape[axis] - 1
    data = image.data.flip([axis + 1 for axis, flip in enumerate(flips) if flip])
    data = data.permute(0, *(k + 1 for k in order)).contiguous()
    shape = tuple(image.grid.shape[k] for k in order)
    return Image(data, Grid(shape, (image.grid.affine @ turn)[:, [*order, dim]]))


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_orientation_of_the_moving_file_does_not_matter(
    dim: int, generator: torch.Generator, interpolation: Interpolation
) -> None:
    fixed, moving, transform = _pair(dim)
    image = Image(normal(generator, 1, *moving.shape).float(), moving)
    expected = resample(image, transform, fixed, interpolation=interpolation).data
    for flips in product((False, True), repeat=dim):
        for order in (tuple(range(dim)), tuple(range(dim))[::-1]):
            got = resample(_stored(image, flips, order), transform, fixed, interpolation=interpolation).data
            # single precision places
            torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


def test_orientation_of_the_fixed_file_does_not_matter(dim: int, generator: torch.Generator) -> None:
    fixed, moving, transform = _pair(dim)
    image = Image(normal(generator, 1, *moving.shape).float(), moving)
    expected = resample(image, transform, fixed)
    for flips in product((False, True), repeat=dim):
        order = tuple(range(dim))[::-1]
        turned = _stored(expected, flips, order)
        # single precision places
        torch.testing.assert_close(resample(image, transform, turned.grid).data, turned.data, atol=2e-5, rtol=0)


def test_a_flat_image_in_space(generator: torch.Generator) -> None:
    fixed, moving, transform = _pair(2)
    image = Image(normal(generator, 1, *moving.shape).float(), moving)

    def lift(matrix: np.ndarray) -> np.ndarray:
        out = np.eye(4)
        out[:2, :2], out[:2, 3] = matrix[:2, :2], matrix[:2, 2]
        return out

    affine, field = transform.parts  # type: ignore[attr-defined]
    deep_fixed = Grid((*fixed.shape, 1), lift(fixed.affine))
    deep_field = torch.cat([field.displacement, torch.zeros_like(field.displacement[:1])])[..., None]
    deep = Affine(lift(affine.matrix)) @ DisplacementField(deep_field, deep_fixed)
    got = resample(Image(image.data[..., None], Grid((*moving.shape, 1), lift(moving.affine))), deep, deep_fixed)
    torch.testing.assert_close(got.data[..., 0], resample(image, transform, fixed).data, atol=2e-5, rtol=0)


def test_slabs_change_nothing(dim: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, moving, transform = _pair(dim)
    image = Image(normal(generator, 1, *moving.shape).float(), moving)
    expected = resample(image, transform, fixed).data
    monkeypatch.setattr(sys.modules["warpwright.transforms.resample"], "SLAB", 13)
    torch.testing.assert_close(resample(image, transform, fixed).data, expected, atol=1e-6, rtol=0)
