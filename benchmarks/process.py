"""Commands in processes of their own: what they took, and an environment with so many threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from warpwright.errors import Failed

__all__ = ["measured", "program", "with_threads"]

THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def measured(command: Sequence[str], *, called: str, environment: dict[str, str] | None = None) -> dict[str, float]:
    """Seconds, CPU seconds and peak memory of a command.

    Args:
        command: the program and its arguments.
        called: what a message calls it.
        environment: of the program; None for this one's.

    Raises:
        Failed: it did not exit with 0.
    """
    script = Path(__file__).with_name("measure.py")
    full = [sys.executable, "-S", str(script), *command]
    done = subprocess.run(
        full, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", check=True, env=environment
    )
    *said, last = done.stderr.strip().splitlines()
    used: dict[str, float] = json.loads(last)
    if used["code"] != 0:
        raise Failed(f"{called} exited with {used['code']:.0f}: {said[-1] if said else 'no message'}")
    return used


def program() -> str:
    """The command `warpwright` of this very environment."""
    path = Path(sys.executable).with_name("warpwright")
    if not path.is_file():
        raise Failed(f"{path}: does not exist, expected the command of the installed package beside Python")
    return str(path)


def with_threads(threads: int) -> dict[str, str]:
    """This environment, with the number of threads that every library reads at its start."""
    return os.environ | dict.fromkeys(THREADS, str(threads))
