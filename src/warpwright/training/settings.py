"""Everything that decides a training run, as frozen dataclasses: what a TOML file says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from warpwright.data import Augmentation, Data
from warpwright.errors import BadInput
from warpwright.methods import ModelSettings
from warpwright.schemes import Plain

__all__ = ["AnyScheme", "Card", "Precision", "Training", "Validation"]

AnyScheme = Plain
Precision = Literal["float32", "bfloat16", "float64"]
SEEDS = 1 << 62  # a seed of torch is less


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How training is watched.

    Args:
        every: steps between two looks.
        pairs: largest number of validation pairs.
        by: figure that chooses the best model: Dice (higher), landmark error or loss (lower); "auto" takes the first of them
            that the data allow.
    """

    every: int = 500
    pairs: int = 20
    by: Literal["auto", "dice", "tre", "loss"] = "auto"

    def __post_init__(self) -> None:
        if self.every < 1 or self.pairs < 1:
            raise BadInput(f"validation needs every >= 1 and pairs >= 1, got {self.every} and {self.pairs}")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the model card says beside the figures.

    Args:
        title: name of the model.
        data: what it was trained on, with the source.
        licence: of the weights.
        use: what it is meant for, and what not.
    """

    title: str = "A registration model"
    data: str = "not stated"
    licence: str = "not stated"
    use: str = "not stated"


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training run.

    Args:
        data: images and how they are paired.
        model: network, layers, preparation, loss.
        weights: model folder whose weights the network begins with, or, if its network is the first of two steps, that step;
            None for fresh ones.
        scheme: who owns the optimiser and the step.
        augmentation: random changes of the training pairs.
        validation: when to look, and what chooses the best model.
        steps: updates of the weights.
        batch: pairs a process looks at together.
        accumulate: batches of one update.
        precision: of the network's arithmetic; fields, losses and weights are float32, or all is float64.
        save_memory: compute activations again in the backward pass in place of keeping them.
        seed: of weights and of everything drawn.
        log_every: steps between two lines of the log.
        checkpoint_every: steps between two checkpoints.
        tensorboard: write event files too (needs the extra `tensorboard`).
        card: words for the model card.
    """

    data: Data
    model: ModelSettings = ModelSettings()
    weights: Path | None = None
    scheme: AnyScheme = Plain()
    augmentation: Augmentation = Augmentation()
    validation: Validation = Validation()
    steps: int = 10000
    batch: int = 1
    accumulate: int = 1
    precision: Precision = "float32"
    save_memory: bool = False
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 500
    tensorboard: bool = False
    card: Card = Card()

    def __post_init__(self) -> None:
        counts = {n: getattr(self, n) for n in ("steps", "batch", "accumulate", "log_every", "checkpoint_every")}
        for name, count in counts.items():
            if count < 1:
                raise BadInput(f"{name} must be at least 1, got {count}")
        if not 0 <= self.seed < SEEDS:
            raise BadInput(f"seed must be at least 0 and below {SEEDS}, got {self.seed}")
