"""How kernels share work, keep machine code, and what is said: without numba, without a cache, before compiling."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from warpwright.kernels.slabs import over_slabs

REGISTER = """
import logging, sys, torch
{before}
from warpwright.sampling import warp
moved = warp(torch.ones(1, 1, 5, 6), torch.zeros(1, 2, 5, 6))
moved = warp(moved, torch.zeros(1, 2, 5, 6))
assert torch.equal(moved, torch.ones(1, 1, 5, 6))
{after}
"""


def _run(before: str = "", after: str = "", **variables: str) -> str:
    """Standard error of a new process that warps twice."""
    environment = {**os.environ, **variables}
    code = REGISTER.format(before=before, after=after)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_every_slab_once() -> None:
    torch_threads = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            seen: list[int] = []
            over_slabs(lambda begin, end, seen=seen: seen.extend(range(begin, end)), (23, 4), height=3)
            assert sorted(seen) == list(range(23))
    finally:
        torch.set_num_threads(torch_threads)


def test_a_failing_slab_is_told() -> None:
    def fail(begin: int, end: int) -> None:
        raise ValueError(f"slab {begin} to {end}")

    with pytest.raises(ValueError, match="slab"):
        over_slabs(fail, (8, 1 << 14))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    code = """
import os, torch
from warpwright.kernels.slabs import over_slabs
torch.set_num_threads(2)
def count():
    seen = []
    over_slabs(lambda begin, end: seen.append(begin), (6, 1 << 14))
    return len(seen)
assert count() == 6
child = os.fork()
if child == 0:
    os._exit(0 if count() == 6 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_without_numba_one_line() -> None:
    blocked = (
        "import importlib.util as u; find = u.find_spec; u.find_spec = lambda n, *a: None if n == 'numba' else find(n, *a)"
    )
    said = _run(before=blocked, after="assert 'numba' not in sys.modules")
    assert said.count("numba is not installed") == 1
    assert len(said.strip().splitlines()) == 1


def test_compiles_once_and_says_so_and_not_beside_the_code(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    variables = {"XDG_CACHE_HOME": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    after = "import numba; assert not numba.config.CACHE_DIR"
    first = _run(after=after, **variables)
    assert first.strip().splitlines() == ["compiling kernels for this processor, once: some seconds"]
    assert sys.platform != "linux" or any((tmp_path / "warpwright").rglob("*.nbc"))
    assert _run(after=after, **variables) == ""


def test_an_unusable_cache_folder_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    taken = tmp_path / "file"
    taken.write_text("")
    said = _run(NUMBA_CACHE_DIR=str(taken)).strip().splitlines()
    assert len(said) == 2
    assert str(taken) in said[0]
    assert "cannot be kept here" in said[0]
    assert said[1].startswith("compiling")
