"""What a similarity is: a frozen description with two entries, `similarity` and `match`.

Lower is better, one value per sample, independent of the number of voxels. Masks are weights of the energy; an image is
never multiplied by its mask, which would draw an edge.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.kernels import total
from warpwright.sampling import warp_covered

__all__ = ["Pointwise", "Similarity", "for_axes", "reduce"]


def for_axes(numbers: int | tuple[int, ...], dim: int, what: str) -> tuple[int, ...]:
    """A setting that is one number, or one for each axis, as one for each axis.

    Args:
        numbers: the setting.
        dim: axes of the images.
        what: the similarity and the setting, in a message.

    Raises:
        BadInput: there are numbers for another number of axes.
    """
    if isinstance(numbers, int):
        return (numbers,) * dim
    if len(numbers) != dim:
        found = f"{what} of {len(numbers)} numbers, the images have {dim} axes"
        raise BadInput(f"{found}: expected one number, or {dim}")
    return numbers


def reduce(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted mean of a map, differentiable in both.

    Args:
        values: (B, 1, *S).
        weight: (B, 1, *S), >= 0; None for one everywhere.

    Returns:
        (B,); zero for a sample whose weights are all zero.
    """
    if weight is None:
        return total(values) / values[0].numel()
    weight = weight.expand(values.shape)
    weighted = total(values * weight)
    size = total(weight)
    return weighted / torch.where(size > 0, size, torch.ones_like(size))


class Similarity(ABC):
    """How unlike two images are; a frozen dataclass whose fields are its settings."""

    @abstractmethod
    def similarity(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        """Energy of two images on one grid.

        Args:
            moved: (B, C, *S).
            fixed: (B, C, *S).
            weight: (B, 1, *S), >= 0; None for one everywhere.

        Returns:
            (B,), lower is better.
        """

    def for_spacing(self, spacing: Sequence[float]) -> Self:
        """The same similarity for voxels of this size (mm); windows may adapt. Default: unchanged."""
        return self

    def curvature(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        """Positive estimate of the second derivative in the moved intensity, for Gauss-Newton: (B, 1, *S).

        Raises:
            BadInput: this similarity has none.
        """
        raise BadInput(
            f"{type(self).__name__} has no curvature, which Gauss-Newton and Krylov steps need: choose others, or MSE"
        )

    def match(
        self,
        fixed: Tensor,
        moving: Tensor,
        displacement: Tensor,
        affine: np.ndarray | Tensor | None = None,
        weight: Tensor | None = None,
        moving_weight: Tensor | None = None,
    ) -> Tensor:
        """Energy of `moving(affine (x + u(x)))` against `fixed(x)`.

        Args:
            fixed: (B, C, *S).
            moving: (B, C, *M).
            displacement: (B, D, *S), voxels of the fixed grid.
            affine: fixed voxels to moving voxels, (D+1, D+1) or (B, D+1, D+1).
            weight: (B, 1, *S) weight of each fixed voxel.
            moving_weight: (B, 1, *M) weight of each moving voxel; None for one everywhere. It is zero outside the moving
                image and follows the displacement, but is not differentiated, or leaving the mask would lower the energy.

        Returns:
            (B,), lower is better; differentiable in the images, the displacement, the affine and `weight`.
        """
        moved, cover = warp_covered(moving, displacement, affine, moving_weight)
        return self.similarity(moved, fixed, cover if weight is None else weight * cover)


class Pointwise(Similarity):
    """A similarity that is the mean of a map."""

    @abstractmethod
    def residual_map(self, moved: Tensor, fixed: Tensor) -> Tensor:
        """(B, 1, *S) residual of every voxel, lower is better."""

    def similarity(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        return reduce(self.residual_map(moved, fixed), weight)
