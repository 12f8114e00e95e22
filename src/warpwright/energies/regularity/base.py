"""What a regularity is: a frozen description that turns a displacement into one value per sample.

Values are means over voxels of a field in millimetres (`u_mm = u * spacing`, component by component) differentiated by
millimetres along each axis, so they have a physical meaning and do not depend on the number of voxels. Differences are
between neighbouring voxels: central differences would not see a field that alternates from voxel to voxel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.kernels import total

__all__ = ["Regularity", "in_millimetres", "mean_square"]


@dataclass(frozen=True, kw_only=True)
class Regularity(ABC):
    """How irregular a field is.

    Args:
        weight: factor of this term in an energy, applied by whoever sums the terms, not by `regularity`.
    """

    weight: float = 1.0

    @abstractmethod
    def regularity(self, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
        """Value of a displacement (or a velocity).

        Args:
            displacement: (B, D, *S), voxels.
            spacing: mm per voxel along each axis.

        Returns:
            (B,), >= 0, lower is better; not multiplied by `weight`.
        """


def in_millimetres(field: Tensor, spacing: Sequence[float]) -> Tensor:
    """(B, D, *S) in voxels to (B, D, *S) in mm along the grid's axes."""
    factor = torch.tensor(spacing, dtype=field.dtype, device=field.device)
    return field * factor.reshape(1, -1, *(1,) * (field.ndim - 2))


def mean_square(values: Tensor) -> Tensor:
    """Mean over voxels of the squared length: (B, C, *S) to (B,); 0 where S is empty."""
    return total(values.square()) / max(values[0, 0].numel(), 1)
