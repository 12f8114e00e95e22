"""The smooth field nearest to a given one: `(I + s L) v = u` with the Laplacian L of neighbours, mirrored at the border.

`s` is the square of the length that is smoothed over. Cosines are the eigenvectors of L, so this is exact and takes as long for
any length (a screened Poisson equation).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from warpwright.geometry import spatial
from warpwright.sampling import gaussian

__all__ = ["blurred", "screened"]


def screened(field: Tensor, square: Tensor | float) -> Tensor:
    """The v that minimises `|v - u|^2 + s |grad v|^2`, by the type II discrete cosine transform along every axis.

    Args:
        field: (B, C, *S), u.
        square: s >= 0, voxels squared; a tensor () is differentiated.

    Returns:
        (B, C, *S).
    """
    shape = spatial(field)
    waves = [_waves(n).to(field) for n in shape]
    stiffness = torch.zeros((), dtype=field.dtype, device=field.device)
    for axis, n in enumerate(shape):
        along = _stiffness(n).to(field).reshape(-1, *(1,) * (len(shape) - 1 - axis))
        stiffness = stiffness + along
    found = field
    for axis, wave in enumerate(waves):
        found = _along(found, wave, axis)
    found = found / (1 + square * stiffness)
    for axis, wave in enumerate(waves):
        found = _along(found, wave.T, axis)
    return found


def blurred(field: Tensor, square: Tensor | float) -> Tensor:
    """A Gaussian average in the place of `screened`, with the same second moments (variance 2 s): cheaper, not the minimum.

    Args:
        field: (B, C, *S).
        square: s >= 0, voxels squared; it is not differentiated.
    """
    return gaussian(field, [math.sqrt(2 * float(square))] * (field.ndim - 2))


def _along(field: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """A matrix (n, n) applied along a spatial axis."""
    if axis == field.ndim - 3:
        return field @ matrix.T
    return torch.movedim(torch.movedim(field, axis + 2, -1) @ matrix.T, -1, axis + 2)


@lru_cache(maxsize=32)
def _waves(n: int) -> Tensor:
    """Orthonormal cosines (n, n), float64, a row for each frequency."""
    with torch.inference_mode(False):  # a cached inference tensor could not be used for a gradient later
        at = torch.arange(n, dtype=torch.float64)
        waves = torch.cos(math.pi / n * at[:, None] * (at + 0.5)) * math.sqrt(2 / n)
        return torch.cat([waves[:1] / math.sqrt(2), waves[1:]])


@lru_cache(maxsize=32)
def _stiffness(n: int) -> Tensor:
    """Eigenvalues of the second difference along an axis, (n,) float64."""
    with torch.inference_mode(False):
        return 2 - 2 * torch.cos(math.pi / n * torch.arange(n, dtype=torch.float64))
