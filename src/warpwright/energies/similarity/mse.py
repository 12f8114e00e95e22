"""Mean squared difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.similarity.base import Pointwise
from warpwright.kernels import usable, vector_jacobian

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
        matrix = torch.from_numpy(affine) if isinstance(affine, np.ndarray) else affine
        by_fixed, by_moving, by_weight, by_displacement, by_affine = (
            torch.is_grad_enabled() and t is not None and t.requires_grad for t in (fixed, moving, weight, displacement, matrix)
        )
        others = by_fixed or by_moving or by_weight or (by_displacement and by_affine)
        if others or not usable(fixed, moving, displacement, weight, moving_weight):
            return super().match(fixed, moving, displacement, matrix, weight, moving_weight)
        return _match(fixed, moving, displacement, matrix, weight, moving_weight, by_displacement, by_affine)[0]

    def curvature(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        """As the base; divided by the sum of the weights that it is given, as the energy is; zero where they all are."""
        ones = torch.ones_like(fixed[:, :1]) if weight is None else weight
        size = ones.flatten(1).sum(1).reshape(-1, *(1,) * (fixed.ndim - 1))
        return 2 * ones / torch.where(size > 0, size, torch.ones_like(size))


@torch.library.custom_op("warpwright::match_mse", mutates_args=())
def _match(
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


@_match.register_fake
def _(
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor,
    affine: Tensor | None,
    weight: Tensor | None,
    moving_weight: Tensor | None,
    by_displacement: bool,
    by_affine: bool,
) -> tuple[Tensor, Tensor]:
    alone = affine is None or affine.ndim == 2
    given = [t for t in (fixed, moving, displacement, weight, moving_weight, None if alone else affine) if t is not None]
    batch, side = max(len(t) for t in given), displacement.shape[1] + 1
    if by_displacement:
        return fixed.new_empty(batch), fixed.new_empty(batch, *displacement.shape[1:])
    if by_affine:
        return fixed.new_empty(batch), fixed.new_empty(batch, side, side, dtype=torch.float64)
    return fixed.new_empty(batch), fixed.new_empty(0)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.by_displacement, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, cotangent: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    fixed, moving, displacement, affine, *weights, gradient = ctx.saved_tensors
    if cotangent is None:
        return (None,) * 8
    if torch.is_grad_enabled():

        def plain(displacement: Tensor, affine: Tensor | None) -> Tensor:
            return Pointwise.match(MSE(), fixed, moving, displacement, affine, *weights)

        by = vector_jacobian(plain, (displacement, affine), ctx.needs_input_grad[2:4], cotangent)
        return None, None, *by, None, None, None, None
    if type(cotangent) is not Tensor or (cotangent != 1).any():  # a traced one has no value
        gradient = gradient * cotangent.reshape(-1, *(1,) * (gradient.ndim - 1)).to(gradient.dtype)
    if ctx.by_displacement:
        return None, None, gradient.sum_to_size(displacement.shape), None, None, None, None, None
    return None, None, None, gradient.sum_to_size(affine.shape).to(affine.dtype), None, None, None, None


_match.register_autograd(_backward, setup_context=_save)
