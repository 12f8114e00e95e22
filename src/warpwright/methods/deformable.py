"""Deformable families: what the parameters are, how they become a displacement, how they are updated.

A family is a frozen dataclass; lengths are millimetres. Smoothing is Gaussian, its standard deviations hold at the finest
level and are k times wider where voxels are k times larger. Between levels a dense field is carried (a displacement, or
the velocity), in voxels. What a solver sees is measured in the level's finest voxel along every axis, so that a step and
its bound are lengths in space: in a stack of thick slices nothing jumps from slice to slice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.energies.regularity import Bending, Diffusion, Folding, TotalVariation
from warpwright.sampling import gaussian
from warpwright.solver import LBFGS, Adam, GaussNewton, GradientDescent, add
from warpwright.transforms import bspline_displacement, compose, exp, fit_bspline, log

__all__ = ["AnyFamily", "BSpline", "Displacement", "Family", "Greedy", "Scale", "Velocity"]

FieldSolver = Adam | GradientDescent | GaussNewton
Regularities = tuple[Diffusion | TotalVariation | Bending | Folding, ...]


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

    def to_voxels(self, field: Tensor) -> Tensor:
        """Vectors (B, D, ...) in finest voxels of this level to voxels along each axis."""
        return field * self._ratio(field)

    def from_voxels(self, field: Tensor) -> Tensor:
        """Vectors (B, D, ...) in voxels along each axis to finest voxels of this level."""
        return field / self._ratio(field)

    def _ratio(self, field: Tensor) -> Tensor:
        ratio = torch.tensor([min(self.spacing) / s for s in self.spacing], dtype=field.dtype, device=field.device)
        return ratio.reshape(1, -1, *(1,) * (field.ndim - 2))


class Family(ABC):
    """A deformable transform family."""

    solver: FieldSolver | LBFGS
    regularities: Regularities

    def lift(self, displacement: Tensor) -> Tensor:
        """The carried field of a displacement (1, D, *S)."""
        return displacement

    def lower(self, carried: Tensor) -> Tensor:
        """The displacement of a carried field."""
        return carried

    def parameters(self, carried: Tensor, scale: Scale) -> Tensor:
        """The parameters of a level that best give the carried field."""
        return scale.from_voxels(carried)

    def carried(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        """The dense field (1, D, *shape) that the next level begins from."""
        return scale.to_voxels(parameters)

    @abstractmethod
    def displacement(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        """The displacement (1, D, *shape), voxels; differentiable."""

    def precondition(self, gradient: Tensor, scale: Scale) -> Tensor:
        """The smoothed gradient."""
        return gradient

    def retract(self, parameters: Tensor, update: Tensor, scale: Scale) -> Tensor:
        """The parameters after an update."""
        return add(parameters, update)


@dataclass(frozen=True, kw_only=True)
class Greedy(Family):
    """Compositive diffeomorphic registration: `u <- smooth(v + u o (Id + v))` with a smoothed update v.

    Args:
        gradient_sigma: smoothing of the update (fluid), mm.
        field_sigma: smoothing of the whole displacement (elastic), mm.
        solver: the step rule.
        regularities: further terms on the displacement.

    Reference: Joshi et al., NeuroImage 23 (2004), doi 10.1016/j.neuroimage.2004.07.068; Yushkevich et al., Alzheimer's
        and Dementia 12 (2016), doi 10.1016/j.jalz.2016.06.205.
    """

    gradient_sigma: float
    field_sigma: float
    solver: FieldSolver
    regularities: Regularities = ()

    def displacement(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        return scale.to_voxels(parameters)

    def precondition(self, gradient: Tensor, scale: Scale) -> Tensor:
        return gaussian(gradient, scale.voxels(self.gradient_sigma))

    def retract(self, parameters: Tensor, update: Tensor, scale: Scale) -> Tensor:
        composed = compose(scale.to_voxels(parameters), scale.to_voxels(update))
        return gaussian(scale.from_voxels(composed), scale.voxels(self.field_sigma))


@dataclass(frozen=True, kw_only=True)
class Displacement(Family):
    """Free-form displacement, added up: fast, may fold.

    Args: as `Greedy`.
    """

    gradient_sigma: float
    field_sigma: float
    solver: FieldSolver
    regularities: Regularities = ()

    def displacement(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        return scale.to_voxels(parameters)

    def precondition(self, gradient: Tensor, scale: Scale) -> Tensor:
        return gaussian(gradient, scale.voxels(self.gradient_sigma))

    def retract(self, parameters: Tensor, update: Tensor, scale: Scale) -> Tensor:
        return gaussian(parameters + update, scale.voxels(self.field_sigma))


@dataclass(frozen=True, kw_only=True)
class Velocity(Family):
    """Stationary velocity field, exponentiated; the inverse is the exponential of its negative.

    Args:
        gradient_sigma: smoothing of the update, mm.
        field_sigma: smoothing of the whole velocity, mm.
        solver: the step rule.
        squarings: of the exponential.
        regularities: further terms on the displacement.

    Reference: Ashburner, NeuroImage 38 (2007), doi 10.1016/j.neuroimage.2007.07.007.
    """

    gradient_sigma: float
    field_sigma: float
    solver: FieldSolver
    squarings: int = 6
    regularities: Regularities = ()

    def lift(self, displacement: Tensor) -> Tensor:
        return log(displacement, steps=self.squarings)[0]

    def lower(self, carried: Tensor) -> Tensor:
        return exp(carried, self.squarings)

    def displacement(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        return exp(scale.to_voxels(parameters), self.squarings)

    def precondition(self, gradient: Tensor, scale: Scale) -> Tensor:
        return gaussian(gradient, scale.voxels(self.gradient_sigma))

    def retract(self, parameters: Tensor, update: Tensor, scale: Scale) -> Tensor:
        return gaussian(parameters + update, scale.voxels(self.field_sigma))


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

    def _knots(self, scale: Scale) -> list[float]:
        return [max(k, 1.0) for k in scale.voxels(self.knots)]

    def parameters(self, carried: Tensor, scale: Scale) -> Tensor:
        return fit_bspline(scale.from_voxels(carried), self._knots(scale))

    def carried(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        return self.displacement(parameters, shape, scale)

    def displacement(self, parameters: Tensor, shape: Sequence[int], scale: Scale) -> Tensor:
        return bspline_displacement(scale.to_voxels(parameters), shape, self._knots(scale))


AnyFamily = Greedy | Displacement | Velocity | BSpline
