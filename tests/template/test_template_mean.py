"""Means of images and of shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from oracles.make import homogeneous, oblique, rotation, smooth_field
from warpwright.geometry import Grid, Image
from warpwright.template.mean import (
    centre_of_mass,
    common_grid,
    inverse_of,
    mean_image,
    mean_shape,
    sharpened,
    sharpness,
    shift,
    without_pose,
)
from warpwright.transforms import Affine, Composite, DisplacementField, displacement_on

SHAPES = {2: (20, 26), 3: (12, 10, 14)}
SPACINGS = {2: (0.7, 1.4), 3: (0.7, 1.4, 2.0)}


def _grid(dim: int) -> Grid:
    return Grid(SHAPES[dim], oblique(SPACINGS[dim]))


def _everywhere(grid: Grid) -> torch.Tensor:
    return torch.ones(1, *grid.shape)


def _about(grid: Grid, linear: np.ndarray) -> Affine:
    """A linear map about the middle of a grid."""
    return Affine(homogeneous(linear, grid.centre - linear @ grid.centre))


def test_a_pose_alone_is_no_shape(dim: int) -> None:
    grid = _grid(dim)
    pose = Affine(homogeneous(rotation(dim, 0.7), (5.0, -30.0, 8.0)[:dim]))
    assert displacement_on(pose, grid).abs().max() > 3
    assert without_pose(displacement_on(pose, grid), grid, _everywhere(grid)).abs().max() < 1e-4


def test_a_shape_does_not_depend_on_the_pose(dim: int) -> None:
    """Up to the rotation and shift that fit it best, which a smooth field has some of itself."""
    grid = _grid(dim)
    field = DisplacementField(smooth_field(SHAPES[dim], 1.5)[0].float(), grid)
    posed = Composite((Affine(homogeneous(rotation(dim, -1.1), (9.0, 4.0, -7.0)[:dim])), field))
    weight = torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(1))
    alone, turned = (without_pose(displacement_on(one, grid), grid, weight) for one in (field, posed))
    torch.testing.assert_close(turned, alone, atol=1e-4, rtol=0)
    assert alone.norm(dim=0).max() > 0.5


def test_a_mirror_image_is_not_taken_for_a_pose(dim: int) -> None:
    grid = _grid(dim)
    mirror = _about(grid, np.diag([-1.0, *[1.0] * (dim - 1)]))
    assert without_pose(displacement_on(mirror, grid), grid, _everywhere(grid)).abs().max() > 1


@pytest.mark.parametrize("shape", [(128, 128, 64), (256, 256, 22), (7, 5, 300)])
def test_a_pose_is_that_of_all_voxels(shape: tuple[int, ...]) -> None:
    """Stretched along one axis about its middle, nothing moves there; a fit to some planes would shift it."""
    grid = Grid.regular(shape)
    field = displacement_on(_about(grid, np.diag([1.0, 1.0, 1.3])), grid)
    assert field.abs().max() > 3
    torch.testing.assert_close(without_pose(field, grid, _everywhere(grid)), field, atol=1e-3, rtol=0)


def test_a_pose_against_scipy(dim: int) -> None:
    """Weighed; SciPy fits rotations of vectors of three axes."""
    grid, generator = _grid(dim), torch.Generator().manual_seed(5)
    weight = torch.rand(1, *grid.shape, generator=generator) ** 3
    field = smooth_field(SHAPES[dim], 2.0)[0].float()
    index = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in grid.shape), indexing="ij")).flatten(1).T
    here, there = (grid.to_world(at).numpy() for at in (index, index + field.flatten(1).T))
    shares = weight.flatten().double().numpy()
    first, second = (np.average(points, axis=0, weights=shares) for points in (here, there))
    padded = [np.pad(points, ((0, 0), (0, 3 - dim))) for points in (here - first, there - second)]
    turn = Rotation.align_vectors(*padded, weights=shares)[0].as_matrix()[:dim, :dim]
    expected = (grid.to_voxel(torch.tensor((there - second) @ turn.T + first)) - index).T.reshape(field.shape)
    torch.testing.assert_close(without_pose(field, grid, weight), expected.float(), atol=1e-4, rtol=0)


def test_nothing_bright_counts_as_everything_bright(dim: int) -> None:
    grid = _grid(dim)
    field = smooth_field(SHAPES[dim], 1.0)[0].float()
    dark, bright = (without_pose(field, grid, value * _everywhere(grid)) for value in (0, 1))
    assert torch.equal(dark, bright)


def test_larger_and_smaller_ones_have_the_identity_as_their_mean(dim: int) -> None:
    grid = _grid(dim)
    scales = [_about(grid, factor * rotation(dim, angle)) for factor, angle in ((0.8, 0.5), (1.2, -0.3), (1.0, 2.0))]
    assert mean_shape(scales, grid, _everywhere(grid)).abs().max() < 1e-4
    alone = mean_shape(scales[:1], grid, _everywhere(grid))
    torch.testing.assert_close(alone, displacement_on(_about(grid, 0.8 * np.eye(dim)), grid), atol=1e-4, rtol=0)


def test_the_inverse_of_a_mean_shape_leads_back(dim: int) -> None:
    grid = _grid(dim)
    shape = smooth_field(SHAPES[dim], 1.0)[0].float()
    there_and_back = Composite((DisplacementField(shape, grid), inverse_of(shape, grid)))
    inner = (slice(None), *(slice(2, -2),) * dim)
    assert displacement_on(there_and_back, grid)[inner].abs().max() < 5e-3


def test_a_mean_is_of_the_images_that_lie_there() -> None:
    grid, narrow = Grid.regular((6, 9)), Grid.regular((6, 3))
    wide = Image(torch.full((1, 6, 9), 0.2), grid)
    others = [Image(torch.full((1, 6, 3), value), narrow) for value in (0.8, 0.5)]
    still = Affine.identity(2)
    mean, known = mean_image([(image, still) for image in (wide, *others)], grid)
    assert known[0, :, :3].all()
    assert not known[0, :, 4:].any()  # one of three
    torch.testing.assert_close(mean[0, :, :3], torch.full((6, 3), 0.5), atol=1e-6, rtol=0)
    assert not mean[0, :, 4:].any()


def test_centre_of_mass_against_scipy(dim: int) -> None:
    grid = _grid(dim)
    data = torch.rand(1, *SHAPES[dim], generator=torch.Generator().manual_seed(3))
    voxel = ndimage.center_of_mass(data[0].double().numpy())
    expected = grid.affine[:-1, :-1] @ voxel + grid.affine[:-1, -1]
    np.testing.assert_allclose(centre_of_mass(Image(data, grid)), expected, atol=1e-5)
    np.testing.assert_allclose(centre_of_mass(Image(torch.zeros_like(data), grid)), grid.centre)


def test_a_common_grid_holds_every_image(dim: int) -> None:
    grids = [_grid(dim), Grid(SHAPES[dim][::-1], homogeneous(-rotation(dim, 2.0), (50.0, -9.0, 3.0)[:dim]))]
    centres = [grids[0].centre + 1.5, grids[1].centre]
    found = common_grid(grids, centres)
    np.testing.assert_allclose(found.centre, np.mean(centres, 0))
    assert np.array_equal(found.direction, np.eye(dim))
    for grid, centre in zip(grids, centres, strict=True):
        back = shift(found.centre, centre).inverse()
        corners = torch.tensor(list(np.ndindex(*(2,) * dim)), dtype=torch.float64) * (torch.tensor(grid.shape) - 1)
        voxels = found.to_voxel(back(grid.to_world(corners)))
        assert (voxels > -0.5).all()
        assert (voxels < torch.tensor(found.shape) - 0.5).all()
    assert common_grid(grids, centres, 3.0).spacing == pytest.approx((3.0,) * dim)


def test_sharpening_steepens_edges_and_keeps_the_range() -> None:
    edge = torch.linspace(-12, 12, 30).sigmoid().expand(1, 20, 30).contiguous()
    grid = Grid.regular((20, 30), (1.0, 0.5))
    assert torch.equal(sharpened(edge, 0.0), edge)
    sharp = sharpened(edge, 1.0)
    assert sharpness(sharp, grid) > 1.02 * sharpness(edge, grid)
    assert sharp.min() >= 0
    assert sharp.max() <= 1
    np.testing.assert_allclose(
        sharpness(edge, grid), np.sqrt(np.mean(np.gradient(edge[0].numpy(), 0.5, axis=1) ** 2)), rtol=0.02
    )
