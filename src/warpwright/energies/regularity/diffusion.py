"""Diffusion regularity: mean squared gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.energies.regularity.base import Regularity, in_millimetres, mean_square

__all__ = ["Diffusion", "diffusion"]


def diffusion(field: Tensor, spacing: Sequence[float]) -> Tensor:
    """Mean of `sum_cd (d u_c / d x_d)^2`, u and x in mm; the mean along each axis is over its pairs of neighbours.

    Args:
        field: (B, D, *S), voxels.
        spacing: mm per voxel along each axis.

    Returns:
        (B,), >= 0, without unit; 0 for a constant field.
    """
    u = in_millimetres(field, spacing)
    return torch.stack([mean_square(torch.diff(u, dim=d + 2)) / step**2 for d, step in enumerate(spacing)]).sum(0)


@dataclass(frozen=True, kw_only=True)
class Diffusion(Regularity):
    """`diffusion` as a term of an energy."""

    def regularity(self, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
        return diffusion(displacement, spacing)
