"""Where to begin when images lie far apart: patches are matched, and `SmoothProper` makes a smooth field of what they say.

No network: evidence is how much patches differ. Coarse to fine; a level sees the moving image as coarser ones have moved it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Grid, identity_points
from warpwright.layers import SmoothProper
from warpwright.layers.simplex import confidence
from warpwright.methods.levels import Carried, Level, level_size
from warpwright.methods.patches import Measure, patch_costs, places
from warpwright.networks import Basis, BasisLogits, Displacement
from warpwright.sampling import warp_covered
from warpwright.transforms import compose

__all__ = ["Matched", "Matching", "fitted", "matched"]

TEMPERATURE: dict[Measure, float] = {"squares": 0.01, "correlation": 0.02, "mind": 0.01}
FINER = Basis(reach=2)  # of every level but the coarsest
EDGE = 0.01  # share of a level's voxels at the edge of the basis, beyond which it is too small
LARGEST = 64  # of a level's voxel, in finest ones


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Settings of a start by matching.

    Args:
        reach: how far things are looked for, as a share of the longest side of the fixed image.
        measure: how patches are compared.
        radius: patches are of 2 radius + 1 voxels of a level.
        entries: voxels times displacements of a level, eight bytes each at the highest point. The coarsest level is the finest
            at which the reach fits; finer ones that do not fit are left to what follows.
        finest: size of the voxels of the last level, in finest voxels of the fixed image.
        layer: the message passing.

    Raises:
        BadInput: a number is out of range.
    """

    reach: float = 0.1
    measure: Measure = "correlation"
    radius: int = 5
    entries: int = 1 << 26
    finest: int = 2
    layer: SmoothProper = SmoothProper(iterations=20)

    def __post_init__(self) -> None:
        if not (0 < self.reach <= 1 and self.radius >= 1 and self.entries >= 1 and self.finest >= 1):
            raise BadInput(f"matching needs a reach in (0, 1], and a radius, entries and finest of at least 1, got {self}")

    def plan(self, grid: Grid) -> list[tuple[int, Basis]]:
        """The size of the voxels of every level, in finest ones, and what is looked for there, voxels of the level."""
        around = self.reach * max(n * s for n, s in zip(grid.shape, grid.spacing, strict=True)) / min(grid.spacing)
        factor = self.finest
        while True:
            for step in (1, 2):
                basis = Basis(reach=max(1, math.ceil(around / factor / step)) * step, step=step)
                if self._fits(grid, factor, basis) or (factor >= LARGEST and step == 2):
                    finer = [k for k in self._halves(factor) if self._fits(grid, k, FINER)]
                    return [(factor, basis), *((k, FINER) for k in finer)]
            factor *= 2

    def largest(self, grid: Grid) -> int:
        """Voxels times displacements of the largest level."""
        return max(level_size(grid, factor) * (2 * basis.around + 1) ** grid.dim for factor, basis in self.plan(grid))

    def _halves(self, factor: int) -> Iterator[int]:
        while factor >= 2 * self.finest:
            factor //= 2
            yield factor

    def _fits(self, grid: Grid, factor: int, basis: Basis) -> bool:
        return level_size(grid, factor) * (2 * basis.around + 1) ** grid.dim <= self.entries


@dataclass(frozen=True, eq=False, kw_only=True)
class Matched:
    """What matching gave.

    Args:
        carried: the displacement, acting before the affine.
        confidence: (1, 1, *S), 0 to 1: the largest probability of every voxel of the finest level, squared.
        notes: sentences for a person.
    """

    carried: Carried
    confidence: Tensor
    notes: tuple[str, ...]


@torch.no_grad()
def matched(
    matching: Matching,
    level: Callable[[int], Level],
    grid: Grid,
    affine: np.ndarray,
    tell: Callable[[int, int], None] | None = None,
) -> Matched:
    """The smooth displacement that matching of patches gives.

    Args:
        matching: what is done.
        level: the pair at so many times the finest spacing.
        grid: of the fixed image.
        affine: (D+1, D+1) world affine that acts after the displacement.
        tell: called before every level with its number and how many there are.
    """
    found: Carried | None = None
    known, notes = torch.ones(()), ()
    plan, layer = matching.plan(grid), matching.layer.build(grid.dim)
    for number, (factor, basis) in enumerate(plan):
        if tell is not None:
            tell(number, len(plan))
        here = level(factor)
        shape, pair = here.grid.shape, here.pair
        still = torch.zeros(1, grid.dim, *shape, device=pair.fixed.device)
        before = still if found is None else found.lattice.onto(found.field, shape, here.lattice)
        moved, cover = warp_covered(pair.moving, before, here.matrix(affine), pair.moving_weight)
        logits = _evidence(matching, pair.fixed, moved, cover, pair.fixed_weight, basis)
        smoothed = layer(logits)
        assert isinstance(smoothed, Displacement)
        if number == 0:
            notes = _saturated(smoothed.values, basis, matching)
        if number == len(plan) - 1:
            known = confidence(logits.values.softmax(1))
        found = Carried(compose(before, smoothed.values), here.lattice)
    assert found is not None
    return Matched(carried=found, confidence=known, notes=notes)


