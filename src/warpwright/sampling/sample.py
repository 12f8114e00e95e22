"""Reading an image between its voxels, and the adjoint. The only place with normalised coordinates (in the plain twins).

Points are voxels in axis order. `outside="edge"` repeats the border voxel; `outside="zero"` fades to zero over one voxel
beyond the outermost centres (what a zero-padded image gives). Whether a point lies inside the image, up to half a voxel
beyond the outermost centres (ITK's rule), is asked with `inside`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from warpwright.geometry import full_precision, spatial
from warpwright.kernels import as_operator, usable

__all__ = ["Outside", "corners", "inside", "sample", "splat"]

Outside = Literal["edge", "zero"]
FAR = 1e6  # voxels, beyond any image


def sample(image: Tensor, points: Tensor, *, outside: Outside = "edge") -> Tensor:
    """Linear interpolation of an image at points; differentiable, twice, in both.

    Args:
        image: (B, C, *S).
        points: (B, D, *T), voxels of the image, axis order; B may be 1 for either argument.
        outside: what the image is beyond its border.

    Returns:
        (B, C, *T) in the dtype of the image.
    """
    return (_sample if usable(image, points) else _plain_sample)(image, points, outside)


def _plain_sample(image: Tensor, points: Tensor, outside: Outside) -> Tensor:
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
        known = points.nan_to_num(0.0, FAR, -FAR)  # grid_sample writes anywhere for a point that is no number
        grid = torch.stack([(2 * known[:, d] + 1) / size[d] - 1 for d in reversed(range(dim))], -1)  # normalised coordinates
        grid = grid.reshape(len(grid), *(1,) * (dim - 1), -1, dim)
        out = F.grid_sample(
            image.to(points.dtype), grid, "bilinear", "border" if outside == "edge" else "zeros", align_corners=False
        )
        lost = (points.detach() * 0).sum(
            1, keepdim=True
        )  # not a number where a point is none, which grid_sample calls a border
    return (out.flatten(2) + lost).to(image.dtype)


def _compiled_sample(image: Tensor, points: Tensor, outside: str) -> Tensor:
    from warpwright.kernels import splatting

    return splatting.sample(image, points, zero=outside == "zero")


def _fake_sample(image: Tensor, points: Tensor, _: str) -> Tensor:
    return image.new_empty(max(len(image), len(points)), image.shape[1], *spatial(points))


def _compiled_gradient(cotangent: Tensor, image: Tensor, points: Tensor, outside: str) -> Tensor:
    from warpwright.kernels import splatting

    return splatting.sample_gradient(cotangent, image, points, zero=outside == "zero")


def _fake_gradient(cotangent: Tensor, image: Tensor, points: Tensor, outside: str) -> Tensor:
    return points.new_empty(len(cotangent), *points.shape[1:])


def _sample_backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    (image, points), (outside,) = ctx.saved_tensors, ctx.settings
    by_image = by_points = None
    if ctx.needs_input_grad[0]:
        by_image = _splat(cotangent, points, list(spatial(image)), outside).sum_to_size(image.shape)
    if ctx.needs_input_grad[1]:
        by_points = _sample_gradient(cotangent, image, points, outside).sum_to_size(points.shape)
    return by_image, by_points


_sample_gradient = as_operator("sample_gradient", _compiled_gradient, fake=_fake_gradient)
_sample = as_operator("sample", _compiled_sample, fake=_fake_sample, backward=_sample_backward, twin=_plain_sample)


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
        (B, C, *S), with `sum(sample(a, p) * b) == sum(a * splat(b, p, S))`. Values that meet are added in the order of the
        points: on the CPU the bytes do not depend on the threads.
    """
    return (_splat if usable(values, points) else _plain_splat)(values, points, list(shape), outside)


def _plain_splat(values: Tensor, points: Tensor, shape: Sequence[int], outside: Outside) -> Tensor:
    batch, channels = values.shape[:2]
    points = points.expand(batch, *points.shape[1:]).flatten(2)
    if outside == "edge":
        limit = torch.tensor(shape, dtype=points.dtype, device=points.device)[:, None] - 1
        points = torch.minimum(points.clamp_min(0), limit)
    flat = values.flatten(2)
    count = int(torch.tensor(shape).prod())
    out = values.new_zeros(batch * channels, count)
    rows = torch.arange(batch * channels, device=values.device)[:, None] * count
    for index, weight in corners(points, shape):
        dealt = (flat * weight[:, None]).reshape(batch * channels, -1)
        where = index[:, None].expand(batch, channels, -1).reshape(batch * channels, -1) + rows
        out = out.reshape(-1).index_add(0, where.reshape(-1), dealt.reshape(-1)).reshape(batch * channels, count)
    return out.reshape(batch, channels, *shape)


def _compiled_splat(values: Tensor, points: Tensor, shape: Sequence[int], outside: str) -> Tensor:
    from warpwright.kernels import splatting

    return splatting.splat(values, points, tuple(shape), zero=outside == "zero")


def _fake_splat(values: Tensor, points: Tensor, shape: Sequence[int], _: str) -> Tensor:
    return values.new_empty(max(len(values), len(points)), values.shape[1], *shape)


def _splat_backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    (values, points), (_, outside) = ctx.saved_tensors, ctx.settings
    by_values = by_points = None
    if ctx.needs_input_grad[0]:
        by_values = _sample(cotangent, points, outside).sum_to_size(values.shape)
    if ctx.needs_input_grad[1]:
        by_points = _sample_gradient(values.expand(len(cotangent), *values.shape[1:]), cotangent, points, outside)
        by_points = by_points.sum_to_size(points.shape)
    return by_values, by_points


_splat = as_operator("splat", _compiled_splat, fake=_fake_splat, backward=_splat_backward, twin=_plain_splat)


def corners(points: Tensor, shape: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
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
