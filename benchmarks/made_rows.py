"""Rows on images made here: exported files against SimpleITK, inverses, peak memory, the time to the help page."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from torch import Tensor

import warpwright
from process import measured, program
from real_rows import Setup
from record import Line
from scenes import GRIDS, affine_about, brains, grid_of, random_field, random_pair
from warpwright.geometry import Grid, Image, identity_points
from warpwright.io import read_transform, write_image, write_transform
from warpwright.product.apply import apply_to_image
from warpwright.product.choices import Kind
from warpwright.sampling import inside, sample
from warpwright.transforms import Affine, DisplacementField

__all__ = ["export", "help_page", "inverse", "memory"]

KINDS: tuple[Kind, ...] = ("rigid", "affine", "displacement", "greedy", "velocity", "bspline")


def export(setup: Setup) -> Iterator[Line]:
    """Every kind of transform on every kind of grid: SimpleITK with `transform.h5` against `apply` and the moved image."""
    begin = time.perf_counter()
    cases: list[dict[str, Any]] = []
    for number, name in enumerate(GRIDS):
        fixed, moving = random_pair(grid_of(name), np.random.default_rng((setup.seed, number)))
        for kind in KINDS:
            case = {"grid": name, "kind": kind, **_exported(setup, kind, fixed, moving)}
            cases.append(case)
            setup.tell(f"{name} {kind}: {case['error']:.1e} of the range, {case['in_view']:.0%} in view")
    worst = {kind: max(c["error"] for c in cases if c["kind"] == kind) for kind in KINDS}
    each = ", ".join(f"{kind} {error:.1e}" for kind, error in worst.items())
    yield Line(
        row="export",
        work="`transform.h5` applied by SimpleITK, against `apply`, largest difference",
        others="",
        target="<= 1e-3 of the intensity range",
        reached=f"{max(worst.values()):.1e} over {len(GRIDS)} grids ({each})",
        met=max(worst.values()) <= 1e-3,
        seconds=time.perf_counter() - begin,
        details={"worst": worst, "cases": cases},
    )


def _exported(setup: Setup, kind: Kind, fixed: Image, moving: Image) -> dict[str, Any]:
    """Register two files, apply the result in both tools: largest difference in the field of view, share of the range."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for image, stem in ((fixed, "fixed"), (moving, "moving")):
            write_image(folder / f"{stem}.nii.gz", image)
        result = warpwright.register(
            folder / "fixed.nii.gz", folder / "moving.nii.gz", transform=kind, preset="fast", threads=setup.threads
        )
        result.save(folder / "result")
        apply_to_image(folder / "result", folder / "moving.nii.gz", folder / "applied.nii.gz")
        applied = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "applied.nii.gz")))
        source, target = (sitk.ReadImage(str(folder / f"{stem}.nii.gz"), sitk.sitkFloat64) for stem in ("moving", "fixed"))
        transform = sitk.ReadTransform(str(folder / "result" / "transform.h5"))
        theirs = sitk.GetArrayFromImage(sitk.Resample(source, target, transform, sitk.sitkLinear, 0.0))
    looks_at = moving.grid.to_voxel(result.transform(fixed.grid.to_world(_voxels(fixed.grid))))
    view = _between(looks_at, moving.grid).reshape(fixed.grid.shape).numpy().T
    extent = float(moving.data.max() - moving.data.min())
    ours = (applied, result.moved.data[0].numpy().T)
    return {
        "error": max(float(np.abs(theirs - one)[view].max()) for one in ours) / extent,
        "moved_by": float(np.abs(theirs - sitk.GetArrayFromImage(sitk.Resample(source, target)))[view].max()) / extent,
        "in_view": float(view.mean()),
    }


def inverse(setup: Setup) -> Iterator[Line]:
    """Smooth fields behind an affine: the files of the map and of its inverse, read back, one after the other."""
    begin = time.perf_counter()
    cases: list[dict[str, Any]] = []
    for number, name in enumerate(GRIDS):
        for ends in (True, False):
            grid, generator = grid_of(name, 2.4), np.random.default_rng((setup.seed, number, ends))
            field = DisplacementField(random_field(grid, 8.0, generator, ends=ends), grid)
            case = {"grid": name, "ends": ends, **_there_and_back(affine_about(grid), field)}
            cases.append(case)
            setup.tell(f"{name}, {'ends' if ends else 'runs on'} at the border: {case['voxels']:.1e} voxel")
    inner, rim = (max(c["with_rim"] for c in cases if c["ends"] is ends) for ends in (True, False))
    outer = max(case["voxels"] for case in cases if not case["ends"])
    yield Line(
        row="inverse",
        work="inverse residual, fields smooth over 8 voxels (gradient < 0.5) with an affine, from files, worst",
        others="FireANTs' export: 0.4 mm",
        target="<= 0.05 voxel",
        reached=f"{inner:.4f} voxel (fields that end at the border), {outer:.4f} (fields that run on beyond it, where it is"
        f" determined; {rim:.2f} on the rim, where it depends on what is outside)",
        met=max(inner, outer) <= 0.05,
        seconds=time.perf_counter() - begin,
        details={"ending": inner, "running_on": outer, "rim": rim, "cases": cases},
    )


