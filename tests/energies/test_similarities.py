"""What every similarity must do, whatever it measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from oracles.make import normal, orders, permute_image, smooth_field
from warpwright.energies.prompts import SoftDice
from warpwright.energies.similarity.base import Similarity, reduce
from warpwright.energies.similarity.lncc import LNCC
from warpwright.energies.similarity.mind import MIND
from warpwright.energies.similarity.mse import MSE
from warpwright.energies.similarity.mutual_information import MutualInformation
from warpwright.energies.similarity.weighted import Term, WeightedSum

SIMILARITIES = [
    MSE(),
    LNCC(radius=1, epsilon=1e-2),
    LNCC(radius=1, window="gaussian", epsilon=1e-2),
    MutualInformation(bins=6),
    MutualInformation(bins=6, normalised=True),
    MIND(radius=1, dilation=1),
    SoftDice(),
    WeightedSum(parts=(Term(similarity=MSE(), weight=0.5), Term(similarity=MIND(radius=1, dilation=1), weight=2.0))),
]
NAMES = ["mse", "lncc", "lncc-gaussian", "mi", "mi-normalised", "mind", "dice", "sum"]
ZERO_AT_AGREEMENT = [s for s in SIMILARITIES if not isinstance(s, MutualInformation)]
every = pytest.mark.parametrize("similarity", SIMILARITIES, ids=NAMES)


def pinned(image: Tensor) -> Tensor:
    """With constants for two voxels, so that the range of intensities, which has no gradient by design, stays put."""
    flat = image.flatten(2)
    ends = flat.new_tensor([-5.0, 5.0]).expand(*flat.shape[:2], 2)
    return torch.cat([flat[:, :, :-2], ends], 2).reshape(image.shape)


def two_images(generator: torch.Generator, *shape: int) -> tuple[Tensor, Tensor]:
    fixed = normal(generator, *shape)
    return 0.5 * fixed + normal(generator, *shape), fixed


def weights(generator: torch.Generator, *shape: int) -> Tensor:
    return 0.2 + torch.rand(*shape, generator=generator, dtype=torch.float64)


@every
def test_gradcheck_in_images_and_weight(similarity: Similarity, dim: int, generator: torch.Generator) -> None:
    shape = (4, 5, 3)[:dim]
    moved, fixed = two_images(generator, 1, 2, *shape)
    weight = weights(generator, 1, 1, *shape)
    inputs = tuple(t.requires_grad_() for t in (moved, fixed, weight))

    def energy(moved: Tensor, fixed: Tensor, weight: Tensor) -> Tensor:
        return similarity.similarity(pinned(moved), pinned(fixed), weight)

    assert gradcheck(energy, inputs)


@every
def test_gradgradcheck_in_images_and_weight(similarity: Similarity, dim: int, generator: torch.Generator) -> None:
    shape = (4, 4) if dim == 2 else (3, 4, 2)
    moved, fixed = two_images(generator, 1, 1, *shape)
    weight = weights(generator, 1, 1, *shape)
    inputs = tuple(t.requires_grad_() for t in (moved, fixed, weight))

    def energy(moved: Tensor, fixed: Tensor, weight: Tensor) -> Tensor:
        return similarity.similarity(pinned(moved), pinned(fixed), weight)

    assert gradgradcheck(energy, inputs)


@every
def test_order_of_axes_does_not_matter(similarity: Similarity, shape: tuple[int, ...], generator: torch.Generator) -> None:
    moved, fixed = two_images(generator, 1, 1, *shape)
    weight = weights(generator, 1, 1, *shape)
    value = similarity.similarity(moved, fixed, weight)
    for order in orders(len(shape)):
        other = similarity.similarity(*(permute_image(t, order) for t in (moved, fixed, weight)))
        torch.testing.assert_close(other, value, rtol=1e-10, atol=1e-12)


@every
def test_a_batch_is_its_samples(similarity: Similarity, shape: tuple[int, ...], generator: torch.Generator) -> None:
    moved, fixed = two_images(generator, 2, 2, *shape)
    moved[1], fixed[1] = 7 * moved[1] - 100, 0.1 * fixed[1] + 3
    weight = weights(generator, 2, 1, *shape)
    together = similarity.similarity(moved, fixed, weight)
    alone = [similarity.similarity(moved[b : b + 1], fixed[b : b + 1], weight[b : b + 1]) for b in range(2)]
    assert together.shape == (2,)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-12)


@every
def test_channels_count_alike(similarity: Similarity, shape: tuple[int, ...], generator: torch.Generator) -> None:
    moved, fixed = two_images(generator, 1, 2, *shape)
    alone = [similarity.similarity(moved[:, c : c + 1], fixed[:, c : c + 1]) for c in range(2)]
    torch.testing.assert_close(similarity.similarity(moved, fixed), torch.stack(alone).mean(0), rtol=1e-10, atol=1e-12)


@every
def test_no_weight_is_a_constant_weight(similarity: Similarity, shape: tuple[int, ...], generator: torch.Generator) -> None:
    moved, fixed = two_images(generator, 1, 1, *shape)
    value = similarity.similarity(moved, fixed)
    for constant in (1.0, 0.25):
        weight = torch.full((1, 1, *shape), constant, dtype=torch.float64)
        torch.testing.assert_close(similarity.similarity(moved, fixed, weight), value, rtol=1e-9, atol=1e-12)


@every
def test_what_lies_under_weight_zero_is_not_seen(similarity: Similarity, dim: int, generator: torch.Generator) -> None:
    shape = (12, 7, 6)[:dim]
    moved, fixed = two_images(generator, 1, 2, *shape)
    weight = weights(generator, 1, 1, *shape)
    weight[:, :, 5:] = 0
    reach = 2 if isinstance(similarity, (MIND, WeightedSum)) else 0  # a descriptor sees radius + dilation voxels
    noisy = []
    for image in (moved, fixed):
        noise = image.clone()
        noise[:, :, 5 + reach :] = 3 * normal(generator, *noise[:, :, 5 + reach :].shape) + 1
        noisy.append(noise.requires_grad_())
    value = similarity.similarity(*noisy, weight)
    # 1e-9: LNCC subtracts the mean of the image, which cancels up to rounding
    torch.testing.assert_close(value, similarity.similarity(moved, fixed, weight), rtol=1e-9, atol=1e-12)
    value.sum().backward()
    for image in noisy:
        assert image.grad is not None
        assert image.grad[:, :, 5 + reach :].abs().max() < 1e-12
        assert image.grad[:, :, :5].abs().max() > 1e-6


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_weight_at_all_is_zero_with_finite_gradients(
    similarity: Similarity, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
) -> None:
    moved, fixed = (t.to(dtype).requires_grad_() for t in two_images(generator, 1, 2, *shape))
    weight = torch.zeros(1, 1, *shape, dtype=dtype, requires_grad=True)
    value = similarity.similarity(moved, fixed, weight)
    assert value.tolist() == [0]
    value.sum().backward()
    for tensor in (moved, fixed, weight):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


@every
@pytest.mark.parametrize("level", [0.0, -1000.0])
def test_constant_images_have_finite_value_and_gradient(
    similarity: Similarity, shape: tuple[int, ...], generator: torch.Generator, level: float
) -> None:
    varied = normal(generator, 1, 1, *shape)
    flat = torch.full_like(varied, level)
    for moved, fixed in ((flat, varied), (varied, flat), (flat, flat)):
        moved, fixed = moved.clone().requires_grad_(), fixed.clone().requires_grad_()
        value = similarity.similarity(moved, fixed)
        value.sum().backward()
        assert moved.grad is not None
        assert fixed.grad is not None
        assert torch.isfinite(torch.cat([value, moved.grad.flatten(), fixed.grad.flatten()])).all()


@pytest.mark.parametrize("similarity", ZERO_AT_AGREEMENT)
def test_zero_at_agreement(similarity: Similarity, shape: tuple[int, ...], generator: torch.Generator) -> None:
    image = 100 * normal(generator, 1, 2, *shape)
    # 1e-5: LNCC's epsilon (1e-2) against variances of 1e4
    assert similarity.similarity(image, image).abs().item() < (1e-5 if isinstance(similarity, LNCC) else 1e-12)
    assert similarity.similarity(image + normal(generator, 1, 2, *shape), image).item() > 1e-6


@every
def test_no_motion_is_best(similarity: Similarity, dim: int) -> None:
    shape = (16, 15, 14)[:dim]
    image = smooth_field(shape, 1.0, channels=1) + 0.5 * smooth_field(shape, 1.0, channels=3)[:, 2:]
    still = torch.zeros(1, dim, *shape, dtype=torch.float64)
    best = similarity.match(image, image, still).item()
    for axis in range(dim):
        for step in (-1.5, -0.6, 0.6, 1.5):
            moved = still.clone()
            moved[:, axis] = step
            assert similarity.match(image, image, moved).item() > best + 1e-6


@every
def test_match_is_similarity_after_warping(similarity: Similarity, dim: int, generator: torch.Generator) -> None:
    shape = (6, 7, 5)[:dim]
    moving, fixed = normal(generator, 1, 1, *(n + 3 for n in shape)), normal(generator, 1, 1, *shape)
    shift = np.eye(dim + 1)
    shift[:dim, dim] = 1
    displacement = torch.ones(1, dim, *shape, dtype=torch.float64)
    inner = moving[(slice(None), slice(None), *(slice(2, 2 + n) for n in shape))]
    weight = weights(generator, 1, 1, *shape)
    # 1e-9: sampling at whole voxels rounds
    expected = similarity.similarity(inner, fixed, weight)
    torch.testing.assert_close(similarity.match(fixed, moving, displacement, shift, weight), expected, rtol=1e-9, atol=1e-9)


def test_moving_weight_follows_the_displacement_without_a_gradient(dim: int, generator: torch.Generator) -> None:
    shape = (6, 7, 5)[:dim]
    fixed, moving = normal(generator, 1, 1, *shape), normal(generator, 1, 1, *shape)
    moving_weight = torch.ones_like(moving)
    moving_weight[:, :, 3:] = 0
    displacement = torch.zeros(1, dim, *shape, dtype=torch.float64)
    displacement[:, 0] = 1.25
    displacement.requires_grad_()
    value = MSE().match(fixed, moving, displacement, moving_weight=moving_weight)
    share = torch.tensor([1.0, 0.75, 0, 0, 0, 0], dtype=torch.float64).reshape(1, 1, -1, *(1,) * (dim - 1)).expand_as(fixed)
    moved = 0.75 * moving[:, :, [1, 2, 3, 4, 5, 5]] + 0.25 * moving[:, :, [2, 3, 4, 5, 5, 5]]
    torch.testing.assert_close(value, reduce((moved - fixed).square(), share))
    value.sum().backward()
    assert displacement.grad is not None
    assert displacement.grad[:, :, 2:].abs().max() == 0
    slope = 2 * (moved - fixed) * (moving[:, :, [2, 3, 4, 5, 5, 5]] - moving[:, :, [1, 2, 3, 4, 5, 5]]) * share / share.sum()
    torch.testing.assert_close(displacement.grad[:, :1, :2], slope[:, :, :2])


def test_reduce_is_the_weighted_mean(shape: tuple[int, ...], generator: torch.Generator) -> None:
    values, weight = normal(generator, 2, 1, *shape), weights(generator, 1, 1, *shape)
    v, w = values.numpy().reshape(2, -1), weight.numpy().reshape(1, -1)
    np.testing.assert_allclose(reduce(values).numpy(), v.mean(1))
    np.testing.assert_allclose(reduce(values, weight).numpy(), (v * w).sum(1) / w.sum())
    inputs = (values.requires_grad_(), weight.requires_grad_())
    assert gradcheck(reduce, inputs)


def test_mse_is_the_mean_of_squares(shape: tuple[int, ...], generator: torch.Generator) -> None:
    moved, fixed = two_images(generator, 2, 3, *shape)
    expected = ((moved - fixed).numpy() ** 2).reshape(2, -1).mean(1)
    np.testing.assert_allclose(MSE().similarity(moved, fixed).numpy(), expected)
    assert MSE().residual_map(moved, fixed).shape == (2, 1, *shape)


def test_curvature_of_mse_is_the_second_derivative(shape: tuple[int, ...], generator: torch.Generator) -> None:
    moved, fixed = two_images(generator, 2, 1, *shape)
    weight = weights(generator, 2, 1, *shape) * (torch.arange(shape[0]) > 1).reshape(1, 1, -1, *(1,) * (len(shape) - 1))
    for w in (weight, weight[:1], None):
        moved.requires_grad_()
        (slope,) = torch.autograd.grad(MSE().similarity(moved, fixed, w).sum(), moved, create_graph=True)
        (second,) = torch.autograd.grad(slope.sum(), moved)
        torch.testing.assert_close(MSE().curvature(moved, fixed, w).expand_as(second), second)
    assert not MSE().curvature(moved, fixed, torch.zeros_like(weight)).any()
