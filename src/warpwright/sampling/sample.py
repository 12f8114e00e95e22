"""Reading an image between its voxels, and the adjoint. The only place with normalised coordinates.

Points are voxels in axis order. `outside="edge"` repeats the border voxel; `outside="zero"` fades to zero over one voxel
beyond the outermost centres (what a zero-padded image gives). Whether a point lies inside the image, up to half a voxel
beyond the outermost centres (ITK's rule), is asked with `inside`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from warpwright.geometry import full_precision

__all__ = ["Outside", "inside", "sample", "sample_labels", "sample_nearest", "splat"]

Outside = Literal["edge", "zero"]

BLOCK = 1 << 17  # points whose 2^D corner labels exist at one time


def sample(image: Tensor, points: Tensor, *, outside: Outside = "edge") -> Tensor:
    """Linear interpolation of an image at points; differentiable, twice, in both.

    Args:
        image: (B, C, *S).
        points: (B, D, *T), voxels of the image, axis order; B may be 1 for either argument.
        outside: what the image is beyond its border.

    Returns:
        (B, C, *T) in the dtype of the image.
    """
    batch = max(len(image), len(points))
    image, points = image.expand(batch, *image.shape[1:]), points.expand(batch, *points.shape[1:])
    flat = points.flatten(2).reshape(batch, points.shape[1], -1)
    slabs = _slabs(flat.shape[2]) if batch == 1 and not image.requires_grad else 1
    if slabs > 1:  # grid_sample works on one thread for each sample of a batch: give it the points in slabs
        flat = flat.reshape(flat.shape[1], slabs, -1).transpose(0, 1)
        out = _grid_sample(image.expand(slabs, *image.shape[1:]), flat, outside).transpose(0, 1)
    else:
        out = _grid_sample(image, flat, outside)
    return out.reshape(batch, image.shape[1], *points.shape[2:])


def _slabs(count: int) -> int:
    threads = torch.get_num_threads()
    return threads if count > 4096 and count % threads == 0 else 1


def _grid_sample(image: Tensor, points: Tensor, outside: Outside) -> Tensor:
    """`points` is (B, D, N)."""
    dim = points.shape[1]
    with full_precision(points):
        size = image.shape[2:]
        grid = torch.stack([(2 * points[:, d] + 1) / size[d] - 1 for d in reversed(range(dim))], -1)  # normalised coordinates
        grid = grid.reshape(len(grid), *(1,) * (dim - 1), -1, dim)
        out = F.grid_sample(
            image.to(points.dtype), grid, "bilinear", "border" if outside == "edge" else "zeros", align_corners=False
        )
    return out.flatten(2).to(image.dtype)


def sample_nearest(image: Tensor, points: Tensor) -> Tensor:
    """The voxel nearest to each point (halves round up, as in ITK); points outside take the nearest border voxel.

    Args:
        image: (B, C, *S), any dtype.
        points: (B, D, *T), voxels.

    Returns:
        (B, C, *T) in the dtype of the image.
    """
    batch = max(len(image), len(points))
    index = torch.zeros(points.shape[0], *points.shape[2:], dtype=torch.long, device=points.device)
    for axis, n in enumerate(image.shape[2:]):
        index = index * n + (points[:, axis] + 0.5).floor().clamp(0, n - 1).long()
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
    batch, shape = max(len(labels), len(points)), tuple(labels.shape[2:])
    flat = labels.flatten(2).expand(batch, -1, -1)
    limit = torch.tensor(shape, dtype=points.dtype, device=points.device)[:, None] - 1
    parts: list[Tensor] = []
    where = points.expand(batch, *points.shape[1:]).flatten(2)
    for begin in range(0, where.shape[2], BLOCK):
        at = where[:, :, begin : begin + BLOCK]
        corners = list(_corners(torch.minimum(at.clamp_min(0), limit), shape))
        values = torch.stack([flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)) for index, _ in corners])
        weights = torch.stack([weight[:, None] for _, weight in corners]).expand(values.shape)
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


def inside(points: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Which points lie in the image, up to half a voxel beyond the outermost centres: (B, D, *T) to bool (B, 1, *T)."""
    size = torch.tensor(shape, dtype=points.dtype, device=points.device).reshape(1, -1, *(1,) * (points.ndim - 2))
    return ((points >= -0.5) & (points < size - 0.5)).all(1, keepdim=True)


def splat(values: Tensor, points: Tensor, shape: tuple[int, ...], *, outside: Outside = "edge") -> Tensor:
    """Adjoint of `sample` in its image: every value is dealt out to the voxels around its point.

    Args:
        values: (B, C, *T).
        points: (B, D, *T), voxels of the target.
        shape: S, the target's spatial shape.
        outside: must be what the adjoint `sample` has.

    Returns:
        (B, C, *S), with `sum(sample(a, p) * b) == sum(a * splat(b, p, S))`.
    """
    batch, channels = values.shape[:2]
    points = points.expand(batch, *points.shape[1:]).flatten(2)
    if outside == "edge":
        limit = torch.tensor(shape, dtype=points.dtype, device=points.device)[:, None] - 1
        points = torch.minimum(points.clamp_min(0), limit)
    flat = values.flatten(2)
    count = int(torch.tensor(shape).prod())
    out = values.new_zeros(batch * channels, count)
    rows = torch.arange(batch * channels, device=values.device)[:, None] * count
    for index, weight in _corners(points, shape):
        dealt = (flat * weight[:, None]).reshape(batch * channels, -1)
        where = index[:, None].expand(batch, channels, -1).reshape(batch * channels, -1) + rows
        out = out.reshape(-1).index_add(0, where.reshape(-1), dealt.reshape(-1)).reshape(batch * channels, count)
    return out.reshape(batch, channels, *shape)


def _corners(points: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    """The 2^D voxels around each of (B, D, N) points: flat index and linear weight, (B, N) each; outside weighs zero."""
    base = points.detach().floor()
    fraction = points - base
    for corner in product((0, 1), repeat=len(shape)):
        weight = torch.ones_like(fraction[:, 0])
        index = torch.zeros_like(base[:, 0], dtype=torch.long)
        for axis, (bit, n) in enumerate(zip(corner, shape, strict=True)):
            at = base[:, axis].long() + bit
            weight = weight * (fraction[:, axis] if bit else 1 - fraction[:, axis]) * ((at >= 0) & (at < n))
            index = index * n + at.clamp(0, n - 1)
        yield index, weight
