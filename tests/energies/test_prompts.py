from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from oracles.make import homogeneous, normal, orders, permute_affine, permute_field, rotation, smooth_field
from warpwright.energies.prompts import Landmarks, SoftDice, label_channels, label_values, landmark_energy, soft_dice
from warpwright.errors import BadInput
from warpwright.sampling import gaussian


def labels(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(0, 4, (1, 1, *shape), generator=generator)


def test_hard_labels_have_the_dice_everyone_computes(shape: tuple[int, ...], generator: torch.Generator) -> None:
    fixed, moved = labels(generator, *shape), labels(generator, *shape)
    values = label_values(fixed, moved)
    assert values == (1, 2, 3)
    energy = soft_dice(label_channels(fixed, values), label_channels(moved, values))
    scores = []
    for value in values:
        a, b = fixed.numpy() == value, moved.numpy() == value
        scores.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert energy.item() == pytest.approx(1 - np.mean(scores), abs=1e-6)  # float32 channels


def test_soft_channels_and_weights(shape: tuple[int, ...], generator: torch.Generator) -> None:
    fixed, moved = (torch.rand(2, 3, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
    weight = torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64)
    f, m, w = fixed.numpy().reshape(2, 3, -1), moved.numpy().reshape(2, 3, -1), weight.numpy().reshape(2, 1, -1)
    expected = 1 - (2 * (w * f * m).sum(2) / ((w * f * f).sum(2) + (w * m * m).sum(2))).mean(1)
    np.testing.assert_allclose(soft_dice(fixed, moved, weight).numpy(), expected)
    np.testing.assert_allclose(SoftDice().similarity(moved, fixed, weight).numpy(), expected)


def test_a_class_absent_from_both_does_not_count(shape: tuple[int, ...], generator: torch.Generator) -> None:
    fixed, moved = labels(generator, *shape), labels(generator, *shape)
    few = soft_dice(label_channels(fixed, (1, 2)), label_channels(moved, (1, 2)))
    many = soft_dice(label_channels(fixed, (1, 9, 2, 7)), label_channels(moved, (1, 9, 2, 7)))
    torch.testing.assert_close(many, few)
    one_sided = soft_dice(label_channels(fixed, (1,)), label_channels(torch.zeros_like(moved), (1,)))
    assert one_sided.item() == 1
    assert soft_dice(label_channels(fixed, (9,)), label_channels(moved, (9,))).item() == 0


def test_label_channels_hard_and_soft(shape: tuple[int, ...], generator: torch.Generator) -> None:
    image = labels(generator, *shape)
    hard = label_channels(image, (3, 0), dtype=torch.float64)
    np.testing.assert_array_equal(hard.numpy()[0, 0], image.numpy()[0, 0] == 3)
    np.testing.assert_array_equal(hard.numpy()[0, 1], image.numpy()[0, 0] == 0)
    sigma = (1.0, 0.5, 0.8)[: len(shape)]
    torch.testing.assert_close(label_channels(image, (3, 0), sigma, torch.float64), gaussian(hard, sigma))
    for wrong in ((image.expand(1, 2, *shape), (1,)), (image, ())):
        with pytest.raises(BadInput, match="one channel of labels and at least one value"):
            label_channels(*wrong)


def points_in(generator: torch.Generator, count: int, shape: tuple[int, ...], batch: int = 1) -> Tensor:
    """Off the lattice, where linear interpolation has its kinks."""
    low = torch.stack([torch.randint(0, n - 1, (batch, count), generator=generator) for n in shape], -1)
    return low + 0.1 + 0.8 * torch.rand(batch, count, len(shape), generator=generator, dtype=torch.float64)


def linear_displacement(matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    places = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij"))
    return torch.einsum("ij,j...->i...", matrix, places)[None]


@pytest.mark.parametrize("threshold", [None, 0.7])
@pytest.mark.parametrize("in_mm", [True, False])
def test_landmarks_through_a_linear_field_and_an_affine(
    shape: tuple[int, ...], spacing: tuple[float, ...], generator: torch.Generator, threshold: float | None, in_mm: bool
) -> None:
    dim = len(shape)
    linear = 0.1 * normal(generator, dim, dim)
    affine = homogeneous(rotation(dim, 0.2), (1.0, -2.0, 0.5)[:dim])
    p = points_in(generator, 9, shape)
    exact = (p[0].numpy() @ (np.eye(dim) + linear.numpy()).T) @ affine[:dim, :dim].T + affine[:dim, dim]
    q = exact + 0.6 * normal(generator, 9, dim).numpy()
    d = np.linalg.norm((exact - q) * (spacing if in_mm else 1), axis=1)
    expected = d**2 if threshold is None else np.where(d <= threshold, d**2, 2 * threshold * d - threshold**2)
    displacement, used = linear_displacement(linear, shape), spacing if in_mm else None
    found = Landmarks(threshold=threshold).energy(displacement, p, torch.tensor(q)[None], affine, used)
    assert found.item() == pytest.approx(expected.mean(), abs=1e-9)
    assert threshold is None or (d <= threshold).any() != (d <= threshold).all()
    zero = Landmarks(threshold=threshold).energy(displacement, p, torch.tensor(exact)[None], affine, used)
    assert zero.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("threshold", [None, 1.0])
def test_landmarks_gradcheck(shape: tuple[int, ...], generator: torch.Generator, threshold: float | None) -> None:
    dim = len(shape)
    shape = shape if dim == 2 else (3, 4, 3)
    displacement = smooth_field(shape, 0.8).requires_grad_()
    p, q = points_in(generator, 4, shape), points_in(generator, 4, shape)
    affine = torch.tensor(homogeneous(rotation(dim, 0.2), (1.0, -2.0, 0.5)[:dim])).requires_grad_()

    def energy(displacement: Tensor, p: Tensor, q: Tensor, affine: Tensor) -> Tensor:
        return landmark_energy(displacement, p, q, affine, threshold=threshold)

    inputs = (displacement, p.requires_grad_(), q.requires_grad_(), affine)
    assert gradcheck(energy, inputs)
    assert gradgradcheck(energy, inputs)


def test_landmarks_and_the_order_of_axes(
    shape: tuple[int, ...], spacing: tuple[float, ...], generator: torch.Generator
) -> None:
    dim = len(shape)
    displacement, p, q = smooth_field(shape, 1.5), points_in(generator, 6, shape), points_in(generator, 6, shape)
    affine = homogeneous(rotation(dim, 0.3), (1.0, -2.0, 0.5)[:dim])
    value = landmark_energy(displacement, p, q, affine, spacing=spacing, threshold=1.0)
    for order in orders(dim):
        at, mm = list(order), [spacing[k] for k in order]
        other = landmark_energy(
            permute_field(displacement, order),
            p[..., at],
            q[..., at],
            permute_affine(affine, order),
            spacing=mm,
            threshold=1.0,
        )
        torch.testing.assert_close(other, value)


def test_landmarks_of_a_batch_and_shared_points(shape: tuple[int, ...], generator: torch.Generator) -> None:
    displacement = torch.cat([smooth_field(shape, 1.0), smooth_field(shape, -2.0)])
    p, q = points_in(generator, 5, shape, 2), points_in(generator, 5, shape, 2)
    together = landmark_energy(displacement, p, q)
    alone = [landmark_energy(displacement[b : b + 1], p[b : b + 1], q[b : b + 1]) for b in range(2)]
    torch.testing.assert_close(together, torch.cat(alone))
    shared = landmark_energy(displacement, p[:1], q[:1])
    torch.testing.assert_close(shared, landmark_energy(displacement, p[:1].expand(2, -1, -1), q[:1].expand(2, -1, -1)))


def test_landmarks_at_the_limits(shape: tuple[int, ...], generator: torch.Generator) -> None:
    dim = len(shape)
    displacement = smooth_field(shape, 1.0).requires_grad_()
    none = torch.zeros(1, 0, dim, dtype=torch.float64)
    empty = landmark_energy(displacement, none, none)
    empty.sum().backward()
    assert empty.tolist() == [0]
    p = points_in(generator, 4, shape)
    with pytest.raises(BadInput, match="two sets of one shape"):
        landmark_energy(displacement, p, p[:, :3])
    with pytest.raises(BadInput, match="two sets of one shape"):
        landmark_energy(displacement, p[..., :1], p[..., :1])
    with pytest.raises(BadInput, match="threshold"):
        landmark_energy(displacement, p, p, threshold=0.0)
