"""The protocol of the FIRE retinal pairs: target registration error, and AUC in the two variants that tables mix.

All errors are pixels of the full images of 2912 x 2912. With errors e >= 0 (inf where a registration failed) and T whole,

    AUC@T = 1/T sum_{t = 1..T} mean[e < t] = 1 - mean[min(floor(e), T)] / T,

so that an error of exactly t does not count at t, and one below 1 pixel counts in full.

* `pair_auc`: e is the mean error of each pair, one number a pair (SuperRetina, GeoFormer and the feature methods).
* `point_auc`: AUC@T of the control points of each pair, then the mean over pairs (GPOreg and the deformable methods). An
  outlier within a pair costs it less, so it is usually the larger one: never compare one variant with the other.

Either is averaged over all pairs ("pooled") or as the mean of the classes A (anatomical change), P (small overlap) and S (large
overlap). A pair is acceptable if its largest error is at most 50 and its median error at most 20 pixels.

Sources: Hernandez-Matas et al., Journal for Modeling in Ophthalmology 1(4), 2017 (the data);
github.com/ruc-aimc-lab/SuperRetina, `test_on_FIRE.py` (per pair, acceptable); github.com/xintian-99/GPOreg, `gpo.py` (per
point).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from warpwright.errors import BadInput, first_of
from warpwright.evaluation._arrays import nan_mean

__all__ = ["Averages", "Category", "PairErrors", "Scores", "auc", "score", "table"]

Category: TypeAlias = Literal["A", "P", "S"]

CATEGORIES: tuple[Category, ...] = get_args(Category)
THRESHOLDS = (15, 25, 50)
OF_CLASSES = 25  # the threshold at which the literature tells the classes apart
LARGEST, MEDIAN = 50.0, 20.0  # of an acceptable pair, pixels


@dataclass(frozen=True, eq=False, kw_only=True)
class PairErrors:
    """The errors of the control points of one pair.

    Args:
        name: of the pair, "P01".
        category: its class.
        errors: (N,) pixels of the full image, at least 0; all inf if the registration failed.

    Raises:
        BadInput: an unknown class, no error, or one that is NaN or negative.
    """

    name: str
    category: Category
    errors: ArrayLike

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            raise BadInput(f"{self.name}: is of the class {self.category!r}, expected {', '.join(CATEGORIES)}")
        _distances(self.name, self.errors)

    @property
    def distances(self) -> np.ndarray:
        """The errors as (N,) float64."""
        return np.asarray(self.errors, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Averages:
    """Means of a figure that each pair has.

    Args:
        pooled: over all pairs.
        categories: over the pairs of each class; NaN for a class without any.
    """

    pooled: float
    categories: dict[Category, float]

    @property
    def class_mean(self) -> float:
        """(A + P + S) / 3, whatever the sizes of the classes; NaN if one of them has no pair."""
        return sum(self.categories.values()) / len(CATEGORIES)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What the protocol reports of one method.

    Args:
        pair_tre: mean error of each pair by name, pixels; inf for a failed one.
        tre: means of `pair_tre`, pixels; inf where a pair failed.
        point_auc: for each threshold AUC per control point, in [0, 1].
        pair_auc: for each threshold AUC per pair, in [0, 1].
        acceptable: share of acceptable pairs; a failed one is not.
        failed: number of failed pairs.
    """

    pair_tre: dict[str, float]
    tre: Averages
    point_auc: dict[int, Averages]
    pair_auc: dict[int, Averages]
    acceptable: float
    failed: int


def auc(errors: ArrayLike, threshold: int) -> float:
    """AUC@T of a list of errors, see the module.

    Args:
        errors: (N,) pixels of the full image, at least 0; inf counts at no threshold.
        threshold: T, a whole number of pixels.

    Returns:
        In [0, 1]; 1 if all errors are below 1 pixel, 0 if none is below T.

    Raises:
        BadInput: no error, one that is NaN or negative, or a threshold that is not whole or below 1.
    """
    if not math.isfinite(threshold) or threshold < 1 or threshold != int(threshold):
        raise BadInput(f"the threshold of an AUC is a whole number of pixels, at least 1, got {threshold}")
    counted = np.minimum(np.floor(_distances("AUC", errors)), threshold)
    return float((threshold - counted).mean() / threshold)


