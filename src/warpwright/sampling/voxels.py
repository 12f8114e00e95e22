"""Reading whole voxels: the nearest one, or the label with the largest share. Any dtype, no new values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from warpwright.geometry import spatial
from warpwright.kernels import as_operator, usable
from warpwright.kernels.layout import batch_of
from warpwright.sampling.sample import corners

__all__ = ["pickable", "sample_labels", "sample_nearest", "warp_pick"]

BLOCK = 1 << 17  # points whose 2^D corner labels exist at one time


def sample_nearest(image: Tensor, points: Tensor) -> Tensor:
    """The voxel nearest to each point (halves round up, as in ITK); points outside take the nearest border voxel.

    Args:
        image: (B, C, *S), any dtype.
        points: (B, D, *T), voxels.

    Returns:
        (B, C, *T) in the dtype of the image.
    """
    if pickable(image, points):
        return _pick(image, points.detach(), False)
    batch = max(len(image), len(points))
    index = torch.zeros(points.shape[0], *points.shape[2:], dtype=torch.long, device=points.device)
    for axis, n in enumerate(image.shape[2:]):
        index = index * n + (points[:, axis] + 0.5).floor().clamp(0, n - 1).nan_to_num().long()
    flat = image.flatten(2).expand(batch, -1, -1)
    index = index.flatten(1)[:, None].expand(batch, image.shape[1], -1)
    return flat.gather(2, index).reshape(batch, image.shape[1], *points.shape[2:])


def sample_labels(labels: Tensor, points: Tensor) -> Tensor:
    """The label with the largest interpolated share at each point: smoother outlines than the nearest voxel.

    The "generic label" interpolation of ANTs with linear weights: every label's mask is interpolated, the largest wins,
    the smaller label on a tie; the border is repeated outside. Only the 2^D labels around a point can win, so the cost
    does not grow with the number of labels; points are taken a block at a time, so the memory for corners is bounded.

    Args:
        labels: (B, C, *S) integers.
        points: (B, D, *T), voxels; B may be 1 for either argument.

    Returns:
        (B, C, *T) in the dtype of `labels`.
    """
    if pickable(labels, points):
        return _pick(labels, points.detach(), True)
    batch, shape = max(len(labels), len(points)), tuple(labels.shape[2:])
    flat = labels.flatten(2).expand(batch, -1, -1)
    limit = torch.tensor(shape, dtype=points.dtype, device=points.device)[:, None] - 1
    parts: list[Tensor] = []
    where = points.expand(batch, *points.shape[1:]).flatten(2)
    for begin in range(0, where.shape[2], BLOCK):
        at = where[:, :, begin : begin + BLOCK]
        around = list(corners(torch.minimum(at.clamp_min(0), limit), shape))
        values = torch.stack([flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)) for index, _ in around])
        weights = torch.stack([weight[:, None] for _, weight in around]).expand(values.shape)
        parts.append(_largest_share(values, weights))
    return torch.cat(parts, 2).reshape(batch, labels.shape[1], *points.shape[2:])


def _largest_share(values: Tensor, weights: Tensor) -> Tensor:
    """The value with the largest sum of weights over axis 0, the smaller on a tie: (K, ...) twice to (...)."""
    out = values[0].clone()
    mixed = (values != out).any(0)
    values, weights = values[:, mixed], weights[:, mixed]
    shares = torch.stack([(weights * (values == value)).sum(0) for value in values])
    winners = shares == shares.amax(0)
    out[mixed] = torch.where(winners, values, values.amax(0)).amin(0)
    return out


def pickable(image: Tensor, where: Tensor) -> bool:
    """Whether kernels serve an image (real numbers of 16 bits or more, whole ones of any size) and points or displacements."""
    if image.device.type != "cpu" or (image.requires_grad and torch.is_grad_enabled()):
        return False
    kind = image.dtype
    return not kind.is_complex and (kind.itemsize > 1 or not kind.is_floating_point) and usable(where)


def _compiled_pick(image: Tensor, points: Tensor, share: bool) -> Tensor:
    """(B, C, *S) at (B, D, *T), as `sample_labels` with `share`, else as `sample_nearest`."""
    from warpwright.kernels import labels

    return labels.sample(image, points, share=share)


def _fake_pick(image: Tensor, points: Tensor, share: bool) -> Tensor:
    return image.new_empty(max(len(image), len(points)), image.shape[1], *spatial(points))


def _compiled_warp_pick(moving: Tensor, displacement: Tensor, affine: Tensor | None, background: float, share: bool) -> Tensor:
    """(B, C, *M) through (B, D, *S), as `warp_labels` with `share`, else as `warp_nearest`."""
    from warpwright.kernels import labels

    return labels.warp(moving, displacement, affine, background, share=share)


def _fake_warp_pick(moving: Tensor, displacement: Tensor, affine: Tensor | None, *_: Any) -> Tensor:
    return moving.new_empty(batch_of(affine, moving, displacement), moving.shape[1], *spatial(displacement))


_pick = as_operator("pick", _compiled_pick, fake=_fake_pick)
warp_pick = as_operator("warp_pick", _compiled_warp_pick, fake=_fake_warp_pick)
