"""Muon: descent along the momentum of a weight matrix with all its singular values made alike.

References: Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon), momentum, the polynomial and its constants; Liu et
al., 2025 (arXiv 2502.16982), the factor that makes steps as long as Adam's. A kernel of a convolution is the matrix of its
outputs by everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam

__all__ = ["Orthogonal", "orthogonalised"]

POLYNOMIAL = (3.4445, -4.7750, 2.0315)
LENGTH = 0.2  # root mean square of an update, per unit of the rate
FEW = 3  # outputs of a head that gives a field: such a matrix has too few directions to make alike
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix (M, N) with the singular vectors of the given one and singular values near 1 (about 0.7 to 1.2).

    Newton-Schulz iterations of degree five. Directions in which the matrix is next to zero stay small. An iteration takes X to
    p(XX') X and XX' to p(XX')^2 XX', so all of them are done on that small square, and the matrix is multiplied once.
    The square wants full single precision (on CUDA torch's default; TF32 makes small directions too large): lower ones are
    raised to it.
    """
    a, b, c = POLYNOMIAL
    tall = matrix.shape[0] > matrix.shape[1]
    found = (matrix.mT if tall else matrix).to(torch.promote_types(matrix.dtype, torch.float32))
    found = found / found.norm().clamp_min(torch.finfo(found.dtype).tiny)
    square = found @ found.mT
    one = torch.eye(len(square), dtype=square.dtype, device=square.device)
    factors: list[Tensor] = []
    for _ in range(steps):
        if factors:
            square = factors[-1] @ square @ factors[-1]
        factors.append(a * one + b * square + c * square @ square)
    found = torch.linalg.multi_dot([*reversed(factors), found])
    return (found.mT if tall else found).to(matrix.dtype)


class Orthogonal(torch.optim.Optimizer):
    """Muon for kernels and matrices of more than three outputs, Adam for all other weights.

    Args:
        weights: what is learned.
        rate: learning rate of the matrices.
        momentum: share of the mean of earlier gradients that is kept.
        others: rate of Adam, as a share of `rate`.
    """

    def __init__(self, weights: Iterable[Tensor], rate: float, momentum: float, others: float) -> None:
        super().__init__(weights, {"lr": rate, "momentum": momentum, "others": others})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update from the gradients that the weights hold; without a gradient a weight stays."""
        assert closure is None, "this optimiser evaluates nothing by itself"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                update = self._matrix(weight, group)
                if update is None:
                    self._adam(weight, weight.grad, group["lr"] * group["others"])
                else:
                    weight.add_(update, alpha=-group["lr"])

    def _matrix(self, weight: Tensor, group: dict[str, float]) -> Tensor | None:
        """The update of a matrix, Nesterov's momentum; None for other weights."""
        if weight.ndim < 2 or weight.shape[0] <= FEW:
            return None
        gradient, state = weight.grad, self.state[weight]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        matrix = gradient.lerp(state["momentum"], group["momentum"]).flatten(1)
        return (LENGTH * max(matrix.shape) ** 0.5) * orthogonalised(matrix).reshape(weight.shape)

    def _adam(self, weight: Tensor, gradient: Tensor, rate: float) -> None:
        """Torch's Adam for one weight."""
        state = self.state[weight]
        if not state:
            state.update(step=torch.zeros(()), mean=torch.zeros_like(weight), square=torch.zeros_like(weight))
        moments = [state["mean"]], [state["square"]], [], [state["step"]]
        fixed = {"amsgrad": False, "beta1": BETAS[0], "beta2": BETAS[1], "weight_decay": 0.0, "eps": EPSILON, "maximize": False}
        adam([weight], [gradient], *moments, lr=rate, **fixed)
