"""A weighted sum of similarities as one similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Self

import torch
from torch import Tensor

from warpwright.energies.similarity.base import Similarity
from warpwright.energies.similarity.lncc import LNCC
from warpwright.energies.similarity.mind import MIND
from warpwright.energies.similarity.mse import MSE
from warpwright.energies.similarity.mutual_information import MutualInformation
from warpwright.errors import BadInput

__all__ = ["Term", "WeightedSum"]


@dataclass(frozen=True, kw_only=True)
class Term:
    """One similarity of a sum.

    Args:
        similarity: what is measured.
        weight: its factor, > 0.

    Raises:
        BadInput: the weight is not a positive number.
    """

    similarity: LNCC | MSE | MutualInformation | MIND
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (isfinite(self.weight) and self.weight > 0):
            raise BadInput(f"the weight of a similarity must be a positive number, got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class WeightedSum(Similarity):
    """Sum of `weight * similarity` over the parts. The moving image is warped once for all of them.

    Args:
        parts: at least one term.

    Raises:
        BadInput: there is no part.
    """

    parts: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise BadInput("a weighted sum of similarities needs at least one part, got none")

    def similarity(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        return torch.stack([part.weight * part.similarity.similarity(moved, fixed, weight) for part in self.parts]).sum(0)

    def for_spacing(self, spacing: Sequence[float]) -> Self:
        """Every part adapted to voxels of this size."""
        return replace(self, parts=tuple(replace(p, similarity=p.similarity.for_spacing(spacing)) for p in self.parts))

    def curvature(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        """Sum of the parts' curvatures; refused with the sentence of the first part that has none."""
        return torch.stack([part.weight * part.similarity.curvature(moved, fixed, weight) for part in self.parts]).sum(0)
