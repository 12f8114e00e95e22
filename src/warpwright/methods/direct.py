"""A model applied to a pair of images: one pass of the network, refined on demand."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.losses import Images
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.similarity import LNCC
from warpwright.errors import BadInput, Failed
from warpwright.geometry import Grid, Image, affine_points, identity_points
from warpwright.methods.model import Model
from warpwright.methods.prepare import Annotated, lay_pair
from warpwright.methods.refine import Refinement, refined
from warpwright.methods.registration import Progress, Registration, Stage
from warpwright.sampling import sample
from warpwright.transforms import Affine, DisplacementField, inverse_residual, invert

__all__ = ["register_direct"]


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
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> Registration:
    """The map of a pair as a model sees it: world points of fixed to world points of moving.

    The pair is laid on the model's working grid, the network's displacement is carried to the grid of the fixed image (beyond
    the working grid its border is repeated), and the start follows it as an affine. The inverse is the model's own where
    it gives one, else it is found numerically.

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
        device: a torch device.
        progress: called before every step of refinement.

    Raises:
        BadInput: the images are not of the kind that the model is for.
        Failed: the model gives a field that is not finite.
    """
    settings = model.settings
    for image in (fixed, moving):
        if image.grid.dim != settings.dim or image.channels != settings.channels:
            found = f"{image.grid.dim} axes and {image.channels} channels"
            raise BadInput(f"{image.name}: has {found}, the model is for {settings.dim} and {settings.channels}")
    begin = time.perf_counter()
    preparation = settings.preparation
    grid = preparation.grid(fixed.grid)
    affine = preparation.affine(fixed.grid, moving.grid) if start is None else start
    sides = (Annotated(image=fixed, mask=fixed_mask), Annotated(image=moving, mask=moving_mask))
    own = next(model.parameters())
    batch = lay_pair(preparation, *sides, (Affine.identity(grid.dim), affine), grid).to(torch.device(device), own.dtype)
    if own.device != batch.fixed.device:
        raise BadInput(f"the model is on {own.device}, the registration was asked for on {device}: expected the same")
    stages: list[Stage] = []
    if refinement is not None and refinement.steps:
        model, stage = refined(model, batch, refinement, progress)
        stages.append(stage)
    prediction = predicted(model, batch)
    field, back = (
        None if u is None else carried(u, grid, fixed.grid).cpu() for u in (prediction.displacement, prediction.inverse)
    )
    if field is None or not bool(field.isfinite().all()):
        raise Failed(f"the model gives a field that is not finite for {batch.names[0]}")
    inverse, residual = invert(field) if back is None else (back, inverse_residual(field, back))
    lying = Affine.identity(grid.dim) if given is None else given
    untouched = lay_pair(preparation, *sides, (Affine.identity(grid.dim), lying), grid).to(batch.fixed.device, own.dtype)
    still = torch.zeros_like(prediction.displacement)
    before, laid, after = (
        _energy(b, u, model) for b, u in ((untouched, still), (batch, still), (batch, prediction.displacement))
    )
    seconds = time.perf_counter() - begin - sum(stage.seconds for stage in stages)
    stages.insert(0, Stage("network", seconds, 1, laid, after, "one pass"))
    return Registration(
        forward=affine @ DisplacementField(field[0], fixed.grid),
        backward=DisplacementField(inverse[0], fixed.grid, residual) @ affine.inverse(),
        inverse_residual=residual,
        stages=tuple(stages),
        energy_before=before,
        energy_after=after,
        overlap=_overlap(batch),
        notes=_notes(grid, fixed),
    )


def predicted(model: Model, batch: PairBatch) -> Prediction:
    """One pass in evaluation mode without a graph; the model's mode is left as it was."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return model(batch.fixed, batch.moving)
    finally:
        model.train(training)


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


def _energy(batch: PairBatch, displacement: Tensor, model: Model) -> float:
    """What the model's loss compares images with, LNCC where it compares none; infinite where the images do not meet."""
    if not _overlap(batch):
        return float("inf")
    found = next((term.similarity for term in model.settings.loss if isinstance(term, Images)), LNCC())
    measure = found.for_spacing(batch.spacing)
    with torch.no_grad():
        energy = measure.match(batch.fixed, batch.moving, displacement, None, batch.fixed_weight, batch.moving_weight)
    return float(energy[0])


def _overlap(batch: PairBatch) -> float:
    """Share of the smaller image that the other one covers at the start."""
    if batch.fixed_weight is None or batch.moving_weight is None:
        return 1.0
    one, two = ((w > 0.5).to(torch.float32) for w in (batch.fixed_weight, batch.moving_weight))
    smaller = min(float(one.sum()), float(two.sum()))
    return float((one * two).sum()) / smaller if smaller else 0.0


def _notes(grid: Grid, fixed: Image) -> tuple[str, ...]:
    """A sentence where the working grid does not hold the fixed image."""
    corners = torch.tensor(np.stack(np.meshgrid(*((0.0, n - 1.0) for n in fixed.grid.shape), indexing="ij"), -1))
    at = grid.to_voxel(fixed.grid.to_world(corners.reshape(-1, grid.dim)))
    inside = (at >= -0.51) & (at <= torch.tensor(grid.shape) - 0.49)
    if bool(inside.all()):
        return ()
    size = " x ".join(str(n) for n in grid.shape)
    return (f"{fixed.name}: is larger than the {size} voxels that the model looks at; beyond them the map is a guess",)
