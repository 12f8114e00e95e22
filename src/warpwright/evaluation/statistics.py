"""What a list of case scores says about a cohort, and whether two lists differ.

A score that is not defined (a label that a case lacks) is NaN and left out. Nothing here depends on a hidden seed: the same
scores give the same numbers.
"""

from __future__ import annotations

import numpy as np
import scipy  # loads its parts, which take a second, where they are used
from numpy.typing import ArrayLike

from warpwright.errors import BadInput

__all__ = ["bootstrap_interval", "paired_t_test", "summary", "wilcoxon"]

BLOCK = 1 << 20  # scores drawn at a time, so that a large cohort needs little memory
ROUNDING = 1e-10  # spread of differences, relative to their size
THIRTY = 0.3  # share of the cases that are no better than `p30`, as in Learn2Reg


def bootstrap_interval(values: ArrayLike, *, level: float = 0.95, draws: int = 10000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron, Annals of Statistics 7, 1979).

    The cases are drawn with replacement, as many as there are, and the ends are quantiles (linear between values) of the
    means of all draws. With few cases it is too narrow: it then covers the true mean less often than `level` says.

    Args:
        values: (N,) scores, finite or NaN; NaN is left out before anything is drawn.
        level: share of the means inside, in (0, 1).
        draws: how often the cases are drawn.
        seed: of the generator that draws.

    Returns:
        The low and the high end, in the unit of the scores; twice the score if there is one, NaN twice if there is none.

    Raises:
        BadInput: a score is infinite, or `level` or `draws` is out of range.
    """
    if not 0 < level < 1:
        raise BadInput(f"the level of an interval must lie in (0, 1), got {level}")
    if draws < 1:
        raise BadInput(f"a bootstrap needs at least one draw, got {draws}")
    scores = _scores(values)
    scores = scores[~np.isnan(scores)]
    count = len(scores)
    if not count:
        return float("nan"), float("nan")
    generator, rows = np.random.default_rng(seed), max(1, BLOCK // count)
    sizes = [min(rows, draws - begin) for begin in range(0, draws, rows)]
    means = np.concatenate([scores[generator.integers(0, count, (size, count))].mean(1) for size in sizes])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilcoxon(first: ArrayLike, second: ArrayLike) -> dict[str, float]:
    """Wilcoxon's signed-rank test, two-sided, of paired scores (Biometrics Bulletin 1, 1945).

    Differences of zero enter no rank. The p-value is exact for at most 50 pairs without ties, otherwise what
    `scipy.stats.wilcoxon` chooses. Below 6 pairs that differ it cannot fall below 0.05.

    Args:
        first: (N,) scores, finite or NaN.
        second: (N,) scores of the same cases; a pair with a NaN is left out.

    Returns:
        `statistic`: the smaller one of the two sums of ranks; `p_value`: 1 if no pair differs; `pairs`: how many were
        counted, those without a difference too; `median_difference`: of `first - second`. NaN, except `pairs`, if no pair
        is left.

    Raises:
        BadInput: the scores do not pair up, or one is infinite.
    """
    difference = _differences(first, second)
    if not len(difference):
        return {"statistic": float("nan"), "p_value": float("nan"), "pairs": 0, "median_difference": float("nan")}
    found = {"statistic": 0.0, "p_value": 1.0, "pairs": len(difference), "median_difference": float(np.median(difference))}
    if difference.any():
        found["statistic"], found["p_value"] = map(float, scipy.stats.wilcoxon(difference[difference != 0]))
    return found


def paired_t_test(first: ArrayLike, second: ArrayLike) -> dict[str, float]:
    """Student's t-test, two-sided, of paired scores: whether the mean of their differences is 0 (Biometrika 6, 1908).

    Args:
        first: (N,) scores, finite or NaN.
        second: (N,) scores of the same cases; a pair with a NaN is left out.

    Returns:
        `statistic`: t; `p_value`: 1 if no pair differs; `pairs`: how many were counted; `mean_difference`: of
        `first - second`. Without two differences that differ (by more than rounding), statistic and p-value are NaN.

    Raises:
        BadInput: the scores do not pair up, or one is infinite.
    """
    difference = _differences(first, second)
    nan = float("nan")
    found = {"statistic": nan, "p_value": nan, "pairs": len(difference), "mean_difference": nan}
    if not len(difference):
        return found
    found["mean_difference"] = float(difference.mean())
    if not difference.any():
        return found | {"statistic": 0.0, "p_value": 1.0}
    if np.ptp(difference) > ROUNDING * np.abs(difference).max():
        from scipy import stats

        found["statistic"], found["p_value"] = map(float, stats.ttest_1samp(difference, 0))
    return found


def summary(values: ArrayLike, *, high_is_good: bool = True) -> dict[str, float | tuple[float, float]]:
    """What is reported of a score over cases.

    Args:
        values: (N,) scores, finite or NaN; NaN is left out.
        high_is_good: True for an overlap, False for a distance.

    Returns:
        `mean`; `sd`: of the sample (divided by N - 1), NaN for fewer than two cases; `median`; `p30`: 30 % of the cases are
        no better than this, the 0.3-quantile of a score where high is good (Learn2Reg's Dice30) and the 0.7-quantile of
        others (its TRE30); `interval`: see `bootstrap_interval`; `cases`: how many were counted. NaN, except `cases`, if none.

    Raises:
        BadInput: a score is infinite.
    """
    scores = _scores(values)
    scores = scores[~np.isnan(scores)]
    count, nan = len(scores), float("nan")
    return {
        "mean": float(scores.mean()) if count else nan,
        "sd": float(scores.std(ddof=1)) if count > 1 else nan,
        "median": float(np.median(scores)) if count else nan,
        "p30": float(np.quantile(scores, THIRTY if high_is_good else 1 - THIRTY)) if count else nan,
        "interval": bootstrap_interval(scores),
        "cases": count,
    }


def _differences(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Of paired scores, without the pairs that lack one."""
    one, two = _scores(first), _scores(second)
    if len(one) != len(two):
        raise BadInput(f"paired scores must be as many on both sides, got {len(one)} and {len(two)}")
    difference = one - two
    return difference[~np.isnan(difference)]


def _scores(values: ArrayLike) -> np.ndarray:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1:
        raise BadInput(f"scores are a list, one for each case, got shape {scores.shape}")
    if np.isinf(scores).any():
        raise BadInput("scores must be finite, or NaN where they are not defined, found inf")
    return scores
