"""How much patches of two images differ, for every displacement of a basis: evidence without a network.

Memory is that of what is returned, and a few images.
"""

from __future__ import annotations

from collections.abc import Callable
from types import EllipsisType
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from warpwright.energies.similarity import descriptor
from warpwright.geometry import spatial
from warpwright.sampling import box_sum

__all__ = ["Measure", "patch_costs", "places"]

Measure = Literal["squares", "correlation", "mind"]
LEAST = 1e-4  # variance of intensities near [0, 1] below which a patch holds nothing


@torch.no_grad()
def patch_costs(fixed: Tensor, moving: Tensor, vectors: Tensor, *, radius: int = 3, measure: Measure = "correlation") -> Tensor:
    """What it costs to match every voxel of the fixed image with the one that each displacement leads to.

    Args:
        fixed: (B, C, *S), intensities near [0, 1].
        moving: (B, C, *S), on the same grid; beyond its border that is repeated.
        vectors: (m, D), whole voxels.
        radius: patches are of 2 radius + 1 voxels, cut at the border of the fixed image.
        measure: "squares" is the mean squared difference, "correlation" one minus the correlation coefficient (0 to 2, 1 where
            either patch holds nothing), both means over channels; "mind" is "squares" of MIND-SSC descriptors.

    Returns:
        (B, m, *S) float32.
    """
    if measure == "mind":
        fixed, moving, measure = descriptor(fixed), descriptor(moving), "squares"
    shape = spatial(fixed)
    reach, there_of = places(vectors, shape)
    around = [radius] * len(shape)
    inside = 1 / box_sum(torch.ones_like(fixed[:, :1]), around)

    def mean(image: Tensor) -> Tensor:
        return box_sum(image, around) * inside

    correlated = measure == "correlation"
    wide = F.pad(moving, [reach] * 2 * len(shape), mode="replicate")
    average, scale = _standard(fixed, mean)
    costs = fixed.new_empty(len(fixed), len(vectors), *shape)
    for k, place in enumerate(there_of):
        there = wide[place]
        if correlated:
            other, scale_there = _standard(there, mean)  # here, for at the border the patch is cut where the fixed image ends
            costs[:, k] = 1 - ((mean(fixed * there) - average * other) * scale * scale_there).mean(1)
        else:
            costs[:, k] = mean((fixed - there).square().mean(1, keepdim=True))[:, 0]
    return costs


def places(vectors: Tensor, shape: tuple[int, ...]) -> tuple[int, list[tuple[EllipsisType | slice, ...]]]:
    """Where each displacement leads, for images of a shape S padded by so many voxels on all sides.

    Args:
        vectors: (m, D), whole voxels.
        shape: S.

    Returns:
        The number of voxels, and for each displacement what takes its (..., *S) out of the padded image.
    """
    reach = int(vectors.abs().max())
    rows: list[list[int]] = vectors.round().long().tolist()
    return reach, [(..., *(slice(reach + s, reach + s + n) for s, n in zip(row, shape, strict=True))) for row in rows]


def _standard(image: Tensor, mean: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Mean of every patch, and one over its deviation; zero where it holds nothing."""
    average = mean(image)
    variance = mean(image.square()) - average.square()
    return average, torch.where(variance > LEAST, variance.clamp_min(LEAST).rsqrt(), torch.zeros_like(variance))
