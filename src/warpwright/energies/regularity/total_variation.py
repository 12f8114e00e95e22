"""Total variation: mean length of the gradient, which lets a field jump where diffusion would smooth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.energies.regularity.base import Regularity, in_millimetres

__all__ = ["TotalVariation", "total_variation"]


def total_variation(field: Tensor, spacing: Sequence[float], epsilon: float = 1e-3) -> Tensor:
    """Isotropic total variation: mean of `sqrt(sum_cd (d u_c / d x_d)^2 + epsilon^2) - epsilon`, u and x in mm.

    Differences run forward and are zero at the last voxel of an axis. Source: Rudin, Osher and Fatemi, Physica D 60 (1992),
    doi:10.1016/0167-2789(92)90242-F, with the components of the field under one root.

    Args:
        field: (B, D, *S), voxels.
        spacing: mm per voxel along each axis.
        epsilon: strain below which the value is a square, > 0.

    Returns:
        (B,), >= 0, without unit; 0 for a constant field.
    """
    u = in_millimetres(field, spacing)
    parts = [(_forward(u, d + 2) / step).square().sum(1) for d, step in enumerate(spacing)]
    length = (torch.stack(parts).sum(0) + epsilon**2).sqrt() - epsilon
    return length.flatten(1).mean(1)


def _forward(u: Tensor, axis: int) -> Tensor:
    return torch.diff(u, dim=axis, append=u.narrow(axis, u.shape[axis] - 1, 1))


@dataclass(frozen=True, kw_only=True)
class TotalVariation(Regularity):
    """`total_variation` with its settings; `epsilon` > 0 rounds the corner at zero."""

    epsilon: float = 1e-3

    def regularity(self, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
        return total_variation(displacement, spacing, self.epsilon)
