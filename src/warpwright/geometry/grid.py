"""Where the voxels of an image are: shape and affine, in world RAS+ millimetres, float64, on the host.

A point `p` in voxels (axis order, centres at integers) lies at `affine @ (p, 1)` in the world. 2-D images use a 3 x 3
affine. Nothing here interpolates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput

__all__ = ["NEGATIVE", "POSITIVE", "Grid", "anatomical_axes", "transform_points"]

POSITIVE, NEGATIVE = "RAS", "LPI"  # letters of the sides that world axes run to and come from
OBLIQUE = 1e-3  # |cosine| between a voxel axis and a world axis that is not its nearest, from which a grid counts as oblique


def transform_points(matrix: np.ndarray, points: Tensor) -> Tensor:
    """Apply a homogeneous matrix to points.

    Args:
        matrix: (D+1, D+1) affine matrix.
        points: (..., D), any floating dtype; kept.

    Returns:
        (..., D) tensor of `matrix @ (p, 1)`, in the dtype and on the device of `points`.
    """
    m = torch.tensor(matrix, dtype=points.dtype, device=points.device)
    columns = points.unbind(-1)
    out = torch.empty_like(points, memory_format=torch.contiguous_format)
    for i in range(len(columns)):  # not a product of matrices, whose bytes the number of threads may change
        row = columns[0] * m[i, 0]
        for j in range(1, len(columns)):
            row.addcmul_(columns[j], m[i, j])
        out[..., i] = row.add_(m[i, -1])
    return out


def anatomical_axes(direction: np.ndarray) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """For each voxel axis its nearest world axis (each taken once) and whether it points to the positive side.

    Args:
        direction: (D, D), columns are the unit vectors of the voxel axes in the world.
    """
    dim = len(direction)
    best = max(permutations(range(dim)), key=lambda p: sum(abs(direction[w, axis]) for axis, w in enumerate(p)))
    return best, tuple(bool(direction[w, axis] > 0) for axis, w in enumerate(best))


@dataclass(frozen=True, eq=False, repr=False)
class Grid:
    """A regular lattice of voxels in the world.

    Args:
        shape: number of voxels along each axis, D = 2 or 3.
        affine: (D+1, D+1) voxel to world RAS+ mm matrix; copied to float64.

    Raises:
        BadInput: the shape is empty, or the affine has another size, is not finite, or is singular.
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        dim = len(shape)
        if dim not in (2, 3) or min(shape) < 1:
            raise BadInput(f"a grid has 2 or 3 axes with at least one voxel each, got shape {shape}")
        if affine.shape != (dim + 1, dim + 1):
            raise BadInput(f"a grid of {dim} axes needs a {dim + 1} x {dim + 1} affine, got {affine.shape}")
        if not np.isfinite(affine).all():
            raise BadInput("the affine of a grid must be finite, it holds NaN or inf")
        steps = np.linalg.norm(affine[:dim, :dim], axis=0)
        if not steps.all() or abs(np.linalg.det(affine[:dim, :dim] / steps)) < 1e-6:
            raise BadInput("the affine of a grid must be invertible, it is singular (voxel axes are zero or parallel)")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __repr__(self) -> str:
        first = ", ".join(f"{round(float(x), 4) + 0.0:.5g}" for x in self.origin)
        return f"<Grid of {self.text}, the first at ({first}) mm>"

    @classmethod
    def regular(cls, shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> Grid:
        """A grid along the world axes with its first voxel at the origin; `spacing` in mm (default 1)."""
        return cls(shape, np.diag([*(spacing or (1.0,) * len(shape)), 1.0]))

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    @cached_property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring voxel centres along each axis, mm."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[: self.dim, : self.dim], axis=0))

    @property
    def direction(self) -> np.ndarray:
        """(D, D) matrix whose columns are the unit vectors of the voxel axes in the world."""
        return self.affine[: self.dim, : self.dim] / np.asarray(self.spacing)

    @property
    def origin(self) -> np.ndarray:
        """(D,) world position of the first voxel's centre, mm."""
        return self.affine[: self.dim, self.dim]

    @property
    def inverse_affine(self) -> np.ndarray:
        """(D+1, D+1) world to voxel matrix."""
        return np.linalg.inv(self.affine)

    @property
    def centre(self) -> np.ndarray:
        """(D,) world position of the middle of the grid, mm."""
        return self.affine[: self.dim] @ np.array([*((n - 1) / 2 for n in self.shape), 1.0])

    @property
    def shear(self) -> float:
        """Largest |cosine| between two different voxel axes; zero for an orthogonal grid."""
        gram = self.direction.T @ self.direction
        return float(np.abs(gram - np.eye(self.dim)).max())

    @property
    def orientation(self) -> str:
        """To which side each voxel axis runs, nearly: "RAS" of a grid along the world axes, "RA" of one in the plane."""
        axes, signs = anatomical_axes(self.direction)
        return "".join((POSITIVE if sign else NEGATIVE)[axis] for axis, sign in zip(axes, signs, strict=True))

    @property
    def text(self) -> str:
        """Voxels, their size and, in space, their orientation, in a few words: "64 x 52 x 40 voxels of 1 x 1 x 1.2 mm, RAS"."""
        sizes = [f"{s:.3g}" for s in self.spacing]
        size = sizes[0] if len(set(sizes)) == 1 else " x ".join(sizes)
        words = f"{' x '.join(str(n) for n in self.shape)} voxels of {size} mm"
        if self.dim == 2:  # a picture's axes have no anatomy
            return words
        oblique = np.sort(np.abs(self.direction), axis=0)[:-1].max() > OBLIQUE
        return f"{words}, {self.orientation}{' (oblique)' if oblique else ''}"

    def to_world(self, points: Tensor) -> Tensor:
        """Voxel points (..., D) to world points (..., D), mm."""
        return transform_points(self.affine, points)

    def to_voxel(self, points: Tensor) -> Tensor:
        """World points (..., D), mm, to voxel points (..., D)."""
        return transform_points(self.inverse_affine, points)

    def same_as(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Whether both grids have the same shape and no voxel corner differs by more than `tolerance` mm."""
        return self.shape == other.shape and self.corner_distance(other.affine) <= tolerance

    def corner_distance(self, affine: np.ndarray) -> float:
        """Largest distance (mm) between the corners of this grid and of the same voxels under another affine."""
        corners = np.stack(np.meshgrid(*((0, n - 1) for n in self.shape), [1], indexing="ij"), -1).reshape(-1, self.dim + 1)
        return float(np.linalg.norm(corners @ (self.affine - affine)[: self.dim].T, axis=1).max())

    def downsample(self, factors: tuple[int, ...]) -> Grid:
        """The grid of blocks of `factors` voxels, ceil(n / factor) along each axis, in the middle of this grid.

        Coarse voxel `p` lies at the fine voxel `factor * p + offset`; the offset is `(factor - 1) / 2`, the middle of a
        block, where the factor divides the axis, and centres the lattice where it does not: no voxel lies outside.
        """
        shape = tuple(-(-n // k) for n, k in zip(self.shape, factors, strict=True))
        step = np.diag([*(float(k) for k in factors), 1.0])
        step[: self.dim, self.dim] = [(n - 1 - k * (m - 1)) / 2 for n, k, m in zip(self.shape, factors, shape, strict=True)]
        return Grid(shape, self.affine @ step)

    def crop(self, start: tuple[int, ...], shape: tuple[int, ...]) -> Grid:
        """The grid of the block of `shape` voxels that begins at voxel `start` (which may lie outside: padding)."""
        shift = np.eye(self.dim + 1)
        shift[: self.dim, self.dim] = start
        return Grid(shape, self.affine @ shift)

    def voxel_matrix(self, target: Grid, affine: np.ndarray | None = None) -> np.ndarray:
        """(D+1, D+1) matrix from voxels of this grid to voxels of `target`, through a world `affine` (default identity)."""
        world = self.affine if affine is None else affine @ self.affine
        return target.inverse_affine @ world
