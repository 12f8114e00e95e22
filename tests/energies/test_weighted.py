"""Weighted sums of similarities."""

from __future__ import annotations

import math

import pytest
import torch

from oracles.make import normal, smooth_field
from warpwright.config import from_mapping, to_mapping
from warpwright.energies.similarity import LNCC, MIND, MSE, MutualInformation, Term, WeightedSum
from warpwright.errors import BadInput

LNCC_1 = LNCC(radius=1, epsilon=1e-2)
SUM = WeightedSum(parts=(Term(similarity=LNCC_1, weight=0.25), Term(similarity=MSE(), weight=3.0)))


def test_value_and_gradient_are_the_weighted_sums(shape: tuple[int, ...], generator: torch.Generator) -> None:
    fixed, moving = normal(generator, 2, 1, *shape), normal(generator, 2, 1, *shape)
    weight = torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64)
    field = smooth_field(shape, 0.7).requires_grad_()
    results = []
    for similarity in (SUM, LNCC_1, MSE()):
        value = similarity.match(fixed, moving, field, None, weight)
        results.append((value.detach(), *torch.autograd.grad(value.sum(), field)))
    for whole, lncc, mse in zip(*results, strict=True):
        torch.testing.assert_close(whole, 0.25 * lncc + 3.0 * mse)


def test_every_part_adapts_to_the_spacing() -> None:
    spacing = (1.0, 1.0, 4.0)
    adapted = SUM.for_spacing(spacing)
    assert [part.similarity for part in adapted.parts] == [LNCC_1.for_spacing(spacing), MSE()]
    assert [part.weight for part in adapted.parts] == [0.25, 3.0]


def test_curvature_is_the_sum_or_refused(shape: tuple[int, ...], generator: torch.Generator) -> None:
    moved, fixed = normal(generator, 1, 1, *shape), normal(generator, 1, 1, *shape)
    twice = WeightedSum(parts=(Term(similarity=MSE(), weight=2.0), Term(similarity=MSE())))
    torch.testing.assert_close(twice.curvature(moved, fixed), 3 * MSE().curvature(moved, fixed))
    with pytest.raises(BadInput, match="LNCC has no curvature"):
        SUM.curvature(moved, fixed)


def test_settings_are_read_and_written() -> None:
    whole = WeightedSum(parts=(Term(similarity=MutualInformation(bins=8)), Term(similarity=MIND(radius=(1, 1, 0)), weight=0.5)))
    assert from_mapping(WeightedSum, to_mapping(whole)) == whole


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_weights_are_positive_numbers(weight: float) -> None:
    with pytest.raises(BadInput, match="positive"):
        Term(similarity=MSE(), weight=weight)


def test_a_sum_has_parts() -> None:
    with pytest.raises(BadInput, match="at least one"):
        WeightedSum(parts=())
