"""Lines of a picture as SVG paths, in a box whose longer side has `BOX` units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from warpwright.product.slices import Slice

__all__ = ["BOX", "box", "circles", "crosses", "isolines"]

BOX = 4000
RADIUS = 34  # of a landmark


def box(cut: Slice) -> tuple[int, int]:
    """Width and height of the box of a cut."""
    unit = BOX / max(cut.size)
    return max(round(cut.size[1] * unit), 1), max(round(cut.size[0] * unit), 1)


def isolines(cut: Slice, values: np.ndarray, levels: Sequence[float], longest: int) -> str:
    """Where a picture of numbers has the given values.

    Args:
        cut: whose picture it is.
        values: (rows, columns).
        levels: the values.
        longest: pixels that are looked at along the longer side; others between them are skipped.

    Returns:
        The `d` of a path; empty where there is no such place.
    """
    step = max(1, -(-max(cut.shape) // longest))
    seen = values[step // 2 :: step, step // 2 :: step]
    if min(seen.shape) < 2:
        return ""
    from contourpy import LineType, contour_generator

    unit = BOX / max(cut.size)
    down, right = ((np.arange(n) * step + step // 2 + 0.5) * s * unit for n, s in zip(seen.shape, cut.spacing, strict=True))
    lines = contour_generator(right, down, seen.astype(float), line_type=LineType.Separate)
    return "".join(_path(np.asarray(line)) for level in levels for line in lines.lines(level))


def _path(points: np.ndarray) -> str:
    """A line through (N, 2) points, from one to the next, corners only."""
    at = points.round().astype(int)
    at = at[np.concatenate([[True], (np.diff(at, axis=0) != 0).any(1)])]
    if len(at) < 2:
        return ""
    steps = np.diff(at, axis=0)
    turns = steps[1:, 0] * steps[:-1, 1] != steps[1:, 1] * steps[:-1, 0]
    at = at[np.concatenate([[True], turns, [True]])]
    pairs = " ".join(f"{x} {y}" for x, y in np.diff(at, axis=0).tolist())
    return f"M{at[0, 0]} {at[0, 1]}l{pairs}"


def circles(cut: Slice, places: np.ndarray) -> str:
    """A circle around each of (N, 2) places, mm from the left and the top."""
    r = RADIUS
    return "".join(f"M{x - r} {y}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0" for x, y in _units(cut, places))


def crosses(cut: Slice, places: np.ndarray, ends: np.ndarray) -> str:
    """A cross at each of (N, 2) places, and a line from there to its end; mm from the left and the top."""
    r = RADIUS * 3 // 4
    found = []
    for (x, y), (to_x, to_y) in zip(_units(cut, places), _units(cut, ends), strict=True):
        found.append(f"M{x - r} {y - r}l{2 * r} {2 * r}M{x + r} {y - r}l{-2 * r} {2 * r}M{x} {y}L{to_x} {to_y}")
    return "".join(found)


def _units(cut: Slice, places: np.ndarray) -> list[list[int]]:
    return (places * BOX / max(cut.size)).round().astype(int).tolist()
