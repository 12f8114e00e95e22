"""What may change how much each voxel's residual counts while a model learns: hooks that the plain scheme calls."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from warpwright.energies.losses import Images, Term
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.similarity import MSE
from warpwright.errors import BadInput, Failed
from warpwright.methods import Model
from warpwright.networks.scoring import VoxelMap
from warpwright.sampling import warp_covered
from warpwright.schemes.base import Synchronise

__all__ = [
    "Weighting",
    "WeightingSettings",
    "check_factors",
    "check_pointwise",
    "residuals",
    "solved_pairs",
    "terms_of",
]

T = TypeVar("T", bound=Term)


class Weighting(ABC):
    """How terms of a loss are valued in training, and what learns beside the model."""

    @property
    def score(self) -> VoxelMap | None:
        """As `Scheme.score`; None for a weighting that learns none."""
        return None

    @property
    def beside(self) -> tuple[nn.Module, ...]:
        """Networks that learn beside the model."""
        return ()

    def begin(self, number: int, batches: int = 1, factor: float = 1.0) -> bool:
        """Called before a step of so many accumulated batches, `factor` of learning rates in it; whether the model learns."""
        return True

    @abstractmethod
    def value(self, term: Term, batch: PairBatch, prediction: Prediction) -> Tensor:
        """(B,), in place of `term.value`."""

    def adjust(self) -> None:  # noqa: B027
        """Change the gradients of the model's weights before they are used."""

    def learn(self, batches: Sequence[PairBatch], synchronise: Synchronise) -> dict[str, float]:
        """An update of what learns beside the model, after the model's; figures of the step.

        Raises:
            Failed: it came to nothing.
        """
        return {}

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Take up a state again."""


class WeightingSettings(ABC):
    """The settings of a weighting: a frozen dataclass that builds it."""

    @abstractmethod
    def build(self, model: Model, steps: int, precision: torch.dtype | None = None) -> Weighting:
        """The weighting for a model on its device, which is trained for so many steps.

        Networks of the weighting compute in `precision`, as the model's does; None for that of their weights.

        Raises:
            BadInput: the model's loss has no residual for every voxel, or is none that the weighting goes with.
        """


def check_pointwise(name: str, model: Model) -> None:
    """That the loss compares images, and voxel by voxel."""
    terms = [term for term in model.settings.loss if isinstance(term, Images)]
    if not terms_of(model, Images):
        raise BadInput(f"the weighting {name} weighs residuals of images, the model's loss has none: expected a term images")
    for term in terms:
        kind = type(term.similarity).__name__.lower()
        if not isinstance(term.similarity, MSE):
            raise BadInput(f"the weighting {name} needs a residual for every voxel, {kind} has none: expected mse")
        if term.downsampling > 1 or term.coarser:
            raise BadInput(f"the weighting {name} is for images at their own resolution, expected no downsampling or coarser")


def check_factors(settings: WeightingSettings, **values: float) -> None:
    """Refuse factors that are negative or not finite; the sentence names them all."""
    if not all(0 <= value < math.inf for value in values.values()):
        kind, names = type(settings).__name__.lower(), " and ".join(values)
        raise BadInput(f"{names} of {kind} must be finite and at least 0, got {', '.join(map(str, values.values()))}")


def terms_of(model: Model, kind: type[T]) -> tuple[T, ...]:
    """The terms of a model's loss that are of a kind and count."""
    return tuple(term for term in model.settings.loss if isinstance(term, kind) and term.weight)


def residuals(term: Images, batch: PairBatch, prediction: Prediction) -> tuple[Tensor, Tensor]:
    """The squared residual of every voxel, (B, 1, *S), and how much of it both images and masks cover, likewise.

    In pairs whose solve failed nothing is covered, and residuals are 0, as their map may be no number.

    Raises:
        Failed: the images of a pair do not meet under the map, or masks are empty.
    """
    moved, cover = warp_covered(batch.moving, prediction.displacement, None, batch.moving_weight)
    weight = cover if batch.fixed_weight is None else cover * batch.fixed_weight
    sizes = weight.flatten(1).sum(1)
    solved = solved_pairs(prediction, sizes)
    if not bool(((sizes > 0) | (solved == 0)).all()):
        raise Failed(
            "the images or masks of a pair do not meet, so that no residual is left: expected pairs that do at the start"
        )
    assert isinstance(term.similarity, MSE)
    kept = solved.reshape(-1, *(1,) * (weight.ndim - 1)) > 0
    found, none = term.similarity.residual_map(moved, batch.fixed), torch.zeros_like(weight)
    return torch.where(kept, found, none), torch.where(kept, weight, none)


def solved_pairs(prediction: Prediction, like: Tensor) -> Tensor:
    """(B,) 1 for the pairs that a model has a map for, 0 for those whose solve failed."""
    failed = prediction.final.failed
    return torch.ones_like(like) if failed is None else (~failed).to(like)
