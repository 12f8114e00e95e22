"""AffineNet: counts of the reference, the identity at the beginning, what its matrix means at any size."""

from __future__ import annotations

import pytest
import torch

from warpwright.errors import BadInput
from warpwright.networks import AffineNet, save_memory


@pytest.mark.parametrize(("dim", "count"), [(2, 1_728_330), (3, 4_873_368)])
def test_counts_of_the_reference(dim: int, count: int) -> None:
    with torch.device("meta"):
        network = AffineNet().build(dim)
    assert sum(p.numel() for p in network.parameters()) == count


def test_it_begins_as_the_identity(dim: int) -> None:
    network = AffineNet(scale=0.1).build(dim)
    for shape in ((9, 7, 5), (16, 11, 1)):
        found = network(*(torch.rand(2, 1, *shape[:dim]) for _ in range(2)))
        assert torch.equal(found.values, torch.eye(dim, dim + 1).expand(2, dim, dim + 1))
        assert (found.shape, found.factors) == (shape[:dim], (1,) * dim)


def test_a_change_is_of_a_cube(dim: int) -> None:
    """A shear along an axis is larger in voxels where that has more of them; a shift is a share of the axis."""
    network = AffineNet(scale=0.1).build(dim)
    shape = (24, 12, 6)[:dim]
    change = torch.arange(dim * (dim + 1), dtype=torch.float32) / 10
    with torch.no_grad():
        network.matrix.bias.copy_(change)
    found = network(*(torch.rand(1, 1, *shape) for _ in range(2))).values[0]
    for i in range(dim):
        for j in range(dim):
            assert found[i, j].item() == pytest.approx((i == j) + change[i * (dim + 1) + j].item() * shape[i] / shape[j])
        assert found[i, dim].item() == pytest.approx(change[i * (dim + 1) + dim].item() * shape[i])


def test_a_step_of_training(dim: int) -> None:
    network = AffineNet(scale=0.1).build(dim, channels=2)
    save_memory(network)
    with torch.no_grad():
        network.matrix.weight.normal_(std=0.1)
    network(*(torch.rand(2, 2, *(9, 11, 7)[:dim]) for _ in range(2))).values.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf")])
def test_a_scale_must_be_positive(scale: float) -> None:
    with pytest.raises(BadInput, match="must be above 0 and finite"):
        AffineNet(scale=scale)
