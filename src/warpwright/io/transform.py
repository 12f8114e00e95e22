"""Transform files by their suffix: the front door.

`.h5` holds any transform (ITK composite); `.tfm`, `.txt` and `.mat` an affine; `.nii` and `.nii.gz` one displacement
field. A name to which `0GenericAffine.mat` or `1Warp.nii.gz` can be added is the prefix of an ANTs registration.
"""

from __future__ import annotations

from pathlib import Path

from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.io.ants import ants_files, read_ants
from warpwright.io.frames import Header, own_grid
from warpwright.io.image import suffix_of
from warpwright.transforms import DisplacementField, Transform, displacement_on

__all__ = ["own_grid", "read_transform", "write_transform"]

COMPOSITE = (".h5", ".hdf5")
LINEAR = (".tfm", ".txt", ".mat")
FIELD = (".nii.gz", ".nii")
KNOWN = (*COMPOSITE, *LINEAR, *FIELD)


def read_transform(path: str | Path, *, header: Header = "strict") -> Transform:
    """A transform from a file, or from the files of an ANTs prefix.

    Args:
        path: file or prefix.
        header: which geometry of a displacement NIfTI to take where its qform and sform are both set and differ.

    Raises:
        BadInput: missing or corrupt file, unknown suffix, a kind of transform that is not read.
    """
    path = Path(path)
    if any(file.exists() for file in ants_files(path)[:2]):
        return read_ants(path)
    if path.is_dir() or not path.exists():
        raise BadInput(f"{path}: {'is a folder' if path.is_dir() else 'does not exist'}, a transform file was expected")
    suffix = suffix_of(path, KNOWN, "a transform")
    if suffix in FIELD:
        from warpwright.io.displacement_nifti import read_displacement

        return read_displacement(path, header)
    from warpwright.io.itk import read_composite, read_linear

    return read_composite(path) if suffix in COMPOSITE else read_linear(path)


def write_transform(path: str | Path, transform: Transform, grid: Grid | None = None) -> None:
    """Write a transform in the format of the suffix, atomically.

    Args:
        path: file; an old one is replaced.
        transform: the map of points; `.h5` holds its parts as they are (velocities and splines as dense fields), the
            affine formats an affine, and a NIfTI the whole map as one field.
        grid: of the field in a NIfTI file; default the transform's own. Other formats need none.

    Raises:
        BadInput: the suffix is unknown, or the format cannot hold the transform.
        Failed: the file could not be written.
    """
    path = Path(path)
    suffix = suffix_of(path, KNOWN, "a transform")
    if suffix in FIELD:
        from warpwright.io.displacement_nifti import write_displacement

        write_displacement(path, _one_field(path, transform, grid))
        return
    from warpwright.io.itk import write_composite, write_linear

    (write_composite if suffix in COMPOSITE else write_linear)(path, transform)


def _one_field(path: Path, transform: Transform, grid: Grid | None) -> DisplacementField:
    if isinstance(transform, DisplacementField) and (grid is None or grid.same_as(transform.grid)):
        return transform
    grid = grid or own_grid(transform)
    if grid is None:
        raise BadInput(
            f"{path}: a field lies on a grid and the transform, whose first part is an affine, brings none along,"
            " expected an image with --reference"
        )
    return DisplacementField(displacement_on(transform, grid), grid)
