"""One picture by which a person judges a registration at a glance.

A row for each cut (three for a volume), six columns: fixed; moving as it lay before; moved; a checkerboard of fixed and
moved; the grid of the moving image as the map draws it on the fixed one; the logarithm of the Jacobian determinant. Before
the last, where there is one, the score of the fixed image.
Outlines of labels and landmarks: fixed solid, moving dashed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from torch import Tensor

from warpwright.geometry import Image
from warpwright.product.slices import Slice, middle, slices

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "FLOOR", "MOVING", "TICKS", "Picture", "colour_limit", "draw", "grid_lines", "scaled", "window"]

COLOURS = ("#ffd23f", "#3fd0ff", "#ff6b6b", "#7dff7a", "#d68cff", "#ff9f45", "#8affea", "#ffb3d9")
TITLES = ("fixed", "moving, before", "moved", "fixed | moved", "deformation", "log Jacobian (green: folds)")
SCORE = "score (0 black, 1 white)"
MOVING = "#ff3fd8"  # outlines of the moving labels
KEY = "outlines and landmarks: fixed solid and circles, moving dashed and crosses"
COLUMN = 2.7  # inches, of a volume; a 2-D image has wider ones
DOTS = 110  # an inch
SQUARES = 8  # of the checkerboard along the longer side
LINES = 26  # of the deformed grid along the longer side
TICKS = {1 / 8: "1/8", 1 / 4: "1/4", 1 / 2: "1/2", 1: "1", 2: "2", 4: "4", 8: "8"}  # volume ratios on the colour bar
LEAST_LIMIT, MOST_LIMIT = float(np.log(2)), float(np.log(8))  # of the colours, so that the bar has at least three ticks
FLOOR = 1e-3  # determinants below are shown as this much


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is drawn; all images on the fixed grid.

    Args:
        fixed: the fixed image.
        before: the moving image at its initial position.
        moved: the moving image through the transform.
        displacement: (D, *S), voxels: the map whose grid is drawn.
        jacobian: determinant of the full map.
        score: where residuals can be trusted, 0 to 1.
        fixed_labels: labels of the fixed image.
        before_labels: labels of the moving image at its initial position.
        moved_labels: labels of the moving image through the transform.
        fixed_points: (N, D) landmarks of the fixed image, voxels of the fixed grid.
        before_points: (N, D) landmarks of the moving image at its initial position, same unit.
        moved_points: (N, D) landmarks of the moving image carried to the fixed one, same unit.
        title: what was done and how it went, a line or two.
        warning: what a person must know; empty when all is well.
    """

    fixed: Image
    before: Image
    moved: Image
    displacement: Tensor
    jacobian: Image
    score: Image | None = None
    fixed_labels: Image | None = None
    before_labels: Image | None = None
    moved_labels: Image | None = None
    fixed_points: Tensor | None = None
    before_points: Tensor | None = None
    moved_points: Tensor | None = None
    title: str = ""
    warning: str = ""


