"""FCN-SS: counts, three heads on their lattices, any size, running statistics."""

from __future__ import annotations

import copy

import pytest
import torch

from warpwright.networks import Displacement, Estimator, save_memory
from warpwright.networks.fcn_ss import FCNSS

DIMS = pytest.mark.parametrize("shape", [(13, 18), (9, 13, 11)], ids=("2d", "3d"))


def images(shape: tuple[int, ...], batch: int = 2, channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    fixed, moving = torch.rand(2, batch, channels, *shape, generator=generator, dtype=torch.float64)
    return fixed, moving


def network(shape: tuple[int, ...]) -> Estimator:
    torch.manual_seed(1)
    return FCNSS().build(len(shape), 2).double()


def fields(estimate: Displacement) -> list[torch.Tensor]:
    """Coarse to fine."""
    return [e.values for e in (*estimate.coarser, estimate) if isinstance(e, Displacement)]


@pytest.mark.parametrize(("dim", "expected"), [(2, 226_560), (3, 684_192)])
def test_counts(dim: int, expected: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in FCNSS().build(dim).parameters()) == expected


@pytest.mark.parametrize("dim", [2, 3])
def test_weights_begin_small(dim: int) -> None:
    torch.manual_seed(1)
    for name, parameter in FCNSS().build(dim).named_parameters():
        if parameter.ndim > 1:
            assert abs(parameter.std().item() / 0.01 - 1) < 4 / (2 * parameter.numel()) ** 0.5, name  # four standard errors
        else:
            assert name.endswith(("1.weight", "1.bias")), name  # of normalisation; convolutions have no bias


@pytest.mark.parametrize("shape", [(13, 18), (9, 13, 11), (1, 6), (5, 1, 2)])
def test_heads_and_their_lattices(shape: tuple[int, ...]) -> None:
    estimate = network(shape).eval()(*images(shape))
    assert isinstance(estimate, Displacement)
    levels = (*estimate.coarser, estimate)
    assert [level.factors for level in levels] == [(4,) * len(shape), (2,) * len(shape), (1,) * len(shape)]
    for level in levels:
        assert isinstance(level, Displacement)
        assert level.shape == shape
        assert level.values.shape == (2, len(shape), *(-(-n // f) for n, f in zip(shape, level.factors, strict=True)))
        assert level.values.isfinite().all()


@DIMS
@pytest.mark.parametrize("training", [True, False], ids=("training", "evaluating"))
def test_gradient_everywhere(shape: tuple[int, ...], training: bool) -> None:
    net = network(shape).train(training)
    torch.stack([values.square().mean() for values in fields(net(*images(shape)))]).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@DIMS
def test_batch_equals_one_by_one(shape: tuple[int, ...]) -> None:
    net, (fixed, moving) = network(shape).eval(), images(shape)
    both = fields(net(fixed, moving))
    for k in range(2):
        for one, two in zip(fields(net(fixed[k : k + 1], moving[k : k + 1])), both, strict=True):
            torch.testing.assert_close(one[0], two[k], atol=1e-12, rtol=0)


@DIMS
def test_moving_comes_first(shape: tuple[int, ...]) -> None:
    net, (fixed, moving) = network(shape).eval(), images(shape)
    first = next(m for m in net.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Conv3d)))
    with torch.no_grad():
        next(first.parameters())[:, :2] = 0.0
    assert torch.equal(net(fixed, moving).values, net(fixed, 1 - moving).values)
    assert not torch.equal(net(fixed, moving).values, net(1 - fixed, moving).values)


@DIMS
def test_saving_memory_changes_neither_gradients_nor_statistics(shape: tuple[int, ...]) -> None:
    plain = network(shape)
    saving = copy.deepcopy(plain)
    save_memory(saving)
    for net in (plain, saving):
        for _ in range(2):
            torch.stack([values.square().mean() for values in fields(net(*images(shape)))]).sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-14)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), name
        if name.endswith("num_batches_tracked"):
            assert a == 2, name
