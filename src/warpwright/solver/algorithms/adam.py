"""Adam on vector fields: moments of the gradient, one scale for all components of a vector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.kernels import usable
from warpwright.solver.algorithms.base import FirstOrder, State, bounded, longest, tiny

__all__ = ["Adam"]


@dataclass(frozen=True, kw_only=True)
class Adam(FirstOrder):
    """Adam whose second moment is that of the vector length, so that a rotation or permutation of axes commutes with it.

    The update is `length` times the moment ratio, shortened so that no vector is longer than `length`. `damping` is
    relative to the largest second moment of the sample: it keeps places without gradient still, and the result does not
    depend on the scale of the energy.

    Args:
        length: length of the longest update vector, units of x (voxels).
        beta1: decay of the gradient's mean.
        beta2: decay of the squared gradient's mean.
        damping: added to the root of the second moment, relative to its largest value.

    Reference: Kingma and Ba, ICLR 2015, arXiv 1412.6980; deviates by the vector-wise moment, the relative damping and
        the bound on the length.
    """

    length: float = 0.5
    beta1: float = 0.9
    beta2: float = 0.99
    damping: float = 1e-3

    def __post_init__(self) -> None:
        if not (self.length > 0 and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.damping >= 0):
            raise BadInput(f"Adam needs length > 0, betas in [0, 1) and damping >= 0, got {self}")

    def init(self, x: Tensor) -> State:
        return x.new_zeros(()), x.new_zeros(x.shape), x.new_zeros(x[:, :1].shape)

    def update(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        count, mean, square = state
        count = count + 1
        if usable(gradient) and not torch.is_grad_enabled():
            return self._in_place(gradient.contiguous(), mean, square, int(count)), (count, mean, square)
        mean = mean * self.beta1 + gradient * (1 - self.beta1)
        square = square * self.beta2 + gradient.square().sum(1, keepdim=True) * (1 - self.beta2)
        scale = (square / (1 - self.beta2**count)).clamp_min(tiny(square)).sqrt()
        ratio = mean / (1 - self.beta1**count) / (scale + self.damping * longest(scale))
        return bounded(ratio, 1.0) * -self.length, (count, mean, square)

    def factor(self, gradient: Tensor, state: State) -> Tensor:
        count, _, square = state
        scale = (square / (1 - self.beta2**count)).clamp_min(tiny(square)).sqrt()
        damped = scale + self.damping * longest(scale)
        factor = -self.length / damped / longest(gradient / damped).clamp_min(1)
        return torch.where(longest(square) > 0, factor, torch.zeros_like(factor))  # nothing ever moved

    def _in_place(self, gradient: Tensor, mean: Tensor, square: Tensor, step: int) -> Tensor:
        from warpwright.kernels.stepping import adam

        settings = {"length": self.length, "beta1": self.beta1, "beta2": self.beta2, "damping": self.damping}
        return adam(gradient, mean, square, step=step, **settings)
