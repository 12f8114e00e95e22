"""Fields on the lattice of the image: enlarged from a coarser one, or evaluated from a spline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

from torch import Tensor

from warpwright.layers.base import FieldLayer, LayerSettings
from warpwright.networks import ControlPoints, Displacement, Estimate, field
from warpwright.sampling import resize_displacement
from warpwright.transforms import bspline_displacement

__all__ = ["FullSize", "SplineField", "enlarged"]


@dataclass(frozen=True, kw_only=True)
class FullSize(LayerSettings):
    """`Displacement` on any lattice to `Displacement` on the image's own, linear between points, with its inverse."""

    def build(self, dim: int) -> FieldLayer:
        return Enlargement()


class Enlargement(FieldLayer):
    """As `FullSize` says."""

    name: ClassVar[str] = "fullsize"
    accepts: ClassVar[tuple[type[Estimate], ...]] = (Displacement,)

    def apply_to(self, estimate: Estimate) -> Estimate:
        return enlarged(cast(Displacement, estimate), estimate.factors)


def enlarged(given: Displacement, factors: Sequence[float]) -> Displacement:
    """A displacement on the image's own lattice, with its inverse.

    Args:
        given: on a lattice in the middle of the image.
        factors: voxels of the image to a point of the lattice, along each axis; fractions too.
    """
    ones = (1,) * len(given.shape)

    def resized(values: Tensor) -> Tensor:
        return resize_displacement(values, factors, given.shape, ones)

    inverse = None if given.inverse is None else resized(given.inverse)
    return replace(given, values=resized(given.values), inverse=inverse, factors=ones)


@dataclass(frozen=True, kw_only=True)
class SplineField(LayerSettings):
    """`ControlPoints` to the displacement or velocity that their cubic spline is, at every point of the lattice.

    Reference: de Vos et al., DLMIA 2017, arXiv 1704.06065 (a network that predicts control points); Qiu et al., MIDL 2021
    (control points of a velocity).
    """

    def build(self, dim: int) -> FieldLayer:
        return SplineEvaluation()


class SplineEvaluation(FieldLayer):
    """As `SplineField` says."""

    name: ClassVar[str] = "splinefield"
    accepts: ClassVar[tuple[type[Estimate], ...]] = (ControlPoints,)

    def apply_to(self, estimate: Estimate) -> Estimate:
        spline = cast(ControlPoints, estimate)
        lattice = tuple(-(-n // k) for n, k in zip(spline.shape, spline.factors, strict=True))
        values = bspline_displacement(spline.values, lattice, spline.knots)
        return field(values, spline.of, spline.shape, spline.factors)
