"""Reading between voxels: SciPy, brute force, adjoints, derivatives."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch import Tensor

from oracles import slow
from oracles.make import normal, orders, permute_image
from warpwright import kernels
from warpwright.sampling import Outside, inside, sample, sample_labels, sample_nearest, splat

OUTSIDE: tuple[Outside, ...] = ("edge", "zero")
SCIPY = {"edge": "nearest", "zero": "grid-constant"}


def _points(generator: torch.Generator, shape: tuple[int, ...], *target: int, batch: int = 1, beyond: float = 2.5) -> Tensor:
    """(batch, D, *target) points that reach `beyond` voxels outside, none near an integer."""
    size = torch.tensor(shape, dtype=torch.float64).reshape(1, -1, *(1,) * len(target))
    points = torch.rand(batch, len(shape), *target, generator=generator, dtype=torch.float64) * (size + 2 * beyond) - beyond
    return points.floor() + 0.1 + 0.8 * (points - points.floor())


@pytest.mark.parametrize("outside", OUTSIDE)
def test_sample_is_scipy(shape: tuple[int, ...], generator: torch.Generator, outside: Outside) -> None:
    image, points = normal(generator, 2, 3, *shape), _points(generator, shape, 8, 4, batch=2)
    got = sample(image, points, outside=outside)
    for b, c in np.ndindex(2, 3):
        expected = map_coordinates(image[b, c].numpy(), points[b].numpy(), order=1, mode=SCIPY[outside])
        np.testing.assert_allclose(got[b, c], expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=3), st.sampled_from(OUTSIDE), st.integers(0, 2**20))
def test_sample_and_splat_for_any_shape(sizes: list[int], outside: Outside, seed: int) -> None:
    generator, shape = torch.Generator().manual_seed(seed), tuple(sizes)
    image, points = normal(generator, 1, 1, *shape), _points(generator, shape, 7)
    expected = [slow.read_linear(image[0, 0].numpy(), p, outside) for p in points[0].T.numpy()]
    np.testing.assert_allclose(sample(image, points, outside=outside)[0, 0], expected, atol=1e-12)
    values = normal(generator, 1, 1, 7)
    dealt = slow.splat(values[0, 0].numpy(), points[0].T.numpy(), shape, outside)
    np.testing.assert_allclose(splat(values, points, shape, outside=outside)[0, 0], dealt, atol=1e-12)


@pytest.mark.parametrize("outside", OUTSIDE)
def test_splat_is_the_adjoint(shape: tuple[int, ...], generator: torch.Generator, outside: Outside) -> None:
    image, points = normal(generator, 2, 3, *shape), _points(generator, shape, 9, 5, batch=2)
    values = normal(generator, 2, 3, 9, 5)
    left = (sample(image, points, outside=outside) * values).sum()
    right = (image * splat(values, points, shape, outside=outside)).sum()
    torch.testing.assert_close(left, right, atol=1e-10, rtol=0)


@pytest.mark.parametrize("outside", OUTSIDE)
def test_derivatives(dim: int, generator: torch.Generator, outside: Outside) -> None:
    shape = (3, 4, 3)[:dim]
    image = normal(generator, 1, 2, *shape).requires_grad_()
    points = _points(generator, shape, 3, beyond=0.8).requires_grad_()
    values = normal(generator, 1, 2, 3).requires_grad_()

    def read(i: Tensor, p: Tensor) -> Tensor:
        return sample(i, p, outside=outside)

    def deal(v: Tensor, p: Tensor) -> Tensor:
        return splat(v, p, shape, outside=outside)

    assert torch.autograd.gradcheck(read, (image, points))
    assert torch.autograd.gradgradcheck(read, (image, points))
    assert torch.autograd.gradcheck(deal, (values, points))


def test_voxels_are_read_exactly(shape: tuple[int, ...], generator: torch.Generator) -> None:
    image = normal(generator, 1, 2, *shape)
    points = torch.from_numpy(np.indices(shape)).double()[None]
    for outside in OUTSIDE:
        torch.testing.assert_close(sample(image, points, outside=outside), image, atol=1e-13, rtol=0)
    torch.testing.assert_close(sample_nearest(image, points), image, atol=0, rtol=0)


def test_one_image_for_many_points_and_back(shape: tuple[int, ...], generator: torch.Generator) -> None:
    images, points = normal(generator, 3, 2, *shape), _points(generator, shape, 6, batch=3)
    labels = torch.randint(0, 4, (3, 1, *shape), generator=generator)
    for read, source in ((sample, images), (sample_nearest, images), (sample_labels, labels)):
        many, shared = read(source, points[:1]), read(source[:1], points)
        for k in range(3):
            torch.testing.assert_close(many[k], read(source[k : k + 1], points[:1])[0], atol=1e-13, rtol=0)
            torch.testing.assert_close(shared[k], read(source[:1], points[k : k + 1])[0], atol=1e-13, rtol=0)
    values = normal(generator, 3, 2, 6)
    together = splat(values, points[:1], shape)
    for k in range(3):
        torch.testing.assert_close(together[k], splat(values[k : k + 1], points[:1], shape)[0], atol=1e-13, rtol=0)


def test_slabs_for_threads_change_nothing(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    image, points = normal(generator, 1, 2, 5, 7, 6), _points(generator, (5, 7, 6), 20, 30, 10)
    with kernels.plainly():
        whole = sample(image, points)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
        torch.testing.assert_close(sample(image, points), whole, atol=0, rtol=0)


def test_nearest_rounds_halves_up_and_stays_in_the_image() -> None:
    image = torch.arange(5, dtype=torch.int16)[None, None, :, None].expand(1, 1, 5, 1)
    at = torch.tensor([-9.0, -0.5, 0.4, 0.5, 1.5, 2.49, 3.5, 4.4, 99.0], dtype=torch.float64)
    got = sample_nearest(image, torch.stack([at, torch.zeros_like(at)])[None])
    assert got.dtype == torch.int16
    assert got[0, 0].tolist() == [0, 0, 0, 1, 2, 2, 4, 4, 4]


def test_labels_by_the_largest_share(shape: tuple[int, ...], generator: torch.Generator) -> None:
    labels = torch.randint(0, 4, (1, 1, *shape), generator=generator) * 1000
    points = _points(generator, shape, 60)
    got = sample_labels(labels, points)[0, 0]
    assert got.dtype == labels.dtype
    for k, point in enumerate(points[0].T.numpy()):
        shares = {n: slow.read_linear(labels[0, 0].numpy() == n, point, "edge") for n in (0, 1000, 2000, 3000)}
        assert shares[int(got[k])] == pytest.approx(max(shares.values()), abs=1e-12)


def test_ties_go_to_the_smaller_label() -> None:
    labels = torch.tensor([[7, 3]])[None, None]
    at = torch.tensor([[0.0], [0.5]], dtype=torch.float64)[None]
    assert sample_labels(labels, at).item() == 3


def test_a_single_or_negative_label(shape: tuple[int, ...], generator: torch.Generator) -> None:
    points = _points(generator, shape, 9)
    assert (sample_labels(torch.full((1, 1, *shape), -2), points) == -2).all()


def test_inside_reaches_half_a_voxel_beyond(shape: tuple[int, ...], generator: torch.Generator) -> None:
    points = _points(generator, shape, 50)
    got = inside(points, shape)[0, 0]
    expected = [all(-0.5 <= x < n - 0.5 for x, n in zip(p, shape, strict=True)) for p in points[0].T.tolist()]
    assert got.tolist() == expected
    assert any(expected)
    assert not all(expected)
    corner = torch.tensor([-0.5] * len(shape), dtype=torch.float64)[None, :, None]
    assert inside(corner, shape).item()
    assert not inside(corner + torch.tensor(shape)[None, :, None], shape).item()


def test_permuted_axes(shape: tuple[int, ...], generator: torch.Generator) -> None:
    image, points = normal(generator, 1, 2, *shape), _points(generator, shape, 11)
    values, labels = normal(generator, 1, 2, 11), torch.randint(0, 3, (1, 1, *shape), generator=generator)
    for order in orders(len(shape)):
        turned = points[:, list(order)]
        torch.testing.assert_close(sample(permute_image(image, order), turned), sample(image, points), atol=1e-12, rtol=0)
        assert torch.equal(sample_nearest(permute_image(image, order), turned), sample_nearest(image, points))
        assert torch.equal(sample_labels(permute_image(labels, order), turned), sample_labels(labels, points))
        dealt = permute_image(splat(values, points, shape), order)
        there = tuple(shape[k] for k in order)
        torch.testing.assert_close(splat(values, turned, there), dealt, atol=1e-12, rtol=0)


@pytest.mark.parametrize("outside", OUTSIDE)
def test_a_flat_image_in_space(generator: torch.Generator, outside: Outside) -> None:
    image, points = normal(generator, 1, 2, 5, 7), _points(generator, (5, 7), 11)
    deep = torch.cat([points, torch.zeros_like(points[:, :1])], 1)
    flat = sample(image, points, outside=outside)
    torch.testing.assert_close(sample(image[..., None], deep, outside=outside), flat, atol=1e-13, rtol=0)
    deep[:, 2] = 0.25
    share = 1.0 if outside == "edge" else 0.75
    torch.testing.assert_close(sample(image[..., None], deep, outside=outside), share * flat, atol=1e-13, rtol=0)


def test_half_precision_images_are_read_at_full_precision_points() -> None:
    image = torch.arange(300, dtype=torch.float32)[None, None, :, None].expand(1, 1, 300, 1)
    at = torch.tensor([200.25, 250.75])
    points = torch.stack([at, torch.zeros(2)])[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # single precision: 300 voxels through normalised coordinates keep about 1e-4
        torch.testing.assert_close(sample(image, points)[0, 0], at, atol=1e-3, rtol=0)
    assert sample(image.to(torch.bfloat16), points).dtype == torch.bfloat16


def test_labels_of_batches_and_channels_in_blocks(
    shape: tuple[int, ...], generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = torch.randint(-3, 3, (2, 2, *shape), generator=generator, dtype=torch.int16)
    points = _points(generator, shape, 60, batch=2)
    whole = sample_labels(labels, points)
    alone = [[sample_labels(labels[b : b + 1, c : c + 1], points[b : b + 1])[0, 0] for c in range(2)] for b in range(2)]
    assert torch.equal(whole, torch.stack([torch.stack(row) for row in alone]))
    monkeypatch.setattr(sys.modules["warpwright.sampling.voxels"], "BLOCK", 7)
    with kernels.plainly():
        assert torch.equal(sample_labels(labels, points), whole)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64])
def test_labels_of_every_kind(dtype: torch.dtype) -> None:
    labels = torch.tensor([[0, 1, 1]], dtype=dtype)[None, None]
    at = torch.tensor([[0.0, 0.0, 0.0], [0.4, 0.6, 1.5]], dtype=torch.float64)[None]
    got = sample_labels(labels, at)
    assert got.dtype == dtype
    assert got[0, 0].tolist() == [0, 1, 1]


def test_many_labels_cost_no_more_than_few(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many voxels are gathered whether an image holds 2 labels or 3000."""
    gathered: list[int] = []
    gather = Tensor.gather

    def counting(self: Tensor, dim: int, index: Tensor) -> Tensor:
        gathered.append(index.numel())
        return gather(self, dim, index)

    monkeypatch.setattr(Tensor, "gather", counting)
    points = _points(generator, (15, 14, 16), 500)
    totals = []
    for count in (2, 3000):
        gathered.clear()
        with kernels.plainly():
            sample_labels(torch.randint(0, count, (1, 1, 15, 14, 16), generator=generator), points)
        totals.append(sum(gathered))
    assert totals == [8 * 500] * 2
