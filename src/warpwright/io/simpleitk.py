"""Images through SimpleITK: NRRD, MetaImage, PNG, TIFF and the like, and folders of DICOM slices.

ITK's geometry is LPS; it becomes RAS here. ITK's x, y, z are our axes 0, 1, 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.io.atomic import last_line, replacing
from warpwright.io.frames import SHEAR, Raw, from_itk, itk_geometry, planar

__all__ = ["itk_image", "itk_raw", "read_dicom_folder", "read_itk_image", "write_itk_image"]

UNEVEN = 0.01  # mm, or the same share of the slice distance, from which slices count as unevenly spaced
LABEL_MAPS = (sitk.sitkLabelUInt8, sitk.sitkLabelUInt16, sitk.sitkLabelUInt32, sitk.sitkLabelUInt64)


def read_itk_image(path: Path) -> Raw:
    """The array (C, *S) and grid of an image file.

    Raises:
        BadInput: ITK cannot read it, or it has neither 2 nor 3 axes.
    """
    try:
        image = sitk.ReadImage(str(path))
    except (RuntimeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read, a whole image file was expected ({last_line(error)})") from error
    return itk_raw(str(path), image)


def itk_raw(name: str, image: sitk.Image) -> Raw:
    """The array (C, *S) and grid of an image that SimpleITK holds; one slice gives a 2-D grid.

    Raises:
        BadInput: it has neither 2 nor 3 axes, no voxels, or a geometry that is refused.
    """
    dim = image.GetDimension()
    if dim not in (2, 3):
        raise BadInput(f"{name}: has {dim} axes, an image of 2 or 3 was expected")
    if image.GetPixelID() in LABEL_MAPS:  # whose voxels cannot be asked for
        raise BadInput(f"{name}: is a {image.GetPixelIDTypeAsString()}, voxels were expected (sitk.Cast gives them)")
    array = sitk.GetArrayFromImage(image).T
    array = array if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    try:
        grid = from_itk(
            image.GetSize(), np.array(image.GetOrigin()), np.array(image.GetSpacing()), np.array(image.GetDirection())
        )
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error
    if dim == 3 and grid.shape[2] == 1:
        flat, notes = planar(name, grid.shape[:2], grid.affine)
        return Raw(array.reshape(len(array), *flat.shape), flat, notes)
    return Raw(array, grid)


def read_dicom_folder(folder: Path, series: str | None) -> Raw:
    """The volume of one DICOM series.

    Args:
        folder: holds the slices of one or several series.
        series: the series' UID, or its ending; needed if there are several.

    Raises:
        BadInput: there is no series, or none or several fit, or the slices cannot be read.
    """
    with _quiet():
        return _read_series(folder, series)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ITK's remarks on stderr about files that are no DICOM: what matters is refused or noted here."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _read_series(folder: Path, series: str | None) -> Raw:
    identifiers = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    fitting = [uid for uid in identifiers if series is None or uid.endswith(series)]
    if not identifiers:
        raise BadInput(f"{folder}: is a folder without DICOM slices, an image file or a DICOM folder was expected")
    if len(fitting) != 1:
        found = ", ".join(f"{uid} ({len(_slices(folder, uid))} slices)" for uid in identifiers)
        wanted = (
            "one of them must be named with --series (register: --fixed-series, --moving-series)"
            if series is None
            else f"exactly one must end in {series!r}"
        )
        raise BadInput(f"{folder}: holds the DICOM series {found}; {wanted}")
    files = _slices(folder, fitting[0])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    try:
        raw = itk_raw(str(folder), reader.Execute())
        return Raw(raw.array, raw.grid, raw.notes + _spacing_note(folder, files))
    except (RuntimeError, UnicodeDecodeError) as error:
        raise BadInput(f"{folder}: its DICOM slices do not form a volume ({last_line(error)})") from error


def _slices(folder: Path, uid: str) -> tuple[str, ...]:
    return sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)


def _spacing_note(folder: Path, files: tuple[str, ...]) -> tuple[str, ...]:
    heights = []
    for file in files:
        reader = sitk.ImageFileReader()
        reader.SetFileName(file)
        reader.ReadImageInformation()
        heights.append(float(np.array(reader.GetDirection()).reshape(3, 3)[:, 2] @ np.array(reader.GetOrigin())))
    gaps = [abs(b - a) for a, b in pairwise(heights)]
    if not gaps or max(gaps) - min(gaps) <= max(UNEVEN, UNEVEN * max(gaps)):
        return ()
    return (f"{folder}: its slices are {min(gaps):.2f} to {max(gaps):.2f} mm apart, they are taken as evenly spaced",)


def write_itk_image(path: Path, array: np.ndarray, grid: Grid) -> None:
    """Write an array (C, *S), compressed where the format can, with the grid's geometry.

    Raises:
        BadInput: the grid is sheared, or the folder cannot be written.
        Failed: ITK cannot write it.
    """
    image = itk_image(str(path), array, grid)
    with replacing(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def itk_image(name: str, array: np.ndarray, grid: Grid) -> sitk.Image:
    """An array (C, *S) with the grid's geometry as SimpleITK holds it.

    Raises:
        BadInput: the grid is sheared.
    """
    if grid.shear > SHEAR:
        raise BadInput(f"{name}: ITK cannot hold a grid with sheared voxel axes, NIfTI can")
    image = sitk.GetImageFromArray(np.ascontiguousarray((array if len(array) > 1 else array[0]).T), isVector=len(array) > 1)
    _, origin, spacing, direction = itk_geometry(grid)
    image.SetOrigin(origin.tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    return image
