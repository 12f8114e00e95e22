"""The pairs of the public FIRE set of retinal photographs, from the folders it is distributed in.

    Images/P01_1.jpg, Images/P01_2.jpg, ...              2912 x 2912 pixels
    Ground Truth/control_points_P01_1_2.txt, ...         a line for each control point: x1 y1 x2 y2, pixels

Pixel centres are at whole numbers, the first at 0, as in the literature's code. There are 134 pairs, A01 to A14 (anatomical
change), P01 to P49 (small overlap) and S01 to S71 (large overlap). The control points of P37 are wrong, so the literature
leaves that pair out, and so does this: 133 are left. The data are not part of this package.

Which image is fixed: the literature measures |T(x2) - x1|, in pixels of image 1. A `Registration.forward` maps points of the
fixed image to points of the moving one and its error is |forward(fixed point) - moving point|. So **image 2 is fixed and image
1 is moving**, pulled onto the grid of image 2: then the two are the same number.

Errors in pixels of the full image, for images read by `io.read_image`, whose first voxel axis is x:

    mapped = moving.grid.to_voxel(forward(fixed.grid.to_world(pair.fixed_points)))
    errors = (mapped - pair.moving_points).norm(dim=1)

Both grids are those of the full images, whatever the registration was computed on; a `Grid.downsample` of them keeps the world.
Where pictures were resized to n x n pixels on disk and lost the world, a point p lies at (p + 1/2) n / 2912 - 1/2 in them, and
errors in their pixels are multiplied by 2912 / n.

The published numbers of the deformable methods (GPOreg and those in its tables) are of pairs that a global transform had
aligned before, so that the identity is 5.7 pixels off on the test split. The public images are not aligned: numbers from them
are not comparable with those, unless the same is done first. Aligned files in the same layout are read in the same way.

Sources: Hernandez-Matas et al., Journal for Modeling in Ophthalmology 1(4), 2017; github.com/ruc-aimc-lab/SuperRetina (P37);
github.com/xintian-99/GPOreg, `loaders/firereg_loader.py` (test split).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput, first_of

__all__ = ["FireCategory", "FirePair", "FireSplit", "read_fire"]

FireCategory: TypeAlias = Literal["A", "P", "S"]
FireSplit: TypeAlias = Literal["all", "test"]

IMAGES, POINTS = "Images", "Ground Truth"
WRONG = "P37"
SPLITS: dict[FireSplit, dict[FireCategory, range]] = {
    "all": {"A": range(1, 15), "P": range(1, 50), "S": range(1, 72)},
    "test": {"A": range(12, 15), "P": range(40, 50), "S": range(57, 72)},  # the last fifth of each class
}
COLUMNS = 4  # of a file of points


@dataclass(frozen=True, eq=False, kw_only=True)
class FirePair:
    """Two photographs of one retina and the control points in both.

    Args:
        name: "P01".
        category: its class, the letter of the name.
        fixed: image 2.
        moving: image 1.
        fixed_points: (N, 2) float64, voxels of the full image, axis order (x, y).
        moving_points: (N, 2), the same points in the moving image.
    """

    name: str
    category: FireCategory
    fixed: Path
    moving: Path
    fixed_points: Tensor
    moving_points: Tensor


def read_fire(folder: str | Path, split: FireSplit = "all") -> tuple[FirePair, ...]:
    """The pairs of a split, in the order of their names; the images are not opened.

    Args:
        folder: holds the folders "Images" and "Ground Truth".
        split: "all": 133 pairs, without P37; "test": 28 of them, A12 to A14, P40 to P49 and S57 to S71. Other pairs need not be
            in the folder.

    Raises:
        BadInput: an unknown split, a missing folder or file, or a file of points without four finite numbers in each line.
    """
    if split not in SPLITS:
        raise BadInput(f"FIRE has the splits {', '.join(SPLITS)}, got {split!r}")
    folder = Path(folder)
    for part in (folder / IMAGES, folder / POINTS):
        if not part.is_dir():
            raise BadInput(f"{part}: is not a folder, the folders {IMAGES} and {POINTS} of FIRE were expected")
    named = _named(split)
    missing = [str(path.relative_to(folder)) for name in named for path in _files(folder, name) if not path.is_file()]
    if missing:
        raise BadInput(f"{folder}: lacks {first_of(missing)}, expected the files of the {len(named)} pairs of split {split!r}")
    return tuple(_pair(folder, category, name) for name, category in named.items())


def _named(split: FireSplit) -> dict[str, FireCategory]:
    """The class of each pair of a split by its name, without the wrong one."""
    every: dict[str, FireCategory] = {
        f"{category}{number:02d}": category for category, numbers in SPLITS[split].items() for number in numbers
    }
    every.pop(WRONG, None)
    return every


def _files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Image 1, image 2 and the points of both."""
    images = folder / IMAGES
    return images / f"{name}_1.jpg", images / f"{name}_2.jpg", folder / POINTS / f"control_points_{name}_1_2.txt"


def _pair(folder: Path, category: FireCategory, name: str) -> FirePair:
    moving, fixed, points = _files(folder, name)
    moving_points, fixed_points = _read_points(points).split(2, dim=1)
    return FirePair(
        name=name,
        category=category,
        fixed=fixed,
        moving=moving,
        fixed_points=fixed_points,
        moving_points=moving_points,
    )


def _read_points(path: Path) -> Tensor:
    """(N, 4) float64: x1, y1, x2, y2 of each control point."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read, a text of control points was expected") from error
    if not lines:
        raise BadInput(f"{path}: has no control points, expected a line x1 y1 x2 y2 for each")
    return torch.tensor([_numbers(path, number, cells) for number, cells in enumerate(lines, 1)], dtype=torch.float64)


def _numbers(path: Path, number: int, cells: Sequence[str]) -> list[float]:
    if len(cells) != COLUMNS:
        raise BadInput(f"{path}: its point {number} has {len(cells)} columns, expected the four of x1 y1 x2 y2")
    try:
        values = [float(cell) for cell in cells]
    except ValueError as error:
        raise BadInput(f"{path}: its point {number} is not four numbers ({' '.join(cells)})") from error
    if not np.isfinite(values).all():
        raise BadInput(f"{path}: its point {number} is NaN or inf, finite coordinates were expected")
    return values
