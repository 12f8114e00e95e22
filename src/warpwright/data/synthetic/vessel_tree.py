"""Random trees of vessels as short straight pieces, and their image at any points: branching tubes with a Gaussian profile."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

__all__ = ["VesselTree", "grow_tree", "render_tree"]

STEP = 1.5  # length of a piece, voxels
TURN, MEMORY = 0.03, 0.9  # of the heading: standard deviation of a step's turn, radians, and what is kept of a bend
TAPER, PARENT, CHILD = 0.9985, 0.92, 0.78  # what is left of the radius after a step, and of both vessels at a branching
FORK = (0.4, 0.9)  # angle between child and parent, radians
BARE = 8  # steps of a vessel before its first branching
WIDTH = 0.6  # standard deviation of the profile, radii
REACH = 2.4  # where the profile ends, radii
BLOCK = 512  # pieces drawn at a time


class VesselTree(NamedTuple):
    """N pieces of vessels, and the places where vessels branch (or end).

    Args:
        starts: (N, D), voxels.
        ends: (N, D), voxels.
        radii: (N,), voxels.
        landmarks: (L, D), voxels.
    """

    starts: np.ndarray
    ends: np.ndarray
    radii: np.ndarray
    landmarks: np.ndarray


def grow_tree(
    shape: tuple[int, ...],
    roots: int,
    radii: tuple[float, float],
    branching: float,
    margin: float,
    rng: np.random.Generator,
    *,
    ends: bool = True,
) -> VesselTree:
    """Vessels that leave a disc in the image, wander and branch until they are thin or outside.

    Args:
        shape: S of the image; the disc lies in the middle, but between a quarter and 0.35 of the way along the last axis.
        roots: vessels that leave the disc, in spread directions.
        radii: of a vessel at its end, and of the mean root at its start; voxels.
        branching: probability of a branching in a step.
        margin: how far beyond the image vessels are followed, voxels.
        rng: where the numbers come from.
        ends: whether the places where vessels end are landmarks, beside those where they branch.
    """
    last = np.array(shape) - 1.0
    disc = last / 2
    disc[-1] = last[-1] * rng.uniform(0.25, 0.35)
    buds = [(disc, way, max(radii[0], radii[1] * rng.uniform(0.8, 1.1))) for way in _spread(roots, len(shape), rng)]
    pieces: list[tuple[np.ndarray, np.ndarray, float]] = []
    landmarks = [np.empty((0, len(shape)))]
    while buds:
        place, way, radius = buds.pop()
        bend, steps = np.zeros(len(shape)), 0
        while radius >= radii[0] and (place >= -margin).all() and (place <= last + margin).all():
            bend = MEMORY * bend + rng.normal(0, TURN, len(shape))
            way = _turned(way, 0.3 * bend + rng.normal(0, TURN, len(shape)))
            pieces.append((place, place + STEP * way, radius))
            place, radius, steps = place + STEP * way, radius * TAPER, steps + 1
            if steps > BARE and rng.random() < branching and radius * CHILD >= radii[0]:
                landmarks.append(place[None])
                side = rng.uniform(*FORK) * _unit(_across(way, rng.normal(size=len(shape))))
                buds.append((place, _turned(way, side), radius * CHILD))
                way, radius = _turned(way, -0.35 * side), radius * PARENT
        if ends and radius < radii[0]:
            landmarks.append(place[None])
    starts, tips, widths = (np.array(part) for part in zip(*pieces, strict=True))
    return VesselTree(starts, tips, widths, np.concatenate(landmarks))


def render_tree(tree: VesselTree, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a tree looks like at points: no grid, so nothing is interpolated.

    Args:
        tree: the vessels.
        points: (P, D), voxels.

    Returns:
        Intensities (P,) in [0, 1]: over all vessels the largest `min(1, 0.5 + 0.2 r) exp(-d^2 / (2 (0.6 r)^2))` at distance d
        from a centre line of radius r; and whether a point is within r of one, (P,).
    """
    image, within = np.zeros(len(points)), np.zeros(len(points), dtype=bool)
    places, middles = KDTree(points, compact_nodes=False, balanced_tree=False), (tree.starts + tree.ends) / 2
    for begin in range(0, len(middles), BLOCK):
        reach = REACH * tree.radii[begin : begin + BLOCK].max() + STEP / 2
        near = places.sparse_distance_matrix(KDTree(middles[begin : begin + BLOCK]), reach, output_type="ndarray")
        point, piece = near["i"], near["j"] + begin
        distance, radius = _distance(points[point], tree.starts[piece], tree.ends[piece]), tree.radii[piece]
        profile = np.minimum(1, 0.5 + 0.2 * radius) * np.exp(-0.5 * (distance / (WIDTH * radius)) ** 2)
        np.maximum.at(image, point, profile)
        within[point[distance <= radius]] = True
    return image, within


def _distance(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Of points to straight pieces, row by row: (P, D) each to (P,)."""
    along, off = ends - starts, points - starts
    share = ((off * along).sum(1) / (along**2).sum(1)).clip(0, 1)
    return np.sqrt(((off - share[:, None] * along) ** 2).sum(1))


def _spread(count: int, dim: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Unit vectors away from each other: of 32 random ones, each time the one farthest from those chosen before."""
    chosen: list[np.ndarray] = []
    for _ in range(count):
        several = [_unit(v) for v in rng.normal(size=(32, dim))]
        chosen.append(min(several, key=lambda v: max((float(v @ c) for c in chosen), default=0.0)))
    return chosen


def _turned(way: np.ndarray, by: np.ndarray) -> np.ndarray:
    """A unit vector turned towards the part of `by` across it, by as many radians as that part is long."""
    across = _across(way, by)
    angle = float(np.sqrt((across**2).sum()))
    return _unit(way * np.cos(angle) + across * np.sinc(angle / np.pi))


def _across(way: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return vector - (vector @ way) * way


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.sqrt((vector**2).sum())
