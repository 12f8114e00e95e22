"""The output folder as several processes and machines see it: that it is the same one, and who works on which pair in it."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4
from zlib import crc32

import psutil

from warpwright.errors import Failed

__all__ = ["Busy", "Left", "check_token", "claimed", "left", "make_temporary", "read_small", "save_token", "unclaim", "writer"]

TOKEN = ".cohort-token"  # its content tells this folder from one of the same path on another machine
LENGTH = 32  # characters of it
PATIENCE = 2.0  # seconds until a process that was killed is gone, and until a file that is being written is whole
PAUSE = 0.05
TEMPORARY = re.compile(r"\.(.+)-([0-9a-f]{8})-(\d+)-(\d+)-[a-z0-9_]{8}")  # id, host, process and when that began


class Busy(Exception):
    """Another process on this machine works on the pair."""


def save_token(folder: Path) -> str:
    """The token of a folder, which is made where there is none.

    Raises:
        OSError: it cannot be written.
        Failed: what is there is none.
    """
    for _ in range(2):
        _make_token(folder / TOKEN)
        end = time.monotonic() + PATIENCE
        while len(found := _token(folder)) != LENGTH and time.monotonic() < end:  # another process is writing it
            time.sleep(PAUSE)
        if found:
            break
        (folder / TOKEN).unlink(missing_ok=True)  # of a process that was killed before it wrote
    if len(found) != LENGTH:
        raise Failed(f"{folder / TOKEN}: is not what `warpwright cohort` writes, expected it to be removed")
    return found


def _make_token(path: Path) -> None:
    """Write a new one unless there is one; nothing is left where that fails."""
    try:
        with path.open("x", encoding="ascii") as file:
            try:
                file.write(uuid4().hex)
                file.flush()
            except OSError:
                path.unlink(missing_ok=True)
                raise
    except FileExistsError:
        return


def check_token(folder: Path, token: str) -> None:
    """That this process sees the folder whose token it is.

    Raises:
        Failed: it sees none, or another.
    """
    end = time.monotonic() + PATIENCE
    while _token(folder) != token:  # a disk of the network may show it late
        if time.monotonic() > end:
            host = platform.node()
            raise Failed(f"the worker {host} does not see {folder}, expected a folder that all workers share")
        time.sleep(PAUSE)


def _token(folder: Path) -> str:
    try:
        return (folder / TOKEN).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def writer() -> dict[str, Any]:
    """This process, as small files and temporary folders tell of it."""
    return {"host": _host(), "pid": os.getpid(), "began": round(psutil.Process().create_time())}


def _host() -> str:
    """This machine, in eight characters, as its name may be too long for that of a file."""
    return f"{crc32(platform.node().encode()):08x}"


def _alive(found: Mapping[str, Any]) -> bool | None:
    """Whether the process that wrote this runs; None if it is on another machine, or not known."""
    try:
        if found["host"] != _host():
            return None
        process = psutil.Process(found["pid"])
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - found["began"]) < 2
    except psutil.NoSuchProcess:
        return False
    except (KeyError, TypeError, ValueError, psutil.Error):
        return None


def make_temporary(folder: Path) -> Path:
    """A new folder beside that of a pair, whose name says from the first moment which process made it.

    Raises:
        OSError: it cannot be made.
    """
    marks = "-".join(str(mark) for mark in writer().values())
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}-{marks}-", dir=folder.parent))


@dataclass(frozen=True)
class Left:
    """A temporary folder.

    Args:
        path: of it.
        id: of its pair.
        runs: whether the process that made it runs; None if it is on another machine, or not known.
    """

    path: Path
    id: str
    runs: bool | None


def left(folder: Path) -> Iterator[Left]:
    """The temporary folders in a folder."""
    for path in folder.iterdir():
        if found := TEMPORARY.fullmatch(path.name):
            name, host, pid, began = found.groups()
            yield Left(path, name, _alive({"host": host, "pid": int(pid), "began": int(began)}))


@contextmanager
def claimed(folder: Path) -> Iterator[int]:
    """Within, the pair of this folder is this process's; gives how often processes have ended while it was theirs.

    Raises:
        Busy: another process on this machine has it. One of another machine cannot be asked: both do the same work then.
        OSError: the claim cannot be written.
    """
    path, end, ended = _claim(folder), time.monotonic() + PATIENCE, 0
    while True:
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(writer() | {"ended": ended}, file)
            break
        except FileExistsError:
            found = read_small(path)
            if found.get("pid") != os.getpid() and (not found or _alive(found)):  # without content: it is being written
                if time.monotonic() < end:
                    time.sleep(PAUSE)
                    continue
                if found:
                    raise Busy(f"process {found['pid']} works on it") from None
            ended = int(found.get("ended", 0)) + 1
            path.unlink(missing_ok=True)
    try:
        yield ended
    finally:
        if (found := read_small(path)).get("pid") == os.getpid() and found.get("host") == _host():
            unclaim(folder)


def unclaim(folder: Path) -> None:
    """Forget who worked on a pair."""
    with suppress(OSError):
        _claim(folder).unlink(missing_ok=True)


def _claim(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.claim")


def read_small(path: Path) -> dict[str, Any]:
    """A mapping in a file; empty for what is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
