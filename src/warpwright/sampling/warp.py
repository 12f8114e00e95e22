"""Pull-back of images and labels through a displacement and an affine: `moved(x) = moving(A (x + u(x)))`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from warpwright.geometry import moved_points, spatial
from warpwright.kernels import as_operator, by_twin, save_arguments, usable
from warpwright.kernels.layout import batch_of
from warpwright.sampling.sample import Outside, inside, sample, splat
from warpwright.sampling.voxels import pickable, sample_labels, sample_nearest, warp_pick

__all__ = ["warp", "warp_covered", "warp_labels", "warp_nearest", "warp_within"]


def warp(
    moving: Tensor, displacement: Tensor, affine: np.ndarray | Tensor | None = None, *, outside: Outside = "edge"
) -> Tensor:
    """The moving image pulled onto the fixed grid.

    Args:
        moving: (B, C, *M).
        displacement: (B, D, *S), voxels of the fixed grid, added before the affine.
        affine: fixed voxels to moving voxels, (D+1, D+1) or (B, D+1, D+1); None for the identity.
        outside: what the moving image is beyond its border.

    Returns:
        (B, C, *S).
    """
    matrix = _as_tensor(affine)
    return (_warp if usable(moving, displacement) else _plain)(moving, displacement, matrix, outside)


def warp_covered(
    moving: Tensor, displacement: Tensor, affine: np.ndarray | Tensor | None = None, moving_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As `warp`, border repeated, and how far each place is covered by the moving image.

    Args:
        moving: (B, C, *M).
        displacement: (B, D, *S), voxels of the fixed grid, added before the affine.
        affine: fixed voxels to moving voxels, (D+1, D+1) or (B, D+1, D+1); None for the identity.
        moving_weight: (B, 1, *M) weight of each moving voxel; None for one everywhere.

    Returns:
        (B, C, *S) moved, and the moving weight pulled the same way, (B, 1, *S), which fades to zero over one voxel outside
        the moving image. The second has no gradient: else leaving the image would lower an energy that it weighs.
    """
    matrix = _as_tensor(affine)
    if usable(moving, displacement, moving_weight):
        return _warp_covered(moving, displacement, matrix, moving_weight)
    points = moved_points(displacement, matrix)
    ones = moving.new_ones(1, 1, *spatial(moving))
    return sample(moving, points), sample(ones if moving_weight is None else moving_weight, points.detach(), outside="zero")


def _as_tensor(affine: np.ndarray | Tensor | None) -> Tensor | None:
    return None if affine is None else torch.as_tensor(affine)


def warp_within(
    moving: Tensor, displacement: Tensor, affine: np.ndarray | Tensor | None = None, *, background: float = 0
) -> Tensor:
    """As `warp`, without a gradient: `background` where the point is more than half a voxel outside the moving image."""
    matrix = _as_tensor(affine)
    if usable(moving, displacement):
        from warpwright.kernels import warping

        return warping.warp(moving, displacement, matrix, background=background)
    points = moved_points(displacement.detach(), matrix)
    return sample(moving.detach(), points).masked_fill(~inside(points, spatial(moving)), background)


def warp_nearest(
    moving: Tensor, displacement: Tensor, affine: np.ndarray | Tensor | None = None, *, background: float = 0
) -> Tensor:
    """As `warp`, by the nearest voxel: any dtype, no new values; `background` where the point is outside the moving image."""
    if pickable(moving, displacement):
        return warp_pick(moving, displacement.detach(), _as_tensor(affine), background, False)
    points = moved_points(displacement, affine)
    return sample_nearest(moving, points).masked_fill(~inside(points, spatial(moving)), background)


def warp_labels(
    moving: Tensor, displacement: Tensor, affine: np.ndarray | Tensor | None = None, *, background: float = 0
) -> Tensor:
    """As `warp_nearest` for labels, by the largest interpolated share (`sample_labels`)."""
    if pickable(moving, displacement):
        return warp_pick(moving, displacement.detach(), _as_tensor(affine), background, True)
    points = moved_points(displacement, affine)
    return sample_labels(moving, points).masked_fill(~inside(points, spatial(moving)), background)


def _plain(moving: Tensor, displacement: Tensor, affine: Tensor | None, outside: Outside) -> Tensor:
    return sample(moving, moved_points(displacement, affine), outside=outside)


def _compiled(moving: Tensor, displacement: Tensor, affine: Tensor | None, outside: str) -> Tensor:
    from warpwright.kernels import warping

    return warping.warp(moving, displacement, affine, zero=outside == "zero")


def _fake(moving: Tensor, displacement: Tensor, affine: Tensor | None, *_: Any) -> Tensor:
    return moving.new_empty(batch_of(affine, moving, displacement), moving.shape[1], *spatial(displacement))


def _compiled_covered(
    moving: Tensor, displacement: Tensor, affine: Tensor | None, moving_weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    from warpwright.kernels import warping

    return warping.warp_covered(moving, displacement, affine, moving_weight)


def _fake_covered(moving: Tensor, displacement: Tensor, affine: Tensor | None, *_: Any) -> tuple[Tensor, Tensor]:
    batch, shape = batch_of(affine, moving, displacement), spatial(displacement)
    return moving.new_empty(batch, moving.shape[1], *shape), moving.new_empty(batch, 1, *shape)


def _compiled_gradient(
    cotangent: Tensor, moving: Tensor, displacement: Tensor, affine: Tensor | None, by_affine: bool
) -> Tensor:
    from warpwright.kernels import warping

    return warping.warp_gradient(cotangent, moving, displacement, affine, by_affine=by_affine)


def _fake_gradient(cotangent: Tensor, moving: Tensor, displacement: Tensor, affine: Tensor | None, by_affine: bool) -> Tensor:
    batch, side = len(cotangent), displacement.shape[1] + 1
    if by_affine:
        return displacement.new_empty(batch, side, side, dtype=torch.float64)
    return displacement.new_empty(batch, *displacement.shape[1:])


def _save_covered(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    save_arguments(ctx, (*inputs[:3], "edge"), output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # else every backward pass would make a volume of zeros for the cover


def _backward(ctx: Any, cotangent: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    if ctx.settings == ("zero",):
        return by_twin(ctx, _plain, cotangent)
    moving, displacement, affine = ctx.saved_tensors
    needed = ctx.needs_input_grad
    by_moving = by_displacement = by_affine = None
    if needed[0]:
        by_moving = splat(cotangent, moved_points(displacement, affine), spatial(moving)).sum_to_size(moving.shape)
    if needed[1]:
        by_displacement = _warp_gradient(cotangent, moving, displacement, affine, False).sum_to_size(displacement.shape)
    if needed[2]:
        by_affine = _warp_gradient(cotangent, moving, displacement, affine, True).sum_to_size(affine.shape).to(affine.dtype)
    return by_moving, by_displacement, by_affine


_warp_gradient = as_operator("warp_gradient", _compiled_gradient, fake=_fake_gradient)
_warp = as_operator("warp", _compiled, fake=_fake, backward=_backward, twin=_plain)
_warp_covered = as_operator(
    "warp_covered", _compiled_covered, fake=_fake_covered, backward=_backward, twin=_plain, save=_save_covered
)
