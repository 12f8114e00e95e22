"""Folding: a hinge on the Jacobian determinant of `x -> x + u(x)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from warpwright.energies.regularity.base import Regularity
from warpwright.geometry import jacobian_determinant

__all__ = ["Folding", "folding"]


def folding(displacement: Tensor, margin: float = 0.0) -> Tensor:
    """Mean of `max(0, margin - det J)`; a determinant is a ratio of volumes, so no spacing enters.

    Args:
        displacement: (B, D, *S), voxels.
        margin: smallest determinant that costs nothing.

    Returns:
        (B,), >= 0, without unit; 0 for the identity while `margin` <= 1.
    """
    return (margin - jacobian_determinant(displacement)).clamp_min(0).flatten(1).mean(1)


@dataclass(frozen=True, kw_only=True)
class Folding(Regularity):
    """`folding` as a term of an energy."""

    margin: float = 0.0

    def regularity(self, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
        del spacing  # determinants have no unit
        return folding(displacement, self.margin)
