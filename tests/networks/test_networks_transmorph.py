"""TransMorph and its Swin encoder: counts of weights, attention against loops, any size, memory saving, start."""

from __future__ import annotations

from itertools import product
from math import exp, prod

import pytest
import torch
from torch import Tensor, nn

from warpwright.config import from_mapping, to_mapping
from warpwright.errors import BadInput
from warpwright.networks import (
    Basis,
    BasisLogits,
    ControlPoints,
    Displacement,
    Estimate,
    Velocity,
    VelocityDistribution,
    save_memory,
)
from warpwright.networks.swin import Merge, SwinBlock, SwinEncoder, WindowAttention, from_windows, to_windows
from warpwright.networks.transmorph import TransMorph, TransMorphNetwork
from warpwright.transforms.bspline import control_shape

SHAPES = {2: (13, 18), 3: (9, 13, 11)}
WINDOWS = {2: (3, 4), 3: (2, 3, 4)}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def images(shape: tuple[int, ...], batch: int = 2, channels: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    fixed, moving = torch.rand((2, batch, channels, *shape), generator=generator, dtype=torch.float64)
    return fixed, moving


def network(dim: int, channels: int = 2, **settings: object) -> TransMorphNetwork:
    torch.manual_seed(1)
    tiny = {"size": "tiny", "drop_path": 0.0, "window": WINDOWS[dim]} | settings
    return TransMorph(**tiny).build(dim, channels).double()  # pyright: ignore[reportArgumentType]


def values(estimate: Estimate) -> list[Tensor]:
    if isinstance(estimate, VelocityDistribution):
        return [estimate.mean, estimate.log_variance]
    assert isinstance(estimate, (Displacement, Velocity, ControlPoints))
    return [estimate.values]


def gradients(net: nn.Module, estimate: Estimate) -> dict[str, Tensor | None]:
    """Of a loss that weights every number differently."""
    net.zero_grad()
    sum((v * torch.linspace(1, 2, v.numel()).reshape(v.shape)).sum() for v in values(estimate)).backward()  # pyright: ignore
    return {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}


# ---------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("dim", "settings", "expected"),
    [
        (3, {"size": "tiny"}, 244_527),
        (3, {"size": "small"}, 11_757_195),
        (3, {}, 46_771_251),
        (3, {"size": "large"}, 108_343_907),
        (2, {"size": "tiny"}, 136_730),
        (2, {"size": "small"}, 7_776_650),
        (2, {}, 31_013_570),
        (2, {"size": "large"}, 80_319_954),
        (3, {"convolution_skips": False}, 46_702_131),
        (3, {"transformer_skips": False}, 41_545_779),
        (2, {"convolution_skips": False}, 30_990_530),
        (2, {"transformer_skips": False}, 29_271_746),
        (3, {"head": "distribution"}, 46_557_414),
        (3, {"head": "bspline"}, 46_806_307),
    ],
)
def test_the_number_of_weights_is_the_published_one(dim: int, settings: dict[str, object], expected: int) -> None:
    with torch.device("meta"):
        net = TransMorph(**settings).build(dim)  # pyright: ignore[reportArgumentType]
    assert count(net) == expected


def test_every_part_has_the_published_number_of_weights() -> None:
    with torch.device("meta"):
        net = TransMorph().build(3)
    stages = [count(s) + (count(m) if m else 0) for s, m in zip(net.encoder.stages, [*net.encoder.merges, None], strict=True)]
    assert count(net.encoder) == 25_581_216
    assert count(net.encoder.embedding) + count(net.encoder.norm) == 12_576
    assert stages == [382_392, 1_491_768, 9_499_872, 14_191_728]
    assert count(net.encoder.norms) == 2_880
    assert [count(up) for up in net.decoder] == [15_925_248, 3_981_312, 995_328, 248_832, 34_560]
    assert [count(unit) for unit in net.images] == [2_592, 864]
    assert count(net.head) == 1_299


def test_what_is_saved_does_not_depend_on_the_size_of_an_image(dim: int) -> None:
    net = network(dim)
    before = {name: value.shape for name, value in net.state_dict().items()}
    net(*images(SHAPES[dim]))
    assert {name: value.shape for name, value in net.state_dict().items()} == before
    assert set(before) == {name for name, _ in net.named_parameters()}


# ---------------------------------------------------------------------------------------------------- swin encoder


def attention(dim: int, *, shifted: bool) -> WindowAttention:
    torch.manual_seed(2)
    module = WindowAttention(6, 2, WINDOWS[dim], shifted=shifted).double()
    nn.init.normal_(module.bias)
    return module


