"""What a worker process of a cluster on this machine begins with: Ctrl-C is for the process that started it, which ends it."""

from __future__ import annotations

import signal

__all__ = ["dask_setup"]


def dask_setup(_: object) -> None:
    """Called by Dask in the process of a worker, before its first pair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
