"""What a method returns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from warpwright.solver import Solution
from warpwright.transforms import Transform

__all__ = ["Progress", "Registration", "Stage", "curve"]

DIGITS = 6  # of an energy in a curve


@dataclass(frozen=True)
class Progress:
    """A step of a registration under way: the stage, `step` of at most `steps`, the energy before the step."""

    stage: str
    step: int
    steps: int
    energy: float


@dataclass(frozen=True)
class Stage:
    """A stage that ended.

    Args:
        name: what was done, and at what resolution.
        seconds: that it took.
        steps: taken.
        energy_start: with which it began.
        energy_end: with which it ended.
        message: why it ended.
        energies: before every step, and after the last one where that was measured; none of a stage without steps.
    """

    name: str
    seconds: float
    steps: int
    energy_start: float
    energy_end: float
    message: str
    energies: tuple[float, ...] = ()

    @classmethod
    def solved(cls, name: str, seconds: float, solution: Solution) -> Self:
        """What `minimise` did with its first sample; its energies leave their device here, all at once."""
        energies: list[float] = solution.history[:, 0].tolist()
        return cls(name, seconds, solution.steps[0], energies[0], energies[-1], solution.status[0].value, curve(energies))


def curve(energies: Iterable[float]) -> tuple[float, ...]:
    """Energies with as many digits as a curve shows."""
    return tuple(float(f"{energy:.{DIGITS}g}") for energy in energies)


@dataclass(frozen=True, eq=False)
class Registration:
    """The map of a pair: `moving(forward(x))` is like `fixed(x)` for world points x of the fixed image.

    Args:
        forward: fixed world points to moving world points, mm: `Affine`, or `Affine @ DisplacementField` on the fixed
            grid.
        backward: moving world points to fixed world points: the inverse of `forward`.
        inverse_residual: largest |w + u(y + w)| of the inverted field, voxels of the fixed grid; 0 for an affine.
        stages: what was done, in order.
        energy_before: similarity energy under the given map (the initial transform, or the world positions), at full
            resolution; infinite if the images do not meet there.
        energy_after: the same at the end.
        overlap: share of the smaller image (or mask) that the other one covers at the end, 0 to 1, measured coarsely.
        notes: sentences for a person.
    """

    forward: Transform
    backward: Transform
    inverse_residual: float
    stages: tuple[Stage, ...]
    energy_before: float
    energy_after: float
    overlap: float
    notes: tuple[str, ...] = ()
