"""What is minimised: one energy per sample as a function of a tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["CurvedObjective", "Function", "Objective"]


class Objective(ABC):
    """One energy per sample; the gradient comes from autograd unless a subclass knows better.

    Whatever the result should be differentiated in is an explicit tensor in `params`.
    """

    @abstractmethod
    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        """Energies (B,) at x (B, ...)."""

    def value_and_gradient(self, x: Tensor, *params: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (B,) and the gradient of each in its own x, shape of x.

        Under `torch.no_grad` both are detached; otherwise the gradient carries a graph, so that steps can be unrolled.
        """
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            at = x if keep and x.requires_grad else x.detach().requires_grad_()
            energy = self.value(at, *params)
            (gradient,) = torch.autograd.grad(energy.sum(), at, create_graph=keep)
        return (energy, gradient) if keep else (energy.detach(), gradient)

    def directional(self, x: Tensor, direction: Tensor, *params: Tensor) -> Tensor:
        """Derivative of each energy along `direction`, (B,), differentiable in `params`.

        Its gradient in the parameters is the mixed second derivative times `direction`, what an implicit layer needs: `mixed`.
        """
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.value(at, *params).sum(), at, create_graph=True)
            return (gradient * direction.detach()).flatten(1).sum(1)

    def mixed(self, x: Tensor, direction: Tensor, *params: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of `directional`, summed over samples, in each of `params`; None in one that requires none."""
        wanted = [p for p in params if p.requires_grad]
        with torch.enable_grad():
            derivative = self.directional(x, direction, *params).sum()
        found = iter(torch.autograd.grad(derivative, wanted, allow_unused=True))
        return tuple(next(found) if p.requires_grad else None for p in params)

    def hessian_product(self, x: Tensor, direction: Tensor, *params: Tensor) -> Tensor:
        """The second derivative of each energy in x, or a positive estimate of it, times `direction`: shape of x, detached."""
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.value(at, *params).sum(), at, create_graph=True)
            (product,) = torch.autograd.grad(gradient, at, direction)
        return product


class CurvedObjective(Objective):
    """An objective that also knows a positive diagonal approximation of its Hessian, for Gauss-Newton."""

    @abstractmethod
    def curvature(self, x: Tensor, *params: Tensor) -> Tensor:
        """(B, ...) tensor >= 0 that broadcasts against x."""


class Function(Objective):
    """An objective from a function `(x, *params) -> (B,)`."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        return self.function(x, *params)
