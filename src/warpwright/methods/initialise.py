"""Where to begin: positions and turns worth trying, each scored by a short rigid registration of a coarse level."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.similarity import Similarity
from warpwright.geometry import Grid, identity_points
from warpwright.kernels import total
from warpwright.methods.levels import Level
from warpwright.methods.linear import solve_linear
from warpwright.sampling import warp_covered

__all__ = ["best_start", "centred", "overlap", "start_factor"]

ENOUGH = 1000  # voxels of the level that starts are scored on
KEPT = 3  # turns refined
REFINEMENT = 6  # steps of each
LEAST_OVERLAP = 0.25  # share of the smaller image that a start must cover
MARGIN = 0.02  # share of the energy by which a turn must beat the untouched orientation, and may be worse before refinement


def start_factor(grid: Grid) -> int:
    """The level that starts are scored on: the coarsest power of two with at least `ENOUGH` voxels."""
    factor = 1
    while grid.size / (2 * factor) ** grid.dim >= ENOUGH:
        factor *= 2
    return factor


def centred(fixed: Grid, moving: Grid) -> np.ndarray:
    """World translation (D+1, D+1) that puts the middle of the fixed grid on that of the moving one."""
    return _about(np.eye(fixed.dim), fixed.centre, moving.centre)


def overlap(level: Level, affine: np.ndarray, displacement: Tensor | None = None) -> float:
    """Share of the smaller image (in mm^D) that the other one covers under a map, masks counted; 1 at most.

    Args:
        level: the pair.
        affine: (D+1, D+1) world matrix, fixed to moving.
        displacement: (1, D, *S) voxels of the level, acting first; None for none.
    """
    pair = level.pair
    if displacement is None:
        displacement = torch.zeros(1, level.grid.dim, *level.grid.shape, device=pair.fixed.device)
    _, seen = warp_covered(pair.moving, displacement, level.matrix(affine), pair.moving_weight)
    fixed_weight = torch.ones_like(seen) if pair.fixed_weight is None else pair.fixed_weight
    voxel_fixed, voxel_moving = (abs(np.linalg.det(g.affine)) for g in (pair.fixed_grid, pair.moving_grid))
    moving_size = pair.moving_grid.size if pair.moving_weight is None else float(pair.moving_weight.sum())
    smaller = min(float(fixed_weight.sum()) * voxel_fixed, moving_size * voxel_moving)
    return min(1.0, float((seen * fixed_weight).sum()) * voxel_fixed / max(smaller, 1e-12))


def best_start(level: Level, similarity: Similarity, start: np.ndarray) -> np.ndarray:
    """The best world matrix among positions and turns around `start`.

    Tried: `start` itself, middles on one another, centres of mass on one another, quarter and half turns about each
    axis, principal axes on one another. Those without a turn, and the likeliest turns that are hardly worse, are refined by
    a short rigid registration. A turn must beat the best start without one clearly, for many organs look alike upside down.

    Args:
        level: a coarse level of the pair.
        similarity: the energy that scores.
        start: (D+1, D+1) world matrix, fixed to moving.

    Returns:
        (D+1, D+1) world matrix, refined.
    """
    straight, turned = _candidates(level, start)
    scored = [(_score(level, similarity, m), k, m) for k, m in enumerate(straight)]
    likely = min(score for score, _, _ in scored)
    likely += MARGIN * abs(likely) if np.isfinite(likely) else 0.0
    ranked = sorted(((_score(level, similarity, m), k, m) for k, m in enumerate(turned)), key=lambda s: s[:2])
    ranked = [turn for turn in ranked if turn[0] <= likely]
    best: tuple[float, np.ndarray] = (np.inf, centred(level.pair.fixed_grid, level.pair.moving_grid))
    for group, margin in ((scored, 0.0), (ranked[:KEPT], MARGIN)):
        for score, _, matrix in group:
            if np.isinf(score):
                continue
            refined, _ = solve_linear(level, "rigid", matrix, similarity, steps=REFINEMENT)
            now = _score(level, similarity, refined)
            if now < best[0] - margin * abs(best[0] if np.isfinite(best[0]) else 0.0):
                best = (now, refined)
    return best[1]


def _score(level: Level, similarity: Similarity, affine: np.ndarray) -> float:
    """Energy under an affine; infinite where the images hardly meet."""
    if overlap(level, affine) < LEAST_OVERLAP:
        return np.inf
    pair = level.pair
    still = torch.zeros(1, level.grid.dim, *level.grid.shape, device=pair.fixed.device)
    adapted = similarity.for_spacing(level.grid.spacing)
    with torch.no_grad():
        energy = adapted.match(pair.fixed, pair.moving, still, level.matrix(affine), pair.fixed_weight, pair.moving_weight)
    return float(energy)


def _candidates(level: Level, start: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """World matrices without and with a turn."""
    pair = level.pair
    fixed, moving = pair.fixed_grid, pair.moving_grid
    mass_fixed, axes_fixed = _moments(pair.fixed, pair.fixed_weight, fixed)
    mass_moving, axes_moving = _moments(pair.moving, pair.moving_weight, moving)
    eye = np.eye(fixed.dim)
    straight = [start, centred(fixed, moving), _about(eye, mass_fixed, mass_moving)]
    turned = [_about(turn, mass_fixed, mass_moving) for turn in _turns(fixed.dim)]
    for signs in product((1.0, -1.0), repeat=fixed.dim):
        turn = axes_moving @ np.diag(signs) @ axes_fixed.T
        if np.linalg.det(turn) > 0:
            turned.append(_about(turn, mass_fixed, mass_moving))
    return straight, turned


def _turns(dim: int) -> list[np.ndarray]:
    """Quarter and half turns in every plane of two axes."""
    out: list[np.ndarray] = []
    for i in range(dim):
        for j in range(i):
            for cosine, sine in ((0.0, 1.0), (0.0, -1.0), (-1.0, 0.0)):
                turn = np.eye(dim)
                turn[[i, i, j, j], [i, j, i, j]] = cosine, -sine, sine, cosine
                out.append(turn)
    return out


def _about(linear: np.ndarray, fixed_point: np.ndarray, moving_point: np.ndarray) -> np.ndarray:
    """The affine with a linear part that carries one point to another."""
    matrix = np.eye(len(linear) + 1)
    matrix[:-1, :-1] = linear
    matrix[:-1, -1] = moving_point - linear @ fixed_point
    return matrix


def _moments(image: Tensor, weight: Tensor | None, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Centre of mass (D,) and principal axes (D, D, columns, largest spread last) of the intensities, world mm."""
    mass = image.mean(1, keepdim=True) if weight is None else image.mean(1, keepdim=True) * weight
    values = mass.flatten().double()
    values = values / total(values[None]).clamp_min(1e-12)
    voxels = identity_points(grid.shape, dtype=torch.float64, device=image.device)[0].flatten(1).T
    points = grid.to_world(voxels)
    centre = total(points.T * values)
    around = (points - centre).T
    spread = torch.stack([total(around * row * values) for row in around])
    return centre.cpu().numpy(), np.linalg.eigh(spread.cpu().numpy())[1]
