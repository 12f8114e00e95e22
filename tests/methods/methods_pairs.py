"""Pairs of textured images with a known map between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from oracles.make import smooth_field
from warpwright.geometry import Grid, Image
from warpwright.methods import Settings, SimilarityName, TransformName, preset
from warpwright.sampling import gaussian, warp
from warpwright.transforms import Affine, Transform, displacement_on, resample

SHAPE = (48, 40)
SPACING = (0.7, 1.3)
SHAPE_3D = (28, 32, 24)
SPACING_3D = (1.1, 0.7, 1.4)


def texture(shape: tuple[int, ...], *, sigma: float = 2.0, seed: int = 5, channels: int = 1) -> Tensor:
    """(C, *shape) float32 smooth noise between 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, channels, *shape, generator=generator, dtype=torch.float64)
    smooth = gaussian(noise, [sigma] * len(shape))[0]
    low, high = (f(smooth.flatten(1), dim=1).reshape(-1, *(1,) * len(shape)) for f in (torch.amin, torch.amax))
    return ((smooth - low) / (high - low)).float()


def regular(shape: tuple[int, ...]) -> Grid:
    return Grid.regular(shape, SPACING if len(shape) == 2 else SPACING_3D)


def warped_pair(shape: tuple[int, ...], size: float = 2.0) -> tuple[Image, Image, Tensor]:
    """Fixed, moving, and the displacement (1, D, *S), voxels, with `fixed(x) = moving(x + u(x))`."""
    moving = texture(shape)[None]
    displacement = smooth_field(shape, size).float()
    grid = regular(shape)
    return Image(warp(moving, displacement)[0], grid, "fixed"), Image(moving[0], grid, "moving"), displacement


def blobs(grid: Grid, centre: np.ndarray | None = None) -> Image:
    """An object without symmetry, some Gaussians of different size, height and place, around a world point (mm)."""
    generator = np.random.default_rng(7)
    extent = np.asarray(grid.shape) * np.asarray(grid.spacing)
    middle = grid.centre if centre is None else centre
    voxels = torch.tensor(np.indices(grid.shape).reshape(grid.dim, -1).T, dtype=torch.float64)
    points = grid.to_world(voxels).numpy()
    total = np.zeros(len(points))
    for _ in range(12):
        place = middle + generator.uniform(-0.22, 0.22, grid.dim) * extent.mean()
        width = generator.uniform(0.05, 0.12) * extent.mean()
        total += generator.uniform(0.4, 1.0) * np.exp(-((points - place) ** 2).sum(1) / (2 * width**2))
    return Image(torch.tensor(total.reshape(1, *grid.shape), dtype=torch.float32), grid, "blobs")


def small(
    transform: TransformName,
    similarity: SimilarityName = "mse",
    *,
    spacing: tuple[float, ...] = SPACING,
    initialise: str = "none",
    levels: tuple[int, ...] = (4, 2, 1),
    steps: tuple[int, ...] = (30, 30, 20),
) -> Settings:
    """A preset with few steps."""
    settings = preset("balanced", spacing, transform=transform, similarity=similarity, initialise=initialise)  # pyright: ignore
    return replace(settings, levels=levels, steps=steps)


def inner(tensor: Tensor, border: int = 4) -> Tensor:
    """(B, C, *S) without its border."""
    return tensor[(slice(None), slice(None), *(slice(border, -border),) * (tensor.ndim - 2))]


def voxel_error(transform: Transform, truth: Tensor, grid: Grid) -> Tensor:
    """(1, 1, *S inside) distance of a map to the true displacement, voxels of the fixed grid."""
    return inner((displacement_on(transform, grid)[None] - truth).norm(dim=1, keepdim=True))


def seen_through(image: Image, matrix: np.ndarray, grid: Grid) -> Image:
    """The fixed image whose registration to `image` is the affine `matrix`."""
    return resample(image, Affine(matrix), grid)
