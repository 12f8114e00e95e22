"""What a registration did, in figures, and the verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warpwright.evaluation import dice, inverse_consistency, mean_over_labels, summarise, target_registration_error
from warpwright.evaluation import vanished_labels as find_vanished
from warpwright.geometry import Grid, Image, jacobian_determinant
from warpwright.io.points import Points
from warpwright.transforms import Affine, Transform, split

__all__ = [
    "APART",
    "INEXACT",
    "Scores",
    "Verdict",
    "better",
    "common_labels",
    "determinant",
    "determinant_figures",
    "energy_text",
    "inverse_text",
    "judge",
    "nothing_to_improve",
    "prompted_text",
    "score",
]

INEXACT = 0.5  # finest voxels, of the inverse's 95th percentile, from which a person should know
WORSE = 1e-6  # a score that changed by less (an energy by this share) did not change
TINY = 1e-3  # mm, of the inverse, below which digits mean nothing to a person
ALIKE = 1e-4  # an energy that begins and ends below: images that were equal from the start
TOLD = 0.1  # finest voxels between a landmark and one that was prompted, up to which they are the same
LATER = ("prompted_landmarks", "tre_prompted")  # figures that earlier versions did not record
APART = 0.01  # share of the smaller image covered, below which the images share next to nothing


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures of one registration; what was not given is empty or NaN.

    Args:
        energy_before: the similarity under the given map (the initial transform, or the world positions as they are), at
            full resolution, lower is better; infinite if the images do not meet there.
        energy_after: the same through the transform.
        overlap: share of the smaller image (or mask) that the other one covers through the transform, 0 to 1.
        dice_before: label to Dice at the initial position.
        dice_after: label to Dice of the moved labels.
        prompted_labels: labels that the registration was told of, which therefore do not count in `mean_dice`.
        vanished_labels: labels of the moving image that are not in the moved labels.
        tre_before: mean, median, p90 and max of the landmarks' distances at the initial position, mm.
        tre_after: the same through the transform.
        prompted_landmarks: rows, from 0, of the landmarks that the registration was told of, which therefore do not count in
            `tre_before` and `tre_after`.
        tre_prompted: whether it was told of all of them; then they do count there, and these figures judge nothing.
        folded_percent: voxels of the fixed grid with determinant <= 0, per cent.
        min_determinant: smallest determinant of the full map.
        sd_log_jacobian: standard deviation of the log determinant.
        inverse_residual: largest error of the inverse field at its own voxels, voxels; between them it is larger.
        inverse_consistency: mean, p95 and max of |inverse(transform(x)) - x|, mm, and the share of voxels counted.
    """

    energy_before: float
    energy_after: float
    overlap: float
    dice_before: Mapping[int, float] = field(default_factory=dict)
    dice_after: Mapping[int, float] = field(default_factory=dict)
    prompted_labels: tuple[int, ...] = ()
    vanished_labels: tuple[int, ...] = ()
    tre_before: Mapping[str, float] = field(default_factory=dict)
    tre_after: Mapping[str, float] = field(default_factory=dict)
    prompted_landmarks: tuple[int, ...] = ()
    tre_prompted: bool = False
    folded_percent: float
    min_determinant: float
    sd_log_jacobian: float
    inverse_residual: float
    inverse_consistency: Mapping[str, float]

    @property
    def mean_dice(self) -> tuple[float, float]:
        """Mean over the labels that were not prompted, before and after; NaN without any."""
        before, after = (
            {k: v for k, v in d.items() if k not in self.prompted_labels} for d in (self.dice_before, self.dice_after)
        )
        return mean_over_labels(before), mean_over_labels(after)

    @property
    def mean_tre(self) -> tuple[float, float]:
        """Mean error of the landmarks that were not prompted, mm, before and after; NaN without any."""
        if self.tre_prompted or not self.tre_after:
            return math.nan, math.nan
        return self.tre_before["mean"], self.tre_after["mean"]

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        means = dict(zip(("mean_dice_before", "mean_dice_after"), self.mean_dice, strict=True)) if self.dice_after else {}
        return asdict(self) | means

    @classmethod
    def from_mapping(cls, found: Mapping[str, Any]) -> Scores:
        """The figures that `to_mapping` gave, read from JSON, where NaN and infinity are null.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: they are not such figures.
        """
        names = [one.name for one in fields(cls) if one.name in found or one.name not in LATER]
        values = {name: found[name] for name in names}
        for name in names:
            if isinstance(values[name], Mapping):
                values[name] = {key: _number(value) for key, value in values[name].items()}
            elif isinstance(values[name], list):
                values[name] = tuple(int(value) for value in values[name])
            elif not isinstance(values[name], bool):
                values[name] = _number(values[name], math.inf if name.startswith("energy") else math.nan)
        for name in ("dice_before", "dice_after"):
            values[name] = {int(label): value for label, value in values[name].items()}
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a result can be used.

    Args:
        improved: the images share voxels, the similarity got better, and labels and landmarks, where they were given, did
            not get worse. False as well where there was nothing to improve, which is a note and no warning.
        folds: the map folds somewhere.
        sentences: what a person must know; empty when all is well.
        notes: what a person may want to know.
    """

    improved: bool
    folds: bool
    sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def score(
    transform: Transform,
    inverse: Transform,
    jacobian: Image,
    *,
    energies: tuple[float, float],
    overlap: float,
    inverse_residual: float,
    labels: tuple[Image, Image, Image, Image] | None = None,
    points: tuple[Points, Points, Transform] | None = None,
    prompted: tuple[int, ...] = (),
    prompted_points: tuple[Tensor, Tensor] | None = None,
) -> Scores:
    """The figures of one registration.

    Args:
        transform: world points of fixed to world points of moving.
        inverse: the map back.
        jacobian: determinant of the full map on the fixed grid.
        energies: similarity before and after.
        overlap: as the method reports it.
        inverse_residual: as the method reports it, voxels.
        labels: fixed, moving on its own grid, moving at its initial position, moved.
        points: landmarks of fixed and of moving, and the initial transform.
        prompted: labels that the registration was told of.
        prompted_points: (N, D) world points of fixed and of moving that it was told of; None for none.
    """
    found: dict[str, Any] = {"prompted_labels": prompted}
    if labels is not None:
        fixed, moving, before, moved = (image.data for image in labels)
        both = common_labels(labels[0], labels[1])
        found["dice_before"], found["dice_after"] = dice(fixed, before, both), dice(fixed, moved, both)
        found["vanished_labels"] = find_vanished(moving, moved)
    if points is not None:
        first, second, start = points[0].world, points[1].world, points[2]
        told = _told((first, second), prompted_points, TOLD * min(jacobian.grid.spacing))
        found["prompted_landmarks"], found["tre_prompted"] = tuple(told.nonzero()[:, 0].tolist()), bool(told.all())
        counted = told if found["tre_prompted"] else ~told
        for key, through in (("tre_before", start), ("tre_after", transform)):
            found[key] = summarise(target_registration_error(first[counted], second[counted], through))
    return Scores(
        energy_before=energies[0],
        energy_after=energies[1],
        overlap=overlap,
        **determinant_figures(jacobian),
        inverse_residual=inverse_residual,
        inverse_consistency=inverse_consistency(transform, inverse, jacobian.grid),
        **found,
    )


def _told(points: tuple[Tensor, Tensor], prompted: tuple[Tensor, Tensor] | None, near: float) -> Tensor:
    """(N,) whether an end of a landmark lies no farther than `near` (mm) from that of one that was prompted."""
    told = torch.zeros(len(points[0]), dtype=torch.bool)
    for end, others in () if prompted is None else zip(points, prompted, strict=True):
        told |= torch.cdist(end.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist").amin(1) <= near
    return told


def common_labels(fixed: Image, moving: Image) -> tuple[int, ...]:
    """Labels (not 0) that occur in both maps: only they can be scored."""
    one, two = (set(image.data.unique().tolist()) for image in (fixed, moving))
    return tuple(sorted((one & two) - {0}))


def judge(scores: Scores, voxel: float) -> Verdict:
    """The verdict on the figures.

    Args:
        scores: the figures.
        voxel: finest spacing of the fixed image, mm.
    """
    sentences = [*_closeness(scores), *_got_worse(scores)]
    equal = not sentences and nothing_to_improve(scores)
    notes = ("the images are alike where they are: nothing to improve",) if equal else ()
    improved = not sentences and not equal
    folds = scores.folded_percent > 0
    if folds:
        share = f"{scores.folded_percent:.2g} % of the voxels, least determinant {scores.min_determinant:.2g}"
        sentences.append(f"the map folds: {share}")
    if scores.inverse_consistency["p95"] > INEXACT * voxel:
        sentences.append(f"the inverse is inexact: {inverse_text(scores.inverse_consistency)}")
    if scores.vanished_labels:
        gone = ", ".join(str(label) for label in scores.vanished_labels)
        sentences.append(f"labels that vanish when moved: {gone}")
    return Verdict(improved=improved, folds=folds, sentences=tuple(sentences), notes=notes)


def _number(value: Any, unknown: float = math.nan) -> float:
    return unknown if value is None else float(value)


def better(scores: Scores) -> bool:
    """Whether the images are more alike than before, by more than rounding."""
    return _gain(scores) > WORSE * abs(scores.energy_after)


def nothing_to_improve(scores: Scores) -> bool:
    """Whether the images were equal from the start, and still are."""
    return max(abs(scores.energy_before), abs(scores.energy_after)) < ALIKE and abs(_gain(scores)) < WORSE


def energy_text(energy: float) -> str:
    """An energy in words: images that do not meet have none."""
    return f"{energy:.4g}" if math.isfinite(energy) else "no overlap"


def inverse_text(errors: Mapping[str, float]) -> str:
    """The figures of `inverse_consistency` in words."""
    if math.isnan(errors["max"]):
        return "not measured, the images do not meet"
    if errors["max"] < TINY:
        return f"off by less than {TINY:g} mm"
    return f"off by {errors['p95']:.2g} mm (95th percentile), at most {errors['max']:.2g} mm"


def prompted_text(scores: Scores) -> str:
    """What of the landmarks was prompted, in words; empty for nothing."""
    if scores.tre_prompted:
        return "all were prompted"
    return f"without {len(scores.prompted_landmarks)} that were prompted" if scores.prompted_landmarks else ""


def _gain(scores: Scores) -> float:
    return scores.energy_before - scores.energy_after


def _closeness(scores: Scores) -> list[str]:
    """Sentences if the images share next to nothing, or are no more alike than before."""
    sentences: list[str] = []
    if not scores.overlap >= APART:
        least = f"next to no voxel under the result ({100 * scores.overlap:.2g} % of the smaller one)"
        sentences.append(f"the images share {least if scores.overlap > 0 else 'no voxel under the result'}")
    if not better(scores) and not nothing_to_improve(scores):
        before, after = energy_text(scores.energy_before), energy_text(scores.energy_after)
        sentences.append(f"did not improve: similarity {before} before, {after} after")
    return sentences


def _got_worse(scores: Scores) -> list[str]:
    """A sentence for labels and one for landmarks, if they were given and fit less well than before."""
    sentences: list[str] = []
    dice_before, dice_after = scores.mean_dice
    tre_before, tre_after = scores.mean_tre
    if dice_after < dice_before - WORSE:
        sentences.append(f"got worse: mean Dice {dice_before:.3f} before, {dice_after:.3f} after")
    if tre_after > tre_before + WORSE:
        sentences.append(f"got worse: mean landmark error {tre_before:.2f} mm before, {tre_after:.2f} mm after")
    return sentences


def determinant(transform: Transform, grid: Grid, name: str = "jacobian") -> Image:
    """Jacobian determinant of the full map in mm at every voxel of `grid`: det(A) det(I + grad u); (1, *S) float32."""
    affine, rest = split(transform, grid)
    volume = _linear_determinant(affine) * jacobian_determinant(rest.displacement[None].float())
    return Image(volume, grid, name)


def determinant_figures(jacobian: Image) -> dict[str, float]:
    """Of an image of determinants: `folded_percent`, `min_determinant`, and `sd_log_jacobian` where it is positive."""
    values = jacobian.data.numpy()
    positive = values[values > 0]
    return {
        "folded_percent": float(100 * np.mean(values <= 0)),
        "min_determinant": float(values.min()),
        "sd_log_jacobian": float(np.log(positive).std(dtype=np.float64)) if positive.size else math.nan,
    }


def _linear_determinant(affine: Affine) -> float:
    return float(np.linalg.det(affine.matrix[:-1, :-1]))