def draw(picture: Picture, path: str | Path | IO[bytes], *, dots: int = DOTS) -> None:
    """Write the picture as PNG, to a file or a stream, of `dots` pixels an inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    grid = picture.fixed.grid
    titles = TITLES if picture.score is None else (*TITLES[:-1], SCORE, TITLES[-1])
    labels = None if picture.fixed_labels is None else _volume(picture.fixed_labels) > 0
    cuts = slices(grid, middle(grid, labels))
    column = COLUMN if len(cuts) > 1 else 1.35 * COLUMN
    heights = [min(max(column * s.size[0] / s.size[1], 0.8), 2 * column) for s in cuts]
    top = 0.62 + 0.2 * (picture.title.count("\n") + bool(picture.warning))
    width, height = column * len(titles) + 1.35, sum(heights) + top + 0.15 + 0.12 * (len(cuts) - 1)
    figure = Figure(figsize=(width, height), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(cuts), len(titles), squeeze=False, height_ratios=heights)
    figure.subplots_adjust(
        left=0.25 / width, right=1 - 1.1 / width, bottom=0.15 / height, top=1 - top / height, wspace=0.04, hspace=0.05
    )
    windows = [
        window(_volume(picture.fixed)),
        window(np.concatenate([_volume(i).ravel() for i in (picture.before, picture.moved)])),
    ]
    limit = colour_limit(_volume(picture.jacobian))
    for row, cut in zip(axes, cuts, strict=True):
        _draw_row(list(row), cut, picture, windows, limit)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, color="white", fontsize=11, pad=4)
    _colour_bar(figure, axes[0, -1], axes[-1, -1], limit)
    figure.text(  # a $ in a name is no formula
        0.25 / width,
        1 - 0.08 / height,
        _plain(picture.title),
        color="white",
        fontsize=11,
        va="top",
        linespacing=1.3,
        parse_math=False,
    )
    if picture.fixed_labels is not None or picture.fixed_points is not None:
        figure.text(1 - 0.1 / width, 1 - 0.08 / height, KEY, color="#999999", fontsize=8, va="top", ha="right")
    below = 0.12 + 0.2 * (1 + picture.title.count("\n"))
    figure.text(
        0.25 / width,
        1 - below / height,
        _plain(picture.warning),
        color="#ff5c5c",
        fontsize=11,
        va="top",
        weight="bold",
        parse_math=False,
    )
    figure.savefig(path, format="png", dpi=dots, facecolor="black", metadata={"Software": None})


def _plain(text: str) -> str:
    """Without bytes that are no UTF-8, which cannot be drawn."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _draw_row(axes: list[Axes], cut: Slice, picture: Picture, windows: list[tuple[float, float]], limit: float) -> None:
    fixed, before, moved = (cut.cut(_volume(i)) for i in (picture.fixed, picture.before, picture.moved))
    reach = (0, cut.size[1], cut.size[0], 0)
    grey = {"cmap": "gray", "extent": reach, "interpolation": "nearest"}
    parts = [scaled(fixed, windows[0]), scaled(before, windows[1]), scaled(moved, windows[1])]
    for axis, part in zip(axes[:3], parts, strict=True):
        axis.imshow(part, vmin=0, vmax=1, **grey)
    axes[3].imshow(np.where(_checks(cut), parts[0], parts[2]), vmin=0, vmax=1, **grey)
    axes[4].imshow(0.55 * parts[0], vmin=0, vmax=1, **grey)
    _grid_lines(axes[4], cut, picture.displacement.numpy())
    if picture.score is not None:
        axes[5].imshow(cut.cut(_volume(picture.score)), vmin=0, vmax=1, **grey)
    _jacobian(axes[-1], cut, _volume(picture.jacobian), limit)
    _outlines(axes, cut, picture)
    _landmarks(axes, cut, picture)
    for axis in axes:
        axis.set(xlim=reach[:2], ylim=reach[2:], xticks=[], yticks=[])
        axis.set_facecolor("black")
        for side in axis.spines.values():
            side.set_color("#444444")
    _letters(axes[0], cut)


def _outlines(axes: list[Axes], cut: Slice, picture: Picture) -> None:
    """Fixed labels on the first three panels, moving ones on the second and third."""
    shown: list[tuple[Image | None, tuple[int, ...], str]] = [
        (picture.fixed_labels, (0, 1, 2), "solid"),
        (picture.before_labels, (1,), "dashed"),
        (picture.moved_labels, (2,), "dashed"),
    ]
    if picture.fixed_labels is None or min(cut.shape) < 2:
        return
    present = [np.unique(_volume(labels)) for labels, _, _ in shown if labels is not None]
    down, right = (np.arange(n) + 0.5 for n in cut.shape)
    for labels, panels, style in shown:
        if labels is None:
            continue
        volume = _volume(labels)
        for number, label in enumerate(x for x in np.unique(np.concatenate(present)) if x):
            mask = cut.cut(volume) == label
            if not mask.any() or mask.all():
                continue
            for panel in panels:
                axes[panel].contour(
                    right * cut.spacing[1],
                    down * cut.spacing[0],
                    mask.astype(float),
                    [0.5],
                    colors=[COLOURS[number % len(COLOURS)] if style == "solid" else MOVING],
                    linewidths=1.1,
                    linestyles=style,
                )


def _landmarks(axes: list[Axes], cut: Slice, picture: Picture) -> None:
    """Landmarks near the cut: fixed as a circle, moving as a cross, and the error between them as a line."""
    if picture.fixed_points is None:
        return
    fixed = picture.fixed_points.numpy()
    near = np.ones(len(fixed), bool) if cut.axis is None else abs(fixed[:, cut.axis] - cut.index) <= 2.5
    at = cut.place(fixed[near])
    for panel, other in ((0, None), (1, picture.before_points), (2, picture.moved_points)):
        axes[panel].plot(*at.T, "o", mfc="none", mec=COLOURS[0], ms=5, mew=1)
        if other is not None:
            to = cut.place(other.numpy()[near])
            axes[panel].plot(*to.T, "x", color=MOVING, ms=4, mew=1)
            axes[panel].plot(*np.stack([at, to], 1).T, "-", color=MOVING, lw=0.8)


