"""Pairs for tuning: real images with a planted difference of intensity or shape, and rendered label maps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from warpwright.geometry import Image, identity_points
from warpwright.sampling import gaussian
from warpwright.transforms import DisplacementField, resample

__all__ = ["contracted_heart", "remapped", "rendered"]

# the labels of SynthSeg's left and right structures, which look alike
BOTH_SIDES = ((2, 41), (3, 42), (4, 43), (7, 46), (8, 47), (10, 49), (11, 50), (12, 51), (13, 52), (17, 53), (18, 54))


def remapped(image: Image, seed: tuple[int, ...]) -> Image:
    """The image as another kind of scanner might show it: intensities bent, not one to one, and noise of 10 % of the range."""
    low, high = np.percentile(image.data.numpy(), (1, 99))
    x = ((image.data.float() - low) / (high - low)).clamp(0, 1)
    noise = np.random.default_rng(seed).normal(0, 0.1, size=tuple(x.shape))
    return Image(
        0.8 - 0.7 * x + 0.5 * torch.sin(3 * x) * x + torch.from_numpy(noise.astype(np.float32)), image.grid, image.name
    )


def contracted_heart(image: Image, labels: Image, seed: tuple[int, ...]) -> tuple[Image, Image, Image, Image]:
    """Fixed, moving, their labels: label 1 contracts within its slices, the rest bends by up to two voxels, noise on both."""
    generator = np.random.default_rng(seed)
    grid = image.grid
    voxels = identity_points(grid.shape, dtype=torch.float32, device=torch.device("cpu"))
    centre = (labels.data[0] == 1).nonzero().float().mean(0)
    away = voxels - centre.reshape(1, -1, *(1,) * grid.dim)
    away[:, -1] = 0
    inward = 0.55 * away * torch.exp(-away.square().sum(1, keepdim=True) / (2 * 16.0**2))
    rough = _smooth_noise(generator, grid.shape, (8.0, 8.0, 1.0))
    rough[:, -1] = 0
    bent = DisplacementField((inward + 2 * rough / rough.abs().max())[0], grid)
    level = 0.03 * float(np.percentile(image.data.numpy(), 99))
    fixed = resample(image, bent, grid)
    noisy = [
        Image(i.data + torch.from_numpy(generator.normal(0, level, i.data.shape).astype(np.float32)), grid, name)
        for i, name in ((fixed, "fixed"), (image, "moving"))
    ]
    return noisy[0], noisy[1], resample(labels, bent, grid, interpolation="nearest"), labels


def rendered(labels: Image, seed: tuple[int, ...], person: int) -> Image:
    """A label map as an image: one intensity a label (by `seed`; both sides alike), blur, noise (by `person`)."""
    table = torch.from_numpy(np.random.default_rng(seed).uniform(size=256).astype(np.float32))
    for left, right in BOTH_SIDES:
        table[right] = table[left]
    table[0] = 0
    noise = np.random.default_rng((*seed, person)).normal(0, 0.03, size=labels.grid.shape)
    smooth = gaussian(table[labels.data.long()][None], (0.5,) * labels.grid.dim)[0]
    return Image(smooth + torch.from_numpy(noise.astype(np.float32)), labels.grid, labels.name)


def _smooth_noise(generator: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> Tensor:
    noise = generator.normal(size=(1, len(shape), *shape)).astype(np.float32)
    return gaussian(torch.from_numpy(noise), sigma)
