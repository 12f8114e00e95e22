"""What is drawn of a map as a deformed grid."""

from __future__ import annotations

from torch import Tensor

from warpwright.geometry import Grid
from warpwright.transforms import Affine, Composite, Transform, split

__all__ = ["drawn_deformation", "drawn_displacement"]


def drawn_displacement(transform: Transform, grid: Grid) -> Tensor:
    """The displacement of `drawn_deformation`: (D, *S) float32, voxels of `grid`."""
    return drawn_deformation(transform, grid)[0]


def drawn_deformation(transform: Transform, grid: Grid) -> tuple[Tensor, bool]:
    """The deformation without its affine part; of a map that is only affine, that part, its shift at the centre left out.

    Args:
        transform: world points of fixed to world points of moving.
        grid: of the fixed image.

    Returns:
        (D, *S) float32, voxels of `grid`, and whether it is that of the affine part.
    """
    affine, field = split(transform, grid)
    if bool(field.displacement.any()):
        return field.displacement, False
    matrix = affine.matrix.copy()
    matrix[:-1, -1] = grid.centre - matrix[:-1, :-1] @ grid.centre
    return split(Composite((Affine.identity(grid.dim), Affine(matrix))), grid)[1].displacement, True
