"""Images rendered from label maps in random contrasts, and pairs of two warps of one map: SynthMorph (TMI 2022), SynthSeg.

Steps and ranges are those of SynthMorph's published generator. Its random fields are values on a coarse lattice, linear in
between; here they are cubic B-splines (`random_field`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warpwright.data.synthetic.checks import check_at_least, check_labels, check_range, check_shape, check_share
from warpwright.data.synthetic.fields import random_field
from warpwright.data.synthetic.pair import SyntheticPair
from warpwright.sampling import gaussian, warp_labels
from warpwright.transforms import compose, exp

__all__ = ["ContrastSettings", "contrast_pair", "render_labels"]

WHITE = 255.0  # largest intensity before an image is brought to [0, 1]


@dataclass(frozen=True, kw_only=True)
class ContrastSettings:
    """Bounds of what is drawn for each image; distances are voxels.

    Args:
        means: bounds of the mean intensity of a label, of 255; background (label 0) begins at 0.
        deviations: bounds of the standard deviation within a label, of 255; background begins at 0.
        black: probability that background is 0 everywhere.
        blur: largest standard deviation of the Gaussian blur.
        bias: largest standard deviation of the logarithm of the bias field.
        bias_scale: distance of the bias field's control points.
        gamma: standard deviation of the logarithm of the exponent.
        noise: largest standard deviation of white noise on the finished image in [0, 1].
        velocity: largest standard deviation of the velocity that warps the labels, voxels per unit time. SynthMorph's script
            states 0.5 on a grid of half the resolution, which is 1 here.
        velocity_scale: distance of the velocity's control points.
    """

    means: tuple[float, float] = (25.0, 225.0)
    deviations: tuple[float, float] = (5.0, 25.0)
    black: float = 0.2
    blur: float = 1.0
    bias: float = 0.3
    bias_scale: float = 40.0
    gamma: float = 0.25
    noise: float = 0.0
    velocity: float = 1.0
    velocity_scale: float = 16.0

    def __post_init__(self) -> None:
        check_range("the means of labels", self.means, 0)
        check_range("the deviations within labels", self.deviations, 0)
        check_share("the probability of a black background", self.black)
        for name in ("blur", "bias", "gamma", "noise", "velocity"):
            check_at_least(f"the {name} of contrasts", getattr(self, name), 0)
        for name in ("bias_scale", "velocity_scale"):
            check_at_least(f"the {name} of contrasts", getattr(self, name), 1)


def contrast_pair(labels: Tensor, settings: ContrastSettings, rng: np.random.Generator) -> SyntheticPair:
    """Two random diffeomorphic warps of one label map, each rendered in a contrast of its own.

    With v and w the velocities of the fixed and the moving side, the labels are `L(exp(v))` and `L(exp(w))`, and the truth is
    `exp(-w) o exp(v)`. Both velocities are drawn before both images.

    Args:
        labels: (1, *S) integers, any values; 0 is background, which is also what lies outside the map.
        settings: bounds.
        rng: where the numbers come from.

    Returns:
        A pair with labels in the dtype given and the displacement.

    Raises:
        BadInput: the labels are no integers or have another shape than (1, *S) with 2 or 3 axes.
    """
    shape = tuple(labels.shape[1:])
    check_shape(shape)
    check_labels(labels, shape)
    velocities = [_random_velocity(shape, settings, rng) for _ in range(2)]
    fixed, moving = (warp_labels(labels[None], exp(velocity))[0] for velocity in velocities)
    return SyntheticPair(
        fixed=render_labels(fixed, settings, rng),
        moving=render_labels(moving, settings, rng),
        fixed_labels=fixed,
        moving_labels=moving,
        displacement=compose(exp(-velocities[1]), exp(velocities[0]))[0].to(torch.float32),
    )


def render_labels(labels: Tensor, settings: ContrastSettings, rng: np.random.Generator) -> Tensor:
    """An image of a label map: random intensities, blur, bias field, gamma, noise.

    Args:
        labels: (1, *S) integers.
        settings: bounds.
        rng: where the numbers come from.

    Returns:
        (1, *S) float32 in [0, 1].

    Raises:
        BadInput: the labels are no integers or have another shape than (1, *S) with 2 or 3 axes.
    """
    shape = tuple(labels.shape[1:])
    check_shape(shape)
    check_labels(labels, shape)
    image = torch.from_numpy(_painted(labels[0].numpy(), settings, rng))[None, None]
    image = gaussian(image, (rng.uniform(0, settings.blur),) * len(shape))
    bias = random_field(1, shape, settings.bias_scale, rng.uniform(0, settings.bias), rng)
    image = _stretched((image * bias.exp()).clamp(0, WHITE))
    image = image ** float(np.exp(rng.normal(0, settings.gamma)))
    noise = torch.from_numpy(rng.normal(0, rng.uniform(0, settings.noise), shape))
    return (image + noise).clamp(0, 1)[0].to(torch.float32)


def _painted(labels: np.ndarray, settings: ContrastSettings, rng: np.random.Generator) -> np.ndarray:
    """(*S) float64: a mean and a deviation for each label, white noise; perhaps a black background."""
    values, which = np.unique(labels, return_inverse=True)
    label = values != 0
    mean = rng.uniform(settings.means[0] * label, settings.means[1])
    deviation = rng.uniform(settings.deviations[0] * label, settings.deviations[1])
    which = which.reshape(labels.shape)
    image = mean[which] + deviation[which] * rng.normal(size=labels.shape)
    return image * (labels != 0) if rng.random() < settings.black else image


def _stretched(image: Tensor) -> Tensor:
    """From 0 to 1; zeros where all is the same."""
    least = image.min()
    return (image - least) / (image.max() - least).clamp_min(1e-12)


def _random_velocity(shape: tuple[int, ...], settings: ContrastSettings, rng: np.random.Generator) -> Tensor:
    return random_field(len(shape), shape, settings.velocity_scale, rng.uniform(0, settings.velocity), rng)
