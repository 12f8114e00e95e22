"""What a model of features sees in an image: its channels as images, and a picture of them beside plain scale space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Image
from warpwright.io.image import write_image
from warpwright.methods import Annotated, Solving, evaluating, feature_levels, lay_image
from warpwright.product.inputs import ImageLike, scalar_image
from warpwright.product.model_folder import ModelFolder, read_model
from warpwright.product.output import whole_folder
from warpwright.sampling import downsample
from warpwright.transforms import Affine

__all__ = ["features", "main_colours"]

SHOWN = 4  # channels beside the colours
COLUMN = 2.2  # inches


def features(model: str | Path | ModelFolder, image: ImageLike) -> dict[int, tuple[Image, Image]]:
    """Channels of every level of a model's features of an image.

    Args:
        model: a model folder whose network is of the kind `implicit`.
        image: a path, an `Image`, or an array with its affine.

    Returns:
        By the level's factor, coarse to fine: the features (C, *T) and the image (1, *T) at the same scale, each on a grid
        of the world. Features of a level have a deviation of 1, mean over channels.

    Raises:
        BadInput: the model has no features, or the image is not of the kind that it is for.
    """
    folder = model if isinstance(model, ModelFolder) else read_model(model)
    network, settings = folder.model.network, folder.model.settings
    if not isinstance(network, Solving):
        raise BadInput(f"{folder.path}: estimates its map in one pass, expected a model of features (a network implicit)")
    given = scalar_image(image, "image", "strict")
    if given.grid.dim != settings.dim:
        raise BadInput(f"{given.name}: has {given.grid.dim} axes, the model is for {settings.dim}: expected as many")
    grid = settings.preparation.whole(given.grid)
    laid, _ = lay_image(settings.preparation, Annotated(image=given), Affine.identity(grid.dim), grid)
    own = next(network.parameters())
    with torch.no_grad(), evaluating(network):
        found_in = network.pyramid(laid.to(own.device, own.dtype))
    pyramid = replace(found_in, levels=tuple(level.float().cpu() for level in found_in.levels))
    found: dict[int, tuple[Image, Image]] = {}
    for factor, level in zip(pyramid.factors, feature_levels(pyramid, pyramid, (grid, grid), (None, None)), strict=True):
        plain = Image(downsample(laid, (factor,) * grid.dim)[0], grid.downsample((factor,) * grid.dim), given.name)
        found[factor] = Image(level.pair.fixed[0], level.grid, given.name), plain
    return found


def main_colours(channels: Tensor) -> Tensor:
    """The three main components of channels as red, green and blue.

    Args:
        channels: (C, *S), C >= 1.

    Returns:
        (3, *S) in [0, 1]: the strongest component is red, each stretched between its 1st and 99th percentile.
    """
    flat = channels.flatten(1).double()
    centred = flat - flat.mean(1, keepdim=True)
    axes = torch.linalg.svd(centred @ centred.T).U[:, :3]
    axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # the sign of a component means nothing
    parts = axes.T @ centred
    low, high = (torch.quantile(parts[:, :: max(parts.shape[1] // 100_000, 1)], q, dim=1, keepdim=True) for q in (0.01, 0.99))
    scaled = ((parts - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).float()
    missing = torch.zeros(3 - len(scaled), scaled.shape[1])
    return torch.cat([scaled, missing]).reshape(3, *channels.shape[1:])


def save(found: dict[int, tuple[Image, Image]], output: Path, *, force: bool = False) -> None:
    """Write `features_4x.nii.gz` and so on, one volume a channel, and `features.png`, all of them or none.

    Raises:
        BadInput: the folder holds something else, or results and `force` is not given.
        Failed: it cannot be written.
    """
    with whole_folder(output, force=force) as folder:
        for factor, (channels, _) in found.items():
            write_image(folder / f"features_{factor}x.nii.gz", channels)
        draw(found, folder / "features.png")


def draw(found: dict[int, tuple[Image, Image]], path: Path) -> None:
    """A row for each level: the image at that scale, the main colours of its features, the first channels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    titles = ["the image", "main components", *(f"channel {k + 1}" for k in range(SHOWN))]
    figure = Figure(figsize=(COLUMN * len(titles), COLUMN * len(found) * 1.15), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for row, (factor, (channels, image)) in enumerate(found.items()):
        pictures = [image.data, main_colours(channels.data), *channels.data[:SHOWN].split(1)]
        for column, picture in enumerate(pictures):
            axes = figure.add_subplot(len(found), len(titles), row * len(titles) + column + 1)
            axes.imshow(_cut(picture), cmap="gray", origin="lower", interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(titles[column] if row == 0 else "", fontsize=9)
            axes.set_ylabel(f"1/{factor}" if column == 0 else "", fontsize=9)
    figure.savefig(path, dpi=110)


def _cut(picture: Tensor) -> np.ndarray:
    """The middle cut across the last axis, as rows and columns of grey or of colours."""
    flat = picture if picture.ndim == 3 else picture[..., picture.shape[-1] // 2]
    turned = flat.permute(2, 1, 0).numpy()
    return turned[..., 0] if turned.shape[-1] == 1 else turned


def lines(found: dict[int, tuple[Image, Image]]) -> Sequence[str]:
    """What was found, a line for each level."""
    sizes = {factor: " x ".join(map(str, channels.grid.shape)) for factor, (channels, _) in found.items()}
    return [f"1/{factor:<9} {sizes[factor]} voxels, {channels.channels} channels" for factor, (channels, _) in found.items()]
