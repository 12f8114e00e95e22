"""Images and maps that benchmarks make themselves, from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import read_labels
from warpwright.sampling import gaussian
from warpwright.transforms import Affine, DisplacementField, resample

__all__ = ["GRIDS", "affine_about", "brain_labels", "brains", "grid_of", "random_field", "random_pair"]

GRIDS = ("oblique", "flipped", "anisotropic", "permuted")
BRAINS = "brain_labelmaps_synthseg"
STEEPEST = 0.45  # largest |grad u| (spectral norm) of a field made here


def _turn(*degrees: float) -> np.ndarray:
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def grid_of(name: str, scale: float = 1.0) -> Grid:
    """A grid away from the origin whose axes lie as the name says; `scale` times as many voxels along each axis."""
    directions = {
        "oblique": _turn(17, -12, 23),
        "flipped": np.diag([-1.0, 1.0, -1.0]),
        "anisotropic": np.eye(3),
        "permuted": np.roll(np.eye(3), 1, axis=0) @ np.diag([1.0, -1.0, 1.0]),
    }
    spacing, shape = ((0.8, 1.1, 3.2), (40, 36, 20)) if name == "anisotropic" else ((1.2, 1.0, 1.4), (38, 42, 31))
    affine = np.eye(4)
    affine[:3, :3] = directions[name] * np.array(spacing)
    affine[:3, 3] = (-41.3, 17.25, 102.5)
    return Grid(tuple(round(n * scale) for n in shape), affine)


def affine_about(grid: Grid, angle: float = 12.0) -> Affine:
    """A turn, a stretch and a shift about the middle of a grid."""
    matrix = np.eye(4)
    matrix[:3, :3] = _turn(angle, -angle / 2, angle / 3) @ np.diag([1.08, 0.93, 1.03])
    matrix[:3, 3] = grid.centre - matrix[:3, :3] @ grid.centre + (2.3, -1.4, 1.8)
    return Affine(matrix)


def random_field(grid: Grid, sigma: float, generator: np.random.Generator, *, ends: bool = False) -> Tensor:
    """A smooth displacement whose steepest gradient is `STEEPEST`.

    Args:
        grid: where.
        sigma: of the Gaussian that makes white noise smooth, voxels.
        generator: of the noise.
        ends: whether the field fades to zero towards the border; else it goes on as if there were none.

    Returns:
        (D, *S) float32, voxels.
    """
    if ends:
        rises = [np.minimum(np.arange(n), np.arange(n)[::-1]) / sigma for n in grid.shape]
        from_border = np.stack(np.meshgrid(*rises, indexing="ij"))
        noise = generator.normal(size=(grid.dim, *grid.shape)) * (from_border.min(0) >= 2.5)
        window = np.sin(np.pi / 2 * from_border.clip(0, 1)).prod(0) ** 2
        field = np.stack([gaussian_filter(part, sigma) for part in noise]) * window
    else:
        pad = int(3 * sigma)
        noise = generator.normal(size=(grid.dim, *(n + 2 * pad for n in grid.shape)))
        inner = (slice(None), *(slice(pad, pad + n) for n in grid.shape))
        field = np.stack([gaussian_filter(part, sigma) for part in noise])[inner]
        field = field - field.mean(axis=tuple(range(1, grid.dim + 1)), keepdims=True)
    slopes = np.stack([np.stack(np.gradient(part)) for part in field])
    norms = np.linalg.norm(np.moveaxis(slopes, (0, 1), (-2, -1)), ord=2, axis=(-2, -1))
    return torch.from_numpy((field * (STEEPEST / norms.max())).astype(np.float32))


def random_pair(grid: Grid, generator: np.random.Generator) -> tuple[Image, Image]:
    """A smooth random image on a turned grid around `grid` (moving), and the same bent onto `grid` (fixed)."""
    shape = tuple(int(1.5 * n * s / 1.3) for n, s in zip(grid.shape, grid.spacing, strict=True))
    side = max(shape)
    affine = np.eye(4)
    affine[:3, :3] = _turn(-8, 15, 5) @ np.diag([1.0, -1.0, 1.0]) * 1.3
    affine[:3, 3] = grid.centre - affine[:3, :3] @ np.full(3, (side - 1) / 2)
    smooth = gaussian_filter(generator.normal(size=(side,) * 3), 3.0)
    values = 100 * (smooth - smooth.min()) / (smooth.max() - smooth.min())
    moving = Image(torch.from_numpy(values[None].astype(np.float32)), Grid((side,) * 3, affine), "moving")
    bent = affine_about(grid, 4.0) @ DisplacementField(random_field(grid, 6.0, generator), grid)
    fixed = resample(moving, bent, grid)
    return Image(fixed.data, grid, "fixed"), moving


def brains(data: Path, shape: tuple[int, ...], seed: int, *, spacing: float = 1.0) -> Iterator[Image]:
    """Two people's label maps rendered as one contrast: an intensity for each label, blur, noise.

    Args:
        data: folder of the data sets.
        shape: voxels along each axis, around the middle of the label map.
        seed: of the contrast and the noise.
        spacing: of the voxels, mm.

    Raises:
        BadInput: the label maps are not there.
    """
    folder = data / BRAINS
    generator = np.random.default_rng(seed)
    table = torch.from_numpy(generator.uniform(20, 100, size=256).astype(np.float32))
    table[0] = 0
    for name in ("seg_01.nii.gz", "seg_02.nii.gz"):
        labels = read_labels(folder / name)
        if int(labels.data.max()) > 255:
            raise BadInput(f"{folder / name}: has labels above 255, expected those of SynthSeg")
        affine = labels.grid.affine.copy()
        affine[:3, :3] *= spacing / np.array(labels.grid.spacing)
        affine[:3, 3] = labels.grid.centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        coarse = Image(table[labels.data.long()], labels.grid, name)
        fine = resample(coarse, Affine.identity(3), Grid(shape, affine))
        noise = torch.from_numpy(generator.normal(0, 2, size=(1, *shape)).astype(np.float32))
        yield Image(gaussian(fine.data[None], (0.7, 0.7, 0.7))[0] + noise, fine.grid, name)


def brain_labels(data: Path, brain: Image) -> Image:
    """The labels that one of `brains` was rendered from, on its grid: at every voxel the label with the largest share."""
    return resample(read_labels(data / BRAINS / brain.name), Affine.identity(3), brain.grid, interpolation="label")
