"""Volumes inside a page: what an interactive report holds besides the static one, small enough for a limit in bytes.

The images lie on the fixed grid, in 256 shades of the pictures' grey range or fewer, and a header says what the shades
mean. Noise does not compress, so that a volume is what a report weighs.
"""

from __future__ import annotations

import base64
import gzip
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import count

import numpy as np
from torch import Tensor

from warpwright.geometry import Grid
from warpwright.product.html import part
from warpwright.product.report.planes import Scales, beyond
from warpwright.product.report.run import Run
from warpwright.sampling import downsample
from warpwright.transforms import resample

__all__ = ["MOST", "Viewer", "viewer"]

PACKAGE = "warpwright.product.report"
MOST = 20_000_000  # bytes of an interactive report
ROOM = 20_000  # bytes of the elements around the files
VOXELS = 8_000_000  # of a volume that is shown as it is
BITS, LEAST_BITS = 8, 4  # of a voxel
OFFSET = 352  # of the voxels in a NIfTI file: a header, and four bytes that say that nothing follows it


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """The viewer and what it shows.

    Args:
        files: name and base64 of compressed NIfTI files: "fixed", "moved", "before".
        levels: shades of the file that has the fewest.
        factor: voxels of the image to one that is shown, along each axis.
        library: the script of NiiVue.
        script: what is done with it.
        licence: of NiiVue.
    """

    files: tuple[tuple[str, str], ...]
    levels: int
    factor: int
    library: str
    script: str
    licence: str


def viewer(run: Run, shades: Scales, limit: int) -> Viewer:
    """The viewer of a registration of volumes.

    Args:
        run: the registration.
        shades: grey ranges of the fixed and of the moving image.
        limit: bytes that all of it may have.
    """
    grid, outside = run.fixed.image.grid, beyond(run.moving.image)
    library, script, licence = _vendored("niivue.umd.js.gz"), part(PACKAGE, "volumes.js"), _vendored("LICENSE")
    before, moved = (resample(run.moving.image, way, grid, background=outside).data for way in (run.initial, run.transform))
    shown = {"fixed": (run.fixed.image.data, shades.fixed), "moved": (moved, shades.moving), "before": (before, shades.moving)}
    left = limit - ROOM - sum(len(text.encode()) for text in (library, script, licence))
    for factor in count(max(1, math.ceil((grid.size / VOXELS) ** (1 / grid.dim)))):
        found = {name: _packed(data, grid, factor, between, left // len(shown)) for name, (data, between) in shown.items()}
        if sum(len(text) for text, _ in found.values()) <= left or factor >= max(grid.shape):
            break
    return Viewer(
        files=tuple((name, text) for name, (text, _) in found.items()),
        levels=min(levels for _, levels in found.values()),
        factor=factor,
        library=library,
        script=script,
        licence=licence,
    )


@cache
def _vendored(name: str) -> str:
    """The text of a file of NiiVue."""
    data = (resources.files(PACKAGE) / "vendor" / "niivue" / name).read_bytes()
    return (gzip.decompress(data) if name.endswith(".gz") else data).decode("utf-8")


def _packed(data: Tensor, grid: Grid, factor: int, between: tuple[float, float], limit: int) -> tuple[str, int]:
    """A volume with as many shades as a limit allows, or the fewest.

    Args:
        data: (1, *S).
        grid: where the voxels are.
        factor: voxels to one along each axis.
        between: values of the first and of the last shade.
        limit: bytes of base64.

    Returns:
        Base64 of a compressed NIfTI file, and the number of shades.
    """
    factors = tuple(min(factor, n) for n in grid.shape)
    values = downsample(data[None], factors)[0, 0].numpy()
    shares = np.clip((values - between[0]) / (between[1] - between[0]), 0, 1)
    bits, grid = BITS, grid.downsample(factors)
    while True:
        packed = gzip.compress(_nifti(shares, grid, between, 2**bits), 6, mtime=0)
        text = base64.b64encode(packed).decode("ascii")
        if len(text) <= limit or bits == LEAST_BITS:
            return text, 2**bits
        spare = 6 * (len(text) - limit) / grid.size  # bits of a voxel; a character of base64 holds six
        bits = max(LEAST_BITS, bits - max(1, math.ceil(spare)))


def _nifti(shares: np.ndarray, grid: Grid, between: tuple[float, float], levels: int) -> bytes:
    """Shares (*S) of a range as a NIfTI file of whole numbers, from which the header leads back to values."""
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shares.shape)
    header.set_zooms(grid.spacing)
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, 1)
    header.set_slope_inter((between[1] - between[0]) / (levels - 1), between[0])
    header["cal_min"], header["cal_max"], header["vox_offset"] = *between, OFFSET
    voxels = (shares * (levels - 1)).round().astype(np.uint8)
    return header.binaryblock.ljust(OFFSET, b"\0") + voxels.tobytes(order="F")
