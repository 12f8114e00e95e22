"""Facts about a file: an image, a transform, or a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from warpwright.config import to_mapping
from warpwright.errors import BadInput
from warpwright.geometry import Image
from warpwright.io.ants import ants_files
from warpwright.io.image import read_image
from warpwright.product.choices import Header
from warpwright.product.model_folder import CONFIG, read_model
from warpwright.product.transform_tools import describe_transform

__all__ = ["describe", "describe_image"]

TRANSFORMS = (".h5", ".mat", ".tfm", ".txt", ".hdf5")


def describe(path: str | Path, *, header: Header = "strict", series: str | None = None) -> dict[str, Any]:
    """Plain values about an image, a DICOM folder, a transform, an ANTs prefix, the folder of a registration, or a model's.

    Args:
        path: as said.
        header: which geometry of a NIfTI file to take where its two differ.
        series: which series of a DICOM folder that holds several (UID or its ending).

    Raises:
        BadInput: it cannot be read as any of them.
    """
    path = Path(path)
    if any(file.exists() for file in ants_files(path)[:2]) or (path / "transform.h5").is_file():
        return describe_transform(path, header=header)
    if (path / CONFIG).is_file():
        return describe_model(path)
    if not path.exists():
        raise BadInput(f"{path}: does not exist, expected an image, a transform, or a folder")
    if path.suffix.lower() in TRANSFORMS or _is_field(path):
        return describe_transform(path, header=header)
    return describe_image(read_image(path, header=header, series=series))


def describe_model(path: Path) -> dict[str, Any]:
    """Settings, size and training of a model folder."""
    folder = read_model(path)
    return {
        "file": str(path),
        "kind": "model",
        "weights": sum(p.numel() for p in folder.model.parameters()),
        "sha256": folder.digest,
        **({} if folder.score is None else {"score_sha256": folder.score.digest}),
        "settings": to_mapping(folder.model.settings),
        "training": dict(folder.summary),
    }


def describe_image(image: Image) -> dict[str, Any]:
    """Shape, geometry and intensities of an image."""
    grid, values = image.grid, image.data.double()
    quantiles = np.percentile(values.numpy(), [1, 50, 99]).tolist()
    return {
        "file": image.name,
        "kind": "image",
        "shape": list(grid.shape),
        "channels": image.channels,
        "spacing_mm": list(grid.spacing),
        "size_mm": [n * s for n, s in zip(grid.shape, grid.spacing, strict=True)],
        "axes": "".join(_letter(column) for column in grid.direction.T) if grid.dim == 3 else "",
        "affine_ras": grid.affine.tolist(),
        "intensity": {"min": float(values.min()), "max": float(values.max()), "p1_p50_p99": quantiles},
        "notes": list(image.notes),
    }


def _letter(column: np.ndarray) -> str:
    """The anatomical direction that a voxel axis points to most nearly."""
    axis = int(np.abs(column).argmax())
    return ("RAS" if column[axis] > 0 else "LPI")[axis]


def _is_field(path: Path) -> bool:
    """Whether a NIfTI file holds vectors (intent 1006 or 1007)."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return False
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError

    try:
        header: Any = nib.load(path).header
    except (OSError, EOFError, ValueError, ImageFileError):
        return False
    return int(header.get("intent_code", 0)) in (1006, 1007)
