"""Overlap and contour distances as AdaCS publishes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from warpwright.errors import BadInput
from warpwright.evaluation import HALF, PUBLISHED, contour_figures
from warpwright.sampling import warp


def border(mask: np.ndarray) -> np.ndarray:
    """Points of the surface, one by one."""
    found = []
    for place in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                near = place.copy()
                near[axis] += step
                if not (0 <= near[axis] < mask.shape[axis] and mask[tuple(near)]):
                    found.append(tuple(place))
    return np.array(sorted(set(found)), dtype=float)


@pytest.mark.parametrize("shape", [(14, 17), (7, 8, 9)])
def test_against_brute_force(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        blur = [ndimage.gaussian_filter(rng.normal(size=shape), 1.5) for _ in range(2)]
        fixed, share = blur[0] > 0.05, np.clip(blur[1] * 4, 0, 1)
        for threshold in (PUBLISHED, HALF):
            moved = share > threshold
            one, two = border(fixed), border(moved)
            apart = np.linalg.norm(one[:, None] - two[None], axis=-1)
            found = contour_figures(torch.from_numpy(fixed), share, threshold)
            assert found["dsc"] == pytest.approx(2 * (fixed & moved).sum() / (fixed.sum() + moved.sum()))
            assert found["hd"] == pytest.approx(max(apart.min(0).max(), apart.min(1).max()))
            assert found["asd"] == pytest.approx(apart.min(1).mean())


def test_a_perfect_warp_scores_less_at_the_published_threshold() -> None:
    """A ring through a smooth map, against the ring that was drawn at the warped places (spec 1.6 has 0.92 to 0.95)."""
    places = torch.stack(torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij"))
    u = 3 * torch.sin(places.flip(0) / 11)
    ring = lambda at: ((at - 63.5).norm(dim=0) > 16) & ((at - 63.5).norm(dim=0) < 24)  # noqa: E731
    share = warp(ring(places).float()[None, None], u[None])[0, 0]
    published, half = (contour_figures(ring(places + u), share, threshold) for threshold in (PUBLISHED, HALF))
    assert 0.9 < published["dsc"] < 0.96
    assert half["dsc"] > 0.97
    assert half["hd"] <= published["hd"]
    assert half["asd"] < published["asd"]


def test_empty_masks_are_not_a_number_and_shapes_must_agree() -> None:
    mask = np.zeros((5, 5))
    mask[2, 2] = 1
    found = contour_figures(mask, np.zeros((5, 5)))
    assert found["dsc"] == 0
    assert np.isnan(found["hd"])
    assert np.isnan(found["asd"])
    with pytest.raises(BadInput, match="same shape"):
        contour_figures(mask, np.zeros((5, 4)))
