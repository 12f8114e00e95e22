"""Tensors as the arrays that kernels read: every image is a volume of planes, rows and voxels.

A picture of shape (H, W) is the volume (H, 1, W), so 2-D and 3-D are one path. Arrays share memory with the tensors.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "as_matrices",
    "as_vectors",
    "as_volume",
    "axes_of",
    "batch_of",
    "empty",
    "from_vectors",
    "samples",
    "to_tensor",
    "volume_shape",
]

AXES = {1: (2,), 2: (0, 2), 3: (0, 1, 2)}


def axes_of(dim: int) -> tuple[int, ...]:
    """Where the axes of a D-dimensional image are among planes, rows and voxels."""
    return AXES[dim]


def volume_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(Z, Y, X) of a spatial shape."""
    out = [1, 1, 1]
    for axis, n in zip(AXES[len(shape)], shape, strict=True):
        out[axis] = n
    return out[0], out[1], out[2]


def as_volume(tensor: Tensor) -> np.ndarray:
    """(B, C, *S) to (B, C, Z, Y, X)."""
    return tensor.detach().contiguous().numpy().reshape(*tensor.shape[:2], *volume_shape(tuple(tensor.shape[2:])))


def as_vectors(field: Tensor) -> np.ndarray:
    """Vectors (B, D, *S) to (B, 3, Z, Y, X), zero along axes that the image does not have."""
    volume = as_volume(field)
    dim = field.shape[1]
    if dim == 3:
        return volume
    out = np.zeros((len(volume), 3, *volume.shape[2:]), volume.dtype)
    out[:, AXES[dim]] = volume
    return out


def from_vectors(array: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """Vectors (B, 3, Z, Y, X) to (B, D, *shape)."""
    dim = len(shape)
    chosen = array if dim == 3 else np.ascontiguousarray(array[:, AXES[dim]])
    return torch.from_numpy(chosen.reshape(len(array), dim, *shape))


def to_tensor(array: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """(B, C, Z, Y, X) to (B, C, *shape)."""
    return torch.from_numpy(array.reshape(*array.shape[:2], *shape))


def samples(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Sample after sample of arrays (B, ...) or (1, ...).

    Raises:
        ValueError: two of them have different lengths above one.
    """
    batch = max(len(array) for array in arrays)
    if any(len(array) not in (1, batch) for array in arrays):
        raise ValueError(f"batches of {sorted({len(array) for array in arrays})} do not go together, expected one size or 1")
    for b in range(batch):
        yield tuple(array[b % len(array)] for array in arrays)


def batch_of(affine: Tensor | None, *arrays: np.ndarray | Tensor) -> int:
    """The largest batch of some arrays and of an affine, (D+1, D+1) or (B, D+1, D+1)."""
    return max(1 if affine is None or affine.ndim == 2 else len(affine), *(len(array) for array in arrays))


def as_matrices(affine: Tensor | None, batch: int, dim: int) -> np.ndarray:
    """Voxel matrices (D+1, D+1) or (B, D+1, D+1), None for the identity, to (batch, 3, 4) float64."""
    out = np.zeros((batch, 3, 4))
    out[:] = np.eye(4)[:3]
    if affine is not None:
        rows = affine.detach().to(torch.float64).cpu().reshape(-1, dim + 1, dim + 1).numpy()[:, :dim]
        axes = AXES[dim]
        out[np.ix_(range(batch), axes, (*axes, 3))] = rows
    return out


def empty(shape: tuple[int, ...], like: np.ndarray) -> np.ndarray:
    """Memory for an output. From numpy, which asks for huge pages: what torch allocates costs more to touch than to fill."""
    return np.empty(shape, like.dtype)
