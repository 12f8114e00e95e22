"""Pairs of vessel trees under a smooth displacement: thin structures that move farther than they are wide.

A stand-in for the retinal pairs of SmoothProper (IPMI 2025): bright branching tubes on black, moved by a translation and a
smooth random field.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warpwright.data.synthetic.checks import check_at_least, check_range, check_shape, check_share
from warpwright.data.synthetic.pair import SyntheticPair
from warpwright.data.synthetic.vessel_tree import grow_tree, render_tree
from warpwright.geometry import moved_points
from warpwright.sampling import gaussian, sample

__all__ = ["VesselSettings", "vessel_pair"]

PROFILE = 7.0  # how far beyond the image a vessel can still be seen in it, voxels
ITERATIONS = 100  # of the search for a landmark's place in the fixed image
TOLERANCE = 1e-4  # of that place, voxels; a landmark that is not found, as where the map folds, is left out


@dataclass(frozen=True, kw_only=True)
class VesselSettings:
    """Lengths are voxels.

    Args:
        roots: vessels that leave the disc.
        radii: of the thinnest vessel, and of a root at its start.
        branching: probability that a vessel branches in a step of 1.5 voxels.
        translation: length of the translation, in a random direction.
        amplitude: longest vector of the smooth field beside the translation.
        smoothness: standard deviation of the Gaussian that makes the field smooth. The map does not fold if it is at least
            four times the amplitude and at most half of the shortest axis.
        noise: standard deviation of the noise of either image, whose intensities are in [0, 1].
        ends: whether the places where vessels end are landmarks, beside those where they branch.
    """

    roots: int = 7
    radii: tuple[float, float] = (0.8, 2.6)
    branching: float = 0.03
    translation: float = 4.0
    amplitude: float = 4.0
    smoothness: float = 20.0
    noise: float = 0.03
    ends: bool = True

    def __post_init__(self) -> None:
        check_at_least("the number of vessels", self.roots, 1)
        check_range("the radii of vessels", self.radii, 0.1)
        check_share("the probability that vessels branch", self.branching)
        check_at_least("the translation of vessels", self.translation, 0)
        check_at_least("the amplitude of the motion of vessels", self.amplitude, 0)
        check_at_least("the smoothness of the motion of vessels", self.smoothness, 0.1)
        check_at_least("the noise of images of vessels", self.noise, 0)


def vessel_pair(shape: tuple[int, ...], settings: VesselSettings, rng: np.random.Generator) -> SyntheticPair:
    """A vessel tree, and the same tree under a smooth displacement; both drawn, neither interpolated.

    The fixed image also shows vessels that come in from outside the moving one. Field, tree, noise of the fixed and noise of
    the moving image are drawn in this order.

    Args:
        shape: S, 2 or 3 axes.
        settings: sizes.
        rng: where the numbers come from.

    Returns:
        A pair with labels (1 within the radius of a vessel), the displacement, and as points the places where vessels branch
        (or end), where both images show them.
    """
    check_shape(shape)
    displacement = _smooth_displacement(shape, settings, rng)
    margin = settings.translation + settings.amplitude + PROFILE
    tree = grow_tree(shape, settings.roots, settings.radii, settings.branching, margin, rng, ends=settings.ends)
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for field in (displacement, torch.zeros_like(displacement)):
        image, within = render_tree(tree, moved_points(field)[0].flatten(1).T.numpy())
        noisy = image + settings.noise * rng.normal(size=image.shape)
        images.append(torch.from_numpy(noisy).to(torch.float32).reshape(1, *shape))
        labels.append(torch.from_numpy(within).to(torch.int32).reshape(1, *shape))
    fixed_points, moving_points = _landmarks(displacement, torch.from_numpy(tree.landmarks))
    return SyntheticPair(
        fixed=images[0],
        moving=images[1],
        fixed_labels=labels[0],
        moving_labels=labels[1],
        displacement=displacement[0].to(torch.float32),
        fixed_points=fixed_points.to(torch.float32),
        moving_points=moving_points.to(torch.float32),
    )


def _smooth_displacement(shape: tuple[int, ...], settings: VesselSettings, rng: np.random.Generator) -> Tensor:
    """(1, D, *S) float64: a translation, and smoothed noise of mean zero whose longest vector is the amplitude."""
    dim = len(shape)
    way = torch.from_numpy(rng.normal(size=(1, dim, *(1,) * dim)))
    field = gaussian(torch.from_numpy(rng.normal(size=(1, dim, *shape))), (settings.smoothness,) * dim)
    field = field - field.mean(tuple(range(2, dim + 2)), keepdim=True)
    longest = field.square().sum(1).max().sqrt().clamp_min(1e-12)
    return field * (settings.amplitude / longest) + way * (settings.translation / way.square().sum().sqrt())


def _landmarks(displacement: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """Points y and (N, D) with `y + u(y)` = `moving`, of those that both images show."""
    fixed = moving
    for _ in range(ITERATIONS):  # a contraction, as the field is smooth
        fixed = moving - sample(displacement, fixed.T[None])[0].T
    miss = (fixed + sample(displacement, fixed.T[None])[0].T - moving).abs()
    last = torch.tensor(displacement.shape[2:]) - 1
    shown = ((fixed >= 0) & (fixed <= last) & (moving >= 0) & (moving <= last) & (miss < TOLERANCE)).all(1)
    return fixed[shown], moving[shown]
