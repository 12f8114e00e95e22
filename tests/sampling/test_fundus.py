"""Photographs of the fundus: contrast evened out against loops, the field of view of drawn discs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles.make import orders
from warpwright.sampling import enhance_fundus, equalise, field_of_view, green_channel, luminance


def noisy(shape: tuple[int, ...]) -> Tensor:
    """(1, *S) float32, 0 to 255, brighter towards the end of every axis."""
    values = np.random.default_rng(5).random(shape) * 120
    for axis, n in enumerate(shape):
        values += 60 * (np.arange(n) / n).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return torch.tensor(values[None] / values.max() * 255, dtype=torch.float32)


def curve(levels: list[int], clip: float) -> np.ndarray:
    """The map of 256 levels of grey that a tile of these levels has."""
    counts = np.zeros(256)
    for level in levels:
        counts[level] += 1
    limit = max(clip * len(levels) / 256, 1.0)
    excess = sum(max(count - limit, 0.0) for count in counts)
    return np.cumsum([min(count, limit) + excess / 256 for count in counts]) * 255 / len(levels)


def slow_equalise(image: np.ndarray, tiles: int, clip: float) -> np.ndarray:
    """By the definition, pixel by pixel: image (*S) of 0 to 255."""
    edges = [int(np.ceil(n / tiles)) for n in image.shape]
    inside: dict[tuple[int, ...], list[int]] = {}
    for place in product(*(range(tiles * edge) for edge in edges)):
        mirrored = tuple(p if p < n else 2 * (n - 1) - p for p, n in zip(place, image.shape, strict=True))
        tile = tuple(p // edge for p, edge in zip(place, edges, strict=True))
        inside.setdefault(tile, []).append(int(image[mirrored]))
    curves = {tile: curve(levels, clip) for tile, levels in inside.items()}
    result = np.zeros(image.shape)
    for place in np.ndindex(*image.shape):
        centred = [(p - (edge - 1) / 2) / edge for p, edge in zip(place, edges, strict=True)]  # 0 at the first tile's centre
        for tile in inside:
            # beyond the centres of the outermost tiles these count alone
            distance = [abs(min(max(c, 0), tiles - 1) - t) for c, t in zip(centred, tile, strict=True)]
            result[place] += np.prod([max(1 - d, 0) for d in distance]) * curves[tile][int(image[place])]
    return result


@pytest.mark.parametrize("clip", [1.3, 40.0])
def test_equalised_is_the_loop(dim: int, clip: float) -> None:
    """Axes that the tiles divide, and some that they do not; one limit that cuts, one that cuts nothing."""
    image = noisy((24, 19) if dim == 2 else (9, 7, 8))
    got = equalise(image, tiles=3, clip=clip)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got[0], slow_equalise(image[0].numpy(), 3, clip), atol=1e-3)  # of 255, float32


def test_axes_may_be_exchanged(dim: int) -> None:
    image = noisy((24, 19, 17)[:dim])
    for order in orders(dim):
        axes = [0, *(1 + a for a in order)]
        torch.testing.assert_close(equalise(image.permute(axes)), equalise(image).permute(axes), atol=1e-3, rtol=0)


def test_uneven_light_is_evened_out_as_far_as_the_limit_allows() -> None:
    """A texture of the same contrast in a light that falls to a third."""
    texture = 1 + 0.3 * torch.randn(1, 128, 96, generator=torch.Generator().manual_seed(2))
    lit = (200 * texture * torch.linspace(1, 1 / 3, 128)[:, None]).clamp(0, 255)
    limited, unlimited = equalise(lit), equalise(lit, clip=256)
    before, some, all_of_it = (float(x[:, :30].mean() / x[:, -30:].mean()) for x in (lit, limited, unlimited))
    assert before > 2 > some > 1.2 > all_of_it > 0.9
    assert limited.min() >= 0
    assert limited.max() <= 255


def fundus(shape: tuple[int, int] = (70, 90)) -> tuple[Tensor, np.ndarray]:
    """(3, *S) a reddish disc with a dark spot in it on black, a caption beside it, and the disc."""
    rows, columns = np.indices(shape)
    disc = (rows - 33) ** 2 + (columns - 40) ** 2 < 28**2
    photograph = np.random.default_rng(1).uniform(0, 6, (3, *shape))
    photograph += disc * np.array([150.0, 70.0, 30.0])[:, None, None] * (1 + 0.1 * np.sin(columns / 3))
    photograph[:, 30:36, 44:49] = 4.0
    photograph[:, 60:64, 78:88] = 250.0
    return torch.tensor(photograph, dtype=torch.float32), disc


def test_field_of_view_is_the_disc_with_its_dark_spot() -> None:
    photograph, disc = fundus()
    view = field_of_view(photograph)
    assert view.dtype == torch.float32
    np.testing.assert_array_equal(view[0], disc)
    np.testing.assert_array_equal(field_of_view(photograph[1:2])[0], disc)


def test_field_of_view_of_a_detail_and_of_the_dark() -> None:
    photograph, _ = fundus()
    assert (field_of_view(photograph[:, 20:29, 25:40]) == 1).all()
    assert not field_of_view(photograph / 40).any()
    assert not field_of_view(torch.zeros(3, 9, 8)).any()


def test_channels() -> None:
    photograph = torch.tensor([10.0, 20.0, 30.0]).reshape(3, 1, 1).expand(3, 4, 5)
    assert (green_channel(photograph) == 20).all()
    assert green_channel(photograph).shape == luminance(photograph).shape == (1, 4, 5)
    torch.testing.assert_close(luminance(photograph), torch.full((1, 4, 5), 0.299 * 10 + 0.587 * 20 + 0.114 * 30))
    one = photograph[:1]
    assert green_channel(one) is one
    assert luminance(one) is one


def test_enhanced_vessels() -> None:
    photograph, disc = fundus()
    view = torch.tensor(disc[None], dtype=torch.float32)
    got = enhance_fundus(photograph, view)
    assert got.shape == (1, 70, 90)
    assert (got[view == 0] == 0).all()
    green = photograph[1].numpy()
    stretched = (green - green.min()) / (green.max() - green.min()) * 255
    expected = (equalise(torch.tensor(stretched)[None]).numpy()[0] / 255) ** (1 / 1.2) * disc
    np.testing.assert_allclose(got[0], expected, atol=1e-5)  # float32
    assert got.max() <= 1
    dimmer = torch.stack([photograph[2], 0.25 * photograph[1] + 16, photograph[0]])  # exact in float32: levels stay
    torch.testing.assert_close(enhance_fundus(dimmer, view), got, atol=0.01, rtol=0)
    assert not enhance_fundus(torch.zeros(3, 9, 8), torch.zeros(1, 9, 8)).any()
