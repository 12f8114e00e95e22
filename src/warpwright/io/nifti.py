"""NIfTI and MGH through nibabel: arrays in the file's voxel order, geometry in RAS+ mm.

A NIfTI file may hold two geometries, qform and sform. nibabel and FSL take the sform whenever it is set; ITK takes the
qform unless its code is 0 or the sform's code is 1 (measured for all pairs of codes). Where both are set and differ the
file is refused until a person chooses; files written here carry the same geometry twice, codes 1 and 1.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import imageglobals
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError, MGHImage
from nibabel.spatialimages import HeaderDataError
from numpy.lib.recfunctions import structured_to_unstructured

from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.io.atomic import last_line, replacing
from warpwright.io.frames import SHEAR, Header, Raw, named_grid, planar

__all__ = ["channels_last", "nibabel_raw", "nifti_grid", "nifti_image", "open_nifti", "read_nifti", "write_nifti"]

DISAGREEMENT = 1e-3  # mm at any corner, from which qform and sform are different geometries
QUATERNION_ERROR = 3e-7  # of 1 - b^2 - c^2 - d^2, whose terms are stored in float32
VECTOR_INTENTS = (1006, 1007)
UNREADABLE = (
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
    ImageFileError,
    HeaderDataError,
    MGHError,
)


def read_nifti(path: Path, header: Header = "strict") -> Raw:
    """The array (C, *S) and grid of a NIfTI or MGH image.

    Two axes, or a third of one voxel, make a 2-D image; the entries of a fourth axis are channels, and so are the
    colours of an RGB file.

    Args:
        path: the file.
        header: which geometry to take where qform and sform are both set and differ; "strict" refuses such a file.

    Raises:
        BadInput: the file cannot be read, is no image of 2 or 3 axes, or its geometry or unit is refused.
    """
    return _raw(str(path), *open_nifti(path), header)


def nibabel_raw(name: str, image: Any, header: Header) -> Raw:
    """As `read_nifti`, of an image that nibabel holds, whose header is what it would be in a file.

    Args:
        name: what a message calls it.
        image: a `nibabel.spatialimages.SpatialImage`, loaded or not; it is left as it is.
        header: as there.

    Raises:
        BadInput: as there, or it has no affine.
    """
    if image.affine is None:
        raise BadInput(f"{name}: has no affine, expected one that says where its voxels are")
    with _readable(name):
        array = np.asanyarray(image.dataobj)
        if isinstance(image, nib.Nifti1Pair):  # a person may have changed the affine since
            image = type(image).from_image(image)
    return _raw(name, image, array, header)


def _raw(name: str, image: Any, array: np.ndarray, header: Header) -> Raw:
    if array.ndim == 5 and int(image.header.get("intent_code", 0)) in VECTOR_INTENTS:
        raise BadInput(f"{name}: holds a displacement field (5 axes, vector intent), an image was expected")
    if array.size == 0:
        raise BadInput(f"{name}: has no voxels (its shape is {array.shape}), at least one along each axis was expected")
    if array.dtype.names:
        array = structured_to_unstructured(array)[..., None, :] if array.ndim == 2 else structured_to_unstructured(array)
    if array.ndim not in (2, 3, 4):
        raise BadInput(f"{name}: has {array.ndim} axes, an image of 2 or 3 (and a fourth for channels) was expected")
    array = np.moveaxis(array, 3, 0) if array.ndim == 4 else array[None]
    grid, notes = nifti_grid(name, image, tuple(array.shape[1:]), header)
    return Raw(array.reshape(len(array), *grid.shape), grid, notes)


def open_nifti(path: Path) -> tuple[Any, np.ndarray]:
    """The nibabel image and its array: the stored dtype, or float64 where the header scales it.

    Raises:
        BadInput: the file is truncated or corrupt.
    """
    with _readable(str(path)):
        if path.name.lower().endswith(".mgh"):  # nibabel.load would leave this file open
            image: Any = MGHImage.from_bytes(path.read_bytes())
        else:
            image = nib.load(path, mmap=False)
        return image, np.asanyarray(image.dataobj)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turns what nibabel raises about a file that it cannot read into one sentence."""
    try:
        with _quiet():
            yield
    except UNREADABLE as error:
        raise BadInput(f"{name}: cannot be read, a whole NIfTI or MGH file was expected ({last_line(error)})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without nibabel's and numpy's remarks about odd header values on stderr: what matters is refused or noted here."""
    logger, disabled = imageglobals.logger, imageglobals.logger.disabled
    logger.disabled = True
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        logger.disabled = disabled


def nifti_grid(name: str, image: Any, shape: tuple[int, ...], header: Header) -> tuple[Grid, tuple[str, ...]]:
    """Grid of the spatial axes and what a person should know about it; one slice gives a 2-D grid.

    Raises:
        BadInput: as `read_nifti`.
    """
    affine, notes = image.affine, ()
    if isinstance(image, nib.Nifti1Pair):
        affine, notes = _affine(name, image.header, (*shape, 1)[:3], header)
    if len(shape) == 2 or shape[2] == 1:
        grid, flat = planar(name, shape[:2], affine)
        notes = notes + flat
    else:
        grid = named_grid(name, shape, affine)
    if grid.shear > SHEAR:
        notes = (*notes, f"{name}: its voxel axes are sheared (|cosine| {grid.shear:.2g}), ITK tools cannot open this file")
    return grid, notes


def _affine(name: str, header: Any, shape: tuple[int, ...], choice: Header) -> tuple[np.ndarray, tuple[str, ...]]:
    try:
        with _quiet():
            unit = header.get_xyzt_units()[0]
            forms = header.get_qform(coded=True), header.get_sform(coded=True)
    except (HeaderDataError, KeyError, ValueError) as error:
        raise BadInput(f"{name}: its NIfTI geometry cannot be read ({last_line(error)})") from error
    if unit not in ("mm", "unknown"):
        raise BadInput(f"{name}: its header gives lengths in {unit}, mm was expected")
    (qform, q_code), (sform, s_code) = forms
    if not q_code and not s_code:
        return header.get_best_affine(), (
            f"{name}: has neither qform nor sform, its geometry is assumed from the voxel size (centred, as nibabel does)",
        )
    if not q_code or not s_code:
        return (sform if s_code else qform), ()
    distance = _corner_distance(qform, sform, shape)
    if distance <= DISAGREEMENT + _quaternion_slack(header, qform, shape):
        return sform, ()
    if choice == "strict":
        itk = "also the sform" if s_code == 1 and not _sheared(sform) else "the qform"
        raise BadInput(
            f"{name}: its qform and sform differ by up to {distance:.3g} mm (nibabel and FSL would take the sform, ITK, ANTs"
            f" and Slicer {itk}), choose one with --header sform or --header qform"
        )
    return (sform if choice == "sform" else qform), (f"{name}: qform and sform differ by {distance:.3g} mm, used the {choice}",)


def _corners(shape: tuple[int, ...]) -> np.ndarray:
    return np.array([[*corner, 1] for corner in product(*((0, n - 1) for n in shape))], dtype=np.float64)


def _corner_distance(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    return float(np.linalg.norm(_corners(shape) @ (one - other)[:3].T, axis=1).max())


def _quaternion_slack(header: Any, qform: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far (mm) the stored qform may be from the one that was meant.

    A quaternion (a, b, c, d) is stored as float32 b, c, d; a is what is left to length one. Near half a turn a is small
    and its error large: a tenth of a millimetre over a head.
    """
    real = abs(float(header.get_qform_quaternion()[0]))
    angle = 2 * (np.sqrt(real**2 + QUATERNION_ERROR) - max(real**2 - QUATERNION_ERROR, 0.0) ** 0.5)
    return angle * float(np.linalg.norm((_corners(shape) - [0, 0, 0, 1]) @ qform[:3].T, axis=1).max())


def _sheared(affine: np.ndarray) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR)


def write_nifti(path: Path, array: np.ndarray, grid: Grid, *, intent: int | None = None) -> None:
    """Write an array with its geometry in both forms, codes 1 and 1, lengths in mm, unscaled, in the array's dtype.

    A sheared grid, which a qform cannot hold, is written as sform alone.

    Args:
        path: .nii, .nii.gz, .mgz or .mgh; replaced atomically.
        array: (*S), or (*S, ...) with further axes behind three spatial ones.
        grid: where the S voxels are.
        intent: NIfTI intent code.

    Raises:
        BadInput: the folder cannot be written, or the format cannot hold the dtype.
        Failed: the disk is full, or the like.
    """
    mgh = path.name.lower().endswith((".mgz", ".mgh"))
    with replacing(path) as temporary, _holding(str(path), array):
        nib.save(_mgh(array, _affine_of(grid)) if mgh else nifti_image(str(path), array, grid, intent), temporary)


@contextmanager
def _holding(name: str, array: np.ndarray) -> Iterator[None]:
    """Turns what nibabel raises about an array that a format has no room for into one sentence."""
    try:
        yield
    except (HeaderDataError, MGHError) as error:
        raise BadInput(f"{name}: its format cannot hold {array.dtype} of shape {array.shape} ({last_line(error)})") from error


def _mgh(array: Any, affine: np.ndarray) -> Any:
    return MGHImage(array if array.ndim > 2 else array[..., None], affine)


def nifti_image(name: str, array: np.ndarray, grid: Grid, intent: int | None = None) -> nib.Nifti1Image:
    """What `write_nifti` writes to a NIfTI file.

    Raises:
        BadInput: NIfTI cannot hold the dtype or the shape.
    """
    affine = _affine_of(grid)
    with _holding(name, array):
        image: Any = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm", "sec")
    if intent is not None:
        image.header.set_intent(intent, (), "")
    image.set_sform(affine, 1)
    if _sheared(affine):
        image.set_qform(None, 0)
    else:
        image.set_qform(affine, 1)
    return image


def _affine_of(grid: Grid) -> np.ndarray:
    """(4, 4), also of a 2-D grid."""
    affine = np.eye(4)
    affine[: grid.dim, : grid.dim] = grid.affine[: grid.dim, : grid.dim]
    affine[: grid.dim, 3] = grid.origin
    return affine


def channels_last(array: np.ndarray, grid: Grid) -> np.ndarray:
    """(C, *S) as NIfTI has it: (*S), or with several channels (X, Y, Z, C), Z = 1 of a 2-D grid."""
    return array[0] if len(array) == 1 else np.moveaxis(array.reshape(len(array), *(*grid.shape, 1)[:3]), 0, -1)
