"""Prompts: what a person marked in both images, as energies. Labels overlap (`SoftDice`), points meet (`Landmarks`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.similarity.base import Similarity
from warpwright.errors import BadInput
from warpwright.geometry import affine_points
from warpwright.sampling import gaussian, sample

__all__ = ["Landmarks", "SoftDice", "label_channels", "label_values", "landmark_energy", "soft_dice"]


def label_values(*labels: Tensor) -> tuple[int, ...]:
    """The labels other than 0 that occur in any of the tensors, in rising order."""
    found = {int(value) for one in labels for value in np.unique(one.cpu().numpy())}
    return tuple(sorted(found - {0}))


def label_channels(
    labels: Tensor, values: Sequence[int], sigma: Sequence[float] | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A channel for each label: 1 inside, 0 outside, or softened by a Gaussian.

    Args:
        labels: (B, 1, *S) integers.
        values: the L labels that become channels, in this order.
        sigma: standard deviation of the softening along each axis, voxels; None for hard channels.
        dtype: floating dtype of the channels.

    Returns:
        (B, L, *S) in [0, 1].

    Raises:
        BadInput: the labels have several channels, or no value is given.
    """
    if labels.shape[1] != 1 or not len(values):
        found = f"{labels.shape[1]} channels, {len(values)} values"
        raise BadInput(f"label_channels needs one channel of labels and at least one value, got {found}")
    hard = torch.cat([labels == value for value in values], 1).to(dtype)
    return hard if sigma is None else gaussian(hard, sigma)


def soft_dice(fixed: Tensor, moved: Tensor, weight: Tensor | None = None) -> Tensor:
    """One minus the soft Dice overlap `2 sum(w f m) / sum(w (f^2 + m^2))`, mean over classes.

    A class absent from both images does not count. Source: Milletari et al., V-Net, 3DV 2016, doi:10.1109/3DV.2016.79,
    equation of section 3; the squares make it zero for equal soft labels.

    Args:
        fixed: (B, L, *S) channels in [0, 1], one for each class.
        moved: (B, L, *S).
        weight: (B, 1, *S), >= 0; None for one everywhere.

    Returns:
        (B,) in [0, 1]; 0 where no class is present.
    """
    w = 1 if weight is None else weight
    both = (w * fixed * moved).flatten(2).sum(2)
    size = (w * (fixed.square() + moved.square())).flatten(2).sum(2)
    present = size > 0
    dice = 2 * both / torch.where(present, size, torch.ones_like(size))
    return ((1 - dice) * present).sum(1) / present.sum(1).clamp_min(1)


@dataclass(frozen=True, kw_only=True)
class SoftDice(Similarity):
    """`soft_dice` of label channels: a similarity whose images are what `label_channels` gives."""

    def similarity(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        return soft_dice(fixed, moved, weight)


def landmark_energy(
    displacement: Tensor,
    fixed_points: Tensor,
    moving_points: Tensor,
    affine: np.ndarray | Tensor | None = None,
    *,
    spacing: Sequence[float] | None = None,
    threshold: float | None = None,
) -> Tensor:
    """Mean squared (or Huber) distance between `affine (p + u(p))` and `q` over pairs of points (p, q).

    With a threshold t a distance d counts d^2 up to t and 2 t d - t^2 beyond, so that a few wrong pairs cannot rule.

    Args:
        displacement: (B, D, *S), voxels of the fixed grid; read linearly between voxels, its border repeated.
        fixed_points: (B, N, D) or (1, N, D), p, voxels of the fixed grid.
        moving_points: (B, N, D) or (1, N, D), q, voxels of the moving grid.
        affine: fixed voxels to moving voxels, (D+1, D+1) or (B, D+1, D+1); None for the identity.
        spacing: mm per voxel of the moving grid along each axis, for distances in mm; None for distances in voxels.
        threshold: t, in the unit of the distances; None for squared distances throughout.

    Returns:
        (B,) in squared units of the distances; 0 for N = 0.

    Raises:
        BadInput: the two sets of points differ in shape or do not fit the dimension, or the threshold is not positive.
    """
    dim = displacement.shape[1]
    if fixed_points.shape[1:] != moving_points.shape[1:] or fixed_points.shape[-1] != dim:
        found = f"{tuple(fixed_points.shape)}, {tuple(moving_points.shape)}"
        raise BadInput(f"landmarks of {dim}-D images must be two sets of one shape (B, N, {dim}), got {found}")
    if threshold is not None and threshold <= 0:
        raise BadInput(f"the threshold of the landmark energy must be > 0, got {threshold}")
    count = fixed_points.shape[1]
    if not count:
        return displacement.flatten(1).sum(1) * 0
    dtype = torch.promote_types(displacement.dtype, torch.float32)
    start, end = (p.to(displacement.device, dtype).transpose(1, 2) for p in (fixed_points, moving_points))
    reached = start + sample(displacement, start)
    if affine is not None:
        reached = affine_points(affine, reached)
    difference = reached - end
    if spacing is not None:
        difference = difference * torch.tensor(spacing, dtype=difference.dtype, device=difference.device)[:, None]
    squared = difference.square().sum(1)
    return (squared if threshold is None else _huber(squared, threshold)).mean(1)


def _huber(squared: Tensor, threshold: float) -> Tensor:
    """d^2 to d^2 where d <= threshold, else 2 threshold d - threshold^2."""
    far = squared > threshold**2
    distance = torch.where(far, squared, torch.full_like(squared, threshold**2)).sqrt()
    return torch.where(far, 2 * threshold * distance - threshold**2, squared)


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """Settings of `landmark_energy`.

    Args:
        threshold: distance beyond which a pair counts linearly, mm when `energy` is given a spacing, else voxels; None for
            squared distances throughout.
    """

    threshold: float | None = None

    def energy(
        self,
        displacement: Tensor,
        fixed_points: Tensor,
        moving_points: Tensor,
        affine: np.ndarray | Tensor | None = None,
        spacing: Sequence[float] | None = None,
    ) -> Tensor:
        """`landmark_energy` with these settings: (B,)."""
        return landmark_energy(displacement, fixed_points, moving_points, affine, spacing=spacing, threshold=self.threshold)
