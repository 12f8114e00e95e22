"""Slow and obvious implementations, in NumPy loops, that share nothing with the package."""

from __future__ import annotations

from itertools import product

import numpy as np


def floor_weights(point: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """The 2^D voxels around a point with their linear weights."""
    base = np.floor(point).astype(int)
    out = []
    for corner in product((0, 1), repeat=len(point)):
        weight = np.prod([f if bit else 1 - f for bit, f in zip(corner, point - base, strict=True)])
        out.append((tuple(int(i) for i in base + corner), float(weight)))
    return out


def read_linear(image: np.ndarray, point: np.ndarray, outside: str) -> float:
    """Linear interpolation of (*S) at a (D,) point."""
    total = 0.0
    for index, weight in floor_weights(point):
        if outside == "edge":
            index = tuple(min(max(i, 0), n - 1) for i, n in zip(index, image.shape, strict=True))
        if all(0 <= i < n for i, n in zip(index, image.shape, strict=True)):
            total += weight * float(image[index])
    return total


def splat(values: np.ndarray, points: np.ndarray, shape: tuple[int, ...], outside: str) -> np.ndarray:
    """(N,) values dealt out at (N, D) points."""
    out = np.zeros(shape)
    for value, point in zip(values, points, strict=True):
        for index, weight in floor_weights(point):
            if outside == "edge":
                index = tuple(min(max(i, 0), n - 1) for i, n in zip(index, shape, strict=True))
            if all(0 <= i < n for i, n in zip(index, shape, strict=True)):
                out[index] += weight * value
    return out


def gaussian(image: np.ndarray, sigma: tuple[float, ...], truncate: float = 3.0) -> np.ndarray:
    """Gaussian average of (*S), each window normalised by what it covers."""
    out = image
    for axis, s in enumerate(sigma):
        if s == 0 or image.shape[axis] == 1:
            continue
        n, radius, previous = image.shape[axis], int(truncate * s), np.moveaxis(out, axis, 0)
        result = np.zeros_like(previous)
        for i in range(n):
            near = range(max(0, i - radius), min(n, i + radius + 1))
            weights = [np.exp(-((j - i) ** 2) / (2 * s * s)) for j in near]
            result[i] = sum(w * previous[j] for w, j in zip(weights, near, strict=True)) / sum(weights)
        out = np.moveaxis(result, 0, axis)
    return out


def box_sum(image: np.ndarray, radius: tuple[int, ...]) -> np.ndarray:
    out = np.zeros_like(image)
    for index in np.ndindex(image.shape):
        window = tuple(slice(max(0, i - r), i + r + 1) for i, r in zip(index, radius, strict=True))
        out[index] = image[window].sum()
    return out
