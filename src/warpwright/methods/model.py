"""A model: a network, the field layers behind it, how images are laid before it, and the loss it was trained with."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor, nn

from warpwright.energies.losses import AnyTerm, Images, Smoothness
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.similarity import LNCC
from warpwright.errors import BadInput
from warpwright.geometry import full_precision
from warpwright.layers import AnyLayer, FullSize, Integrate, Pipeline
from warpwright.networks import AnyArchitecture, Displacement, Estimate, VoxelMorph
from warpwright.transforms import Preparation

__all__ = ["Model", "ModelSettings", "predict_both"]

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Everything that makes a model but its weights.

    Args:
        dim: axes of the images.
        channels: channels of each image.
        network: the estimator.
        layers: what turns its estimate into a displacement of the image's lattice.
        preparation: how a pair is laid before the network.
        loss: what training, and refinement of a pair, minimise.
        directions: whether the loss is that of the map of a pair, or the mean of it and of the swapped pair's.

    Raises:
        BadInput: the images have neither 2 nor 3 axes, or no channel; the preparation is for another number of axes; the loss
            has no term.
    """

    dim: int = 3
    channels: int = 1
    network: AnyArchitecture = VoxelMorph(form="vm1", half_resolution=True)
    layers: tuple[AnyLayer, ...] = (Integrate(), FullSize())
    preparation: Preparation = Preparation()
    loss: tuple[AnyTerm, ...] = (Images(similarity=LNCC()), Smoothness(on="velocity", weight=0.1))
    directions: Literal["forward", "both"] = "both"

    def __post_init__(self) -> None:
        if self.dim not in (2, 3) or self.channels < 1:
            raise BadInput(f"a model is for images of 2 or 3 axes and at least 1 channel, got {self.dim} and {self.channels}")
        for name, given in (("spacing", self.preparation.spacing), ("shape", self.preparation.shape)):
            if given is not None and len(given) != self.dim:
                raise BadInput(f"the preparation's {name} has {len(given)} axes, the model {self.dim}: expected as many")
        if not self.loss:
            raise BadInput("a model needs at least one term in its loss")


class Model(nn.Module):
    """The network and its field layers; weights are fresh, drawn from torch's generator."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        network = settings.network.build(settings.dim, settings.channels)
        layout = CHANNELS_LAST[settings.dim]  # on a CPU convolutions are up to twice as fast
        self.network = network.to(memory_format=layout)  # pyright: ignore[reportCallIssue]: missing in torch's annotations
        self.pipeline = Pipeline([layer.build(settings.dim) for layer in settings.layers])

    def forward(self, fixed: Tensor, moving: Tensor) -> Prediction:
        """The prediction of a batch; the network may run under autocast, coordinates stay in the dtype of the images.

        Args:
            fixed: (B, C, *S).
            moving: (B, C, *S).

        Raises:
            BadInput: the layers do not serve the network's estimate, or do not end at a displacement of the image's lattice.
        """
        estimate = in_dtype(self.network(fixed, moving), fixed.dtype)
        with full_precision(fixed):
            trail = self.pipeline(estimate)
        last = trail[-1]
        if not isinstance(last, Displacement) or max(last.factors) > 1:
            found = f"{type(last).__name__} on a lattice of factors {last.factors}"
            raise BadInput(f"the layers of the model end at a {found}, expected a Displacement of factors 1 (a layer FullSize)")
        return Prediction(trail)


def predict_both(model: Model, batch: PairBatch) -> tuple[Prediction, Prediction]:
    """Predictions of the pairs and of the swapped pairs, each with the other as its inverse.

    The second is the inverse that the model gives, or the network's own answer to the swapped images.
    """
    there = model(batch.fixed, batch.moving)
    back = there.reversed()
    if back is not None:
        return there, back
    back = model(batch.moving, batch.fixed)
    return with_inverse(there, back.displacement), with_inverse(back, there.displacement)


def with_inverse(prediction: Prediction, inverse: Tensor) -> Prediction:
    """The prediction with a displacement as the inverse of its last estimate."""
    return Prediction((*prediction.trail[:-1], replace(prediction.final, inverse=inverse)))


def in_dtype(estimate: Estimate, dtype: torch.dtype) -> Estimate:
    """An estimate with all its tensors in a dtype."""
    found = {f.name: getattr(estimate, f.name) for f in fields(estimate)}
    changed = {name: value.to(dtype) for name, value in found.items() if isinstance(value, Tensor)}
    coarser = tuple(in_dtype(level, dtype) for level in estimate.coarser)
    return replace(estimate, coarser=coarser, **changed)
