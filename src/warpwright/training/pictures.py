"""Pictures of a model in training: a validation pair as it registers it, and the kernels of its layers."""

from __future__ import annotations

from pathlib import Path

import torch

from warpwright.energies.pairs import PairBatch
from warpwright.geometry import Grid, Image, jacobian_determinant
from warpwright.io.atomic import replacing
from warpwright.layers import SmoothingKernel
from warpwright.layers.kernel_properties import central_planes
from warpwright.methods import Model
from warpwright.methods.direct import predicted
from warpwright.product.figure import Picture, draw
from warpwright.sampling import warp, warp_labels

__all__ = ["draw_kernels", "draw_sample"]


def draw_sample(model: Model, batch: PairBatch, path: Path, title: str) -> None:
    """Draw the first pair of a batch as `register` draws a result (its first channel)."""
    grid = Grid.regular(tuple(batch.fixed.shape[2:]), batch.spacing)
    displacement = predicted(model, batch).displacement[:1]
    moving = batch.moving[:1, :1]

    def image(data: torch.Tensor) -> Image:
        return Image(data[0].detach().cpu().to(torch.float32), grid)

    def labels(data: torch.Tensor | None) -> Image | None:
        return None if data is None else Image(data[0].cpu(), grid)

    moved = None if batch.moving_labels is None else warp_labels(batch.moving_labels[:1], displacement)
    picture = Picture(
        fixed=image(batch.fixed[:1, :1]),
        before=image(moving),
        moved=image(warp(moving, displacement)),
        displacement=displacement[0].cpu().to(torch.float32),
        jacobian=image(jacobian_determinant(displacement)[None]),
        fixed_labels=labels(batch.fixed_labels),
        before_labels=labels(batch.moving_labels),
        moved_labels=labels(moved),
        title=title,
    )
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        draw(picture, temporary)


def draw_kernels(model: Model, path: Path, title: str) -> None:
    """Draw the kernel of every component of every smoothing layer, of volumes its central slices; nothing if there is none.

    Red is above zero, blue below, white zero.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, SmoothingKernel)]
    if not layers:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [central_planes(layer.kernels().detach().cpu().float()) for layer in layers]
    rows = [kernel for planes in drawn for kernel in zip(*planes, strict=True)]
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(2.6 * columns, 2.4 * len(rows) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, places in zip(rows, axes, strict=True):
        for plane, axis in zip(row, places, strict=False):
            most = float(plane.abs().max())
            shown = axis.imshow(plane.T.numpy(), cmap="RdBu_r", vmin=-most, vmax=most)
            axis.set(xticks=[], yticks=[])
            figure.colorbar(shown, ax=axis)
    figure.suptitle(title, parse_math=False)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)
