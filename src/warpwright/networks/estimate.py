"""What a network says about a pair of images: a typed `Estimate`, which field layers turn into a displacement.

Every estimate knows the shape S of the fixed image that it is about, and the lattice that its values live on: that of
`Grid.downsample(factors)`, ceil(S / factors) points in the middle of the image. Vectors are in voxels *of that lattice*,
component order = axis order, and pull back: `moved(x) = moving(x + u(x))`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from warpwright.errors import BadInput

__all__ = [
    "Basis",
    "BasisLogits",
    "ControlPoints",
    "Displacement",
    "Estimate",
    "FieldKind",
    "LinearMap",
    "VectorKind",
    "Velocity",
    "VelocityDistribution",
    "components",
    "field",
]


@dataclass(frozen=True, kw_only=True)
class Basis:
    """Displacements on a regular grid around zero, over which a network gives a distribution for every voxel.

    Args:
        reach: largest component, voxels of the lattice that the network estimates on.
        step: between neighbours, voxels of the lattice.

    Raises:
        BadInput: the reach is no positive multiple of the step.
    """

    reach: float
    step: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.step <= self.reach < math.inf and abs(self.reach / self.step - self.around) < 1e-6):
            raise BadInput(f"a basis needs a reach that is a multiple of its step > 0, got {self.reach} and {self.step}")

    @property
    def around(self) -> int:
        """Displacements on either side of zero, along an axis."""
        return round(self.reach / self.step) if self.step else 0

    def vectors(self, dim: int) -> Tensor:
        """(m, D) float32, m = (2 reach / step + 1)^D, the last axis fastest."""
        line = torch.arange(-self.around, self.around + 1) * self.step
        return torch.cartesian_prod(*[line] * dim).reshape(-1, dim).float()


VectorKind = Literal["displacement", "velocity"]
FieldKind = VectorKind | Basis


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
        noise_error: (B,) mean squared error of a network that looks for the noise laid over the fixed image, 0 in evaluation
            mode, where none is; None of networks that look for none.
    """

    values: Tensor
    inverse: Tensor | None = None
    failed: Tensor | None = None
    noise_error: Tensor | None = None


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
    of: VectorKind


@dataclass(frozen=True, eq=False, kw_only=True)
class BasisLogits(Estimate):
    """Distributions over displacements.

    Args:
        values: (B, m, *T), logarithms of their probabilities but for a constant of each voxel.
        vectors: (m, D), the displacements, voxels of the lattice.
        basis: what they were laid out as.
    """

    values: Tensor
    vectors: Tensor
    basis: Basis


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearMap(Estimate):
    """A linear map with a shift, `x -> A (x - c) + c + t` with c the middle of the lattice.

    Args:
        values: (B, D, D+1), A and then t, voxels of the lattice.
    """

    values: Tensor


def components(kind: FieldKind, dim: int) -> int:
    """Channels that a network needs for a field of a kind."""
    return (2 * kind.around + 1) ** dim if isinstance(kind, Basis) else dim


def field(
    values: Tensor, kind: FieldKind, shape: tuple[int, ...], factors: tuple[int, ...], coarser: tuple[Estimate, ...] = ()
) -> Displacement | Velocity | BasisLogits:
    """`components(kind, D)` channels (B, C, *T), vectors in voxels of the lattice, as the kind that a network is to give."""
    if isinstance(kind, Basis):
        vectors = kind.vectors(len(shape)).to(values.device, torch.promote_types(values.dtype, torch.float32))
        return BasisLogits(values=values, vectors=vectors, basis=kind, shape=shape, factors=factors, coarser=coarser)
    cls = Velocity if kind == "velocity" else Displacement
    return cls(values=values, shape=shape, factors=factors, coarser=coarser)
