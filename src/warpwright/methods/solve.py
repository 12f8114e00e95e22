"""A deformable solve from level to level, coarse to fine: what the command line and the solver layer both run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.regularity import Regularity
from warpwright.energies.similarity import Similarity
from warpwright.methods.deformable import AnyFamily, Scale
from warpwright.methods.levels import Carried, Level
from warpwright.methods.memory import give_back
from warpwright.methods.objective import FieldObjective
from warpwright.solver import Adjoint, Solution, Status, add, minimise

__all__ = ["Task", "solve_levels", "still"]

LARGE = 1 << 21  # voxels of a level that is worth giving memory back for in every step


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """A level and what is done at it.

    Args:
        level: the pair.
        factor: how many times larger its voxels are than the finest.
        steps: bound on the steps.
        terms: further ones on the displacement, such as prompts, weights in units of what the data term says of unlike images.
        begin: called before the level, whose answer is called before every step with its number and the energies (B,).
        end: called with the solution.
    """

    level: Level
    factor: int
    steps: int
    terms: Sequence[Regularity] = ()
    begin: Callable[[], Callable[[int, Tensor], None] | None] | None = None
    end: Callable[[Solution], None] | None = None


def solve_levels(
    tasks: Iterable[Task],
    family: AnyFamily,
    similarity: Similarity,
    affine: np.ndarray,
    start: Carried | None = None,
    *,
    tolerance: float | None = None,
    adjoint: Adjoint | None = None,
    linked: bool = False,
    closing: bool = False,
) -> Iterable[Carried]:
    """The field after each level. A sample that diverges keeps what the level began with.

    Args:
        tasks: levels, coarse to fine; each is asked for when the one before it is done.
        family: of the transform.
        similarity: what makes two images, or features of them, alike.
        affine: world affine that acts after the displacement.
        start: the field to begin from; None for none.
        tolerance: relative fall of the energy a step below which a sample stops at a level; None takes all steps.
        adjoint: how a solution is differentiated in the images; None for not at all.
        linked: whether a level begins from the coarser one's solution with its graph, which `Unroll` alone passes on; else each
            level is differentiated by itself.
        closing: whether a level is judged by the energy of the point that it ends at, which is one more energy a level; else by
            that of the point before it.
    """
    for task in tasks:
        if start is None:
            start = Carried(still(task.level), task.level.lattice)
        begin = start if linked else Carried(start.field.detach(), start.lattice)
        start = Carried(_solve(task, family, similarity, affine, begin, tolerance, adjoint, closing), task.level.lattice)
        yield start


def _solve(
    task: Task,
    family: AnyFamily,
    similarity: Similarity,
    affine: np.ndarray,
    coarser: Carried,
    tolerance: float | None,
    adjoint: Adjoint | None,
    closing: bool,
) -> Tensor:
    tell = None if task.begin is None else task.begin()
    level = task.level
    shape, scale = level.grid.shape, Scale(level.grid.spacing, task.factor)
    objective = FieldObjective(level, affine, similarity, family.regularities, lambda x: family.displacement(x, shape, scale))
    with torch.no_grad():
        reference = objective.data_term(still(level), *objective.images)
    if task.terms:
        unlike = objective.unlike().double()
        objective.regularities += tuple(Weighed(term=p, weights=p.weight * unlike) for p in task.terms)

    def begun() -> Tensor:  # made anew where it is needed, not kept: it is large
        return family.parameters(coarser.lattice.onto(coarser.field, shape, level.lattice), scale)

    def precondition(gradient: Tensor) -> Tensor:
        if level.grid.size > LARGE:
            give_back()  # what the energy needed, before the update asks for other sizes
        return family.precondition(gradient, scale)

    solution = minimise(
        objective,
        begun(),
        objective.images,
        solver=family.solver,
        adjoint=adjoint,
        precondition=precondition,
        retract=add if family.additive else lambda x, update: family.retract(x, update, scale),
        max_steps=task.steps,
        tolerance=tolerance,
        reference=reference,
        closing=closing,
        progress=tell,
    )
    if task.end is not None:
        task.end(solution)
    found = solution.value
    failed = torch.tensor([status is Status.DIVERGED for status in solution.status], device=found.device)
    if failed.any():
        found = torch.where(failed.reshape(-1, *(1,) * (found.ndim - 1)), begun(), found)
    return family.carried(found, shape, scale)


@dataclass(frozen=True, eq=False, kw_only=True)
class Weighed(Regularity):
    """A term that counts for each sample by itself.

    Args:
        term: whose own weight is left aside.
        weights: (B,), in double precision, so that they are rounded once.
    """

    term: Regularity
    weights: Tensor

    def regularity(self, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
        value = self.term.regularity(displacement, spacing)
        return self.weights.to(value.dtype) * value


def still(level: Level) -> Tensor:
    """No displacement of a level."""
    fixed = level.pair.fixed
    return torch.zeros(len(fixed), level.grid.dim, *level.grid.shape, dtype=fixed.dtype, device=fixed.device)
