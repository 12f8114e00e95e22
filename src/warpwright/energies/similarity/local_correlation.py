"""Local correlation under Gaussian windows as GradICON defines it, for results that are to be compared with its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from torch import Tensor

from warpwright.energies.similarity.base import Similarity, reduce
from warpwright.errors import BadInput
from warpwright.geometry import spatial
from warpwright.sampling import gaussian_zero_padded

__all__ = ["LocalCorrelation"]

WITHIN = 0.999  # share of a window that lies on voxels of weight one, from which on it counts as inside


@dataclass(frozen=True, kw_only=True)
class LocalCorrelation(Similarity):
    """One minus the mean local correlation, `1 - mean(cov / sqrt((var_moved + e) (var_fixed + e)))`, or of its square.

    Beside `LNCC`, which is normalised at the border and whose optimum is 0 for equal images: here windows are filled up with
    zeros outside the image, and flat places count as uncorrelated, so that equal images give more than 0 where they are flat.

    Args:
        sigma: standard deviation of the window, voxels along every axis; it is cut at twice that.
        power: 1 for the correlation with its sign, 2 for its square.
        epsilon: e, squared intensity.
        inner: whether only windows count that lie on voxels of weight one; else a voxel counts by its own weight.

    Raises:
        BadInput: sigma or epsilon is not positive and finite, or the power is another; of `similarity`: the image is smaller
            than a window.

    Reference: Tian et al., GradICON, CVPR 2023, section 5 ("LNCC"), and its code for what the paper leaves open. There a mask
    multiplies the map, whose mean is over all voxels: a small mask lowers the loss. Here it is a weighted mean.
    """

    sigma: float = 5.0
    power: Literal[1, 2] = 1
    epsilon: float = 1e-5
    inner: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.sigma < inf and 0 < self.epsilon < inf):
            raise BadInput(f"LocalCorrelation needs sigma and epsilon above 0, got {self.sigma} and {self.epsilon}")
        if self.power not in (1, 2):
            raise BadInput(f"LocalCorrelation takes correlations to the power of 1 or 2, got {self.power}")

    def similarity(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        energy = 1 - self.correlation_map(moved, fixed).pow(self.power).mean(1, keepdim=True)
        if self.inner:
            width = 2 * int(2 * self.sigma) + 1
            if min(spatial(fixed)) < width:
                raise BadInput(f"LocalCorrelation(inner) has windows of {width} voxels, the images have {spatial(fixed)}")
            ones = torch.ones_like(energy[:1]) if weight is None else weight
            weight = (self._blurred(ones) > WITHIN).to(energy.dtype)
        return reduce(energy, weight)

    def correlation_map(self, moved: Tensor, fixed: Tensor) -> Tensor:
        """Local correlation of every channel: (B, C, *S) images to (B, C, *S) in [-1, 1]."""
        batch = max(len(moved), len(fixed))
        moved, fixed = (image.expand(batch, *image.shape[1:]) for image in (moved, fixed))
        parts = (moved, fixed, moved * moved, fixed * fixed, moved * fixed)
        mean_moved, mean_fixed, square_moved, square_fixed, product = self._blurred(torch.cat(parts, 1)).chunk(5, 1)
        var_moved = (square_moved - mean_moved.square()).clamp_min(0) + self.epsilon
        var_fixed = (square_fixed - mean_fixed.square()).clamp_min(0) + self.epsilon
        return (product - mean_moved * mean_fixed) * (var_moved * var_fixed).rsqrt()

    def _blurred(self, field: Tensor) -> Tensor:
        return gaussian_zero_padded(field, (self.sigma,) * len(spatial(field)))
