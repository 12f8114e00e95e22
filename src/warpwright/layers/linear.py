"""The displacement of a linear map at every point of the lattice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from warpwright.layers.base import FieldLayer, LayerSettings
from warpwright.networks import Displacement, Estimate, LinearMap

__all__ = ["LinearField"]


@dataclass(frozen=True, kw_only=True)
class LinearField(LayerSettings):
    """`LinearMap` to `Displacement`, with that of the inverse map; both are exact at the points of the lattice.

    A map that cannot be inverted has an inverse that is not finite, which training refuses.
    """

    def build(self, dim: int) -> FieldLayer:
        return LinearEvaluation()


class LinearEvaluation(FieldLayer):
    """As `LinearField` says."""

    name: ClassVar[str] = "linearfield"
    accepts: ClassVar[tuple[type[Estimate], ...]] = (LinearMap,)

    def apply_to(self, estimate: Estimate) -> Estimate:
        given = cast(LinearMap, estimate)
        matrix, shift = given.values[..., :-1], given.values[..., -1:]
        lattice = tuple(-(-n // k) for n, k in zip(given.shape, given.factors, strict=True))
        back, _ = torch.linalg.inv_ex(matrix)
        return Displacement(
            values=displacement(matrix, shift, lattice),
            inverse=displacement(back, -back @ shift, lattice),
            shape=given.shape,
            factors=given.factors,
        )


def displacement(matrix: Tensor, shift: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`(A - I) (x - c) + t` with c the middle of the lattice: (B, D, D) and (B, D, 1) to (B, D, *shape)."""
    axes = [torch.arange(n, dtype=matrix.dtype, device=matrix.device) - (n - 1) / 2 for n in shape]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    return (matrix @ places - places + shift).reshape(len(matrix), len(shape), *shape)
