"""What a generator returns: two images, and what is known of how they correspond."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["SyntheticPair"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SyntheticPair:
    """Two images on one grid with the truth, where there is one.

    Args:
        fixed: (C, *S) float32.
        moving: (C, *S) float32.
        fixed_labels: (1, *S) integers.
        moving_labels: (1, *S) integers.
        displacement: (D, *S) float32, voxels of the fixed grid: `fixed(x) = moving(x + u(x))` up to contrast, noise and what
            interpolation costs; None where the two images hold different things. Where `x + u(x)` leaves the grid, the moving
            image does not show what the fixed one does.
        fixed_points: (N, D) float32, voxels.
        moving_points: (N, D) float32, voxels; `moving_points = fixed_points + u(fixed_points)`.
    """

    fixed: Tensor
    moving: Tensor
    fixed_labels: Tensor | None = None
    moving_labels: Tensor | None = None
    displacement: Tensor | None = None
    fixed_points: Tensor | None = None
    moving_points: Tensor | None = None
