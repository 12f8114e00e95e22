"""Squares (cubes in 3-D) that do or do not overlap: the toy task of DIO (section 4.1).

Where two squares lie apart, no small move changes the difference of the images, so that their intensities have no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warpwright.data.synthetic.checks import check_at_least, check_shape, check_share
from warpwright.data.synthetic.pair import SyntheticPair
from warpwright.errors import BadInput

__all__ = ["SquareSettings", "square_pair"]


@dataclass(frozen=True, kw_only=True)
class SquareSettings:
    """The authors use 128 and 32 on a canvas of 256 x 256; in 3-D 64 and 20 on one of 128 x 128 x 128.

    Args:
        active: edge of the region in the middle of the canvas where the squares lie, voxels.
        side: edge of a square, voxels; at most a third of `active`, so that there is always room beside one.
        overlap: probability that the two squares overlap.
    """

    active: int = 128
    side: int = 32
    overlap: float = 0.5

    def __post_init__(self) -> None:
        check_at_least("the side of squares", self.side, 1)
        check_share("the probability that squares overlap", self.overlap)
        if self.active <= 3 * self.side:
            raise BadInput(
                f"the active region of squares must be longer than three sides, got {self.active} and sides of {self.side}"
            )


def square_pair(shape: tuple[int, ...], settings: SquareSettings, rng: np.random.Generator) -> SyntheticPair:
    """A square of ones on zeros in two places; the truth is a translation by whole voxels.

    Overlapping squares are at most half a side apart along each axis, the others more than a side along at least one, so that a
    column of zeros lies between them. Whether they overlap is drawn first, then the fixed square, then the moving one.

    Args:
        shape: S of the canvas, 2 or 3 axes.
        settings: sizes.
        rng: where the numbers come from.

    Returns:
        A pair with labels (1 in the square), and the displacement, the same everywhere.

    Raises:
        BadInput: the canvas is smaller than the active region.
    """
    check_shape(shape)
    if min(shape) < settings.active:
        raise BadInput(f"the canvas of squares must be at least {settings.active} voxels along each axis, got shape {shape}")
    dim, side, room = len(shape), settings.side, settings.active - settings.side + 1
    overlap = rng.random() < settings.overlap
    fixed = rng.integers(0, room, dim)
    if overlap:
        moving = rng.integers(np.maximum(0, fixed - side // 2), np.minimum(room, fixed + side // 2 + 1))
    else:
        moving = rng.integers(0, room, dim)
        while np.abs(moving - fixed).max() <= side:
            moving = rng.integers(0, room, dim)
    corner = (np.array(shape) - settings.active) // 2
    fixed_labels, moving_labels = (_square(shape, corner + at, side) for at in (fixed, moving))
    shift = torch.from_numpy(moving - fixed).to(torch.float32)
    return SyntheticPair(
        fixed=fixed_labels.to(torch.float32),
        moving=moving_labels.to(torch.float32),
        fixed_labels=fixed_labels,
        moving_labels=moving_labels,
        displacement=shift.reshape(-1, *(1,) * dim).expand(dim, *shape).contiguous(),
    )


def _square(shape: tuple[int, ...], corner: np.ndarray, side: int) -> Tensor:
    labels = torch.zeros(1, *shape, dtype=torch.int32)
    labels[(0, *(slice(int(begin), int(begin) + side) for begin in corner))] = 1
    return labels
