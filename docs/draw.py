"""Draw the pictures of conventions.md: `python docs/draw.py`. Every place in them is computed by the package."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import warpwright

FOLDER = Path(__file__).parent / "images"
SHOWN, MAPPED = "#0b7285", "#c2410c"
POINT = torch.tensor([[41.0, 28.0]], dtype=torch.float64)  # mm, in the fixed image


def shape(turn: float, stretch: float, middle: tuple[float, float]) -> np.ndarray:
    """(64, 64) a bean and a disc, turned by radians, stretched, around a place in voxels."""
    x, y = np.meshgrid(np.arange(64.0), np.arange(64.0), indexing="ij")
    x, y = x - middle[0], y - middle[1]
    x, y = np.cos(turn) * x + np.sin(turn) * y, (-np.sin(turn) * x + np.cos(turn) * y) / stretch
    bean = 1 / (1 + np.exp(((x / 20) ** 2 + ((y - 0.012 * x**2 + 4) / 11) ** 2 - 1) * 9))
    disc = 1 / (1 + np.exp((((x - 9) / 5) ** 2 + ((y + 4) / 5) ** 2 - 1) * 6))
    return (bean - 0.6 * disc).astype(np.float32)


def pictured(axes: Axes, image: warpwright.Image, title: str) -> None:
    """An image in world millimetres, x to the right and y up."""
    (low, high) = (image.grid.to_world(torch.tensor([p], dtype=torch.float64))[0] for p in ((-0.5, -0.5), (63.5, 63.5)))
    axes.imshow(image.data[0].T, origin="lower", extent=(low[0], high[0], low[1], high[1]), cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def transform() -> Figure:
    """The fixed image with a lattice of points, the moving one with where they go, and the moving one pulled back."""
    grid = warpwright.Grid(shape=(64, 64), affine=np.eye(3))
    fixed, moving = (
        warpwright.Image(torch.from_numpy(shape(*how))[None], grid)
        for how in ((0.0, 1.0, (32.0, 32.0)), (0.35, 1.25, (35.0, 28.0)))
    )
    result = warpwright.register(fixed, moving, threads=1)
    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    panels = figure.subplots(1, 3)
    pictured(panels[0], fixed, "fixed: a point x")
    pictured(panels[1], moving, "moving: T(x), the matching point")
    pictured(panels[2], result.moved, "moved(x) = moving(T(x))")
    for at in np.arange(4.0, 64, 8):
        along = np.linspace(2, 61, 60)
        for line in (np.stack([np.full(60, at), along], 1), np.stack([along, np.full(60, at)], 1)):
            panels[0].plot(*line.T, color=SHOWN, lw=0.7)
            panels[1].plot(*result.transform(torch.from_numpy(line)).T, color=SHOWN, lw=0.7)
    panels[1].set_xlim(panels[0].get_xlim())
    panels[1].set_ylim(panels[0].get_ylim())
    for panel, place in ((panels[0], POINT), (panels[1], result.transform(POINT)), (panels[2], POINT)):
        panel.plot(*place.T, "o", ms=8, mec="white", mew=1.5, color=MAPPED)
    return figure


def space() -> Figure:
    """Voxels of an oblique grid in world RAS+ mm, and both frames."""
    affine = np.array([[2.6, -1.0, -2.0], [0.8, 1.5, 0.5], [0, 0, 1]])
    grid = warpwright.Grid(shape=(5, 4), affine=affine)
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    axes, frames = figure.subplots(1, 2, width_ratios=(2, 1))
    for axis, count in enumerate(grid.shape):
        for at in np.arange(-0.5, count):
            ends = np.full((2, 2), at)
            ends[:, 1 - axis] = -0.5, grid.shape[1 - axis] - 0.5
            axes.plot(*grid.to_world(torch.from_numpy(ends)).T, color="0.6", lw=0.9)
    voxels = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in grid.shape))
    axes.plot(*grid.to_world(voxels).T, "o", ms=4, color=SHOWN)
    for voxel, beside in (((0.0, 0.0), (0, -34)), ((4.0, 0.0), (20, -38)), ((0.0, 3.0), (-10, 32))):
        world = grid.to_world(torch.tensor([voxel], dtype=torch.float64))[0]
        text = f"p = ({voxel[0]:.0f}, {voxel[1]:.0f}): ({world[0]:.1f}, {world[1]:.1f}) mm"
        axes.annotate(text, world, beside, textcoords="offset points", fontsize=8.5, ha="center", color=SHOWN)
    axes.set_title("voxel p lies at affine @ (p, 1); dots are centres", fontsize=10)
    axes.set_xlabel("x, mm: right is positive")
    axes.set_ylabel("y, mm: anterior is positive")
    axes.set_aspect("equal")
    axes.margins(0.12)
    for y, name, sign, ends, color in ((2.6, "RAS+", 1, "RA", SHOWN), (-1.2, "LPS+", -1, "LP", MAPPED)):
        for direction, letter in zip(((1, 0), (0, 1)), ends, strict=True):
            tip = (sign * direction[0], y + sign * direction[1])
            frames.annotate("", tip, (0, y), arrowprops={"arrowstyle": "-|>", "color": color, "lw": 2})
            frames.text(1.25 * tip[0], y + 1.25 * sign * direction[1], letter, ha="center", va="center")
        frames.text(1.8, y, f"{name}\n({-2 * sign}, {5 * sign}, 7) mm", ha="left", va="center", fontsize=10, color=color)
    frames.set_xlim(-1.6, 4.6)
    frames.set_ylim(-3, 4.2)
    frames.set_aspect("equal")
    frames.set_axis_off()
    frames.set_title("one place, written in both frames", fontsize=10)
    return figure


def main() -> None:
    """Write both pictures."""
    mpl.rcParams["font.size"] = 9
    for name, figure in (("transform", transform()), ("space", space())):
        figure.savefig(FOLDER / f"{name}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