def _grid_lines(axis: Axes, cut: Slice, displacement: np.ndarray) -> None:
    down, right = ((np.arange(n) + 0.5) * s for n, s in zip(cut.shape, cut.spacing, strict=True))
    for place, levels in grid_lines(cut, displacement):
        axis.contour(right, down, place, levels, colors="#59e3a7", linewidths=0.7, linestyles="solid")


def grid_lines(cut: Slice, displacement: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lines of equal moving coordinate: what a regular grid in the moving frame looks like on the fixed image.

    Args:
        cut: of the volume that the displacement lies on.
        displacement: (D, *S), voxels.

    Returns:
        For the rows and for the columns the (rows, columns) coordinate, mm, and the values at which lines are drawn; nothing
        for a cut of one row or column.
    """
    if min(cut.shape) < 2:
        return []
    step = max(cut.size) / LINES
    down, right = ((np.arange(n) + 0.5) * s for n, s in zip(cut.shape, cut.spacing, strict=True))
    found = []
    for k, (along, here) in enumerate(((cut.rows, down[:, None]), (cut.columns, right[None]))):
        shift = cut.cut(displacement[along]) * cut.spacing[k] * (-1 if cut.flipped[k] else 1)
        place = here + shift
        found.append((place, np.arange(np.floor(place.min() / step), np.ceil(place.max() / step) + 1) * step))
    return found


def _jacobian(axis: Axes, cut: Slice, determinant: np.ndarray, limit: float) -> None:
    from matplotlib.colors import ListedColormap

    flat = cut.cut(determinant)
    reach = (0, cut.size[1], cut.size[0], 0)
    axis.imshow(np.log(np.maximum(flat, FLOOR)), cmap="RdBu_r", vmin=-limit, vmax=limit, extent=reach, interpolation="nearest")
    folds = np.ma.masked_where(flat > 0, np.ones_like(flat))
    axis.imshow(folds, cmap=ListedColormap(["#00ff00"]), extent=reach, interpolation="nearest")


def _colour_bar(figure: Figure, first: Axes, last: Axes, limit: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    top, bottom = first.get_position(), last.get_position()
    axis = figure.add_axes((top.x1 + 0.006, bottom.y0, 0.008, top.y1 - bottom.y0))
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), "RdBu_r"), cax=axis)
    shown = [k for k in TICKS if abs(np.log(k)) <= limit]
    bar.set_ticks([float(np.log(k)) for k in shown], labels=[TICKS[k] for k in shown])
    axis.tick_params(colors="white", labelsize=8)
    bar.set_label("volume in moving / in fixed", color="white", fontsize=8)


def _letters(axis: Axes, cut: Slice) -> None:
    from matplotlib.patheffects import withStroke

    if not cut.letters:
        return
    places: list[tuple[float, float, str, str]] = [
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.98, "center", "top"),
        (0.5, 0.02, "center", "bottom"),
    ]
    put: Callable[..., object] = axis.text
    halo = [withStroke(linewidth=2.5, foreground="black")]
    for letter, (x, y, across, up) in zip(cut.letters, places, strict=True):
        put(x, y, letter, color="white", fontsize=9, ha=across, va=up, transform=axis.transAxes, path_effects=halo)
    axis.set_ylabel(cut.name, color="white", fontsize=9, labelpad=3)


def _volume(image: Image) -> np.ndarray:
    """The first channel, (*S)."""
    return image.data[0].numpy()


def window(values: np.ndarray) -> tuple[float, float]:
    """Grey range: percentiles 1 and 99 of what is not padding (a least value that fills more than 2 % of the voxels)."""
    low = values.min()
    padding = values == low
    shown = values[~padding] if 0.02 < padding.mean() < 1 else values.ravel()
    a, b = np.percentile(shown, [1, 99])
    if not b > a:  # of two values, or of one
        a, b = (low, a) if a > low else (a, a + 1)
    return float(a), float(b)


def scaled(values: np.ndarray, between: tuple[float, float]) -> np.ndarray:
    """Shares of a grey range, 0 to 1."""
    return np.clip((values - between[0]) / (between[1] - between[0]), 0, 1)


def _checks(cut: Slice) -> np.ndarray:
    """Squares of equal size in mm: true where the fixed image shows."""
    side = max(cut.size) / SQUARES
    down, right = (((np.arange(n) + 0.5) * s // side) for n, s in zip(cut.shape, cut.spacing, strict=True))
    return (down[:, None] + right[None]) % 2 == 0


def colour_limit(determinant: np.ndarray) -> float:
    """Half the range of the colours: the 99.5th percentile of |log det|, between log 2 and log 8."""
    logarithm = np.abs(np.log(np.maximum(determinant, FLOOR)))
    return float(np.clip(np.percentile(logarithm, 99.5), LEAST_LIMIT, MOST_LIMIT))