def _there_and_back(affine: Affine, field: DisplacementField) -> dict[str, float]:
    """Largest `|inverse(map(x)) - x|`, voxels.

    Of the voxels whose way stays in the grid, `voxels` counts those where the inverse is determined: it is read between
    grid points that all come from between the centres of known voxels. `with_rim` counts the others too.
    """
    grid = field.grid
    with tempfile.TemporaryDirectory() as name:
        there, back = Path(name) / "transform.h5", Path(name) / "inverse.h5"
        write_transform(there, affine @ field)
        write_transform(back, (affine @ field).inverse())
        forward, backward = read_transform(there), read_transform(back)
    start = _voxels(grid)
    world = forward(grid.to_world(start))
    error = (grid.to_voxel(backward(world)) - start).norm(dim=1)
    arrived = grid.to_voxel(affine.inverse()(world))
    ends = grid.to_voxel(backward(affine(grid.to_world(start))))
    known = _between(ends, grid).reshape(1, 1, *grid.shape).to(torch.float64)
    determined = _between(arrived, grid) & (sample(known, arrived.T[None])[0, 0] > 1 - 1e-9)
    return {
        "voxels": float(error[determined].max()),
        "with_rim": float(error[inside(arrived.T[None], grid.shape)[0, 0]].max()),
        "determined": float(determined.double().mean()),
        "longest_voxels": float(field.displacement.norm(dim=0).max()),
    }


def _voxels(grid: Grid) -> Tensor:
    return identity_points(grid.shape, dtype=torch.float64, device=torch.device("cpu"))[0].flatten(1).T


def _between(points: Tensor, grid: Grid) -> Tensor:
    """Which voxel points (N, D) lie between the outermost voxel centres of a grid."""
    return ((points >= 0) & (points <= torch.tensor(grid.shape) - 1)).all(1)


def memory(setup: Setup) -> Iterator[Line]:
    """A large pair through the command line, in a process of its own."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = (160, 192, 224)
        for image, stem in zip(brains(setup.data, shape, setup.seed), ("fixed", "moving"), strict=True):
            write_image(folder / f"{stem}.nii.gz", image)
        arguments = ["--preset", setup.preset, "--threads", str(setup.threads)]
        files = [str(folder / "fixed.nii.gz"), str(folder / "moving.nii.gz"), "--output", str(folder / "result")]
        setup.tell("registering 160 x 192 x 224 voxels")
        used = measured([program(), "register", *files, *arguments], called="`warpwright register`")
        record = json.loads((folder / "result" / "result.json").read_text(encoding="utf-8"))
    stages = {stage["name"]: {k: stage[k] for k in ("seconds", "steps")} for stage in record["stages"]}
    yield Line(
        row="memory",
        work="peak memory, 160x192x224 float32 pair, greedy, whole command",
        others="",
        target="<= 2.5 GB",
        reached=f"{used['peak_gb']:.2f} GB, {used['seconds']:.0f} s of command",
        met=used["peak_gb"] <= 2.5,
        seconds=time.perf_counter() - begin,
        details={**used, "peak_gb_before_saving": record["peak_memory_gb"], "stages": stages, "scores": record["scores"]},
    )


def help_page(setup: Setup) -> Iterator[Line]:
    """Wall time of the help page, and whether it loads torch."""
    begin = time.perf_counter()
    times: list[float] = []
    for _ in range(6):
        start = time.perf_counter()
        subprocess.run([program(), "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    code = "import sys; from warpwright.cli.main import main; main(['--help']); sys.exit('torch' in sys.modules)"
    torch_loaded = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode != 0
    setup.tell(f"{len(times)} calls")
    yield Line(
        row="help",
        work="`warpwright --help`",
        others="",
        target="< 0.5 s, no torch import",
        reached=f"{median(times[1:]):.2f} s (median of 5), torch {'loaded' if torch_loaded else 'not loaded'}",
        met=median(times[1:]) < 0.5 and not torch_loaded,
        seconds=time.perf_counter() - begin,
        details={"median": median(times[1:]), "first": times[0], "torch_loaded": torch_loaded},
    )
