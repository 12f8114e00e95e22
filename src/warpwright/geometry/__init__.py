"""Where voxels are: grids, coordinates, finite differences. No interpolation, no learning."""

from warpwright.geometry.coordinates import affine_points, identity_points, moved_points, spatial
from warpwright.geometry.derivatives import divergence, gradient, jacobian, jacobian_determinant
from warpwright.geometry.grid import Grid, transform_points
from warpwright.geometry.image import Image

__all__ = [
    "Grid",
    "Image",
    "affine_points",
    "divergence",
    "gradient",
    "identity_points",
    "jacobian",
    "jacobian_determinant",
    "moved_points",
    "spatial",
    "transform_points",
]
