"""Batches swapped and moved, predictions reversed, losses both ways."""

from __future__ import annotations

from dataclasses import fields

import torch
from loss_cases import SHAPE, TERMS, batch_of, field_of, full_prediction, said

from warpwright.energies.losses import InverseConsistency, Smoothness, VelocityPrior, pair_loss
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.networks import ControlPoints, Displacement


def test_swapping_twice_changes_nothing(dim: int) -> None:
    batch = batch_of(dim)
    once, twice = batch.swapped(), batch.swapped().swapped()
    assert len(batch) == 2
    for field in fields(batch):
        assert getattr(twice, field.name) is getattr(batch, field.name)
        side = {"fixed": "moving", "moving": "fixed"}.get(field.name.split("_")[0])
        other = field.name if side is None else "_".join([side, *field.name.split("_")[1:]])
        assert getattr(once, other) is getattr(batch, field.name)


def test_a_batch_changes_its_dtype_but_for_labels(dim: int) -> None:
    batch = batch_of(dim)
    found = batch.to(torch.device("cpu"), torch.float32)
    assert found.fixed_points is not None
    assert found.fixed_labels is not None
    assert torch.equal(found.fixed_labels, torch.as_tensor(batch.fixed_labels))
    kinds = (found.fixed, found.moving, found.fixed_weight, found.moving_weight, *found.fixed_points)
    assert {x.dtype for x in kinds if x is not None} == {torch.float32}
    assert (found.names, found.spacing) == (batch.names, batch.spacing)
    bare = PairBatch(fixed=batch.fixed, moving=batch.moving, spacing=batch.spacing).to(torch.device("cpu"), torch.float32)
    assert [f.name for f in fields(bare) if getattr(bare, f.name) is None] == [
        f"{side}_{what}" for what in ("weight", "labels", "points") for side in ("fixed", "moving")
    ]


def test_a_reversed_prediction(dim: int) -> None:
    prediction = full_prediction(dim)
    back = prediction.reversed()
    assert back is not None
    assert prediction.inverse is not None
    assert torch.equal(back.displacement, prediction.inverse)
    assert back.inverse is prediction.displacement
    assert torch.equal(back.velocities[0].values, -prediction.velocities[0].values)
    assert torch.equal(back.distributions[0].mean, -prediction.distributions[0].mean)
    assert back.distributions[0].log_variance is prediction.distributions[0].log_variance
    assert back.velocities[0].factors == prediction.velocities[0].factors
    (coarse,), (original,) = back.final.coarser, prediction.final.coarser
    assert isinstance(coarse, Displacement)
    assert isinstance(original, Displacement)
    assert coarse.values is original.inverse
    again = back.reversed()
    assert again is not None
    assert again.displacement is prediction.displacement
    assert torch.equal(again.velocities[0].values, prediction.velocities[0].values)


def test_without_an_inverse_nothing_is_reversed(dim: int) -> None:
    assert said(field_of(dim)).reversed() is None
    spline = ControlPoints(values=field_of(dim), knots=(2.0,) * dim, of="displacement", shape=SHAPE[:dim], factors=(1,) * dim)
    prediction = Prediction((spline, *said(field_of(dim), inverse=-field_of(dim)).trail))
    assert (prediction.velocities, prediction.distributions) == ((), ())
    back = prediction.reversed()
    assert back is not None
    assert back.trail == (back.final,)  # a displacement's spline says nothing about the way back


def test_both_directions_are_symmetric(dim: int) -> None:
    """The sum of a loss over a pair and over the swapped pair does not depend on which of them is called the pair."""
    batch, prediction = batch_of(dim), full_prediction(dim)
    back = prediction.reversed()
    assert back is not None
    again = back.reversed()
    assert again is not None
    terms = [term for term in TERMS if not term.mutual]
    first = [pair_loss(terms, *pair)[0] for pair in ((batch, prediction), (batch.swapped(), back))]
    second = [pair_loss(terms, *pair)[0] for pair in ((batch.swapped(), back), (batch.swapped().swapped(), again))]
    torch.testing.assert_close(sum(first), sum(second), atol=0, rtol=1e-14)
    assert not torch.allclose(first[0], first[1], rtol=1e-3)
    for term in (InverseConsistency(), VelocityPrior(), Smoothness(on="velocity")):  # these know no direction
        each = []
        for pair in ((batch, prediction), (batch.swapped(), back)):
            torch.manual_seed(5)
            each.append(term.value(*pair))
        torch.testing.assert_close(*each, atol=0, rtol=1e-14)
