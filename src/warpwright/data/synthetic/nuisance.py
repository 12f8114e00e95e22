"""Corruption of real images by rule, whose place is known: speckle, shadows, Rician noise, drift, and things of one image only.

These mislead a comparison of intensities in ultrasound, in perfusion and in pathology (Zhang et al., AdaCS, ECCV 2024), where
labels and landmarks of the clean image stay the truth. Every kind has a stream of random numbers of its own, so that its
places are the same at every strength and whatever else is done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from warpwright.data.synthetic.checks import check_at_least, check_range, check_shape, check_share
from warpwright.data.synthetic.fields import random_field
from warpwright.errors import BadInput
from warpwright.sampling import gaussian

__all__ = ["Corrupted", "NuisanceSettings", "corrupt"]

RAYLEIGH = np.sqrt(np.pi / 2)  # mean of the length of two independent standard normal numbers
APERTURE = 0.6  # radians on either side of the inward normal in which shadows fall
SOFT = 0.03, 1.0  # radians and voxels over which shadows begin
SEEN = 0.1  # of the range
MIDDLE = 0.1, 0.9  # where patches lie, and along other axes the points that shadows come from, shares of every axis


@dataclass(frozen=True, kw_only=True)
class NuisanceSettings:
    """What is done to an image; intensities are shares of its range.

    Args:
        speckle: 0 for none, 1 for fully developed speckle: a factor of Rayleigh distribution and mean 1.
        grain: standard deviation of the Gaussian that correlates speckle, voxels.
        rician: standard deviation of noise in both channels of which the image is the magnitude.
        drift: standard deviation of the logarithm of a smooth factor.
        drift_scale: over which it changes, a share of the edge (the geometric mean of the axes).
        shadows: how many: sectors (cones in 3-D), each from a point of one of the faces inwards.
        depth: how much of the intensity a shadow takes, 0 to 1.
        width: smallest and largest half angle of a shadow, radians.
        patches: how many: ellipsoids of an intensity far from that of what they cover.
        opacity: how much of what is there a patch covers, 0 to 1.
        radius: smallest and largest half axis of a patch, shares of the edge.

    Raises:
        BadInput: a number is out of range.
    """

    speckle: float = 0.0
    grain: float = 0.7
    rician: float = 0.0
    drift: float = 0.0
    drift_scale: float = 0.3
    shadows: int = 0
    depth: float = 0.8
    width: tuple[float, float] = (0.08, 0.16)
    patches: int = 0
    opacity: float = 1.0
    radius: tuple[float, float] = (0.05, 0.1)

    def __post_init__(self) -> None:
        for name in ("speckle", "depth", "opacity"):
            check_share(f"the {name} of a nuisance", getattr(self, name))
        for name in ("grain", "rician", "drift", "shadows", "patches"):
            check_at_least(f"the {name} of a nuisance", getattr(self, name), 0)
        for name in ("shadows", "patches"):
            if getattr(self, name) != int(getattr(self, name)):
                raise BadInput(f"the number of {name} must be whole, got {getattr(self, name)}")
        check_at_least("the scale of drift", self.drift_scale, 1e-3)
        check_range("the width of shadows", self.width, 1e-3)
        check_range("the radius of patches", self.radius, 1e-3)

    def at(self, strength: float) -> NuisanceSettings:
        """The same things at the same places, as strong as a share says.

        Args:
            strength: 0 leaves an image as it is, 1 is `self`.

        Raises:
            BadInput: it is no share.
        """
        check_share("the strength of a nuisance", strength)
        names = ("speckle", "rician", "drift", "depth", "opacity")
        return replace(self, **{name: strength * getattr(self, name) for name in names})


class Corrupted(NamedTuple):
    """An image to which something was done.

    Args:
        image: (C, *S) float32, within the range of the image given.
        planted: (1, *S) bool, where shadows and patches change a channel by a tenth of the range or more: a shadow over what
            is dark is none. Noise and drift are everywhere and do not count.
    """

    image: Tensor
    planted: Tensor


def corrupt(image: Tensor, settings: NuisanceSettings, rng: np.random.Generator) -> Corrupted:
    """An image with patches, under shadows, with drift, speckle and noise, in this order.

    Args:
        image: (C, *S), 2 or 3 axes; all channels meet the same nuisances, noise but that of speckle is drawn for each.
        settings: what is done.
        rng: where the numbers come from.

    Raises:
        BadInput: the shape is not one of an image, or its voxels are not finite or all the same.
    """
    shape = tuple(image.shape[1:])
    check_shape(shape)
    values = image.detach().cpu().to(torch.float64)
    low, high = float(values.min()), float(values.max())
    if not bool(values.isfinite().all()):
        raise BadInput("an image that is corrupted must hold finite numbers, it holds NaN or inf")
    if not high > low:
        raise BadInput(f"an image of one intensity ({low:g}) has no range that a nuisance could be a share of")
    patches, shadows, drift, speckle, noise = rng.spawn(5)
    clean = (values - low) / (high - low)
    values = _with_patches(clean, settings, patches)
    values = values * (1 - settings.depth * _shade(shape, settings, shadows))
    planted = ((values - clean).abs() >= SEEN).any(0, keepdim=True)
    if settings.drift:
        values = values * random_field(1, shape, settings.drift_scale * _edge(shape), settings.drift, drift)[0].exp()
    if settings.speckle:
        values = values * (1 + settings.speckle * (_rayleigh(shape, settings.grain, speckle) / RAYLEIGH - 1))
    if settings.rician:
        real, other = (torch.from_numpy(noise.normal(0, settings.rician, values.shape)) for _ in range(2))
        values = torch.hypot(values + real, other)
    return Corrupted((low + (high - low) * values.clamp(0, 1)).to(torch.float32), planted)


def _with_patches(values: Tensor, settings: NuisanceSettings, rng: np.random.Generator) -> Tensor:
    """The image with patches; each is bright on dark ground, dark on bright ground."""
    shape = tuple(values.shape[1:])
    places = _places(shape)
    for _ in range(settings.patches):
        centre = torch.from_numpy(rng.uniform(*MIDDLE, len(shape)) * (np.array(shape) - 1))
        radii = torch.from_numpy(rng.uniform(*settings.radius, len(shape)) * _edge(shape))
        contrast = rng.uniform(0.4, 0.6)
        share = torch.sigmoid((1 - torch.linalg.vector_norm((places - centre) / radii, dim=-1)) * radii.mean() / SOFT[1])[None]
        ground = float((values * share).sum() / (share.sum() * len(values)))
        level = ground + (contrast if ground < 0.5 else -contrast)
        values = values + settings.opacity * share * (level - values)
    return values


def _shade(shape: tuple[int, ...], settings: NuisanceSettings, rng: np.random.Generator) -> Tensor:
    """(1, *S) between 0 and 1, how much of a voxel lies in a shadow."""
    shade = torch.zeros(shape, dtype=torch.float64)
    for _ in range(settings.shadows):
        face, side = int(rng.integers(len(shape))), int(rng.integers(2))
        apex = rng.uniform(*MIDDLE, len(shape)) * (np.array(shape) - 1)
        apex[face] = side * (shape[face] - 1)
        sideways = rng.normal(size=len(shape))
        sideways[face] = 0
        lean, half, begin = rng.uniform(0, APERTURE), rng.uniform(*settings.width), rng.uniform(0.1, 0.4) * shape[face]
        axis = np.sin(lean) * sideways / np.linalg.norm(sideways)
        axis[face] = np.cos(lean) * (1 - 2 * side)
        rays = _places(shape) - torch.from_numpy(apex)
        lengths = torch.linalg.vector_norm(rays, dim=-1)
        angles = torch.arccos(((rays @ torch.from_numpy(axis)) / lengths.clamp_min(1e-9)).clamp(-1, 1))
        found = torch.sigmoid((half - angles) / SOFT[0]) * torch.sigmoid((lengths - begin) / SOFT[1])
        shade = torch.maximum(shade, found)
    return shade[None]


def _rayleigh(shape: tuple[int, ...], grain: float, rng: np.random.Generator) -> Tensor:
    """(1, *S) lengths of complex normal numbers of variance 1 in both parts, correlated over `grain` voxels."""
    parts = torch.from_numpy(rng.normal(size=(2, 1, *shape)))
    if grain:
        parts = gaussian(parts, (grain,) * len(shape))
        parts = parts / parts.square().mean().sqrt()
    return torch.hypot(parts[0], parts[1])


def _places(shape: tuple[int, ...]) -> Tensor:
    """(*S, D) float64, voxels."""
    lines = [torch.arange(n, dtype=torch.float64) for n in shape]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1)


def _edge(shape: tuple[int, ...]) -> float:
    return float(np.prod(shape)) ** (1 / len(shape))
