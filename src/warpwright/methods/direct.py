"""A model applied to a pair of images: one pass of the network, refined on demand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.losses import Images
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.similarity import LNCC
from warpwright.errors import BadInput, Failed
from warpwright.geometry import Grid, Image, affine_points, identity_points
from warpwright.methods.implicit import Solving
from warpwright.methods.model import Model
from warpwright.methods.prepare import Annotated, lay_image, lay_pair
from warpwright.methods.refine import Refinement, refined
from warpwright.methods.registration import Progress, Registration, Stage
from warpwright.methods.search import Found, Search, searched
from warpwright.methods.step import evaluating
from warpwright.networks import Displacement as Field
from warpwright.sampling import sample, warp_covered
from warpwright.transforms import Affine, DisplacementField, Preparation, inverse_residual, invert

__all__ = ["register_direct"]

COARSER = 1.05  # voxels that are enlarged by less are not worth a sentence


def register_direct(
    model: Model,
    fixed: Image,
    moving: Image,
    *,
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    given: Affine | None = None,
    start: Affine | None = None,
    refinement: Refinement | None = None,
    search: Search | None = None,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> Registration:
    """The map of a pair as a model sees it: world points of fixed to world points of moving.

    A model that searches (`Implicit`) does so as `searched` says. Any other sees the pair laid on its working grid. The
    displacement is carried to the grid of the fixed image (beyond the working grid its border is repeated), and the start
    follows it as an affine; an affine that was searched becomes one with the start. The inverse is the model's own where it
    gives one, else it is found numerically.

    Args:
        model: in any mode; it is left as it is.
        fixed: (C, *S) image.
        moving: (C, *M) image.
        fixed_mask: (1, *S) weights, for the percentiles of intensities and for refinement.
        moving_mask: (1, *M) weights.
        given: how the pair lies before anything is done, fixed to moving world points; None for the world positions. Only the
            energy before is measured there.
        start: where the network begins, fixed to moving world points; None for the start that the model was trained with.
        refinement: steps on a copy of the weights; None for none.
        search: what a model that searches looks for, and how; None for what it was trained with.
        device: a torch device.
        progress: called before every step of refinement and of a search.

    Raises:
        BadInput: the images are not of the kind that the model is for, a mask is zero or on another grid than its image, the
            model is on another device, or a search is asked of one that does none.
        Failed: the model gives a field that is not finite, or its search failed.
    """
    _check(model, fixed, moving, device)
    if search is not None and not isinstance(model.network, Solving):
        raise BadInput("the model estimates its map in one pass, expected one that searches (a network of the kind implicit)")
    sides = (Annotated(image=fixed, mask=fixed_mask), Annotated(image=moving, mask=moving_mask))
    return _register(model, sides, given, start, refinement, search, progress)


def _register(
    model: Model,
    sides: tuple[Annotated, Annotated],
    given: Affine | None,
    start: Affine | None,
    refinement: Refinement | None,
    search: Search | None,
    progress: Callable[[Progress], None] | None,
) -> Registration:
    begin = time.perf_counter()
    fixed, moving = (side.image for side in sides)
    preparation = model.settings.preparation
    grid, still = model.settings.lattice(fixed.grid), Affine.identity(fixed.grid.dim)
    affine = preparation.affine(fixed.grid, moving.grid) if start is None else start
    own = next(model.parameters())

    laid = lay_pair(preparation, *sides, (still, affine), grid)
    lying, weight = lay_image(preparation, sides[1], still if given is None else given, grid)
    before, _ = _meeting(model, replace(laid, moving=lying, moving_weight=weight).to(own.device, own.dtype))
    batch = laid.to(own.device, own.dtype)
    stages: list[Stage] = []
    found: Found | None = None
    if refinement is not None and refinement.steps:
        model, stage = refined(model, batch, refinement, progress)
        stages.append(stage)
    if isinstance(model.network, Solving):
        search = search or Search.trained(model.network.settings)
        found = searched(model.network, preparation, sides, affine, grid, search, progress)
        prediction = Prediction((Field(values=found.displacement, shape=grid.shape, factors=(1,) * grid.dim),))
        stages += found.stages
    else:
        prediction = predicted(model, batch)
    if found is not None and found.affine is not None:
        there, back, residual = found.affine, found.affine.inverse(), 0.0
    else:
        there, back, residual = _both_ways(prediction, grid, fixed, batch.names[0])
    after, overlap = _meeting(model, batch, prediction.displacement)
    seconds = time.perf_counter() - begin - sum(stage.seconds for stage in stages)
    rest = Stage("network", seconds, 1, before, after, "one pass")
    if found is not None:
        rest = Stage("map", seconds, 1, before, after, "carried to the fixed image, and its inverse")
    return Registration(
        forward=affine @ there,
        backward=back @ affine.inverse(),
        inverse_residual=residual,
        stages=(*stages, rest),
        energy_before=before,
        energy_after=after,
        overlap=overlap,
        notes=(*_notes(preparation, fixed, grid), *(() if found is None else found.notes)),
    )


def _notes(preparation: Preparation, fixed: Image, grid: Grid) -> tuple[str, ...]:
    """A sentence where a network that needs the size of its training sees a fixed image that is larger."""
    if max(grid.spacing[k] / s for k, s in enumerate(preparation.whole(fixed.grid).spacing)) < COARSER:
        return ()
    size, edges = " x ".join(str(n) for n in grid.shape), " x ".join(f"{s:.3g}" for s in grid.spacing)
    return (f"{fixed.name} does not fit into the {size} voxels of the model's training: it was seen in voxels of {edges} mm",)


def _check(model: Model, fixed: Image, moving: Image, device: str) -> None:
    settings = model.settings
    for image in (fixed, moving):
        if image.grid.dim != settings.dim or image.channels != settings.channels:
            found = f"{image.grid.dim} axes and {image.channels} channels"
            raise BadInput(f"{image.name}: has {found}, the model is for {settings.dim} and {settings.channels}")
    own, asked = next(model.parameters()).device, torch.empty(0, device=device).device
    if own != asked:
        raise BadInput(f"the model is on {own}, the registration was asked for on {asked}: expected the same")


def _both_ways(
    prediction: Prediction, grid: Grid, fixed: Image, name: str
) -> tuple[DisplacementField, DisplacementField, float]:
    """Displacement and inverse, on the grid of the fixed image and the CPU, and the residual of the inverse, voxels."""
    found = [u for u in (prediction.displacement, prediction.inverse) if u is not None]
    field, *inverses = (carried(u, grid, fixed.grid).cpu() for u in found)
    if not all(bool(u.isfinite().all()) for u in (field, *inverses)):
        raise Failed(f"the model gives a field that is not finite for {name}")
    inverse, residual = (inverses[0], inverse_residual(field, inverses[0])) if inverses else invert(field)
    return DisplacementField(field[0], fixed.grid), DisplacementField(inverse[0], fixed.grid, residual), residual


def predicted(model: Model, batch: PairBatch) -> Prediction:
    """One pass in evaluation mode without a graph; the modes of the model and its parts are left as they were."""
    with evaluating(model), torch.no_grad():
        return model(batch.fixed, batch.moving)


def carried(displacement: Tensor, source: Grid, target: Grid) -> Tensor:
    """A displacement on one grid as one on another grid of the same world, linear between voxels, border repeated.

    Args:
        displacement: (B, D, *S), voxels of `source`.
        source: where the S voxels are.
        target: the other grid, T voxels.

    Returns:
        (B, D, *T) float32, voxels of `target`: `x -> x + u(x)` is the same map of world points.
    """
    matrix = target.voxel_matrix(source)
    if source.shape == target.shape and np.abs(matrix - np.eye(target.dim + 1)).max() < 1e-6:
        return displacement.to(torch.float32)
    at = identity_points(target.shape, dtype=torch.float32, device=displacement.device)
    values = sample(displacement.to(torch.float32), affine_points(matrix, at).to(torch.float32))
    linear = torch.tensor(np.linalg.inv(matrix)[:-1, :-1], dtype=torch.float32, device=displacement.device)
    return torch.einsum("ij,bj...->bi...", linear, values)


@torch.no_grad()
def _meeting(model: Model, batch: PairBatch, displacement: Tensor | None = None) -> tuple[float, float]:
    """Energy of a pair under a displacement (None for none), and the share of the smaller image that the other one covers.

    The energy is what the model's loss compares images with, LNCC where it compares none; it is infinite where the images do
    not meet. The share counts what lies on the working grid, and masks.
    """
    ones = torch.ones_like(batch.fixed[:, :1])
    weight = ones if batch.fixed_weight is None else batch.fixed_weight
    whole = ones if batch.moving_weight is None else batch.moving_weight
    moving, cover = (batch.moving, whole) if displacement is None else warp_covered(batch.moving, displacement, None, whole)
    seen = weight * cover
    smaller = min(float(weight.sum()), float(whole.sum()))
    overlap = min(1.0, float(seen.sum()) / smaller) if smaller else 0.0
    if not overlap:
        return math.inf, 0.0
    found = next((term.similarity for term in model.settings.loss if isinstance(term, Images)), LNCC())
    return float(found.for_spacing(batch.spacing).similarity(moving, batch.fixed, seen)[0]), overlap
