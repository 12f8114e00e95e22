"""Pairs laid on a working grid with what is known about them, and joined to batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from methods_pairs import texture

from oracles.make import homogeneous, oblique, rotation, smooth_field
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.methods import Annotated, joined, lay_pair
from warpwright.sampling import Percentiles, Window
from warpwright.transforms import Affine, DisplacementField, Preparation, laid, resample


def annotated(grid: Grid, seed: int, channels: int = 2) -> Annotated:
    """An image with a mask, labels, and landmarks in the middle of it."""
    generator = torch.Generator().manual_seed(seed)
    data = 300 * texture(grid.shape, seed=seed, channels=channels) - 100
    mask = (torch.rand(1, *grid.shape, generator=generator) > 0.2).to(torch.uint8)
    size = torch.tensor(grid.shape, dtype=torch.float64)
    voxels = (0.3 + 0.4 * torch.rand(5, grid.dim, generator=generator, dtype=torch.float64)) * size
    return Annotated(
        image=Image(data, grid, f"image {seed}"),
        mask=Image(mask, grid, f"mask {seed}"),
        labels=Image(torch.randint(0, 4, (1, *grid.shape), generator=generator, dtype=torch.int16), grid, f"labels {seed}"),
        points=grid.to_world(voxels),
    )


def sides(dim: int) -> tuple[Annotated, Annotated, Affine]:
    """Two images and the map of the fixed one's world to the moving one's."""
    fixed = Grid((13, 15, 12)[:dim], oblique((0.7, 1.3, 2.1)[:dim], 0.2))
    moving = Grid((16, 14, 13)[:dim], homogeneous(np.diag([-0.8, 1.2, 1.9][:dim]), np.array([30.0, -20.0, 9.0])[:dim]))
    linear = rotation(dim, 0.1)
    start = Affine(homogeneous(linear, moving.centre - linear @ fixed.centre))
    return annotated(fixed, 1), annotated(moving, 2), start


def test_everything_is_laid_on_the_grid(dim: int) -> None:
    fixed, moving, start = sides(dim)
    preparation = Preparation(intensity=Window(low=-100, high=200), spacing=(1.0, 1.1, 1.7)[:dim])
    grid = preparation.whole(fixed.image.grid)
    batch = lay_pair(preparation, fixed, moving, (Affine.identity(dim), start), grid)
    assert (batch.spacing, batch.names, len(batch)) == (grid.spacing, ("image 1 and image 2",), 1)
    found = ((batch.fixed, batch.fixed_weight, batch.fixed_labels), (batch.moving, batch.moving_weight, batch.moving_labels))
    for side, map_of, (image, weight, labels) in zip((fixed, moving), (Affine.identity(dim), start), found, strict=True):
        assert side.mask is not None
        assert side.labels is not None
        assert weight is not None
        assert labels is not None
        wanted = Image((side.image.data + 100) / 300, side.image.grid)
        torch.testing.assert_close(image[0], laid(wanted, map_of, grid), atol=1e-6, rtol=0)
        assert torch.equal(weight[0], laid(side.mask, map_of, grid))
        assert weight.dtype == torch.float32
        assert torch.equal(labels[0], resample(side.labels, map_of, grid, interpolation="label").data)
        assert labels.dtype == torch.int16
    assert batch.fixed_points is not None
    assert batch.moving_points is not None
    torch.testing.assert_close(grid.to_world(batch.fixed_points[0]), fixed.points)
    torch.testing.assert_close(start(grid.to_world(batch.moving_points[0])), moving.points)


def test_a_landmark_lies_on_its_structure(dim: int) -> None:
    """A bright place and a landmark on it stay together on the working grid, through an affine and an elastic map."""
    fixed, moving, start = sides(dim)
    turned = Affine(homogeneous(rotation(dim, -0.15), np.array([1.0, -0.5, 0.8])[:dim]))
    bright = []
    for side, middle in ((fixed, (6, 7, 5)), (moving, (8, 6, 6))):
        data = torch.zeros(1, *side.image.grid.shape)
        near = np.indices(side.image.grid.shape) - np.array(middle[:dim]).reshape(-1, *(1,) * dim)
        data[0] = torch.tensor(np.exp(-(near**2).sum(0) / 4))
        points = side.image.grid.to_world(torch.tensor([middle[:dim]], dtype=torch.float64))
        bright.append(Annotated(image=Image(data, side.image.grid), points=points))
    preparation = Preparation(intensity=Window(low=0, high=1))
    grid = preparation.whole(fixed.image.grid)
    elastic = turned @ DisplacementField(smooth_field(grid.shape, 1.5)[0].float(), grid)
    batch = lay_pair(preparation, bright[0], bright[1], (elastic, start), grid)
    for image, points in ((batch.fixed, batch.fixed_points), (batch.moving, batch.moving_points)):
        assert points is not None
        mass = image[0, 0].double().square()
        places = torch.tensor(np.indices(grid.shape), dtype=torch.float64)
        centre = (places * mass).flatten(1).sum(1) / mass.sum()
        torch.testing.assert_close(centre, points[0][0], atol=0.15, rtol=0)  # linear interpolation of a small blob


def test_percentiles_are_those_of_the_mask(dim: int) -> None:
    fixed, moving, start = sides(dim)
    grid = Preparation().whole(fixed.image.grid)
    assert fixed.mask is not None
    batch = lay_pair(Preparation(), fixed, moving, (Affine.identity(dim), start), grid)
    wanted = Image(Percentiles()(fixed.image.data, fixed.mask.data), fixed.image.grid)
    assert torch.equal(batch.fixed[0], laid(wanted, Affine.identity(dim), grid))
    bare = lay_pair(Preparation(), replace(fixed, mask=None), moving, (Affine.identity(dim), start), grid)
    assert not torch.equal(batch.fixed, bare.fixed)
    assert bare.fixed_weight is not None
    assert (bare.fixed_weight == 1).all()  # all of the image, which fills the grid


def test_weights_are_zero_outside_the_image(dim: int) -> None:
    fixed, moving, start = sides(dim)
    preparation = Preparation(shape=(20, 20, 20)[:dim])
    grid = preparation.grid(fixed.image.grid)
    batch = lay_pair(preparation, replace(fixed, mask=None), moving, (Affine.identity(dim), start), grid)
    assert batch.fixed_weight is not None
    assert set(batch.fixed_weight.unique().tolist()) == {0.0, 1.0}
    assert batch.fixed_weight.sum() == fixed.image.grid.size


def test_what_one_image_lacks_is_left_out(dim: int) -> None:
    fixed, moving, start = sides(dim)
    grid = Preparation().whole(fixed.image.grid)
    for one, two in ((replace(fixed, labels=None), moving), (fixed, replace(moving, labels=None))):
        batch = lay_pair(Preparation(), one, two, (Affine.identity(dim), start), grid)
        assert (batch.fixed_labels, batch.moving_labels) == (None, None)
        assert batch.fixed_points is not None
    batch = lay_pair(Preparation(), replace(fixed, points=None), moving, (Affine.identity(dim), start), grid)
    assert (batch.fixed_points, batch.moving_points) == (None, None)
    assert batch.moving_labels is not None


def test_what_does_not_belong_together_is_refused(dim: int) -> None:
    fixed, moving, start = sides(dim)
    grid = Preparation().whole(fixed.image.grid)
    with pytest.raises(BadInput, match="image 3 has 1 channels, image 1 has 2: expected the same"):
        lay_pair(Preparation(), fixed, annotated(moving.image.grid, 3, channels=1), (start, start), grid)
    with pytest.raises(BadInput, match="mask 2 is not on the grid of its image image 1: expected the same shape and affine"):
        replace(fixed, mask=moving.mask)
    with pytest.raises(BadInput, match="labels 2 is not on the grid of its image image 1"):
        replace(fixed, labels=moving.labels)
    with pytest.raises(BadInput, match="empty is zero everywhere: expected a mask with positive weights"):
        replace(fixed, mask=Image(torch.zeros(1, *fixed.image.grid.shape), fixed.image.grid, "empty"))


def test_batches_are_joined(dim: int) -> None:
    fixed, moving, start = sides(dim)
    grid = Preparation().whole(fixed.image.grid)
    maps = (Affine.identity(dim), start)
    first = lay_pair(Preparation(), fixed, moving, maps, grid)
    second = lay_pair(Preparation(), annotated(fixed.image.grid, 5), replace(moving, mask=None), maps, grid)
    both = joined([first, second, first])
    assert len(both) == 3
    assert both.names == (*first.names, *second.names, *first.names)
    for name in ("fixed", "moving", "fixed_weight", "moving_weight", "fixed_labels", "moving_labels"):
        assert torch.equal(getattr(both, name)[1], getattr(second, name)[0]), name
        assert torch.equal(getattr(both, name)[2], getattr(first, name)[0]), name
    assert both.fixed_points is not None
    assert second.fixed_points is not None
    assert both.fixed_points[1] is second.fixed_points[0]
    bare = joined([first, replace(second, fixed_labels=None, moving_labels=None, fixed_points=None, moving_points=None)])
    assert (bare.fixed_labels, bare.moving_labels, bare.fixed_points, bare.moving_points) == (None,) * 4
    assert bare.fixed_weight is not None


def test_batches_of_different_size_are_not_joined(dim: int) -> None:
    fixed, moving, start = sides(dim)
    grid = Preparation().whole(fixed.image.grid)
    maps = (Affine.identity(dim), start)
    first = lay_pair(Preparation(), fixed, moving, maps, grid)
    other = lay_pair(Preparation(), fixed, moving, maps, grid.crop((0,) * dim, (10,) * dim))
    sentence = (
        "one shape and spacing, found .* and .* mm; expected a shape and a spacing in the model's preparation, or a batch"
    )
    for second in (other, replace(first, spacing=tuple(1.02 * s for s in first.spacing))):
        with pytest.raises(BadInput, match=sentence):
            joined([first, second])
    assert len(joined([first, replace(first, spacing=tuple(1.005 * s for s in first.spacing))])) == 2
