"""A model of features applied to a pair: each image on a grid of its own, and a solve of any family of transforms."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Self, cast

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.regularity import Bending, Regularity
from warpwright.errors import BadInput, Failed
from warpwright.geometry import Grid
from warpwright.methods.deformable import (
    AffineField,
    AnyFamily,
    BSpline,
    Dense,
    Displacement,
    Greedy,
    Velocity,
)
from warpwright.methods.implicit import AnyFeatures, Implicit, Solving
from warpwright.methods.intensities import Intensities
from warpwright.methods.levels import Level
from warpwright.methods.prepare import Annotated, lay_image
from warpwright.methods.prompting import Prompting
from warpwright.methods.registration import Progress, Stage
from warpwright.methods.settings import TransformName
from warpwright.methods.solver_layer import Solved, SolverLayer
from warpwright.methods.step import evaluating
from warpwright.networks.features import FeatureLKU, FeatureLKUEncoder, FeatureUNet, FeatureUNetEncoder
from warpwright.solver import LBFGS, Adam, Status
from warpwright.transforms import Affine, Preparation

__all__ = ["Found", "Search", "family_named", "moving_lattice", "search_memory", "searched"]

KNOTS = 4.0  # finest voxels between control points of a B-spline
BENDING = 0.02  # weight of its bending energy for voxels of 1 mm, features having a deviation of 1
NUMBER = 4  # bytes of one in single precision
# numbers at the highest point, measured: of a network for each voxel of an image, beside the features that it gives
HIDDEN: dict[type[AnyFeatures], int] = {FeatureUNet: 205, FeatureUNetEncoder: 85, FeatureLKU: 240, FeatureLKUEncoder: 230}
# of a search for each voxel of the finest level, beside features
SOLVED: dict[type[AnyFamily], int] = {Displacement: 48, Greedy: 48, AffineField: 48, Velocity: 60, BSpline: 85}
BESIDE = 45  # and where images count beside features, by LNCC
CARRIED = 34  # and of a map for each voxel of the fixed image, while it is inverted
STILL = "the search did not lower its energy: the images stay as the start lays them"


@dataclass(frozen=True, eq=False, kw_only=True)
class Search:
    """What is looked for with the features of a model, and how.

    Args:
        family: of transforms.
        steps: bound on the solver's steps at every scale of the features, coarse to fine.
        tolerance: relative fall of the energy a step below which it stops at a level; None takes all steps.
        prompts: what a person marked; None for nothing.
        intensities: how the images themselves count beside their features; None for not at all.
    """

    family: AnyFamily
    steps: tuple[int, ...]
    tolerance: float | None = None
    prompts: Prompting | None = None
    intensities: Intensities | None = None

    @classmethod
    def trained(cls, settings: Implicit) -> Self:
        """The search that features were trained with."""
        return cls(family=settings.family, steps=settings.steps, tolerance=settings.tolerance)


@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """What a search gave.

    Args:
        displacement: (1, D, *S) of the working grid, voxels.
        affine: the same as a map of the whole world, where the family is affine; None for any other.
        stages: what was done.
        notes: sentences for a person.
    """

    displacement: Tensor
    affine: Affine | None
    stages: tuple[Stage, ...]
    notes: tuple[str, ...]


def family_named(name: TransformName, trained: AnyFamily, unit: float) -> AnyFamily:
    """A family by its name, with the settings that features were trained with where those are of such a family.

    A dense family has the smoothing and the steps of the dense one of training; features that were trained with another kind
    have those of `Implicit`'s default, whose lengths are for voxels of 1 mm and grow with the voxels.

    Args:
        name: what is wanted.
        trained: the model's own.
        unit: mm of its finest voxel.

    Raises:
        BadInput: features are not made to search such transforms.
    """
    dense = {"displacement": Displacement, "greedy": Greedy, "velocity": Velocity}
    if name in dense and type(trained) is dense[name]:
        return trained
    if name in dense:
        known = trained if isinstance(trained, Dense) else _usual(unit)
        shared = {key: getattr(known, key) for key in ("gradient_sigma", "field_sigma", "solver", "regularities")}
        return dense[name](**shared)
    if name == "bspline" and isinstance(trained, BSpline):
        return trained
    if name == "bspline":
        smooth = Bending(weight=BENDING * unit**2)
        return BSpline(knots=KNOTS * unit, solver=LBFGS(length=0.5), regularities=(smooth,))
    if name == "affine":
        return trained if isinstance(trained, AffineField) else AffineField(solver=Adam(length=unit))
    raise BadInput(f"a model of features gives no {name} map")


def _usual(unit: float) -> Dense:
    """The family that features are trained with where nothing else is said, for a finest voxel of `unit` mm."""
    usual = cast(Dense, Implicit.family)
    return replace(usual, gradient_sigma=unit * usual.gradient_sigma, field_sigma=unit * usual.field_sigma)


def search_memory(network: Solving, search: Search, grids: tuple[Grid, Grid], fixed: Grid) -> int:
    """Bytes that a search takes at its highest point on the CPU beside the images, an estimate: rather too many than too few.

    That point is in the network, or where the features of both images lie beside those that were divided by their deviation.

    Args:
        network: the model's.
        search: what is looked for.
        grids: the working grid of the fixed image, and the lattice of the moving one (`moving_lattice`).
        fixed: grid of the fixed image, which the map is carried to.
    """
    settings, stride = network.settings.features, network.features.stride
    sizes = [math.prod(-(-n // stride) * stride for n in grid.shape) for grid in grids]
    shares = [1 / factor**fixed.dim for factor in settings.scales]  # of the voxels, that a level has
    features = settings.outputs * sum(shares) * sum(sizes)
    looking = features + settings.widths * HIDDEN[type(settings)] * max(sizes)
    solved = SOLVED[type(search.family)] + (0 if search.intensities is None else BESIDE)
    solving = 2 * features + (solved + settings.outputs) * shares[-1] * sizes[0]
    return math.ceil(NUMBER * max(looking, solving, CARRIED * fixed.size))


@torch.no_grad()
def searched(
    network: Solving,
    preparation: Preparation,
    sides: tuple[Annotated, Annotated],
    affine: Affine,
    grid: Grid,
    search: Search,
    progress: Callable[[Progress], None] | None = None,
) -> Found:
    """The displacement of the working grid, and what was done.

    The moving image lies in the frame of the fixed one, where the affine puts it, on a lattice that holds all of it that can
    be reached (`moving_lattice`).

    Args:
        network: in any mode, which is left as it is.
        preparation: the model's.
        sides: fixed and moving image, with masks.
        affine: fixed to moving world points.
        grid: the working grid of the fixed image.
        search: what is looked for, and how.
        progress: called before every step.

    Raises:
        BadInput: there are not as many steps as the features have scales.
        Failed: features, or the energy of the solve at a level, are not finite.
    """
    begin = time.perf_counter()
    grids = grid, moving_lattice(grid, sides[1].image.grid, affine)
    images, weights = _laid(network, preparation, sides, affine, grids)
    with evaluating(network):
        pyramids = [network.pyramid(image) for image in images]
    looked = time.perf_counter()
    family, scales = search.family, network.settings.features.scales
    layer = SolverLayer(family, search.steps, tolerance=search.tolerance)

    def report(name: str, step: int, steps: int, energy: float) -> None:
        if progress is not None:
            progress(Progress(name, step, steps, energy))

    def terms(level: Level) -> list[Regularity]:
        beside = [] if search.intensities is None else [search.intensities.at(level, images, grids)]
        return beside if search.prompts is None else beside + search.prompts.at(level, affine, np.eye(grid.dim + 1))

    solved = layer(*pyramids, grids, weights=weights, terms=terms, report=report)
    _refuse_broken(solved, scales, f"{sides[0].image.name} and {sides[1].image.name}")
    first = float(solved.solutions[-1].history[0, 0])
    stages = [Stage("features", looked - begin, 1, first, first, "of both images")]
    for factor, solution, seconds in zip(scales, solved.solutions, solved.seconds, strict=True):
        stages.append(Stage.solved(f"{type(family).__name__.lower()} 1/{factor}", seconds, solution))
    return Found(
        displacement=solved.displacement,
        affine=_world_affine(solved) if isinstance(family, AffineField) else None,
        stages=tuple(stages),
        notes=(STILL,) if solved.failed[0] else (),
    )


def _laid(
    network: Solving, preparation: Preparation, sides: tuple[Annotated, Annotated], affine: Affine, grids: tuple[Grid, Grid]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both images as the network sees them, where it is, and the weights of their voxels."""
    own, still = next(network.parameters()), Affine.identity(grids[0].dim)
    fixed, moving = (
        tuple(x.to(own.device, own.dtype) for x in lay_image(preparation, side, transform, grid))
        for side, transform, grid in zip(sides, (still, affine), grids, strict=True)
    )
    return (fixed[0], moving[0]), (fixed[1], moving[1])


