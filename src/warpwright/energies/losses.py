"""Losses of training and refinement: terms on a batch of pairs and what a model says about them, one value per pair.

A loss is a tuple of terms; `pair_loss` sums them with their weights. Nothing is scaled behind one's back: a velocity at
half the resolution is smooth in its own voxels and millimetres.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor

from warpwright.energies.consistency import check_every, gradient_inverse_consistency, inverse_consistency, sampling_points
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.prompts import SoftDice, label_channels, landmark_energy
from warpwright.energies.regularity import AnyRegularity, Diffusion
from warpwright.energies.similarity import AnySimilarity
from warpwright.errors import BadInput
from warpwright.geometry import spatial
from warpwright.networks import Displacement, VelocityDistribution
from warpwright.sampling import downsample, resize_displacement

__all__ = [
    "AnyTerm",
    "GradientInverseConsistency",
    "Images",
    "InverseConsistency",
    "LandmarkDistance",
    "Noise",
    "Overlap",
    "Smoothness",
    "Term",
    "Value",
    "VelocityPrior",
    "pair_loss",
]


@dataclass(frozen=True, kw_only=True)
class Term(ABC):
    """A part of a loss.

    Args:
        weight: its factor in the sum.

    Raises:
        BadInput: the weight is negative or not finite.
    """

    name: ClassVar[str]
    mutual: ClassVar[bool] = False  # whether a value is about both directions of a pair, so that it counts once for both
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise BadInput(f"the weight of the term {self.name} must be at least 0 and finite, got {self.weight}")

    @abstractmethod
    def value(self, batch: PairBatch, prediction: Prediction) -> Tensor:
        """(B,), lower is better; not multiplied by `weight`."""

    def applies(self, batch: PairBatch) -> bool:
        """Whether the batch brings what the term needs beside the images."""
        return True


@dataclass(frozen=True, kw_only=True)
class Fit(Term):
    """A term that compares the moved image, or what belongs to it (labels, landmarks), with the fixed one.

    Args:
        coarser: weights of the fields of coarser heads, coarse to fine, which are compared in the same way.
    """

    coarser: tuple[float, ...] = ()

    def value(self, batch: PairBatch, prediction: Prediction) -> Tensor:
        levels = prediction.final.coarser
        if len(levels) < len(self.coarser):
            found = f"the loss {self.name} has weights for {len(self.coarser)} coarser fields, the network has {len(levels)}"
            raise BadInput(found)
        energy = self.of(batch, prediction.displacement)
        for weight, level in zip(self.coarser, levels[len(levels) - len(self.coarser) :], strict=True):
            if max(level.factors) > 1:
                raise BadInput(
                    f"the loss {self.name} got a coarser field of factors {level.factors}, expected 1 (a layer FullSize)"
                )
            energy = energy + weight * self.of(batch, cast(Displacement, level).values)
        return energy

    @abstractmethod
    def of(self, batch: PairBatch, displacement: Tensor) -> Tensor:
        """(B,) of one field (B, D, *S), voxels."""


@dataclass(frozen=True, kw_only=True)
class Images(Fit):
    """Similarity of the moved image to the fixed one.

    Args:
        similarity: how unlike two images are.
        downsampling: compare at voxels so many times larger, where what lies farther apart pulls together; several terms make
            a pyramid.
    """

    name: ClassVar[str] = "similarity"
    similarity: AnySimilarity
    downsampling: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.downsampling < 1:
            raise BadInput(f"the image loss needs a downsampling of at least 1, got {self.downsampling}")

    def of(self, batch: PairBatch, displacement: Tensor) -> Tensor:
        fixed, moving = self._coarse(batch.fixed), self._coarse(batch.moving)
        weights = (None if w is None else self._coarse(w) for w in (batch.fixed_weight, batch.moving_weight))
        ones, factors = (1,) * len(batch.spacing), (self.downsampling,) * len(batch.spacing)
        field = resize_displacement(displacement, ones, spatial(fixed), factors)
        similarity = self.similarity.for_spacing(tuple(s * self.downsampling for s in batch.spacing))
        return similarity.match(fixed, moving, field, None, *weights)

    def _coarse(self, image: Tensor) -> Tensor:
        return image if self.downsampling == 1 else downsample(image, (self.downsampling,) * (image.ndim - 2))


@dataclass(frozen=True, kw_only=True)
class Smoothness(Term):
    """A regularity of a named field.

    Args:
        regularity: what is measured; its own weight is a further factor.
        on: the displacement of the image's lattice, or the velocity before it is integrated, of all steps together.
    """

    name: ClassVar[str] = "smoothness"
    regularity: AnyRegularity = Diffusion()
    on: Literal["displacement", "velocity"] = "displacement"

    def value(self, batch: PairBatch, prediction: Prediction) -> Tensor:
        if self.on == "displacement":
            return self.of(prediction.displacement, batch.spacing)
        velocities = prediction.velocities
        if not velocities:
            raise BadInput("the loss wants a smooth velocity, the model has none: expected on = 'displacement'")
        spacings = [tuple(s * k for s, k in zip(batch.spacing, v.factors, strict=True)) for v in velocities]
        return torch.stack([self.of(v.values, spacing) for v, spacing in zip(velocities, spacings, strict=True)]).sum(0)

    def of(self, field: Tensor, spacing: tuple[float, ...]) -> Tensor:
        """(B,) of one field (B, D, *T) on a lattice of that spacing."""
        return self.regularity.weight * self.regularity.regularity(field, spacing)


@dataclass(frozen=True, kw_only=True)
class Overlap(Fit):
    """Soft Dice loss of label maps, carried linearly.

    Args:
        labels: the labels that count.

    Raises:
        BadInput: no label is named.
    """

    name: ClassVar[str] = "overlap"
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.labels:
            raise BadInput("the overlap loss needs at least one label")

    def applies(self, batch: PairBatch) -> bool:
        return batch.fixed_labels is not None and batch.moving_labels is not None

    def of(self, batch: PairBatch, displacement: Tensor) -> Tensor:
        if batch.fixed_labels is None or batch.moving_labels is None:
            raise BadInput("the overlap loss needs label maps of both images, the data has none")
        dtype = batch.fixed.dtype
        fixed, moving = (label_channels(x, self.labels, dtype=dtype) for x in (batch.fixed_labels, batch.moving_labels))
        return SoftDice().match(fixed, moving, displacement, None, batch.fixed_weight, batch.moving_weight)


@dataclass(frozen=True, kw_only=True)
class LandmarkDistance(Fit):
    """Mean squared distance of landmarks, mm^2 (see `landmark_energy`).

    Args:
        threshold: distance beyond which a pair counts linearly, mm.
    """

    name: ClassVar[str] = "landmarks"
    threshold: float | None = None

    def applies(self, batch: PairBatch) -> bool:
        return batch.fixed_points is not None and batch.moving_points is not None

    def of(self, batch: PairBatch, displacement: Tensor) -> Tensor:
        if batch.fixed_points is None or batch.moving_points is None:
            raise BadInput("the landmark loss needs points of both images, the data has none")
        sets = zip(displacement, batch.fixed_points, batch.moving_points, strict=True)
        each = [landmark_energy(u[None], p[None], q[None], spacing=batch.spacing, threshold=self.threshold) for u, p, q in sets]
        return torch.cat(each)


@dataclass(frozen=True, kw_only=True)
class InverseConsistency(Term):
    """How far points are from their start after going there and back, in both orders (see `inverse_consistency`), voxels^2.

    Args:
        every: voxels between the points, which are moved at random (`sampling_points`).

    Raises:
        BadInput: the weight is negative or not finite, or `every` is below 1.
    """

    name: ClassVar[str] = "inverse"
    mutual: ClassVar[bool] = True
    every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_every(self.every)

    def value(self, batch: PairBatch, prediction: Prediction) -> Tensor:
        return inverse_consistency(*both_ways(prediction), points_of(batch, self.every))


@dataclass(frozen=True, kw_only=True)
class GradientInverseConsistency(Term):
    """How the map there after the map back differs from the identity in its derivative (see `gradient_inverse_consistency`).

    The published weight of 1.5 belongs to the sum of the similarities of both directions, where we take their mean: 0.75 here.

    Args:
        every: voxels between the points, which are moved at random (`sampling_points`); the paper takes 1 in 2-D, 2 in 3-D.
        derivative: a difference over a tenth of a voxel, or exact.

    Raises:
        BadInput: the weight is negative or not finite, or `every` is below 1.
    """

    name: ClassVar[str] = "gradicon"
    mutual: ClassVar[bool] = True
    every: int = 2
    derivative: Literal["difference", "exact"] = "difference"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_every(self.every)

    def value(self, batch: PairBatch, prediction: Prediction) -> Tensor:
        points = points_of(batch, self.every)
        return gradient_inverse_consistency(*both_ways(prediction), points, derivative=self.derivative)


def both_ways(prediction: Prediction) -> tuple[Tensor, Tensor]:
    """Displacements there and back."""
    if prediction.inverse is None:
        raise BadInput("inverse consistency needs a model that gives both directions, this one gives none back")
    return prediction.displacement, prediction.inverse


def points_of(batch: PairBatch, every: int) -> Tensor:
    """Points of the batch's grid, moved at random by torch's own generator."""
    return sampling_points(spatial(batch.fixed), every=every, dtype=batch.fixed.dtype, device=batch.fixed.device)


@dataclass(frozen=True, kw_only=True)
class VelocityPrior(Term):
    """Divergence of the velocity's distribution from a smooth prior.

    `D/2 (mean(p d exp(l) - l) + p/2 mean(dv^2))`, with l the log-variance, d the number of neighbours of a point, and dv the
    difference of the mean velocity between neighbours. The first mean is over points and components; the second over pairs
    of neighbours along an axis and components, then over axes.

    Args:
        prior: p, how smooth the prior is.

    Reference: Dalca et al., MICCAI 2018, arXiv 1805.04605, equation 7 without its constant, for one point. The second term is
    that of the authors' code: the equation, whose sum is over all pairs of neighbours, has p D in place of p/2.
    """

    name: ClassVar[str] = "prior"
    prior: float = 25.0

    def value(self, batch: PairBatch, prediction: Prediction) -> Tensor:
        if not prediction.distributions:
            raise BadInput("a velocity prior needs a network that gives a distribution of velocities, this one gives none")
        return torch.stack([self._of(given) for given in prediction.distributions]).sum(0)

    def _of(self, given: VelocityDistribution) -> Tensor:
        mean, spread = given.mean, given.log_variance
        dim = mean.shape[1]
        trace = (self.prior * neighbours(mean) * spread.exp() - spread).flatten(1).mean(1)
        slopes = torch.stack([torch.diff(mean, dim=d + 2).square().flatten(1).mean(1) for d in range(dim)]).mean(0)
        return dim / 2 * (trace + self.prior / 2 * slopes)


@dataclass(frozen=True, kw_only=True)
class Noise(Term):
    """Mean squared error of a network that is to find the noise laid over the fixed image, over voxels and channels.

    In evaluation mode no noise is laid over it, and the value is 0: validation, refinement and scoring see the pair itself.

    Reference: Kim et al., DiffuseMorph, ECCV 2022, arXiv 2112.05149.
    """

    name: ClassVar[str] = "noise"

    def value(self, batch: PairBatch, prediction: Prediction) -> Tensor:
        if not prediction.noise_errors:
            raise BadInput("a noise loss needs a network that looks for noise, expected one of the kind diffusemorph")
        return torch.stack(prediction.noise_errors).sum(0)


def neighbours(field: Tensor) -> Tensor:
    """How many neighbours along the axes each point of a lattice has: (B, C, *S) to (1, 1, *S)."""
    shape = field.shape[2:]
    count = field.new_zeros(1, 1, *shape)
    for axis, n in enumerate(shape):
        at = torch.arange(n, device=field.device)
        line = (at > 0).to(field.dtype) + (at < n - 1).to(field.dtype)
        count = count + line.reshape(-1, *(1,) * (len(shape) - 1 - axis))
    return count


AnyTerm = (
    GradientInverseConsistency | Images | InverseConsistency | LandmarkDistance | Noise | Overlap | Smoothness | VelocityPrior
)


Value = Callable[[Term, PairBatch, Prediction], Tensor]


def pair_loss(
    terms: Sequence[AnyTerm], batch: PairBatch, prediction: Prediction, value: Value | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the terms, (B,), and what each is without its weight, (B,), by name.

    Args:
        terms: of the loss.
        batch: the pairs.
        prediction: what a model says about them.
        value: what a term is worth, (B,), in place of `term.value`.
    """
    parts: dict[str, Tensor] = {}
    total = batch.fixed.new_zeros(len(batch))
    for term in terms:
        found = term.value(batch, prediction) if value is None else value(term, batch, prediction)
        total = total + term.weight * found
        parts[term.name] = parts[term.name] + found if term.name in parts else found
    return total, parts
