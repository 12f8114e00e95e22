"""An image: numbers on a grid, with the name that messages about it use."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry.grid import Grid

__all__ = ["Image"]


@dataclass(frozen=True, eq=False)
class Image:
    """Numbers on a grid.

    Args:
        data: (C, *S); float32 for intensities and masks, an integer dtype for labels.
        grid: where the S voxels are.
        name: what a message calls it (a path, as a rule).
        notes: sentences about the file that a person should read (shear, guessed units ...).

    Raises:
        BadInput: the data does not have the grid's shape.
    """

    data: Tensor
    grid: Grid
    name: str = "image"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if tuple(self.data.shape[1:]) != self.grid.shape:
            raise BadInput(f"{self.name}: data of shape {tuple(self.data.shape)} does not fit a grid of {self.grid.shape}")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.data.shape[0]
