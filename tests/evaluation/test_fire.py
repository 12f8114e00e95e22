"""The FIRE protocol against loops over thresholds, pairs and points, and against small cases by hand."""

from __future__ import annotations

import math
from statistics import mean, median
from typing import Any

import numpy as np
import pytest
import torch

from warpwright.errors import BadInput
from warpwright.evaluation import fire

INF, NAN = math.inf, math.nan
BELOW = math.nextafter(15.0, 0.0)


def pair(name: str, *errors: float) -> fire.PairErrors:
    return fire.PairErrors(name=name, category=name[0], errors=errors)  # type: ignore[arg-type]


def drawn(seed: int = 0) -> list[fire.PairErrors]:
    """Classes of unequal sizes, errors from below a pixel to beyond every threshold, some of them whole, one pair failed."""
    generator = np.random.default_rng(seed)
    names = [*(f"A{k:02d}" for k in range(3)), *(f"P{k:02d}" for k in range(5)), *(f"S{k:02d}" for k in range(9))]
    pairs = [
        pair(name, *np.exp(generator.normal(generator.uniform(-1, 4), 1, 10)).round(generator.integers(0, 4))) for name in names
    ]
    pairs[4] = pair("P01", *[INF] * 10)
    return pairs


def slow_auc(errors: list[float], threshold: int) -> float:
    """The definition: for each threshold count what lies below it."""
    total = 0.0
    for t in range(1, threshold + 1):
        below = 0
        for error in errors:
            if error < t:
                below += 1
        total += below / len(errors)
    return total / threshold


def lists(pairs: list[fire.PairErrors]) -> dict[str, list[float]]:
    return {one.name: np.asarray(one.errors).tolist() for one in pairs}


@pytest.mark.parametrize("threshold", [1, 5, 15, 25, 50])
def test_auc_is_the_count_below_each_threshold(threshold: int) -> None:
    errors = [error for one in lists(drawn()).values() for error in one]
    assert fire.auc(errors, threshold) == pytest.approx(slow_auc(errors, threshold), abs=1e-12)
    floors = [min(math.floor(error) if error < INF else threshold, threshold) for error in errors]
    assert fire.auc(errors, threshold) == pytest.approx(1 - mean(floors) / threshold, abs=1e-12)


def test_auc_by_hand() -> None:
    assert fire.auc([0.5, 1.5, 30], 25) == pytest.approx((25 + 24 + 0) / 75, abs=1e-15)
    assert fire.auc([0.0, 0.999], 15) == 1
    assert fire.auc([INF, 50.0], 50) == 0


def test_a_threshold_does_not_count_its_own_error() -> None:
    assert fire.auc([15.0], 15) == 0
    assert fire.auc([BELOW], 15) == pytest.approx(1 / 15, abs=1e-15)
    assert fire.auc([15.0], 25) == pytest.approx(10 / 25, abs=1e-15)
    assert fire.auc([BELOW], 25) == pytest.approx(11 / 25, abs=1e-15)
    at, below = fire.score([pair("A01", 15.0, 15.0)]), fire.score([pair("A01", BELOW, BELOW)])
    assert (at.point_auc[15].pooled, at.pair_auc[15].pooled) == (0, 0)
    assert below.point_auc[15].pooled == below.pair_auc[15].pooled == pytest.approx(1 / 15, abs=1e-15)


def test_all_figures_against_loops() -> None:
    pairs = drawn()
    scores, errors = fire.score(pairs, (5, 15, 25, 50)), lists(pairs)
    tre = {name: sum(values) / len(values) for name, values in errors.items()}
    assert scores.pair_tre == pytest.approx(tre)
    assert list(scores.point_auc) == list(scores.pair_auc) == [5, 15, 25, 50]
    for threshold in (5, 15, 25, 50):
        of_points = {name: slow_auc(values, threshold) for name, values in errors.items()}
        of_pairs = {name: slow_auc([value], threshold) for name, value in tre.items()}
        for found, each in ((scores.point_auc[threshold], of_points), (scores.pair_auc[threshold], of_pairs)):
            assert found.pooled == pytest.approx(mean(each.values()), abs=1e-12)
            classes = {letter: mean(value for name, value in each.items() if name[0] == letter) for letter in "APS"}
            assert found.categories == pytest.approx(classes, abs=1e-12)
            assert found.class_mean == pytest.approx(mean(classes.values()), abs=1e-12)
    good = [max(values) <= 50 and median(values) <= 20 for values in errors.values()]
    assert 0 < sum(good) < len(good)
    assert scores.acceptable == pytest.approx(mean(good))
    assert scores.failed == 1


