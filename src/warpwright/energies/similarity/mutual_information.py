"""Mutual information by Parzen windows.

    t = 1 + (intensity - low) / (high - low) * (bins - 3)              position among the bins, in [1, bins - 2]
    h(j, k) = sum_x w(x) b(t_fixed(x) - j) b(t_moved(x) - k)           b: the cubic B-spline, four bins wide
    p = h / sum(h),      MI = sum p log(p / (p_fixed p_moved))         nats

Low and high are each image's own, so a value of -1000 HU is as good as any other and a linear change of intensities changes
nothing. Source: Mattes et al., PET-CT image registration in the chest using free-form deformations, IEEE TMI 22 (2003),
doi:10.1109/TMI.2003.809072; here the B-spline window is on both images, so both have a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from warpwright.energies.similarity.base import Similarity
from warpwright.energies.similarity.intensity_range import intensity_ends
from warpwright.errors import BadInput
from warpwright.kernels import as_operator, usable

__all__ = ["MutualInformation"]

CHUNK = 1 << 15  # voxels whose (voxels, bins) matrix exists at one time
SLAB = 1 << 10  # voxels summed by one matrix product; a product of longer columns depends on the number of threads


@dataclass(frozen=True, kw_only=True)
class MutualInformation(Similarity):
    """Minus the mutual information, mean over channels (channel c of one image with channel c of the other).

    The ends of the intensity range are taken where the weight is positive, without gradient. A second derivative (a
    backward pass with `create_graph`) holds a (voxels, bins) matrix; value and gradient do not.

    Args:
        bins: bins of each image, >= 5.
        outliers: share of the voxels beyond each end of the range, which count as the end itself; 0 for minimum to maximum.
        normalised: `2 MI / (H_fixed + H_moved)` in place of MI, between 0 and 1, a rising function of Studholme's
            `(H_fixed + H_moved) / H_joint`.

    Raises:
        BadInput: a setting is out of range.
    """

    bins: int = 32
    outliers: float = 0.001
    normalised: bool = False

    def __post_init__(self) -> None:
        if self.bins < 5:
            raise BadInput(f"mutual information needs at least 5 bins, got bins = {self.bins}")
        if not 0 <= self.outliers < 0.5:
            raise BadInput(f"outliers is a share of the voxels in [0, 0.5), got {self.outliers}")

    def similarity(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        fixed, moved = cast(
            tuple[Tensor, Tensor],
            torch.broadcast_tensors(fixed, moved),  # pyright: ignore[reportUnknownMemberType]: not annotated
        )
        rows = moved.shape[:2]
        if weight is not None:
            weight = weight.expand(*rows, *moved.shape[2:]).reshape(rows.numel(), -1)
        fixed, moved = fixed.reshape(rows.numel(), -1), moved.reshape(rows.numel(), -1)
        of_fixed, of_moved = (intensity_ends(image, weight, self.outliers) for image in (fixed, moved))
        joint = (_joint if usable(fixed, moved, weight) else _plain)(fixed, moved, weight, of_fixed, of_moved, self.bins)
        total = joint.sum(2).sum(1)[:, None, None]  # axis by axis: one sum of all would depend on the number of threads
        p = joint / torch.where(total > 0, total, torch.ones_like(total))
        alone = _entropies(p.sum(1)) + _entropies(p.sum(2))
        information = alone - _entropies(p).sum(1)
        if self.normalised:
            information = 2 * information / torch.where(alone > 0, alone, torch.ones_like(alone))
        return -information.reshape(rows).mean(1)


def _entropies(p: Tensor) -> Tensor:
    """Minus the sum of p log p over the last axis, nats; an empty bin adds nothing and has a finite gradient."""
    return -(p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum(-1)


def _plain(fixed: Tensor, moved: Tensor, weight: Tensor | None, ends_fixed: Tensor, ends_moved: Tensor, bins: int) -> Tensor:
    """The histogram h of (R, N) intensities and weights: (R, bins, bins); no gradient in the ends."""
    positions = _positions(fixed, ends_fixed, bins), _positions(moved, ends_moved, bins)
    return cast(Callable[..., Tensor], _JointHistogram.apply)(*positions, weight, bins)


def _compiled(fixed: Tensor, moved: Tensor, weight: Tensor | None, ends_fixed: Tensor, ends_moved: Tensor, bins: int) -> Tensor:
    from warpwright.kernels import histogram

    return histogram.joint(fixed, moved, weight, ends_fixed, ends_moved, bins)


def _fake(fixed: Tensor, *others: Any) -> Tensor:
    bins = others[-1]
    return fixed.new_empty(len(fixed), bins, bins)


def _compiled_gradient(
    gradient: Tensor, own: Tensor, other: Tensor, weight: Tensor | None, ends_own: Tensor, ends_other: Tensor, slope: bool
) -> Tensor:
    from warpwright.kernels import histogram

    return histogram.pull_back(gradient, own, other, weight, ends_own, ends_other, slope=slope)


def _fake_gradient(gradient: Tensor, own: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(own, memory_format=torch.contiguous_format)


def _backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    fixed, moved, weight, ends_fixed, ends_moved = ctx.saved_tensors
    needed = ctx.needs_input_grad
    by_fixed = by_moved = by_weight = None
    turned = cotangent.transpose(1, 2)
    if needed[0]:
        by_fixed = _joint_gradient(turned, fixed, moved, weight, ends_fixed, ends_moved, True)
    if needed[1]:
        by_moved = _joint_gradient(cotangent, moved, fixed, weight, ends_moved, ends_fixed, True)
    if needed[2]:
        by_weight = _joint_gradient(cotangent, moved, fixed, None, ends_moved, ends_fixed, False)
    return by_fixed, by_moved, by_weight


_joint_gradient = as_operator("joint_histogram_gradient", _compiled_gradient, fake=_fake_gradient)
_joint = as_operator("joint_histogram", _compiled, fake=_fake, backward=_backward, twin=_plain)


def _positions(values: Tensor, ends: Tensor, bins: int) -> Tensor:
    """(R, N) intensities to positions among the bins, in [1, bins - 2]; 1 for a constant row."""
    low, high = ends[:, :, None].unbind(1)
    scale = torch.where(high > low, (bins - 3) / (high - low), torch.zeros_like(low))
    return ((values - low) * scale).clamp(0, bins - 3) + 1


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))


def _window(t: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """The four bins that (R, n) positions touch: their numbers, the B-spline's values and its slopes, (R, n, 4) each."""
    base = t.detach().floor().clamp(1, bins - 3)
    f = t - base
    g = 1 - f
    value = torch.stack([g**3 / 6, 2 / 3 - f**2 + f**3 / 2, 2 / 3 - g**2 + g**3 / 2, f**3 / 6], -1)
    slope = torch.stack([-(g**2) / 2, 1.5 * f**2 - 2 * f, 2 * g - 1.5 * g**2, f**2 / 2], -1)
    index = base.long()[..., None] + torch.arange(-1, 3, device=t.device)
    return index, value, slope


