"""Intervals against SciPy and against all draws of a tiny list; the signed-rank test against all signs."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from warpwright.errors import BadInput
from warpwright.evaluation import bootstrap_interval, paired_t_test, statistics, summary, wilcoxon

NAN = math.nan


def skewed(count: int) -> np.ndarray:
    return np.random.default_rng(count).beta(6, 2, count)


@pytest.mark.parametrize("count", [7, 40])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_interval_is_scipys(count: int, level: float) -> None:
    values = skewed(count)
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=10000, method="percentile", rng=np.random.default_rng(8)
    ).confidence_interval
    # an end is off by at most 0.027 standard errors of the mean (one sigma, either side); four sigma of the difference
    error = 4 * math.sqrt(2) * 0.027 * values.std() / math.sqrt(count)
    np.testing.assert_allclose(bootstrap_interval(values, level=level), theirs, atol=error)


def test_interval_of_two_values_is_that_of_all_draws() -> None:
    assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)  # means 0, 1/2, 1 with 1/4, 1/2, 1/4
    assert bootstrap_interval([0.0, 1.0], level=0.4) == (0.5, 0.5)
    assert bootstrap_interval([3.0, NAN]) == (3.0, 3.0)


def test_interval_repeats_itself_whatever_is_drawn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = skewed(11)
    first = bootstrap_interval(values, draws=500)
    assert bootstrap_interval(values, draws=500) == first
    assert bootstrap_interval(values, draws=500, seed=1) != first
    monkeypatch.setattr(statistics, "BLOCK", 30)
    assert bootstrap_interval(values, draws=500) == first


def test_nan_is_left_out() -> None:
    values = skewed(9)
    with_nan = np.insert(values, [0, 4, 9], NAN)
    assert bootstrap_interval(with_nan) == bootstrap_interval(values)
    assert summary(with_nan) == summary(values)
    assert all(math.isnan(end) for end in bootstrap_interval([NAN]))
    empty = summary([])
    assert empty.pop("cases") == 0
    assert np.isnan([*empty.pop("interval"), *empty.values()]).all()


def test_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    ends = [bootstrap_interval(generator.normal(2.0, 1.0, 40), draws=400) for _ in range(400)]
    assert 0.90 < np.mean([low < 2.0 < high for low, high in ends]) < 0.98  # 0.94 for 40 normal values, sd 0.012


def test_summary_is_numpys() -> None:
    values = skewed(10)
    found = summary(values)
    assert found["mean"] == pytest.approx(values.mean(), abs=1e-15)
    assert found["sd"] == pytest.approx(math.sqrt(((values - values.mean()) ** 2).sum() / 9), abs=1e-15)
    ordered = sorted(values.tolist())
    assert found["median"] == pytest.approx((ordered[4] + ordered[5]) / 2, abs=1e-15)
    assert found["p30"] == pytest.approx(0.3 * ordered[2] + 0.7 * ordered[3], abs=1e-15)  # place 0.3 * 9 = 2.7
    assert summary(values, high_is_good=False)["p30"] == pytest.approx(0.7 * ordered[6] + 0.3 * ordered[7], abs=1e-15)
    assert found["interval"] == bootstrap_interval(values)
    assert found["cases"] == 10
    assert math.isnan(summary([0.5])["sd"])


def test_signed_ranks_by_hand() -> None:
    found = wilcoxon([1.1, 1.4, 1.0, 2.4, 0.0], [1.0, 1.2, 0.7, 2.0, 0.5])  # differences 0.1 0.2 0.3 0.4 -0.5
    # the ranks of the negative ones add up to 5; of the 32 choices of signs 10 do not exceed that, and as many mirrored
    assert found["statistic"] == 5
    assert found["p_value"] == pytest.approx(20 / 32, abs=1e-15)
    assert found["pairs"] == 5
    assert found["median_difference"] == pytest.approx(0.2)


@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.9])
def test_signed_ranks_against_all_signs(shift: float) -> None:
    generator = np.random.default_rng(9)
    first, second = generator.normal(shift, 1, 9), generator.normal(0, 1, 9)
    difference = first - second
    ranks = np.abs(difference).argsort().argsort() + 1
    sums = np.array([ranks[np.array(signs) > 0].sum() for signs in product((0, 1), repeat=9)])
    plus = ranks[difference > 0].sum()
    least = min((sums <= plus).mean(), (sums >= plus).mean())
    found = wilcoxon(first, second)
    assert found["p_value"] == pytest.approx(min(1.0, 2 * least), abs=1e-12)
    assert found["statistic"] == min(plus, ranks.sum() - plus)
    assert wilcoxon(second, first)["p_value"] == found["p_value"]


def test_pairs_without_a_difference_or_a_score() -> None:
    assert wilcoxon([0.5, 0.7], [0.5, 0.7]) == {"statistic": 0.0, "p_value": 1.0, "pairs": 2, "median_difference": 0.0}
    without = wilcoxon([1.0, 2, 3, 4, 5, 6], [0.9, 1.8, 2.7, 3.6, 4.5, 5.4])
    assert without["p_value"] == pytest.approx(2 / 64)  # the least that six pairs can give
    some = wilcoxon([1.0, 2, 3, 4, 5, 6, 7, NAN, 1], [0.9, 1.8, 2.7, 3.6, 4.5, 5.4, 7, 1, NAN])
    assert some["p_value"] == without["p_value"]
    assert (without["pairs"], some["pairs"]) == (6, 7)
    nothing = wilcoxon([NAN, 1.0], [1.0, NAN])
    assert nothing.pop("pairs") == 0
    assert np.isnan(list(nothing.values())).all()


@pytest.mark.parametrize(("count", "tied"), [(8, True), (60, False), (60, True)])
def test_ties_and_many_pairs_raise_no_warning(count: int, tied: bool) -> None:
    difference = np.random.default_rng(2).normal(0.3, 1, count)
    difference = difference.round() if tied else difference
    kept = difference[difference != 0]
    found = wilcoxon(difference, np.zeros(count))
    ranks = stats.rankdata(np.abs(kept))
    assert found["statistic"] == pytest.approx(min(ranks[kept > 0].sum(), ranks[kept < 0].sum()))
    assert 0 < found["p_value"] <= 1


@pytest.mark.parametrize("bad", [[1.0, math.inf], [[1.0]]])
def test_scores_that_are_none(bad: list) -> None:
    for function in (bootstrap_interval, summary, lambda values: wilcoxon(values, values)):
        with pytest.raises(BadInput, match="scores"):
            function(bad)


def test_other_bad_values() -> None:
    with pytest.raises(BadInput, match="2 and 1"):
        wilcoxon([1.0, 2.0], [1.0])
    with pytest.raises(BadInput, match="level"):
        bootstrap_interval([1.0], level=1.0)
    with pytest.raises(BadInput, match="draw"):
        bootstrap_interval([1.0], draws=0)


def test_a_paired_t_test_is_that_of_scipy() -> None:
    rng = np.random.default_rng(3)
    one, two = rng.normal(size=(2, 20))
    found = paired_t_test([*one, np.nan], [*two, 1.0])
    expected = stats.ttest_rel(one, two)
    assert found["p_value"] == pytest.approx(expected.pvalue)
    assert found["statistic"] == pytest.approx(expected.statistic)
    assert found["pairs"] == 20
    assert found["mean_difference"] == pytest.approx((one - two).mean())


def test_a_paired_t_test_of_too_few_pairs_or_of_equal_ones() -> None:
    assert np.isnan(paired_t_test([1.0], [2.0])["p_value"])
    assert paired_t_test([], [])["pairs"] == 0
    same = paired_t_test([0.2, 0.3, 0.4], [0.1, 0.2, 0.3])
    assert np.isnan(same["p_value"])
    assert same["mean_difference"] == pytest.approx(0.1)
    assert paired_t_test([1.0, 2.0], [1.0, 2.0])["p_value"] == 1
    with pytest.raises(BadInput, match="as many"):
        paired_t_test([1.0], [1.0, 2.0])
