"""Several processes that train one model, as `torchrun` starts them: who is who, and means over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from warpwright.errors import Failed

__all__ = ["LostProcess", "Processes", "processes"]


class LostProcess(Failed):
    """Another process of a training is gone, for a reason that it may have told."""


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Args:
        rank: number of this one.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and validates."""
        return self.rank == 0

    @torch.no_grad()
    def synchronise(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over all processes, in place; one message for each dtype.

        Raises:
            LostProcess: one of them has ended.
        """
        if self.count == 1:
            return
        for kind in dict.fromkeys(t.dtype for t in tensors):  # in the same order in all processes
            group = [t for t in tensors if t.dtype == kind]
            message = torch.cat([t.reshape(-1) for t in group])
            _sum(message)
            message /= self.count
            for tensor, part in zip(group, message.split([t.numel() for t in group]), strict=True):
                tensor.copy_(part.reshape(tensor.shape))

    def agree(self, value: bool) -> bool:
        """Whether any process says so; all must ask.

        Raises:
            LostProcess: one of them has ended.
        """
        if self.count == 1:
            return value
        flag = torch.tensor(float(value))
        _sum(flag)
        return bool(flag > 0)


def _sum(tensor: Tensor) -> None:
    """The sum over all processes, in place.

    Raises:
        LostProcess: one of them has ended.
    """
    try:
        dist.all_reduce(tensor)
    except RuntimeError as error:
        raise LostProcess(
            "another process of this training has ended: expected what it tells to be mended, or --resume if it was killed"
        ) from error


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """The group that `torchrun` describes in the environment, each process with its own GPU; one process alone without it."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Processes()
        return
    if device.type == "cuda" and device.index is None:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
