"""Photographs of the fundus, or maps of its vessels, under a known motion: two images of one eye.

From `retina_chase` (CHASE_DB1, CC BY 4.0, Fraz et al., IEEE TBME 59(9), 2012): green channel and the first observer's vessels,
999 x 960 pixels. World points are pixels of the original (x right, y down, first centre at 0), so that distances in the
world, mm to the toolkit, are pixels at 999 pixels width whatever the size of the images. Between the two images of a pair lie
a translation, a rotation about the middle and a smooth displacement; each image makes half of that motion, in opposite
directions, and is interpolated once. Landmarks are bifurcations, carried exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from torch import Tensor

from bifurcations import bifurcations
from smooth_motion import grid_points, longest, scaled, smooth_motion
from warpwright.data import Split
from warpwright.data.synthetic.fields import random_field
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import Points, write_image, write_points
from warpwright.sampling import field_of_view, green_channel
from warpwright.transforms import Affine, Transform, carried_points, laid, resample

__all__ = ["ROWS", "Eye", "Kind", "half_motions", "pair_motion", "read_eye", "write_fundus_pairs"]

Kind = Literal["photograph", "vessels"]

WARPS: dict[Split, int] = {"train": 10, "validation": 3, "test": 5}  # pairs of each eye
EYES: dict[Split, tuple[str, ...]] = {  # by child
    "train": tuple(f"{child:02d}{side}" for child in range(1, 8) for side in "LR"),
    "validation": ("08L", "08R"),
    "test": ("09L", "09R", "10L", "10R"),
}
ROWS = ("id", "fixed", "moving", "fixed_mask", "moving_mask", "fixed_points", "moving_points", "split")

TRANSLATION = (10.0, 30.0)  # length, pixels of the original, as all lengths here
ANGLE = 4.0  # degrees, at the most to either side
LONGEST = (0.025, 0.05)  # vector of the smooth displacement, shares of the width
SCALE, STEP, MARGIN = 250.0, 4.0, 100.0  # between control points, between nodes of the field, beyond the picture
LEAST = 25.0  # mean displacement of landmarks; a motion of less is drawn again
BORDER = 20.0  # landmarks lie farther than that from the border of either image

GAMMA = 1.5  # contrast: an exponent between its inverse and itself
LIGHT, PATCH = 0.2, 300.0  # standard deviation of the logarithm of illumination, distance of its control points
NOISE: dict[Kind, float] = {"photograph": 5.0, "vessels": 13.0}  # standard deviation, grey levels
PAPER, INK = 64.0, 192.0  # grey levels of a map of vessels, so that noise is not cut off


class Eye(NamedTuple):
    """One photograph on the grid of the original.

    Args:
        green: (1, X, Y) float32, 0 to 255.
        vessels: (1, X, Y) float32, 1 in vessels.
        view: (1, X, Y) float32, 1 in the field of view.
        landmarks: (L, 2) float64, where vessels branch or cross, pixels.
        grid: of 1 mm.
    """

    green: Tensor
    vessels: Tensor
    view: Tensor
    landmarks: Tensor
    grid: Grid


def read_eye(folder: Path, name: str) -> Eye:
    """A photograph of `retina_chase` by the number of the child and the side: "01L"."""
    photograph, vessels = folder / f"Image_{name}.jpg", folder / f"Image_{name}_1stHO.png"
    for path in (photograph, vessels):
        if not path.exists():
            raise BadInput(f"{path}: does not exist, a picture of CHASE_DB1 was expected")
    colours = torch.from_numpy(sitk.GetArrayFromImage(sitk.ReadImage(str(photograph))).T.astype(np.float32))
    drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(vessels))).T > 0
    landmarks = bifurcations(drawn)
    if not len(landmarks):
        raise BadInput(f"{vessels}: has no place where vessels branch, a map of vessels that do was expected")
    return Eye(
        green=green_channel(colours),
        vessels=torch.from_numpy(drawn[None].astype(np.float32)),
        view=field_of_view(colours),
        landmarks=torch.from_numpy(landmarks),
        grid=Grid.regular(drawn.shape),
    )


def half_motions(grid: Grid, rng: np.random.Generator) -> tuple[Transform, Transform]:
    """Where the fixed and the moving image of a pair look in the original; half of a random motion and half of its inverse."""
    angle, length = np.deg2rad(rng.uniform(-ANGLE, ANGLE)), rng.uniform(*TRANSLATION)
    way, most = rng.uniform(0, 2 * np.pi), grid.shape[0] * rng.uniform(*LONGEST)
    field = smooth_motion(grid, MARGIN, STEP, SCALE, rng)
    field = scaled(field, most / longest(field, grid_points(grid.downsample((4, 4)))))
    shift = length * np.array([np.cos(way), np.sin(way)])
    fixed, moving = (_rigid(grid.centre, half * angle, half * shift) @ scaled(field, half) for half in (0.5, -0.5))
    return fixed, moving


def write_fundus_pairs(data: Path, folder: Path, kind: Kind, sides: Mapping[Split, int]) -> list[tuple[str, ...]]:
    """Write the pairs that are not there yet, and say what belongs together.

    Args:
        data: folder `retina_chase`.
        folder: where the images go, grey levels 0 to 255 in bytes.
        kind: "photograph", each image in its own light and contrast, or "vessels"; both under the same motions.
        sides: pixels along the width of the images of each split that is wanted; 999 is the original's, 499 and 333 are
            smoothed over blocks of 2 and 3 pixels first.

    Returns:
        A row for each pair, as `ROWS` says. Masks are fields of view, landmarks lie in space "ras".
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = []
    for split, side in sides.items():
        for name in EYES[split]:
            files = [_files(folder, f"{kind}-{name}-{warp:02d}-{side}") for warp in range(WARPS[split])]
            missing = [warp for warp, some in enumerate(files) if not all(path.exists() for path in some)]
            eye = read_eye(data, name) if missing else None
            for warp in missing:
                _write(eye, kind, side, warp, name, files[warp])
            rows += [(f"{name}-{warp:02d}", *map(str, some), split) for warp, some in enumerate(files)]
    return rows


