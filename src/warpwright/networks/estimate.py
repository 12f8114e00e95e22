"""What a network says about a pair of images: a typed `Estimate`, which field layers turn into a displacement.

Every estimate knows the shape S of the fixed image that it is about, and the lattice that its values live on: that of
`Grid.downsample(factors)`, ceil(S / factors) points in the middle of the image. Vectors are in voxels *of that lattice*,
component order = axis order, and pull back: `moved(x) = moving(x + u(x))`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["ControlPoints", "Displacement", "Estimate", "FieldKind", "LinearMap", "Velocity", "VelocityDistribution", "field"]

FieldKind = Literal["displacement", "velocity"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Estimate:
    """Base of all kinds.

    Args:
        shape: S, spatial shape of the fixed image.
        factors: voxels of the fixed image to a point of the lattice, along each axis; 1 is full resolution.
        coarser: estimates of the same kind on coarser lattices, coarse to fine, where a network has several heads.
    """

    shape: tuple[int, ...]
    factors: tuple[int, ...]
    coarser: tuple[Estimate, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Displacement(Estimate):
    """A displacement.

    Args:
        values: (B, D, *T), voxels of the lattice.
        inverse: displacement of the inverse map on the same lattice, if the model gives one.
        failed: (B,) for which pairs it means nothing, if it was searched for; None where nothing can fail.
    """

    values: Tensor
    inverse: Tensor | None = None
    failed: Tensor | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Velocity(Estimate):
    """A stationary velocity.

    Args:
        values: (B, D, *T), voxels of the lattice per unit time.
    """

    values: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class VelocityDistribution(Estimate):
    """Independent normal distributions of a stationary velocity.

    Args:
        mean: (B, D, *T), voxels of the lattice per unit time.
        log_variance: (B, D, *T), logarithm of the variance.
    """

    mean: Tensor
    log_variance: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class ControlPoints(Estimate):
    """Coefficients of a cubic B-spline.

    Args:
        values: (B, D, *K), voxels of the lattice, K = `transforms.bspline.control_shape(T, knots)`.
        knots: points of the lattice between knots along each axis.
        of: what the spline is.
    """

    values: Tensor
    knots: tuple[float, ...]
    of: FieldKind


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearMap(Estimate):
    """A linear map with a shift, `x -> A (x - c) + c + t` with c the middle of the lattice.

    Args:
        values: (B, D, D+1), A and then t, voxels of the lattice.
    """

    values: Tensor


def field(
    values: Tensor, kind: FieldKind, shape: tuple[int, ...], factors: tuple[int, ...], coarser: tuple[Estimate, ...] = ()
) -> Displacement | Velocity:
    """Vectors (B, D, *T), voxels of the lattice, as the kind that a network was told to give."""
    cls = Velocity if kind == "velocity" else Displacement
    return cls(values=values, shape=shape, factors=factors, coarser=coarser)
