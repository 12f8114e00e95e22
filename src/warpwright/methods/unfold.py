"""Smoothing away the few folds that interpolation leaves in a field that should have none."""

from __future__ import annotations

import torch
from torch import Tensor

from warpwright.geometry import jacobian_determinant
from warpwright.sampling import gaussian

__all__ = ["unfold"]

LEAST = 0.01  # determinant below which a voxel counts as folded
ROUNDS = 50
REACH = 2.0  # voxels around a fold that are smoothed with it, standard deviation


def unfold(displacement: Tensor) -> Tensor:
    """A displacement whose determinant is at least `LEAST` at every voxel, changed only near folds.

    Compositions of small smooth maps do not fold, but a sampled and interpolated one can where it compresses strongly.
    Such places, with their surroundings, are averaged with a smoothed field until none is left.

    Args:
        displacement: (B, D, *S), voxels.

    Returns:
        (B, D, *S), voxels; the argument itself where nothing folds. A field that folds widely may keep folds after
        `ROUNDS` rounds: the caller reports what is left.
    """
    dim = displacement.shape[1]
    for _ in range(ROUNDS):
        folded = (jacobian_determinant(displacement) < LEAST)[:, None]
        if not folded.any():
            break
        near = gaussian(folded.to(displacement.dtype), (REACH,) * dim)
        share = torch.clamp(near * 20, max=1)
        displacement = torch.lerp(displacement, gaussian(displacement, (1.0,) * dim), share)
    return displacement
