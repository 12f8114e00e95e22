"""VoxelMorph: published counts, lattices, any size, start, saving memory."""

from __future__ import annotations

import copy
from math import inf, nan
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.networks import (
    Architecture,
    Basis,
    BasisLogits,
    Displacement,
    Estimate,
    Estimator,
    Velocity,
    VelocityDistribution,
    VoxelMorph,
    VoxelMorphDiff,
    save_memory,
)

DIMS = pytest.mark.parametrize("shape", [(13, 18), (9, 13, 11)], ids=("2d", "3d"))
FORMS: dict[str, Architecture] = {
    "vm1": VoxelMorph(form="vm1", scale=0.25),
    "vm1 half": VoxelMorph(form="vm1", half_resolution=True, scale=0.25),
    "vm2": VoxelMorph(form="vm2", scale=0.25),
    "vm2 half": VoxelMorph(form="vm2", half_resolution=True, scale=0.25),
    "dense": VoxelMorph(form="dense", scale=0.25),
    "dense half": VoxelMorph(form="dense", half_resolution=True, scale=0.25),
    "diff": VoxelMorphDiff(scale=0.25),
}
EVERY = pytest.mark.parametrize("name", FORMS)


def images(shape: tuple[int, ...], batch: int = 2, channels: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    fixed, moving = torch.rand(2, batch, channels, *shape, generator=generator, dtype=torch.float64)
    return fixed, moving


def network(name: str, shape: tuple[int, ...]) -> Estimator:
    torch.manual_seed(1)
    return FORMS[name].build(len(shape), 2).double()


def started(name: str, shape: tuple[int, ...]) -> Estimator:
    """With heads that give fields of some voxels."""
    net = network(name, shape)
    for key, parameter in net.named_parameters():
        if key.startswith(("head.", "mean.", "log_variance.")):
            nn.init.normal_(parameter, std=0.3)
    return net


def values(estimate: Estimate) -> list[Tensor]:
    if isinstance(estimate, VelocityDistribution):
        return [estimate.mean, estimate.log_variance]
    assert isinstance(estimate, (Displacement, Velocity))
    return [estimate.values]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"form": "vm1"}, (86_658, 259_675)),
        ({"form": "vm2"}, (100_242, 300_547)),
        ({"form": "dense"}, (109_170, 327_331)),
        ({"form": "vm1", "half_resolution": True}, (85_930, 257_507)),
        ({"form": "dense", "half_resolution": True}, (104_562, 313_507)),
    ],
)
def test_published_counts(settings: dict[str, Any], expected: tuple[int, int]) -> None:
    with torch.device("meta"):
        found = tuple(sum(p.numel() for p in VoxelMorph(**settings).build(dim).parameters()) for dim in (2, 3))
    assert found == expected


def test_published_count_of_the_probabilistic_form() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in VoxelMorphDiff().build(3).parameters()) == 307_878


def test_channels_and_scale_change_the_layers_they_should() -> None:
    """Of the first form: two more images in the first convolution and in the finest one; all widths doubled elsewhere."""
    with torch.device("meta"):
        one, two, wide = (
            {name: tuple(p.shape) for name, p in VoxelMorph(form="vm1", scale=scale).build(2, channels).named_parameters()}
            for scale, channels in ((1, 1), (1, 2), (2, 1))
        )
    changed = {name for name in one if one[name] != two[name]}
    assert changed == {"core.encoder.0.layer.weight", "core.decoder.4.0.layer.weight"}
    assert wide["core.encoder.0.layer.weight"] == (32, 2, 3, 3)
    assert wide["core.decoder.1.0.layer.weight"] == (64, 128, 3, 3)
    assert wide["core.decoder.4.0.layer.weight"] == (16, 18, 3, 3)
    assert wide["head.weight"] == (2, 16, 3, 3)
    assert VoxelMorph(scale=1e-3).build(2).double()(*images((5, 7), channels=1)).shape == (5, 7)  # widths of 1


