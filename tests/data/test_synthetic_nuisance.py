"""Corruption of images by rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from warpwright.data.synthetic import NuisanceSettings, corrupt
from warpwright.errors import BadInput

SHAPES = [(48, 56), (20, 24, 28)]
ALL = NuisanceSettings(speckle=0.5, rician=0.05, drift=0.2, shadows=2, patches=3)


def smooth_image(shape: tuple[int, ...], channels: int = 1, seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(size=(channels, *shape))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, *(3,) * len(shape)))).float()


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_asked_and_nothing_is_done(shape: tuple[int, ...]) -> None:
    image = smooth_image(shape)
    done = corrupt(image, NuisanceSettings(), rng())
    torch.testing.assert_close(done.image, image)
    assert not done.planted.any()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_seed_gives_the_same_bytes_within_the_range(shape: tuple[int, ...]) -> None:
    image = smooth_image(shape, channels=2)
    one, two = (corrupt(image, ALL, rng()) for _ in range(2))
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.planted, two.planted)
    assert one.image.dtype == torch.float32
    assert one.image.min() >= image.min()
    assert one.image.max() <= image.max()
    assert not torch.equal(one.image, corrupt(image, ALL, rng(2)).image)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_done_grows_with_the_strength_at_the_same_places(shape: tuple[int, ...]) -> None:
    image = smooth_image(shape)
    full = corrupt(image, ALL, rng()).planted
    changes, shares = [], []
    for strength in (0.0, 0.3, 0.6, 1.0):
        done = corrupt(image, ALL.at(strength), rng())
        assert float((done.planted & ~full).float().mean()) < 0.005
        shares.append(float(done.planted.float().mean()))
        changes.append(float((done.image - image).abs().mean()))
    assert changes[0] < 1e-7
    assert changes == sorted(changes)
    assert shares == sorted(shares)
    assert shares[0] == 0


@pytest.mark.parametrize("kind", [{"shadows": 2}, {"patches": 3}])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_planted_changes_the_image_there_and_hardly_elsewhere(shape: tuple[int, ...], kind: dict[str, int]) -> None:
    image = smooth_image(shape)
    done = corrupt(image, NuisanceSettings(**kind), rng())
    change = (done.image - image).abs()
    assert 0.002 < float(done.planted.float().mean()) < 0.5
    assert float(change[done.planted].min()) >= 0.1 * float(image.max() - image.min()) - 1e-5
    assert float(change[~done.planted].max()) < 0.1 * float(image.max() - image.min()) + 1e-5
    assert float(change[~done.planted].median()) < 0.01 * float(image.max() - image.min())


def test_a_shadow_over_what_is_dark_is_not_planted() -> None:
    image = smooth_image((48, 56))
    dark = (image - image.min()) / (image.max() - image.min()) < 0.1
    assert not (corrupt(image, NuisanceSettings(shadows=4), rng()).planted & dark).any()


def test_kinds_have_streams_of_their_own() -> None:
    image = smooth_image((48, 56))
    patches = NuisanceSettings(patches=3)
    with_noise = corrupt(image, replace(patches, rician=0.01, speckle=0.1), rng())
    assert torch.equal(with_noise.planted, corrupt(image, patches, rng()).planted)


def test_speckle_is_a_factor_of_mean_one_and_the_spread_of_a_rayleigh_distribution() -> None:
    image = torch.full((1, 300, 300), 0.25)
    image[0, 0, 0], image[0, 0, 1] = 0.0, 1.0  # the range
    for share in (0.25, 0.5):
        factor = corrupt(image, NuisanceSettings(speckle=share, grain=0.0), rng()).image[0, 1:] / 0.25
        assert float(factor.mean()) == pytest.approx(1, abs=0.01)
        assert float(factor.std()) == pytest.approx(share * np.sqrt(4 / np.pi - 1), rel=0.02)


def test_rician_noise_has_its_second_moment() -> None:
    image = torch.full((1, 300, 300), 0.3)
    image[0, 0, 0], image[0, 0, 1] = 0.0, 1.0
    found = corrupt(image, NuisanceSettings(rician=0.1), rng()).image[0, 1:]
    assert float(found.square().mean()) == pytest.approx(0.3**2 + 2 * 0.1**2, rel=0.01)


def test_channels_meet_the_same_patches() -> None:
    image = smooth_image((48, 56)).repeat(2, 1, 1)
    done = corrupt(image, replace(ALL, rician=0.0), rng())
    torch.testing.assert_close(done.image[0], done.image[1])
    assert done.planted.shape == (1, 48, 56)


@pytest.mark.parametrize(
    "given",
    [{"speckle": 1.5}, {"depth": -0.1}, {"rician": -1.0}, {"shadows": -1}, {"radius": (0.2, 0.1)}, {"width": (0.0, 0.1)}],
)
def test_settings_out_of_range_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="must be"):
        NuisanceSettings(**given)  # type: ignore[arg-type]


def test_an_image_without_a_range_and_a_strength_that_is_no_share_are_refused() -> None:
    with pytest.raises(BadInput, match="one intensity"):
        corrupt(torch.ones(1, 8, 8), ALL, rng())
    with pytest.raises(BadInput, match="strength"):
        ALL.at(2.0)
    with pytest.raises(BadInput, match="finite"):
        corrupt(torch.full((1, 8, 8), torch.nan), ALL, rng())
    with pytest.raises(BadInput, match="whole"):
        NuisanceSettings(patches=2.5)  # type: ignore[arg-type]


def test_nuisances_lie_anywhere() -> None:
    """What is planted in many images does not tell where it is in another."""
    image = smooth_image((48, 56)).clamp(-0.05, 0.05)
    image[0, ::2] += 0.1  # bright enough for shadows everywhere
    settings = NuisanceSettings(shadows=1, patches=2)
    often = torch.stack([corrupt(image, settings, rng(k)).planted[0].float() for k in range(200)]).mean(0)
    assert float(often[5:-5, 5:-5].min()) > 0
    assert float(often.max()) < 0.5
