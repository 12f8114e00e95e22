"""Where residuals of a registration can be trusted: the score of the fixed image that was learned beside a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.energies.similarity import reduce
from warpwright.geometry import Image
from warpwright.methods import Annotated, ModelSettings, evaluating, lay_image
from warpwright.networks.scoring import VoxelMap
from warpwright.transforms import Affine, Transform, resample

__all__ = ["TRUSTED", "Trust", "residual_figures", "score_map", "trust", "trust_text"]

TRUSTED = 0.5  # score from which a voxel is trusted


@dataclass(frozen=True, eq=False, kw_only=True)
class Trust:
    """Where residuals can be trusted, and how large they are there.

    Args:
        score_map: (1, *S) float32 on the fixed grid, 0 to 1: low where a voxel has no counterpart.
        figures: of `residual_figures`.
    """

    score_map: Image
    figures: Mapping[str, float]


def trust(
    network: VoxelMap, settings: ModelSettings, fixed: Annotated, moving: Annotated, forward: Transform, device: str
) -> Trust:
    """The score of a fixed image, and the residuals that a registration leaves, of intensities as the model prepares them.

    Args:
        network: of the score, for images like the model's.
        settings: of the model.
        fixed: the fixed image and its mask.
        moving: the moving image and its mask.
        forward: world points of fixed to world points of moving.
        device: where the network computes.
    """
    found = score_map(network, settings, fixed, device)
    grid, still = fixed.image.grid, Affine.identity(settings.dim)
    target, weight = lay_image(settings.preparation, fixed, still, grid)
    moved, cover = lay_image(settings.preparation, moving, forward, grid)
    residual = (moved - target).abs().mean(1, keepdim=True)
    return Trust(score_map=found, figures=residual_figures(residual, found.data[None], weight, cover))


def score_map(network: VoxelMap, settings: ModelSettings, fixed: Annotated, device: str) -> Image:
    """The score of a fixed image on its own grid, (1, *S) float32, 0 to 1, on the CPU.

    The network sees the image as the model does, laid on its working grid, which holds all of it; from there the score is
    carried, linear between voxels. A mask only matters to the preparation.

    Args:
        network: in any mode, on the device, in float32; it is left as it is.
        settings: of the model.
        fixed: the fixed image and its mask.
        device: where the network computes.
    """
    lattice, still = settings.lattice(fixed.image.grid), Affine.identity(settings.dim)
    laid, _ = lay_image(settings.preparation, fixed, still, lattice)
    with torch.no_grad(), evaluating(network):
        scores = network.scores(laid.to(device))[0].cpu()
    return resample(Image(scores, lattice, f"score of {fixed.image.name}"), still, fixed.image.grid)


def residual_figures(residual: Tensor, score: Tensor, weight: Tensor, cover: Tensor) -> dict[str, float]:
    """How much of an image is trusted, and the mean residual there and elsewhere.

    Args:
        residual: (B, 1, *S).
        score: likewise, 0 to 1.
        weight: likewise, >= 0, of the voxels of the fixed image.
        cover: likewise, of the moving image that lies there.

    Returns:
        `trusted_percent` of the fixed image, by its weight; `residual_trusted` and `residual_elsewhere`, means over what both
        images cover, NaN where that is nothing.
    """
    trusted = (score >= TRUSTED).to(residual.dtype)
    both = weight * cover
    return {
        "trusted_percent": 100 * float(reduce(trusted, weight)),
        "residual_trusted": _mean(residual, both * trusted),
        "residual_elsewhere": _mean(residual, both * (1 - trusted)),
    }


def trust_text(figures: Mapping[str, float]) -> str:
    """The figures of `residual_figures` in words."""
    there, elsewhere = (_residual_text(figures[key]) for key in ("residual_trusted", "residual_elsewhere"))
    share = f"at least {TRUSTED:g} in {figures['trusted_percent']:.1f} % of the image"
    return f"{share}; mean residual there {there}, elsewhere {elsewhere}"


def _residual_text(residual: float) -> str:
    return "not measured" if math.isnan(residual) else f"{residual:.3g}"


def _mean(residual: Tensor, weight: Tensor) -> float:
    return float(reduce(residual, weight)) if bool(weight.any()) else math.nan
