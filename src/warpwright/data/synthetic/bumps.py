"""Displacements that are sums of Gaussian bumps, and pairs of one real image and its warped self.

Meta-Regularization (CVPR 2021, section 5.1) makes its liver pairs by a "spatial Gaussian mixture" of deformation energy 10 or
16 on images of 256 x 256. It gives neither the number of bumps nor their widths; those here were chosen so that fields of
energy 10 do not fold and those of 16 hardly do. Energy is read as the standard deviation of a bump's height.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warpwright.data.synthetic.checks import check_at_least, check_labels, check_range, check_shape
from warpwright.data.synthetic.pair import SyntheticPair
from warpwright.errors import BadInput
from warpwright.geometry import jacobian_determinant
from warpwright.sampling import warp, warp_labels

__all__ = ["BumpSettings", "bump_displacement", "bump_pair"]

EDGE = 256  # voxels along an axis of the images that energies are stated for
DRAWS = 100  # how often a field that folds is drawn again


@dataclass(frozen=True, kw_only=True)
class BumpSettings:
    """Sizes are relative to the edge of an image, the geometric mean of its axes: 256 for 256 x 256.

    Args:
        energy: standard deviation of a bump's height along each axis, voxels on an edge of 256; 10 is a moderate deformation,
            16 a large one.
        count: number of bumps. In 3-D a bump covers a smaller share: 20 there misalign organs as much as 10 do in 2-D (start
            Dice of two ellipsoids 0.73 and 0.57 at energies 10 and 16; 0.77 and 0.64 in 2-D).
        widths: smallest and largest standard deviation of a bump, shares of the edge; 32 and 64 voxels of 256.
        without_folds: draw again while the Jacobian determinant is 0 or less anywhere.
    """

    energy: float = 10.0
    count: int = 10
    widths: tuple[float, float] = (1 / 8, 1 / 4)
    without_folds: bool = False

    def __post_init__(self) -> None:
        check_at_least("the energy of bumps", self.energy, 0)
        check_at_least("the number of bumps", self.count, 1)
        check_range("the widths of bumps", self.widths, 1e-3)


def bump_displacement(shape: tuple[int, ...], settings: BumpSettings, rng: np.random.Generator) -> Tensor:
    """`u(x) = sum_m a_m exp(-|x - c_m|^2 / (2 s_m^2))`: normal heights a, uniform centres c, uniform widths s.

    Heights, centres and widths are drawn in this order.

    Args:
        shape: S, 2 or 3 axes.
        settings: sizes of the bumps.
        rng: where the numbers come from.

    Returns:
        (D, *S) float32, voxels.

    Raises:
        BadInput: the shape is not one of an image, or no field without folds was found.
    """
    check_shape(shape)
    for _ in range(DRAWS):
        displacement = torch.from_numpy(_mixture(shape, settings, rng)).to(torch.float32)
        if not settings.without_folds or float(jacobian_determinant(displacement[None]).min()) > 0:
            return displacement
    raise BadInput(
        f"bumps of energy {settings.energy} and widths {settings.widths} folded in each of {DRAWS} draws: "
        "expected a smaller energy or larger widths"
    )


def bump_pair(image: Tensor, settings: BumpSettings, rng: np.random.Generator, labels: Tensor | None = None) -> SyntheticPair:
    """A real image as the moving one, and itself through a `bump_displacement` as the fixed one.

    Args:
        image: (C, *S).
        settings: sizes of the bumps.
        rng: where the numbers come from.
        labels: (1, *S) integers.

    Returns:
        A pair whose fixed image is what the warp of the toolkit makes of the moving one, border repeated outside; labels are
        0 outside.

    Raises:
        BadInput: the image or the labels have another shape, or no field without folds was found.
    """
    moving = image.to(torch.float32)
    if labels is not None:
        check_labels(labels, tuple(moving.shape[1:]))
    displacement = bump_displacement(tuple(moving.shape[1:]), settings, rng)
    exact = displacement[None].to(torch.float64)  # rounded once, at the end: the same bytes with kernels and without
    return SyntheticPair(
        fixed=warp(moving[None].to(torch.float64), exact)[0].to(torch.float32),
        moving=moving,
        fixed_labels=None if labels is None else warp_labels(labels[None], exact)[0],
        moving_labels=labels,
        displacement=displacement,
    )


def _mixture(shape: tuple[int, ...], settings: BumpSettings, rng: np.random.Generator) -> np.ndarray:
    """(D, *S) float64, voxels."""
    dim = len(shape)
    edge = float(np.prod(shape)) ** (1 / dim)
    heights = rng.normal(0, settings.energy * edge / EDGE, (settings.count, dim))
    centres = rng.uniform(-0.5, np.array(shape) - 0.5, (settings.count, dim))
    widths = rng.uniform(*settings.widths, settings.count) * edge
    field = np.zeros((dim, *shape))
    for height, centre, width in zip(heights, centres, widths, strict=True):
        bump = np.ones(())
        for n, middle in zip(shape, centre, strict=True):
            bump = np.multiply.outer(bump, np.exp(-0.5 * ((np.arange(n) - middle) / width) ** 2))
        field += height.reshape(-1, *(1,) * dim) * bump
    return field
