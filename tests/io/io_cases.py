"""Grids, images and transforms that the tests of files share."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from warpwright.geometry import Grid, Image
from warpwright.transforms import Affine, BSplineField, DisplacementField, Transform, VelocityField, control_shape

SHAPE = (14, 17, 12)
SPACING = (1.1, 0.9, 2.1)


def turn(dim: int, angle: float) -> np.ndarray:
    matrix = Rotation.from_rotvec(np.array([0.3, -0.2, 1.0]) * angle).as_matrix()
    cos, sin = np.cos(angle), np.sin(angle)
    return matrix if dim > 2 else np.array([[cos, -sin], [sin, cos]])


def make_grid(kind: str, dim: int) -> Grid:
    """A grid of SHAPE: "straight", "oblique", "flipped", "permuted", or "sheared"."""
    linear = {
        "straight": np.eye(dim),
        "oblique": turn(dim, 0.4),
        "flipped": np.diag([-1.0, 1.0, -1.0][:dim]) @ turn(dim, -0.2),
        "permuted": np.roll(np.eye(dim), 1, axis=0) @ turn(dim, 0.1),
        "sheared": np.eye(dim) + 0.3 * np.eye(dim, k=1),
    }[kind]
    affine = np.eye(dim + 1)
    affine[:dim, :dim] = linear * np.array(SPACING[:dim])
    affine[:dim, dim] = (-31.7, 12.25, 94.5)[:dim]
    return Grid(SHAPE[:dim], affine)


def around(grid: Grid, angle: float) -> Grid:
    """An oblique, flipped grid of other voxels that covers a grid."""
    dim = grid.dim
    shape = (31, 29, 33)[:dim]
    affine = np.eye(dim + 1)
    affine[:dim, :dim] = turn(dim, angle) @ np.diag([1.0, -1.0, 1.0][:dim]) * np.array([1.3, 1.2, 1.4][:dim])
    affine[:dim, dim] = grid.centre - affine[:dim, :dim] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def smooth_image(grid: Grid, seed: int = 0) -> Image:
    noise = np.random.default_rng(seed).normal(size=grid.shape)
    smooth = gaussian_filter(noise, 3.0)
    smooth = 100 * (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return Image(torch.from_numpy(smooth[None].astype(np.float32)), grid, "smooth")


def smooth_vectors(shape: tuple[int, ...], size: float, seed: int) -> torch.Tensor:
    """(D, *shape) float32, largest component `size`, fading to zero at the border (where ITK and we cut a field off)."""
    noise = np.random.default_rng(seed).normal(size=(len(shape), *shape))
    smooth = np.stack([gaussian_filter(part, 2.0) for part in noise])
    for axis, n in enumerate(shape):
        fade = np.sin(np.pi * np.arange(n) / (n - 1))
        smooth = smooth * fade.reshape(-1, *(1,) * (len(shape) - 1 - axis))
    return torch.from_numpy((size * smooth / np.abs(smooth).max()).astype(np.float32))


def make_affine(grid: Grid) -> Affine:
    """A rotation, scaling and shift about the middle of a grid."""
    dim = grid.dim
    matrix = np.eye(dim + 1)
    matrix[:dim, :dim] = turn(dim, -0.15) @ np.diag([1.05, 0.93, 1.02][:dim])
    matrix[:dim, dim] = grid.centre - matrix[:dim, :dim] @ grid.centre + [1.7, -0.6, 0.9][:dim]
    return Affine(matrix)


def make_transform(kind: str, grid: Grid) -> Transform:
    affine, shape = make_affine(grid), grid.shape
    field = DisplacementField(smooth_vectors(shape, 1.5, 1), grid)
    if kind == "affine":
        return affine
    if kind == "displacement":
        return affine @ field
    if kind == "inverse":
        return field @ affine.inverse()
    if kind == "velocity":
        return affine @ VelocityField(smooth_vectors(shape, 1.2, 2), grid)
    if kind == "spline":
        knots = (4.0, 5.0, 4.0)[: grid.dim]
        noise = np.random.default_rng(3).normal(size=(grid.dim, *control_shape(shape, knots)))
        return affine @ BSplineField(torch.from_numpy(noise.astype(np.float32)) * 0.5, knots, grid)
    return field @ affine @ DisplacementField(smooth_vectors(shape, 0.8, 4), grid)


def dense(transform: Transform) -> Transform:
    """The transform with splines as the dense fields that files hold."""
    parts = getattr(transform, "parts", (transform,))
    out = None
    for part in parts:
        plain = part.displacement_field() if isinstance(part, BSplineField) else part
        out = plain if out is None else out @ plain
    assert out is not None
    return out


def to_sitk(image: Image) -> sitk.Image:
    """An image as ITK has it, written out by hand: x, y, z are our axes, the first two world axes point the other way."""
    out = sitk.GetImageFromArray(image.data[0].numpy().T.astype(np.float64))
    signs = np.array([-1.0, -1.0, 1.0])[: image.grid.dim]
    out.SetOrigin((signs * image.grid.affine[:-1, -1]).tolist())
    out.SetSpacing(np.linalg.norm(image.grid.affine[:-1, :-1], axis=0).tolist())
    columns = image.grid.affine[:-1, :-1] / np.linalg.norm(image.grid.affine[:-1, :-1], axis=0)
    out.SetDirection((np.diag(signs) @ columns).ravel().tolist())
    return out


def some_points(grid: Grid, count: int = 60, seed: int = 5) -> torch.Tensor:
    """World points in a grid, a little beyond its border too."""
    share = np.random.default_rng(seed).uniform(-0.1, 1.1, size=(count, grid.dim))
    return grid.to_world(torch.from_numpy(share * (np.array(grid.shape) - 1)))


def sitk_points(transform: sitk.Transform, points: torch.Tensor) -> torch.Tensor:
    """RAS points through an ITK transform."""
    signs = torch.tensor([-1.0, -1.0, 1.0][: points.shape[1]], dtype=torch.float64)
    return torch.tensor([transform.TransformPoint((signs * p).tolist()) for p in points], dtype=torch.float64) * signs
