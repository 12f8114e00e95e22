"""How kernels are compiled: numba's options, where machine code is kept, what is said while it is made."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numba
from numba.core import config, event
from platformdirs import user_cache_path

__all__ = ["cache_folder", "kernel"]

LOG = logging.getLogger("warpwright")
LOCK = Lock()
HELPER = "WARPWRIGHT_COMPILES_BESIDE"  # set in the process that helps, which starts none itself
NUMBA: Any = config  # which makes its names while it is imported
# sums may be reordered and contracted when compiled, but NaN and infinities keep their meaning
FAST = {"contract", "reassoc", "nsz", "arcp"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of arrays and numbers when it is first called, for those types; it runs without Python's lock.

    The machine code is kept for later processes in `cache_folder()`.
    """
    _listen()
    folder = cache_folder()
    options = {"nogil": True, "fastmath": FAST, "error_model": "numpy", "boundscheck": False, "no_cfunc_wrapper": True}
    with LOCK:
        before = NUMBA.CACHE_DIR
        NUMBA.CACHE_DIR = "" if folder is None else str(folder)  # numba reads it while the decorator runs, only then
        try:
            return numba.njit(cache=folder is not None, **options)(function)
        finally:
            NUMBA.CACHE_DIR = before


@cache
def cache_folder() -> Path | None:
    """Where machine code is kept: in `NUMBA_CACHE_DIR` if set, else in the user's cache folder; None if it cannot be used.

    Every version of the kernels has a folder of its own: numba sees a change of the file that holds a kernel, but not of
    the files whose kernels it calls.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    version = sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    given = os.environ.get("NUMBA_CACHE_DIR")
    folder = (Path(given) if given else user_cache_path("warpwright")) / "kernels" / version
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        LOG.warning(
            "%s: compiled kernels cannot be kept here (%s), so every process compiles them anew; NUMBA_CACHE_DIR names"
            " another folder",
            folder,
            error.strerror,
        )
        return None


@cache
def _listen() -> None:
    """Say once, in a process that must compile, that it does."""
    event.register("numba:compile", _Once())


class _Once(event.Listener):
    def __init__(self) -> None:
        self.said = False

    def on_start(self, event: event.Event) -> None:
        ours = (event.data or {})["dispatcher"].py_func.__module__.startswith("warpwright.")
        if ours and not self.said:
            self.said = True
            LOG.warning("compiling kernels for this processor, once: some seconds")
            _share()

    def on_end(self, event: event.Event) -> None:
        pass


def _share() -> None:
    """Let a second process compile what a registration needs last; it leaves the machine code in the cache."""
    if cache_folder() is None or HELPER in os.environ or not sys.executable:
        return
    command, environment, nothing = (
        [sys.executable, "-m", "warpwright.kernels.warm"],
        {**os.environ, HELPER: "1"},
        subprocess.DEVNULL,
    )
    with suppress(OSError):
        helper = subprocess.Popen(command, env=environment, stdin=nothing, stdout=nothing, stderr=nothing)
        Thread(target=helper.wait, daemon=True).start()  # who waits for it, keeps it from being reported as lost