def cell(place: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> tuple[int, ...]:
    """The cell of a voxel where windows begin at `shift`; what lies before is a cell of its own."""
    return tuple((p - s) // w for p, w, s in zip(place, window, shift, strict=True))


def dense_attention(module: WindowAttention, tokens: Tensor) -> Tensor:
    """Attention of (*T, C) by loops, on the lattice filled with zeros to whole windows."""
    size, window, heads = tokens.shape[:-1], module.window, module.heads
    filled = [-(-n // w) * w for n, w in zip(size, window, strict=True)]
    table = module.bias.reshape(*(2 * w - 1 for w in window), heads)
    width = tokens.shape[-1] // heads
    places = list(product(*map(range, filled)))
    lattice = torch.zeros(*filled, tokens.shape[-1], dtype=tokens.dtype)
    lattice[tuple(slice(n) for n in size)] = tokens
    qkv = lattice @ module.qkv.weight.T
    out = torch.empty_like(tokens)
    for i in product(*map(range, size)):
        seen = [j for j in places if cell(i, window, module.shift) == cell(j, window, module.shift)]
        parts = []
        for h in range(heads):
            q, k, v = (slice(part * heads * width + h * width, part * heads * width + (h + 1) * width) for part in range(3))
            offsets = [tuple(a - b + w - 1 for a, b, w in zip(i, j, window, strict=True)) for j in seen]
            likes = [exp(float(qkv[i][q] @ qkv[j][k] / width**0.5 + table[o][h])) for j, o in zip(seen, offsets, strict=True)]
            parts.append(sum(like / sum(likes) * qkv[j][v] for like, j in zip(likes, seen, strict=True)))
        out[i] = module.projection.weight @ torch.cat(parts) + module.projection.bias
    return out


@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize("whole", [True, False], ids=["one window", "several, filled up"])
def test_attention_is_that_of_a_loop(dim: int, shifted: bool, whole: bool) -> None:
    module = attention(dim, shifted=shifted)
    size = WINDOWS[dim] if whole else ((4, 7), (3, 4, 5))[dim - 2]
    tokens = torch.randn(2, *size, 6, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([dense_attention(module, sample) for sample in tokens])
        torch.testing.assert_close(module(tokens), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "shifted"])
def test_a_token_sees_the_tokens_of_its_window_and_no_others(dim: int, shifted: bool) -> None:
    module = attention(dim, shifted=shifted)
    size = tuple(2 * w for w in WINDOWS[dim])
    tokens = torch.randn(1, *size, 6, dtype=torch.float64)
    places = list(product(*map(range, size)))
    with torch.no_grad():
        for moved in (places[0], places[len(places) // 2], places[-1]):
            other = tokens.clone()
            other[(0, *moved)] += 1
            change = (module(other) - module(tokens)).abs().amax(-1)[0]
            near = {p for p in places if cell(p, module.window, module.shift) == cell(moved, module.window, module.shift)}
            assert {p for p in places if change[p] > 1e-7} == near
            assert all(change[p] < 1e-14 for p in places if p not in near)


def test_windows_come_back(dim: int) -> None:
    window, size = WINDOWS[dim], tuple(k * w for k, w in zip((2, 3, 1), WINDOWS[dim], strict=False))
    tokens = torch.randn(2, *size, 5)
    windows = to_windows(tokens, window)
    assert windows.shape == (2, prod(size) // prod(window), prod(window), 5)
    torch.testing.assert_close(windows[:, 0].reshape(2, *window, 5), tokens[(slice(None), *(slice(w) for w in window))])
    assert torch.equal(from_windows(windows, window, size), tokens)


def test_a_merge_joins_neighbours(dim: int) -> None:
    torch.manual_seed(4)
    merge = Merge(dim, 3, 5).double()
    size = (5, 4, 3)[:dim]
    tokens = torch.randn(2, *size, 3, dtype=torch.float64)
    out = merge(tokens)
    assert out.shape == (2, *(-(-n // 2) for n in size), 5)
    corners = list(product((0, 1), repeat=dim))
    for place in product(*map(range, out.shape[1:-1])):
        near = [tuple(2 * p + c for p, c in zip(place, corner, strict=True)) for corner in corners]
        inside = [all(a < n for a, n in zip(p, size, strict=True)) for p in near]
        joined = [tokens[(slice(None), *p)] if ok else torch.zeros(2, 3).double() for p, ok in zip(near, inside, strict=True)]
        expected = merge.reduction(merge.norm(torch.cat(joined, -1)))
        torch.testing.assert_close(out[(slice(None), *place)], expected, rtol=1e-10, atol=1e-12)


def test_the_encoder_gives_a_map_for_each_stage_and_fills_up_with_zeros(dim: int) -> None:
    torch.manual_seed(5)
    encoder = SwinEncoder(dim, 2, 4, depths=(1, 2), heads=(1, 2), window=WINDOWS[dim], drop_path=0.0).double()
    shape, filled = (13, 18, 7)[:dim], (16, 20, 8)[:dim]
    batch = torch.rand(2, 2, *shape, dtype=torch.float64)
    larger = torch.zeros(2, 2, *filled, dtype=torch.float64)
    larger[(..., *(slice(n) for n in shape))] = batch
    maps = encoder(batch)
    assert [m.shape for m in maps] == [(2, 4, *(4, 5, 2)[:dim]), (2, 8, *(2, 3, 1)[:dim])]
    for mine, theirs in zip(maps, encoder(larger), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_branches_are_dropped_more_often_in_deeper_blocks_and_keep_their_mean() -> None:
    net = network(2, drop_path=0.3)
    rates = [m.drop_path for m in net.encoder.modules() if isinstance(m, SwinBlock)]
    torch.testing.assert_close(rates, [0.3 * k / 9 for k in range(10)])
    torch.manual_seed(6)
    block = SwinBlock(4, 2, (2, 2), shifted=False, drop_path=0.25)
    dropped = block._drop(torch.ones(4000, 2, 2, 4))
    kept = dropped[:, 0, 0, 0] > 0
    assert torch.equal(dropped, torch.where(kept, 1 / 0.75, 0.0).reshape(-1, 1, 1, 1).expand_as(dropped))
    assert abs(float(kept.double().mean()) - 0.75) < 0.03  # four standard deviations of 4000 draws
    assert torch.equal(block.eval()._drop(torch.ones(3, 2, 2, 4)), torch.ones(3, 2, 2, 4))


# --------------------------------------------------------------------------------------------------------- network


@pytest.mark.parametrize("head", ["field", "distribution", "bspline"])
def test_odd_sizes_batches_and_channels_give_finite_fields_and_gradients(dim: int, head: str) -> None:
    net, shape = network(dim, head=head, window=None), SHAPES[dim]
    estimate = net(*images(shape))
    factor = 2 if head == "distribution" else 1
    lattice = control_shape(shape, (3,) * dim) if head == "bspline" else tuple(-(-n // factor) for n in shape)
    assert (estimate.shape, estimate.factors) == (shape, (factor,) * dim)
    for tensor in values(estimate):
        assert tensor.shape == (2, dim, *lattice)
        assert tensor.isfinite().all()
    for name, gradient in gradients(net, estimate).items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name


def test_the_head_gives_the_kind_it_was_told(dim: int) -> None:
    fixed, moving = images(SHAPES[dim])
    assert isinstance(network(dim)(fixed, moving), Displacement)
    assert isinstance(network(dim, field="velocity")(fixed, moving), Velocity)
    assert isinstance(network(dim, head="distribution")(fixed, moving), VelocityDistribution)
    points = network(dim, head="bspline")(fixed, moving)
    assert isinstance(points, ControlPoints)
    assert (points.of, points.knots) == ("velocity", (3.0,) * dim)


def test_distributions_over_a_basis(dim: int) -> None:
    basis, shape = Basis(reach=2, step=1), SHAPES[dim]
    net = network(dim, field=basis)
    estimate = net(*images(shape))
    assert isinstance(estimate, BasisLogits)
    assert (estimate.shape, estimate.factors, estimate.basis) == (shape, (1,) * dim, basis)
    assert estimate.values.shape == (2, 5**dim, *shape)
    assert estimate.vectors.tolist() == basis.vectors(dim).tolist()
    assert count(net) - count(network(dim)) == (5**dim - dim) * (16 * 3**dim + 1)
    estimate.values.log_softmax(1)[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(
    ("settings", "unused"),
    [
        ({"convolution_skips": False}, {"images.0.layer.weight", "images.1.layer.weight"}),
        ({"transformer_skips": False}, {f"encoder.norms.{i}.{p}" for i in range(3) for p in ("weight", "bias")}),
    ],
)
def test_without_a_skip_only_what_fed_it_has_no_gradient(dim: int, settings: dict[str, bool], unused: set[str]) -> None:
    net = network(dim, **settings)
    found = gradients(net, net(*images(SHAPES[dim])))
    assert {name for name, gradient in found.items() if gradient is None or not gradient.any()} == unused


def test_saving_memory_changes_nothing(dim: int) -> None:
    net, pair = network(dim, drop_path=0.5), images(SHAPES[dim])
    results = []
    for saving in (False, True):
        save_memory(net, saving)
        torch.manual_seed(7)  # the same branches are dropped
        estimate = net(*pair)
        results.append((values(estimate), gradients(net, estimate)))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{"window": None}, {"convolution_skips": False, "transformer_skips": False}])
def test_any_size_serves_down_to_one_voxel(dim: int, settings: dict[str, object]) -> None:
    net = network(dim, channels=1, **settings)
    for shape in ((1,) * dim, (4, 1, 6)[:dim], (33, 5, 2)[:dim]):
        estimate = net(*images(shape, 1, 1))
        assert estimate.values.shape == (1, dim, *shape)
        assert estimate.values.isfinite().all()


def test_a_fresh_network_moves_next_to_nothing(dim: int) -> None:
    pair = images(SHAPES[dim])
    for head in ("field", "distribution", "bspline"):
        first, *log_variance = values(network(dim, head=head)(*pair))
        assert 0 < first.abs().max() < 1e-3
        for tensor in log_variance:
            torch.testing.assert_close(tensor, torch.full_like(tensor, -10.0), rtol=0, atol=1e-6)


def test_evaluation_draws_nothing_and_training_does(dim: int) -> None:
    net, pair = network(dim, drop_path=0.5), images(SHAPES[dim])
    with torch.no_grad():
        assert not torch.equal(net(*pair).values, net(*pair).values)
        net.eval()
        assert torch.equal(net(*pair).values, net(*pair).values)


@pytest.mark.parametrize("head", ["field", "distribution", "bspline"])
def test_a_batch_is_its_samples(dim: int, head: str) -> None:
    net = network(dim, head=head).eval()
    fixed, moving = images(SHAPES[dim])
    with torch.no_grad():
        together = values(net(fixed, moving))
        alone = [values(net(fixed[i : i + 1], moving[i : i + 1])) for i in range(2)]
    for mine, *theirs in zip(together, *alone, strict=True):
        torch.testing.assert_close(mine, torch.cat(theirs), rtol=1e-9, atol=1e-15)
        assert (mine[0] - mine[1]).abs().max() > 0


def test_moving_comes_before_fixed_in_the_network(dim: int) -> None:
    net = network(dim).eval()
    seen = []
    net.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    fixed, moving = images(SHAPES[dim])
    net(fixed, moving)
    assert torch.equal(seen[0], torch.cat((moving, fixed), 1))


def test_lower_precision_is_served(dim: int) -> None:
    net, pair = network(dim).float(), [x.float() for x in images(SHAPES[dim])]
    with torch.autocast("cpu", torch.bfloat16):
        estimate = net(*pair)
    assert estimate.values.isfinite().all()
    assert all(g is not None and g.isfinite().all() for g in gradients(net, estimate).values())


# -------------------------------------------------------------------------------------------------------- settings


def test_settings_survive_a_file() -> None:
    for settings in (TransMorph(), TransMorph(size="tiny", window=4, head="bspline"), TransMorph(window=(3, 5), drop_path=0)):
        assert from_mapping(TransMorph, to_mapping(settings)) == settings


def test_the_window_is_that_of_the_settings(dim: int) -> None:
    def found(window: int | tuple[int, ...] | None) -> set[tuple[int, ...]]:
        net = TransMorph(size="tiny", window=window).build(dim)
        return {m.window for m in net.modules() if isinstance(m, WindowAttention)}

    assert found(None) == {(8, 8) if dim == 2 else (5, 6, 7)}
    assert found(3) == {(3,) * dim}
    assert found((2, 3, 4)[:dim]) == {(2, 3, 4)[:dim]}


def test_bad_settings_are_refused(dim: int) -> None:
    with pytest.raises(BadInput, match=r"drop_path .* \[0, 1\), got 1.0"):
        TransMorph(drop_path=1.0)
    for window in (0, (), (4, 0)):
        with pytest.raises(BadInput, match=r"window .* at least 1"):
            TransMorph(window=window)
    with pytest.raises(BadInput, match=f"each of {dim} axes"):
        TransMorph(window=(4,)).build(dim)
