"""Inputs of tests: random and smooth fields, oblique and flipped affines, permuted axes."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import torch
from torch import Tensor


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def smooth_field(shape: tuple[int, ...], size: float, channels: int | None = None) -> Tensor:
    """(1, C, *shape) sines of different frequency and phase, at most `size`, zero at the border of the image."""
    axes = [torch.linspace(0, torch.pi, n, dtype=torch.float64) for n in shape]
    places = torch.meshgrid(*axes, indexing="ij")
    window = torch.stack([place.sin() for place in places]).prod(0)
    count = len(shape) if channels is None else channels
    waves = [torch.stack([(p * (1 + 0.3 * c) + c + k).sin() for k, p in enumerate(places)]).mean(0) for c in range(count)]
    return (size * torch.stack(waves) * window)[None]


def rotation(dim: int, angle: float) -> np.ndarray:
    """A rotation that mixes all axes."""
    out = np.eye(dim)
    for i in range(dim - 1):
        turn = np.eye(dim)
        turn[i, i] = turn[i + 1, i + 1] = np.cos(angle * (i + 1))
        turn[i, i + 1], turn[i + 1, i] = -np.sin(angle * (i + 1)), np.sin(angle * (i + 1))
        out = out @ turn
    return out


def homogeneous(linear: np.ndarray, shift: np.ndarray | tuple[float, ...]) -> np.ndarray:
    out = np.eye(len(linear) + 1)
    out[:-1, :-1], out[:-1, -1] = linear, shift
    return out


def oblique(spacing: tuple[float, ...], angle: float = 0.4) -> np.ndarray:
    """Rotated, with the first axis flipped, away from the origin."""
    dim = len(spacing)
    flip = np.diag([-1.0, *(1.0,) * (dim - 1)])
    return homogeneous(rotation(dim, angle) @ flip @ np.diag(spacing), np.array([3.0, -2.0, 5.0])[:dim])


def orders(dim: int) -> list[tuple[int, ...]]:
    """Every order of the axes but the given one."""
    return list(permutations(range(dim)))[1:]


def permute_image(field: Tensor, order: tuple[int, ...]) -> Tensor:
    """(B, C, *S) with its spatial axes in another order."""
    return field.permute(0, 1, *(2 + k for k in order))


def permute_field(field: Tensor, order: tuple[int, ...]) -> Tensor:
    """(B, D, *S) displacement (or points) with axes and components in another order."""
    return permute_image(field, order)[:, list(order)]


def permute_affine(matrix: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """A homogeneous matrix between points whose components are both put in another order."""
    both = [*order, len(order)]
    return matrix[np.ix_(both, both)]
