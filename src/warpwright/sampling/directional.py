"""The derivative of a pulled image along a direction of its displacement, first-order differentiable in the image.

An implicit layer needs the mixed second derivative of an energy times a direction; with this it takes one gather and one
splat instead of a second derivative of the interpolation, where kernels are compiled. Elsewhere it is that second derivative,
whose memory is some 20 times that of the channels: there give it few of them at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import moved_points, spatial
from warpwright.kernels import as_operator, usable
from warpwright.kernels.layout import batch_of
from warpwright.sampling.sample import sample

__all__ = ["warp_directional"]


def warp_directional(
    moving: Tensor, displacement: Tensor, direction: Tensor, affine: np.ndarray | Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`warp(moving, u, affine)` and its derivative along a direction v of u; the border of the image is repeated.

    Args:
        moving: (B, C, *M).
        displacement: (B, D, *S), voxels of the fixed grid.
        direction: (B, D, *S), voxels of the fixed grid.
        affine: fixed voxels to moving voxels, (D+1, D+1) or (B, D+1, D+1); None for the identity.

    Returns:
        Moved and its derivative, (B, C, *S) each; differentiable in `moving` only, and once.

    Raises:
        BadInput: a gradient is wanted in something else.
    """
    matrix = None if affine is None else torch.as_tensor(affine)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (displacement, direction, matrix)):
        raise BadInput("warp_directional is differentiable in the moving image only: detach displacement, direction and affine")
    if usable(moving, displacement, direction):
        return _warp_directional(moving, displacement, direction, matrix)
    with torch.enable_grad():
        u = displacement.detach().clone().requires_grad_()
        moved = sample(moving, moved_points(u, matrix))
        weights = torch.zeros_like(moved, requires_grad=True)
        (by_u,) = torch.autograd.grad(moved, u, weights, create_graph=True)  # linear in the weights: its transpose is along
        (along,) = torch.autograd.grad(by_u, weights, direction.expand_as(u), create_graph=True)
    return (moved, along) if moving.requires_grad and torch.is_grad_enabled() else (moved.detach(), along.detach())


def _compiled(moving: Tensor, displacement: Tensor, direction: Tensor, affine: Tensor | None) -> tuple[Tensor, Tensor]:
    from warpwright.kernels import directional

    return directional.warp_directional(moving, displacement, direction, affine)


def _fake(moving: Tensor, displacement: Tensor, direction: Tensor, affine: Tensor | None) -> tuple[Tensor, Tensor]:
    shape = (batch_of(affine, moving, displacement, direction), moving.shape[1], *spatial(displacement))
    return moving.new_empty(shape), moving.new_empty(shape)


def _compiled_adjoint(
    by_moved: Tensor, by_along: Tensor, displacement: Tensor, direction: Tensor, affine: Tensor | None, shape: list[int]
) -> Tensor:
    from warpwright.kernels import directional

    return directional.warp_directional_adjoint(by_moved, by_along, displacement, direction, affine, tuple(shape))


def _fake_adjoint(by_moved: Tensor, *others: Any) -> Tensor:
    return by_moved.new_empty(*by_moved.shape[:2], *others[-1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    moving, *others = inputs
    ctx.shape = moving.shape
    ctx.save_for_backward(*others)


def _backward(ctx: Any, by_moved: Tensor, by_along: Tensor) -> tuple[Tensor]:
    displacement, direction, affine = ctx.saved_tensors
    shape = list(ctx.shape[2:])
    dealt = _adjoint(by_moved, by_along, displacement, direction, affine, shape)  # without a derivative: a second one raises
    return (dealt.sum_to_size(ctx.shape),)


_adjoint = as_operator("warp_directional_adjoint", _compiled_adjoint, fake=_fake_adjoint)
_warp_directional = as_operator("warp_directional", _compiled, fake=_fake, backward=_backward, save=_save)
