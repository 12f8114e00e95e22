"""The Learn2Reg challenge's measures as its evaluation script computes them, quirks included.

For comparison with published tables only: where a definition differs from the rest of this package, this one is the
challenge's. Source: github.com/MDL-UzL/L2R, folder `evaluation`, version 2.0. The quirks:

* `warp_labels`: nearest voxel (`map_coordinates`, order 0), 0 outside.
* `dice`, `hd95`: a label that is absent in the fixed or in the *unwarped* moving map is NaN; one that vanished by warping has
  Dice 0 and HD95 inf.
* `hd95`: spacing (1, 1, 1) whatever the image has, so the unit is voxels.
* `target_registration_error`: the field is read with *cubic* splines, zero outside; the spacing is that of the moving image.
* `sd_log_jacobian`: 3 is added to the determinant before the logarithm and two voxels are cropped on each side, so folds
  with a determinant above -3 look harmless.
* `num_foldings` is counted after adding 3 and clipping to positive values: it is always 0 (issue 8 of that repository).
* The "30" figures are the 0.3-quantile of the cases for Dice *and* HD95, where it is the good end, and the 0.7-quantile for TRE
  and SDlogJ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import scipy
import torch

from warpwright.errors import BadInput
from warpwright.evaluation._arrays import Values, as_array, nan_mean
from warpwright.evaluation.overlap import dice as overlap_dice
from warpwright.evaluation.surface import hd95 as surface_hd95
from warpwright.geometry import jacobian_determinant

__all__ = ["dice", "hd95", "num_foldings", "sd_log_jacobian", "target_registration_error", "thirty", "warp_labels"]

QUANTILE = {"dice": 0.3, "hd95": 0.3, "tre": 0.7, "sdlogj": 0.7}


def warp_labels(moving_labels: Values, displacement: Values) -> np.ndarray:
    """Labels pulled through a field by the nearest voxel.

    Args:
        moving_labels: (*S).
        displacement: (D, *S), voxels, axis order.

    Returns:
        (*S) in the dtype of the labels.
    """
    field = as_array(displacement)
    points = np.indices(field.shape[1:]) + field
    return scipy.ndimage.map_coordinates(as_array(moving_labels), points, order=0)


def dice(fixed: Values, moving: Values, moved: Values, labels: Iterable[int]) -> tuple[float, list[float]]:
    """Dice of each label, and the mean of those that are not NaN.

    Args:
        fixed: (*S) labels of the fixed image.
        moving: (*M) labels of the moving image before warping; only says which labels exist.
        moved: (*S) labels after warping.
        labels: which labels, in this order.
    """
    listed = list(labels)
    scores = overlap_dice(fixed, moved, listed)
    values = [scores[label] if _present(label, fixed, moving) else float("nan") for label in listed]
    return nan_mean(np.array(values)), values


def hd95(fixed: Values, moving: Values, moved: Values, labels: Iterable[int]) -> tuple[float, list[float]]:
    """95th percentile of the surface distance of each label, voxels, and the mean of those that are not NaN; see `dice`."""
    values = [_hd95(as_array(fixed) == n, as_array(moved) == n) if _present(n, fixed, moving) else float("nan") for n in labels]
    return nan_mean(np.array(values)), values


def _hd95(fixed: np.ndarray, moved: np.ndarray) -> float:
    return surface_hd95(fixed, moved, (1.0,) * fixed.ndim) if moved.any() else float("inf")


def _present(label: int, fixed: Values, moving: Values) -> bool:
    return bool((as_array(fixed) == label).any() and (as_array(moving) == label).any())


def target_registration_error(
    fixed_points: Values, moving_points: Values, displacement: Values, moving_spacing: Sequence[float]
) -> np.ndarray:
    """Distance of each pair of landmarks.

    Args:
        fixed_points: (N, D) voxels of the fixed grid.
        moving_points: (N, D) voxels of the moving grid.
        displacement: (D, *S), voxels, axis order.
        moving_spacing: spacing of the moving image along each axis, mm.

    Returns:
        (N,) mm.
    """
    fixed = as_array(fixed_points)
    moved = np.stack([scipy.ndimage.map_coordinates(component, fixed.T) for component in as_array(displacement)], 1)
    return np.linalg.norm((fixed + moved - as_array(moving_points)) * np.asarray(moving_spacing), axis=1)


def sd_log_jacobian(displacement: Values, mask: Values | None = None) -> float:
    """Standard deviation of `log(clip(det J + 3, 1e-9, 1e9))` two voxels away from the border.

    Args:
        displacement: (D, *S), voxels, axis order.
        mask: (*S), counted where 1; None for all.

    Raises:
        BadInput: an axis has fewer than 5 voxels, so that nothing is left.
    """
    values = np.log(_shifted_determinant(displacement))
    return float(values.std() if mask is None else values[_crop(as_array(mask)) != 0].std())


def num_foldings(displacement: Values) -> int:
    """Voxels whose shifted and clipped determinant is <= 0: always 0. See `evaluation.folding` for the true share."""
    return int((_shifted_determinant(displacement) <= 0).sum())


def _shifted_determinant(displacement: Values) -> np.ndarray:
    field = torch.from_numpy(np.asarray(as_array(displacement), dtype=np.float64))
    if min(field.shape[1:]) < 5:
        raise BadInput(f"SDlogJ of Learn2Reg needs at least 5 voxels along each axis, got {tuple(field.shape[1:])}")
    return (_crop(jacobian_determinant(field[None])[0].numpy()) + 3).clip(1e-9, 1e9)


def _crop(values: np.ndarray) -> np.ndarray:
    return values[(slice(2, -2),) * values.ndim]


def thirty(cases: Sequence[float], measure: Literal["dice", "hd95", "tre", "sdlogj"]) -> float:
    """The challenge's "30" figure of a list of case means; NaN if one of them is."""
    return float(np.quantile(np.asarray(cases, dtype=np.float64), QUANTILE[measure]))