def _refuse_broken(solved: Solved, scales: tuple[int, ...], names: str) -> None:
    """Refuse a solve that could not go on at a level: what it gives was not looked for to the end."""
    broken = [f"1/{k}" for k, s in zip(scales, solved.solutions, strict=True) if s.status[0] is Status.NONFINITE]
    if broken:
        raise Failed(
            f"{names}: the energy of the search became NaN or infinite at {', '.join(broken)} of the resolution, expected"
            " smaller weights of prompts, intensities and regularities"
        )


def _world_affine(solved: Solved) -> Affine:
    """What a solve of an affine family found, read off the corners of its last field."""
    field, grid = solved.fields[-1].field, solved.grids[-1]
    corners = list(product(*((0, n - 1) for n in grid.shape)))
    moved = torch.stack([field[(0, slice(None), *corner)] for corner in corners]).double().cpu().numpy()
    places = np.array([(*corner, 1.0) for corner in corners])
    matrix = np.eye(grid.dim + 1)
    matrix[:-1] += np.linalg.lstsq(places, moved, rcond=None)[0].T
    return Affine(grid.affine @ matrix @ np.linalg.inv(grid.affine))


def moving_lattice(grid: Grid, moving: Grid, affine: Affine) -> Grid:
    """The lattice of `grid` continued or cropped until it just holds a moving image where an affine puts it.

    What lies further from the box of `grid` than half its extent is left out, along each axis: no voxel looks there.
    """
    ends = np.array(list(product(*((-0.5, n - 0.5) for n in moving.shape))))
    corners = grid.to_voxel(affine.inverse()(moving.to_world(torch.from_numpy(ends)))).numpy()
    low, high = np.floor(corners.min(0) + 0.5 + 1e-6), np.ceil(corners.max(0) - 0.5 - 1e-6)
    half = np.asarray(grid.shape) // 2
    low, high = np.maximum(low, -half), np.minimum(high, np.asarray(grid.shape) - 1 + half)
    if (high < low).any():  # far apart, so that nothing is known: any voxel will do
        low = high = np.zeros(grid.dim)
    return grid.crop(tuple(int(n) for n in low), tuple(int(n) for n in high - low + 1))
