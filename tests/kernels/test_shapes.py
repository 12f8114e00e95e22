"""Shapes that kernels do not serve take the twin, and are served or refused as there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from oracles.make import normal
from warpwright.energies.similarity import LNCC, MIND, MSE, MutualInformation, Similarity
from warpwright.kernels import plainly
from warpwright.sampling import warp, warp_covered

SIMILARITIES: list[Similarity] = [LNCC(radius=1), MSE(), MIND(), MutualInformation(bins=8)]


@pytest.mark.parametrize("similarity", SIMILARITIES, ids=lambda s: type(s).__name__)
def test_images_of_two_sizes_are_refused(similarity: Similarity, generator: torch.Generator) -> None:
    large, small = normal(generator, 1, 1, 8, 16, 16), normal(generator, 1, 1, 8, 8, 8)
    for moved, fixed in ((large, small), (small, large)):
        with pytest.raises(RuntimeError):
            similarity.similarity(moved, fixed)
        with pytest.raises(RuntimeError):
            similarity.match(fixed, moved, torch.zeros(1, 3, *moved.shape[2:], dtype=torch.float64))


@pytest.mark.parametrize("similarity", SIMILARITIES, ids=lambda s: type(s).__name__)
def test_broadcasting_is_that_of_the_twin(similarity: Similarity, generator: torch.Generator) -> None:
    one, two = normal(generator, 1, 2, 6, 7, 5), normal(generator, 2, 2, 6, 7, 5)
    weight = torch.full((1, 1, 1, 1, 1), 0.5, dtype=torch.float64)
    cases: list[tuple[Tensor, Tensor, Tensor | None]] = [(two, one, None), (one, two, None)]
    if not isinstance(similarity, LNCC):  # whose windows count the weights, voxel by voxel
        cases.append((one, one.flip(2), weight))
    for moved, fixed, given in cases:
        with plainly():
            expected = similarity.similarity(moved, fixed, given)
        torch.testing.assert_close(similarity.similarity(moved, fixed, given), expected, rtol=1e-9, atol=1e-12)


def test_an_affine_for_each_sample(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    affine = torch.eye(dim + 1, dtype=torch.float64).repeat(2, 1, 1)
    affine[:, :dim] += 0.1 * normal(generator, 2, dim, dim + 1)
    moving, field = normal(generator, 1, 1, *shape), normal(generator, 1, dim, *shape)
    with plainly():
        expected = warp(moving, field, affine)
    torch.testing.assert_close(warp(moving, field, affine), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(warp_covered(moving, field, affine)[0], expected, rtol=1e-12, atol=1e-12)


def test_batches_that_do_not_go_together_are_refused(generator: torch.Generator) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        warp(normal(generator, 2, 1, 5, 6), normal(generator, 3, 2, 5, 6))


def test_an_affine_for_each_sample_as_operators(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    affine = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    moving, field = normal(generator, 1, 1, 5, 6), 0.3 * normal(generator, 1, 2, 5, 6)
    torch.library.opcheck(torch.ops.warpwright.warp, (moving, field, affine, "edge"))
    torch.library.opcheck(torch.ops.warpwright.warp_covered, (moving, field, affine, None))
    torch.library.opcheck(torch.ops.warpwright.warp_pick, (moving, field, affine, 0.0, False))


def test_mean_squared_difference_refuses_batches_that_do_not_go_together(generator: torch.Generator) -> None:
    images = [normal(generator, n, 1, 5, 6) for n in (2, 3)]
    with pytest.raises((RuntimeError, ValueError)):
        MSE().match(images[0], images[1], torch.zeros(1, 2, 5, 6, dtype=torch.float64))
