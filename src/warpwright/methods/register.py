"""Classical registration of one pair: a start, linear stages, a deformable stage, coarse to fine."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Image
from warpwright.methods.deformable import AnyFamily, BSpline, Scale
from warpwright.methods.initialise import LEAST_OVERLAP, best_start, centred, overlap, start_factor
from warpwright.methods.levels import Level, Pair, level_factors, make_level, make_pair
from warpwright.methods.linear import solve_linear
from warpwright.methods.objective import FieldObjective
from warpwright.methods.registration import Progress, Registration, Stage
from warpwright.methods.settings import Linear, Settings
from warpwright.sampling import resize_displacement
from warpwright.solver import Solution, Status, add, minimise
from warpwright.transforms import Affine, DisplacementField, Transform, invert, split

__all__ = ["register_pair"]

Report = Callable[[Progress], None]


def register_pair(
    fixed: Image,
    moving: Image,
    settings: Settings,
    *,
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    initial: Transform | None = None,
    device: str = "cpu",
    progress: Report | None = None,
) -> Registration:
    """Find the map that carries points of the fixed image to points of the moving image.

    Nothing here is random: the same input gives the same result.

    Args:
        fixed: (C, *S) image.
        moving: (C, *M) image.
        settings: what to do.
        fixed_mask: (1, *S) weights of the energy, >= 0.
        moving_mask: (1, *M) weights of the energy, >= 0.
        initial: where to begin, fixed to moving world points; takes the place of `settings.start`, and of the linear
            stages too if it holds a displacement field.
        device: a torch device.
        progress: called before every step.

    Returns:
        A `Registration`.

    Raises:
        BadInput: the images differ in axes or channels, or a mask is on another grid than its image.
    """
    _check(fixed, moving, fixed_mask, moving_mask, initial)
    run = _Run(make_pair(fixed, moving, fixed_mask, moving_mask, torch.device(device)), settings, progress)
    affine, displacement = run.start(initial)
    before = run.energy(run.reference, None)
    if displacement is None:
        affine = run.linear(affine)
    if settings.deformable is None and displacement is None:
        forward: Transform = Affine(affine)
        return Registration(forward, forward.inverse(), 0.0, tuple(run.stages), before, run.energy(affine, None))
    if settings.deformable is None:
        raise BadInput("an initial transform that holds a displacement field needs a deformable transform to refine it")
    field, inverse, residual = run.deformable(settings.deformable, affine, displacement)
    forward = Affine(affine) @ DisplacementField(field[0].cpu(), fixed.grid)
    backward = DisplacementField(inverse[0].cpu(), fixed.grid) @ Affine(affine).inverse()
    return Registration(forward, backward, residual, tuple(run.stages), before, run.energy(affine, field))


def _check(fixed: Image, moving: Image, fixed_mask: Image | None, moving_mask: Image | None, initial: Transform | None) -> None:
    if fixed.grid.dim != moving.grid.dim:
        raise BadInput(f"{moving.name} has {moving.grid.dim} axes, {fixed.name} has {fixed.grid.dim}: expected the same")
    if fixed.channels != moving.channels:
        raise BadInput(f"{moving.name} has {moving.channels} channels, {fixed.name} has {fixed.channels}: expected the same")
    for mask, image in ((fixed_mask, fixed), (moving_mask, moving)):
        if mask is not None and not mask.grid.same_as(image.grid):
            raise BadInput(f"{mask.name} is not on the grid of its image {image.name}: expected the same shape and affine")
    if initial is not None and initial.dim != fixed.grid.dim:
        raise BadInput(f"the initial transform has {initial.dim} axes, {fixed.name} has {fixed.grid.dim}: expected the same")


class _Run:
    """One registration under way: the pair, what was done so far, and who is told."""

    def __init__(self, pair: Pair, settings: Settings, progress: Report | None) -> None:
        self.pair = pair
        self.settings = settings
        self.progress = progress
        self.stages: list[Stage] = []
        self.finest = make_level(pair, 1)
        self.reference = np.eye(pair.fixed_grid.dim + 1)

    def energy(self, affine: np.ndarray, displacement: Tensor | None) -> float:
        """Similarity at the finest level under a map."""
        if displacement is None:
            displacement = _still(self.finest)
        with torch.no_grad():
            return float(FieldObjective(self.finest, affine, self.settings.similarity).data_term(displacement))

    def start(self, initial: Transform | None) -> tuple[np.ndarray, Tensor | None]:
        """The affine (and displacement) to begin from; also sets the position that improvement is measured against."""
        grid, moving = self.pair.fixed_grid, self.pair.moving_grid
        begin = time.perf_counter()
        coarse = make_level(self.pair, start_factor(grid))
        if overlap(coarse, self.reference) < LEAST_OVERLAP:
            self.reference = centred(grid, moving)
        if initial is not None:
            affine, field = split(initial, grid)
            self.reference = affine.matrix
            held = bool(field.displacement.any())
            return affine.matrix, field.displacement[None].to(self.pair.fixed.device) if held else None
        if self.settings.start == "none":
            return np.eye(grid.dim + 1), None
        if self.settings.start == "centre":
            return centred(grid, moving), None
        matrix, message = best_start(coarse, self.settings.similarity, np.eye(grid.dim + 1)), "a better position was found"
        before, after = self.energy(self.reference, None), self.energy(matrix, None)
        if after > before:
            matrix, after, message = self.reference, before, "no position tried was better than the given one"
        self.stages.append(Stage("start", time.perf_counter() - begin, 0, before, after, message))
        return matrix, None

    def linear(self, affine: np.ndarray) -> np.ndarray:
        """All linear stages; one that ends worse than it began, on the finest level, is undone."""
        for stage in self.settings.linear:
            begun, matrix = self.energy(affine, None), affine
            for factor in self._linear_levels(stage):
                begin = time.perf_counter()
                name = f"{stage.kind} 1/{factor}"
                matrix, solution = solve_linear(
                    make_level(self.pair, factor),
                    stage.kind,
                    matrix,
                    self.settings.similarity,
                    steps=stage.steps,
                    tolerance=stage.tolerance,
                    progress=self._teller(name, stage.steps),
                )
                self._done(name, begin, solution)
            ended = self.energy(matrix, None)
            if ended <= begun:
                affine = matrix
            else:
                self.stages.append(Stage(stage.kind, 0.0, 0, begun, begun, "undone: it did not improve the finest level"))
        return affine

    def _linear_levels(self, stage: Linear) -> list[int]:
        grid = self.pair.fixed_grid
        kept = level_factors(stage.levels, grid)
        return [k for k in kept if k == kept[0] or grid.size / k**grid.dim <= stage.voxels]

    def deformable(self, family: AnyFamily, affine: np.ndarray, displacement: Tensor | None) -> tuple[Tensor, Tensor, float]:
        """Every level of the deformable stage; the full-size displacement, its inverse, and the inverse's residual."""
        kept = level_factors(self.settings.levels, self.pair.fixed_grid)
        schedule = dict(zip(self.settings.levels, self.settings.steps, strict=True))
        if displacement is None:
            coarsest = make_level(self.pair, kept[0])
            carried, factors = _still(coarsest), coarsest.factors
        else:
            carried, factors = family.lift(displacement), (1,) * self.pair.fixed_grid.dim
        for factor in kept:
            level = make_level(self.pair, factor)
            shape = level.grid.shape
            carried = resize_displacement(carried, factors, shape, level.factors)
            carried = self._deform(level, factor, family, affine, carried, schedule[factor])
            factors = level.factors
        full = self.pair.fixed_grid.shape
        carried = resize_displacement(carried, factors, full, (1,) * len(full))
        field = family.lower(carried)
        return field, *invert(field)

    def _deform(self, level: Level, factor: int, family: AnyFamily, affine: np.ndarray, carried: Tensor, steps: int) -> Tensor:
        begin = time.perf_counter()
        shape, scale = level.grid.shape, Scale(level.grid.spacing, factor)
        objective = FieldObjective(
            level, affine, self.settings.similarity, family.regularities, lambda x: family.displacement(x, shape, scale)
        )
        with torch.no_grad():
            reference = objective.data_term(_still(level))
        name = f"{type(family).__name__.lower()} 1/{factor}"
        start = family.parameters(carried, scale)
        solution = minimise(
            objective,
            start,
            solver=family.solver,
            precondition=lambda g: family.precondition(g, scale),
            retract=add if isinstance(family, BSpline) else lambda x, update: family.retract(x, update, scale),
            max_steps=steps,
            tolerance=self.settings.tolerance,
            reference=reference,
            progress=self._teller(name, steps),
        )
        self._done(name, begin, solution)
        kept = start if solution.status[0] is Status.DIVERGED else solution.value
        return family.carried(kept, shape, scale)

    def _teller(self, name: str, steps: int) -> Callable[[int, Tensor], None] | None:
        report = self.progress
        if report is None:
            return None
        return lambda step, energy: report(Progress(name, step, steps, float(energy[0])))

    def _done(self, name: str, begin: float, solution: Solution) -> None:
        seconds = time.perf_counter() - begin
        first, last = float(solution.history[0, 0]), float(solution.energy[0])
        self.stages.append(Stage(name, seconds, solution.steps[0], first, last, solution.status[0].value))


def _still(level: Level) -> Tensor:
    return torch.zeros(1, level.grid.dim, *level.grid.shape, device=level.pair.fixed.device)
