"""Points carried against the direction of a map, without inverting it everywhere."""

from __future__ import annotations

from torch import Tensor

from warpwright.errors import Failed
from warpwright.sampling import sample
from warpwright.transforms.transform import Composite, DisplacementField, Transform

__all__ = ["carried_points"]

TOLERANCE = 1e-4  # voxels, at which a point is found
MAX_STEPS = 100


def carried_points(points: Tensor, transform: Transform) -> Tensor:
    """Where points of an image are seen on the working grid: the inverse of a map, point by point.

    `transform.inverse()` knows nothing of points that its field moves in from beyond the border of the grid, and inverts a
    whole volume for a few points. Here `x + u(x) = y` is solved by fixed-point iteration, which converges where u
    stretches by less than one (as that of an augmentation does); beyond the border u is repeated.

    Args:
        points: (N, D) world points, mm, where the image lies as it was.
        transform: world points of the working grid to world points of the image: affines and displacement fields.

    Returns:
        (N, D) world points, mm; right wherever they lie in the grid.

    Raises:
        Failed: the iteration does not converge, the field stretches too much.
    """
    parts = transform.parts if isinstance(transform, Composite) else (transform,)
    for part in parts:  # the first part acts last, so it is undone first
        if isinstance(part, Composite):
            points = carried_points(points, part)
        elif isinstance(part, DisplacementField):
            points = _before(part, points)
        else:
            points = part.inverse()(points)
    return points


def _before(field: DisplacementField, points: Tensor) -> Tensor:
    """The points that a field leads to `points`."""
    target = field.grid.to_voxel(points)
    found = target
    for _ in range(MAX_STEPS):
        at = found.T[None].to(field.displacement.dtype)
        previous, found = found, target - sample(field.displacement[None], at)[0].T.to(target)
        if not bool(((found - previous).abs() > TOLERANCE).any()):
            return field.grid.to_world(found)
    raise Failed(f"landmarks could not be carried through a field in {MAX_STEPS} steps, expected one that stretches less")
