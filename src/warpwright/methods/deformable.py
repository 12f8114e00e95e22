"""Deformable families: what the parameters are, how they become a displacement, how they are updated.

A family is a frozen dataclass; lengths are millimetres. Smoothing is Gaussian, its standard deviations hold at the finest
level and are k times wider where voxels are k times larger. Between levels a dense field is carried (a displacement, or
the velocity), in voxels. What a solver steps by is measured in the level's finest voxel along every axis, so that a step
and its bound are lengths in space: in a stack of thick slices nothing jumps from slice to slice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from warpwright.energies.regularity import AnyRegularity, in_millimetres
from warpwright.errors import BadInput
from warpwright.geometry import identity_points
from warpwright.methods.unfold import unfold
from warpwright.sampling import gaussian
from warpwright.solver import LBFGS, Adam, GaussNewton, GradientDescent, add
from warpwright.transforms import bspline_displacement, compose, exp, fit_bspline, log

__all__ = ["AffineField", "AnyFamily", "BSpline", "Displacement", "Family", "Greedy", "Scale", "Velocity"]

FieldSolver = Adam | GradientDescent | GaussNewton
Regularities = tuple[AnyRegularity, ...]


@dataclass(frozen=True)
class Scale:
    """The size of a level's voxels.

    Args:
        spacing: mm along each axis, at this level.
        factor: how many times larger than at the finest level.
    """

    spacing: tuple[float, ...]
    factor: float

    def voxels(self, length: float) -> list[float]:
        """A length given in mm for the finest level, in voxels of this level along each axis."""
        return [length * self.factor / s for s in self.spacing]

    def to_voxels(self, field: Tensor, *, owned: bool = False) -> Tensor:
        """Vectors (B, D, ...) in finest voxels of this level to voxels along each axis.

        `owned` ones are changed in place where there is no graph.
        """
        if self.isotropic:
            return field
        return field.mul_(self._ratio(field)) if owned and not torch.is_grad_enabled() else field * self._ratio(field)

    def from_voxels(self, field: Tensor) -> Tensor:
        """Vectors (B, D, ...) in voxels along each axis to finest voxels of this level."""
        return field if self.isotropic else field / self._ratio(field)

    @property
    def isotropic(self) -> bool:
        """Whether every axis has the same spacing, so that there is nothing to convert."""
        return max(self.spacing) == min(self.spacing)

    def _ratio(self, field: Tensor) -> Tensor:
        ratio = torch.tensor([min(self.spacing) / s for s in self.spacing], dtype=field.dtype, device=field.device)
        return ratio.reshape(1, -1, *(1,) * (field.ndim - 2))


class Family(ABC):
    """A deformable transform family: parameters of a level, and the field (1, D, *S) that levels hand on."""

    solver: FieldSolver | LBFGS
    regularities: Regularities
    additive: ClassVar[bool]  # whether an update is simply added, which L-BFGS needs

    @abstractmethod
    def lift(self, displacement: Tensor) -> Tensor:
        """The carried field of a displacement, both in voxels."""

    @abstractmethod
    def lower(self, carried: Tensor) -> Tensor:
        """The final displacement of a carried field, both in voxels."""

    @abstractmethod
    def parameters(self, carried: Tensor, scale: Scale) -> Tensor:
        """The parameters of a level that best give the carried field."""

    @abstractmethod
    def carried(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        """The carried field that the next level begins from, (1, D, *shape)."""

    @abstractmethod
    def displacement(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        """The displacement (1, D, *shape), voxels; differentiable."""

    @abstractmethod
    def precondition(self, gradient: Tensor, scale: Scale) -> Tensor:
        """The smoothed gradient."""

    @abstractmethod
    def retract(self, parameters: Tensor, update: Tensor, scale: Scale) -> Tensor:
        """The parameters after an update."""


@dataclass(frozen=True, kw_only=True)
class Dense(Family):
    """A family with one vector for each voxel, smoothed after every update.

    Args:
        gradient_sigma: smoothing of the update (fluid), mm.
        field_sigma: smoothing of the whole field (elastic), mm.
        solver: the step rule.
        regularities: further terms on the displacement.

    Raises:
        BadInput: a standard deviation is negative.
    """

    gradient_sigma: float
    field_sigma: float
    solver: FieldSolver
    regularities: Regularities = ()
    additive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if min(self.gradient_sigma, self.field_sigma) < 0:
            raise BadInput(f"sigmas must be at least 0 mm, got {self.gradient_sigma} and {self.field_sigma}")

    def parameters(self, carried: Tensor, scale: Scale) -> Tensor:
        return carried

    def carried(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        return parameters

    def precondition(self, gradient: Tensor, scale: Scale) -> Tensor:
        smooth = gaussian(gradient, scale.voxels(self.gradient_sigma))
        return scale.to_voxels(smooth, owned=True)  # the derivative in a length is that in voxels times voxels to the length


@dataclass(frozen=True, kw_only=True)
class Greedy(Dense):
    """Compositive diffeomorphic registration: `u <- smooth(v + u o (Id + v))` with a smoothed update v.

    Reference: Joshi et al., NeuroImage 23 (2004), doi 10.1016/j.neuroimage.2004.07.068; Yushkevich et al., Alzheimer's
        and Dementia 12 (2016), doi 10.1016/j.jalz.2016.06.205.
    """

    def lift(self, displacement: Tensor) -> Tensor:
        return displacement

    def lower(self, carried: Tensor) -> Tensor:
        return unfold(carried)

    def displacement(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        return parameters

    def retract(self, parameters: Tensor, update: Tensor, scale: Scale) -> Tensor:
        composed = compose(parameters, scale.to_voxels(update, owned=True), owned=True)
        return gaussian(composed, scale.voxels(self.field_sigma))


@dataclass(frozen=True, kw_only=True)
class Displacement(Dense):
    """Free-form displacement, added up: simple, may fold."""

    def lift(self, displacement: Tensor) -> Tensor:
        return displacement

    def lower(self, carried: Tensor) -> Tensor:
        return carried

    def displacement(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        return parameters

    def retract(self, parameters: Tensor, update: Tensor, scale: Scale) -> Tensor:
        return gaussian(parameters + scale.to_voxels(update, owned=True), scale.voxels(self.field_sigma))


@dataclass(frozen=True, kw_only=True)
class Velocity(Dense):
    """Stationary velocity field; the displacement is its exponential.

    Args:
        squarings: of the exponential.

    Reference: Ashburner, NeuroImage 38 (2007), doi 10.1016/j.neuroimage.2007.07.007.
    """

    squarings: int = 6

    def lift(self, displacement: Tensor) -> Tensor:
        return log(displacement, steps=self.squarings)[0]

    def lower(self, carried: Tensor) -> Tensor:
        return unfold(exp(carried, self.squarings))

    def displacement(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        return exp(parameters, self.squarings)

    def retract(self, parameters: Tensor, update: Tensor, scale: Scale) -> Tensor:
        return gaussian(parameters + scale.to_voxels(update, owned=True), scale.voxels(self.field_sigma))


@dataclass(frozen=True, kw_only=True)
class BSpline(Family):
    """Cubic B-spline free-form deformation.

    Args:
        knots: distance of control points at the finest level, mm.
        solver: the step rule.
        regularities: terms on the displacement (bending, as a rule).

    Reference: Rueckert et al., IEEE TMI 18 (1999), doi 10.1109/42.796284.
    """

    knots: float
    solver: LBFGS | Adam
    regularities: Regularities = ()
    additive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.knots > 0:
            raise BadInput(f"the distance of knots must be above 0 mm, got {self.knots}")

    def _knots(self, scale: Scale) -> list[float]:
        return [max(k, 1.0) for k in scale.voxels(self.knots)]

    def lift(self, displacement: Tensor) -> Tensor:
        return displacement

    def lower(self, carried: Tensor) -> Tensor:
        return carried

    def parameters(self, carried: Tensor, scale: Scale) -> Tensor:
        return fit_bspline(scale.from_voxels(carried), self._knots(scale))

    def carried(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        return self.displacement(parameters, shape, scale)

    def displacement(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        return bspline_displacement(scale.to_voxels(parameters), shape, self._knots(scale))

    def precondition(self, gradient: Tensor, scale: Scale) -> Tensor:
        return gradient

    def retract(self, parameters: Tensor, update: Tensor, scale: Scale) -> Tensor:
        return add(parameters, update)


@dataclass(frozen=True, kw_only=True)
class AffineField(Family):
    """An affine map as a displacement of every voxel, about the middle of the grid.

    Parameters (B, D (D+1)) are lengths in mm: a shift for each axis, and for each entry of the linear part how far it moves a
    point at half the mean extent of the grid.

    Args:
        solver: the step rule; its lengths are mm.
        regularities: terms on the displacement.
    """

    solver: LBFGS | Adam | GradientDescent
    regularities: Regularities = ()
    additive: ClassVar[bool] = True

    def lift(self, displacement: Tensor) -> Tensor:
        return displacement

    def lower(self, carried: Tensor) -> Tensor:
        return carried

    def parameters(self, carried: Tensor, scale: Scale) -> Tensor:
        """Least squares over all but the outermost voxels, whose values a change of grid repeats."""
        shape, dim = tuple(carried.shape[2:]), carried.shape[1]
        inner = tuple(slice(1, -1) if n > 2 + dim else slice(None) for n in shape)
        points = self._points(carried, scale)[(..., *inner)].flatten(1)
        wanted = in_millimetres(carried, scale.spacing)[(..., *inner)].flatten(2).transpose(1, 2)
        return torch.linalg.lstsq(points.T.expand(len(wanted), -1, -1), wanted).solution.transpose(1, 2).flatten(1)

    def carried(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        return self.displacement(parameters, shape, scale)

    def displacement(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        like = parameters.new_empty(1, len(shape), *shape)
        matrix = parameters.reshape(len(parameters), len(shape), len(shape) + 1)
        moved = torch.einsum("bij,j...->bi...", matrix, self._points(like, scale))
        return moved / torch.tensor(scale.spacing, dtype=moved.dtype, device=moved.device).reshape(-1, *(1,) * len(shape))

    def precondition(self, gradient: Tensor, scale: Scale) -> Tensor:
        return gradient

    def retract(self, parameters: Tensor, update: Tensor, scale: Scale) -> Tensor:
        return add(parameters, update)

    def _points(self, like: Tensor, scale: Scale) -> Tensor:
        """Places about the middle, half the mean extent being 1, and a 1 behind them: (D + 1, *S)."""
        shape = tuple(like.shape[2:])
        places = in_millimetres(identity_points(shape, dtype=like.dtype, device=like.device), scale.spacing)[0]
        middle = torch.tensor([(n - 1) / 2 * s for n, s in zip(shape, scale.spacing, strict=True)]).to(places)
        radius = sum(n * s for n, s in zip(shape, scale.spacing, strict=True)) / len(shape) / 2
        offset = (places - middle.reshape(-1, *(1,) * len(shape))) / radius
        return torch.cat([offset, torch.ones_like(offset[:1])])


AnyFamily = Greedy | Displacement | Velocity | BSpline | AffineField
