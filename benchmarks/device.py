"""The same registrations on the CPU and on an accelerator: do the maps agree, and how long does each take?

`python benchmarks/device.py --device cuda`. Bundled pairs and rendered volumes of random shapes; exit code 1 where the maps of
the two lie further apart than a tenth of a voxel in the mean.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from warpwright import register
from warpwright.data.bundled import bundled_pairs
from warpwright.geometry import Grid, Image
from warpwright.io import read_scalar
from warpwright.product.result import RegistrationResult
from warpwright.sampling import gaussian
from warpwright.transforms import DisplacementField, resample

APART = 0.1  # voxels, mean
LARGE = (160, 192, 224)


def cases() -> list[tuple[str, Mapping[str, Any]]]:
    """What is registered: a name and the arguments of `register`."""
    pairs = {pair.name: pair for pair in bundled_pairs()}
    brain = pairs["hippocampus-130-132"]
    images = {"fixed": read_scalar(brain.fixed), "moving": read_scalar(brain.moving)}
    rows: list[tuple[str, Mapping[str, Any]]] = [
        (f"hippocampus, {kind}, {similarity}", {**images, "transform": kind, "similarity": similarity})
        for kind, similarity in (
            ("greedy", "lncc"),
            ("greedy", "mse"),
            ("greedy", "mi"),
            ("greedy", "mind"),
            ("velocity", "lncc"),
            ("bspline", "lncc"),
            ("affine", "lncc"),
        )
    ]
    rows += [(f"hippocampus, model, refine {n}", {**images, "model": brain.models[0], "refine": n}) for n in (0, 20)]
    rows.append(("hippocampus, features", {**images, "model": brain.models[1]}))
    lung, eye = pairs["lung"], pairs["vessels"]
    rows.append(("lung, greedy, lncc", {"fixed": read_scalar(lung.fixed), "moving": read_scalar(lung.moving)}))
    rows.append(("vessels (2-D), greedy, lncc", {"fixed": eye.fixed, "moving": eye.moving}))
    fixed, moving = shapes()
    rows.append(("{} x {} x {}, greedy, lncc".format(*LARGE), {"fixed": fixed, "moving": moving}))
    return rows


def shapes() -> tuple[Image, Image]:
    """Smooth noise cut into four tissues, and the same under a smooth displacement of some 4 voxels."""
    generator = np.random.default_rng(0)
    grid = Grid.regular(LARGE)
    field = [torch.from_numpy(generator.normal(size=(1, n, *LARGE)).astype(np.float32)) for n in (1, 3)]
    tissue, bend = gaussian(field[0], (6.0,) * 3)[0], gaussian(field[1], (20.0,) * 3)[0]
    moving = Image((tissue / tissue.std() * 2).round().clamp(-2, 2), grid, "moving")
    fixed = resample(moving, DisplacementField(4 * bend / bend.std(), grid), grid)
    return Image(fixed.data, grid, "fixed"), moving


def timed(given: Mapping[str, Any], device: str) -> tuple[RegistrationResult, float]:
    """A registration and its seconds, images read before; the second of two, so that nothing is compiled on the clock."""
    register(**given, device=device)
    begin = time.perf_counter()
    found = register(**given, device=device)
    return found, time.perf_counter() - begin


def apart(one: RegistrationResult, two: RegistrationResult) -> float:
    """Mean distance of two maps on the fixed grid, voxels."""
    grid = one.fixed.grid
    points = [grid.to_voxel(r.transform(_centres(grid))) for r in (one, two)]
    return float((points[0] - points[1]).norm(dim=1).mean())


def _centres(grid: Grid) -> torch.Tensor:
    index = np.indices(grid.shape).reshape(grid.dim, -1).T
    step = max(len(index) // 100_000, 1)
    return grid.to_world(torch.from_numpy(index[::step].astype(np.float64)))


def main() -> int:
    """Print a Markdown table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sys.stdout.write(f"| registration | CPU, s | {options.device}, s | maps apart, voxels |\n|---|---|---|---|\n")
    worst = 0.0
    for name, given in cases():
        (ours, slow), (theirs, fast) = (timed(given, device) for device in ("cpu", options.device))
        worst = max(worst, distance := apart(ours, theirs))
        sys.stdout.write(f"| {name} | {slow:.2f} | {fast:.2f} | {distance:.4f} |\n")
        sys.stdout.flush()
    return int(worst > APART)


if __name__ == "__main__":
    sys.exit(main())
