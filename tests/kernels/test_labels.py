"""Nearest and label reading against their twins. Brute force is asked in tests/sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles.make import normal
from oracles.threads import same_bytes
from warpwright.kernels import plainly
from warpwright.sampling import sample_labels, sample_nearest, warp_labels, warp_nearest

CASES = {"2d": ((5, 7), (6, 4)), "3d": ((5, 7, 6), (6, 3, 8)), "flat": ((5, 1, 6), (6, 5, 1)), "line": ((1, 9), (7, 1))}
WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _numbers(generator: torch.Generator, dtype: torch.dtype, *shape: int) -> Tensor:
    if dtype.is_floating_point:
        return normal(generator, *shape).to(dtype)
    low, high = (0, 4) if dtype in (torch.bool, torch.uint8) else (-3, 4)
    return torch.randint(low, high, shape, generator=generator).to(dtype)


def _affine(generator: torch.Generator, dim: int, batch: int) -> Tensor:
    out = torch.eye(dim + 1, dtype=torch.float64).repeat(batch, 1, 1)
    out[:, :dim] += 0.1 * normal(generator, batch, dim, dim + 1)
    return out


@pytest.mark.parametrize("dtype", [*WHOLE, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_as_the_twins(case: tuple[tuple[int, ...], tuple[int, ...]], dtype: torch.dtype, generator: torch.Generator) -> None:
    shape, there = case
    dim = len(shape)
    for batches in ((2, 2), (1, 2), (2, 1)):
        moving, field = _numbers(generator, dtype, batches[0], 2, *there), 2 * normal(generator, batches[1], dim, *shape)
        points = 3 * normal(generator, batches[1], dim, 700) + 2
        background = 1.0 if dtype in WHOLE else -0.5

        def compute(
            moving: Tensor = moving, field: Tensor = field, points: Tensor = points, fill: float = background
        ) -> list[Tensor]:
            affine = _affine(torch.Generator().manual_seed(1), dim, 1)
            out = [sample_nearest(moving, points), warp_nearest(moving, field, affine, background=fill)]
            if moving.dtype in WHOLE:
                out += [sample_labels(moving, points), warp_labels(moving, field, affine), warp_labels(moving, field)]
            return out

        with plainly():
            expected = compute()
        for found, wanted in zip(compute(), expected, strict=True):
            assert found.dtype == wanted.dtype == dtype
            assert torch.equal(found, wanted)


def test_an_affine_for_each_of_a_batch(dim: int, generator: torch.Generator) -> None:
    shape = (5, 7, 6)[:dim]
    moving, field = _numbers(generator, torch.int16, 1, 1, *shape), normal(generator, 1, dim, *shape)
    affines = _affine(generator, dim, 3)
    together = warp_labels(moving, field, affines)
    alone = [warp_labels(moving, field, affine.numpy()) for affine in affines]
    assert torch.equal(together, torch.cat(alone))


def test_ties_take_the_smaller_and_halves_round_up() -> None:
    labels = torch.tensor([[9, 4, 4, -7]])[None, None]
    at = torch.tensor([[0.0] * 4, [0.5, 1.5, 2.5, 9.0]], dtype=torch.float64)[None]
    assert sample_labels(labels, at)[0, 0].tolist() == [4, 4, -7, -7]
    assert sample_nearest(labels, at)[0, 0].tolist() == [4, 4, -7, -7]


def test_the_middle_of_eight_labels() -> None:
    """Every way that eight corners can share three labels."""
    labels = torch.from_numpy(np.stack(np.unravel_index(np.arange(3**8), (3,) * 8), -1)).reshape(-1, 1, 2, 2, 2)
    middle = torch.full((1, 3, 1), 0.5, dtype=torch.float64)
    counts = torch.stack([(labels == label).flatten(1).sum(1) for label in range(3)])
    assert torch.equal(sample_labels(labels, middle).flatten(), counts.argmax(0))


def test_gradients(shape: tuple[int, ...], generator: torch.Generator) -> None:
    """Values carry a gradient, places never."""
    moving, field = normal(generator, 1, 1, *shape), normal(generator, 1, len(shape), *shape)
    assert not warp_nearest(moving, field.requires_grad_()).requires_grad
    moved = warp_nearest(moving.requires_grad_(), field)
    (found,) = torch.autograd.grad(moved.sum(), moving)
    assert found.sum() == (moved != 0).sum()


def test_operators(generator: torch.Generator) -> None:
    pytest.importorskip("numba")
    moving, field = _numbers(generator, torch.int16, 1, 2, 4, 5), normal(generator, 2, 2, 3, 4)
    for share in (False, True):
        torch.library.opcheck(torch.ops.warpwright.pick, (moving, field, share))
        torch.library.opcheck(torch.ops.warpwright.warp_pick, (moving, field, None, 0.0, share))


def test_threads_change_no_byte(generator: torch.Generator) -> None:
    moving, field = _numbers(generator, torch.uint8, 1, 1, 40, 33, 37), 3 * normal(generator, 1, 3, 40, 33, 37).float()
    assert same_bytes(lambda: (warp_labels(moving, field), warp_nearest(moving, field), sample_labels(moving, 9 * field.abs())))


def test_a_point_that_is_not_a_number_takes_the_background(shape: tuple[int, ...]) -> None:
    field = torch.zeros(1, len(shape), *shape)
    field[0, 0].flatten()[3] = torch.nan
    field[0, -1].flatten()[5] = torch.inf
    ones = torch.ones(1, 1, *shape, dtype=torch.uint8)
    for moved in (warp_labels(ones, field), warp_nearest(ones, field)):
        assert moved.flatten().argmin() == 3
        assert moved.sum() == ones.sum() - 2
