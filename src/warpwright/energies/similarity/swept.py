"""Energies whose kernel finds the gradient in the same sweep as the value: it is kept, and backward only scales it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

import torch
from torch import Tensor

from warpwright.kernels import as_operator, save_arguments, vector_jacobian

__all__ = ["as_energy", "on_one_grid"]

Arguments = ParamSpec("Arguments")


def on_one_grid(image: Tensor, other: Tensor, weight: Tensor | None) -> bool:
    """Whether (B, C, *S) images and a (B, 1, *S) weight have the same channels and voxels, as kernels need them."""
    fits = image.shape[1:] == other.shape[1:] and (len(image) == len(other) or 1 in (len(image), len(other)))
    batch = max(len(image), len(other))
    return fits and (weight is None or (weight.shape[1:] == (1, *image.shape[2:]) and len(weight) in (1, batch)))


def as_energy(
    name: str,
    compute: Callable[Arguments, tuple[Tensor, Tensor]],
    *,
    fake: Callable[..., tuple[Tensor, Tensor]],
    twin: Callable[..., Tensor],
    place: Callable[..., int] = lambda *_: 0,
) -> Callable[Arguments, tuple[Tensor, Tensor]]:
    """The operator of an energy, see `kernels.as_operator`.

    Args:
        name: of the operator.
        compute: tensors and settings to energies (B,) and the gradient (B, ...) of each sample's in one of the tensors,
            which holds nothing where it was not asked for.
        fake: memory for both.
        twin: the same arguments to energies (B,), in plain torch: serves gradients in other tensors and second derivatives.
        place: settings to the number of the tensor that the gradient is in.
    """

    def backward(ctx: Any, cotangent: Tensor, _: None) -> tuple[Tensor | None, ...]:
        *tensors, gradient = ctx.saved_tensors
        needed, at = ctx.needs_input_grad[: len(tensors)], place(*ctx.settings)
        others = any(need for k, need in enumerate(needed) if k != at)
        if torch.is_grad_enabled() or others or not gradient.numel():
            return vector_jacobian(lambda *given: twin(*given, *ctx.settings), tensors, needed, cotangent)
        if type(cotangent) is not Tensor or (cotangent != 1).any():  # a traced one has no value
            gradient = gradient * cotangent.reshape(-1, *(1,) * (gradient.ndim - 1)).to(gradient.dtype)
        return (*(None,) * at, gradient.sum_to_size(tensors[at].shape).to(tensors[at].dtype))

    return as_operator(name, compute, fake=fake, backward=backward, save=_save)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    save_arguments(ctx, inputs, output, also=output[1:])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
