"""The loss of a batch: directions, autocast, predictions both ways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from methods_models import MEAN_SQUARES, batch_of, lively, morph
from torch import nn

from warpwright.energies.losses import Images, InverseConsistency, LandmarkDistance, pair_loss
from warpwright.energies.similarity import MSE
from warpwright.errors import BadInput
from warpwright.layers import FieldLayer, FullSize
from warpwright.methods import Implicit, Model, ModelSettings, Solving, batch_loss, predict_both
from warpwright.methods.direct import predicted
from warpwright.methods.model import predict
from warpwright.methods.multistep import Single
from warpwright.networks import FCNSS, Displacement, Estimate, VoxelMorph
from warpwright.networks.features import FeatureUNetEncoder
from warpwright.transforms import Preparation


def test_the_loss_of_one_direction(dim: int) -> None:
    model, batch = lively(morph(dim, directions="forward")), batch_of(dim)
    found = batch_loss(model, batch)
    total, parts = pair_loss(MEAN_SQUARES, batch, model(batch.fixed, batch.moving))
    assert torch.equal(found.total, total)
    assert found.total.requires_grad
    assert {name: value.tolist() for name, value in found.parts.items()} == {n: v.tolist() for n, v in parts.items()}
    assert not any(value.requires_grad for value in found.parts.values())


def test_the_loss_of_both_directions(dim: int) -> None:
    """The mean of the loss of the map and of its inverse on the swapped pair."""
    model, batch = lively(morph(dim)), batch_of(dim)
    found = batch_loss(model, batch)
    there = model(batch.fixed, batch.moving)
    back = there.reversed()
    assert back is not None
    losses = [pair_loss(MEAN_SQUARES, *p) for p in ((batch, there), (batch.swapped(), back))]
    torch.testing.assert_close(found.total, (losses[0][0] + losses[1][0]) / 2)
    assert list(found.parts) == ["similarity", "smoothness"]
    for name, value in found.parts.items():
        torch.testing.assert_close(value, (losses[0][1][name] + losses[1][1][name]) / 2)


def test_without_an_inverse_the_network_is_asked_twice(dim: int) -> None:
    """Then each answer is the inverse of the other, and the loss knows no direction."""
    loss = (Images(similarity=MSE()), InverseConsistency(weight=0.1))
    network = VoxelMorph(form="vm1", scale=0.25, field="displacement")
    model = lively(morph(dim, network=network, layers=(FullSize(),), loss=loss)).double()
    batch = batch_of(dim, torch.float64)
    there, back = predict_both(model, batch)
    assert torch.equal(there.displacement, model(batch.fixed, batch.moving).displacement)
    assert torch.equal(back.displacement, model(batch.moving, batch.fixed).displacement)
    assert there.inverse is back.displacement
    assert back.inverse is there.displacement
    assert there.displacement.abs().max() > 0.1
    each = []
    for pairs in (batch, batch.swapped()):
        torch.manual_seed(5)  # the points of the penalty are drawn
        each.append(batch_loss(model, pairs))
    one, two = each
    torch.testing.assert_close(one.total, two.total, rtol=1e-12, atol=0)
    with pytest.raises(BadInput, match="needs a model that gives both directions"):
        batch_loss(morph(dim, network=network, layers=(FullSize(),), loss=loss, directions="forward"), batch_of(dim))


def solving(dim: int, scales: tuple[int, ...] = (1,), **settings: Any) -> Model:
    """A small model that solves, in double precision."""
    features = FeatureUNetEncoder(outputs=3, scales=scales, widths=0.25)
    network = Implicit(features=features, steps=(3, 2)[: len(scales)], **settings)
    preparation = Preparation(start="none", spacing=(1.0, 0.8, 1.5)[:dim])
    return morph(dim, network=network, layers=(), loss=(Images(similarity=MSE()),), preparation=preparation).double()


def test_features_are_found_once_for_both_directions(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that solves: as two models asked one after the other, values and gradients, at half the looks."""
    model, batch = solving(dim, (2, 1)), batch_of(dim, torch.float64)
    expected = [predict(model, pairs).displacement for pairs in (batch, batch.swapped())]
    looks: list[int] = []
    monkeypatch.setattr(Solving, "pyramid", lambda self, image, own=Solving.pyramid: looks.append(1) or own(self, image))
    found = [prediction.displacement for prediction in predict_both(model, batch)]
    assert len(looks) == 2
    weights = list(model.parameters())
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
    slopes = [
        torch.autograd.grad(sum(u.square().sum() for u in fields), weights, materialize_grads=True)
        for fields in (found, expected)
    ]
    assert any(bool(slope.any()) for slope in slopes[0])
    for mine, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_each_direction_is_told_its_own(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, heard = solving(dim), batch_of(dim, torch.float64), []
    own = Solving._between
    monkeypatch.setattr(Solving, "told", lambda _, pairs: "pair" if pairs.fixed is batch.fixed else "swapped pair")

    def between(self: Solving, fixed: Any, moving: Any, shape: tuple[int, ...], prompts: Any) -> Any:
        heard.append(prompts)
        return own(self, fixed, moving, shape, None)

    monkeypatch.setattr(Solving, "_between", between)
    predict_both(model, batch)
    assert heard == ["pair", "swapped pair"]


@pytest.mark.parametrize(("coarser", "taught"), [((), [False, False, True]), ((0.5, 0.5), [True, True, True])], ids=str)
def test_landmarks_teach_every_branch_whose_field_they_judge(coarser: tuple[float, ...], taught: list[bool]) -> None:
    torch.manual_seed(1)
    network = Implicit(features=FeatureUNetEncoder(outputs=4, scales=(4, 2, 1), widths=0.25), steps=(3, 3, 3))
    loss, preparation = (LandmarkDistance(coarser=coarser),), Preparation(spacing=(1.0, 1.0))
    model = Model(ModelSettings(dim=2, network=network, layers=(), preparation=preparation, loss=loss, directions="forward"))
    batch = replace(
        batch_of(2),
        spacing=(1.0, 1.0),
        fixed_points=(torch.tensor([[5.0, 5.0], [9.0, 7.0]]), torch.tensor([[6.0, 3.0]])),
        moving_points=(torch.tensor([[6.0, 5.0], [8.0, 8.0]]), torch.tensor([[4.0, 4.0]])),
    )
    batch_loss(model, batch).total.sum().backward()
    branches = cast(Any, model.network).features.branches
    assert [any(p.grad is not None and bool(p.grad.any()) for p in branch.parameters()) for branch in branches] == taught


def test_one_side_alone_is_learned_from_in_both_directions(dim: int) -> None:
    model = solving(dim, one_sided=True).train()
    seen: set[int] = set()
    for seed in range(8):
        torch.manual_seed(seed)
        batch = batch_of(dim, torch.float64)
        images = [batch.fixed.requires_grad_(), batch.moving.requires_grad_()]
        there, back = predict_both(model, batch)
        for prediction in (there, back):
            slopes = torch.autograd.grad(
                prediction.displacement.square().sum(), images, retain_graph=True, materialize_grads=True
            )
            assert sum(bool(slope.any()) for slope in slopes) == 1
            seen.add([bool(slope.any()) for slope in slopes].index(True))
    assert seen == {0, 1}


class Turn(FieldLayer):
    """A layer made of a product of matrices, which autocast computes in fewer digits."""

    accepts = (Displacement,)

    def apply_to(self, estimate: Estimate) -> Estimate:
        assert isinstance(estimate, Displacement)
        assert estimate.inverse is not None
        matrix = torch.eye(len(estimate.shape)).flip(0)
        values, inverse = (torch.einsum("ij,bj...->bi...", matrix, u) for u in (estimate.values, estimate.inverse))
        return replace(estimate, values=values, inverse=inverse)


@pytest.mark.parametrize("directions", ["forward", "both"])
def test_autocast_ends_at_the_network(dim: int, directions: Any) -> None:
    """It computes in bfloat16; its field, the layers behind it and the loss do not."""
    model, batch = lively(morph(dim, directions=directions)), batch_of(dim)
    single = cast(Single, model.network)
    single.pipeline.layers.append(Turn())
    kinds: list[tuple[torch.dtype, ...]] = []
    single.network.register_forward_hook(lambda *call: kinds.append((call[-1].values.dtype,)))
    single.pipeline.register_forward_hook(lambda *call: kinds.append(tuple(e.values.dtype for e in call[-1])))
    found = batch_loss(model, batch, torch.bfloat16)
    assert kinds == [(torch.bfloat16,), (torch.float32,) * 4]
    assert found.total.dtype == torch.float32
    found.total.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())
    full = batch_loss(model, batch)
    assert kinds[2] == (torch.float32,)
    torch.testing.assert_close(found.total, full.total, rtol=0.05, atol=0)  # eight bits
    assert not torch.equal(found.total, full.total)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # also where a caller has it on
        assert predicted(model, batch).displacement.dtype == torch.float32


def test_a_prediction_is_made_in_evaluation_mode(dim: int) -> None:
    model, batch = morph(dim, network=FCNSS(), layers=(FullSize(),), loss=(Images(similarity=MSE()),)).train(), batch_of(dim)
    next(m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))).eval()  # a part that was frozen
    modes = [m.training for m in model.modules()]
    first = predicted(model, batch)
    assert not first.displacement.requires_grad
    assert [m.training for m in model.modules()] == modes
    one = predicted(model, replace(batch, fixed=batch.fixed[:1], moving=batch.moving[:1]))
    torch.testing.assert_close(one.displacement[0], first.displacement[0], atol=1e-5, rtol=0)  # no statistics of the batch
    assert [level.factors for level in first.final.coarser] == [(1,) * dim] * 2
