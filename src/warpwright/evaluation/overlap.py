"""How well label maps overlap, label by label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from warpwright.evaluation._arrays import Values, as_labels, check_same_shape, nan_mean
from warpwright.kernels import usable

__all__ = ["dice", "jaccard", "mean_over_labels", "vanished_labels"]

MANY = 1 << 16  # labels below this are counted in a list, others are sorted


def dice(fixed_labels: Values, moved_labels: Values, labels: Iterable[int] | None = None) -> dict[int, float]:
    """Dice coefficient `2 |F and M| / (|F| + |M|)` of each label.

    Args:
        fixed_labels: whole numbers, any shape.
        moved_labels: whole numbers, the same shape.
        labels: which labels; default all that occur in either map, except the background 0.

    Returns:
        Label to value in [0, 1]: 0 if the label is absent in one of the maps, NaN if in both.

    Raises:
        BadInput: the shapes differ or a value is not a whole number.

    Examples:
        >>> import numpy as np
        >>> from warpwright.evaluation import dice
        >>> dice(np.array([[0, 1, 1, 2]]), np.array([[1, 1, 0, 2]]))
        {1: 0.5, 2: 1.0}
    """
    counts = _counts(fixed_labels, moved_labels, labels)
    return {label: _ratio(2 * both, fixed + moved) for label, (fixed, moved, both) in counts.items()}


def jaccard(fixed_labels: Values, moved_labels: Values, labels: Iterable[int] | None = None) -> dict[int, float]:
    """Jaccard index `|F and M| / |F or M|` of each label; arguments, NaN and errors as in `dice`."""
    counts = _counts(fixed_labels, moved_labels, labels)
    return {label: _ratio(both, fixed + moved - both) for label, (fixed, moved, both) in counts.items()}


def mean_over_labels(scores: Mapping[int, float]) -> float:
    """Mean of the labels' values, leaving out those that are NaN; NaN if nothing is left."""
    return nan_mean(np.array(list(scores.values()), dtype=np.float64))


def vanished_labels(before: Values, after: Values) -> tuple[int, ...]:
    """Labels (not 0) that occur in `before`, the moving map, but no longer in `after`, the warped one; shapes may differ."""
    first, second = as_labels(before, "the label map before warping"), as_labels(after, "the warped label map")
    return tuple(sorted(_present(first) - _present(second) - {0}))


def _present(labels: np.ndarray) -> set[int]:
    span = _span(labels)
    return set((np.flatnonzero(np.bincount(labels.astype(np.int64).reshape(-1))) if span else np.unique(labels)).tolist())


def _counts(fixed_labels: Values, moved_labels: Values, labels: Iterable[int] | None) -> dict[int, tuple[int, int, int]]:
    """Label to its number of voxels in the fixed map, in the moved map and in both."""
    fixed, moved = as_labels(fixed_labels, "the fixed label map"), as_labels(moved_labels, "the moved label map")
    check_same_shape(fixed, moved)
    found = _sizes(fixed, moved)
    wanted = sorted(found.keys() - {0}) if labels is None else [int(label) for label in labels]
    return {label: found.get(label, (0, 0, 0)) for label in wanted}


def _sizes(fixed: np.ndarray, moved: np.ndarray) -> dict[int, tuple[int, int, int]]:
    span = _span(fixed, moved)
    if span and usable(torch.empty(1)):
        from warpwright.kernels import overlap

        counts = overlap.counts(fixed, moved, span)
    elif span:
        maps = (fixed, moved, fixed[fixed == moved])
        counts = np.stack([np.bincount(m.astype(np.int64).reshape(-1), minlength=span) for m in maps])
    else:
        parts = [np.unique(m, return_counts=True) for m in (fixed, moved, fixed[fixed == moved])]
        by_map = [dict(zip(values.tolist(), sizes.tolist(), strict=True)) for values, sizes in parts]
        return {label: tuple(sizes.get(label, 0) for sizes in by_map) for label in by_map[0].keys() | by_map[1].keys()}
    return {label: tuple(counts[:, label].tolist()) for label in np.flatnonzero(counts.any(0)).tolist()}


def _span(*maps: np.ndarray) -> int:
    """One more than the largest label if labels are few enough to be counted in a list, else 0."""
    if not all(m.size for m in maps) or min(m.min() for m in maps) < 0:
        return 0
    largest = int(max(m.max() for m in maps))
    return largest + 1 if largest < MANY else 0


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
