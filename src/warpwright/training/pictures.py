"""A picture of a validation pair as a model in training registers it."""

from __future__ import annotations

from pathlib import Path

import torch

from warpwright.energies.pairs import PairBatch
from warpwright.geometry import Grid, Image, jacobian_determinant
from warpwright.io.atomic import replacing
from warpwright.methods import Model
from warpwright.methods.direct import predicted
from warpwright.product.figure import Picture, draw
from warpwright.sampling import warp, warp_labels

__all__ = ["draw_sample"]


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
