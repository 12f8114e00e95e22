"""Classical registration of one pair: a start, linear stages, a deformable stage, coarse to fine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput, Failed
from warpwright.geometry import Image
from warpwright.kernels import threads_to_kernels, usable
from warpwright.methods.deformable import AnyFamily
from warpwright.methods.initialise import LEAST_OVERLAP, best_start, centred, overlap, start_factor
from warpwright.methods.levels import Carried, Level, Pair, level_factors, level_size, make_level, make_pair
from warpwright.methods.linear import solve_linear
from warpwright.methods.matching import Matching, fitted, matched
from warpwright.methods.memory import give_back
from warpwright.methods.objective import FieldObjective
from warpwright.methods.prompting import Prompting
from warpwright.methods.registration import Progress, Registration, Stage
from warpwright.methods.settings import Linear, Settings
from warpwright.methods.solve import Task, solve_levels, still
from warpwright.solver import Solution, Status
from warpwright.transforms import Affine, DisplacementField, Transform, invert, split

__all__ = ["register_pair"]

Report = Callable[[Progress], None]
MEETING = 0.01  # overlap below which two images do not meet


def register_pair(
    fixed: Image,
    moving: Image,
    settings: Settings,
    *,
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    initial: Transform | None = None,
    prompts: Prompting | None = None,
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
        prompts: what a person marked, for the deformable stage; None for nothing.
        device: a torch device.
        progress: called before every step.

    Returns:
        A `Registration`.

    Raises:
        BadInput: the images differ in axes or channels, a mask is on another grid than its image, or there are prompts but no
            deformable stage.
        Failed: the energy of the deformable stage was not finite at any level.
    """
    _check(fixed, moving, fixed_mask, moving_mask, initial)
    if prompts is not None and settings.deformable is None:
        raise BadInput("prompts are for a deformable transform, a linear one was asked for")
    if initial is not None and settings.deformable is None and bool(split(initial, fixed.grid)[1].displacement.any()):
        raise BadInput("an initial transform that holds a displacement field needs a deformable transform to refine it")
    target = torch.device(device)
    with threads_to_kernels() if usable(torch.empty(1, device=target)) else nullcontext():
        pair = make_pair(fixed, moving, fixed_mask, moving_mask, target)
        return _register(_Run(pair, settings, prompts, progress), fixed, moving, initial)


def _register(run: _Run, fixed: Image, moving: Image, initial: Transform | None) -> Registration:
    settings = run.settings
    given, displacement = run.given(initial)
    met = run.overlap(given, displacement)
    before = run.energy(given, displacement) if met >= MEETING else float("inf")
    affine = given if initial is not None else run.start()
    if run.overlap(affine, displacement) < MEETING:
        raise BadInput(
            f"{moving.name} and {fixed.name} (or their masks) do not overlap where the search begins: expected a start"
            " that brings them together, such as --initialise centre or moments"
        )
    if displacement is None and settings.matching is not None:
        affine, displacement = run.match(settings.matching, affine)
    if displacement is None:
        affine = run.linear(affine)
    forward: Transform = Affine(affine)
    backward: Transform = forward.inverse()
    residual, field = 0.0, None
    if settings.deformable is not None:
        field, inverse, residual = run.deformable(settings.deformable, affine, displacement)
        forward = Affine(affine) @ DisplacementField(field[0].cpu(), fixed.grid)
        backward = DisplacementField(inverse[0].cpu(), fixed.grid, residual) @ Affine(affine).inverse()
    after, overlapping = run.energy(affine, field), run.overlap(affine, field)
    stages, notes = tuple(run.stages), tuple(run.notes)
    del run  # the normalised images
    give_back()
    return Registration(forward, backward, residual, stages, before, after, overlapping, notes)


