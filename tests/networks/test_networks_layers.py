"""Parts that networks share: blocks that save memory, pooling, resizing."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from warpwright.networks import save_memory
from warpwright.networks.layers import AveragePool, Block, Chain, crop, double, resize, small_normal_


def chain() -> Chain:
    torch.manual_seed(1)
    return Chain(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ELU())


def test_statistics_are_counted_again_after_a_saved_pass() -> None:
    """The guard is on in the backward pass only."""
    block = chain()
    block.saving = True
    counted = block.get_buffer("layers.1.num_batches_tracked")
    for k in range(3):
        block(torch.ones(1, 1, 5, 7, requires_grad=True)).sum().backward()
        assert counted == k + 1
    with torch.no_grad():
        block(torch.ones(1, 1, 5, 7))
    assert counted == 4


class Half(Block):
    """A block whose second half fails in the second computation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.calls = 0

    def compute(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("no more memory")
        return self.norm(inputs[0]).sin()


def test_statistics_count_on_after_a_failure_in_the_backward_pass() -> None:
    block = Half()
    save_memory(block)
    features = torch.rand(2, 1, 3, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="no more memory"):
        block(features).sum().backward()
    assert block.norm.momentum == 0.1
    assert block.norm.get_buffer("num_batches_tracked") == 1


def test_memory_is_saved_only_where_told() -> None:
    """What a block keeps for the backward pass: nothing but its input."""

    def kept(block: Block) -> int:
        shapes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.numel()) or t, lambda t: t):
            block(torch.rand(1, 1, 9, 8, requires_grad=True))
        return sum(shapes)

    block = chain()
    plain = kept(block)
    save_memory(block)
    assert kept(block) < plain / 2
    save_memory(block, False)
    assert kept(block) == plain


def test_compiled_blocks_count_once() -> None:
    plain = chain()
    saving = copy.deepcopy(plain)
    save_memory(saving)
    features = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(4))
    for net in (plain, torch.compile(saving, backend="aot_eager")):
        for _ in range(2):
            net(features).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7, msg=name)  # float32
    for a, b in zip(plain.buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("shape", [(1, 6), (2, 5), (13, 18), (5, 1, 2), (1, 1, 1), (2, 3, 4), (9, 13, 11)])
def test_pooling_averages_what_lies_in_the_image(window: Literal[2, 3], shape: tuple[int, ...]) -> None:
    """Against a loop along one axis after the other: the mean of a box of voxels is a mean of means."""
    features = torch.rand(1, 2, *shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = features
    for axis, n in enumerate(shape, start=2):
        windows = [range(max(0, k - window + 2), min(n, k + 2)) for k in range(0, n, 2)]
        means = [expected.index_select(axis, torch.tensor(list(w))).mean(axis, keepdim=True) for w in windows]
        expected = torch.cat(means, axis)
    torch.testing.assert_close(AveragePool(window)(features), expected, atol=1e-14, rtol=0)


def test_doubling_undoes_halving(dim: int, generator: torch.Generator) -> None:
    """Each new voxel is the nearest old one, or lies a quarter of an old voxel beside one."""
    shape = (5, 8, 7)[:dim]
    features = torch.rand(2, 3, *(-(-n // 2) for n in shape), generator=generator, dtype=torch.float64)
    near = features
    for axis, n in enumerate(shape):
        near = near.index_select(axis + 2, torch.arange(n) // 2)
    assert torch.equal(double(features, shape), near)
    places = torch.meshgrid(*((torch.arange(n).double() + 0.5) / 2 - 0.5 for n in shape), indexing="ij")
    expected = map_coordinates(features[1, 2].numpy(), torch.stack(places).numpy(), order=1, mode="nearest")
    torch.testing.assert_close(double(features, shape, "linear")[1, 2], torch.tensor(expected), atol=1e-12, rtol=0)


def test_resizing_places_voxels_by_their_centres(dim: int, generator: torch.Generator) -> None:
    features = torch.rand(1, 2, *(5, 4, 6)[:dim], generator=generator, dtype=torch.float64)
    shape = (7, 4, 3)[:dim]
    lines = [(torch.arange(n).double() + 0.5) * m / n - 0.5 for n, m in zip(shape, features.shape[2:], strict=True)]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij")).numpy()
    expected = map_coordinates(features[0, 1].numpy(), places, order=1, mode="nearest")
    torch.testing.assert_close(resize(features, shape)[0, 1], torch.tensor(expected), atol=1e-12, rtol=0)
    assert resize(features, features.shape[2:]) is features


def test_resizing_between_corners_keeps_the_outermost_voxels(dim: int, generator: torch.Generator) -> None:
    features = torch.rand(1, 2, *(5, 4, 1)[:dim], generator=generator, dtype=torch.float64)
    shape = (7, 3, 2)[:dim]
    lines = [torch.linspace(0, m - 1, n, dtype=torch.float64) for n, m in zip(shape, features.shape[2:], strict=True)]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij")).numpy()
    expected = map_coordinates(features[0, 1].numpy(), places, order=1, mode="nearest")
    torch.testing.assert_close(resize(features, shape, "corners")[0, 1], torch.tensor(expected), atol=1e-12, rtol=0)


def test_cropping_keeps_the_first_voxels() -> None:
    features = torch.rand(2, 3, 5, 7, 6)
    assert torch.equal(crop(features, (4, 7, 2)), features[:, :, :4, :, :2])


def test_small_weights(dim: int) -> None:
    torch.manual_seed(0)
    kinds = {2: nn.Conv2d, 3: nn.Conv3d}
    layer, bare = (kinds[dim](20, 10, 3, bias=bias) for bias in (True, False))
    assert small_normal_(layer) is layer
    assert abs(float(layer.weight.detach().std()) / 1e-5 - 1) < 0.08  # four standard errors of 1800 weights
    assert not layer.bias.detach().any()
    small_normal_(bare, 0.01)
    assert abs(float(bare.weight.detach().std()) / 0.01 - 1) < 0.08