def pair_motion(eye: Eye, rng: np.random.Generator) -> tuple[tuple[Transform, Transform], tuple[Tensor, Tensor]]:
    """Both halves of a motion of at least 25 pixels, mean over landmarks; (L, 2) where fixed and moving image show these."""
    while True:
        halves = half_motions(eye.grid, rng)
        places = [carried_points(eye.landmarks, half) for half in halves]
        both = torch.cat(places, 1)
        last = torch.tensor(eye.grid.shape * 2) - 1
        shown = ((both > BORDER) & (both < last - BORDER)).all(1)
        fixed, moving = (place[shown] for place in places)
        if float((fixed - moving).norm(dim=1).mean()) >= LEAST:
            return halves, (fixed, moving)


def _rigid(centre: np.ndarray, angle: float, shift: np.ndarray) -> Affine:
    """A turn about a point, radians, then a shift."""
    matrix = np.eye(3)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:2, 2] = centre - matrix[:2, :2] @ centre + shift
    return Affine(matrix)


def _files(folder: Path, stem: str) -> tuple[Path, ...]:
    parts = ("fixed.nii.gz", "moving.nii.gz", "fixed-mask.nii.gz", "moving-mask.nii.gz", "fixed.csv", "moving.csv")
    return tuple(folder.resolve() / f"{stem}-{part}" for part in parts)


def _write(eye: Eye, kind: Kind, side: int, warp: int, name: str, files: tuple[Path, ...]) -> None:
    rng, noise = np.random.default_rng((*name.encode(), warp)), np.random.default_rng((*name.encode(), warp, side))
    halves, places = pair_motion(eye, rng)
    grid = _sized(eye.grid, side)
    for k, (half, points) in enumerate(zip(halves, places, strict=True)):
        picture, paper = _lit(eye, rng) if kind == "photograph" else (PAPER + (INK - PAPER) * eye.vessels, PAPER)
        grey = laid(Image(picture - paper, eye.grid), half, grid) + paper
        grey += torch.from_numpy(noise.normal(0, NOISE[kind], tuple(grey.shape)))
        view = resample(Image(eye.view, eye.grid), half, grid, interpolation="nearest").data
        write_points(files[4 + k], Points(points, tuple(map(str, range(1, len(points) + 1)))), "ras")
        write_image(files[2 + k], Image(view.to(torch.uint8), grid))
        write_image(files[k], Image(grey.round().clamp(0, 255).to(torch.uint8), grid))


def _sized(grid: Grid, side: int) -> Grid:
    """Pixels over the extent of the original, so many along its width."""
    step = grid.shape[0] / side
    shape = tuple(round(n / step) for n in grid.shape)
    affine = np.diag([step, step, 1.0])
    affine[:2, 2] = [(n - 1 - step * (m - 1)) / 2 for n, m in zip(grid.shape, shape, strict=True)]
    return Grid(shape, affine)


def _lit(eye: Eye, rng: np.random.Generator) -> tuple[Tensor, float]:
    """The photograph in another contrast and light, in float32, and the grey level outside."""
    middle = eye.green[eye.view > 0].median()
    contrast = middle * (eye.green / middle) ** GAMMA ** rng.uniform(-1, 1)
    return (contrast * random_field(1, eye.grid.shape, PATCH, LIGHT, rng)[0].exp()).float(), 0.0
