"""What a training scheme is: it owns the optimisers and the step; the trainer owns time, data and files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from warpwright.energies.pairs import PairBatch
from warpwright.methods import Model
from warpwright.networks.scoring import VoxelMap

__all__ = ["Scheme", "SchemeSettings", "Synchronise"]

Synchronise = Callable[[Sequence[Tensor]], None]  # replaces tensors by their means over all processes, in place


class Scheme(ABC):
    """A model in training.

    Attributes:
        model: what is trained.
        kept: what is validated and written to the model folder: the model itself or an average of it.
    """

    model: Model
    kept: Model

    @property
    @abstractmethod
    def score(self) -> VoxelMap | None:
        """What says where residuals of a fixed image can be trusted, written beside `kept`; None until it has learned."""

    @property
    def beside(self) -> tuple[nn.Module, ...]:
        """Networks that learn beside the model."""
        return ()

    @abstractmethod
    def step(self, number: int, batches: Sequence[PairBatch], synchronise: Synchronise) -> dict[str, float]:
        """One update of the weights.

        Args:
            number: steps done before.
            batches: accumulated for this update, each pair with the same weight.
            synchronise: called on gradients and figures before they are used.

        Returns:
            Figures by name, "loss" among them.

        Raises:
            Failed: a loss or its gradient is not finite; the step may be half done, so that nothing goes on from it.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state again."""


class SchemeSettings(ABC):
    """The settings of a scheme: a frozen dataclass that builds it."""

    @abstractmethod
    def build(self, model: Model, steps: int, precision: torch.dtype | None = None) -> Scheme:
        """The scheme for a model.

        Args:
            model: on its device, in the dtype it is trained in.
            steps: updates in all.
            precision: dtype in which networks may compute (autocast); None for that of their weights.
        """
