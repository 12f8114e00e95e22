"""Distributions over basis displacements: the projection onto the simplex, and distributions drawn towards a field.

Reference: Held, Wolfe and Crowder, Mathematical Programming 6, 1974 (the projection by Newton's method; its derivative is the
projection onto the face that it ends on).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from warpwright.kernels import as_operator, usable

__all__ = ["confidence", "drawn", "expectation", "project_simplex", "squared_distances"]


class _Projection(torch.autograd.Function):
    """Keeps one byte for an entry: whether it is above zero."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values - values.amax(1, keepdim=True)  # or large ones would hide the one that is taken from the largest
        threshold = (values.mean(1, keepdim=True) - 1 / values.shape[1]).clamp_min(-1)
        number = torch.full_like(threshold, torch.inf)
        while True:  # the support shrinks, so this ends
            support = (values > threshold).sum(1, keepdim=True, dtype=values.dtype)
            if not bool((support < number).any()):
                break
            rise = ((values - threshold).clamp_min(0).sum(1, keepdim=True) - 1) / support.clamp_min(1)
            threshold = torch.where(support < number, threshold + rise, threshold)
            number = torch.minimum(number, support)
        out = (values - threshold).clamp_min(0)
        ctx.save_for_backward(out > 0)
        return out

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        (support,) = ctx.saved_tensors
        kept = cotangents[0] * support
        return kept - support * (kept.sum(1, keepdim=True) / support.sum(1, keepdim=True))


def project_simplex(values: Tensor) -> Tensor:
    """The nearest distribution, along axis 1.

    Args:
        values: (B, m, *S).

    Returns:
        (B, m, *S), entries >= 0 that sum to one.
    """
    return _Projection.apply(values)  # pyright: ignore[reportReturnType]


def confidence(probability: Tensor) -> Tensor:
    """How much a voxel knows, the square of its largest probability: (B, m, *S) to (B, 1, *S)."""
    return probability.max(1, keepdim=True).values.square()


def expectation(probability: Tensor, basis: Tensor) -> Tensor:
    """Mean displacement of distributions: (B, m, *S) over (m, D) to (B, D, *S)."""
    return torch.einsum("bm...,md->bd...", probability, basis)


def squared_distances(target: Tensor, basis: Tensor) -> Tensor:
    """`|b_i - t|^2` of a field (B, D, *S) to every displacement of a basis (m, D): (B, m, *S)."""
    like = (1, -1, *(1,) * (target.ndim - 2))
    parts = ((target[:, axis : axis + 1] - basis[:, axis].reshape(like)).square() for axis in range(basis.shape[1]))
    return torch.stack(tuple(parts)).sum(0)


def drawn(probability: Tensor, target: Tensor, basis: Tensor, alpha: Tensor) -> Tensor:
    """Mean displacement of the distributions nearest to those given that keep to a field.

    That is, of `P(p_i - |b_i - t|^2 / (4 alpha))` with the projection P onto the simplex.

    Args:
        probability: (B, m, *S), sums to one along axis 1.
        target: (B, D, *S), voxels.
        basis: (m, D), voxels.
        alpha: (), voxels squared, positive: how far from the field evidence is kept.

    Returns:
        (B, D, *S), voxels.
    """
    if usable(probability, target, basis, alpha):
        return _compiled_drawn(probability, target, basis, alpha)
    return _plain(probability, target, basis, alpha)


def _plain(probability: Tensor, target: Tensor, basis: Tensor, alpha: Tensor) -> Tensor:
    return expectation(project_simplex(probability - squared_distances(target, basis) / (4 * alpha)), basis)


def _compute(probability: Tensor, target: Tensor, basis: Tensor, alpha: Tensor) -> Tensor:
    from warpwright.kernels import simplex

    return simplex.drawn(probability, target, basis, alpha)


def _fake(_: Tensor, target: Tensor, *__: Any) -> Tensor:
    return torch.empty_like(target, memory_format=torch.contiguous_format)


def _compute_back(
    probability: Tensor, target: Tensor, basis: Tensor, alpha: Tensor, cotangent: Tensor, learned: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from warpwright.kernels import simplex

    return simplex.drawn_back(probability, target, basis, alpha, cotangent, learned=learned)


def _fake_back(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    p, t, b, a = (torch.empty_like(one, memory_format=torch.contiguous_format) for one in given[:4])
    return p, t, b, a


def _backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, ...]:
    probability, target, basis, alpha = ctx.saved_tensors
    return _compiled_back(probability, target, basis, alpha, cotangent, any(ctx.needs_input_grad[2:]))


_compiled_back = as_operator("drawn_back", _compute_back, fake=_fake_back)
_compiled_drawn = as_operator("drawn", _compute, fake=_fake, backward=_backward, twin=_plain)
