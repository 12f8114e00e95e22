"""What a part of a model is: it looks at two images and gives estimates, one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from warpwright.networks import Estimate

__all__ = ["Step", "Trail", "evaluating", "laid_out"]

Trail = tuple[Estimate, ...]


class Step(nn.Module, ABC):
    """From two images on one grid to the estimates on the way to a displacement."""

    @abstractmethod
    def forward(self, fixed: Tensor, moving: Tensor) -> Trail:
        """The trail, of which the last is a `Displacement` of factors 1.

        Args:
            fixed: (B, C, *S).
            moving: (B, C, *S).
        """


def laid_out(network: nn.Module, dim: int) -> None:
    """Lay the weights of a network of `dim` axes as its convolutions are quickest on a CPU; values stay.

    Convolutions of volumes are up to twice as fast with channels last, those of images up to a fifth slower.
    """
    if dim == 3:
        network.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]: not annotated


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Within, a network is in evaluation mode; the modes of its parts are left as they were."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
