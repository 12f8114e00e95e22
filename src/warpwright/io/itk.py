"""ITK transform files: composite `.h5`, and affine `.tfm`, `.txt`, `.mat`.

An ITK transform maps LPS points of the fixed image to LPS points of the moving image, as ours do in RAS; the last entry
of a composite acts first, as in `Composite`. So parts are written one by one and no arithmetic is done. Fields are
float32, affines float64. ITK demands variable-length ASCII strings for the names of types.

The `.h5` file is read with h5py; of linear transforms SimpleITK only computes the matrix from the parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch

from warpwright.errors import BadInput
from warpwright.io.atomic import last_line, replacing
from warpwright.io.frames import field_from_lps, from_itk, itk_geometry, lps_matrix, lps_vectors
from warpwright.transforms import Affine, BSplineField, Composite, DisplacementField, Transform, VelocityField

__all__ = ["read_composite", "read_linear", "write_composite", "write_linear"]

LINEAR: dict[tuple[str, int], Callable[[], sitk.Transform]] = {
    **{("AffineTransform", d): lambda d=d: sitk.AffineTransform(d) for d in (2, 3)},
    **{("MatrixOffsetTransformBase", d): lambda d=d: sitk.AffineTransform(d) for d in (2, 3)},
    **{("TranslationTransform", d): lambda d=d: sitk.TranslationTransform(d) for d in (2, 3)},
    **{("IdentityTransform", d): lambda d=d: sitk.Transform(d, sitk.sitkIdentity) for d in (2, 3)},
    **{("ScaleTransform", d): lambda d=d: sitk.ScaleTransform(d) for d in (2, 3)},
    ("Euler2DTransform", 2): sitk.Euler2DTransform,
    ("Similarity2DTransform", 2): sitk.Similarity2DTransform,
    ("Euler3DTransform", 3): sitk.Euler3DTransform,
    ("VersorTransform", 3): sitk.VersorTransform,
    ("VersorRigid3DTransform", 3): sitk.VersorRigid3DTransform,
    ("Similarity3DTransform", 3): sitk.Similarity3DTransform,
    ("ScaleVersor3DTransform", 3): sitk.ScaleVersor3DTransform,
    ("ScaleSkewVersor3DTransform", 3): sitk.ScaleSkewVersor3DTransform,
}

UNREADABLE = (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError, OverflowError)


def write_composite(path: Path, transform: Transform) -> None:
    """Write any transform as an ITK composite `.h5`; velocities and splines as their dense fields.

    Raises:
        BadInput: the folder cannot be written, or a part is of an unknown kind.
        Failed: the file could not be written.
    """
    parts = [_plain(path, part) for part in _flat(transform)]
    dim = transform.dim
    in_memory = {"driver": "core", "backing_store": False}  # HDF5 itself crashes the process on a full disk
    with replacing(path) as temporary, h5py.File(temporary.name, "w", **in_memory) as file:
        _write_groups(file, parts, dim)
        file.flush()
        temporary.write_bytes(file.id.get_file_image())


def _write_groups(file: h5py.File, parts: list[Affine | DisplacementField], dim: int) -> None:
    file["ITKVersion"] = _text("5.4.0")
    file["HDFVersion"] = _text(h5py.version.hdf5_version)
    file["OSName"] = _text("any")
    file["OSVersion"] = _text("any")
    _write_part(file, 0, f"CompositeTransform_float_{dim}_{dim}", None, None)
    for index, part in enumerate(parts, 1):
        if isinstance(part, Affine):
            _write_part(file, index, f"AffineTransform_float_{dim}_{dim}", _affine_parameters(part), np.zeros(dim))
        else:
            size, origin, spacing, direction = itk_geometry(part.grid)
            fixed = np.concatenate([size, origin, spacing, direction.ravel()])
            values = lps_vectors(part).numpy().T.ravel()  # component fastest, then x, y, z
            _write_part(file, index, f"DisplacementFieldTransform_float_{dim}_{dim}", values, fixed)


def _flat(transform: Transform) -> list[Transform]:
    return [leaf for part in transform.parts for leaf in _flat(part)] if isinstance(transform, Composite) else [transform]


def _plain(path: Path, part: Transform) -> Affine | DisplacementField:
    if isinstance(part, (VelocityField, BSplineField)):
        return part.displacement_field()
    if isinstance(part, (Affine, DisplacementField)):
        return part
    raise BadInput(f"{path}: an affine, displacement, velocity or B-spline can be written, got {type(part).__name__}")


def _text(value: str) -> np.ndarray:
    return np.array([value], dtype=h5py.string_dtype("ascii"))


def _affine_parameters(affine: Affine) -> np.ndarray:
    """Matrix row by row, then the translation, LPS."""
    matrix, dim = lps_matrix(affine.matrix), affine.dim
    return np.concatenate([matrix[:dim, :dim].ravel(), matrix[:dim, dim]])


def _write_part(file: h5py.File, index: int, kind: str, parameters: np.ndarray | None, fixed: np.ndarray | None) -> None:
    group = file.create_group(f"TransformGroup/{index}")
    group["TransformType"] = _text(kind)
    if parameters is None or fixed is None:
        return
    group["TransformFixedParameters"] = fixed.astype(np.float64)
    group["TransformParameters"] = parameters  # as ITK writes them: compressing takes seconds and saves a fifth


def read_composite(path: Path) -> Transform:
    """A transform from an ITK `.h5` file: linear kinds and displacement fields, alone or composed, float or double.

    Raises:
        BadInput: the file is no ITK transform, or holds a kind that is not read.
    """
    try:
        with h5py.File(path, "r") as file:
            groups: Any = file["TransformGroup"]
            parts = [_read_part(path, groups[key]) for key in sorted(groups, key=int)]
    except UNREADABLE as error:
        raise BadInput(f"{path}: cannot be read, an ITK transform in an HDF5 file was expected") from error
    found = [part for part in parts if part is not None]
    if not found:
        raise BadInput(f"{path}: holds no transform, at least one was expected")
    return _composed(path, found)


def _composed(path: Path, parts: list[Transform]) -> Transform:
    """`parts[0] @ parts[1] @ ...`, with the file's name if the numbers of axes differ."""
    out = parts[0]
    for part in parts[1:]:
        if part.dim != out.dim:
            raise BadInput(f"{path}: holds 2-D and 3-D transforms, one number of axes was expected")
        out = out @ part
    return out


