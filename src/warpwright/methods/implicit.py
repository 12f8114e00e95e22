"""A network whose answer is a solve: features of both images, and the transform that lays one onto the other.

The step of a model of the kind `implicit`. Fixed and moving images are looked at independently, by the same network; the
fields of all levels are handed on, so that a loss can look at each.

Reference: Jena et al., DIO, arXiv 2406.07361.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.energies.pairs import PairBatch
from warpwright.errors import BadInput
from warpwright.geometry import Grid, full_precision, spatial
from warpwright.methods.deformable import AnyFamily, Displacement
from warpwright.methods.prompting import Told
from warpwright.methods.solver_layer import AnyAdjoint, SolverLayer, Terms
from warpwright.methods.step import Step, Trail, laid_out
from warpwright.networks import Displacement as Field
from warpwright.networks.features import (
    FeatureExtractor,
    FeatureLKU,
    FeatureLKUEncoder,
    FeaturePyramid,
    FeatureUNet,
    FeatureUNetEncoder,
)
from warpwright.solver import LBFGS, Adam, AtRest, OneStep

__all__ = ["AnyFeatures", "Implicit", "Solving", "check_tolerance"]

AnyFeatures = FeatureUNet | FeatureUNetEncoder | FeatureLKU | FeatureLKUEncoder


@dataclass(frozen=True, kw_only=True)
class Implicit:
    """Features and the solver behind them.

    Args:
        features: the network that looks at either image.
        family: of the transform while training; lengths are mm.
        steps: bound on the solver's steps at every scale of the features, coarse to fine.
        tolerance: relative fall of the energy a step below which a pair stops at a level; None takes all steps.
        adjoint: how the solution is differentiated in the features.
        linked: whether a level is also differentiated in the solution of the coarser one, for which the adjoint is `Unroll`.
        one_sided: whether only the features of one of the two images, drawn at random, are differentiated in a step.
        told: labels and landmarks that the solve sees while training; None for none.

    Raises:
        BadInput: there are not as many steps as scales, or none, the tolerance is negative, levels are linked by another
            adjoint than `Unroll`, or the adjoint takes the solution for a point of rest, which `LBFGS` has no gradient for.
    """

    features: AnyFeatures = FeatureUNet()
    family: AnyFamily = Displacement(gradient_sigma=1.7, field_sigma=0.8, solver=Adam(length=1.0, damping=0.1, beta1=0.8))
    steps: tuple[int, ...] = (60, 40, 20)
    tolerance: float | None = None
    adjoint: AnyAdjoint = OneStep()
    linked: bool = False
    one_sided: bool = False
    told: Told | None = None

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.features.scales) or min(self.steps, default=0) < 1:
            scales = list(self.features.scales)
            raise BadInput(f"an implicit network needs at least 1 step for each of the scales {scales}, got {list(self.steps)}")
        check_tolerance(self.tolerance)
        if isinstance(self.family.solver, LBFGS) and isinstance(self.adjoint, AtRest):
            found = f"the adjoint {type(self.adjoint).__name__} has no gradient through the solver LBFGS"
            raise BadInput(f"{found}: expected another solver, such as Adam, or the adjoint Unroll")
        self.layer()  # refuses levels that the adjoint does not link

    def layer(self) -> SolverLayer:
        """The solver that it was trained with."""
        return SolverLayer(self.family, self.steps, tolerance=self.tolerance, adjoint=self.adjoint, linked=self.linked)


def check_tolerance(tolerance: float | None) -> None:
    """That a relative fall of the energy a step, below which a search of features stops, can be one; None stops nowhere.

    Raises:
        BadInput: it is negative, or NaN.
    """
    if tolerance is not None and not tolerance >= 0:
        raise BadInput(f"tolerance must be at least 0 or absent, got {tolerance}")


class Solving(Step):
    """As `Implicit` says, for pairs that lie on one grid.

    Args:
        settings: what it is made of.
        dim: axes of the images.
        channels: of each image.
        spacing: mm of a voxel along each axis.

    Raises:
        BadInput: there is no spacing, without which lengths have no meaning.
    """

    def __init__(self, settings: Implicit, dim: int, channels: int, spacing: tuple[float, ...] | None) -> None:
        super().__init__()
        if spacing is None:
            raise BadInput("an implicit network needs the spacing of the model's preparation, as its lengths are millimetres")
        self.settings = settings
        self.spacing = spacing
        self.features: FeatureExtractor = settings.features.build(dim, channels)
        laid_out(self.features, dim)
        self.solver = settings.layer()
        self.active = len(settings.steps)  # levels that are solved while training, from the coarsest on

    def pyramid(self, image: Tensor) -> FeaturePyramid:
        """Features of a batch of images (B, C, *S), in the images' dtype."""
        found = self.features(image)
        levels = tuple(level.to(image.dtype).contiguous() for level in found.levels)  # as the kernels of the solver want them
        return FeaturePyramid(levels=levels, factors=found.factors, before=found.before, offset=found.offset)

    def forward(self, fixed: Tensor, moving: Tensor, prompts: Terms | None = None) -> Trail:
        """The displacement, with those of coarser levels, all on the lattice of the images.

        Args:
            fixed: (B, C, *S).
            moving: (B, C, *S).
            prompts: further terms for a level.

        Raises:
            Failed: the features are not finite.
        """
        return self._between(*self._sides(fixed, moving), spatial(fixed), prompts)

    def both(self, fixed: Tensor, moving: Tensor, prompts: tuple[Terms | None, Terms | None]) -> tuple[Trail, Trail]:
        """As `forward` for the pair and for the swapped pair, whose features are the same and are found once.

        Args:
            fixed: (B, C, *S).
            moving: (B, C, *S).
            prompts: of either.

        Raises:
            Failed: the features are not finite.
        """
        one, other = self._sides(fixed, moving)
        there = self._between(one, other, spatial(fixed), prompts[0])
        return there, self._between(other, one, spatial(fixed), prompts[1])

    def _between(self, fixed: FeaturePyramid, moving: FeaturePyramid, shape: tuple[int, ...], prompts: Terms | None) -> Trail:
        grid = Grid.regular(shape, self.spacing)
        with full_precision(fixed.levels[0]):
            solved = self.solver(fixed, moving, (grid, grid), levels=self.active if self.training else None, terms=prompts)
            *coarser, values = solved.displacements
        coarser += [values] * (len(self.settings.steps) - len(coarser) - 1)  # levels that are not solved yet
        ones = (1,) * grid.dim
        levels = tuple(Field(values=u, shape=grid.shape, factors=ones) for u in coarser)
        return (Field(values=values, shape=grid.shape, factors=ones, coarser=levels, failed=solved.failed),)

    def told(self, batch: PairBatch) -> Terms | None:
        """What a solve of a batch is told: by chance and while training, else nothing."""
        told = self.settings.told
        if told is None or not self.training or bool(torch.rand(()) >= told.chance):
            return None
        grid = Grid.regular(spatial(batch.fixed), self.spacing)
        return lambda level: told.at(level, batch, grid)

    def _sides(self, fixed: Tensor, moving: Tensor) -> tuple[FeaturePyramid, FeaturePyramid]:
        if not (self.settings.one_sided and self.training and torch.is_grad_enabled()):
            return self.pyramid(fixed), self.pyramid(moving)
        learns = bool(torch.rand(()) < 0.5)  # the fixed side
        found: list[FeaturePyramid] = []
        for image, kept in ((fixed, learns), (moving, not learns)):
            with torch.set_grad_enabled(kept):
                found.append(self.pyramid(image))
        return found[0], found[1]
