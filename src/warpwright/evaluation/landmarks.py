"""Distances of corresponding points after registration."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.evaluation._arrays import Values, as_array
from warpwright.transforms import Transform

__all__ = ["summarise", "target_registration_error"]


def target_registration_error(fixed_points: Tensor, moving_points: Tensor, transform: Transform) -> Tensor:
    """Distance `|transform(fixed) - moving|` of each pair of points.

    Args:
        fixed_points: (N, D) world points of the fixed image, RAS+ mm.
        moving_points: (N, D) world points of the moving image in the same order.
        transform: world points of fixed to world points of moving.

    Returns:
        (N,) float64, mm.

    Raises:
        BadInput: the points do not pair up, or have another number of axes than the transform.
    """
    if fixed_points.shape != moving_points.shape or fixed_points.shape[1:] != (transform.dim,):
        raise BadInput(
            f"fixed and moving points must both be (N, {transform.dim}),"
            f" got {tuple(fixed_points.shape)} and {tuple(moving_points.shape)}"
        )
    mapped = transform(fixed_points.to(torch.float64))
    return (mapped - moving_points.to(torch.float64)).norm(dim=1)


def summarise(errors: Values) -> dict[str, float]:
    """`mean`, `median`, `p90` (linear between values) and `max` of errors, in their unit; NaN if there are none."""
    values = as_array(errors).astype(np.float64)
    if values.size == 0:
        return dict.fromkeys(("mean", "median", "p90", "max"), float("nan"))
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p90": float(np.percentile(values, 90)),
        "max": float(values.max()),
    }
