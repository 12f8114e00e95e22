"""Borders of the package: files and objects of other libraries to and from `Image`, `Transform` and points, in world RAS+ mm.

One dialect in each module; the front doors choose by the file's suffix. The libraries that know the formats (nibabel,
SimpleITK, h5py) are imported when a file asks for them. Nothing here runs code that a file brings along.
"""

from warpwright.io.ants import read_ants, write_ants
from warpwright.io.atomic import replacing
from warpwright.io.frames import Header
from warpwright.io.image import check_on_grid, read_image, read_labels, read_mask, read_scalar, require_structure, write_image
from warpwright.io.memory import ImageLike, to_nibabel, to_numpy, to_simpleitk
from warpwright.io.points import Points, Space, read_points, write_points
from warpwright.io.transform import own_grid, read_transform, write_transform

__all__ = [
    "Header",
    "ImageLike",
    "Points",
    "Space",
    "check_on_grid",
    "own_grid",
    "read_ants",
    "read_image",
    "read_labels",
    "read_mask",
    "read_points",
    "read_scalar",
    "read_transform",
    "replacing",
    "require_structure",
    "to_nibabel",
    "to_numpy",
    "to_simpleitk",
    "write_ants",
    "write_image",
    "write_points",
    "write_transform",
]
