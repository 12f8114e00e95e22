"""What of the machine a run may use: threads and memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from warpwright.errors import Failed

__all__ = ["available_memory", "check_memory", "granted_threads", "peak_memory", "threads"]

ITK = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container, on Linux
USED = Path("/sys/fs/cgroup/memory.current")
CACHED = Path("/sys/fs/cgroup/memory.stat")


def granted_threads(asked: int | None) -> tuple[int, tuple[str, ...]]:
    """How many threads to use, and a sentence if they are fewer than asked for. Default: what torch is set to."""
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = asked or torch.get_num_threads()
    if asked is None or count <= present:
        return count, ()
    return present, (f"{asked} threads were asked for, this process may use {present} processors: {present} threads are used",)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Within, torch, the compiled kernels (which ask torch) and SimpleITK use `count` threads."""
    before, variable = torch.get_num_threads(), os.environ.get(ITK)
    loaded = sys.modules.get("SimpleITK")
    itk = None if loaded is None else loaded.ProcessObject
    itk_before = 0 if itk is None else itk.GetGlobalDefaultNumberOfThreads()
    torch.set_num_threads(count)
    os.environ[ITK] = str(count)  # read by ITK when it is loaded
    if itk is not None:
        itk.SetGlobalDefaultNumberOfThreads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        os.environ.pop(ITK)
        if variable is not None:
            os.environ[ITK] = variable
        if itk is not None:
            itk.SetGlobalDefaultNumberOfThreads(itk_before)


def available_memory() -> int:
    """Bytes that this process can still have: of the machine, or of the container if that is less."""
    free = psutil.virtual_memory().available
    try:
        cached = dict(line.split() for line in CACHED.read_text().splitlines())["inactive_file"]  # given up when it is needed
        return min(free, int(LIMIT.read_text()) - int(USED.read_text()) + int(cached))
    except (OSError, ValueError, KeyError):  # no such limit, or "max"
        return free


def peak_memory() -> float | None:
    """Largest resident size of this process so far, GB; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)


def check_memory(needed: int, what: str = "this registration") -> None:
    """That about `needed` more bytes can be had.

    Raises:
        Failed: they cannot.
    """
    free = available_memory()
    if needed > free:
        raise Failed(
            f"{what} needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free: expected a machine"
            " with more, or images of fewer voxels"
        ) from MemoryError(needed)
