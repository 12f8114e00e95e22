"""Between the world of this package (RAS+) and that of ITK (LPS+): both in mm, the first two axes point the other way.

An ITK geometry is (size, origin, spacing, direction); its vectors and points differ from ours by the signs alone, also
in 2-D. The voxel axes are the same: ITK's x is our first axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.transforms import BSplineField, Composite, DisplacementField, Transform, VelocityField

__all__ = [
    "SHEAR",
    "Header",
    "Raw",
    "field_from_lps",
    "from_itk",
    "itk_geometry",
    "lps",
    "lps_matrix",
    "lps_vectors",
    "named_grid",
    "orthonormal_cover",
    "own_grid",
    "planar",
]

SHEAR = 1e-4  # |cosine| between voxel axes above which ITK refuses a NIfTI file (measured: accepts 1e-4, refuses 3e-4)
DEPTH = 1e-3  # mm from z = 0 below which a slice has no depth worth a note


Header = Literal["strict", "sform", "qform"]  # which NIfTI geometry to take where both are set and differ


@dataclass(frozen=True, eq=False)
class Raw:
    """What a file holds before it becomes an `Image`: array (C, *S) in the file's dtype, grid, sentences for a person."""

    array: np.ndarray
    grid: Grid
    notes: tuple[str, ...] = ()


def lps(dim: int) -> np.ndarray:
    """(D,) signs that turn RAS into LPS coordinates, and back."""
    return np.array([-1.0, -1.0, 1.0])[:dim]


def lps_matrix(matrix: np.ndarray) -> np.ndarray:
    """A (D+1, D+1) world map between RAS points as one between LPS points, and back."""
    signs = np.array([*lps(len(matrix) - 1), 1.0])
    return signs[:, None] * matrix * signs


def itk_geometry(grid: Grid) -> tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray]:
    """Size, origin (D,), spacing (D,) and direction (D, D) of a grid, in LPS."""
    signs = lps(grid.dim)
    return grid.shape, signs * grid.origin, np.array(grid.spacing), signs[:, None] * grid.direction


def from_itk(size: Sequence[int], origin: np.ndarray, spacing: np.ndarray, direction: np.ndarray) -> Grid:
    """The grid of an ITK geometry.

    Raises:
        BadInput: the geometry is empty, not finite or singular.
    """
    dim = len(size)
    signs = lps(dim)
    affine = np.eye(dim + 1)
    affine[:dim, :dim] = signs[:, None] * np.asarray(direction).reshape(dim, dim) * spacing
    affine[:dim, dim] = signs * origin
    return Grid(tuple(int(n) for n in size), affine)


def lps_vectors(field: DisplacementField) -> Tensor:
    """The displacement in mm, LPS: (D, *S) float32."""
    dim = field.dim
    matrix = lps(dim)[:, None] * field.grid.affine[:dim, :dim]
    return _mix(matrix, field.displacement)


def field_from_lps(vectors: Tensor, grid: Grid) -> DisplacementField:
    """A displacement from (D, *S) vectors in mm, LPS."""
    return DisplacementField(_mix(grid.inverse_affine[: grid.dim, : grid.dim] * lps(grid.dim), vectors), grid)


def _mix(matrix: np.ndarray, vectors: Tensor) -> Tensor:
    return torch.einsum("ij,j...->i...", torch.as_tensor(matrix, dtype=torch.float32), vectors.to("cpu", torch.float32))


def orthonormal_cover(grid: Grid) -> Grid:
    """A grid with perpendicular axes that covers a sheared one: nearest rotation, same spacing, the smallest box."""
    dim = grid.dim
    left, _, right = np.linalg.svd(grid.direction)
    axes = (left @ right) * np.asarray(grid.spacing)
    corners = np.array(list(product(*((0, n - 1) for n in grid.shape))))
    inside = np.linalg.solve(axes, grid.affine[:dim, :dim] @ corners.T)
    first, last = np.floor(inside.min(1) + 1e-6), np.ceil(inside.max(1) - 1e-6)
    affine = np.eye(dim + 1)
    affine[:dim, :dim] = axes
    affine[:dim, dim] = grid.origin + axes @ first
    return Grid(tuple(int(n) + 1 for n in last - first), affine)


def own_grid(transform: Transform) -> Grid | None:
    """The grid of the part that acts first, on which the whole map can be sampled; None if that part is an affine."""
    while isinstance(transform, Composite):
        transform = transform.parts[-1]
    return transform.grid if isinstance(transform, (DisplacementField, VelocityField, BSplineField)) else None


def named_grid(name: str, shape: tuple[int, ...], affine: np.ndarray) -> Grid:
    """`Grid(shape, affine)` whose complaint begins with the file's name."""
    try:
        return Grid(shape, affine)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error


def planar(name: str, shape: tuple[int, ...], affine: np.ndarray) -> tuple[Grid, tuple[str, ...]]:
    """The 2-D grid of one slice, and notes.

    A slice across the world's z axis keeps its place in x and y; any other keeps its voxel sizes only.

    Args:
        name: file name, for messages.
        shape: (X, Y).
        affine: (4, 4), RAS mm.
    """
    spacing = np.linalg.norm(affine[:3, :2], axis=0)
    if np.abs(affine[2, :2]).max() > SHEAR * spacing.max():
        note = f"{name}: its one slice is not across the z axis, so only its voxel sizes are kept, not its place in the body"
        return named_grid(name, shape, np.diag([*spacing, 1.0])), (note,)
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = affine[:2, :2], affine[:2, 3]
    height = float(affine[2, 3])
    note = f"{name}: its one slice lies at z = {height:.3f} mm; as a 2-D image it has no z, and results are written at z = 0"
    return named_grid(name, shape, matrix), ((note,) if abs(height) > DEPTH else ())
