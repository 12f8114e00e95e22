"""Displacement fields `x -> x + u(x)` in voxels of one grid: composition and inversion."""

from __future__ import annotations

import torch
from torch import Tensor

from warpwright.geometry import identity_points, spatial
from warpwright.sampling import inside, sample

__all__ = ["compose", "invert"]


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Displacement of `(Id + outer) o (Id + inner)`: `inner(x) + outer(x + inner(x))`; border values repeated outside.

    Args:
        outer: (B, D, *S), voxels.
        inner: (B, D, *S), voxels.

    Returns:
        (B, D, *S), voxels.
    """
    return inner + sample(outer, identity_points(spatial(inner), dtype=inner.dtype, device=inner.device) + inner)


def invert(displacement: Tensor, *, tolerance: float = 1e-3, max_steps: int = 100) -> tuple[Tensor, float]:
    """Displacement w of the inverse map, `w(y) = -u(y + w(y))`, by relaxed fixed-point iteration.

    A voxel whose residual grows has its step halved, so that compressions beyond a factor of two still converge; a map
    that folds has no inverse and shows as a large residual.

    Args:
        displacement: (B, D, *S), voxels.
        tolerance: largest residual at which to stop, voxels.
        max_steps: bound on the iterations.

    Returns:
        w (B, D, *S), voxels, and the residual: the largest |w + u(y + w)| (voxels) over the voxels whose point
        `y + w` lies in the grid (elsewhere u is not known); 0 if there is none.
    """
    shape = spatial(displacement)
    identity = identity_points(shape, dtype=displacement.dtype, device=displacement.device)
    inverse = -displacement
    relaxation = torch.ones_like(displacement[:, :1])
    previous = torch.full_like(relaxation, torch.inf)
    worst = 0.0
    for _ in range(max_steps):
        points = identity + inverse
        error = sample(displacement, points).add_(inverse)
        norm = error.norm(dim=1, keepdim=True)
        known = inside(points, shape)
        worst = float((norm * known).max())
        if worst <= tolerance:
            break
        relaxation = torch.where(norm > previous, relaxation / 2, relaxation)
        previous = norm
        inverse = inverse.addcmul(relaxation, error, value=-1)
    return inverse, worst
