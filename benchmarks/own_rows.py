"""Rows of ours alone: kernels against torch rows, what compiling costs, how time and memory grow with the image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from contest import Contest
from kernel_cases import CASES, Case, Scene, make_scene
from record import Line
from scenes import brains
from tools import Files, worker_run
from warpwright.errors import Failed
from warpwright.io import write_image

__all__ = ["compiling", "kernels", "scaling"]

SHAPE = (160, 192, 224)
REPEATS = 7
BORDER = 8  # voxels
SIZES = (64, 128, 256)
SIDE = 192.0  # mm, of the cube that holds a brain
GROWTH = 1.25  # times what is in proportion, that still counts as linear
BUDGET = 2.0  # GB, of the largest size


def kernels(contest: Contest) -> Iterator[Line]:
    """Our public functions against the torch rows, in turn, on one volume."""
    torch.set_num_threads(contest.threads)
    scene = make_scene(SHAPE, contest.seed)
    for key, case in CASES.items():
        begin = time.perf_counter()
        figures = _compared(case, scene)
        contest.tell(f"{key}: {figures['ratio']:.1f} times less wall time")
        ours, theirs = (figures[who] for who in ("ours", "torch"))
        times = f"{1e3 * ours['wall']:.0f} ms against {1e3 * theirs['wall']:.0f} ms"
        yield Line(
            row="kernels",
            work=f"{case.name}, {'x'.join(map(str, SHAPE))} float32",
            others="torch row",
            target=f">= {case.target:.0f}x less wall time",
            reached=f"{figures['ratio']:.1f}x ({times}; CPU time {figures['cpu_ratio']:.1f}x less)",
            met=figures["ratio"] >= case.target,
            seconds=time.perf_counter() - begin,
            details=figures,
        )


def _compared(case: Case, scene: Scene) -> dict[str, Any]:
    """Medians of both, run in turn after one run each, and how far their results agree."""
    results = case.ours(scene), case.theirs(scene)
    taken: tuple[list[tuple[float, float]], ...] = ([], [])
    for _ in range(REPEATS):
        for times, call in zip(taken, (case.ours, case.theirs), strict=True):
            times.append(_timed(call, scene))
    ours, theirs = ({"wall": median(w for w, _ in times), "cpu": median(c for _, c in times)} for times in taken)
    return {
        "ours": ours,
        "torch": theirs,
        "ratio": theirs["wall"] / ours["wall"],
        "cpu_ratio": theirs["cpu"] / ours["cpu"],
        "agreement": _agreement(*results),
    }


def _timed(call: Callable[[Scene], Any], scene: Scene) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call(scene)
    return time.perf_counter() - wall, time.process_time() - cpu


def _agreement(ours: Tensor | Sequence[Tensor], theirs: Tensor | Sequence[Tensor]) -> float:
    """Correlation of the two results, of the gradients where there are any, away from the border, which each treats its way."""
    inner = (..., *(slice(BORDER, -BORDER),) * 3)
    one, other = (result[inner] if isinstance(result, Tensor) else result[1][inner] for result in (ours, theirs))
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]).double())[0, 1])


def scaling(contest: Contest) -> Iterator[Line]:
    """One pair of brains on ever finer voxels: time to the field and memory beyond that of the warm process."""
    begin = time.perf_counter()
    runs: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as name:
        pairs = {size: _written(contest, Path(name) / str(size), size) for size in SIZES}
        for _ in range(contest.rounds):
            for size, pair in pairs.items():
                if runs[size] and runs[size][-1]["whole"] > contest.patience:
                    continue
                run = worker_run(contest.judge, [pair], contest.threads)
                grown = max(run.peak_gb - run.ready_gb, 0.0)
                found = {"seconds": run.seconds[0], "whole": run.whole, "peak_gb": run.peak_gb, "grown_gb": grown}
                runs[size].append(found)
                contest.tell(f"{size}^3: {run.seconds[0]:.2f} s, {run.peak_gb:.2f} GB, {grown:.2f} of them for the images")
    figures = {n: {key: median(run[key] for run in found) for key in found[0]} for n, found in runs.items()}
    steps = list(pairwise(SIZES))
    time_growth = [figures[b]["seconds"] / figures[a]["seconds"] / (b / a) ** 3 for a, b in steps]
    large, middle = figures[SIZES[-1]], figures[SIZES[-2]]
    memory_growth = large["grown_gb"] / max(middle["grown_gb"], 1e-3) / (SIZES[-1] / SIZES[-2]) ** 3
    seconds = time.perf_counter() - begin
    work = f"scaling {' -> '.join(f'{n}^3' for n in SIZES)}, {contest.judge.name}"
    times = ", ".join(f"{figures[n]['seconds']:.2f}" for n in SIZES)
    factors = ", ".join(f"{growth:.2f}" for growth in time_growth)
    yield Line(
        row="scaling",
        work=work,
        others="",
        target=f"time grows at most {GROWTH} times faster than the voxels",
        reached=f"{times} s to the field: {factors} times as fast as the voxels",
        met=max(time_growth) <= GROWTH,
        seconds=seconds,
        details={
            "sizes": {str(n): found for n, found in figures.items()},
            "runs": {str(n): found for n, found in runs.items()},
        },
    )
    grown = ", ".join(f"{figures[n]['grown_gb']:.2f}" for n in SIZES)
    yield Line(
        row="scaling",
        work=work,
        others="",
        target=f"memory the same; {SIZES[-1]}^3 <= {BUDGET:.0f} GB in all",
        reached=f"{grown} GB beyond the warm process: {memory_growth:.2f} times as fast; {large['peak_gb']:.2f} GB in all",
        met=memory_growth <= GROWTH and large["peak_gb"] <= BUDGET,
        seconds=seconds,
    )


def _written(contest: Contest, folder: Path, size: int) -> Files:
    folder.mkdir()
    names = [folder / f"{stem}.nii.gz" for stem in ("fixed", "moving")]
    for image, name in zip(brains(contest.data, (size,) * 3, contest.seed, spacing=SIDE / size), names, strict=True):
        write_image(name, image)
    return Files(fixed=names[0], moving=names[1], folder=folder / "result")


FIRST = """
import json, time
import torch
from warpwright.data import bundled_pairs
from warpwright.io import read_image
from warpwright.methods import preset, register_pair
pair = next(p for p in bundled_pairs() if "hippocampus" in str(p.fixed))
fixed, moving = read_image(pair.fixed), read_image(pair.moving)
torch.set_num_threads({threads})
seconds = []
for _ in range(2):
    begin = time.perf_counter()
    register_pair(fixed, moving, preset("fast", fixed.grid.spacing))
    seconds.append(time.perf_counter() - begin)
print(json.dumps(seconds))
"""


def compiling(contest: Contest) -> Iterator[Line]:
    """What the compiled loops cost a process: the first on a machine, and a later one."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        extra: list[float] = []
        for _ in range(2):
            command = [sys.executable, "-c", FIRST.format(threads=contest.threads)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Failed(f"a process that registers the bundled hippocampus failed: {done.stderr.strip()[-300:]}")
            first, again = json.loads(done.stdout)
            extra.append(first - again)
    yield Line(
        row="compiling",
        work="extra time of the first registration of a process, numba's import included",
        others="",
        target="<= 10 s on a new machine, <= 1 s later",
        reached=f"{extra[0]:.1f} s with an empty cache, {extra[1]:.2f} s with a filled one",
        met=extra[0] <= 10 and extra[1] <= 1,
        seconds=time.perf_counter() - begin,
        details={"extra": extra},
    )
