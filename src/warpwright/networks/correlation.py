"""Distributions over displacements from features that are compared: a shared encoder and a local cost volume.

Reference: the head that SmoothProper (Zhang et al., IPMI 2025, arXiv 2506.10813) is tried with here; the paper's is not known.
Features are compared by their mean squared difference, whose scale is learned, as in Heinrich, MICCAI 2019 (arXiv 1907.10931).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.networks.base import Architecture, Estimator
from warpwright.networks.encoder import Encoder
from warpwright.networks.estimate import Basis, BasisLogits

__all__ = ["Correlation", "Matcher", "squared_differences"]

SCALE = 2.0  # logarithm of the factor that squared differences begin with


@dataclass(frozen=True, kw_only=True)
class Correlation(Architecture):
    """Distributions over the displacements within a reach, on the lattice of an encoder's finest level.

    Memory while training: 4 bytes times (2 reach + 1)^D for each voxel of the lattice, about four times over.

    Args:
        encoder: of either image; its coarser levels are not used.
        reach: largest component of a displacement, whole voxels of the lattice.

    Raises:
        BadInput: the reach is below 1, or the encoder has coarser levels.
    """

    encoder: Encoder = Encoder()
    reach: int = 5

    def __post_init__(self) -> None:
        if self.reach < 1 or len(self.encoder.factors) > 1:
            raise BadInput(f"a correlation needs a reach of at least 1 and an encoder of one level of features, got {self}")

    def build(self, dim: int, channels: int = 1) -> CorrelationNetwork:
        return CorrelationNetwork(self, dim, channels)


class CorrelationNetwork(Estimator):
    """See `Correlation`."""

    def __init__(self, settings: Correlation, dim: int, channels: int) -> None:
        super().__init__()
        self.factors = settings.encoder.factors * dim
        self.encoder = settings.encoder.build(dim, channels)
        self.matcher = Matcher(settings.reach, dim)

    def forward(self, fixed: Tensor, moving: Tensor) -> BasisLogits:
        (one,), (two,) = ((level.to(image.dtype) for level in self.encoder(image)) for image in (fixed, moving))
        return self.matcher(one, two, tuple(fixed.shape[2:]), self.factors)


class Matcher(nn.Module):
    """From features of both images on one lattice to distributions over displacements; the scale of the logits is learned."""

    def __init__(self, reach: int, dim: int) -> None:
        super().__init__()
        self.basis = Basis(reach=reach)
        self.scale = nn.Parameter(torch.tensor(SCALE))
        self.offsets: list[list[int]] = self.basis.vectors(dim).long().tolist()

    def forward(self, fixed: Tensor, moving: Tensor, shape: tuple[int, ...], factors: tuple[int, ...]) -> BasisLogits:
        """The distributions for features (B, C, *T) of images of `shape`, whose lattice has `factors`."""
        values = -self.scale.exp() * squared_differences(fixed, moving, self.offsets)
        vectors = self.basis.vectors(len(shape)).to(values)
        return BasisLogits(values=values, vectors=vectors, basis=self.basis, shape=shape, factors=factors)


def squared_differences(fixed: Tensor, moving: Tensor, offsets: list[list[int]]) -> Tensor:
    """Mean squared difference over channels of every voxel and the one that an offset leads to; borders are repeated.

    What is kept for the backward pass does not grow with the offsets, but for the result.

    Args:
        fixed: (B, C, *S).
        moving: (B, C, *S).
        offsets: m of D whole voxels.

    Returns:
        (B, m, *S).
    """
    shape = fixed.shape[2:]
    reach = max(abs(k) for offset in offsets for k in offset)
    wide = F.pad(moving, (reach, reach) * len(shape), mode="replicate")
    squares, wide_squares = fixed.square().mean(1, keepdim=True), wide.square().mean(1, keepdim=True)
    costs: list[Tensor] = []
    for offset in offsets:
        there = (..., *(slice(reach + k, reach + k + n) for k, n in zip(offset, shape, strict=True)))
        costs.append(squares + wide_squares[there] - 2 * (fixed * wide[there]).mean(1, keepdim=True))
    return torch.cat(costs, 1)
