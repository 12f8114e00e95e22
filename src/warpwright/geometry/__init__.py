"""Where voxels are: grids, coordinates, finite differences. No interpolation, no learning."""

from warpwright.geometry.coordinates import affine_points, identity_points, moved_points, spatial
from warpwright.geometry.derivatives import determinant, divergence, gradient, jacobian, jacobian_determinant, world_gradient
from warpwright.geometry.grid import NEGATIVE, POSITIVE, Grid, anatomical_axes, transform_points
from warpwright.geometry.image import Image
from warpwright.geometry.precision import computing_in, full_precision

__all__ = [
    "NEGATIVE",
    "POSITIVE",
    "Grid",
    "Image",
    "affine_points",
    "anatomical_axes",
    "computing_in",
    "determinant",
    "divergence",
    "full_precision",
    "gradient",
    "identity_points",
    "jacobian",
    "jacobian_determinant",
    "moved_points",
    "spatial",
    "transform_points",
    "world_gradient",
]
