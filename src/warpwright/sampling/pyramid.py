"""Coarser and finer: anti-aliased downsampling of images, resizing of displacements between grids of one box.

Coarse voxels are where `Grid.downsample` puts them, so nothing shifts by half a voxel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from warpwright.geometry import spatial
from warpwright.sampling.separable import along_axes, gaussian_matrix, linear_matrix

__all__ = ["downsample", "on_lattice", "resize_displacement"]

SMOOTHING = 0.5  # standard deviation of the anti-aliasing Gaussian, in coarse voxels


def downsample(image: Tensor, factors: Sequence[int]) -> Tensor:
    """Anti-aliased image on `Grid.downsample(factors)`.

    Args:
        image: (B, C, *S).
        factors: fine voxels to a coarse voxel along each axis; 1 leaves an axis as it is.

    Returns:
        (B, C, *ceil(S / factors)).
    """
    shape = [-(-n // k) for n, k in zip(spatial(image), factors, strict=True)]
    first = [(n - 1 - k * (m - 1)) / 2 for n, k, m in zip(spatial(image), factors, shape, strict=True)]
    return on_lattice(image, factors, first, shape)


def on_lattice(image: Tensor, factors: Sequence[int], first: Sequence[float], shape: Sequence[int]) -> Tensor:
    """Anti-aliased image on a lattice along its own axes; beyond the image its border is repeated.

    Args:
        image: (B, C, *S).
        factors: voxels of the image to one of the lattice along each axis.
        first: place of the lattice's first voxel along each axis, voxels of the image.
        shape: of the lattice.

    Returns:
        (B, C, *shape).
    """
    matrices: list[Tensor | None] = []
    for n, k, begin, m in zip(spatial(image), factors, first, shape, strict=True):
        places = (begin + k * torch.arange(m, dtype=torch.float64)).clamp(0, n - 1)
        if k > 1:
            matrices.append(gaussian_matrix(n, SMOOTHING * k, places))
        else:
            matrices.append(None if (begin, m) == (0, n) else linear_matrix(n, places))
    return along_axes(image, matrices)


def resize_displacement(
    displacement: Tensor,
    source: Sequence[float],
    shape: Sequence[int],
    target: Sequence[float],
    shift: Sequence[float] | None = None,
) -> Tensor:
    """A displacement on `grid.downsample(source)` as one on `grid.downsample(target)`.

    Args:
        displacement: (B, D, *T), voxels of the source level.
        source: downsampling factors of the source level; fractions place its voxels likewise, in the middle of the box.
        shape: spatial shape of the target level.
        target: downsampling factors of the target level.
        shift: fine voxels from the middle of the source level to that of the target level; None where they are one.

    Returns:
        (B, D, *shape), voxels of the target level: values are rescaled with the size of a voxel.
    """
    matrices: list[Tensor | None] = []
    scale: list[float] = []
    for n, m, k, j, apart in zip(spatial(displacement), shape, source, target, shift or (0.0,) * len(shape), strict=True):
        offset = (k * (n - 1) - j * (m - 1)) / 2 + apart
        places = (j * torch.arange(m, dtype=torch.float64) + offset) / k
        matrices.append(None if (k, n, offset) == (j, m, 0) else linear_matrix(n, places))
        scale.append(k / j)
    factor = torch.tensor(scale, dtype=displacement.dtype, device=displacement.device)
    return along_axes(displacement, matrices) * factor.reshape(1, -1, *(1,) * len(scale))
