"""An image: numbers on a grid, with the name that messages about it use."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry.grid import Grid

__all__ = ["Image"]

NAME = 40  # letters of a name that are shown at most


@dataclass(frozen=True, eq=False, repr=False)
class Image:
    """Numbers on a grid.

    Args:
        data: (C, *S); float32 for intensities and masks, an integer dtype for labels.
        grid: where the S voxels are.
        name: what a message calls it (a path, as a rule).
        notes: sentences about the file that a person should read (shear, guessed units ...).

    Raises:
        BadInput: the data does not have the grid's shape.

    Examples:
        >>> import torch
        >>> from warpwright import Grid, Image, to_numpy
        >>> grid = Grid.regular((24, 20, 16), spacing=(1.0, 1.0, 2.5))
        >>> image = Image(torch.arange(24 * 20 * 16, dtype=torch.float32).reshape(1, 24, 20, 16), grid, name="ramp")
        >>> image
        <Image 'ramp': 24 x 20 x 16 voxels of 1 x 1 x 2.5 mm, RAS, float32 from 0 to 7679>
        >>> array, affine = to_numpy(image)
        >>> array.shape, affine.diagonal().tolist()
        ((24, 20, 16), [1.0, 1.0, 2.5, 1.0])
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

    def __repr__(self) -> str:
        name = self.name if len(self.name) <= NAME else f"...{self.name[3 - NAME :]}"
        channels = f", {self.channels} channels" if self.channels != 1 else ""
        return f"<Image {name!r}: {self.grid.text}{channels}, {_values(self.data)}>"


def _values(data: Tensor) -> str:
    """Type and range of values, or the type alone of those that torch does not order, and where there are none."""
    kind = str(data.dtype).removeprefix("torch.")
    try:
        least, most = (f"{float(value):.4g}" for value in torch.aminmax(data.detach()))
    except RuntimeError:
        return kind
    return f"{kind} from {least} to {most}"
