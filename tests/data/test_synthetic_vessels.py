"""Vessel trees: pieces and their picture against a plain loop, truth of images, labels and landmarks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from warpwright.data.synthetic import VesselSettings, vessel_pair
from warpwright.data.synthetic.vessel_tree import VesselTree, grow_tree, render_tree
from warpwright.errors import BadInput
from warpwright.geometry import jacobian_determinant
from warpwright.kernels import plainly
from warpwright.sampling import warp, warp_labels

THICK = VesselSettings(radii=(2.0, 3.0), branching=0.06, noise=0.0, smoothness=16.0)


def known(truth: Tensor | None) -> Tensor:
    assert truth is not None
    return truth


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def size(dim: int) -> tuple[int, ...]:
    return (40, 52, 44)[:dim] if dim == 3 else (72, 96)


def tree_of(dim: int, branching: float = 0.05, seed: int = 3) -> VesselTree:
    return grow_tree(size(dim), 5, (0.8, 2.6), branching, 4.0, rng(seed))


def dice(a: Tensor, b: Tensor) -> float:
    return 2 * float(((a == 1) & (b == 1)).sum()) / float((a == 1).sum() + (b == 1).sum())


def test_vessels_are_connected(dim: int) -> None:
    tree = tree_of(dim)
    np.testing.assert_allclose(np.linalg.norm(tree.ends - tree.starts, axis=1), 1.5, rtol=1e-9)
    begins = {tuple(place) for place in tree.starts}
    arrivals = {tuple(place) for place in tree.ends}
    disc = begins - arrivals
    assert len(disc) == 1
    place = np.array(disc.pop())
    shape = np.array(size(dim))
    np.testing.assert_allclose(place[:-1], (shape[:-1] - 1) / 2)
    assert 0.25 <= place[-1] / (shape[-1] - 1) <= 0.35
    assert sum((tree.starts == place).all(1)) == 5
    assert tree.radii.min() >= 0.8
    assert tree.radii.max() <= 2.6 * 1.1
    assert (tree.starts >= -4).all()
    assert (tree.starts <= shape - 1 + 4).all()


def test_landmarks_are_branchings_and_ends(dim: int) -> None:
    tree = tree_of(dim, branching=0.1)
    assert len(tree.landmarks) > 3
    branching = ending = 0
    for landmark in tree.landmarks:
        leaving, arriving = (tree.starts == landmark).all(1).sum(), (tree.ends == landmark).all(1).sum()
        assert arriving == 1
        branching, ending = branching + (leaving == 2), ending + (leaving == 0)
    assert branching > 0
    assert branching + ending == len(tree.landmarks)
    assert len(tree_of(dim, branching=0.0).landmarks) == 0  # none is thin before it leaves


def test_ends_are_left_out_if_asked(dim: int) -> None:
    trees = [grow_tree(size(dim), 5, (2.5, 2.6), 0.1, 4.0, rng(), ends=ends) for ends in (True, False)]  # too thin to branch
    assert len(trees[0].landmarks) > 0
    assert len(trees[1].landmarks) == 0
    np.testing.assert_array_equal(trees[0].starts, trees[1].starts)


def test_roots_are_spread() -> None:
    for seed in range(10):
        tree = tree_of(2, seed=seed)
        first = tree.ends[(tree.starts == tree.starts[0]).all(1)] - tree.starts[0]
        way = first / np.linalg.norm(first, axis=1, keepdims=True)
        assert (way @ way.T - 2 * np.eye(5)).max() < np.cos(0.5)  # five evenly spread ones: 1.26 radians


def test_the_picture_is_a_plain_loop(dim: int) -> None:
    tree = tree_of(dim)
    points = rng(1).uniform(-2, np.array(size(dim)) + 1, (60, dim))
    points = np.concatenate([points, tree.ends[::9] + rng(2).normal(0, 1, tree.ends[::9].shape)])
    image, within = render_tree(tree, points)
    for point, value, inside in zip(points, image, within, strict=True):
        best, hit = 0.0, False
        for start, end, radius in zip(tree.starts, tree.ends, tree.radii, strict=True):
            share = np.clip((point - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
            distance = np.linalg.norm(point - start - share * (end - start))
            best = max(best, min(1.0, 0.5 + 0.2 * radius) * np.exp(-(distance**2) / (2 * (0.6 * radius) ** 2)))
            hit |= bool(distance <= radius)
        assert value == pytest.approx(best, abs=4e-4)  # the profile ends where it is 3e-4 of its height
        assert inside == hit
    assert within.any()
    assert not within.all()


def test_the_truth_carries_the_image_and_the_labels(dim: int) -> None:
    pair = vessel_pair(size(dim), THICK, rng())
    moved = warp(pair.moving[None], known(pair.displacement)[None])[0]
    at = np.indices(size(dim)) + known(pair.displacement).numpy()
    limit = np.array(size(dim)).reshape(-1, *(1,) * dim) - 1
    within = torch.from_numpy(((at >= 0) & (at <= limit)).all(0))[None]
    error = (moved - pair.fixed).abs()[within]
    before = (pair.moving - pair.fixed).abs()[within]
    # linear interpolation of profiles of width 1.2 voxels errs by up to an eighth of the second derivatives, 0.69 for each
    # axis, and where two vessels cross the larger one counts, which makes a kink
    assert float(error.max()) < 0.25
    assert float(error.mean()) < 0.01
    assert float(error.mean()) < 0.1 * float(before.mean())
    labels = warp_labels(known(pair.moving_labels)[None], known(pair.displacement)[None])[0]
    assert dice(labels * within, known(pair.fixed_labels) * within) > 0.93  # tubes five voxels wide: whole voxels of outline
    assert dice(known(pair.moving_labels), known(pair.fixed_labels)) < 0.7


def test_thin_vessels_are_not_blurred(dim: int) -> None:
    """Both images are drawn, so the fixed one is as sharp as the moving one."""
    pair = vessel_pair(size(dim), VesselSettings(noise=0.0, radii=(0.8, 1.0)), rng(5))
    sharp = [float(torch.stack(torch.gradient(image[0])).abs().sum() / image.sum()) for image in (pair.fixed, pair.moving)]
    assert sharp[0] == pytest.approx(sharp[1], rel=0.05)
    moved = warp(pair.moving[None], known(pair.displacement)[None])[0]
    assert float(torch.stack(torch.gradient(moved[0])).abs().sum() / moved.sum()) < 0.95 * sharp[0]


def test_landmarks_correspond_and_lie_on_vessels(dim: int) -> None:
    pair = vessel_pair(size(dim), replace(THICK, branching=0.1), rng(2))
    assert known(pair.fixed_points).shape == known(pair.moving_points).shape
    assert known(pair.fixed_points).dtype == torch.float32
    assert len(known(pair.fixed_points)) > 2
    shift = np.stack(
        [map_coordinates(u, known(pair.fixed_points).T.numpy(), order=1) for u in known(pair.displacement).numpy()], 1
    )
    np.testing.assert_allclose(known(pair.fixed_points).numpy() + shift, known(pair.moving_points), atol=1e-3)
    for points, labels in (
        (known(pair.fixed_points), known(pair.fixed_labels)),
        (known(pair.moving_points), known(pair.moving_labels)),
    ):
        assert (points >= 0).all()
        assert (points <= torch.tensor(size(dim)) - 1).all()
        at = points.round().long()
        assert (labels[0][tuple(at.T)] == 1).all()
    far = (known(pair.fixed_points) - known(pair.moving_points)).norm(dim=1)
    assert float(far.max()) <= THICK.translation + THICK.amplitude + 1e-3
    assert float(far.mean()) > 1


def test_the_displacement_has_the_stated_size_and_no_folds(dim: int) -> None:
    for seed in range(4):
        settings = VesselSettings(translation=3.0, amplitude=4.0, smoothness=16.0)
        field = known(vessel_pair((32, 36, 33)[:dim], settings, rng(seed)).displacement)
        mean = field.flatten(1).mean(1)
        assert float(mean.norm()) == pytest.approx(3, rel=1e-4)
        rest = field - mean.reshape(-1, *(1,) * dim)
        assert float(rest.square().sum(0).sqrt().max()) == pytest.approx(4, rel=1e-4)
        assert float(jacobian_determinant(field[None]).min()) > 0.3


def test_ranges_and_noise(dim: int) -> None:
    clean, noisy = (vessel_pair(size(dim), VesselSettings(noise=noise), rng()) for noise in (0.0, 0.03))
    noise = []
    for name in ("fixed", "moving"):
        image, other = getattr(clean, name), getattr(noisy, name)
        assert image.shape == (1, *size(dim))
        assert image.dtype == torch.float32
        assert float(image.min()) >= 0
        assert 0.9 < float(image.max()) <= 1
        noise.append(other - image)
        assert float(noise[-1].std()) == pytest.approx(0.03, rel=0.05)
        assert torch.equal(getattr(clean, f"{name}_labels"), getattr(noisy, f"{name}_labels"))
    assert abs(float(torch.corrcoef(torch.stack([n.flatten() for n in noise]))[0, 1])) < 0.06


def test_the_seed_decides_with_and_without_kernels(dim: int) -> None:
    first, other = (vessel_pair((33, 40, 36)[:dim], VesselSettings(), rng(seed)) for seed in (3, 4))
    with plainly():
        second = vessel_pair((33, 40, 36)[:dim], VesselSettings(), rng())
    for name in ("fixed", "moving", "fixed_labels", "moving_labels", "displacement", "fixed_points", "moving_points"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert not torch.equal(known(first.moving_labels), known(other.moving_labels))
    assert not torch.equal(known(first.displacement), known(other.displacement))


@pytest.mark.parametrize(
    "bad",
    [
        {"roots": 0},
        {"radii": (2.0, 1.0)},
        {"radii": (0.0, 1.0)},
        {"branching": 1.1},
        {"translation": -1.0},
        {"amplitude": float("inf")},
        {"smoothness": 0.0},
        {"noise": float("nan")},
    ],
)
def test_bad_settings(bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"vessels.* must be .*, got "):
        VesselSettings(**bad)


def test_a_bad_shape() -> None:
    with pytest.raises(BadInput, match=r"2 or 3 axes .* got shape \(4, 0\)"):
        vessel_pair((4, 0), VesselSettings(), rng())
