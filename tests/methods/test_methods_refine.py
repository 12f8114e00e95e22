"""Refinement of a model for one pair: it lowers the loss, and leaves no trace."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from methods_models import MEAN_SQUARES, batch_of, morph
from methods_pairs import warped_pair
from torch import nn

from oracles.make import smooth_field
from warpwright.energies.losses import GradientInverseConsistency, Images, LandmarkDistance, Overlap
from warpwright.energies.similarity import LNCC, MSE
from warpwright.errors import BadInput, Failed
from warpwright.geometry import Image
from warpwright.layers import DrawVelocity, FullSize, Integrate, LinearField, SplineField
from warpwright.methods import (
    AtScale,
    Direct,
    Model,
    ModelSettings,
    Progress,
    Refinement,
    TwoStep,
    batch_loss,
    refined,
    register_direct,
)
from warpwright.methods.refine import Descent, Offset
from warpwright.networks import FCNSS, AffineNet, TallUNet, TransMorph, VoxelMorph, VoxelMorphDiff


def smooth_pair(dim: int, size: float = 1.5) -> tuple[Image, Image]:
    return warped_pair((20, 16, 10)[:dim], size)[:2]


def test_refinement_lowers_the_loss(dim: int) -> None:
    model, told = morph(dim), list[Progress]()
    plain = register_direct(model, *smooth_pair(dim))
    found = register_direct(model, *smooth_pair(dim), refinement=Refinement(steps=25, rate=1e-2), progress=told.append)
    first, second = found.stages
    assert (first.name, first.steps, second.name) == ("refine weights", 25, "network")
    assert first.energy_end < 0.7 * first.energy_start
    assert second.energy_end == found.energy_after < 0.7 * plain.energy_after
    assert [p.step for p in told] == list(range(25))
    assert {(p.stage, p.steps) for p in told} == {("refine weights", 25)}
    assert told[0].energy == first.energy_start
    assert first.energies[:-1] == tuple(float(f"{p.energy:.6g}") for p in told)
    assert min(first.energies) == pytest.approx(first.energy_end, rel=1e-5)
    assert first.energy_end < min(p.energy for p in told)
    assert found.inverse_residual < 0.2
    assert len(plain.stages) == 1


@pytest.mark.parametrize("architecture", [FCNSS(), TallUNet(scale=1 / 16)], ids=("fcn-ss", "tall u-net"))
def test_nothing_is_left_of_a_registration(dim: int, architecture: Any) -> None:
    """Weights, running statistics, modes, gradients: bit for bit what they were."""
    torch.manual_seed(1)
    model = Model(ModelSettings(dim=dim, network=architecture, layers=(FullSize(),), loss=(Images(similarity=MSE()),))).train()
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))]
    assert norms
    norms[0].eval()  # a part that was frozen
    next(model.parameters()).requires_grad_(False)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    told: list[float] = []
    refinement = Refinement(steps=3, rate=1e-2)
    found = register_direct(model, *smooth_pair(dim), refinement=refinement, progress=lambda p: told.append(p.energy))
    assert len(set(told)) == 3
    assert math.isfinite(found.energy_after)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())


def test_pairs_do_not_remember_one_another(dim: int) -> None:
    model = morph(dim, network=TallUNet(scale=1 / 16), layers=(FullSize(),), loss=(Images(similarity=MSE()),)).train()
    pairs = [smooth_pair(dim), smooth_pair(dim, -0.8)]
    refinement = Refinement(steps=2, rate=1e-2)
    found = {}
    for order in ((0, 1), (1, 0)):
        for k in order:
            points = pairs[k][0].grid.to_world(3 + 5 * torch.rand(20, dim, generator=torch.Generator().manual_seed(1)).double())
            result = register_direct(model, *pairs[k], refinement=refinement)
            found[order, k] = (result.forward(points), result.energy_after, result.stages[0].energy_end)
    for k in (0, 1):
        one, two = found[(0, 1), k], found[(1, 0), k]
        assert torch.equal(one[0], two[0])
        assert one[1:] == two[1:]


def test_terms_that_need_labels_are_left_out(dim: int) -> None:
    known = (Overlap(labels=(1, 2), weight=3.0), LandmarkDistance())
    energies = []
    for loss in (MEAN_SQUARES, (*known, *MEAN_SQUARES)):
        told: list[float] = []
        model = morph(dim, loss=loss)
        register_direct(model, *smooth_pair(dim), refinement=Refinement(steps=2), progress=lambda p, t=told: t.append(p.energy))
        energies.append(told)
        assert model.settings.loss == loss
    assert energies[0] == energies[1]
    with pytest.raises(BadInput, match="trained on labels or landmarks alone, so there is nothing to refine it by"):
        register_direct(morph(dim, loss=known), *smooth_pair(dim), refinement=Refinement(steps=1))
    register_direct(morph(dim, loss=known), *smooth_pair(dim))  # as it is


def test_refinement_that_diverges_fails(dim: int) -> None:
    model = morph(dim)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(Failed, match="refinement: the loss is nan at step 0"):
        register_direct(model, *smooth_pair(dim), refinement=Refinement(steps=1))


def test_a_refined_model_is_a_copy(dim: int) -> None:
    model, batch = morph(dim), batch_of(dim)
    found, stage = refined(model, batch, Refinement(steps=4, rate=1e-2))
    assert found is not model
    assert not found.training
    assert not any(p.requires_grad for p in found.parameters())
    assert float(batch_loss(found, batch).total.mean()) < stage.energy_start
    same = refined(model, batch, Refinement(steps=4, rate=1e-2))[0]
    for one, two in zip(found.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("settings", [{"steps": -1}, {"rate": 0.0}, {"rate": math.nan}])
def test_bad_refinements_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="refinement needs steps >= 0 and a rate above 0, got"):
        Refinement(**settings)


def test_velocities_get_an_offset_of_their_own(dim: int) -> None:
    """One for each step, of its lattice; none where a network is asked for each direction."""
    network = VoxelMorph(form="vm1", scale=0.25)
    model = morph(dim, network=TwoStep(first=AtScale(network=network), second=network), layers=(Integrate(), FullSize()))
    batch = batch_of(dim)
    found, _ = refined(model, batch, Refinement(steps=2))
    shapes = [tuple(module.field.shape) for module in found.modules() if isinstance(module, Offset)]
    shape = tuple(batch.fixed.shape[2:])
    assert shapes == [(2, dim, *(-(-n // 2) for n in shape)), (2, dim, *shape)]
    assert not any(isinstance(module, Offset) for module in model.modules())
    free = morph(dim, network=VoxelMorph(form="vm1", scale=0.25, field="displacement"), layers=(), loss=MEAN_SQUARES[:1])
    assert not any(isinstance(module, Offset) for module in refined(free, batch, Refinement(steps=1))[0].modules())


def test_no_step_of_a_velocity_is_longer_than_told(dim: int) -> None:
    """The first one is as long; every sample by itself."""
    gradient = torch.cat([smooth_field((9, 8, 7)[:dim], 1.0), 5 * smooth_field((9, 8, 7)[:dim], 1.0).flip(1)])
    field = nn.Parameter(torch.zeros_like(gradient))
    descent = Descent([field])
    descent.step([gradient], 0.7)
    lengths = field.detach().square().sum(1).flatten(1).amax(1).sqrt()
    torch.testing.assert_close(lengths, torch.full((2,), 0.7, dtype=torch.float64))
    assert float((field.detach() * gradient).sum()) < 0
    before = field.detach().clone()
    descent.step([gradient], 0.1)
    torch.testing.assert_close(
        (field.detach() - before).square().sum(1).flatten(1).amax(1).sqrt(), torch.full((2,), 0.1).double()
    )
    still = nn.Parameter(torch.zeros_like(gradient))
    Descent([still]).step([torch.zeros_like(gradient)], 1.0)
    assert not still.any()


def test_what_a_loss_draws_does_not_depend_on_what_was_drawn(dim: int) -> None:
    loss = (Images(similarity=MSE()), GradientInverseConsistency(weight=0.5))
    network = VoxelMorph(form="vm1", scale=0.25, field="displacement")
    model, batch, found = morph(dim, network=network, layers=(), loss=loss), batch_of(dim), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(refined(model, batch, Refinement(steps=3, rate=1e-2)))
        after = torch.rand(1)
        torch.manual_seed(seed)
        assert torch.equal(after, torch.rand(1))  # and leaves the generator where it was
    assert found[0][1].energy_end == found[1][1].energy_end
    for one, two in zip(*(model.parameters() for model, _ in found), strict=True):
        assert torch.equal(one, two)


SMALL = VoxelMorph(form="vm1", scale=0.25)
VELOCITIES = {
    "drawn": (VoxelMorphDiff(scale=0.25), (DrawVelocity(), Integrate(steps=3), FullSize())),
    "spline": (TransMorph(size="tiny", head="bspline", window=(3, 3, 3)), (SplineField(), Integrate(steps=3), FullSize())),
    "affine first": (
        TwoStep(
            first=Direct(network=AffineNet(scale=0.05), layers=(LinearField(),)), second=VoxelMorph(form="vm1", scale=0.25)
        ),
        (Integrate(steps=3), FullSize()),
    ),
}


@pytest.mark.parametrize("name", VELOCITIES)
def test_every_integration_is_refined(dim: int, name: str) -> None:
    network, layers = VELOCITIES[name]
    if name == "spline":
        network = replace(network, window=(3,) * dim)
    model, batch = morph(dim, network=network, layers=layers, loss=MEAN_SQUARES), batch_of(dim)
    found, stage = refined(model, batch, Refinement(steps=3))
    (offset,) = [module for module in found.modules() if isinstance(module, Offset)]
    assert offset.field.abs().max() > 0.1
    assert stage.energy_end < stage.energy_start
    assert float(batch_loss(found, batch).total.mean().detach()) == pytest.approx(stage.energy_end)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_a_pair_that_is_aligned_does_not_get_worse(dim: int, steps: int) -> None:
    model, batch = morph(dim, loss=(Images(similarity=LNCC(radius=2)),)), batch_of(dim)
    same = replace(batch, moving=batch.fixed)
    found, stage = refined(model, same, Refinement(steps=steps))
    before, after = (float(batch_loss(m, same).total.mean().detach()) for m in (model.eval(), found))
    assert after <= before
    assert (stage.energy_start, stage.energy_end) == pytest.approx((before, after))
