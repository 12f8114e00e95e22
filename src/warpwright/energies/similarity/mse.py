"""Mean squared difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.similarity.base import Pointwise
from warpwright.energies.similarity.swept import as_energy, on_one_grid
from warpwright.kernels import usable
from warpwright.kernels.layout import batch_of

__all__ = ["MSE"]


@dataclass(frozen=True, kw_only=True)
class MSE(Pointwise):
    """Mean over voxels and channels of `(moved - fixed)^2`."""

    def residual_map(self, moved: Tensor, fixed: Tensor) -> Tensor:
        return (moved - fixed).square().mean(1, keepdim=True)

    def match(
        self,
        fixed: Tensor,
        moving: Tensor,
        displacement: Tensor,
        affine: np.ndarray | Tensor | None = None,
        weight: Tensor | None = None,
        moving_weight: Tensor | None = None,
    ) -> Tensor:
        matrix = None if affine is None else torch.as_tensor(affine)
        by_fixed, by_moving, by_weight, by_displacement, by_affine = (
            torch.is_grad_enabled() and t is not None and t.requires_grad for t in (fixed, moving, weight, displacement, matrix)
        )
        others = by_fixed or by_moving or by_weight or (by_displacement and by_affine)
        places = displacement[:, :1].expand(-1, moving.shape[1], *displacement.shape[2:])
        others = others or not (on_one_grid(fixed, places, weight) and on_one_grid(moving, moving, moving_weight))
        if others or not usable(fixed, moving, displacement, weight, moving_weight):
            return super().match(fixed, moving, displacement, matrix, weight, moving_weight)
        return _match(fixed, moving, displacement, matrix, weight, moving_weight, by_displacement, by_affine)[0]

    def curvature(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        """As the base; divided by the sum of the weights that it is given, as the energy is; zero where they all are."""
        ones = torch.ones_like(fixed[:, :1]) if weight is None else weight
        size = ones.flatten(1).sum(1).reshape(-1, *(1,) * (fixed.ndim - 1))
        return 2 * ones / torch.where(size > 0, size, torch.ones_like(size))


def _compiled(
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor,
    affine: Tensor | None,
    weight: Tensor | None,
    moving_weight: Tensor | None,
    by_displacement: bool,
    by_affine: bool,
) -> tuple[Tensor, Tensor]:
    """Energies of `MSE.match`, and their gradient in the displacement or the affine, which backward scales."""
    from warpwright.kernels import squared

    wanted = {"by_displacement": by_displacement, "by_affine": by_affine}
    return squared.match(fixed, moving, displacement, affine, weight, moving_weight, **wanted)


def _fake(
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor,
    affine: Tensor | None,
    weight: Tensor | None,
    moving_weight: Tensor | None,
    by_displacement: bool,
    by_affine: bool,
) -> tuple[Tensor, Tensor]:
    weights = [t for t in (weight, moving_weight) if t is not None]
    batch, side = batch_of(affine, fixed, moving, displacement, *weights), displacement.shape[1] + 1
    if by_displacement:
        return fixed.new_empty(batch), fixed.new_empty(batch, *displacement.shape[1:])
    if by_affine:
        return fixed.new_empty(batch), fixed.new_empty(batch, side, side, dtype=torch.float64)
    return fixed.new_empty(batch), fixed.new_empty(0)


def _twin(*arguments: Any) -> Tensor:
    return Pointwise.match(MSE(), *arguments[:6])


def _place(by_displacement: bool, _: bool) -> int:
    return 2 if by_displacement else 3


_match = as_energy("match_mse", _compiled, fake=_fake, twin=_twin, place=_place)
