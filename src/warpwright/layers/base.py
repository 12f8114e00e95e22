"""What a field layer is, and the pipeline of layers behind a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.networks import Estimate

__all__ = ["FieldLayer", "LayerSettings", "Pipeline"]


class FieldLayer(nn.Module, ABC):
    """A differentiable map of estimates to estimates; `name` is what settings call it, `accepts` says what it serves."""

    name: ClassVar[str]
    accepts: ClassVar[tuple[type[Estimate], ...]]

    @abstractmethod
    def apply_to(self, estimate: Estimate) -> Estimate:
        """The new estimate of one accepted kind, without regard to `coarser`."""

    def check_after(self, layers: Sequence[FieldLayer]) -> None:
        """Refuse, with `BadInput`, what the layers before make of a field."""

    def penalty(self) -> Tensor | None:
        """A part of the loss that is about the layer's own weights, (); None where there is none."""
        return None

    def figures(self) -> dict[str, float]:
        """What the layer's weights are like, by name, for the log of a training."""
        return {}

    def forward(self, estimate: Estimate) -> Estimate:
        """The new estimate; coarser levels are treated likewise.

        Raises:
            BadInput: the kind is not one that this layer serves.
        """
        if not isinstance(estimate, self.accepts):
            wanted = " or ".join(kind.__name__ for kind in self.accepts)
            raise BadInput(f"the layer {self.name} works on {wanted}, it was given {type(estimate).__name__}")
        coarser = tuple(self(level) for level in estimate.coarser)
        return replace(self.apply_to(estimate), coarser=coarser)


class LayerSettings(ABC):
    """The settings of a field layer: a frozen dataclass that builds it."""

    def for_spacing(self, spacing: tuple[float, ...] | None) -> LayerSettings:
        """The settings for voxels of that size along each axis, None where it is not known; the same for most layers."""
        return self

    @abstractmethod
    def build(self, dim: int) -> FieldLayer:
        """The layer for images of `dim` axes."""


class Pipeline(nn.Module):
    """Field layers, one after the other.

    Raises:
        BadInput: a layer cannot follow those before it.
    """

    def __init__(self, layers: Sequence[FieldLayer]) -> None:
        super().__init__()
        for k, layer in enumerate(layers):
            layer.check_after(layers[:k])
        self.layers = nn.ModuleList(layers)

    def forward(self, estimate: Estimate) -> tuple[Estimate, ...]:
        """What went in and what every layer made of it, in order.

        Raises:
            BadInput: a layer is given a kind that it does not serve.
        """
        trail = [estimate]
        for layer in self.layers:
            trail.append(layer(trail[-1]))
        return tuple(trail)
