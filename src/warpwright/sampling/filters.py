"""Separable averages, normalised at the border: near the edge a window counts only what it covers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from warpwright.geometry import spatial
from warpwright.kernels import as_operator, usable
from warpwright.sampling.separable import along_axes, box_matrix, gaussian_matrix

__all__ = ["box_sum", "gaussian", "gaussian_sum", "gaussian_zero_padded"]


def gaussian(field: Tensor, sigma: Sequence[float]) -> Tensor:
    """Gaussian average of every channel.

    Args:
        field: (B, C, *S).
        sigma: standard deviation along each axis, voxels; 0 leaves an axis as it is.

    Returns:
        (B, C, *S).
    """
    return _filtered(field, [_gaussian(n, float(s), True) for n, s in zip(spatial(field), sigma, strict=True)])


def gaussian_sum(field: Tensor, sigma: Sequence[float]) -> Tensor:
    """Sum under a Gaussian of height one, cut at the border: its own adjoint. Arguments as `gaussian`."""
    return _filtered(field, [_gaussian(n, float(s), False) for n, s in zip(spatial(field), sigma, strict=True)])


def gaussian_zero_padded(field: Tensor, sigma: Sequence[float]) -> Tensor:
    """Gaussian average that counts zeros outside the image, cut at two standard deviations. Arguments as `gaussian`.

    Its own adjoint; what GradICON's code smooths with, for results that are to be compared. `gaussian` is right at the border.
    """
    return _filtered(field, [_zero_padded(n, float(s)) for n, s in zip(spatial(field), sigma, strict=True)])


def box_sum(field: Tensor, radius: Sequence[int]) -> Tensor:
    """Sum over the box of 2 radius + 1 voxels along each axis, cut at the border: (B, C, *S) to (B, C, *S)."""
    return _filtered(field, [_box(n, r) for n, r in zip(spatial(field), radius, strict=True)])


class _Window(NamedTuple):
    """A symmetric window along one axis: as a matrix (n, n), and as `after[i] sum_k taps[|k|] f[i + k]`; float64."""

    matrix: Tensor | None  # None where it does nothing
    taps: Tensor
    before: Tensor
    after: Tensor


@lru_cache(maxsize=64)
def _gaussian(n: int, sigma: float, mean: bool) -> _Window:
    return _window(n, gaussian_matrix(n, sigma, mean=False) if sigma > 0 and n > 1 else None, mean)


@lru_cache(maxsize=64)
def _zero_padded(n: int, sigma: float) -> _Window:
    if sigma <= 0:
        return _window(n, None, False)
    apart = torch.arange(int(2 * sigma) + 1, dtype=torch.float64)
    heights = torch.exp(-0.5 * (apart / sigma) ** 2)
    heights = heights / (2 * heights.sum() - heights[0])
    heights = torch.cat([heights, heights.new_zeros(max(n - len(heights), 0))])[:n]
    at = torch.arange(n)
    return _window(n, heights[(at[:, None] - at).abs()], False)


@lru_cache(maxsize=64)
def _box(n: int, radius: int) -> _Window:
    return _window(n, box_matrix(n, radius) if radius > 0 else None, False)


def _window(n: int, sums: Tensor | None, mean: bool) -> _Window:
    """Of a matrix of sums, whose averages are wanted if `mean`."""
    with torch.inference_mode(False):  # a cached inference tensor could not be used for a gradient later
        ones = torch.ones(n, dtype=torch.float64)
        if sums is None:
            return _Window(None, ones[:1], ones, ones)
        sums = sums.clone()
        taps = sums[0, : int((sums[0] != 0).sum())]
        after = 1 / sums.sum(1) if mean else ones
        return _Window(sums * after[:, None], taps, ones, after)


def _filtered(field: Tensor, windows: Sequence[_Window]) -> Tensor:
    if all(w.matrix is None for w in windows):
        return field
    if not usable(field):
        return along_axes(field, [w.matrix for w in windows])
    return _windowed(field, [w.taps for w in windows], [w.before for w in windows], [w.after for w in windows])


def _compiled(field: Tensor, taps: list[Tensor], before: list[Tensor], after: list[Tensor]) -> Tensor:
    from warpwright.kernels import separable

    return separable.window(field, taps, before, after)


def _fake(field: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(field, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.taps, ctx.before, ctx.after = inputs


def _backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
    nothing = [None] * len(ctx.taps)
    return _windowed(cotangent, ctx.taps, ctx.after, ctx.before), nothing, nothing, nothing  # the transpose


_windowed = as_operator("window", _compiled, fake=_fake, backward=_backward, save=_save)
