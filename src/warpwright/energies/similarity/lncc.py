"""Local normalised cross-correlation: squared correlation of two images in a window around every voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from warpwright.energies.similarity.base import Similarity, reduce
from warpwright.geometry import spatial
from warpwright.sampling import box_sum, gaussian

__all__ = ["LNCC"]


@dataclass(frozen=True, kw_only=True)
class LNCC(Similarity):
    """One minus the mean squared local correlation, `1 - mean(cov^2 / (var_moved var_fixed))`; in [0, 1].

    Every window counts only what lies inside the image and is weighted by the mask (normalised at borders). `epsilon` is
    added to both variances: windows whose standard deviation is below `sqrt(epsilon)` count as structureless.

    Args:
        radius: the box window has 2 radius + 1 voxels along an axis; the Gaussian one has standard deviation
            `radius` voxels. One number, or one for each axis.
        window: "box" (ANTs, VoxelMorph) or "gaussian" (ICON).
        epsilon: squared intensity below which a variance is noise, for images scaled to [0, 1].

    Reference: Avants et al., Medical Image Analysis 12 (2008), doi 10.1016/j.media.2007.06.004.
    """

    radius: int | tuple[int, ...] = 2
    window: Literal["box", "gaussian"] = "box"
    epsilon: float = 1e-4

    def for_spacing(self, spacing: Sequence[float]) -> LNCC:
        """The same window in millimetres along every axis: `radius` counts voxels of the finest axis."""
        if not isinstance(self.radius, int):
            return self
        return replace(self, radius=tuple(round(self.radius * min(spacing) / s) for s in spacing))

    def similarity(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        return reduce(1 - self.correlation_map(moved, fixed, weight).mean(1, keepdim=True), weight)

    def correlation_map(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        """Squared local correlation of every channel: (B, C, *S) images to (B, C, *S) in [0, 1]."""
        ones = weight if weight is not None else torch.ones_like(fixed[:1, :1])
        count = self._window(ones)
        count = torch.where(count > 0, count, torch.ones_like(count))
        fixed = fixed - fixed.flatten(2).mean(2).reshape(*fixed.shape[:2], *(1,) * (fixed.ndim - 2)).detach()
        moved = moved - moved.flatten(2).mean(2).reshape(*moved.shape[:2], *(1,) * (fixed.ndim - 2)).detach()
        weighted_fixed = fixed if weight is None else fixed * weight
        weighted_moved = moved if weight is None else moved * weight
        mean_fixed, mean_moved = self._window(weighted_fixed) / count, self._window(weighted_moved) / count
        var_fixed = self._window(weighted_fixed * fixed) / count - mean_fixed.square()
        var_moved = self._window(weighted_moved * moved) / count - mean_moved.square()
        covariance = self._window(weighted_moved * fixed) / count - mean_fixed * mean_moved
        return covariance.square() / ((var_fixed.clamp_min(0) + self.epsilon) * (var_moved.clamp_min(0) + self.epsilon))

    def _window(self, field: Tensor) -> Tensor:
        dim = len(spatial(field))
        radius = self.radius if isinstance(self.radius, tuple) else (self.radius,) * dim
        return box_sum(field, radius) if self.window == "box" else gaussian(field, radius)
