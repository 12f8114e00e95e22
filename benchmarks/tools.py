"""The tools of a comparison: which are installed, one run of each, and the map that a run leaves."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from process import measured, program, with_threads
from warpwright.errors import BadInput, Failed
from warpwright.geometry import Grid
from warpwright.io import read_transform
from warpwright.transforms import Affine, Transform

__all__ = ["OURS", "PEERS", "Files", "Run", "Tool", "command_run", "find_tools", "read_map", "worker_run"]

OURS = "ours"
PEERS = ("greedy", "ants", "elastix", "dipy", "fireants", "convexadam")
WORKER = Path(__file__).parent / "peers" / "worker.py"
PROBE_SECONDS = 120  # in which a tool must tell its version


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One column of the comparison.

    Args:
        kind: the `run_KIND.py` that drives it.
        python: the interpreter in which it is installed.
        preset: of ours; empty for a peer.
        version: what it calls itself.
        settings: a sentence for a person.
    """

    kind: str
    python: str
    preset: str = ""
    version: str = ""
    settings: str = ""

    @property
    def own(self) -> bool:
        """Whether it is ours."""
        return self.kind == OURS

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.kind} {self.preset}".strip()


@dataclass(frozen=True, kw_only=True)
class Files:
    """One pair to register and where the result goes."""

    fixed: Path
    moving: Path
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one process took.

    Args:
        whole: seconds from its start to its end, files written.
        cpu: seconds of all threads.
        peak_gb: largest resident memory.
        ready_gb: the same before the first pair was read; 0 where it was not asked.
        seconds: of each pair, from images in memory to the field.
    """

    whole: float
    cpu: float
    peak_gb: float
    ready_gb: float = 0.0
    seconds: tuple[float, ...] = ()


def find_tools(
    kinds: Sequence[str], presets: Sequence[str], pythons: Mapping[str, str], own_python: str
) -> tuple[list[Tool], dict[str, str]]:
    """The tools that tell their version, ours first, and a sentence for each that does not.

    Args:
        kinds: the peers to look for.
        presets: of ours.
        pythons: interpreters of some peers; the others are looked for in `own_python`.
        own_python: this interpreter.
    """
    tools, absent = [], {}
    for kind in (OURS, *kinds):
        python = pythons.get(kind, own_python)
        try:
            told = _told(kind, python)
        except (OSError, Failed, subprocess.TimeoutExpired) as error:
            absent[kind] = f"cannot be run by {python}: {error}"
            continue
        facts = {"kind": kind, "python": python, "version": told["version"], "settings": told["settings"]}
        tools += [Tool(preset=preset, **facts) for preset in (presets if kind == OURS else ("",))]
    if OURS in absent:
        raise BadInput(f"warpwright {absent[OURS]}, expected it beside the benchmarks")
    return tools, absent


def _told(kind: str, python: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.json"
        command = [python, str(WORKER), kind, str(report)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=PROBE_SECONDS)
        if done.returncode != 0 or not report.is_file():
            said = done.stderr.strip().splitlines()
            raise Failed(said[-1] if said else f"exit code {done.returncode}")
        told: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return told


def worker_run(tool: Tool, pairs: Sequence[Files], threads: int) -> Run:
    """All pairs in one process of `peers/worker.py`.

    Raises:
        Failed: the tool did.
    """
    with tempfile.TemporaryDirectory() as name:
        job, report = Path(name) / "job.json", Path(name) / "report.json"
        listed = [{"fixed": str(p.fixed), "moving": str(p.moving), "folder": str(p.folder)} for p in pairs]
        job.write_text(json.dumps({"threads": threads, "preset": tool.preset, "pairs": listed}), encoding="utf-8")
        command = [tool.python, str(WORKER), tool.kind, str(job), str(report)]
        used = measured(command, called=tool.name, environment=with_threads(threads))
        told = json.loads(report.read_text(encoding="utf-8"))
    return Run(
        whole=used["seconds"],
        cpu=used["cpu_seconds"],
        peak_gb=used["peak_gb"],
        ready_gb=told["peak_gb_ready"],
        seconds=tuple(pair["seconds"] for pair in told["pairs"]),
    )


def command_run(tool: Tool, pair: Files, threads: int) -> Run:
    """One pair by the command `warpwright register`: the whole process of ours."""
    files = [str(pair.fixed), str(pair.moving), "--output", str(pair.folder)]
    command = [program(), "register", *files, "--preset", tool.preset, "--threads", str(threads), "--device", "cpu"]
    used = measured(command, called="`warpwright register`", environment=with_threads(threads))
    return Run(whole=used["seconds"], cpu=used["cpu_seconds"], peak_gb=used["peak_gb"])


def read_map(folder: Path, grid: Grid) -> Transform:
    """The map that a tool left in its folder (`peers/base.py` says how), world points of fixed to world points of moving.

    Raises:
        Failed: there is none.
    """
    composites = sorted(folder.glob("TransformParameters.*-Composite.h5"))
    if (folder / "transform.h5").is_file():
        return read_transform(folder / "transform.h5")
    if (folder / "ants_0GenericAffine.mat").is_file():
        return read_transform(folder / "ants_")
    if composites:
        return _sampled(composites[-1], grid)
    if not (folder / "warp.nii.gz").is_file():
        raise Failed(f"{folder}: no transform was left there")
    field, affine = read_transform(folder / "warp.nii.gz"), folder / "affine.txt"
    return Affine(np.loadtxt(affine)) @ field if affine.is_file() else field


def _sampled(path: Path, grid: Grid) -> Transform:
    """A transform that only ITK reads, as a field on a grid."""
    flip = np.diag([-1.0, -1.0, 1.0])
    field = sitk.TransformToDisplacementField(
        sitk.ReadTransform(str(path)),
        sitk.sitkVectorFloat32,
        grid.shape,
        (flip @ grid.affine[:3, 3]).tolist(),
        grid.spacing,
        (flip @ grid.affine[:3, :3] / np.array(grid.spacing)).ravel().tolist(),
    )
    warp = path.with_name("warp.nii.gz")
    sitk.WriteImage(field, str(warp))
    return read_transform(warp)
