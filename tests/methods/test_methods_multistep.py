"""Networks in steps: composition, scales, layers, trails, inverses, gradients, settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from methods_models import MEAN_SQUARES, batch_of, lively, morph
from torch import Tensor, nn

from oracles.make import smooth_field
from warpwright.config import from_mapping, to_mapping
from warpwright.energies.losses import Images, Smoothness
from warpwright.energies.similarity import MSE
from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.layers import FullSize, Integrate, LinearField
from warpwright.methods import Model, ModelSettings, batch_loss
from warpwright.methods.multistep import Antisymmetric, AtScale, Direct, Step, SymmetricTwoStep, TwoStep, build_step
from warpwright.networks import (
    AffineNet,
    Architecture,
    Displacement,
    Estimate,
    Estimator,
    FieldKind,
    TallUNet,
    VoxelMorph,
    field,
    save_memory,
)
from warpwright.sampling import downsample, resize_displacement, warp
from warpwright.transforms import DisplacementField, compose, exp

Answer = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Known(Architecture):
    """A network that answers what the test wants, as a displacement or a velocity."""

    answer: Answer
    kind: FieldKind = "displacement"

    def build(self, dim: int, channels: int = 1) -> Estimator:
        return KnownNetwork(self)


class KnownNetwork(Estimator):
    def __init__(self, settings: Known) -> None:
        super().__init__()
        self.settings = settings
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, fixed: Tensor, moving: Tensor) -> Estimate:
        self.seen.append((fixed, moving))
        shape = tuple(fixed.shape[2:])
        values = self.settings.answer(fixed, moving)
        return field(values.expand(len(fixed), -1, *shape), self.settings.kind, shape, (1,) * len(shape))


def images(dim: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    shape = (13, 16, 11)[:dim]
    fixed, moving = (torch.rand(batch, 1, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return fixed, moving


def network_of(step: Step, path: str) -> KnownNetwork:
    found = step.get_submodule(path)
    assert isinstance(found, KnownNetwork)
    return found


def last(trail: tuple[Estimate, ...]) -> Displacement:
    assert isinstance(trail[-1], Displacement)
    return trail[-1]


def tiny(**settings: Any) -> VoxelMorph:
    return VoxelMorph(**({"form": "vm1", "scale": 0.25} | settings))


def test_the_second_step_sees_what_the_first_has_moved(dim: int) -> None:
    fixed, moving = images(dim)
    shape = tuple(fixed.shape[2:])
    outer, inner = smooth_field(shape, 1.5).expand(2, -1, *shape), -0.7 * smooth_field(shape, 1.5).flip(1).expand(2, -1, *shape)
    first, second = Known(answer=lambda *_: outer), Known(answer=lambda *_: inner)
    step = build_step(TwoStep(first=first, second=second), (), dim)
    step(fixed, moving)
    ((seen_fixed, seen_moving),) = network_of(step, "second.network").seen
    assert seen_fixed is fixed
    assert torch.equal(seen_moving, warp(moving, outer))
    found = last(step(fixed, moving))
    assert torch.equal(found.values, compose(outer, inner))
    assert found.inverse is None
    assert (found.shape, found.factors) == (shape, (1,) * dim)
    # as maps of the world: the second acts first
    grid = Grid(shape, np.eye(dim + 1))
    at = torch.rand(30, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 5 + 3
    both = DisplacementField(outer[0], grid)(DisplacementField(inner[0], grid)(at.round()))
    torch.testing.assert_close(DisplacementField(found.values[0], grid)(at.round()), both)


def test_a_step_at_a_coarser_scale(dim: int) -> None:
    """It sees images on the coarser grid of the same box, and its displacement is the same map of the world."""
    fixed, moving = images(dim)
    shape = tuple(fixed.shape[2:])
    coarse = tuple(-(-n // 3) for n in shape)
    field = smooth_field(coarse, 0.8).expand(2, -1, *coarse)
    step = build_step(AtScale(network=Known(answer=lambda *_: field), factor=3), (), dim)
    trail = step(fixed, moving)
    for given, image in zip(network_of(step, "step.network").seen[0], (fixed, moving), strict=True):
        assert torch.equal(given, downsample(image, (3,) * dim))
    first, found = trail[0], last(trail)
    assert (first.shape, first.factors) == (shape, (3,) * dim)
    assert (found.shape, found.factors) == (shape, (1,) * dim)
    grid = Grid(shape, np.eye(dim + 1))
    small = grid.downsample((3,) * dim)
    middle = small.to_world(torch.tensor([[n // 2 for n in coarse]], dtype=torch.float64))
    there = DisplacementField(field[0], small)(middle)
    torch.testing.assert_close(DisplacementField(found.values[0], grid)(middle), there, atol=0.1, rtol=0)
    assert torch.equal(found.values, resize_displacement(field, (3,) * dim, shape, (1,) * dim))


def test_a_constant_displacement_is_the_same_at_every_scale(dim: int) -> None:
    fixed, moving = images(dim)
    step = Known(answer=lambda f, _: f.new_full((len(f), dim, *f.shape[2:]), 0.5))
    found = last(build_step(AtScale(network=AtScale(network=step)), (), dim)(fixed, moving)).values
    torch.testing.assert_close(found, torch.full_like(found, 2.0))


def test_layers_follow_every_estimator_but_one_with_its_own(dim: int) -> None:
    shape = (12, 14, 10)[:dim]
    own = Direct(network=tiny(field="displacement"))
    network = TwoStep(first=AtScale(network=tiny(half_resolution=True)), second=TwoStep(first=own, second=tiny()))
    model = Model(ModelSettings(dim=dim, network=network, layers=(Integrate(steps=3), FullSize())))
    fixed, moving = (torch.rand(1, 1, *shape) for _ in range(2))
    prediction = model(fixed, moving)
    kinds = [type(e).__name__ for e in prediction.trail]
    coarse = ["Velocity", "Displacement", "Displacement", "Displacement"]
    assert kinds == [*coarse, "Displacement", "Velocity", "Displacement", "Displacement", "Displacement", "Displacement"]
    assert [v.factors for v in prediction.velocities] == [(4,) * dim, (1,) * dim]
    for velocity in prediction.velocities:
        assert velocity.shape == shape
        lattice = tuple(-(-n // k) for n, k in zip(shape, velocity.factors, strict=True))
        assert tuple(velocity.values.shape[2:]) == lattice
    assert prediction.inverse is None  # one of the steps has none


def test_the_inverse_of_velocity_steps(dim: int) -> None:
    """There and back is where one was, and the loss of the swapped pair asks nothing more of the networks."""
    network = TwoStep(first=AtScale(network=tiny()), second=tiny())
    model = lively(morph(dim, network=network, layers=(Integrate(), FullSize()))).double()
    for name, weight in model.named_parameters():
        if "head" in name:
            weight.data.mul_(0.1)  # velocities that the grid can hold
    batch = batch_of(dim, torch.float64)
    prediction = model(batch.fixed, batch.moving)
    there, back = prediction.displacement, prediction.inverse
    assert back is not None
    assert there.abs().max() > 0.2
    inner = (..., *(slice(2, -2),) * dim)
    assert compose(there, back)[inner].abs().max() < 0.1 * there.abs().max()
    reversed_ = prediction.reversed()
    assert reversed_ is not None
    assert reversed_.displacement is back
    for velocity, other in zip(prediction.velocities, reversed_.velocities, strict=True):
        assert torch.equal(other.values, -velocity.values)


def test_smoothness_is_of_all_velocities(dim: int) -> None:
    network = TwoStep(first=AtScale(network=tiny()), second=tiny())
    model, batch = lively(morph(dim, network=network, layers=(Integrate(steps=3), FullSize()))), batch_of(dim)
    prediction = model(batch.fixed, batch.moving)
    each = [
        Smoothness().regularity.regularity(v.values, tuple(s * k for s, k in zip(batch.spacing, v.factors, strict=True)))
        for v in prediction.velocities
    ]
    assert min(float(e.detach().min()) for e in each) > 0
    torch.testing.assert_close(Smoothness(on="velocity").value(batch, prediction), each[0] + each[1])


@pytest.mark.parametrize("saving", [False, True])
def test_every_step_learns_from_the_last_displacement(dim: int, saving: bool) -> None:
    network = TwoStep(first=AtScale(network=TwoStep(first=tiny(), second=tiny())), second=tiny())
    model = lively(morph(dim, network=network, layers=(Integrate(steps=2), FullSize()), loss=(Images(similarity=MSE()),)))
    save_memory(model, saving)
    batch_loss(model, batch_of(dim)).total.sum().backward()
    names = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().max() > 0]
    assert names == []


def test_the_gradient_reaches_a_step_through_the_warp_and_the_composition(dim: int) -> None:
    """Finite differences of a number in front of the first field, which also changes what the second step answers."""
    fixed, moving = images(dim, 1)
    shape = tuple(fixed.shape[2:])
    size = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))
    first = Known(answer=lambda *_: size * smooth_field(shape, 1.0))
    second = Known(answer=lambda f, m: (m - f).tanh().expand(-1, dim, *shape))
    step = build_step(TwoStep(first=first, second=second), (), dim)

    def value(given: float) -> Tensor:
        nn.init.constant_(size, given)
        return last(step(fixed, moving)).values.square().sum()

    (found,) = torch.autograd.grad(value(0.8), size)
    delta = 1e-5
    slope = (value(0.8 + delta) - value(0.8 - delta)).detach() / (2 * delta)
    torch.testing.assert_close(found, slope, rtol=1e-4, atol=0)


def test_any_size_and_two_channels(dim: int) -> None:
    network = TwoStep(first=AtScale(network=TwoStep(first=AtScale(network=SMALL), second=SMALL)), second=SMALL)
    model = Model(ModelSettings(dim=dim, channels=2, network=network, layers=(), loss=MEAN_SQUARES[:1]))
    for shape in ((9, 7, 5), (16, 11, 6)):
        fixed, moving = (torch.rand(2, 2, *shape[:dim]) for _ in range(2))
        found = model(fixed, moving).displacement
        assert tuple(found.shape) == (2, dim, *shape[:dim])
        assert not found.any()  # it begins as the identity


SMALL = TallUNet(scale=0.125)


def test_settings_are_written_and_read(dim: int) -> None:
    network = TwoStep(
        first=AtScale(network=TwoStep(first=Direct(network=SMALL), second=SMALL), factor=4),
        second=Direct(network=tiny(), layers=(Integrate(), FullSize())),
    )
    settings = ModelSettings(dim=dim, network=network, layers=())
    assert from_mapping(ModelSettings, to_mapping(settings)) == settings


def test_what_is_refused(dim: int) -> None:
    with pytest.raises(BadInput, match="a factor of at least 2, got 1"):
        AtScale(network=SMALL, factor=1)
    model = Model(ModelSettings(dim=dim, network=TwoStep(first=SMALL, second=SMALL)))
    shape = (8,) * dim
    with pytest.raises(BadInput, match="the layer integrate works on Velocity, it was given Displacement"):
        model(torch.rand(1, 1, *shape), torch.rand(1, 1, *shape))
    half = TwoStep(first=Direct(network=tiny(half_resolution=True, field="displacement")), second=SMALL)
    with pytest.raises(BadInput, match="expected a Displacement of factors 1"):
        Model(ModelSettings(dim=dim, network=half, layers=()))(torch.rand(1, 1, *shape), torch.rand(1, 1, *shape))


def test_corners_are_placed_as_the_paper_has_them(dim: int) -> None:
    """Blocks are averaged, and the outermost voxels of a field lie on those of the image."""
    fixed, moving = images(dim)
    shape = tuple(fixed.shape[2:])
    coarse = tuple(-(-n // 2) for n in shape)
    field = smooth_field(coarse, 0.8).expand(2, -1, *coarse)
    step = build_step(AtScale(network=Known(answer=lambda *_: field), placing="corners"), (), dim)
    found = last(step(fixed, moving)).values
    seen, _ = network_of(step, "step.network").seen[0]
    block = fixed[(..., *(slice(0, 2),) * dim)].mean(tuple(range(2, dim + 2)))
    torch.testing.assert_close(seen[(..., *(0,) * dim)], block)
    ratio = torch.tensor([(n - 1) / (m - 1) for n, m in zip(shape, coarse, strict=True)], dtype=torch.float64)
    scaled = field * ratio.reshape(1, dim, *(1,) * dim)
    mode = "bilinear" if dim == 2 else "trilinear"
    expected = torch.nn.functional.interpolate(scaled, size=shape, mode=mode, align_corners=True)
    torch.testing.assert_close(found, expected)


def test_swapping_the_images_inverts_a_symmetric_two_step(dim: int) -> None:
    step = Antisymmetric(network=tiny())
    network = SymmetricTwoStep(first=AtScale(network=step), second=step)
    model = lively(morph(dim, network=network, layers=(Integrate(), FullSize()))).double()
    for name, weight in model.named_parameters():
        if "head" in name:
            weight.data.mul_(0.05)
    batch = batch_of(dim, torch.float64)
    there, back = model(batch.fixed, batch.moving), model(batch.moving, batch.fixed)
    assert there.inverse is not None
    assert there.displacement.abs().max() > 0.1
    torch.testing.assert_close(back.displacement, there.inverse)
    inner = (..., *(slice(2, -2),) * dim)
    assert compose(there.displacement, back.displacement)[inner].abs().max() < 0.2 * there.displacement.abs().max()


def test_the_second_step_sees_both_images_half_way(dim: int) -> None:
    fixed, moving = images(dim)
    shape = tuple(fixed.shape[2:])
    velocity, other = smooth_field(shape, 0.6), smooth_field(shape, -0.4).flip(1)
    first, second = (Known(answer=lambda *_, v=v: v, kind="velocity") for v in (velocity, other))
    step = build_step(SymmetricTwoStep(first=first, second=second), (Integrate(),), dim)
    found = last(step(fixed, moving))
    ((seen_fixed, seen_moving),) = network_of(step, "second.network").seen
    half, back, middle = exp(velocity), exp(-velocity), exp(other)
    torch.testing.assert_close(seen_fixed, warp(fixed, back))
    torch.testing.assert_close(seen_moving, warp(moving, half))
    torch.testing.assert_close(found.values[:1], compose(half, compose(middle, half)))
    assert found.inverse is not None
    torch.testing.assert_close(found.inverse[:1], compose(back, compose(exp(-other), back)))


def test_symmetric_steps_refuse_what_has_no_inverse(dim: int) -> None:
    shape = (8,) * dim
    pair = torch.rand(1, 1, *shape), torch.rand(1, 1, *shape)
    with pytest.raises(BadInput, match="needs a first step that gives its inverse"):
        build_step(SymmetricTwoStep(first=SMALL, second=SMALL), (), dim)(*pair)
    with pytest.raises(BadInput, match="needs a network of velocities, this one gives Displacement"):
        build_step(Antisymmetric(network=SMALL), (), dim)(*pair)


def test_an_affine_step_before_a_velocity(dim: int) -> None:
    first = Direct(network=AffineNet(scale=0.05), layers=(LinearField(),))
    model = morph(dim, network=TwoStep(first=first, second=tiny()), layers=(Integrate(), FullSize()))
    batch = batch_of(dim)
    assert model(batch.fixed, batch.moving).inverse is not None
    batch_loss(model, batch).total.sum().backward()
    head = model.get_submodule("network.first.network.matrix")
    assert all(w.grad is not None and w.grad.abs().max() > 0 for w in head.parameters())
