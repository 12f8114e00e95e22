"""Images in memory: objects of nibabel and SimpleITK and arrays, to and from `Image`.

They go through the code that reads and writes files of their kind, so that an object and the file it is saved to lie in the
same place. An object's library is loaded already; none is imported to find out what an object is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, Union

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Image
from warpwright.io.atomic import last_line
from warpwright.io.frames import Header, Raw, named_grid

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image
    from nibabel.spatialimages import SpatialImage
    from SimpleITK import Image as SitkImage

__all__ = ["Array", "ImageLike", "as_array", "for_file", "memory_raw", "to_nibabel", "to_numpy", "to_simpleitk"]

Array: TypeAlias = np.ndarray | Tensor

ImageLike: TypeAlias = Union[str, Path, Image, "SpatialImage", "SitkImage", tuple[Array, Array], Array]
"""What functions take as an image, a mask or labels:

- a path: an image file, or a folder with DICOM slices;
- an `Image`;
- an image of nibabel: voxels and place are those of the file that it would be saved to;
- an image of SimpleITK of 2 or 3 axes, whose world is LPS and becomes RAS;
- `(array, affine)`, of numpy or torch: an array of 2 or 3 axes, without those of channels or batch, and its (D+1, D+1) voxel
  to world RAS+ mm matrix;
- an array alone, which does not say where its voxels are: `register` takes it where both images are arrays alone, and their
  voxels as 1 mm apart.

Arrays may have any real dtype, byte order, strides and device.
"""


def memory_raw(value: ImageLike, name: str, header: Header) -> Raw:
    """The array (C, *S) and grid of an image in memory.

    Args:
        value: no path.
        name: what a message calls it.
        header: which geometry of a NIfTI image to take where its two differ.

    Raises:
        BadInput: it is no image, or one of a kind, a shape or a geometry that is refused.
    """
    if isinstance(value, Image):
        return Raw(as_array(value.data, name), value.grid, value.notes)
    if _is_nibabel(value):
        from warpwright.io.nifti import nibabel_raw

        return nibabel_raw(name, value, header)
    if _is_simpleitk(value):
        from warpwright.io.simpleitk import itk_raw

        return itk_raw(name, value)
    if isinstance(value, (np.ndarray, Tensor)):
        raise BadInput(f"{name}: an array alone does not say where its voxels are, (array, affine) was expected")
    if not isinstance(value, tuple) or len(value) != 2:
        found = type(value).__name__
        raise BadInput(f"{name}: expected a path, an Image, an image of nibabel or SimpleITK, or (array, affine), got {found}")
    array, affine = as_array(value[0], name), as_array(value[1], f"{name}, affine")
    if array.ndim not in (2, 3):
        raise BadInput(
            f"{name}: expected an array of 2 or 3 axes, without those of channels or batch, got one of shape {array.shape}"
        )
    if affine.dtype.kind not in "biuf":
        raise BadInput(f"{name}: its affine holds values of type {affine.dtype}, real numbers were expected")
    return Raw(array[None], named_grid(name, array.shape, affine))


def as_array(value: Array, name: str) -> np.ndarray:
    """Numbers of numpy or torch, wherever they are, as numpy has them; shared where that is possible.

    Raises:
        BadInput: they cannot be had as an array: of a sparse tensor, for one.
    """
    try:
        if not isinstance(value, Tensor):
            return np.asarray(value)
        tensor = value.detach()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"{name}: cannot be read as an array of numbers ({last_line(error)})") from error


def _is_nibabel(value: object) -> TypeGuard[SpatialImage]:
    return _instance(value, "nibabel.spatialimages", "SpatialImage")


def _is_simpleitk(value: object) -> TypeGuard[SitkImage]:
    return _instance(value, "SimpleITK", "Image")


def _instance(value: object, module: str, kind: str) -> bool:
    """Whether a value is of a class of a module, which is loaded if there is such a value."""
    return isinstance(value, getattr(sys.modules.get(module), kind, ()))


def for_file(data: Tensor, dtype: torch.dtype | None = None) -> np.ndarray:
    """Values as files hold them: by default float32 for floats, and integers as they are."""
    data = data.detach().cpu()
    if dtype is None and data.is_floating_point():
        dtype = torch.float32
    if dtype is None and data.dtype == torch.bool:
        dtype = torch.uint8
    return data.to(dtype or data.dtype).numpy()


def to_nibabel(image: Image) -> Nifti1Image:
    """An image as nibabel has it: what `write_image` would write to a `.nii.gz` file; channels are the fourth axis.

    Raises:
        BadInput: NIfTI cannot hold it.
    """
    from warpwright.io.nifti import channels_last, nifti_image

    return nifti_image(image.name, channels_last(for_file(image.data), image.grid), image.grid)


def to_simpleitk(image: Image) -> SitkImage:
    """An image as SimpleITK has it, in LPS: what `write_image` would write to a `.nrrd` file; channels are components.

    Raises:
        BadInput: the grid is sheared, which ITK cannot hold.
    """
    from warpwright.io.simpleitk import itk_image

    return itk_image(image.name, for_file(image.data), image.grid)


def to_numpy(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """An array (*S), or (C, *S) of several channels, and its (D+1, D+1) voxel to world RAS+ mm affine; both are copies."""
    array: np.ndarray[Any, Any] = as_array(image.data, image.name).copy()
    return (array[0] if image.channels == 1 else array), image.grid.affine.copy()
