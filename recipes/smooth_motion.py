"""Smooth random displacements in the world, for images that are moved by a known map."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.data.synthetic.fields import random_field
from warpwright.geometry import Grid, identity_points
from warpwright.transforms import DisplacementField

__all__ = ["curved", "grid_points", "longest", "scaled", "smooth_motion"]


def smooth_motion(box: Grid, margin: float, step: float, scale: float, rng: np.random.Generator) -> DisplacementField:
    """A cubic B-spline with independent normal coefficients, a standard deviation of 1 mm along each axis.

    Args:
        box: what it covers.
        margin: mm beyond the outermost voxels in which it is known as well.
        step: mm between the nodes of the result, linear in between.
        scale: mm between control points.
        rng: where the numbers come from.
    """
    last = np.array(box.shape) - 1.0
    corners = grid_points(Grid((2,) * box.dim, box.affine @ np.diag([*last, 1.0])))
    low, high = corners.amin(0).numpy() - margin, corners.amax(0).numpy() + margin
    affine = np.diag([*(step,) * box.dim, 1.0])
    affine[:-1, -1] = low
    grid = Grid(tuple(int(n) + 1 for n in np.ceil((high - low) / step)), affine)
    return DisplacementField(random_field(box.dim, grid.shape, scale / step, 1 / step, rng)[0], grid)


def grid_points(grid: Grid) -> Tensor:
    """(N, D) float64 world points of all voxels."""
    return grid.to_world(identity_points(grid.shape, dtype=torch.float64, device=torch.device("cpu"))[0].flatten(1).T)


def longest(field: DisplacementField, points: Tensor) -> float:
    """The largest distance that it moves points (N, D) by, mm."""
    return float((field(points) - points).norm(dim=1).max())


def scaled(field: DisplacementField, factor: float) -> DisplacementField:
    """The same displacement, so many times as long."""
    return DisplacementField(field.displacement * factor, field.grid)


def curved(field: DisplacementField, points: Tensor) -> DisplacementField:
    """What is left of a field without the affine map that explains most of it at points (N, D)."""
    fit = torch.linalg.lstsq(_homogeneous(points), field(points) - points).solution
    explained = (_homogeneous(grid_points(field.grid)) @ fit).T.reshape(field.displacement.shape)
    spacing = torch.tensor(field.grid.spacing, dtype=torch.float64).reshape(-1, *(1,) * field.dim)
    return DisplacementField(field.displacement - explained / spacing, field.grid)


def _homogeneous(points: Tensor) -> Tensor:
    return torch.cat([points, torch.ones_like(points[:, :1])], 1)
