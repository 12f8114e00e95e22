"""Pairs made more varied: other places, sizes, shapes and intensities of the same images, drawn anew each time.

Geometry is a transform, with which the caller pulls an image (and its labels) onto the working grid in one interpolation;
landmarks go the other way (`transforms.carried_points`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from math import inf

import numpy as np
import torch
from scipy.linalg import expm
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.sampling import gaussian
from warpwright.transforms import Affine, DisplacementField, Transform, bspline_displacement, control_shape

__all__ = ["Augmentation"]

SPLINE_VARIANCE = 151 / 315  # of a cubic B-spline along one axis with coefficients of variance one, in the mean over places
FOLD_FREE = 0.29  # largest control value along an axis, of the distance of control points (see `Augmentation`)
BIAS_SPANS = 3  # distances of control points of a bias field along an axis of the image


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far images are varied; all off by default. Numbers are drawn for each image by itself, but for the flips.

    No elastic field folds. It is a cubic B-spline whose control values are cut at 0.29 of the distance of control points along
    each axis. Then the derivatives of a component along all axes add up to less than 1 in size (0.60 in 2-D and 0.72 in 3-D
    where control points are far apart, 0.68 and 0.98 where they are a voxel apart), so that the Jacobian is diagonally
    dominant everywhere, also between voxels. (Choi and Lee, Graphical Models 62 (2000), allow 0.48 and 0.40, for splines that
    are not sampled.) What is cut makes the deviation of strong fields smaller than `elastic`: it hardly matters up to 1/20 of
    `elastic_scale`, and more than 1/10 is never reached in 3-D.

    Args:
        flips: probability of mirroring along each axis of the working grid, for both images alike; none if empty. Left
            becomes right, and labels keep their numbers.
        rotation: standard deviation of the angle about every axis, degrees.
        scaling: standard deviation of the logarithm of the scale along each axis of the working grid.
        shear: standard deviation of each shear between two axes of the working grid.
        translation: standard deviation along each axis, mm.
        elastic: standard deviation along each axis of a smooth random displacement, mm.
        elastic_scale: distance of its control points, mm; at least a voxel.
        noise: largest standard deviation of Gaussian noise; it is drawn uniformly from 0 to this.
        blur: largest standard deviation of a Gaussian average along each axis, voxels; drawn uniformly from 0 to this.
        bias: standard deviation of b in a smooth factor exp(b), one for all channels.
        gamma: standard deviation of the logarithm of the exponent of each channel.
        contrast: standard deviation of the logarithm of a factor on the distance from 0.5, for each channel.
        brightness: standard deviation of a number that is added to each channel.

    Raises:
        BadInput: a value is out of range.
    """

    flips: tuple[float, ...] = ()
    rotation: float = 0.0
    scaling: float = 0.0
    shear: float = 0.0
    translation: float = 0.0
    elastic: float = 0.0
    elastic_scale: float = 20.0
    noise: float = 0.0
    blur: float = 0.0
    bias: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= p <= 1 for p in self.flips):
            raise BadInput(f"flips of an augmentation are probabilities from 0 to 1, got {self.flips}")
        for field in fields(self):
            if field.name != "flips" and not 0 <= getattr(self, field.name) < inf:
                raise BadInput(f"{field.name} of an augmentation must be at least 0, got {getattr(self, field.name)}")
        if self.elastic_scale == 0:
            raise BadInput("elastic_scale of an augmentation must be above 0 mm, got 0.0")

    def geometry(self, grid: Grid, rng: np.random.Generator) -> tuple[Transform, Transform]:
        """Where the voxels of a working grid look, for the fixed and for the moving image.

        Args:
            grid: the working grid; rotation, scale and shear are about its centre.
            rng: where the numbers come from.

        Returns:
            Two maps of world points of the grid to world points where the image lies as it was: an `Affine`, or
            `Affine @ DisplacementField` with the field on `grid`.

        Raises:
            BadInput: there are flips for another number of axes, or control points are nearer than voxels.
        """
        if self.flips and len(self.flips) != grid.dim:
            raise BadInput(f"flips of an augmentation are given for {len(self.flips)} axes, the images have {grid.dim}")
        if self.elastic > 0 and self.elastic_scale < max(grid.spacing):
            found = f"elastic_scale of an augmentation is {self.elastic_scale:g} mm on voxels of {max(grid.spacing):g} mm"
            raise BadInput(f"{found}, expected at least a voxel")
        draws = rng.random(grid.dim)
        mirror = np.array([-1.0 if draw < p else 1.0 for draw, p in zip(draws, self.flips or (0.0,) * grid.dim, strict=True)])
        return self._map(grid, mirror, rng), self._map(grid, mirror, rng)

    def intensity(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Other intensities: gamma, contrast and brightness, bias, blur and noise, in this order.

        Args:
            image: (C, *S), in [0, 1].
            rng: where the numbers come from.

        Returns:
            (C, *S) float32, in [0, 1].
        """
        out = image.to(torch.float32).clamp(0, 1)  # interpolation may leave a rounding below 0, which has no power
        if self.gamma > 0:
            out = out ** self._per_channel(out, self.gamma, rng).exp()
        if self.contrast > 0 or self.brightness > 0:
            factor = self._per_channel(out, self.contrast, rng).exp()
            out = (out - 0.5) * factor + 0.5 + self._per_channel(out, self.brightness, rng)
            out = out.clamp(0, 1)
        if self.bias > 0:
            shape = tuple(out.shape[1:])
            knots = [max(n - 1, 1) / BIAS_SPANS for n in shape]
            out = out * _smooth(1, shape, knots, self.bias, rng).exp()
        if self.blur > 0:
            out = gaussian(out[None], rng.uniform(0, self.blur, out.ndim - 1).tolist())[0]
        if self.noise > 0:
            size = np.float32(rng.uniform(0, self.noise))
            out = out + torch.from_numpy(size * rng.standard_normal(tuple(out.shape), dtype=np.float32)).to(out.device)
        return out.clamp(0, 1)

    @staticmethod
    def _per_channel(image: Tensor, deviation: float, rng: np.random.Generator) -> Tensor:
        """A normal number for each channel, ready to be applied."""
        values = torch.from_numpy(rng.normal(0, deviation, len(image))).to(image)
        return values.reshape(-1, *(1,) * (image.ndim - 1))

    def _map(self, grid: Grid, mirror: np.ndarray, rng: np.random.Generator) -> Transform:
        affine = self._affine(grid, mirror, rng)
        if self.elastic == 0:
            return affine
        knots = [self.elastic_scale / step for step in grid.spacing]
        field = _smooth(grid.dim, grid.shape, knots, self.elastic, rng, FOLD_FREE * self.elastic_scale)
        voxels = torch.tensor(grid.spacing).reshape(-1, *(1,) * grid.dim)
        return affine @ DisplacementField(field / voxels, grid)

    def _affine(self, grid: Grid, mirror: np.ndarray, rng: np.random.Generator) -> Affine:
        """Mirror, shear and scale along the axes of the grid, then turn and shift in the world."""
        dim = grid.dim
        turn, stretch = np.zeros((dim, dim)), np.eye(dim)
        for i, j in combinations(range(dim), 2):
            turn[i, j] = np.deg2rad(rng.normal(0, self.rotation))
            turn[j, i] = -turn[i, j]
            stretch[i, j] = rng.normal(0, self.shear)
        stretch = stretch * np.exp(rng.normal(0, self.scaling, dim)) * mirror
        matrix = np.eye(dim + 1)
        matrix[:dim, :dim] = expm(turn) @ grid.direction @ stretch @ np.linalg.inv(grid.direction)
        matrix[:dim, dim] = grid.centre - matrix[:dim, :dim] @ grid.centre + rng.normal(0, self.translation, dim)
        return Affine(matrix)


def _smooth(
    channels: int,
    shape: Sequence[int],
    knots: Sequence[float],
    deviation: float,
    rng: np.random.Generator,
    limit: float = inf,
) -> Tensor:
    """A smooth random field: a cubic B-spline of normal coefficients that are cut at +-`limit`.

    Args:
        channels: C.
        shape: S.
        knots: voxels between control points along each axis.
        deviation: standard deviation of the field where nothing is cut.
        rng: where the numbers come from.
        limit: largest coefficient.

    Returns:
        (C, *S) float32.
    """
    scale = deviation / SPLINE_VARIANCE ** (len(shape) / 2)
    control = rng.normal(0, scale, (channels, *control_shape(shape, knots))).clip(-limit, limit)
    return bspline_displacement(torch.from_numpy(control.astype(np.float32))[None], shape, knots)[0]
