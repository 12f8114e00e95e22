"""When a kernel may be used, and what its operator does for a second derivative."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

__all__ = ["plainly", "usable", "vector_jacobian"]

LOG = logging.getLogger("warpwright")
AVAILABLE = find_spec("numba") is not None
PLAINLY = [False]


def usable(*tensors: Tensor | None) -> bool:
    """Whether kernels serve these tensors: all on the CPU, all float32 or all float64, and numba installed.

    Says once, where only numba is missing, that it is.
    """
    given = [t for t in tensors if t is not None]
    kind = given[0].dtype
    fits = kind in (torch.float32, torch.float64) and all(t.dtype == kind and t.device.type == "cpu" for t in given)
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
    """Within, no kernel is used, in the whole process: for comparisons."""
    before, PLAINLY[0] = PLAINLY[0], True
    try:
        yield
    finally:
        PLAINLY[0] = before


def vector_jacobian(
    plain: Callable[..., Tensor], inputs: Sequence[Tensor | None], needed: Sequence[bool], cotangent: Tensor
) -> tuple[Tensor | None, ...]:
    """Cotangents of the inputs of `plain(*inputs)`, themselves differentiable: what an operator does for a second derivative.

    Args:
        plain: the operator's plain twin.
        inputs: its tensors, as saved by the operator.
        needed: which of them need a gradient; for the others None is returned.
        cotangent: of the output.
    """
    with torch.enable_grad():
        wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need and tensor is not None]
        found = iter(torch.autograd.grad(plain(*inputs), wanted, cotangent, create_graph=True, allow_unused=True))
    return tuple(next(found) if need and tensor is not None else None for tensor, need in zip(inputs, needed, strict=True))
