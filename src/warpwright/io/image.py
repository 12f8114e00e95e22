"""The front door for intensities, labels and masks: image files by their suffix, and images in memory (`io.memory`).

NIfTI and MGH go through nibabel (`io.nifti`), all else and DICOM folders through SimpleITK (`io.simpleitk`);
those libraries are imported when a file needs them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io.frames import Header, Raw
from warpwright.io.memory import ImageLike, for_file, memory_raw

__all__ = [
    "check_on_grid",
    "read_image",
    "read_labels",
    "read_mask",
    "read_scalar",
    "require_structure",
    "suffix_of",
    "write_image",
]

NIBABEL = (".nii.gz", ".nii", ".mgz", ".mgh")
PICTURES = {".png": (1, 3, 4), ".jpg": (1, 3), ".jpeg": (1, 3), ".bmp": (1, 3, 4)}  # and the channels that they hold
TIFF = (".tif", ".tiff")
WRITABLE = (*NIBABEL, ".nrrd", ".mha", *TIFF, *PICTURES)
READABLE = (*WRITABLE, ".nhdr", ".mhd", ".gipl", ".dcm")
LABEL_DTYPES = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64, "bool": np.uint8}


def suffix_of(path: Path, known: tuple[str, ...], what: str) -> str:
    """The one of `known` that the name ends in, whatever its case.

    Raises:
        BadInput: none of them; the sentence lists them.
    """
    for suffix in known:
        if path.name.lower().endswith(suffix):
            return suffix
    raise BadInput(f"{path}: has no known suffix for {what}, expected one of {' '.join(known)}")


def read_image(source: ImageLike, *, header: Header = "strict", series: str | None = None, name: str = "image") -> Image:
    """An image of intensities, with as many channels as the source has.

    Args:
        source: file, folder with DICOM slices, or an image in memory, see `ImageLike`.
        header: which geometry of a NIfTI image to take where its qform and sform are both set and differ.
        series: which series of a DICOM folder that holds several (UID or its ending).
        name: what messages call an image in memory that has no name of its own.

    Returns:
        float32 data (C, *S), a copy; `notes` says what a person should know about the source.

    Raises:
        BadInput: missing, truncated or corrupt file, unknown suffix, refused geometry, NaN or inf.
    """
    name, raw = _read(source, header, series, name)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf and is refused
        data = torch.from_numpy(raw.array.astype(np.float32, order="C"))
    bad = data.numel() - np.count_nonzero(np.isfinite(data.numpy()))
    if bad:
        raise BadInput(f"{name}: {bad} of {data.numel()} values are NaN or inf, finite numbers were expected")
    return Image(data, raw.grid, name, raw.notes)


def _read(source: ImageLike, header: Header, series: str | None, name: str) -> tuple[str, Raw]:
    """What messages call a source, and what it holds."""
    if isinstance(source, (str, Path)):
        name, raw = str(source), _read_file(Path(source), header, series)
    else:
        name = source.name if isinstance(source, Image) else name
        raw = memory_raw(source, name, header)
    if raw.array.dtype.kind not in "biuf":
        raise BadInput(f"{name}: holds values of type {raw.array.dtype}, real numbers were expected")
    return name, raw


def _read_file(path: Path, header: Header, series: str | None) -> Raw:
    if path.is_dir():
        from warpwright.io.simpleitk import read_dicom_folder

        return read_dicom_folder(path, series)
    if not path.exists():
        raise BadInput(f"{path}: does not exist, an image file was expected")
    suffix = suffix_of(path, READABLE, "an image")
    if suffix in NIBABEL:
        from warpwright.io.nifti import read_nifti

        return read_nifti(path, header)
    from warpwright.io.simpleitk import read_itk_image

    raw = read_itk_image(path)
    if suffix in TIFF and raw.grid.dim > 2:
        note = f"{path}: a TIFF does not say how far apart its slices are, they are taken as {raw.grid.spacing[2]:g} mm apart"
        raw = Raw(raw.array, raw.grid, (*raw.notes, note))
    return raw


def read_scalar(source: ImageLike, *, header: Header = "strict", series: str | None = None, name: str = "image") -> Image:
    """As `read_image`, for one channel: a 4-D or RGB file is refused."""
    image = read_image(source, header=header, series=series, name=name)
    _one_channel(image.name, image.channels)
    return image


def _one_channel(name: str, channels: int) -> None:
    if channels != 1:
        raise BadInput(f"{name}: has {channels} channels (4-D or RGB), an image of one channel was expected")


def read_labels(source: ImageLike, *, header: Header = "strict", series: str | None = None, name: str = "labels") -> Image:
    """A label map: (1, *S) integers in the source's dtype; whole numbers stored as floats become int32.

    Raises:
        BadInput: as `read_scalar`, or some value is not whole.
    """
    name, raw = _read(source, header, series, name)
    _one_channel(name, len(raw.array))
    array = raw.array.astype(raw.array.dtype.newbyteorder("="), order="C")
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.round(array)) & (np.abs(array) < 2**31)
        if not whole.all():
            raise BadInput(f"{name}: {int((~whole).sum())} of {array.size} values are not whole, a label map was expected")
        array = array.astype(np.int32)
    array = array.astype(LABEL_DTYPES.get(array.dtype.name, array.dtype))
    return Image(torch.from_numpy(array), raw.grid, name, raw.notes)


def read_mask(source: ImageLike, *, header: Header = "strict", series: str | None = None, name: str = "mask") -> Image:
    """Weights of voxels: (1, *S) float32 >= 0, as they are in the source (soft masks stay soft).

    Raises:
        BadInput: as `read_scalar`, or a weight is negative, or none is positive.
    """
    image = read_scalar(source, header=header, series=series, name=name)
    if float(image.data.min()) < 0:
        raise BadInput(
            f"{image.name}: has a negative value ({float(image.data.min()):g}), a mask with weights >= 0 was expected"
        )
    if float(image.data.max()) == 0:
        raise BadInput(f"{image.name}: is empty (every voxel is 0), a mask with at least one voxel was expected")
    return image


def require_structure(image: Image) -> None:
    """Refuse an image on which nothing can be matched.

    Raises:
        BadInput: every channel is constant.
    """
    flat = image.data.flatten(1)
    if bool((flat.amin(1) == flat.amax(1)).all()):
        raise BadInput(f"{image.name}: every voxel is {float(flat[0, 0]):g}, an image with some structure was expected")


def check_on_grid(image: Image, grid: Grid, reference_name: str) -> None:
    """Refuse a mask or label map that does not lie on its image's voxels.

    Args:
        image: the mask or label map.
        grid: where it should lie.
        reference_name: what the image of that grid is called.

    Raises:
        BadInput: the shapes differ, or the voxels lie apart.
    """
    if image.grid.shape != grid.shape:
        raise BadInput(f"{image.name}: has {image.grid.shape} voxels, the {grid.shape} of {reference_name} were expected")
    if not image.grid.same_as(grid):
        distance = grid.corner_distance(image.grid.affine)
        raise BadInput(
            f"{image.name}: its voxels lie up to {distance:.3g} mm from those of {reference_name}, the same were expected"
        )


def write_image(path: str | Path, image: Image, *, dtype: torch.dtype | None = None) -> None:
    """Write an image in the format of the suffix, atomically.

    Args:
        path: file; an old one is replaced.
        image: (C, *S).
        dtype: of the values in the file; default float32 for floats, and integers as they are. A picture (.png, .jpg,
            .bmp) holds the values rounded to 8 bits, in grey or RGB (.png and .bmp: or with alpha). Pictures and TIFF hold
            2-D images with their voxel sizes at most, no place in the world.

    Raises:
        BadInput: the suffix is unknown, or the format cannot hold the image.
        Failed: the file could not be written.
    """
    path = Path(path)
    suffix = suffix_of(path, WRITABLE, "an image to write")
    array = for_file(image.data, dtype)
    if suffix in (*PICTURES, *TIFF) and image.grid.dim != 2:
        raise BadInput(
            f"{path}: its format holds 2-D images, this one has {image.grid.dim} axes: expected .nii.gz, .nrrd or .mha"
        )
    if suffix in PICTURES:
        array = _eight_bits(path, array, PICTURES[suffix])
    if suffix not in NIBABEL:
        from warpwright.io.simpleitk import write_itk_image

        write_itk_image(path, array, image.grid)
        return
    from warpwright.io.nifti import channels_last, write_nifti

    write_nifti(path, channels_last(array, image.grid), image.grid)


def _eight_bits(path: Path, array: np.ndarray, channels: tuple[int, ...]) -> np.ndarray:
    if len(array) not in channels:
        held = " or ".join(str(n) for n in channels)
        raise BadInput(
            f"{path}: its format holds {held} channels, this image has {len(array)}: expected .tif, .nii.gz, .nrrd or .mha"
        )
    values = np.rint(array)
    if values.min() < 0 or values.max() > 255:
        raise BadInput(
            f"{path}: a picture holds values from 0 to 255, these go from {array.min():g} to {array.max():g}:"
            " expected .tif, .nii.gz, .nrrd or .mha"
        )
    return values.astype(np.uint8)
