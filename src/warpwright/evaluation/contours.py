"""Overlap and contour distances of one structure as AdaCS reports them, and as they should be: the threshold says which.

Published tables (Zhang et al., AdaCS, ECCV 2024, and its code) take the moved mask as linear interpolation gives it and count
every voxel above 0, so that a perfect map scores about 0.92 to 0.95 on thin structures: `PUBLISHED`. `HALF`, a share of one
half, leaves the volume as it is.
"""

from __future__ import annotations

from warpwright.evaluation._arrays import Values, as_array, check_same_shape
from warpwright.evaluation.overlap import dice
from warpwright.evaluation.surface import surface_distances

__all__ = ["HALF", "PUBLISHED", "contour_figures"]

PUBLISHED, HALF = 0.0, 0.5


def contour_figures(fixed_mask: Values, moved_share: Values, threshold: float = HALF) -> dict[str, float]:
    """`dsc`, `hd` and `asd` of a structure, as `medpy.metric.binary` defines them at spacing 1.

    Surfaces are the mask's voxels with a face on the outside; `hd` is the larger of both directed maxima, `asd` the mean of
    the distances of the fixed surface to the moved one, that direction alone.

    Args:
        fixed_mask: (*S), 2 or 3 axes; inside where not zero.
        moved_share: (*S) share of the structure in every voxel of the warped mask, 0 to 1.
        threshold: a voxel is inside above it.

    Returns:
        The overlap between 0 and 1, and distances in voxels; NaN where a mask is empty (both, for the overlap).

    Raises:
        BadInput: the shapes differ.
    """
    fixed, moved = as_array(fixed_mask) != 0, as_array(moved_share) > threshold
    check_same_shape(fixed, moved)
    overlap = dice(fixed, moved, (1,))[1]
    distances = [found for found, _ in surface_distances(fixed, moved, (1.0,) * fixed.ndim, "voxel")]
    if not distances:
        return {"dsc": overlap, "hd": float("nan"), "asd": float("nan")}
    return {"dsc": overlap, "hd": max(float(found.max()) for found in distances), "asd": float(distances[0].mean())}
