from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from oracles.make import normal
from warpwright.energies.similarity.mind import MIND, descriptor
from warpwright.errors import BadInput


def slow_descriptor(image: np.ndarray, radius: int, dilation: int) -> np.ndarray:
    """One voxel, one pair and one patch at a time."""
    shape, dim = image.shape, image.ndim

    def at(place: np.ndarray) -> float:
        return image[tuple(np.clip(place, 0, np.array(shape) - 1))]

    offsets = [o for o in product((-1, 0, 1), repeat=dim) if sum(map(abs, o)) == 1]
    pairs = [
        (np.array(a) * dilation, np.array(b) * dilation)
        for i, a in enumerate(offsets)
        for b in offsets[i + 1 :]
        if np.isclose(np.linalg.norm(np.subtract(a, b)), np.sqrt(2))
    ]
    distance = np.zeros((len(pairs), *shape))
    for voxel in np.ndindex(*shape):
        patch = [np.add(voxel, o) for o in product(range(-radius, radius + 1), repeat=dim)]
        patch = [y for y in patch if (y >= 0).all() and (y < shape).all()]
        for k, (a, b) in enumerate(pairs):
            distance[(k, *voxel)] = np.mean([(at(y + a) - at(y + b)) ** 2 for y in patch])
    distance -= distance.min(0)
    variance = distance.mean(0)
    variance = np.clip(variance, 1e-3 * variance.mean(), 1e3 * variance.mean())
    return np.exp(-distance / variance)


def sorted_channels(descriptors: np.ndarray) -> np.ndarray:
    """The order of the channels is nobody's business: every voxel's values in rising order, then their place."""
    order = np.lexsort(descriptors.reshape(len(descriptors), -1).T)
    return descriptors[order]


@pytest.mark.parametrize(("radius", "dilation"), [(0, 1), (1, 1), (1, 2), (2, 2)])
def test_against_a_loop(shape: tuple[int, ...], generator: torch.Generator, radius: int, dilation: int) -> None:
    image = normal(generator, 1, 1, *shape)
    slow = slow_descriptor(image[0, 0].numpy(), radius, dilation)
    fast = descriptor(image, radius, dilation)[0].numpy()
    assert len(fast) == (4 if len(shape) == 2 else 12)
    np.testing.assert_allclose(sorted_channels(fast), sorted_channels(slow), rtol=1e-9, atol=1e-12)


def test_flat_regions_beside_structure(generator: torch.Generator) -> None:
    """The lower bound of V is at work in the flat half."""
    image = normal(generator, 1, 1, 14, 6)
    image[:, :, 6:] = 1e-3 * image[:, :, 6:] - 1000
    slow = slow_descriptor(image[0, 0].numpy(), 1, 1)
    np.testing.assert_allclose(
        sorted_channels(descriptor(image, 1, 1)[0].numpy()), sorted_channels(slow), rtol=1e-6, atol=1e-9
    )  # 1e-6: differences of 1e-3 at -1000


def test_contrast_does_not_matter(shape: tuple[int, ...], generator: torch.Generator) -> None:
    image = normal(generator, 2, 1, *shape)
    for scale, shift in ((0.1, 0.0), (-100.0, -1000.0)):
        torch.testing.assert_close(descriptor(scale * image + shift), descriptor(image), rtol=1e-8, atol=1e-10)


def test_every_channel_has_its_descriptor(shape: tuple[int, ...], generator: torch.Generator) -> None:
    image = normal(generator, 2, 3, *shape)
    together = descriptor(image, 1, 1)
    alone = torch.cat([descriptor(image[:, c : c + 1], 1, 1) for c in range(3)], 1)
    torch.testing.assert_close(together, alone)
    assert together.amax() == 1
    assert together.amin() >= 0


def test_residual_is_the_mean_square_over_channels(shape: tuple[int, ...], generator: torch.Generator) -> None:
    moved, fixed = normal(generator, 1, 2, *shape), normal(generator, 1, 2, *shape)
    residual = MIND(radius=1, dilation=2).residual_map(moved, fixed)
    expected = (descriptor(moved, 1, 2) - descriptor(fixed, 1, 2)).numpy() ** 2
    np.testing.assert_allclose(residual.numpy()[:, 0], expected.mean(1))


def test_a_constant_image_is_all_ones(shape: tuple[int, ...]) -> None:
    image = torch.full((1, 1, *shape), -1000.0)
    assert (descriptor(image) == 1).all()


@pytest.mark.parametrize("settings", [{"radius": -1}, {"dilation": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="got"):
        MIND(**settings)


@pytest.mark.parametrize("name", ["radius", "dilation"])
def test_numbers_of_other_axes_are_refused(name: str, dim: int) -> None:
    mind = MIND(**{name: (1,) * (5 - dim)})  # type: ignore[arg-type]
    image = torch.rand(1, 1, *(6,) * dim)
    said = f"MIND has a {name} of {5 - dim} numbers, the images have {dim} axes: expected one number, or {dim}"
    for refused in (lambda: mind.for_spacing((1.0,) * dim), lambda: mind.similarity(image, image)):
        with pytest.raises(BadInput, match=said):
            refused()


def test_thick_slices_are_seen_in_millimetres(dim: int, generator: torch.Generator) -> None:
    adapted = MIND(radius=1, dilation=2).for_spacing((1.0, 4.0, 1.0)[:dim])
    assert adapted == MIND(radius=(1, 0, 1)[:dim], dilation=(2, 1, 2)[:dim])
    assert adapted.for_spacing((1.0,) * dim) == adapted
    image = normal(generator, 1, 1, *(7, 5, 6)[:dim])
    thin = descriptor(image, (1, 0, 1)[:dim], (2, 1, 2)[:dim])
    assert thin.shape[1] == (4 if dim == 2 else 12)
    other = image.clone()
    other[:, :, :, 4] += 1.0  # a slice two away
    assert torch.equal(descriptor(other, (1, 0, 1)[:dim], (2, 1, 2)[:dim])[:, :, 0, 0] == 1, thin[:, :, 0, 0] == 1)


def test_one_number_is_that_number_for_every_axis(shape: tuple[int, ...], generator: torch.Generator) -> None:
    image, dim = normal(generator, 1, 1, *shape), len(shape)
    assert torch.equal(descriptor(image, (1,) * dim, (2,) * dim), descriptor(image, 1, 2))
