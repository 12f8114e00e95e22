"""Displacement fields as 5-D NIfTI files (X, Y, Z, 1, D), vectors in mm; a 2-D field has Z = 1.

Intent 1007 (vector) holds LPS vectors, as ANTs and ITK write them and as this package does; intent 1006 (displacement
vector) holds RAS vectors, as FreeSurfer writes them. A file without either intent says nothing about its vectors and is
refused. ITK cannot open a sheared NIfTI file: such a field is written on the perpendicular grid that covers it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.io.frames import SHEAR, Header, field_from_lps, lps, lps_vectors, orthonormal_cover
from warpwright.io.nifti import nifti_grid, open_nifti, write_nifti
from warpwright.transforms import DisplacementField, displacement_on

__all__ = ["read_displacement", "write_displacement"]

LPS_VECTORS, RAS_VECTORS = 1007, 1006


def write_displacement(path: Path, field: DisplacementField) -> None:
    """Write a field with intent 1007 in LPS mm, float32.

    Raises:
        BadInput: the folder cannot be written.
        Failed: the file could not be written.
    """
    if field.grid.shear > SHEAR:
        cover = orthonormal_cover(field.grid)
        field = DisplacementField(displacement_on(field, cover), cover)
    vectors = lps_vectors(field).numpy()
    array = np.moveaxis(vectors.reshape(field.dim, *(*field.grid.shape, 1)[:3], 1), 0, -1)
    write_nifti(path, np.ascontiguousarray(array), field.grid, intent=LPS_VECTORS)


def read_displacement(path: Path, header: Header = "strict") -> DisplacementField:
    """A field from a 5-D NIfTI file with intent 1007 (LPS) or 1006 (RAS), float32.

    Raises:
        BadInput: the file cannot be read, is not such a field, or its geometry is refused.
    """
    image, array = open_nifti(path)
    intent = int(image.header.get("intent_code", 0))
    if array.ndim != 5 or array.shape[3] != 1 or intent not in (LPS_VECTORS, RAS_VECTORS):
        raise BadInput(
            f"{path}: has shape {array.shape} and intent {intent}, a displacement field of shape (X, Y, Z, 1, D) with intent"
            f" {LPS_VECTORS} (LPS mm) or {RAS_VECTORS} (RAS mm) was expected"
        )
    if array.size == 0:
        raise BadInput(f"{path}: has no voxels (its shape is {array.shape}), at least one along each axis was expected")
    dim = array.shape[4]
    if dim not in (2, 3) or (dim == 2 and array.shape[2] != 1):
        raise BadInput(f"{path}: has vectors of {dim} components on {array.shape[:3]} voxels, as many as axes were expected")
    grid = _field_grid(path, image, array.shape[:3], dim, header)
    vectors = np.moveaxis(array[..., 0, :], -1, 0).reshape(dim, *grid.shape).astype(np.float32)
    bad = int((~np.isfinite(vectors)).sum())
    if bad:
        raise BadInput(f"{path}: {bad} of {vectors.size} components are NaN or inf, finite vectors were expected")
    signs = lps(dim).reshape(-1, *(1,) * dim).astype(np.float32) if intent == RAS_VECTORS else np.float32(1)
    return field_from_lps(torch.from_numpy(signs * vectors), grid)


def _field_grid(path: Path, image: object, shape: tuple[int, ...], dim: int, header: Header) -> Grid:
    grid, _ = nifti_grid(str(path), image, shape, header)
    if grid.dim != dim:
        raise BadInput(f"{path}: has vectors of {dim} components on {shape} voxels, as many as axes were expected")
    return grid
