"""Work shared among threads, slab by slab along the first axis of a volume.

A kernel's outcome for a slab does not depend on which thread works on it, nor on how many there are: the slabs are a
property of the volume. Sums are kept for each plane and added in order (`ordered_sum`). So results are the same, byte for
byte, for any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import count
from threading import Lock

import numpy as np
import torch

__all__ = ["available_threads", "ordered_sum", "over_slabs", "threads_to_kernels"]

GRAIN = 1 << 14  # voxels of a slab, about: fewer are not worth a thread
TAKEN = [0, 0]  # threads that kernels have taken over from torch, 0 for none; how many callers have asked for that
LOCK = Lock()


@contextmanager
def threads_to_kernels() -> Iterator[None]:
    """Within, kernels have torch's threads and torch has one.

    Torch's threads spin for a while after each of its operations, which costs kernels in between their processors; and on
    one thread the bytes of a result cannot depend on the number of threads.
    """
    with LOCK:
        if TAKEN[1] == 0:
            TAKEN[0] = torch.get_num_threads()
            torch.set_num_threads(1)
        TAKEN[1] += 1
    try:
        yield
    finally:
        with LOCK:
            TAKEN[1] -= 1
            if TAKEN[1] == 0:
                torch.set_num_threads(TAKEN[0])
                TAKEN[0] = 0


def available_threads() -> int:
    """Threads that kernels may use now."""
    return TAKEN[0] or torch.get_num_threads()


def over_slabs(kernel: Callable[..., None], shape: tuple[int, ...], *arguments: object, height: int = 0) -> None:
    """Call `kernel(begin, end, *arguments)` for every slab of planes, on as many threads as torch may use, or gave away.

    Args:
        kernel: compiled, writes planes `begin` to `end` of its outputs only.
        shape: of the volume, planes first.
        arguments: of the kernel.
        height: planes of a slab; 0 for as many as make `GRAIN` voxels. A kernel whose numbers depend on where a slab begins
            (running sums) needs a fixed one.
    """
    planes, size = shape[0], max(1, int(np.prod(shape[1:])))
    height = height or max(1, GRAIN // size)
    slabs = -(-planes // height)
    ticket = count()

    def work() -> None:
        while (slab := next(ticket)) < slabs:
            kernel(slab * height, min((slab + 1) * height, planes), *arguments)

    helpers = min(available_threads(), slabs) - 1
    others = [_pool().submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        for other in others:
            other.result()


def ordered_sum(partial: np.ndarray) -> np.ndarray:
    """Sum over the last axis, one after the other in float64."""
    return np.cumsum(partial, axis=-1, dtype=np.float64)[..., -1]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(os.cpu_count() or 1, 2), thread_name_prefix="warpwright")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of the threads
