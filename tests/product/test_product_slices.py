from __future__ import annotations

import numpy as np
import pytest
import torch

from warpwright.geometry import Grid
from warpwright.product.slices import middle, slices

AXES = {
    "RAS": np.eye(3),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "permuted": np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]),
}


def world(grid: Grid) -> np.ndarray:
    """(3, *S) world coordinates of every voxel."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1)
    return np.moveaxis(grid.to_world(torch.tensor(index, dtype=torch.float64)).numpy(), -1, 0)


@pytest.mark.parametrize("axes", AXES)
def test_right_anterior_superior_are_left_and_up_whatever_the_axes(axes):
    affine = np.eye(4)
    affine[:3, :3] = AXES[axes] * (0.7, 1.3, 2.1)
    grid = Grid((5, 7, 6), affine)
    place = world(grid)
    for cut, (name, across, up, letters) in zip(
        slices(grid, (2, 3, 4)),
        [("axial", 0, 1, "RLAP"), ("coronal", 0, 2, "RLSI"), ("sagittal", 1, 2, "APSI")],
        strict=True,
    ):
        assert cut.name == name
        assert "".join(cut.letters) == letters
        assert (np.diff(cut.cut(place[across]), axis=1) < 0).all()  # falls from left to right
        assert (np.diff(cut.cut(place[up]), axis=0) < 0).all()  # and from top to bottom
        assert np.ptp(cut.cut(place[({0, 1, 2} - {across, up}).pop()])) < 1e-9


@pytest.mark.parametrize("axes", AXES)
def test_points_land_where_their_voxel_is_drawn(axes):
    affine = np.eye(4)
    affine[:3, :3] = AXES[axes] * (0.7, 1.3, 2.1)
    grid = Grid((5, 7, 6), affine)
    voxel = (1, 5, 2)
    mark = np.zeros(grid.shape)
    mark[voxel] = 1
    for cut in slices(grid, voxel):
        row, column = np.argwhere(cut.cut(mark))[0]
        x, y = cut.place(np.array([voxel], dtype=float))[0]
        assert (int(y / cut.spacing[0]), int(x / cut.spacing[1])) == (row, column)
        assert cut.size == pytest.approx((cut.shape[0] * cut.spacing[0], cut.shape[1] * cut.spacing[1]))


def test_a_flat_image_has_one_cut_without_letters():
    (cut,) = slices(Grid.regular((5, 7), (0.7, 1.3)), (0, 0))
    assert cut.letters == ()
    assert cut.cut(np.zeros((5, 7))).shape == (7, 5)  # the first world axis lies across


def test_middle_goes_where_the_label_is_largest():
    mask = np.zeros((5, 7, 6), bool)
    mask[1, 2:5, 3] = mask[1, 3, 2:6] = True
    assert middle(Grid.regular((5, 7, 6)), mask) == (1, 3, 3)
    assert middle(Grid.regular((5, 7, 6)), None) == (2, 3, 3)
    assert middle(Grid.regular((5, 7, 6)), np.zeros((5, 7, 6), bool)) == (2, 3, 3)
