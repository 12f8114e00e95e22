"""Distances between the surfaces of two masks, in millimetres.

Implementations differ by design, so the variant has a name:

* `"surfel"`: surface elements between voxels, weighted by their area, with real spacing. The definition of DeepMind's
  `surface-distance`: distances go from lattice point to nearest lattice point of the other surface, and a percentile is the
  smallest distance that covers this share of the area.
* `"voxel"`: the mask's voxels with a face on the outside, each counted once; the definition of MONAI and medpy. A percentile
  interpolates linearly between voxels.

Beyond the image is outside, so a mask that touches the border has a surface there. A measure is NaN if a mask is empty.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy

from warpwright.errors import BadInput
from warpwright.evaluation._arrays import Values, as_mask, check_same_shape
from warpwright.evaluation.surfels import neighbour_codes, surfel_areas

__all__ = ["SurfaceMethod", "assd", "hausdorff", "hd95", "surface_distances", "surface_figures"]

SurfaceMethod = Literal["surfel", "voxel"]
Directions = tuple[tuple[np.ndarray, np.ndarray], ...]


def hausdorff(
    fixed_mask: Values,
    moved_mask: Values,
    spacing: tuple[float, ...],
    percentile: float = 100.0,
    method: SurfaceMethod = "surfel",
) -> float:
    """Hausdorff distance, or its percentile: the larger one of the two directions.

    Args:
        fixed_mask: (*S), D = 2 or 3 axes; inside where not zero.
        moved_mask: (*S).
        spacing: distance of voxels along each axis, mm.
        percentile: in [0, 100]; 100 is the Hausdorff distance itself.
        method: what a surface is made of, see the module.

    Returns:
        mm; NaN if a mask is empty.

    Raises:
        BadInput: the shapes differ, the spacing does not fit, or the percentile is out of range.
    """
    if not 0 <= percentile <= 100:
        raise BadInput(f"percentile must lie in [0, 100], got {percentile}")
    return _hausdorff(surface_distances(fixed_mask, moved_mask, spacing, method), percentile, method)


def hd95(fixed_mask: Values, moved_mask: Values, spacing: tuple[float, ...], method: SurfaceMethod = "surfel") -> float:
    """95th percentile of the Hausdorff distance, mm; see `hausdorff`."""
    return hausdorff(fixed_mask, moved_mask, spacing, 95.0, method)


def assd(fixed_mask: Values, moved_mask: Values, spacing: tuple[float, ...], method: SurfaceMethod = "surfel") -> float:
    """Average symmetric surface distance: the mean (weighted by area, or per voxel) over both surfaces together.

    Arguments and errors as in `hausdorff`.

    Returns:
        mm; NaN if a mask is empty.
    """
    return _average(surface_distances(fixed_mask, moved_mask, spacing, method))


def surface_figures(
    fixed_mask: Values, moved_mask: Values, spacing: tuple[float, ...], method: SurfaceMethod = "surfel"
) -> dict[str, float]:
    """All measures from one computation of distances: `hd95_mm`, `hd_mm`, `assd_mm`; arguments and errors as in `hausdorff`."""
    directions = surface_distances(fixed_mask, moved_mask, spacing, method)
    return {
        "hd95_mm": _hausdorff(directions, 95.0, method),
        "hd_mm": _hausdorff(directions, 100.0, method),
        "assd_mm": _average(directions),
    }


def _hausdorff(directions: Directions, percentile: float, method: SurfaceMethod) -> float:
    return max((_percentile(*direction, percentile, method) for direction in directions), default=float("nan"))


def _average(directions: Directions) -> float:
    if not directions:
        return float("nan")
    distances, weights = (np.concatenate(parts) for parts in zip(*directions, strict=True))
    return float(np.average(distances, weights=weights))


def surface_distances(
    fixed_mask: Values, moved_mask: Values, spacing: tuple[float, ...], method: SurfaceMethod = "surfel"
) -> Directions:
    """Distances from each surface to the other.

    Arguments and errors as in `hausdorff`.

    Returns:
        For the direction fixed to moved and for moved to fixed: distances (mm) and weights (area in mm^2, or 1), one for each
        element of the first surface. Empty if a mask is.
    """
    fixed, moved = as_mask(fixed_mask), as_mask(moved_mask)
    check_same_shape(fixed, moved)
    if fixed.ndim not in (2, 3) or len(spacing) != fixed.ndim or min(spacing) <= 0:
        raise BadInput(
            f"masks of 2 or 3 axes need one positive spacing for each, got shape {fixed.shape} and spacing {spacing}"
        )
    if not (fixed.any() and moved.any()):
        return ()
    box = scipy.ndimage.find_objects((fixed | moved).astype(np.uint8))[0]
    first, second = (_surfels(m[box], spacing) if method == "surfel" else _border(m[box]) for m in (fixed, moved))
    return _directed(first, second, spacing), _directed(second, first, spacing)


def _directed(own: np.ndarray, other: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest element of `other`, and weight, of each element of `own`; weights are > 0 on a surface."""
    distance = np.asarray(scipy.ndimage.distance_transform_edt(other == 0, sampling=spacing))
    return distance[own > 0], own[own > 0]


def _surfels(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    return surfel_areas(spacing)[neighbour_codes(mask)]


def _border(mask: np.ndarray) -> np.ndarray:
    return (mask & ~scipy.ndimage.binary_erosion(mask)).astype(np.float64)


def _percentile(distances: np.ndarray, weights: np.ndarray, percentile: float, method: SurfaceMethod) -> float:
    if method == "voxel":
        return float(np.percentile(distances, percentile))
    order = np.argsort(distances)
    covered = np.cumsum(weights[order]) / weights.sum()
    index = np.searchsorted(covered, percentile / 100)
    return float(distances[order][min(index, len(order) - 1)])