def _check(fixed: Image, moving: Image, fixed_mask: Image | None, moving_mask: Image | None, initial: Transform | None) -> None:
    if fixed.grid.dim != moving.grid.dim:
        raise BadInput(f"{moving.name} has {moving.grid.dim} axes, {fixed.name} has {fixed.grid.dim}: expected the same")
    if fixed.channels != moving.channels:
        raise BadInput(f"{moving.name} has {moving.channels} channels, {fixed.name} has {fixed.channels}: expected the same")
    for mask, image in ((fixed_mask, fixed), (moving_mask, moving)):
        if mask is not None and not mask.grid.same_as(image.grid):
            raise BadInput(f"{mask.name} is not on the grid of its image {image.name}: expected the same shape and affine")
        if mask is not None and not bool((mask.data > 0).any()):
            raise BadInput(f"{mask.name} is zero everywhere: expected a mask with positive weights")
    if initial is not None and initial.dim != fixed.grid.dim:
        raise BadInput(f"the initial transform has {initial.dim} axes, {fixed.name} has {fixed.grid.dim}: expected the same")


class _Run:
    """One registration under way: the pair, what was done so far, and who is told."""

    def __init__(self, pair: Pair, settings: Settings, prompts: Prompting | None, progress: Report | None) -> None:
        self.pair = pair
        self.settings = settings
        self.prompts = prompts
        self.progress = progress
        self.stages: list[Stage] = []
        self.statuses: list[Status] = []  # of all levels solved so far
        self.notes: list[str] = []
        self.grid = pair.fixed_grid
        self.levels: dict[int, Level] = {}
        self.finest = self.level(1)
        self.coarse = self.level(start_factor(self.grid))

    def level(self, factor: int) -> Level:
        """The pair at `factor` times the finest spacing, made once."""
        if factor not in self.levels:
            self.levels[factor] = make_level(self.pair, factor)
        return self.levels[factor]

    def energy(self, affine: np.ndarray, displacement: Tensor | None = None) -> float:
        """Similarity at the finest level under a map."""
        objective = FieldObjective(self.finest, affine, self.settings.similarity)
        with torch.no_grad():
            return float(objective.data_term(still(self.finest) if displacement is None else displacement, *objective.images))

    def overlap(self, affine: np.ndarray, displacement: Tensor | None = None) -> float:
        """Share of the smaller image that the other one covers under a map, measured coarsely."""
        if displacement is not None:
            displacement = self.finest.lattice.onto(displacement, self.coarse.grid.shape, self.coarse.lattice)
        return overlap(self.coarse, affine, displacement)

    def given(self, initial: Transform | None) -> tuple[np.ndarray, Tensor | None]:
        """The map that was given: the initial transform, or the world positions."""
        if initial is None:
            return np.eye(self.grid.dim + 1), None
        affine, field = split(initial, self.grid)
        held = bool(field.displacement.any())
        return affine.matrix, field.displacement[None].to(self.pair.fixed.device) if held else None

    def start(self) -> np.ndarray:
        """The world matrix to begin from."""
        still, centres = np.eye(self.grid.dim + 1), centred(self.grid, self.pair.moving_grid)
        if self.settings.start == "none":
            return still
        if self.settings.start == "centre":
            return centres
        begin = time.perf_counter()
        plain = still if self.overlap(still) >= LEAST_OVERLAP else centres
        matrix, message = best_start(self.coarse, self.settings.similarity, still), "a better position was found"
        before, after = self.energy(plain), self.energy(matrix)
        if after > before:
            matrix, after, message = plain, before, "no position tried was better than the plain one"
        self.stages.append(Stage("start", time.perf_counter() - begin, 0, before, after, message))
        return matrix

    def match(self, matching: Matching, affine: np.ndarray) -> tuple[np.ndarray, Tensor | None]:
        """The displacement that matching finds; what is linear in it, for a linear transform; nothing if that does not help."""
        begin, before = time.perf_counter(), self.energy(affine)

        def tell(number: int, levels: int) -> None:
            if self.progress is not None:
                self.progress(Progress("matching", number, levels, before))

        found = matched(matching, self.level, self.grid, affine, tell)
        self.notes.extend(found.notes)
        if self.settings.deformable is None:
            level = self.grid.downsample(found.carried.lattice.factors)
            rigid = bool(self.settings.linear) and self.settings.linear[0].kind != "affine"
            matrix, displacement = affine @ fitted(found, level, rigid=rigid), None
        else:
            matrix, field = affine, found.carried
            displacement = field.lattice.onto(field.field, self.grid.shape, self.finest.lattice)
        after, message = self.energy(matrix, displacement), "patches were matched"
        if not after < before:
            matrix, displacement, after, message = affine, None, before, "undone: it did not improve the finest level"
        self.stages.append(Stage("matching", time.perf_counter() - begin, 0, before, after, message))
        give_back()
        return matrix, displacement

    def linear(self, affine: np.ndarray) -> np.ndarray:
        """All linear stages; one that ends worse than it began, or drives the images apart, is undone."""
        for stage in self.settings.linear:
            begun, matrix = self.energy(affine), affine
            for factor in self._linear_levels(stage):
                begin = time.perf_counter()
                name = f"{stage.kind} 1/{factor}"
                matrix, solution = solve_linear(
                    self.level(factor),
                    stage.kind,
                    matrix,
                    self.settings.similarity,
                    steps=stage.steps,
                    tolerance=stage.tolerance,
                    progress=self._teller(name, stage.steps),
                )
                self._done(name, begin, solution)
            together = self.overlap(matrix) >= min(LEAST_OVERLAP, self.overlap(affine))
            if together and self.energy(matrix) <= begun:
                affine = matrix
            else:
                self.stages.append(Stage(stage.kind, 0.0, 0, begun, begun, "undone: it did not improve the finest level"))
        return affine

    def _linear_levels(self, stage: Linear) -> list[int]:
        kept = level_factors(stage.levels, self.grid)
        return [k for k in kept if k == kept[0] or level_size(self.grid, k) <= stage.voxels]

    def deformable(self, family: AnyFamily, affine: np.ndarray, displacement: Tensor | None) -> tuple[Tensor, Tensor, float]:
        """Every level of the deformable stage; the full-size displacement, its inverse, and the inverse's residual.

        Raises:
            Failed: the energy was not finite at any level.
        """
        done = len(self.statuses)
        schedule = dict(zip(self.settings.levels, self.settings.steps, strict=True))
        start = None if displacement is None else Carried(family.lift(displacement), self.finest.lattice)
        tasks = (self._task(family, affine, k, schedule[k]) for k in level_factors(self.settings.levels, self.grid))
        solved = solve_levels(tasks, family, self.settings.similarity, affine, start, tolerance=self.settings.tolerance)
        last = deque(solved, maxlen=1).pop()
        if all(status is Status.NONFINITE for status in self.statuses[done:]):
            found = "the energy of the search became NaN or infinite at every level"
            raise Failed(f"{found}, expected smaller weights of prompts and regularities")
        if Status.NONFINITE in self.statuses[done:]:
            self.notes.append("at some levels the energy became NaN or infinite: there nothing was found")
        field = family.lower(last.lattice.onto(last.field, self.grid.shape, self.finest.lattice))
        before, after = self.energy(affine, displacement), self.energy(affine, field)
        if self.prompts is None and not after <= before:
            field = displacement if displacement is not None else still(self.finest)
            self.stages.append(Stage("deformable", 0.0, 0, before, before, "undone: it did not improve the finest level"))
        give_back()
        return field, *invert(field)

    def _task(self, family: AnyFamily, affine: np.ndarray, factor: int, steps: int) -> Task:
        name, clock = f"{type(family).__name__.lower()} 1/{factor}", [0.0]
        level = self.level(factor)
        prompts = [] if self.prompts is None else self.prompts.at(level, Affine.identity(self.grid.dim), affine)

        def begin() -> Callable[[int, Tensor], None] | None:
            clock[0] = time.perf_counter()
            return self._teller(name, steps)

        return Task(
            level=level,
            factor=factor,
            steps=steps,
            terms=prompts,
            begin=begin,
            end=lambda solution: self._done(name, clock[0], solution),
        )

    def _teller(self, name: str, steps: int) -> Callable[[int, Tensor], None] | None:
        report = self.progress
        if report is None:
            return None
        return lambda step, energy: report(Progress(name, step, steps, float(energy[0])))

    def _done(self, name: str, begin: float, solution: Solution) -> None:
        self.stages.append(Stage.solved(name, time.perf_counter() - begin, solution))
        self.statuses.append(solution.status[0])
