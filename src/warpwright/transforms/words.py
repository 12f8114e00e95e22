"""Maps in a few words, for a person at a prompt."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.geometry import Grid

__all__ = ["affine_text", "length_text"]


def affine_text(matrix: np.ndarray) -> str:
    """What a (D+1, D+1) affine does, mm: turning and stretching (from its polar decomposition) and where the origin goes."""
    dim = len(matrix) - 1
    if np.array_equal(matrix, np.eye(dim + 1)):
        return "identity"
    left, stretches, right = np.linalg.svd(matrix[:dim, :dim])
    rotation = left @ right
    if np.linalg.det(rotation) > 0:  # |R - I| = 2 sqrt(2) sin(angle / 2), in the plane and in space
        sine = min(float(np.linalg.norm(rotation - np.eye(dim))) / np.sqrt(8), 1.0)
        turning = f"turns by {_short(float(np.degrees(2 * np.arcsin(sine))))} degrees"
    else:
        turning = "mirrors"
    shift = ", ".join(_short(float(part)) for part in matrix[:dim, dim])
    least, most = _short(float(stretches[-1])), _short(float(stretches[0]))
    return f"{turning}, stretches by {least} to {most}, moves the origin by ({shift}) mm"


def length_text(vectors: Tensor, grid: Grid) -> str:
    """Mean and largest length, mm, of vectors (D, *S) in voxels of a grid."""
    matrix = torch.as_tensor(grid.affine[: grid.dim, : grid.dim].copy(), dtype=vectors.dtype, device=vectors.device)
    lengths = torch.einsum("ij,j...->i...", matrix, vectors.detach()).square().sum(0).sqrt()
    return f"{float(lengths.mean()):.3g} mm in the mean, {float(lengths.max()):.3g} mm at most"


def _short(value: float) -> str:
    return f"{round(value, 4) + 0.0:.4g}"