@DIMS
@EVERY
def test_any_size_finite_with_a_gradient_everywhere(name: str, shape: tuple[int, ...]) -> None:
    net = started(name, shape)
    estimate = net(*images(shape))
    torch.stack([v.square().mean() for v in values(estimate)]).sum().backward()
    assert all(bool(v.isfinite().all()) for v in values(estimate))
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("shape", [(13, 18), (9, 13, 11), (1, 3), (2, 1, 5)])
@EVERY
def test_lattices(name: str, shape: tuple[int, ...]) -> None:
    estimate = network(name, shape)(*images(shape))
    factor = 2 if name == "diff" or name.endswith("half") else 1
    assert isinstance(estimate, VelocityDistribution if name == "diff" else Velocity)
    assert (estimate.shape, estimate.factors, estimate.coarser) == (shape, (factor,) * len(shape), ())
    for each in values(estimate):
        assert each.shape == (2, len(shape), *(-(-n // factor) for n in shape))


@DIMS
@EVERY
def test_batch_equals_one_by_one(name: str, shape: tuple[int, ...]) -> None:
    net, (fixed, moving) = started(name, shape), images(shape)
    both = values(net(fixed, moving))
    for k in range(2):
        for one, two in zip(values(net(fixed[k : k + 1], moving[k : k + 1])), both, strict=True):
            torch.testing.assert_close(one[0], two[k], atol=1e-12, rtol=0)


@DIMS
@EVERY
def test_moving_comes_first(name: str, shape: tuple[int, ...]) -> None:
    """Without weights on the first half of its input, where the images enter, a network is blind to the moving one."""
    net, (fixed, moving) = started(name, shape), images(shape)
    with torch.no_grad():
        net.get_parameter("core.encoder.0.layer.weight")[:, :2] = 0
        if name in ("vm1", "vm2"):  # there the images are a skip as well, the last four channels of six or more
            net.get_parameter("core.decoder.4.0.layer.weight")[:, -4:-2] = 0
    first = values(net(fixed, moving))[0]
    assert torch.equal(first, values(net(fixed, 1 - moving))[0])
    assert not torch.equal(first, values(net(1 - fixed, moving))[0])


@DIMS
@EVERY
def test_fields_begin_as_next_to_nothing(name: str, shape: tuple[int, ...]) -> None:
    first, *others = values(network(name, shape)(*images(shape)))
    assert 0 < first.abs().max() < 1e-3
    for log_variance in others:
        torch.testing.assert_close(log_variance, torch.full_like(log_variance, -10), atol=1e-7, rtol=0)


def test_what_the_field_is(dim: int) -> None:
    shape = (5, 7, 6)[:dim]
    torch.manual_seed(1)
    estimate = VoxelMorph(form="vm1", field="displacement", scale=0.25).build(dim, 2).double()(*images(shape))
    assert isinstance(estimate, Displacement)
    assert estimate.inverse is None
    assert torch.equal(estimate.values, values(network("vm1", shape)(*images(shape)))[0])


@pytest.mark.parametrize("half", [False, True], ids=("full", "half"))
@pytest.mark.parametrize("form", ["vm1", "vm2", "dense"])
@DIMS
def test_distributions_over_a_basis(shape: tuple[int, ...], form: Any, half: bool) -> None:
    """The head has a channel for every displacement; all else is as for a field."""
    dim, basis = len(shape), Basis(reach=2, step=1)
    known = {"form": form, "half_resolution": half, "scale": 0.25}
    torch.manual_seed(1)
    net = VoxelMorph(field=basis, **known).build(dim, 2).double()
    estimate = net(*images(shape))
    assert isinstance(estimate, BasisLogits)
    factor = 2 if half else 1
    assert (estimate.shape, estimate.factors, estimate.coarser, estimate.basis) == (shape, (factor,) * dim, (), basis)
    assert estimate.values.shape == (2, 5**dim, *(-(-n // factor) for n in shape))
    assert estimate.vectors.tolist() == basis.vectors(dim).tolist()
    sizes, others = (
        {name: tuple(p.shape) for name, p in each.named_parameters()} for each in (net, VoxelMorph(**known).build(dim, 2))
    )
    assert {name for name in sizes if sizes[name] != others[name]} == {"head.weight", "head.bias"}
    estimate.values.log_softmax(1)[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


@DIMS
@EVERY
def test_saving_memory_gives_the_same_gradients(name: str, shape: tuple[int, ...]) -> None:
    plain = started(name, shape)
    saving = copy.deepcopy(plain)
    save_memory(saving)
    for net in (plain, saving):
        torch.stack([v.square().sum() for v in values(net(*images(shape)))]).sum().backward()
    for (key, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-14, msg=key)


@pytest.mark.parametrize("architecture", [VoxelMorph, VoxelMorphDiff])
def test_bad_scale(architecture: type[VoxelMorph | VoxelMorphDiff]) -> None:
    for scale in (0.0, -1.0, nan, inf):
        with pytest.raises(BadInput, match=f"scale of {architecture.__name__} must be above 0 and finite, got"):
            architecture(scale=scale)
