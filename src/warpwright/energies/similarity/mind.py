"""MIND-SSC: an image described by how patches around each voxel resemble one another, whatever the contrast.

    d_k(x) = mean over the patch around x of (I(y + o_k) - I(y + o'_k))^2
    m_k(x) = exp(-(d_k(x) - min_k d_k(x)) / V(x)),      V = mean_k (d_k - min_k d_k), kept within [1e-3, 1e3] of its mean

(o, o') are the pairs of face neighbours of x, `dilation` voxels away, that lie on different axes: 12 in 3-D, 4 in 2-D.
Source: Heinrich et al., Towards realtime multimodal fusion for image-guided interventions using self-similarities, MICCAI
2013, doi:10.1007/978-3-642-40811-3_24; the border voxel is repeated and a patch at the border counts what it covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Self, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from warpwright.energies.similarity.base import Pointwise, for_axes, reduce
from warpwright.energies.similarity.swept import as_energy
from warpwright.errors import BadInput
from warpwright.geometry import spatial
from warpwright.kernels import as_operator, usable
from warpwright.sampling import box_sum

__all__ = ["MIND", "descriptor"]

VARIANCE_RANGE = (1e-3, 1e3)  # of V, in units of its mean over the image


@dataclass(frozen=True, kw_only=True)
class MIND(Pointwise):
    """Mean squared difference of the MIND-SSC descriptors of both images; zero at agreement, at most 1.

    The weight applies to the differences of descriptors; a descriptor sees `radius + dilation` voxels along an axis (and,
    through the bounds of V, faintly the whole image).

    Args:
        radius: of the patch, a box of 2 radius + 1 voxels, >= 0. One number, or one for each axis.
        dilation: distance of the neighbours, voxels, >= 1. One number, or one for each axis.

    Raises:
        BadInput: a setting is out of range; of an image or a spacing: there is not one number for each of its axes.
    """

    radius: int | tuple[int, ...] = 1
    dilation: int | tuple[int, ...] = 1

    def __post_init__(self) -> None:
        radius, dilation = ((s,) if isinstance(s, int) else s for s in (self.radius, self.dilation))
        if min(radius, default=-1) < 0 or min(dilation, default=0) < 1:
            raise BadInput(f"MIND needs radius >= 0 and dilation >= 1, got radius = {self.radius}, dilation = {self.dilation}")

    def for_spacing(self, spacing: Sequence[float]) -> Self:
        """The same lengths in millimetres: numbers count voxels of the finest axis; a neighbour is at least one voxel away."""
        ratios = [min(spacing) / s for s in spacing]
        radius = for_axes(self.radius, len(spacing), "MIND has a radius")
        if isinstance(self.radius, int):
            radius = tuple(round(r * ratio) for r, ratio in zip(radius, ratios, strict=True))
        dilation = for_axes(self.dilation, len(spacing), "MIND has a dilation")
        if isinstance(self.dilation, int):
            dilation = tuple(max(round(d * ratio), 1) for d, ratio in zip(dilation, ratios, strict=True))
        return replace(self, radius=radius, dilation=dilation)

    def residual_map(self, moved: Tensor, fixed: Tensor) -> Tensor:
        difference = descriptor(moved, self.radius, self.dilation) - descriptor(fixed, self.radius, self.dilation)
        return difference.square().mean(1, keepdim=True)

    def similarity(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        tracing = torch.is_grad_enabled()
        others = tracing and (fixed.requires_grad or (weight is not None and weight.requires_grad))
        if others or not usable(moved, fixed, weight):
            return super().similarity(moved, fixed, weight)
        moved, fixed = cast(
            tuple[Tensor, Tensor],
            torch.broadcast_tensors(moved, fixed),  # pyright: ignore[reportUnknownMemberType]: not annotated
        )
        shape = spatial(moved)
        weight = None if weight is None else weight.expand(-1, 1, *shape)
        radius = for_axes(self.radius, len(shape), "MIND has a radius")
        dilation = for_axes(self.dilation, len(shape), "MIND has a dilation")
        return _mind(moved, fixed, weight, radius, dilation, tracing and moved.requires_grad)[0]


def _compiled(
    moved: Tensor, fixed: Tensor, weight: Tensor | None, radius: Sequence[int], dilation: Sequence[int], gradient: bool
) -> tuple[Tensor, Tensor]:
    """Energies (B,) and, with `gradient`, their derivatives in the moved image; else (0, C, *S)."""
    from warpwright.kernels.descriptor import similarity

    return similarity(moved, fixed, weight, tuple(radius), tuple(dilation), VARIANCE_RANGE, gradient=gradient)


def _fake(moved: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return moved.new_empty(len(moved)), moved.new_empty(len(moved) if others[-1] else 0, *moved.shape[1:])


def _twin(
    moved: Tensor, fixed: Tensor, weight: Tensor | None, radius: Sequence[int], dilation: Sequence[int], gradient: bool
) -> Tensor:
    difference = _plain(moved, radius, dilation) - _plain(fixed, radius, dilation)
    return reduce(difference.square().mean(1, keepdim=True), weight)


_mind = as_energy("mind", _compiled, fake=_fake, twin=_twin)


def descriptor(image: Tensor, radius: int | tuple[int, ...] = 1, dilation: int | tuple[int, ...] = 1) -> Tensor:
    """MIND-SSC descriptor of every channel of an image.

    Args:
        image: (B, C, *S).
        radius: of the patch, voxels; one number, or one for each axis.
        dilation: distance of the neighbours, voxels; one number, or one for each axis.

    Returns:
        (B, C * K, *S) in (0, 1], the largest of each channel's K = 2 D (D - 1) is 1; all 1 where the image is constant.
    """
    shape = spatial(image)
    box = for_axes(radius, len(shape), "MIND has a radius")
    distance = for_axes(dilation, len(shape), "MIND has a dilation")
    compiled = usable(image) and not (image.requires_grad and torch.is_grad_enabled())
    return (_descriptor if compiled else _plain)(image, box, distance)


def _compiled_descriptor(image: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    from warpwright.kernels.descriptor import mind

    return mind(image, tuple(radius), tuple(dilation), VARIANCE_RANGE)


def _fake_descriptor(image: Tensor, *_: Any) -> Tensor:
    shape = spatial(image)
    return image.new_empty(len(image), image.shape[1] * 2 * len(shape) * (len(shape) - 1), *shape)


_descriptor = as_operator("mind_descriptor", _compiled_descriptor, fake=_fake_descriptor)


def _plain(image: Tensor, radius: Sequence[int], dilation: Sequence[int]) -> Tensor:
    shape = spatial(image)
    alone = image.reshape(-1, 1, *shape)
    pairs = _pair_differences(alone, dilation)
    total = box_sum(pairs, radius)  # d_k times the number of voxels in the patch
    count = box_sum(torch.ones_like(alone[:1]), radius)
    distance = total - total.amin(1, keepdim=True)
    variance = distance.mean(1, keepdim=True) / count
    typical = variance.mean(tuple(range(1, variance.ndim)), keepdim=True)
    low, high = (bound * typical for bound in VARIANCE_RANGE)
    variance = torch.minimum(torch.maximum(variance, low), high).masked_fill(typical == 0, 1)
    out = torch.exp(distance / -(variance * count))
    return out.reshape(len(image), -1, *shape)


def _pair_differences(image: Tensor, dilation: Sequence[int]) -> Tensor:
    """Squared differences of the pairs of neighbours: (B, 1, *S) to (B, K, *S)."""
    shape = spatial(image)
    padded = F.pad(image, [d for d in reversed(dilation) for _ in (0, 1)], mode="replicate")
    neighbours = [(axis, 2 * dilation[axis] * side) for axis in range(len(shape)) for side in (0, 1)]

    def shifted(axis: int, start: int) -> Tensor:
        begins = [start if a == axis else d for a, d in enumerate(dilation)]
        return padded[(slice(None), slice(None), *(slice(begin, begin + n) for begin, n in zip(begins, shape, strict=True)))]

    pairs = [(one, two) for one, two in combinations(neighbours, 2) if one[0] != two[0]]
    return torch.cat([(shifted(*one) - shifted(*two)).square() for one, two in pairs], 1)
