"""Everything that decides a registration, as frozen dataclasses; presets choose them for a pair of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from warpwright.energies.regularity import Bending
from warpwright.energies.similarity import LNCC, MIND, MSE, AnySimilarity, MutualInformation
from warpwright.errors import BadInput
from warpwright.methods.deformable import AnyFamily, BSpline, Displacement, Greedy, Velocity
from warpwright.methods.linear import Kind
from warpwright.methods.matching import Matching
from warpwright.methods.patches import Measure
from warpwright.solver import LBFGS, Adam

__all__ = ["AnySimilarity", "Initialise", "Linear", "Preset", "Settings", "SimilarityName", "TransformName", "preset"]

Initialise = Literal["none", "centre", "moments", "rigid", "affine", "matching"]
Preset = Literal["fast", "balanced", "accurate"]
SimilarityName = Literal["lncc", "mse", "mi", "mind"]
TransformName = Literal["rigid", "affine", "displacement", "greedy", "velocity", "bspline"]


@dataclass(frozen=True, kw_only=True)
class Linear:
    """One linear stage.

    Args:
        kind: which maps are allowed.
        levels: size of the voxels, in finest voxels of the fixed image, coarse to fine; a level of more than
            `voxels` voxels is left out, unless it is the only one.
        steps: bound on the steps of a level.
        tolerance: relative fall of the energy a step below which a level stops.
        voxels: a few parameters do not need every voxel of a large image.
    """

    kind: Kind
    levels: tuple[int, ...] = (8, 4, 2, 1)
    steps: int = 40
    tolerance: float = 1e-4
    voxels: int = 1 << 20

    def __post_init__(self) -> None:
        if not self.levels or min((*self.levels, self.steps, self.voxels)) < 1 or self.tolerance < 0:
            raise BadInput("a linear stage needs levels, steps and voxels of at least 1 and a tolerance of at least 0")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A whole registration.

    Args:
        similarity: the data term of every stage.
        start: "none" takes the world positions as they are, "centre" puts the middles of the images on one another,
            "moments" tries several positions and turns and keeps the best.
        linear: stages before the deformable one, in their order.
        matching: what is matched after the start; None for nothing. Where it helps, a deformable transform begins with its
            field in place of the linear stages, a linear one with what is linear in it.
        deformable: the family, or None to stop after the linear stages.
        levels: size of the voxels of the deformable stage, in finest voxels of the fixed image, coarse to fine.
        steps: bound on the steps of each level.
        tolerance: relative fall of the energy a step below which a level stops; None takes all steps.
    """

    similarity: AnySimilarity
    start: Literal["none", "centre", "moments"] = "moments"
    linear: tuple[Linear, ...] = ()
    matching: Matching | None = None
    deformable: AnyFamily | None = None
    levels: tuple[int, ...] = (8, 4, 2, 1)
    steps: tuple[int, ...] = (100, 100, 60, 40)
    tolerance: float | None = 1e-4

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.steps):
            raise BadInput(f"settings: {len(self.levels)} levels need as many steps, got {len(self.steps)}")
        if not self.levels or min((*self.levels, *self.steps)) < 1:
            raise BadInput(f"settings: levels and steps must be at least 1, got {self.levels} and {self.steps}")
        if self.tolerance is not None and self.tolerance < 0:
            raise BadInput(f"settings: tolerance must be at least 0 or absent, got {self.tolerance}")


STEPS: dict[Preset, tuple[int, ...]] = {
    "fast": (25, 25, 15, 8),
    "balanced": (50, 50, 30, 12),
    "accurate": (100, 100, 60, 40),
}
# weight of the bending energy of a B-spline for voxels of 1 mm, in proportion to what each similarity amounts to
BENDING: dict[SimilarityName, float] = {"lncc": 3.0, "mse": 0.05, "mi": 3.0, "mind": 0.5}
MEASURES: dict[SimilarityName, Measure] = {"lncc": "correlation", "mse": "squares", "mi": "mind", "mind": "mind"}
COARSE = (8, 4, 2)  # levels of a linear stage that another one, or a deformable one, refines
TOLERANCE: dict[Preset, float] = {"fast": 3e-4, "balanced": 1e-4, "accurate": 2e-5}


def preset(
    name: Preset,
    spacing: Sequence[float],
    *,
    transform: TransformName = "greedy",
    similarity: SimilarityName | None = None,
    initialise: Initialise | None = None,
) -> Settings:
    """The settings of a named preset.

    Args:
        name: how much time to spend.
        spacing: of the fixed image, mm; smoothing follows its finest axis.
        transform: what is wanted.
        similarity: "lncc" by default, which suits images of one kind; "mi" or "mind" for two kinds.
        initialise: how far the start goes: world positions, centres, the best of several, and from there a rigid or an
            affine registration; or patches matched near where the images lie, for large displacements. Default "affine" for
            deformable transforms, "moments" for linear ones.

    Returns:
        Settings with every length in mm.
    """
    unit = min(spacing)
    similarities: dict[SimilarityName, AnySimilarity] = {
        "lncc": LNCC(radius=2),
        "mse": MSE(),
        "mi": MutualInformation(),
        "mind": MIND(),
    }
    named = similarity or "lncc"
    tuning = TWO_KINDS if named in ("mi", "mind") else ONE_KIND
    linear_only = transform in ("rigid", "affine")
    first = initialise or ("moments" if linear_only else "affine")
    kinds: dict[str, tuple[Kind, ...]] = {"rigid": ("rigid",), "affine": ("rigid", "affine"), "matching": ("affine",)}
    starts = {"rigid": "moments", "affine": "moments", "matching": "moments"}
    stages = kinds.get(first, ())[-1:] if not linear_only else kinds[transform]
    return Settings(
        similarity=similarities[named],
        start=starts.get(first, first),  # pyright: ignore[reportArgumentType]
        linear=tuple(Linear(kind=k) if k == transform else Linear(kind=k, levels=COARSE) for k in stages),
        matching=Matching(measure=MEASURES[named]) if first == "matching" else None,
        deformable=None if linear_only else families(unit, tuning, BENDING[named])[transform],
        steps=STEPS[name],
        tolerance=TOLERANCE[name],
    )


@dataclass(frozen=True)
class Tuning:
    """How strongly a field is smoothed, in finest voxels, and how the solver steps (see `solver.Adam`)."""

    gradient_sigma: float
    field_sigma: float
    damping: float
    length: float
    beta1: float


ONE_KIND = Tuning(gradient_sigma=1.7, field_sigma=0.8, damping=0.1, length=1.0, beta1=0.8)
# much of what differs between two kinds is noise, not motion
TWO_KINDS = Tuning(gradient_sigma=3.0, field_sigma=1.5, damping=1.0, length=0.5, beta1=0.8)


def families(unit: float, tuning: Tuning, bending: float) -> dict[TransformName, AnyFamily]:
    """The deformable families with lengths for a finest voxel of `unit` mm."""
    solver = Adam(length=tuning.length, damping=tuning.damping, beta1=tuning.beta1)
    update, field = tuning.gradient_sigma * unit, tuning.field_sigma * unit
    return {
        "greedy": Greedy(gradient_sigma=update, field_sigma=field, solver=solver),
        "displacement": Displacement(gradient_sigma=update, field_sigma=1.5 * field, solver=solver),
        "velocity": Velocity(gradient_sigma=update, field_sigma=field, solver=solver),
        "bspline": BSpline(knots=4 * unit, solver=LBFGS(length=0.5), regularities=(Bending(weight=bending * unit**2),)),
    }
