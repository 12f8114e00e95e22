"""How well label maps overlap, label by label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from warpwright.evaluation._arrays import Values, as_labels, check_same_shape, nan_mean

__all__ = ["dice", "jaccard", "mean_over_labels", "vanished_labels"]


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
    lost = (
        _sizes(as_labels(before, "the label map before warping")).keys()
        - _sizes(as_labels(after, "the warped label map")).keys()
    )
    return tuple(sorted(lost - {0}))


def _counts(fixed_labels: Values, moved_labels: Values, labels: Iterable[int] | None) -> dict[int, tuple[int, int, int]]:
    """Label to its number of voxels in the fixed map, in the moved map and in both."""
    fixed, moved = as_labels(fixed_labels, "the fixed label map"), as_labels(moved_labels, "the moved label map")
    check_same_shape(fixed, moved)
    in_fixed, in_moved, in_both = _sizes(fixed), _sizes(moved), _sizes(fixed[fixed == moved])
    wanted = sorted((in_fixed.keys() | in_moved.keys()) - {0}) if labels is None else labels
    return {int(label): (in_fixed.get(label, 0), in_moved.get(label, 0), in_both.get(label, 0)) for label in wanted}


def _sizes(labels: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
