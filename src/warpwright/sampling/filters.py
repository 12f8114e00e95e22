"""Separable averages, normalised at the border: near the edge a window counts only what it covers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from warpwright.geometry import spatial
from warpwright.sampling.separable import along_axes, box_matrix, gaussian_matrix

__all__ = ["box_sum", "gaussian", "gaussian_sum"]


@lru_cache(maxsize=64)
def _gaussian(n: int, sigma: float, mean: bool) -> Tensor | None:
    with torch.inference_mode(False):  # a cached inference tensor could not be used for a gradient later
        return gaussian_matrix(n, sigma, mean=mean) if sigma > 0 and n > 1 else None


@lru_cache(maxsize=64)
def _box(n: int, radius: int) -> Tensor:
    with torch.inference_mode(False):
        return box_matrix(n, radius)


def gaussian(field: Tensor, sigma: Sequence[float]) -> Tensor:
    """Gaussian average of every channel.

    Args:
        field: (B, C, *S).
        sigma: standard deviation along each axis, voxels; 0 leaves an axis as it is.

    Returns:
        (B, C, *S).
    """
    return along_axes(field, [_gaussian(n, float(s), True) for n, s in zip(spatial(field), sigma, strict=True)])


def gaussian_sum(field: Tensor, sigma: Sequence[float]) -> Tensor:
    """Sum under a Gaussian of height one, cut at the border: its own adjoint. Arguments as `gaussian`."""
    return along_axes(field, [_gaussian(n, float(s), False) for n, s in zip(spatial(field), sigma, strict=True)])


def box_sum(field: Tensor, radius: Sequence[int]) -> Tensor:
    """Sum over the box of 2 radius + 1 voxels along each axis, cut at the border: (B, C, *S) to (B, C, *S)."""
    return along_axes(field, [_box(n, r) if r else None for n, r in zip(spatial(field), radius, strict=True)])
