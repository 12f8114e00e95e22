"""Smooth random fields."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.transforms import bspline_displacement, control_shape

__all__ = ["random_field"]

VARIANCE = 151 / 315  # along one axis, of a cubic B-spline whose coefficients have variance 1; mean over places


def random_field(channels: int, shape: tuple[int, ...], scale: float, deviation: float, rng: np.random.Generator) -> Tensor:
    """Normal noise that is smooth over `scale` voxels: a cubic B-spline with independent coefficients.

    Args:
        channels: C, independent of each other.
        shape: S.
        scale: distance of the control points, voxels.
        deviation: standard deviation of the field, at every place within 7 %.
        rng: where the numbers come from.

    Returns:
        (1, C, *S) float64.
    """
    knots = (scale,) * len(shape)
    control = rng.normal(0, deviation / VARIANCE ** (len(shape) / 2), (1, channels, *control_shape(shape, knots)))
    return bspline_displacement(torch.from_numpy(control), shape, knots)
