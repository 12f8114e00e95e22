"""A model: a network, the field layers behind it, how images are laid before it, and the loss it was trained with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from warpwright.energies.losses import AnyTerm, Images, Smoothness
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.similarity import LNCC
from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.layers import AnyLayer, FullSize, Integrate
from warpwright.methods.implicit import Solving
from warpwright.methods.multistep import AnyNetwork, build_step, sized
from warpwright.methods.solver_layer import Terms
from warpwright.networks import VoxelMorph
from warpwright.transforms import Preparation

__all__ = ["Model", "ModelSettings", "predict", "predict_both"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Everything that makes a model but its weights.

    Args:
        dim: axes of the images.
        channels: channels of each image.
        network: the estimator, or several in steps.
        layers: what turns the estimate of every estimator into a displacement of the lattice of its images.
        preparation: how a pair is laid before the network.
        loss: what training, and refinement of a pair, minimise.
        directions: whether the loss is that of the map of a pair, or the mean of it and of the swapped pair's.

    Raises:
        BadInput: the images have neither 2 nor 3 axes, or no channel; the preparation is for another number of axes; the loss
            has no term.
    """

    dim: int = 3
    channels: int = 1
    network: AnyNetwork = VoxelMorph(form="vm1", half_resolution=True)
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

    def lattice(self, fixed: Grid) -> Grid:
        """Where a registration looks: the voxels that hold the fixed image, or those that a `sized` network was trained at."""
        return self.preparation.fitted(fixed) if sized(self.network) else self.preparation.whole(fixed)


class Model(nn.Module):
    """The network and its field layers; weights are fresh, drawn from torch's generator.

    Raises:
        BadInput: layers cannot follow each other or the network, or a solve that is only a step is to be told something.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = build_step(
            settings.network, settings.layers, settings.dim, settings.channels, settings.preparation.spacing
        )
        inner = [m for m in self.network.modules() if isinstance(m, Solving) and m is not self.network]
        if any(step.settings.told is not None for step in inner):
            raise BadInput(
                "a solve is told something only where it is the whole network, expected no `told` in one of its steps"
            )

    def forward(self, fixed: Tensor, moving: Tensor, prompts: Terms | None = None) -> Prediction:
        """The prediction of a batch; networks may run under autocast, coordinates stay in the dtype of the images.

        Args:
            fixed: (B, C, *S).
            moving: (B, C, *S).
            prompts: what a network that is a solve is told; None for any other.

        Raises:
            BadInput: the layers do not serve a network's estimate, or do not end at a displacement of the image's lattice.
        """
        return Prediction(self.network(fixed, moving) if prompts is None else self.network(fixed, moving, prompts))


def predict(model: Model, batch: PairBatch) -> Prediction:
    """The prediction of the pairs; a network that is a solve may be told something while it trains."""
    prompts = model.network.told(batch) if isinstance(model.network, Solving) else None
    return model(batch.fixed, batch.moving, prompts)


def predict_both(model: Model, batch: PairBatch) -> tuple[Prediction, Prediction]:
    """Predictions of the pairs and of the swapped pairs, each with the other as its inverse.

    The second is the inverse that the model gives, or the network's own answer to the swapped images.
    """
    if isinstance(model.network, Solving):
        told = model.network.told(batch), model.network.told(batch.swapped())
        there, back = (Prediction(trail) for trail in model.network.both(batch.fixed, batch.moving, told))
    else:
        there = predict(model, batch)
        given = there.reversed()
        if given is not None:
            return there, given
        back = predict(model, batch.swapped())
    return with_inverse(there, back.displacement), with_inverse(back, there.displacement)


def with_inverse(prediction: Prediction, inverse: Tensor) -> Prediction:
    """The prediction with a displacement as the inverse of its last estimate."""
    return Prediction((*prediction.trail[:-1], replace(prediction.final, inverse=inverse)))
