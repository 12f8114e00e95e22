"""Mean-field smoothing of a cost volume: what PDD-Net does to distributions over displacements.

Reference: Heinrich, MICCAI 2019, arXiv 1907.10931 (min-convolution over displacements, then averages over displacements and
over neighbours, twice, with learned weights). Ours is small: any reach, any number of axes, windows of three throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.layers.base import FieldLayer, LayerSettings
from warpwright.layers.simplex import expectation
from warpwright.networks import BasisLogits, Displacement, Estimate

__all__ = ["MeanField"]


@dataclass(frozen=True, kw_only=True)
class MeanField(LayerSettings):
    """`BasisLogits` to the mean `Displacement` of distributions that neighbours have agreed on.

    Args:
        iterations: each joins the given costs with what those of neighbours say; how much either counts is learned.

    Raises:
        BadInput: there is no iteration.
    """

    iterations: int = 2

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise BadInput(f"a mean field needs at least 1 iteration, got {self.iterations}")

    def build(self, dim: int) -> FieldLayer:
        return Agreeing(self)


class Agreeing(FieldLayer):
    """As `MeanField` says."""

    name: ClassVar[str] = "meanfield"
    accepts: ClassVar[tuple[type[Estimate], ...]] = (BasisLogits,)

    def __init__(self, settings: MeanField) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(settings.iterations, 2))

    def apply_to(self, estimate: Estimate) -> Estimate:
        given = cast(BasisLogits, estimate)
        dim, around = len(given.shape), given.basis.around
        data = -given.values.unflatten(1, (2 * around + 1,) * dim)
        costs = data
        displacements, places = range(1, 1 + dim), range(1 + dim, 1 + 2 * dim)
        for own, others in self.weights:
            message = costs
            for axis in displacements:
                message = over_three(message, axis, torch.minimum)
            for axis in (*displacements, *displacements, *places, *places):
                message = over_three(message, axis, torch.add) / 3
            costs = own * data + others * message
        values = expectation((-costs).flatten(1, dim).softmax(1), given.vectors.to(costs))
        return Displacement(values=values, shape=given.shape, factors=given.factors)


def over_three(values: Tensor, axis: int, joined: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Neighbours along an axis and the entry between them, joined by two; the border is repeated."""
    n = values.shape[axis]
    before = torch.cat((values.narrow(axis, 0, 1), values.narrow(axis, 0, n - 1)), axis)
    after = torch.cat((values.narrow(axis, 1, n - 1), values.narrow(axis, n - 1, 1)), axis)
    return joined(joined(before, after), values)
