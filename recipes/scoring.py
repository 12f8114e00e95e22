"""Test pairs registered in several ways and scored: a row of a table for each way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, stdev
from typing import Any, cast

import numpy as np
import torch

from cohorts import TestPair
from warpwright.energies.similarity import LNCC
from warpwright.evaluation import bootstrap_interval, dice, hd95, mean_over_labels, wilcoxon
from warpwright.geometry import Grid, Image, identity_points, jacobian_determinant
from warpwright.io import read_labels, read_scalar
from warpwright.methods import (
    Intensities,
    Refinement,
    Registration,
    Search,
    Solving,
    TransformName,
    family_named,
    preset,
    register_direct,
    register_pair,
)
from warpwright.product.model_folder import ModelFolder
from warpwright.transforms import Affine, Transform, laid, resample, split

__all__ = [
    "Row",
    "Way",
    "by_features",
    "by_model",
    "classical",
    "folds",
    "header",
    "line",
    "mean_of",
    "nothing",
    "score",
    "times_header",
    "times_line",
]

Way = Callable[[Image, Image], Registration | None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """How one way did.

    Args:
        name: of the way.
        dice: of each pair, mean over labels; empty without labels.
        hd95: of each pair, mean over labels, mm; empty without labels.
        similarity: of each pair, 1 - LNCC of windows of 5 voxels on the fixed grid.
        folds: of each pair, share of the voxels where the map folds, per cent.
        inconsistency: of each pair, mm: how far a voxel of the fixed image ends from where it was when the map of the pair
            is followed by that of the swapped pair, mean over those that the first brings into the moving image; empty if
            the swapped pairs were not registered.
        seconds: of each pair, images in memory to the map.
        stages: of each pair, seconds by the name of a stage of the registration; none of a pair that was not registered.
    """

    name: str
    dice: list[float]
    hd95: list[float]
    similarity: list[float]
    folds: list[float]
    inconsistency: list[float]
    seconds: list[float]
    stages: list[dict[str, float]]

    def to_mapping(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "dice": self.dice,
            "hd95": self.hd95,
            "similarity": self.similarity,
            "folds": self.folds,
            "inconsistency": self.inconsistency,
            "seconds": self.seconds,
            "stages": self.stages,
        }

    @property
    def searches_features(self) -> bool:
        """Whether it is by a model of features, whose network and search have times of their own."""
        return any("features" in stages for stages in self.stages)


def nothing(fixed: Image, moving: Image) -> None:
    """The pair as it lies."""


def classical(asked: Mapping[str, str]) -> Way:
    """`warpwright register` with its defaults, but for what is asked for."""
    return lambda fixed, moving: register_pair(fixed, moving, preset("balanced", fixed.grid.spacing, **asked))  # type: ignore


def by_model(folder: ModelFolder, refine: int = 0) -> Way:
    """A model, with or without refinement of its weights."""
    return lambda fixed, moving: register_direct(folder.model, fixed, moving, refinement=Refinement(steps=refine))


def by_features(folder: ModelFolder, transform: TransformName | None = None, beside: Intensities | None = None) -> Way:
    """A model of features with something else than it was trained with.

    Args:
        folder: the model.
        transform: family of transforms; None for its own.
        beside: how the images count beside their features; None for not at all.
    """
    network = cast(Solving, folder.model.network)
    search = Search.trained(network.settings)
    if transform is not None:
        search = replace(search, family=family_named(transform, network.settings.family, min(network.spacing)))
    search = replace(search, intensities=beside)
    return lambda fixed, moving: register_direct(folder.model, fixed, moving, search=search)


def score(name: str, way: Way, pairs: Sequence[TestPair], *, swapped: bool = True) -> Row:
    """Register every pair in one way; the first one is done once more before, so that nothing is compiled on the clock.

    Args:
        name: of the way.
        way: what registers.
        pairs: what is registered.
        swapped: also register with the images swapped, for the inconsistency.
    """
    row = Row(name=name, dice=[], hd95=[], similarity=[], folds=[], inconsistency=[], seconds=[], stages=[])
    images = [(read_scalar(pair.fixed), read_scalar(pair.moving)) for pair in pairs]
    way(*images[0])
    for pair, (fixed, moving) in zip(pairs, images, strict=True):
        begin = time.perf_counter()
        found = way(fixed, moving)
        row.seconds.append(time.perf_counter() - begin)
        row.stages.append({} if found is None else {stage.name: stage.seconds for stage in found.stages})
        forward = _map(fixed, found)
        if swapped:
            row.inconsistency.append(_inconsistency(fixed.grid, moving.grid, forward, _map(moving, way(moving, fixed))))
        row.similarity.append(_similarity(fixed, moving, forward))
        row.folds.append(folds(forward, fixed.grid))
        if pair.labels:
            overlap, distance = _labels(pair, forward)
            row.dice.append(overlap)
            row.hd95.append(distance)
    return row


def mean_of(name: str, rows: Sequence[Row]) -> Row:
    """Several ways as one: the mean over them for each pair, so that intervals and tests are about pairs; without stages.

    Args:
        name: of the row.
        rows: of the same pairs in the same order.
    """
    figures = ("dice", "hd95", "similarity", "folds", "inconsistency", "seconds")
    means = {key: [fmean(one) for one in zip(*(getattr(row, key) for row in rows), strict=True)] for key in figures}
    return Row(name=name, stages=[{} for _ in means["seconds"]], **means)


def _map(fixed: Image, found: Registration | None) -> Transform:
    return Affine.identity(fixed.grid.dim) if found is None else found.forward


def _inconsistency(fixed: Grid, moving: Grid, there: Transform, back: Transform) -> float:
    voxels = identity_points(fixed.shape, dtype=torch.float64, device=torch.device("cpu"))
    begin = fixed.to_world(voxels[0].flatten(1).T)
    middle = there(begin)
    inside = moving.to_voxel(middle)
    kept = ((inside >= 0) & (inside <= torch.tensor(moving.shape) - 1)).all(1)
    return float((back(middle) - begin)[kept].norm(dim=1).mean())


def _labels(pair: TestPair, forward: Transform) -> tuple[float, float]:
    """Dice and HD95 of the moved labels, each the mean over those that count."""
    if pair.fixed_labels is None or pair.moving_labels is None:
        return float("nan"), float("nan")
    fixed, moving = read_labels(pair.fixed_labels), read_labels(pair.moving_labels)
    one, two = fixed.data, resample(moving, forward, fixed.grid, interpolation="label").data
    if pair.drawn_slices:
        drawn = (fixed.data[0] == pair.labels[0]).any(0).any(0) & (moving.data[0] == pair.labels[0]).any(0).any(0)
        one, two = one[..., drawn], two[..., drawn]
    far = [hd95(one[0] == label, two[0] == label, fixed.grid.spacing) for label in pair.labels]
    return mean_over_labels(dice(one, two, pair.labels)), fmean(far)


def folds(forward: Transform, grid: Grid) -> float:
    """Share of the voxels of a grid where a map folds, per cent."""
    affine, field = split(forward, grid)
    turned = np.linalg.det(affine.matrix[:-1, :-1]) < 0
    determinant = jacobian_determinant(field.displacement[None].float())
    return 100.0 if turned else 100 * float((determinant <= 0).float().mean())


def _similarity(fixed: Image, moving: Image, forward: Transform) -> float:
    pull = [laid(i, t, fixed.grid)[None] for i, t in ((fixed, Affine.identity(fixed.grid.dim)), (moving, forward))]
    inside = laid(Image(torch.ones_like(moving.data[:1]), moving.grid), forward, fixed.grid)[None]
    measure = LNCC(radius=2).for_spacing(fixed.grid.spacing)
    scale = float(fixed.data.max() - fixed.data.min()) or 1.0
    return float(measure.similarity(pull[1] / scale, pull[0] / scale, inside)[0])


def header() -> str:
    """The head of the table, in Markdown."""
    return (
        "| way | Dice, mean (95 % interval) | sd | HD95, mm | 1 - LNCC | folds, % (pairs) | there and back, mm | s a pair "
        "| classical |\n|---|---|---|---|---|---|---|---|---|"
    )


def line(row: Row, reference: Row | None) -> str:
    """A row of the table, in Markdown."""
    dice_text, spread, test, far = "-", "-", "-", "-"
    if row.dice:
        far = f"{fmean(row.hd95):.3f}"
        dice_text, spread = f"{fmean(row.dice):.4f}", f"{stdev(row.dice):.4f}" if len(row.dice) > 1 else "-"
        if len(row.dice) > 1:
            low, high = bootstrap_interval(row.dice)
            dice_text += f" ({low:.4f} to {high:.4f})"
    if reference is not None and reference is not row and len(row.dice) > 1:
        test = f"p {wilcoxon(row.dice, reference.dice)['p_value']:.2g}"
    folding = f"{fmean(row.folds):.4f} ({sum(n > 0 for n in row.folds)} of {len(row.folds)})"
    astray = f"{fmean(row.inconsistency):.3f}" if row.inconsistency else "-"
    cells = (row.name, dice_text, spread, far, f"{fmean(row.similarity):.4f}", folding, astray)
    return f"| {' | '.join(cells)} | {median(row.seconds):.3f} | {test} |"


def times_header() -> str:
    """The head of the table of what models of features take their time for, in Markdown."""
    return "| way | network, s a pair | search | map and inverse | all |\n|---|---|---|---|---|"


def times_line(row: Row) -> str:
    """A row of it, of a way by a model of features, in Markdown: medians over pairs."""
    ends = [(stages["features"], stages["map"]) for stages in row.stages]
    search = [sum(stages.values()) - sum(two) for stages, two in zip(row.stages, ends, strict=True)]
    columns = ([two[0] for two in ends], search, [two[1] for two in ends], row.seconds)
    return f"| {row.name} | {' | '.join(f'{median(column):.3f}' for column in columns)} |"
