"""Where vessels of a map branch or cross: nodes of its skeleton at which three vessels or more meet."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

__all__ = ["bifurcations", "skeleton"]

HOLE = 50  # pixels; a smaller one in a vessel is a slip of the pen
SPUR = 12  # pixels of skeleton; a shorter piece with a loose end is a bump of the outline, not a vessel
APART = 12.0  # pixels; nodes nearer to each other are one place, as the two of a crossing
BORDER = 20  # pixels to the edge of the map
RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # of the eight pixels beside one, in order
AROUND = np.ones((3, 3), dtype=bool)  # what touches: also at the corners


def bifurcations(vessels: np.ndarray) -> np.ndarray:
    """Places where vessels branch or cross.

    Small holes are filled, the outline is smoothed, the map is thinned to lines. Where three pieces of line meet, not counting
    those that are too short to be vessels, there is a node; the middle of nodes that lie together is the place.

    Args:
        vessels: (X, Y) bool.

    Returns:
        (L, 2) float64, pixels in the order of the axes, at least 12 from each other and 20 from the edges.
    """
    holes, _ = ndimage.label(~vessels)
    whole = vessels | (np.bincount(holes.ravel()) < HOLE)[holes]
    lines = skeleton(ndimage.gaussian_filter(whole.astype(np.float64), 1.0) > 0.5)
    at = np.argwhere(lines)
    nodes, count = ndimage.label(_with(lines, at[_beside(lines, at).sum(1) > 2]), AROUND)
    pieces, _ = ndimage.label(lines & (nodes == 0), AROUND)
    meetings = _touching(nodes, pieces)
    lengths, ends = np.bincount(pieces.ravel()), np.bincount(meetings[:, 1], minlength=pieces.max() + 1)
    vessel = (ends > 1) | (lengths >= SPUR)
    degrees = np.bincount(meetings[vessel[meetings[:, 1]], 0], minlength=count + 1)
    places = _merged(np.reshape(ndimage.center_of_mass(nodes > 0, nodes, np.flatnonzero(degrees > 2)), (-1, 2)))
    return places[((places >= BORDER) & (places <= np.array(vessels.shape) - 1 - BORDER)).all(1)]


def skeleton(shape: np.ndarray) -> np.ndarray:
    """Lines in the middle of a shape, of which no pixel but an end could be left out without a gap.

    Args:
        shape: (X, Y) bool; its outermost pixels are left out.

    Returns:
        (X, Y) bool.

    Reference:
        Zhang and Suen, Communications of the ACM 27(3), 1984, doi 10.1145/357994.358023; then the corners of its stairs go.
    """
    lines = np.pad(shape[1:-1, 1:-1], 1)
    gone = True
    while gone:
        gone = False
        for sides in ((0, 2, 4), (2, 4, 6)), ((0, 2, 6), (0, 4, 6)):
            at = np.argwhere(lines)
            beside = _beside(lines, at)
            parts, size = (~beside & np.roll(beside, -1, 1)).sum(1), beside.sum(1)
            outer = ~beside[:, sides[0]].all(1) & ~beside[:, sides[1]].all(1)
            peeled = at[(parts == 1) & (size > 1) & (size < 7) & outer]
            lines[tuple(peeled.T)] = False
            gone |= len(peeled) > 0
    for x, y in np.argwhere(lines):
        ring = [bool(lines[x + i, y + j]) for i, j in RING]
        parts = sum(not ring[k] and (ring[k + 1] or ring[(k + 2) % 8]) for k in (0, 2, 4, 6))
        lines[x, y] = parts != 1 or sum(ring) < 2
    return lines


def _beside(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(N, 8): the values around pixels (N, 2) that are not the outermost."""
    return image[tuple(np.moveaxis(at[:, None] + RING, -1, 0))]


def _with(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(X, Y) bool of the size of an image: pixels (N, 2)."""
    marked = np.zeros_like(image, dtype=bool)
    marked[tuple(at.T)] = True
    return marked


def _touching(nodes: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """(N, 2) numbers of a node and of a piece of line that touches it, each pair once."""
    at = np.argwhere(nodes)
    beside = _beside(pieces, at)
    pairs = np.stack(np.broadcast_arrays(nodes[tuple(at.T)][:, None], beside), -1)[beside > 0]
    return np.unique(pairs, axis=0)


def _merged(places: np.ndarray) -> np.ndarray:
    """The middles of places that lie together, until none do."""
    near = KDTree(places).query_pairs(APART, output_type="ndarray")
    if not len(near):
        return places
    links = np.zeros((len(places), len(places)), dtype=bool)
    links[near[:, 0], near[:, 1]] = True
    count, group = connected_components(links, directed=False)
    return _merged(np.stack([places[group == k].mean(0) for k in range(count)]))
