"""Memory: what a registration needs, and what was freed given back to the system."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

from warpwright.geometry import Grid
from warpwright.methods.settings import Settings

__all__ = ["give_back", "needed"]

VOXEL = 4  # bytes of a single-precision number
FIXED = 18  # numbers for each voxel of the fixed image at the highest point, measured
MATCHED = 2  # and for each displacement that matching tries for a voxel of a level
MOVING = 4  # and for each voxel of the moving image


def needed(fixed: Grid, moving: Grid, settings: Settings) -> int:
    """Bytes that a registration on the CPU takes at its highest point, an estimate.

    Args:
        fixed: grid of the fixed image.
        moving: grid of the moving image.
        settings: what will be done.
    """
    dense = FIXED if settings.deformable is not None else 8
    matching = 0 if settings.matching is None else MATCHED * settings.matching.largest(fixed)
    return VOXEL * (max(dense * fixed.size, 8 * fixed.size + matching) + MOVING * moving.size)


def give_back() -> None:
    """Ask the C library to return what was freed: glibc keeps volumes below 32 MB, and the next stage needs other sizes.

    Measured at 160 x 192 x 224: without it the process stays near its highest point from the first level on. Does
    nothing on systems without `malloc_trim`.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