def test_the_two_variants_by_hand() -> None:
    scores = fire.score([pair("S01", 0.5, 40.0), pair("S02", 3.5, 3.5)])
    assert scores.pair_tre == {"S01": 20.25, "S02": 3.5}
    assert scores.tre.pooled == 11.875
    assert scores.point_auc[25].pooled == pytest.approx(((25 + 0) / 50 + 22 / 25) / 2, abs=1e-15)
    assert scores.pair_auc[25].pooled == pytest.approx((5 / 25 + 22 / 25) / 2, abs=1e-15)
    assert scores.pair_auc[15].pooled == pytest.approx((0 + 12 / 15) / 2, abs=1e-15)


def test_pairs_count_alike_however_many_points_they_have() -> None:
    scores = fire.score([pair("S01", 0.0), pair("S02", 60.0, 60.0, 60.0)])
    assert scores.point_auc[50].pooled == 0.5
    assert scores.tre.pooled == 30


def test_the_mean_of_the_classes_is_not_the_pooled_mean() -> None:
    scores = fire.score([pair("A01", 0.0), pair("P01", 100.0), pair("S01", 0.0), pair("S02", 0.0), pair("S03", 0.0)])
    found = scores.point_auc[25]
    assert found.categories == {"A": 1, "P": 0, "S": 1}
    assert found.pooled == pytest.approx(4 / 5)
    assert found.class_mean == pytest.approx(2 / 3)
    assert scores.tre.pooled == 20
    assert scores.tre.class_mean == pytest.approx(100 / 3)


def test_a_class_without_pairs_is_not_defined() -> None:
    found = fire.score([pair("A01", 1.0), pair("S01", 3.0)]).pair_auc[15]
    assert math.isnan(found.categories["P"])
    assert math.isnan(found.class_mean)
    assert found.pooled == pytest.approx((14 + 12) / 30)


def test_a_failed_pair_counts_at_no_threshold() -> None:
    scores = fire.score([pair("P01", INF, INF), pair("P02", 0.0, 0.0)])
    assert scores.pair_tre == {"P01": INF, "P02": 0}
    assert scores.tre.pooled == scores.tre.categories["P"] == INF
    assert scores.point_auc[50].pooled == scores.pair_auc[50].pooled == 0.5
    assert (scores.acceptable, scores.failed) == (0.5, 1)


@pytest.mark.parametrize(
    ("errors", "acceptable"),
    [
        ((50.0, 20.0, 20.0), 1),
        ((math.nextafter(50.0, INF), 0.0, 0.0), 0),
        ((0.0, math.nextafter(20.0, INF), 30.0), 0),
        ((0.0, 10.0, 30.0, 50.0), 1),  # median (10 + 30) / 2
    ],
)
def test_acceptable_is_at_most_50_and_in_the_median_at_most_20(errors: tuple[float, ...], acceptable: int) -> None:
    assert fire.score([pair("S01", *errors)]).acceptable == acceptable


def test_single_precision_and_tensors_are_scored_in_double() -> None:
    errors = torch.tensor([2.0**24, 1.0, 1.0, 1.0])  # whose float32 sum loses the ones
    assert errors.dtype == torch.float32
    found = fire.score([fire.PairErrors(name="S01", category="S", errors=errors)])
    assert found.pair_tre["S01"] == (2**24 + 3) / 4


