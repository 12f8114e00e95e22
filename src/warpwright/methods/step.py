"""What a part of a model is: it looks at two images and gives estimates, one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from warpwright.networks import Estimate

__all__ = ["Step", "Trail", "evaluating"]

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
