"""What is drawn of a map as a deformed grid."""

from __future__ import annotations

from torch import Tensor

from warpwright.geometry import Grid
from warpwright.transforms import Affine, Composite, Transform, split

__all__ = ["drawn_displacement"]


def drawn_displacement(transform: Transform, grid: Grid) -> Tensor:
    """The deformation without its affine part; of a map that is only affine, that part, its shift at the centre left out.

    Args:
        transform: world points of fixed to world points of moving.
        grid: of the fixed image.

    Returns:
        (D, *S) float32, voxels of `grid`.
    """
    affine, field = split(transform, grid)
    if bool(field.displacement.any()):
        return field.displacement
    matrix = affine.matrix.copy()
    matrix[:-1, -1] = grid.centre - matrix[:-1, :-1] @ grid.centre
    return split(Composite((Affine.identity(grid.dim), Affine(matrix))), grid)[1].displacement