def score(pairs: Sequence[PairErrors], thresholds: Sequence[int] = THRESHOLDS) -> Scores:
    """All figures of the protocol.

    Args:
        pairs: each pair once, in any order.
        thresholds: T of the AUC, whole pixels.

    Raises:
        BadInput: there is no pair, a pair is there twice, or a threshold is not whole or below 1.
    """
    if not pairs:
        raise BadInput("the FIRE protocol scores at least one pair, got none")
    twice = [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]
    if twice:
        raise BadInput(f"each pair of FIRE is scored once, got {first_of(twice)} more than once")
    categories, points = np.array([pair.category for pair in pairs]), [pair.distances for pair in pairs]

    def averages(values: Sequence[float]) -> Averages:
        figures = np.asarray(values)
        return Averages(
            pooled=float(figures.mean()), categories={name: nan_mean(figures[categories == name]) for name in CATEGORIES}
        )

    means = [float(errors.mean()) for errors in points]
    return Scores(
        pair_tre={pair.name: mean for pair, mean in zip(pairs, means, strict=True)},
        tre=averages(means),
        point_auc={limit: averages([auc(errors, limit) for errors in points]) for limit in thresholds},
        pair_auc={limit: averages([auc([mean], limit) for mean in means]) for limit in thresholds},
        acceptable=float(np.mean([errors.max() <= LARGEST and np.median(errors) <= MEDIAN for errors in points])),
        failed=int(np.isinf(means).sum()),
    )


def table(identity: Sequence[PairErrors], methods: Mapping[str, Sequence[PairErrors]]) -> str:
    """A Markdown table of both AUC variants, a row each, for the identity and then for each method.

    The identity comes first because a figure says little without what no registration at all would get on the same points.

    Args:
        identity: the errors without any registration, of each pair.
        methods: the errors of the same pairs by the name of the method, in the order of the rows.

    Returns:
        Lines without a last line end. TRE in pixels pooled and by class; AUC pooled at 15, 25 and 50 pixels, at 25 by class
        and as the mean of the classes; "-" for a class without pairs, inf for a TRE with a failed pair.

    Raises:
        BadInput: no pair, or a method has other pairs, classes or numbers of points than the identity.
    """
    wanted = _described(identity)
    for name, pairs in methods.items():
        odd = sorted({pair for pair, *_ in wanted ^ _described(pairs)})
        if odd:
            raise BadInput(f"{name}: differs from the identity in {first_of(odd)}, expected the same pairs, classes and points")
    of_classes = [f"@{OF_CLASSES} {category}" for category in CATEGORIES]
    heads = ["method", "AUC of", "TRE, px", *(f"TRE {category}" for category in CATEGORIES)]
    heads += [*(f"@{limit}" for limit in THRESHOLDS), *of_classes, f"@{OF_CLASSES} class mean", "acceptable, %", "failed"]
    lines = [heads, ["---"] * len(heads)]
    for name, pairs in (("identity", identity), *methods.items()):
        lines.extend(_rows(name, score(pairs)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _rows(name: str, scores: Scores) -> Iterator[list[str]]:
    for what, found in (("points", scores.point_auc), ("pairs", scores.pair_auc)):
        classes = found[OF_CLASSES]
        figures = [scores.tre.pooled, *scores.tre.categories.values(), *(found[limit].pooled for limit in THRESHOLDS)]
        figures += [*classes.categories.values(), classes.class_mean]
        cells = ["-" if np.isnan(figure) else f"{figure:.3f}" for figure in figures]
        yield [name, what, *cells, f"{100 * scores.acceptable:.1f}", str(scores.failed)]


def _described(pairs: Sequence[PairErrors]) -> set[tuple[str, str, int]]:
    return {(pair.name, pair.category, len(pair.distances)) for pair in pairs}


def _distances(what: str, errors: ArrayLike) -> np.ndarray:
    distances = np.asarray(errors, dtype=np.float64)
    if distances.ndim != 1 or not distances.size:
        raise BadInput(f"{what}: errors are a list, one for each control point, got shape {distances.shape}")
    if not (distances >= 0).all():
        raise BadInput(f"{what}: errors are distances, at least 0 or inf for a failed pair, found NaN or a negative number")
    return distances
