"""Triangles and circles, hollow or solid: the 2-D set of ICON and GradICON (CVPR 2023).

Formulas and order of draws are those of the authors' generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warpwright.data.synthetic.checks import check_at_least
from warpwright.data.synthetic.pair import SyntheticPair

__all__ = ["ShapeSettings", "draw_shapes", "shape_pair"]

STEEPNESS = 40.0  # of the outline, per unit of the image's edge
SECTOR = 2 * np.pi / 3  # of a triangle's corner


@dataclass(frozen=True, kw_only=True)
class ShapeSettings:
    """How shapes are drawn.

    Args:
        size: voxels along both axes, which span [0, 1].
        hollow: outlines of value 1 on 0; otherwise 1 inside and -1 outside.
    """

    size: int = 128
    hollow: bool = True

    def __post_init__(self) -> None:
        check_at_least("the size of images with shapes", self.size, 2)


def draw_shapes(count: int, settings: ShapeSettings, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A set of images, each with a triangle or a circle (even chance) of random place, size and turn.

    With f the signed distance (of a triangle: along the ray from its centre), an image is `t = tanh(-40 f)`, or `1 - t^2`.
    All first coordinates are drawn first, then all second ones, radii, angles and kinds.

    Args:
        count: N, number of images.
        settings: size, and hollow or not.
        rng: where the numbers come from.

    Returns:
        Images (N, 1, S, S) float32, and labels (N, 1, S, S) int32, 1 inside the shape, also of a hollow one.
    """
    check_at_least("the number of shapes", count, 1)
    places = rng.random((2, count)) * 0.3 + 0.4
    radii = rng.random(count) * 0.2 + 0.2
    angles = rng.random(count) * 2 * np.pi
    triangles = rng.random(count) > 0.5
    images = torch.empty(count, 1, settings.size, settings.size)
    labels = torch.empty(count, 1, settings.size, settings.size, dtype=torch.int32)
    at = np.linspace(0, 1, settings.size)
    for k in range(count):
        x, y = at[:, None] - places[0, k], at - places[1, k]
        reach = radii[k]
        if triangles[k]:
            reach = radii[k] * np.cos(np.pi / 3) / np.cos((np.arctan2(x, y) + angles[k]) % SECTOR - np.pi / 3)
        distance = np.sqrt(x**2 + y**2) - reach
        solid = np.tanh(-STEEPNESS * distance)
        images[k, 0] = torch.from_numpy(1 - solid**2 if settings.hollow else solid)
        labels[k, 0] = torch.from_numpy(distance < 0)
    return images, labels


def shape_pair(settings: ShapeSettings, rng: np.random.Generator) -> SyntheticPair:
    """Two shapes of one draw, which may be of different kinds: there is no true displacement."""
    images, labels = draw_shapes(2, settings, rng)
    return SyntheticPair(fixed=images[0], moving=images[1], fixed_labels=labels[0], moving_labels=labels[1])
