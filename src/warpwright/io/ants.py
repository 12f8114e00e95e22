"""The files of an ANTs registration: `PREFIX0GenericAffine.mat`, `PREFIX1Warp.nii.gz`, `PREFIX1InverseWarp.nii.gz`.

The map is `affine o (Id + warp)` with the warp on the fixed grid, the form of this package; the inverse is
`(Id + inverse warp) o affine^-1`. For ANTs:

    forward   antsApplyTransforms -t PREFIX1Warp.nii.gz -t PREFIX0GenericAffine.mat
    inverse   antsApplyTransforms -t [PREFIX0GenericAffine.mat,1] -t PREFIX1InverseWarp.nii.gz
"""

from __future__ import annotations

from pathlib import Path

from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.io.frames import own_grid
from warpwright.transforms import DisplacementField, Transform, split

__all__ = ["ants_files", "read_ants", "write_ants"]


def ants_files(prefix: str | Path) -> tuple[Path, Path, Path]:
    """Names of the affine, the warp and the inverse warp of a prefix."""
    affine, warp, inverse = (
        Path(f"{prefix}{ending}") for ending in ("0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz")
    )
    return affine, warp, inverse


def write_ants(
    prefix: str | Path, transform: Transform, grid: Grid | None = None, *, inverse: DisplacementField | None = None
) -> tuple[Path, Path, Path]:
    """Write the three files of a transform, all or none.

    Args:
        prefix: path to which the endings are added, `out/sub01_` for instance.
        transform: `Affine @ DisplacementField` is written as it is, anything else is flattened behind its affine.
        grid: of the warps; default the transform's own.
        inverse: inverse of the field, if it is known; else it is computed.

    Returns:
        The names of the affine, the warp and the inverse warp.

    Raises:
        BadInput: no grid is known, or the folder cannot be written.
        Failed: a file could not be written.
    """
    from warpwright.io.atomic import replacing_all
    from warpwright.io.displacement_nifti import write_displacement
    from warpwright.io.itk import write_linear

    grid = grid or own_grid(transform)
    if grid is None:
        raise BadInput(
            f"{prefix}: a warp lies on a grid and the transform, whose first part is an affine, brings none along,"
            " expected an image with --reference"
        )
    affine, field = split(transform, grid)
    files = ants_files(prefix)
    with replacing_all(files) as names:
        write_linear(names[0], affine)
        write_displacement(names[1], field)
        write_displacement(names[2], inverse or field.inverse())
    return files


def read_ants(prefix: str | Path, *, inverse: bool = False) -> Transform:
    """The map of a prefix: `affine @ warp`, or `inverse warp @ affine^-1`; one of affine and warp may be missing.

    Raises:
        BadInput: neither file exists, or one cannot be read.
    """
    from warpwright.io.displacement_nifti import read_displacement
    from warpwright.io.itk import read_linear

    matrix, forward, backward = ants_files(prefix)
    warp = backward if inverse else forward
    affine = read_linear(matrix) if matrix.exists() else None
    field = read_displacement(warp) if warp.exists() else None
    if affine is None or field is None:
        only = affine if field is None else field
        if only is None:
            raise BadInput(
                f"{prefix}: neither {matrix.name} nor {warp.name} exists, the files of an ANTs registration were expected"
            )
        return only.inverse() if inverse and only is affine else only
    return field @ affine.inverse() if inverse else affine @ field
