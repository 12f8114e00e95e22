"""Mean squared difference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.energies.similarity.base import Pointwise

__all__ = ["MSE"]


@dataclass(frozen=True, kw_only=True)
class MSE(Pointwise):
    """Mean over voxels and channels of `(moved - fixed)^2`."""

    def residual_map(self, moved: Tensor, fixed: Tensor) -> Tensor:
        return (moved - fixed).square().mean(1, keepdim=True)

    def curvature(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        """As the base; divided by the sum of the weights that it is given, as the energy is; zero where they all are."""
        ones = torch.ones_like(fixed[:, :1]) if weight is None else weight
        size = ones.flatten(1).sum(1).reshape(-1, *(1,) * (fixed.ndim - 1))
        return 2 * ones / torch.where(size > 0, size, torch.ones_like(size))
