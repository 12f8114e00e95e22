"""What a method returns."""

from __future__ import annotations

from dataclasses import dataclass

from warpwright.transforms import Transform

__all__ = ["Progress", "Registration", "Stage"]


@dataclass(frozen=True)
class Progress:
    """A step of a registration under way: the stage, `step` of at most `steps`, the energy before the step."""

    stage: str
    step: int
    steps: int
    energy: float


@dataclass(frozen=True)
class Stage:
    """A stage that ended: seconds, steps taken, the energy it began and ended with, why it ended."""

    name: str
    seconds: float
    steps: int
    energy_start: float
    energy_end: float
    message: str


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