def _spread(index: Tensor, value: Tensor, bins: int) -> Tensor:
    """(R, n, 4) values at their bins as a dense (R, n, bins)."""
    return value.new_zeros(*index.shape[:2], bins).scatter_(2, index, value)


def _gram(left: Tensor, right: Tensor) -> Tensor:
    """`left^T right` of (R, n, bins) matrices, (R, bins, bins), summed in an order that threads do not change."""
    rows, count, bins = left.shape
    whole = count - count % SLAB
    slabs = [part[:, :whole].reshape(-1, SLAB, bins) for part in (left, right)]
    sums = torch.bmm(slabs[0].transpose(1, 2), slabs[1]).reshape(rows, -1, bins, bins).sum(1)
    return sums + left[:, whole:].transpose(1, 2) @ right[:, whole:]


class _JointHistogram(torch.autograd.Function):
    """(R, N) positions of both images and weights (or None) to h, (R, bins, bins); built and differentiated by chunks.

    With G the gradient in h, voxel x has `dE/dt_moved = w sum_jk b_j(t_fixed) G_jk b'_k(t_moved)`, and likewise for the
    fixed image and the weight. The rule is made of differentiable operations, so it has derivatives itself.
    """

    @staticmethod
    def forward(fixed: Tensor, moved: Tensor, weight: Tensor | None, bins: int) -> Tensor:
        out = fixed.new_zeros(len(fixed), bins, bins)
        for part in _chunks(fixed.shape[1]):
            index, value, _ = _window(fixed[:, part], bins)
            if weight is not None:
                value = value * weight[:, part, None]
            left = _spread(index, value, bins)
            index, value, _ = _window(moved[:, part], bins)
            out += _gram(left, _spread(index, value, bins))
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        *tensors, ctx.bins = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        fixed, moved, weight = ctx.saved_tensors
        (gradient,) = cotangents
        by_fixed = by_moved = by_weight = None
        if ctx.needs_input_grad[0]:
            slope, _ = _pull_back(fixed, moved, gradient.transpose(1, 2))
            by_fixed = slope if weight is None else slope * weight
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            slope, value = _pull_back(moved, fixed, gradient)
            by_moved = slope if weight is None else slope * weight
            by_weight = None if weight is None else value
        return by_fixed, by_moved, by_weight, None


def _pull_back(own: Tensor, other: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """`sum_jk b_j(other) G_jk b'_k(own)` and the same with `b_k`, (R, N) each."""
    bins = gradient.shape[1]
    slopes: list[Tensor] = []
    values: list[Tensor] = []
    for part in _chunks(own.shape[1]):
        index, value, _ = _window(other[:, part], bins)
        row = _spread(index, value, bins) @ gradient
        index, value, slope = _window(own[:, part], bins)
        row = row.gather(2, index)
        slopes.append((row * slope).sum(2))
        values.append((row * value).sum(2))
    return torch.cat(slopes, 1), torch.cat(values, 1)
