"""Micro-benchmarks of the kernels, and a regression test of each: CPU time against its plain torch twin.

    pytest benchmarks/test_kernels.py                            every kernel: time, and the ratio to its twin
    pytest benchmarks/test_kernels.py --benchmark-disable        the ratios alone

CPU time, a ratio of two runs in turn, and one thread, as torch's other threads burn time while they wait: a busy machine
changes both sides alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from kernel_cases import CASES, Case, Scene, make_scene
from warpwright import kernels

pytest.importorskip("pytest_benchmark")
pytest.importorskip("numba")

SHAPE = (80, 96, 112)
REPEATS = 5


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Images and fields of a moderate size."""
    return make_scene(SHAPE)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.benchmark(timer=time.process_time, warmup=True, min_rounds=REPEATS, max_time=1.0)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_kernel(case: Case, scene: Scene, benchmark) -> None:
    """CPU time of ours."""
    benchmark.extra_info["work"] = case.name
    benchmark(case.ours, scene)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cpu_time_against_the_twin(case: Case, scene: Scene) -> None:
    """The kernel has not become slower than it must be."""
    ours, twin = _least(lambda: case.ours(scene)), _least(lambda: _plainly(case, scene))
    assert twin / ours >= case.ratio, f"{case.name}: {twin / ours:.1f} times less CPU time than its twin, not {case.ratio}"


def _plainly(case: Case, scene: Scene) -> None:
    with kernels.plainly():
        case.ours(scene)


def _least(call: Callable[[], object]) -> float:
    """Least CPU seconds of some calls after one that may compile."""
    call()
    taken = []
    for _ in range(REPEATS):
        begin = time.process_time()
        call()
        taken.append(time.process_time() - begin)
    return min(taken)