def test_table_by_hand() -> None:
    identity = [pair("A01", 10.5, 20.5), pair("S01", 15.0, 15.0)]
    lines = fire.table(identity, {"ours": [pair("S01", 0.5, 0.5), pair("A01", INF, INF)]}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == [
        *("method", "AUC of", "TRE, px", "TRE A", "TRE P", "TRE S", "@15", "@25", "@50"),
        *("@25 A", "@25 P", "@25 S", "@25 class mean", "acceptable, %", "failed"),
    ]
    assert set(cells[1]) == {"---"}
    assert {len(row) for row in cells} == {len(cells[0])}
    tre = ("15.250", "15.500", "-", "15.000")
    # points: 5 + 0 of 15, 15 + 5 of 25, 40 + 30 of 50, halved, and with S01 0, 10, 35; pairs: 15.5 and 15.0
    assert cells[2] == ["identity", "points", *tre, "0.083", "0.400", "0.700", "0.400", "-", "0.400", "-", "100.0", "0"]
    assert cells[3] == ["identity", "pairs", *tre, "0.000", "0.400", "0.700", "0.400", "-", "0.400", "-", "100.0", "0"]
    ours = ("inf", "inf", "-", "0.500", "0.500", "0.500", "0.500", "0.000", "-", "1.000", "-", "50.0", "1")
    assert cells[4:] == [["ours", "points", *ours], ["ours", "pairs", *ours]]


def test_the_identity_comes_first_and_methods_in_their_order() -> None:
    rows = fire.table(drawn(), {"z": drawn(1), "a": drawn(2)}).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["identity", "identity", "z", "z", "a", "a"]
    assert len(set(rows)) == 6
    alone = fire.table(drawn(), {}).splitlines()
    assert alone[2:] == rows[:2]
    assert "-" not in [cell.strip() for cell in rows[0].split("|")]


def test_methods_on_other_pairs_than_the_identity() -> None:
    identity = [pair("A01", 1.0, 2.0), pair("S01", 1.0)]
    for odd, names in (
        (identity[:1], "S01"),
        ([*identity, pair("S02", 1.0)], "S02"),
        ([pair("A01", 1.0), identity[1]], "A01"),
        ([identity[0], fire.PairErrors(name="S01", category="P", errors=[1.0])], "S01"),
        ([pair(f"P{k:02d}", 1.0) for k in range(30)], "A01, P00, P01, .*, P18, and 12 more"),
    ):
        with pytest.raises(BadInput, match=f"ours: differs from the identity in {names}, expected the same pairs"):
            fire.table(identity, {"good": identity, "ours": odd})


def test_bad_pairs() -> None:
    with pytest.raises(BadInput, match="at least one pair, got none"):
        fire.score([])
    with pytest.raises(BadInput, match="at least one pair, got none"):
        fire.table([], {})
    with pytest.raises(BadInput, match="got S01 more than once"):
        fire.score([pair("S01", 1.0), pair("S01", 2.0)])
    with pytest.raises(BadInput, match="X01: is of the class 'X', expected A, P, S"):
        pair("X01", 1.0)


@pytest.mark.parametrize("errors", [[1.0, NAN], [1.0, -0.5], [-INF]])
def test_errors_that_are_no_distances(errors: list[float]) -> None:
    for call in (lambda: pair("P07", *errors), lambda: fire.auc(errors, 5)):
        with pytest.raises(BadInput, match=r"(P07|AUC): errors are distances.*NaN or a negative"):
            call()


@pytest.mark.parametrize("errors", [[], [[1.0, 2.0]], 3.0])
def test_errors_that_are_no_list(errors: Any) -> None:
    with pytest.raises(BadInput, match="P07: errors are a list"):
        fire.PairErrors(name="P07", category="P", errors=errors)
    with pytest.raises(BadInput, match="AUC: errors are a list"):
        fire.auc(errors, 5)


@pytest.mark.parametrize("threshold", [0, -3, 2.5, float("inf"), float("nan")])
def test_thresholds_are_whole(threshold: Any) -> None:
    with pytest.raises(BadInput, match=f"whole number of pixels, at least 1, got {threshold}"):
        fire.auc([1.0], threshold)
