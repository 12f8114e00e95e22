"""The classical solver as a layer behind features: an `nn.Module` whose output can be differentiated in its input.

The loop is the one of `register`, run on features in place of images; what is solved is not remembered step by step, so memory
does not grow with the steps (but for `Unroll`).

Reference: Jena et al., DIO, Medical Image Analysis 103 (2025), doi 10.1016/j.media.2025.103577, arXiv 2406.07361. Steps are
normalised (`Adam`, relative to the gradient), and features divided by their deviation, so that what is found does not depend
on their scale, and weights of regularities and prompts mean the same for all; in the public code it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from warpwright.energies.regularity import Regularity
from warpwright.energies.similarity import MSE
from warpwright.errors import BadInput, Failed
from warpwright.geometry import Grid, spatial
from warpwright.methods.deformable import AnyFamily
from warpwright.methods.levels import Carried, Lattice, Level, Pair
from warpwright.methods.solve import Task, solve_levels
from warpwright.networks.features import FeaturePyramid
from warpwright.solver import Krylov, OneStep, Solution, Status, Truncated, Unroll

__all__ = ["AnyAdjoint", "Solved", "SolverLayer", "Terms", "feature_levels"]

AnyAdjoint = OneStep | Truncated | Krylov | Unroll
Terms = Callable[[Level], Sequence[Regularity]]
Report = Callable[[str, int, int, float], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Solved:
    """What a solve gave, coarse to fine.

    Args:
        fields: that each level handed on; what the family makes of the last one is the result.
        grids: of the fixed features of each level, where its field lies.
        family: of the transform.
        fixed: grid of the fixed image.
        solutions: of each level, without a graph; judged by the energy of the point that each ended at.
        failed: (B,) whether the solve of a sample was not finite at a level, or ended worse than it began at every level.
        seconds: that each level took.
    """

    fields: tuple[Carried, ...]
    grids: tuple[Grid, ...]
    family: AnyFamily
    fixed: Grid
    solutions: tuple[Solution, ...]
    failed: Tensor
    seconds: tuple[float, ...]

    @property
    def displacements(self) -> tuple[Tensor, ...]:
        """(B, D, *S) after each level, voxels of the fixed image, on its grid; worked out anew whenever they are asked for."""
        return tuple(self._displacement(field) for field in self.fields)

    @property
    def displacement(self) -> Tensor:
        """The last of them alone: the result."""
        return self._displacement(self.fields[-1])

    def _displacement(self, carried: Carried) -> Tensor:
        return self.family.lower(carried.lattice.onto(carried.field, self.fixed.shape, Lattice((1,) * self.fixed.dim)))


class SolverLayer(nn.Module):
    """A multi-scale solve of pairs of feature pyramids.

    Args:
        family: of the transform, with its step rule; lengths are mm.
        steps: bound on the steps at every level, coarse to fine.
        tolerance: relative fall of a sample's energy a step below which it stops at a level; None takes all steps.
        adjoint: how the result is differentiated in the features. Held fixed, whatever the rule: the deviation that features
            are divided by, the weights of further terms, and which places the moving image reaches.
        linked: whether the result of a level is also differentiated in that of the coarser one, where it began; else each level
            is differentiated by itself. It needs `Unroll`.

    Raises:
        BadInput: levels are linked, and the rule does not differentiate a solution in its start.
    """

    def __init__(
        self,
        family: AnyFamily,
        steps: Sequence[int],
        *,
        tolerance: float | None = None,
        adjoint: AnyAdjoint | None = None,
        linked: bool = False,
    ) -> None:
        super().__init__()
        self.family = family
        self.steps = tuple(steps)
        self.tolerance = tolerance
        self.adjoint = adjoint or OneStep()
        self.linked = linked
        if linked and not isinstance(self.adjoint, Unroll):
            name = type(self.adjoint).__name__
            why = f"{name} takes a solution not to depend on where it began, so that nothing passes from level to level"
            raise BadInput(f"linked levels need the adjoint Unroll: {why}")

    def forward(
        self,
        fixed: FeaturePyramid,
        moving: FeaturePyramid,
        grids: tuple[Grid, Grid],
        *,
        levels: int | None = None,
        weights: tuple[Tensor | None, Tensor | None] = (None, None),
        terms: Terms | None = None,
        report: Report | None = None,
    ) -> Solved:
        """Solve every level.

        Args:
            fixed: features of the fixed images.
            moving: features of the moving images, which may be of another size and voxel size.
            grids: of the images the features are of.
            levels: how many are solved, from the coarsest on, at least 1; None for all.
            weights: (B, 1, *S) and (B, 1, *M) weights of the images' voxels, B may be 1; None for one everywhere.
            terms: further ones of the energy of a level, such as prompts.
            report: called before every step with the stage's name, the step, its bound and the first sample's energy.

        Raises:
            BadInput: the pyramids do not belong together, to the grids, to the weights, or to the number of levels that the
                layer has steps for, or there are not as many levels as are to be solved.
            Failed: features are not finite.
        """
        pairs = feature_levels(fixed, moving, grids, weights)
        if len(pairs) != len(self.steps):
            raise BadInput(f"the features have {len(pairs)} levels, the solver has steps for {len(self.steps)}")
        if levels is not None and not 1 <= levels <= len(pairs):
            raise BadInput(f"{levels} levels are to be solved, expected 1 to {len(pairs)}, as many as the features have")
        unit = min(fixed.factors)
        solutions: list[Solution] = []
        began: list[float] = []
        ended: list[float] = []

        def done(solution: Solution) -> None:
            solutions.append(replace(solution, value=solution.value.detach()))
            ended.append(time.perf_counter())

        tasks = [
            Task(
                level=level,
                factor=factor // unit,
                steps=steps,
                terms=() if terms is None else terms(level),
                begin=self._beginner(began, report, factor, steps),
                end=done,
            )
            for level, factor, steps in list(zip(pairs, fixed.factors, self.steps, strict=True))[:levels]
        ]
        solve = solve_levels(
            tasks,
            self.family,
            MSE(),
            np.eye(grids[0].dim + 1),
            tolerance=self.tolerance,
            adjoint=self.adjoint if torch.is_grad_enabled() else None,
            linked=self.linked,
            closing=True,
        )
        fields = tuple(solve)
        broken = torch.tensor([[status is Status.NONFINITE for status in s.status] for s in solutions]).any(0)
        failed = broken | torch.tensor([[status is Status.DIVERGED for status in s.status] for s in solutions]).all(0)
        return Solved(
            fields=fields,
            grids=tuple(task.level.grid for task in tasks),
            family=self.family,
            fixed=grids[0],
            solutions=tuple(solutions),
            failed=failed.to(fields[0].field.device),
            seconds=tuple(b - a for a, b in zip(began, ended, strict=True)),
        )

    def _beginner(
        self, began: list[float], report: Report | None, factor: int, steps: int
    ) -> Callable[[], Callable[[int, Tensor], None] | None]:
        """What notes when a level begins, and gives what is called before each of its steps."""
        name = f"{type(self.family).__name__.lower()} 1/{factor}"

        def begin() -> Callable[[int, Tensor], None] | None:
            began.append(time.perf_counter())
            return None if report is None else partial(_tell, report, name, steps)

        return begin


def _tell(report: Report, name: str, steps: int, step: int, energy: Tensor) -> None:
    report(name, step, steps, float(energy[0]))


def feature_levels(
    fixed: FeaturePyramid, moving: FeaturePyramid, grids: tuple[Grid, Grid], weights: tuple[Tensor | None, Tensor | None]
) -> list[Level]:
    """The levels of two pyramids, with the grids that their voxels lie on.

    Raises:
        BadInput: they differ in scales, channels, axes or samples, or do not cover their grids, or weights lie on others.
        Failed: features are not finite, be it those of one sample, whose gradient would spoil the weights of all.
    """
    for name, pyramid, grid in zip(("fixed", "moving"), (fixed, moving), grids, strict=True):
        if any(f.ndim != grid.dim + 2 for f in pyramid.levels):
            raise BadInput(f"the {name} features have {pyramid.levels[0].ndim - 2} axes, the image {grid.dim}")
        _check_size(name, pyramid, grid)
        if not all(bool(f.detach().isfinite().all()) for f in pyramid.levels):
            raise Failed(f"the features of the {name} image are not finite")
    if fixed.factors != moving.factors or any(
        a.shape[:2] != b.shape[:2] for a, b in zip(fixed.levels, moving.levels, strict=True)
    ):
        raise BadInput("the features of the fixed and moving images differ in scales, channels or samples, expected the same")
    for name, weight, grid in zip(("fixed", "moving"), weights, grids, strict=True):
        _check_weight(name, weight, grid, len(fixed.levels[0]))
    found: list[Level] = []
    for k, factor in enumerate(fixed.factors):
        scale = _deviation(fixed.levels[k], moving.levels[k])
        sides = [
            (p.levels[k] / scale, None if w is None else _weight(w, p, k), _grid(p, k, g))
            for p, w, g in zip((fixed, moving), weights, grids, strict=True)
        ]
        (f, fw, fg), (m, mw, mg) = sides
        lattice = Lattice((factor,) * grids[0].dim, _shift(fixed, k, grids[0]))
        found.append(Level(Pair(f, m, fw, mw, fg, mg), lattice))
    return found


def _check_size(name: str, pyramid: FeaturePyramid, grid: Grid) -> None:
    """Refuse features of another image: what was added behind it is as much as before it, but for what makes a level whole."""
    for level, factor in zip(pyramid.levels, pyramid.factors, strict=True):
        for size, voxels, before in zip(spatial(level), grid.shape, pyramid.before, strict=True):
            if not 0 <= factor * size - before - voxels <= before + max(pyramid.factors):
                shape = "x".join(map(str, spatial(level)))
                found = f"{shape} voxels at 1/{factor} with {list(pyramid.before)} added before the image"
                raise BadInput(
                    f"the {name} features have {found}, which are not those of an image of {list(grid.shape)} voxels"
                )


def _check_weight(name: str, weight: Tensor | None, grid: Grid, batch: int) -> None:
    """Refuse weights that are not one for each voxel of an image, or of each image of a batch."""
    if weight is not None and tuple(weight.shape) not in {(n, 1, *grid.shape) for n in (1, batch)}:
        found = f"the weights of the {name} image are {list(weight.shape)}"
        raise BadInput(f"{found}, expected {[batch, 1, *grid.shape]}, or 1 in place of the first number")


@torch.no_grad()
def _deviation(fixed: Tensor, moving: Tensor) -> Tensor:
    """Root of the variance of both together, mean over channels: (B, 1, ...) to divide by, no gradient through it."""
    variance = sum(torch.var(f.flatten(2), 2, correction=0).mean(1) for f in (fixed, moving)) / 2
    scale = torch.as_tensor(variance).sqrt()
    return torch.where(scale > 0, scale, torch.ones_like(scale)).reshape(-1, *(1,) * (fixed.ndim - 1))


def _grid(pyramid: FeaturePyramid, k: int, grid: Grid) -> Grid:
    """Where the voxels of a level lie in the world."""
    factor = pyramid.factors[k]
    voxel = np.eye(grid.dim + 1)
    voxel[:-1, :-1] *= factor
    voxel[:-1, -1] = [pyramid.offset * (factor - 1) - before for before in pyramid.before]
    return Grid(spatial(pyramid.levels[k]), grid.affine @ voxel)


def _shift(pyramid: FeaturePyramid, k: int, grid: Grid) -> tuple[float, ...]:
    """Voxels of the image from its middle to that of a level."""
    factor = pyramid.factors[k]
    return tuple(
        factor * (t - 1) / 2 + pyramid.offset * (factor - 1) - before - (n - 1) / 2
        for t, before, n in zip(spatial(pyramid.levels[k]), pyramid.before, grid.shape, strict=True)
    )


def _weight(weight: Tensor, pyramid: FeaturePyramid, k: int) -> Tensor:
    """Weights of an image's voxels as those of a level's: what was added around the image has none."""
    factor, shape = pyramid.factors[k], spatial(pyramid.levels[k])
    margins = [
        side
        for n, t, before in reversed(list(zip(spatial(weight), shape, pyramid.before, strict=True)))
        for side in (before, t * factor - n - before)
    ]
    padded = F.pad(weight, margins)
    if not pyramid.offset:
        return padded[(..., *(slice(None, None, factor),) * len(shape))]
    return (F.avg_pool2d if len(shape) == 2 else F.avg_pool3d)(padded, factor)
