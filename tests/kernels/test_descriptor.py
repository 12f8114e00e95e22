from __future__ import annotations

import pytest
import torch
from torch import Tensor

from oracles.make import normal
from warpwright import kernels
from warpwright.energies.similarity import mind as module
from warpwright.energies.similarity.mind import MIND, descriptor

pytest.importorskip("numba")

SETTINGS = [(0, 1), (1, 1), (1, 2), (2, 3), (1, 9)]  # the last reaches beyond the image


def pair(generator: torch.Generator, *shape: int) -> tuple[Tensor, Tensor]:
    """Two images with parts so flat or so rough that both bounds of V are at work."""
    moved, fixed = normal(generator, *shape), normal(generator, *shape)
    moved[..., :3] *= 1e-3
    fixed[..., -2:] *= 1e-3
    return moved, fixed


def value_and_gradient(similarity: MIND, moved: Tensor, fixed: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    leaf = moved.clone().requires_grad_()
    energy = similarity.similarity(leaf, fixed, weight)
    (gradient,) = torch.autograd.grad((energy * torch.arange(1, 1 + len(energy))).sum(), leaf)
    return energy, gradient


def assert_as_twin(similarity: MIND, moved: Tensor, fixed: Tensor, weight: Tensor | None) -> None:
    found = value_and_gradient(similarity, moved, fixed, weight)
    with kernels.plainly():
        expected = value_and_gradient(similarity, moved, fixed, weight)
    share = 1e-10 if moved.dtype == torch.float64 else 1e-5  # of the largest, and of itself
    torch.testing.assert_close(found[0], expected[0], rtol=share, atol=1e-13)
    torch.testing.assert_close(found[1], expected[1], rtol=share, atol=share * float(expected[1].abs().max()) + 1e-13)


@pytest.mark.parametrize(("radius", "dilation"), SETTINGS)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_energy_and_gradient_are_those_of_the_twin(
    shape: tuple[int, ...], generator: torch.Generator, radius: int, dilation: int, weighted: bool, kind: torch.dtype
) -> None:
    moved, fixed = pair(generator, 2, 3, *shape)
    weight = torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64).to(kind) if weighted else None
    assert_as_twin(MIND(radius=radius, dilation=dilation), moved.to(kind), fixed.to(kind), weight)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_axes_of_one_voxel_and_other_settings_along_each_axis(generator: torch.Generator, axis: int) -> None:
    shape = [5, 7, 6]
    shape[axis] = 1
    assert_as_twin(MIND(radius=(2, 0, 1), dilation=(1, 3, 2)), *pair(generator, 1, 1, *shape), None)


def test_many_slabs(generator: torch.Generator) -> None:
    """Every slab but the last is of 16 planes or of 16384 voxels; windows and pairs reach across two."""
    for shape in ((53, 3, 4), (1500, 30)):
        moved, fixed = pair(generator, 2, 1, *shape)
        weight = torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64)
        assert_as_twin(MIND(radius=2, dilation=4), moved, fixed, weight)


def test_the_upper_bound_of_v(generator: torch.Generator) -> None:
    """One rough voxel in a large flat image: V there is beyond a thousand times its mean."""
    moved, fixed = 1e-4 * normal(generator, 1, 1, 90, 80), normal(generator, 1, 1, 90, 80)
    moved[0, 0, 40, 40] = 1.0
    settings = {"radius": (0, 0), "dilation": (1, 1)}
    _, shares = value_and_gradient(MIND(**settings), moved, fixed, None)
    assert shares[0, 0, 40, 40] != 0
    assert_as_twin(MIND(**settings), moved, fixed, None)


def test_constant_images(shape: tuple[int, ...], generator: torch.Generator) -> None:
    flat, image = torch.full((1, 1, *shape), -1000.0, dtype=torch.float64), normal(generator, 1, 1, *shape)
    for moved, fixed in ((flat, image), (image, flat), (flat, flat)):
        assert_as_twin(MIND(), moved, fixed, None)


def test_descriptor_is_that_of_the_twin(shape: tuple[int, ...], generator: torch.Generator) -> None:
    image, _ = pair(generator, 2, 3, *shape)
    for radius, dilation in SETTINGS:
        found = descriptor(image, radius, dilation)
        single = descriptor(image.float(), radius, dilation)
        with kernels.plainly():
            torch.testing.assert_close(found, descriptor(image, radius, dilation), rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(single, descriptor(image.float(), radius, dilation), rtol=1e-4, atol=1e-6)


def test_derivatives_to_second_order(dim: int, generator: torch.Generator) -> None:
    shape = (4, 3, 3)[:dim]
    moved, fixed = normal(generator, 2, 1, *shape).requires_grad_(), normal(generator, 2, 1, *shape)
    weight = torch.rand(2, 1, *shape, generator=generator, dtype=torch.float64)

    def energy(image: Tensor) -> Tensor:
        return MIND().similarity(image, fixed, weight)

    assert torch.autograd.gradcheck(energy, [moved])
    assert torch.autograd.gradgradcheck(energy, [moved])


def test_one_image_for_a_batch(shape: tuple[int, ...], generator: torch.Generator) -> None:
    moved, fixed = normal(generator, 3, 2, *shape), normal(generator, 1, 2, *shape)
    together = value_and_gradient(MIND(), moved, fixed, None)
    alone = value_and_gradient(MIND(), moved, fixed.expand_as(moved), None)
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))
    assert value_and_gradient(MIND(), fixed, moved, None)[1].shape == fixed.shape


def test_operators_are_sound(shape: tuple[int, ...], generator: torch.Generator) -> None:
    moved, fixed = normal(generator, 2, 2, *shape).requires_grad_(), normal(generator, 2, 2, *shape)
    weight = torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64)
    ones = [1] * len(shape)
    for own in (weight, None):
        torch.library.opcheck(module._mind, (moved, fixed, own, ones, ones, True))
    torch.library.opcheck(module._mind, (moved.detach(), fixed, weight, ones, ones, False))
    torch.library.opcheck(module._descriptor, (fixed, ones, ones))


def test_gradient_of_the_gradient_output_is_refused(shape: tuple[int, ...], generator: torch.Generator) -> None:
    moved, fixed = normal(generator, 1, 1, *shape).requires_grad_(), normal(generator, 1, 1, *shape)
    ones = [1] * len(shape)
    assert not module._mind(moved, fixed, None, ones, ones, True)[1].requires_grad


def test_a_value_that_is_no_number_stays_one(generator: torch.Generator) -> None:
    for kind in (torch.float32, torch.float64):
        moved, fixed = normal(generator, 1, 1, 9, 8, 7).to(kind), normal(generator, 1, 1, 9, 8, 7).to(kind)
        moved[0, 0, 3, 4, 5] = torch.nan
        assert MIND().similarity(moved, fixed).isnan().all()


def test_same_bytes_for_any_number_of_threads(generator: torch.Generator) -> None:
    moved, fixed = (torch.randn(1, 1, 70, 31, 33, generator=generator) for _ in range(2))
    weight = torch.rand(1, 1, 70, 31, 33, generator=generator)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            energy, gradient = value_and_gradient(MIND(dilation=2), moved, fixed, weight)
            found.append((energy.item(), gradient.numpy().tobytes(), descriptor(moved).numpy().tobytes()))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]
