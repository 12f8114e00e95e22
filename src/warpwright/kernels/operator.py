"""When a kernel may be used, and how it becomes an operator of torch with a derivative."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

__all__ = ["as_operator", "by_twin", "plainly", "save_arguments", "usable", "vector_jacobian"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

LOG = logging.getLogger("warpwright")
AVAILABLE = find_spec("numba") is not None
PLAINLY = [False]


def usable(*tensors: Tensor | None) -> bool:
    """Whether kernels serve these tensors: all on the CPU, all float32 or all float64, none empty, and numba installed.

    Says once, where only numba is missing, that it is.
    """
    given = [t for t in tensors if t is not None]
    kind = given[0].dtype
    fits = kind in (torch.float32, torch.float64)
    fits = fits and all(t.dtype == kind and t.device.type == "cpu" and t.numel() > 0 for t in given)
    if not fits or PLAINLY[0]:
        return False
    if not AVAILABLE:
        _say_missing()
    return AVAILABLE


@cache
def _say_missing() -> None:
    LOG.warning("numba is not installed: everything runs on plain torch, several times slower, its bytes depend on the threads")


@contextmanager
def plainly() -> Iterator[None]:
    """Within, no kernel is used, in the whole process: for comparisons, and for derivatives of derivatives."""
    before, PLAINLY[0] = PLAINLY[0], True
    try:
        yield
    finally:
        PLAINLY[0] = before


def vector_jacobian(
    plain: Callable[..., Tensor], inputs: Sequence[Tensor | None], needed: Sequence[bool], cotangent: Tensor
) -> tuple[Tensor | None, ...]:
    """Cotangents of the inputs of `plain(*inputs)`, differentiable where a graph is recorded.

    What an operator does for a second derivative.

    Args:
        plain: the operator's plain twin.
        inputs: its tensors, as saved by the operator.
        needed: which of them need a gradient; for the others None is returned.
        cotangent: of the output.
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need and tensor is not None]
        found = iter(torch.autograd.grad(plain(*inputs), wanted, cotangent, create_graph=keep, allow_unused=True))
    return tuple(next(found) if need and tensor is not None else None for tensor, need in zip(inputs, needed, strict=True))


def save_arguments(ctx: Any, inputs: tuple[Any, ...], output: Any, also: tuple[Tensor, ...] = ()) -> None:  # noqa: ARG001
    """Keeps the tensors among the arguments, and `also`, in `ctx.saved_tensors`, what follows the tensors in `ctx.settings`."""
    tensors = [value for value in inputs if value is None or isinstance(value, Tensor)]
    ctx.settings = inputs[len(tensors) :]
    ctx.save_for_backward(*tensors, *also)


def by_twin(ctx: Any, twin: Callable[..., Tensor], cotangent: Tensor) -> tuple[Tensor | None, ...]:
    """As `vector_jacobian` of `twin(*tensors, *settings)`, with those that `ctx` keeps: the operator's leading tensors."""
    tensors = ctx.saved_tensors
    needed = ctx.needs_input_grad[: len(tensors)]
    return vector_jacobian(lambda *given: twin(*given, *ctx.settings), tensors, needed, cotangent)


def as_operator(
    name: str,
    compute: Callable[Arguments, Result],
    *,
    fake: Callable[..., Result],
    backward: Callable[..., tuple[Any, ...]] | None = None,
    twin: Callable[..., Tensor] | None = None,
    save: Callable[..., None] = save_arguments,
) -> Callable[Arguments, Result]:
    """`compute` as the operator `warpwright::name`, which `torch.compile` leaves whole; autograd knows what is given here.

    Args:
        name: one for each operator.
        compute: of tensors or None, then of settings; their annotations make the operator's schema. It changes no argument.
        fake: the same arguments to memory for what `compute` returns.
        backward: what `save` keeps and a cotangent of each result to the cotangents of the arguments; those of the last
            arguments may be left out. Not called where the first result has no cotangent.
        twin: what `save` keeps, tensors and settings, to the first result, in plain torch: where the derivative needs a
            derivative, or there is no `backward`, it is differentiated instead.
        save: called with `ctx`, `inputs` and `output`.
    """
    operator = torch.library.custom_op(f"warpwright::{name}", mutates_args=())(compute)
    operator.register_fake(fake)
    if backward is None and twin is None:
        return cast(Callable[Arguments, Result], operator)

    def pull_back(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        first, found = cotangents[0], ()
        if first is not None and twin is not None and (backward is None or torch.is_grad_enabled()):
            found = by_twin(ctx, twin, first)
        elif first is not None and backward is not None:
            found = backward(ctx, *cotangents)
        return (*found, *(None,) * (len(ctx.needs_input_grad) - len(found)))

    operator.register_autograd(pull_back, setup_context=save)
    return cast(Callable[Arguments, Result], operator)
