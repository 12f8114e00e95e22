"""Bending regularity: mean squared second derivatives; affine fields are free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from warpwright.energies.regularity.base import Regularity, in_millimetres, mean_square

__all__ = ["Bending", "bending"]


def bending(field: Tensor, spacing: Sequence[float]) -> Tensor:
    """Mean of `sum_cde (d^2 u_c / d x_d d x_e)^2`, mixed derivatives counting twice, u and x in mm.

    Each mean is over the places where its difference exists. Source: Rueckert et al., IEEE TMI 18 (1999), equation 5,
    doi:10.1109/42.796284.

    Args:
        field: (B, D, *S), voxels.
        spacing: mm per voxel along each axis.

    Returns:
        (B,), >= 0, 1/mm^2; 0 for an affine field.
    """
    u = in_millimetres(field, spacing)
    pure = [mean_square(_second(u, d, d) / step**2) for d, step in enumerate(spacing)]
    mixed = [2 * mean_square(_second(u, d, e) / (spacing[d] * spacing[e])) for d, e in combinations(range(len(spacing)), 2)]
    return torch.stack([*pure, *mixed]).sum(0)


def _second(u: Tensor, first: int, second: int) -> Tensor:
    """Difference along one spatial axis, then along another or again the same."""
    one = torch.diff(u, dim=first + 2)
    return torch.diff(one, dim=second + 2) if one.shape[second + 2] else one


@dataclass(frozen=True, kw_only=True)
class Bending(Regularity):
    """`bending` as a term of an energy."""

    def regularity(self, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
        return bending(displacement, spacing)
