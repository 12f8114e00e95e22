"""Triangles and circles: outlines by plane geometry, the published mean intensity, order of draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from warpwright.data.synthetic import ShapeSettings, draw_shapes, shape_pair
from warpwright.errors import BadInput

COUNT = 40


def known(truth: Tensor | None) -> Tensor:
    assert truth is not None
    return truth


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def parameters(count: int) -> tuple[np.ndarray, ...]:
    """First coordinates of all shapes, then second ones, radii, angles, kinds."""
    again = rng()
    cx, cy = 0.4 + 0.3 * again.random(count), 0.4 + 0.3 * again.random(count)
    r, angle = 0.2 + 0.2 * again.random(count), 2 * np.pi * again.random(count)
    return cx, cy, r, angle, again.random(count) > 0.5


def inside_triangle(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    sides = []
    for begin, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        edge = end - begin
        sides.append(edge[0] * (y - begin[1]) - edge[1] * (x - begin[0]) > 0)
    return np.logical_and.reduce(sides) | ~np.logical_or.reduce(sides)


def test_outlines_are_circles_and_equilateral_triangles() -> None:
    _, labels = draw_shapes(COUNT, ShapeSettings(size=65), rng())
    x, y = np.meshgrid(np.linspace(0, 1, 65), np.linspace(0, 1, 65), indexing="ij")
    kinds = set()
    for k, (cx, cy, r, angle, triangle) in enumerate(zip(*parameters(COUNT), strict=True)):
        kinds.add(bool(triangle))
        turns = np.arange(3) * 2 * np.pi / 3 - angle
        corners = np.stack([cx + r * np.sin(turns), cy + r * np.cos(turns)], 1)
        expected = inside_triangle(x, y, corners) if triangle else np.hypot(x - cx, y - cy) < r
        np.testing.assert_array_equal(labels[k, 0].numpy(), expected)
    assert kinds == {True, False}


def test_values_are_the_published_ones() -> None:
    hollow, _ = draw_shapes(COUNT, ShapeSettings(size=33), rng())
    solid, labels = draw_shapes(COUNT, ShapeSettings(size=33, hollow=False), rng())
    assert hollow.dtype == solid.dtype == torch.float32
    assert hollow.shape == solid.shape == labels.shape == (COUNT, 1, 33, 33)
    torch.testing.assert_close(hollow, 1 - solid**2, atol=1e-6, rtol=0)
    assert float(solid.min()) >= -1
    assert float(solid.max()) <= 1
    assert float(hollow.min()) >= 0
    assert torch.equal(labels == 1, solid > 0)
    cx, cy, r, _, triangle = parameters(COUNT)
    x = np.linspace(0, 1, 33)
    for k in np.flatnonzero(~triangle):
        expected = np.tanh(-40 * (np.hypot(x[:, None] - cx[k], x - cy[k]) - r[k]))
        np.testing.assert_allclose(solid[k, 0], expected, atol=1e-6)
    for k in np.flatnonzero(triangle):  # the farthest an edge comes to the centre is half of the way to a corner
        near = np.hypot(x[:, None] - cx[k], x - cy[k]) < r[k] / 2 - 0.03
        assert (solid[k, 0].numpy()[near] > np.tanh(40 * 0.03) - 1e-6).all()


def test_the_mean_intensity_of_hollow_shapes() -> None:
    """0.073 at 128 x 128 was measured on one set; an image varies by 0.021, so the mean of 400 by 0.001."""
    images, _ = draw_shapes(400, ShapeSettings(), rng(0))
    assert images.shape[2:] == (128, 128)
    assert float(images.mean()) == pytest.approx(0.073, abs=0.004)


def test_half_of_the_shapes_are_triangles() -> None:
    """A triangle covers 0.41 of the circle around it, so that the areas of a set tell the share of triangles."""
    _, labels = draw_shapes(400, ShapeSettings(size=40), rng(1))
    mean_square = 0.28 / 3  # of a radius uniform in [0.2, 0.4]
    # few shapes reach over the border, and not far
    share = (np.pi - float(labels.double().mean()) / mean_square) / (np.pi - 1.299)
    assert share == pytest.approx(0.5, abs=0.12)


def test_a_pair_is_a_set_of_two() -> None:
    settings = ShapeSettings(size=31)
    pair, again, other = (shape_pair(settings, rng(seed)) for seed in (3, 3, 4))
    images, labels = draw_shapes(2, settings, rng())
    assert torch.equal(pair.fixed, images[0])
    assert torch.equal(pair.moving, images[1])
    assert torch.equal(known(pair.fixed_labels), labels[0])
    assert torch.equal(known(pair.moving_labels), labels[1])
    assert pair.displacement is None
    assert torch.equal(pair.fixed, again.fixed)
    assert not torch.equal(pair.fixed, other.fixed)


def test_bad_settings() -> None:
    with pytest.raises(BadInput, match=r"the size of images with shapes must be a number of at least 2, got 1"):
        ShapeSettings(size=1)
    with pytest.raises(BadInput, match=r"the number of shapes must be a number of at least 1, got 0"):
        draw_shapes(0, ShapeSettings(), rng())
