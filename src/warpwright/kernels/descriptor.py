"""MIND-SSC descriptors, and the mean squared difference of two images' descriptors with its gradient.

What a plane does to the gradient reaches planes of other slabs: each slab keeps that apart, to be added in order.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from torch import Tensor, from_numpy

from warpwright.kernels import sweeps
from warpwright.kernels.layout import as_volume, axes_of, empty, to_tensor
from warpwright.kernels.reduction import total
from warpwright.kernels.slabs import GRAIN, ordered_sum, over_slabs

__all__ = ["mind", "similarity"]

HEIGHT = 16  # planes of a slab, at least


class _Pairs(NamedTuple):
    """(N, 3) neighbours and (K, 2) pairs of them, see `patches`; radius and dilation of planes, rows and voxels."""

    starts: np.ndarray
    pairs: np.ndarray
    radius: np.ndarray
    dilation: np.ndarray


def mind(image: Tensor, radius: tuple[int, ...], dilation: tuple[int, ...], bounds: tuple[float, float]) -> Tensor:
    """Descriptors (B, C * K, *S) of an image (B, C, *S). See `energies.similarity.mind`."""
    images, pairs = as_volume(image), _pairs(radius, dilation)
    batch, channels, *shape = images.shape
    out = empty((batch, channels, len(pairs.pairs), *shape), images)
    for volume, described in zip(images.reshape(-1, *shape), out.reshape(-1, *out.shape[2:]), strict=True):
        padded = _padded(volume, pairs.dilation)
        typical = _typical(padded, volume.shape, pairs, volume[:0], _spill(volume[:0], volume.shape, pairs))
        over_slabs(sweeps.describe, volume.shape, volume.shape, padded, *pairs[:3], typical, bounds, described)
    return to_tensor(out.reshape(batch, -1, *shape), tuple(image.shape[2:]))


def similarity(
    moved: Tensor,
    fixed: Tensor,
    weight: Tensor | None,
    radius: tuple[int, ...],
    dilation: tuple[int, ...],
    bounds: tuple[float, float],
    *,
    gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Weighted mean squared difference of descriptors, and its gradient in the moved image.

    Args:
        moved: (B, C, *S).
        fixed: (B, C, *S).
        weight: (B or 1, 1, *S), >= 0; None for one everywhere.
        radius: of the patch along each axis, voxels.
        dilation: distance of the neighbours along each axis, voxels.
        bounds: of V, in units of its mean.
        gradient: whether it is wanted.

    Returns:
        (B,) energies and (B, C, *S) gradient, or (0, C, *S).
    """
    images, others = as_volume(moved), as_volume(fixed)
    pairs = _pairs(radius, dilation)
    batch, channels, *shape = images.shape
    weights = images[:1, :1, :, :, :0] if weight is None else as_volume(weight)
    sizes = np.full(batch, float(np.prod(shape))) if weight is None else np.resize(total(weight).numpy(), batch)
    energy = np.zeros(batch)
    out = np.zeros((batch if gradient else 0, *images.shape[1:]), images.dtype)
    for b, c in np.ndindex(batch, channels):
        factor = 1 / (channels * len(pairs.pairs) * float(sizes[b])) if sizes[b] > 0 else 0.0
        by = out[b, c] if gradient else out.reshape(0, *shape[1:])
        energy[b] += factor * _compared(images[b, c], others[b, c], weights[b % len(weights), 0], pairs, bounds, factor, by)
    return from_numpy(energy.astype(images.dtype)), to_tensor(out, tuple(moved.shape[2:]))


def _compared(
    moved: np.ndarray,
    fixed: np.ndarray,
    weight: np.ndarray,
    pairs: _Pairs,
    bounds: tuple[float, float],
    factor: float,
    out: np.ndarray,
) -> float:
    """Weighted sum of squared differences of two volumes; `factor` times its gradient is added to `out` if there is one."""
    shape, height = moved.shape, _height(moved.shape)
    images = _padded(moved, pairs.dilation), _padded(fixed, pairs.dilation)
    through, spill = np.zeros(out.shape, out.dtype), _spill(out, shape, pairs)
    through_spill = np.zeros_like(spill)
    means = _typical(images[0], shape, pairs, through, through_spill), _typical(images[1], shape, pairs, out[:0], spill[:, :0])
    partial = np.zeros((2, shape[0]))
    args = (*images, weight, *pairs, means, bounds, factor, partial, out, spill)
    over_slabs(sweeps.compare, shape, height, shape, *args, height=height)
    energy, leak = ordered_sum(partial)
    if len(out):
        rest = moved.dtype.type(leak / moved.size)
        over_slabs(sweeps.gather, shape, height, spill, through, through_spill, rest, out)
    return energy


def _pairs(radius: tuple[int, ...], dilation: tuple[int, ...]) -> _Pairs:
    axes = axes_of(len(radius))
    windows, steps = np.zeros(3, np.int64), np.zeros(3, np.int64)
    windows[list(axes)], steps[list(axes)] = radius, dilation
    places = [(axis, side) for axis in axes for side in (-1, 1)]
    starts = np.array([steps + side * steps * (np.arange(3) == axis) for axis, side in places])
    pairs = [(i, j) for i, j in combinations(range(len(places)), 2) if places[i][0] != places[j][0]]
    return _Pairs(starts, np.array(pairs), windows, steps)


def _height(shape: tuple[int, ...]) -> int:
    return max(HEIGHT, GRAIN // max(1, shape[1] * shape[2]))


def _spill(out: np.ndarray, shape: tuple[int, ...], pairs: _Pairs) -> np.ndarray:
    """(slabs, 2 halo, Y, X) zeros for a gradient, halo 0 where there is none."""
    halo = int(pairs.radius[0] + pairs.dilation[0]) if len(out) else 0
    return np.zeros((-(-shape[0] // _height(shape)), 2 * halo, *shape[1:]), out.dtype)


def _padded(volume: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """(Z, Y, X) with its border repeated `margin` times on either side of each axis."""
    out = np.empty([n + 2 * m for n, m in zip(volume.shape, margin, strict=True)], volume.dtype)
    over_slabs(sweeps.pad, out.shape, volume, margin, out)
    return out


def _typical(padded: np.ndarray, shape: tuple[int, ...], pairs: _Pairs, out: np.ndarray, spill: np.ndarray) -> np.floating:
    """Mean of V over a volume; the gradient of its sum is added to `out` unless that is empty."""
    partial, height = np.zeros(shape[0]), _height(shape)
    over_slabs(sweeps.variance, shape, height, shape, padded, *pairs, partial, out, spill, height=height)
    return out.dtype.type(ordered_sum(partial) / np.prod(shape))