def _read_part(path: Path, group: Any) -> Transform | None:
    """One entry; None for the composite's own."""
    value = group["TransformType"][()]
    name = value[0] if isinstance(value, np.ndarray) else value
    kind, _, dim, target = (name.decode() if isinstance(name, bytes) else str(name)).rsplit("_", 3)
    if kind == "CompositeTransform":
        return None
    fixed, values = (_numbers(path, group, name) for name in ("FixedParameters", "Parameters"))
    if kind.endswith("DisplacementFieldTransform") and dim == target:
        return _read_field(path, values, fixed, int(dim))
    if dim != target or (kind, int(dim)) not in LINEAR:
        raise BadInput(f"{path}: holds the kind {kind} of {dim} axes, linear transforms and displacement fields can be read")
    transform = LINEAR[kind, int(dim)]()
    if kind != "IdentityTransform":
        transform.SetFixedParameters(fixed.tolist())
        transform.SetParameters(values.tolist())
    return _affine(path, transform)


def _numbers(path: Path, group: Any, name: str) -> np.ndarray:
    """A parameter vector; ITK before version 5 wrote `Tranform` for `Transform`."""
    values = np.asarray(group[f"Transform{name}" if f"Transform{name}" in group else f"Tranform{name}"][()])
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise BadInput(f"{path}: its {name} hold NaN, inf or no numbers, finite numbers were expected")
    return values


def _read_field(path: Path, values: np.ndarray, fixed: np.ndarray, dim: int) -> DisplacementField:
    size = fixed[:dim].astype(int)
    if len(fixed) != dim * (dim + 3) or values.size != dim * np.prod(size):
        raise BadInput(
            f"{path}: its displacement field has {values.size} values, {dim} for each of {size.tolist()} were expected"
        )
    try:
        grid = from_itk(size.tolist(), fixed[dim : 2 * dim], fixed[2 * dim : 3 * dim], fixed[3 * dim :])
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    vectors = values.astype(np.float32, copy=False).reshape(*size[::-1], dim).T
    return field_from_lps(torch.from_numpy(np.ascontiguousarray(vectors)), grid)


def _affine(path: Path, transform: sitk.Transform) -> Affine:
    """The matrix of a linear ITK transform, from the images of the origin and the unit points."""
    dim = transform.GetDimension()
    images = np.array([transform.TransformPoint(point) for point in [[0.0] * dim, *np.eye(dim).tolist()]])
    matrix = np.eye(dim + 1)
    matrix[:dim, :dim], matrix[:dim, dim] = (images[1:] - images[0]).T, images[0]
    try:
        return Affine(lps_matrix(matrix))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def write_linear(path: Path, transform: Transform) -> None:
    """Write an affine as an ITK `.tfm`, `.txt` or `.mat` file (double precision, centre at the origin).

    Raises:
        BadInput: the transform is no affine, or the folder cannot be written.
        Failed: the file could not be written.
    """
    if not isinstance(transform, Affine):
        raise BadInput(f"{path}: its format holds an affine only, this transform has a field: expected the suffix .h5")
    affine = sitk.AffineTransform(transform.dim)
    affine.SetParameters(_affine_parameters(transform).tolist())
    with replacing(path) as temporary:
        sitk.WriteTransform(affine, str(temporary))


def read_linear(path: Path) -> Affine:
    """An affine from an ITK `.tfm`, `.txt` or `.mat` file: any linear kind, or several composed.

    Raises:
        BadInput: the file is no ITK transform, or is not linear.
    """
    try:
        transform = sitk.ReadTransform(str(path))
    except (RuntimeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read, an ITK transform was expected ({last_line(error)})") from error
    if not transform.IsLinear():
        raise BadInput(f"{path}: holds a {transform.GetName()}, a linear transform was expected in this format")
    return _affine(path, transform)
