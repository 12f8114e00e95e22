"""Folding: a hinge on the Jacobian determinant of `x -> x + u(x)`.

Each derivative is taken forward and backward; the worst of the 2^D determinants counts. Central differences would not see
a field that alternates from voxel to voxel and folds at every second one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from warpwright.energies.regularity.base import Regularity
from warpwright.geometry import determinant
from warpwright.kernels import total

__all__ = ["Folding", "folding"]


def folding(displacement: Tensor, margin: float = 0.0) -> Tensor:
    """Mean over voxels of `max(0, margin - det J)`; a determinant is a ratio of volumes, so no spacing enters.

    `det J` is the smallest of the determinants that the differences to either neighbour along each axis give; at the
    border there is one neighbour, along an axis of one voxel none and the derivative is zero.

    Args:
        displacement: (B, D, *S), voxels.
        margin: smallest determinant that costs nothing.

    Returns:
        (B,), >= 0, without unit; 0 for the identity while `margin` <= 1.
    """
    hinge = (margin - _smallest_determinant(displacement)).clamp_min(0)
    return total(hinge) / hinge[0].numel()


def _smallest_determinant(displacement: Tensor) -> Tensor:
    dim = displacement.shape[1]
    sides = [_one_sided(displacement, axis) for axis in range(2, displacement.ndim)]
    eye = torch.eye(dim, dtype=displacement.dtype, device=displacement.device).reshape(1, dim, dim, *(1,) * dim)
    smallest = torch.full_like(displacement[:, 0], torch.inf)
    for choice in product((0, 1), repeat=dim):
        slopes = torch.stack([side[k] for side, k in zip(sides, choice, strict=True)], 2)
        smallest = torch.minimum(smallest, determinant(slopes + eye))
    return smallest


def _one_sided(field: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Forward and backward differences along an axis; the only one at each end, zero along an axis of one voxel."""
    n = field.shape[axis]
    if n == 1:
        return torch.zeros_like(field), torch.zeros_like(field)
    steps = torch.diff(field, dim=axis)
    return (
        torch.cat([steps, steps.narrow(axis, n - 2, 1)], axis),
        torch.cat([steps.narrow(axis, 0, 1), steps], axis),
    )


@dataclass(frozen=True, kw_only=True)
class Folding(Regularity):
    """`folding` as a term of an energy."""

    margin: float = 0.0

    def regularity(self, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
        del spacing  # determinants have no unit
        return folding(displacement, self.margin)