def fitted(found: Matched, grid: Grid, *, rigid: bool) -> np.ndarray:
    """The linear map nearest to what was matched, in the least squares of displacements, each weighted by its confidence.

    Args:
        found: what matching gave.
        grid: of its level.
        rigid: whether a rotation and a shift are wanted, else an affine.

    Returns:
        (D+1, D+1) world matrix that takes the place of the displacement.
    """
    voxels = identity_points(grid.shape, dtype=torch.float64, device=torch.device("cpu"))[0].flatten(1)
    moved = voxels + found.carried.field[0].flatten(1).cpu().double()
    begin, end = (grid.to_world(points.T).numpy() for points in (voxels, moved))
    weight = found.confidence.flatten().cpu().double().numpy()[:, None]
    from_middle, to_middle = ((weight * points).sum(0) / weight.sum() for points in (begin, end))
    begin, end = begin - from_middle, end - to_middle
    if rigid:
        left, _, right = np.linalg.svd((weight * end).T @ begin)
        left[:, -1] *= np.linalg.det(left @ right)
        linear = left @ right
    else:  # the change is sought: none along an axis of one voxel
        root = np.sqrt(weight)
        linear = np.eye(grid.dim) + np.linalg.lstsq(root * begin, root * (end - begin), rcond=None)[0].T
    matrix = np.eye(grid.dim + 1)
    matrix[:-1, :-1], matrix[:-1, -1] = linear, to_middle - linear @ from_middle
    return matrix


def _evidence(
    matching: Matching, fixed: Tensor, moved: Tensor, cover: Tensor, weight: Tensor | None, basis: Basis
) -> BasisLogits:
    """Distributions over the basis, the same for all displacements where the fixed image has no weight."""
    vectors = basis.vectors(fixed.ndim - 2)
    costs = patch_costs(fixed, moved, vectors, radius=matching.radius, measure=matching.measure)
    _undecided(costs, cover.clamp(0, 1), vectors)
    if weight is not None:
        costs *= weight.clamp(0, 1)
    shape = tuple(fixed.shape[2:])
    return BasisLogits(
        values=costs.mul_(-1 / TEMPERATURE[matching.measure]),
        vectors=vectors.to(costs),
        basis=basis,
        shape=shape,
        factors=(1,) * len(shape),
    )


def _undecided(costs: Tensor, cover: Tensor, vectors: Tensor) -> None:
    """Give displacements to where no moving image lies, or no weight, what the others cost in the mean, in place.

    Args:
        costs: (1, m, *S).
        cover: (1, 1, *S), 0 to 1, how far the moving image counts; nothing lies beyond its border.
        vectors: (m, D), whole voxels.
    """
    shape = tuple(cover.shape[2:])
    reach, there = places(vectors, shape)
    wide = F.pad(cover[:, 0], [reach] * 2 * len(shape))
    total, seen = torch.zeros_like(costs[:, 0]), torch.zeros_like(costs[:, 0])
    for k, place in enumerate(there):
        total.addcmul_(costs[:, k], wide[place])
        seen += wide[place]
    mean = total / seen.clamp_min(1e-6)
    for k, place in enumerate(there):
        costs[:, k] = torch.lerp(mean, costs[:, k], wide[place])


def _saturated(field: Tensor, basis: Basis, matching: Matching) -> tuple[str, ...]:
    """A sentence where much of a field lies at the edge of its basis."""
    share = float((field.abs().amax(1) > basis.reach - basis.step / 2).float().mean())
    if share < EDGE:
        return ()
    return (
        f"matching looked as far as {100 * matching.reach:.3g} % of the fixed image's longest side, and {100 * share:.2g} % of"
        " what it found is at that edge: a larger reach may be needed",
    )
