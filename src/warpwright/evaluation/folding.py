"""Whether a map folds, how unevenly it changes volume, and whether forward and backward undo each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Grid, affine_points, identity_points, jacobian_determinant, moved_points
from warpwright.sampling import inside
from warpwright.transforms import Affine, BSplineField, Composite, DisplacementField, Transform, VelocityField, compose
from warpwright.transforms.transform import SLAB

__all__ = ["crop_border", "folding", "inverse_consistency"]

STILL = 1e-9  # an affine that differs less from the identity moves nothing


def folding(displacement: Tensor, *, border: int = 1) -> dict[str, float]:
    """Jacobian determinants of `x -> x + u(x)`, in figures.

    The determinant is that of `geometry.jacobian_determinant`: central differences inside, one-sided at the border. As a
    one-sided difference sees only half of what happens, the outermost voxels are left out by default.

    Args:
        displacement: (D, *S) or (1, D, *S), voxels.
        border: voxels left out on each side; an axis that is not longer than twice that keeps all.

    Returns:
        `folded_percent`: share of the voxels with determinant <= 0, in per cent;
        `min_determinant`: the smallest determinant;
        `sd_log_jacobian`: standard deviation (of the population) of the logarithm over the voxels with a positive
        determinant. Folds have no logarithm and enter only the two figures above; NaN if no determinant is positive.

    Raises:
        BadInput: the shape is not that of one displacement, or a value is not finite.
    """
    field = displacement if displacement.ndim == displacement.shape[0] + 1 else displacement.squeeze(0)
    if field.ndim not in (3, 4) or field.shape[0] != field.ndim - 1:
        raise BadInput(f"a displacement has shape (D, *S) or (1, D, *S), got {tuple(displacement.shape)}")
    if not bool(torch.isfinite(field).all()):
        raise BadInput("a displacement must be finite, it holds NaN or inf")
    determinant = crop_border(jacobian_determinant(field[None])[0].to(torch.float64).detach().cpu().numpy(), border)
    positive = determinant[determinant > 0]
    return {
        "folded_percent": 100.0 * (1 - positive.size / determinant.size),
        "min_determinant": float(determinant.min()),
        "sd_log_jacobian": float(np.log(positive).std()) if positive.size else float("nan"),
    }


def crop_border(values: np.ndarray, border: int) -> np.ndarray:
    """Drop `border` voxels on each side of every axis that is longer than twice that."""
    return values[tuple(slice(border, n - border) if n > 2 * border else slice(None) for n in values.shape)]


def inverse_consistency(forward: Transform, backward: Transform, grid: Grid) -> dict[str, float]:
    """How far a point is from its start after going there and back: `|backward(forward(x)) - x|`.

    Counted are the voxels x of `grid` on whose way every field, of either map, is read inside its own grid; beyond it a
    field is not known (it is taken as zero) and the distance would say nothing about the registration.

    Args:
        forward: world points of fixed to world points of moving, mm.
        backward: world points of moving to world points of fixed, mm.
        grid: the fixed grid.

    Returns:
        `mean`, `p95` and `max` of the distance, mm (NaN if no voxel counts), and `counted_percent` of the voxels.
    """
    parts = _joined([*_parts(backward), *_parts(forward)])
    fields = [p.displacement[None] for p in parts if isinstance(p, DisplacementField) and p.grid.same_as(grid)]
    both = len(fields) == len(parts) == 2
    errors = _of_fields(fields[0], fields[1], grid) if both else _of_points(parts, grid)
    figures = {"mean": float("nan"), "p95": float("nan"), "max": float("nan")}
    if errors.size:
        mean = float(errors.mean(dtype=np.float64))
        figures = {"mean": mean, "p95": float(np.percentile(errors, 95)), "max": float(errors.max())}
    return {**figures, "counted_percent": 100.0 * errors.size / grid.size}


def _joined(parts: Sequence[Affine | DisplacementField | BSplineField]) -> list[Affine | DisplacementField | BSplineField]:
    """The same map with neighbouring affines multiplied, and those that move nothing left out."""
    joined: list[Affine | DisplacementField | BSplineField] = []
    for part in parts:
        if joined and isinstance(part, Affine) and isinstance(joined[-1], Affine):
            joined[-1] = Affine(joined[-1].matrix @ part.matrix)
        else:
            joined.append(part)
    return [p for p in joined if not (isinstance(p, Affine) and np.abs(p.matrix - np.eye(p.dim + 1)).max() < STILL)]


def _of_fields(back: Tensor, there: Tensor, grid: Grid) -> np.ndarray:
    """Distances, mm, of the voxels whose way stays inside the grid, for two fields on it: a composition."""
    known = inside(moved_points(there), grid.shape)[0, 0]
    error = compose(back.to(there.dtype), there)
    world = affine_points(np.block([[grid.affine[:-1, :-1], np.zeros((grid.dim, 1))], [np.eye(grid.dim + 1)[-1:]]]), error)
    return world[0].square().sum(0).sqrt()[known].cpu().numpy()


def _of_points(parts: Sequence[Affine | DisplacementField | BSplineField], grid: Grid) -> np.ndarray:
    """Distances, mm, of the voxels whose way stays inside the grids of the fields, for any parts."""
    voxels = identity_points(grid.shape, dtype=torch.float64, device=torch.device("cpu"))[0].flatten(1).T
    kept: list[np.ndarray] = []
    for start in voxels.split(SLAB):
        begin = grid.to_world(start)
        points, known = begin, torch.ones(len(begin), dtype=torch.bool)
        for part in reversed(parts):
            if not isinstance(part, Affine):
                known &= inside(part.grid.to_voxel(points).T[None], part.grid.shape)[0, 0]
            points = part(points)
        kept.append((points - begin).norm(dim=1)[known].numpy())
    return np.concatenate(kept)


def _parts(transform: Transform) -> list[Affine | DisplacementField | BSplineField]:
    """The leaves of a transform, first applied last; a velocity is integrated once, here."""
    if isinstance(transform, Composite):
        return [leaf for part in transform.parts for leaf in _parts(part)]
    if isinstance(transform, VelocityField):
        return [transform.displacement_field()]
    if isinstance(transform, (Affine, DisplacementField, BSplineField)):
        return [transform]
    raise BadInput(f"inverse consistency knows affines, fields and their composites, got {type(transform).__name__}")
