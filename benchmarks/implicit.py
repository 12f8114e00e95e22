"""The solver as a layer in figures: `python benchmarks/implicit.py`, three tables of Markdown.

Memory of one outer step of 64^3 voxels and 16 channels over what the features take, after 10, 50 and 200 steps of the solver
(peak resident memory, a process each). A shift of two voxels in 16 channels, features 0.1 to 100 times as large, 40 to 160
voxels along an axis. How near each gradient rule comes to the exact gradient (through every step, in float64, the moving image
off the lattice of the fixed one), in 3-D; and to the exact one of 60 Gauss-Newton steps on the same energy, and how far from
their end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from warpwright.geometry import Grid
from warpwright.methods import Displacement, SolverLayer
from warpwright.methods.solver_layer import AnyAdjoint
from warpwright.networks.features import FeaturePyramid
from warpwright.product.resources import peak_memory
from warpwright.sampling import gaussian
from warpwright.solver import Adam, GaussNewton, Krylov, OneStep, Truncated, Unroll

ADAM = Displacement(gradient_sigma=1.7, field_sigma=0.8, solver=Adam(length=1.0, damping=0.1, beta1=0.8))
NEWTON = Displacement(gradient_sigma=1.7, field_sigma=0.8, solver=GaussNewton(length=1.0))
RULES: dict[str, AnyAdjoint] = {
    "Unroll": Unroll(),
    "OneStep": OneStep(),
    "Krylov(5)": Krylov(steps=5),
    "Krylov(15)": Krylov(steps=15),
    "Truncated(3)": Truncated(steps=3),
}
SHIFT = (2, -2, 0)
MARGIN = 3  # voxels by which the moving image is larger on every side where gradients are compared
OFF = 0.3  # voxels by which its lattice is moved there


def smooth(shape: Sequence[int], channels: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(1, C, *S) of variance 1, smooth over 1.5 voxels."""
    draw = torch.Generator().manual_seed(seed)
    found = gaussian(torch.randn(1, channels, *shape, generator=draw).to(dtype), (1.5,) * len(shape))
    return found / found.std()


def single(levels: Tensor) -> FeaturePyramid:
    """A pyramid of one level."""
    return FeaturePyramid(levels=(levels,), factors=(1,), before=(0,) * (levels.ndim - 2), offset=0.5)


def shifted(size: int, times: float) -> tuple[FeaturePyramid, FeaturePyramid, Grid]:
    """Two levels of features, the moving ones two voxels away."""
    wide = times * smooth((size + 8,) * 3, 16, 0)
    parts = [wide[(..., *(slice(4 + s, 4 + s + size) for s in shift))] for shift in (SHIFT, (0, 0, 0))]
    pool = torch.nn.functional.avg_pool3d
    fixed, moving = (
        FeaturePyramid(levels=(pool(p, 2), p.contiguous()), factors=(2, 1), before=(0, 0, 0), offset=0.5) for p in parts
    )
    return fixed, moving, Grid.regular((size,) * 3)


def memory(steps: int, rule: AnyAdjoint) -> dict[str, float]:
    """Peak memory of one outer step, MB beyond what was resident with the features made, and its seconds."""
    grid = Grid.regular((64,) * 3)
    sides = [smooth(grid.shape, 16, k).requires_grad_() for k in (1, 2)]
    SolverLayer(ADAM, (2,))(*map(single, (s.detach() for s in sides)), (grid, grid))  # compiled kernels
    before = resident()
    begin = time.perf_counter()
    found = SolverLayer(ADAM, (steps,), adjoint=rule)(*map(single, sides), (grid, grid)).displacements[-1]
    found.square().mean().backward()
    return {"mb": 1000 * peak_memory() - before, "seconds": time.perf_counter() - begin}


def resident() -> float:
    """Memory of this process now, MB."""
    fields = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in fields if line.startswith("VmRSS"))


def recovered(size: int, times: float) -> float:
    """Mean distance from the true shift away from the border, voxels."""
    fixed, moving, grid = shifted(size, times)
    with torch.no_grad():
        found = SolverLayer(ADAM, (40, 30))(fixed, moving, (grid, grid)).displacements[-1]
    inner = found[(..., *(slice(6, n - 6) for n in grid.shape))]
    truth = torch.tensor(SHIFT, dtype=inner.dtype).reshape(1, 3, 1, 1, 1)
    return float((inner - truth).norm(dim=1).mean())


def gradients(
    family: Displacement, rule: AnyAdjoint, steps: int, shape: tuple[int, ...] = (14, 12, 10)
) -> tuple[Tensor, float, Tensor]:
    """The gradient of a smooth function of the displacement in both features, float64, its seconds, and the displacement.

    The moving lattice lies off the fixed one: on it a solve would begin where linear interpolation has another slope to either
    side, and no gradient would be the exact one. It is larger, so that no place beyond it is looked at, whose weight is not
    differentiated.
    """
    grid = Grid.regular(shape)
    wide = grid.crop((-MARGIN,) * grid.dim, tuple(n + 2 * MARGIN for n in shape))
    step = np.eye(grid.dim + 1)
    step[:-1, -1] = OFF
    base = smooth(wide.shape, 4, 1, torch.float64)
    fixed = base[(..., *(slice(MARGIN, -MARGIN),) * grid.dim)]
    moving = (0.8 * base + 0.6 * smooth(wide.shape, 4, 2, torch.float64)).roll((1, -1), (2, 3))
    sides = [f.clone().requires_grad_() for f in (fixed, moving)]
    begin = time.perf_counter()
    grids = grid, Grid(wide.shape, step @ wide.affine)
    out = SolverLayer(family, (steps,), adjoint=rule)(*map(single, sides), grids).displacements[-1]
    (out * smooth(grid.shape, 3, 3, torch.float64)).sum().backward()
    seconds = time.perf_counter() - begin
    return torch.cat([s.grad.flatten() for s in sides if s.grad is not None]), seconds, out.detach()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rule", choices=RULES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory is not None:
        sys.stdout.write(json.dumps(memory(options.memory, RULES[options.rule])) + "\n")
        return
    say("| rule | steps of the solver | memory beside the features, MB | s |\n|---|---|---|---|")
    for rule, steps in (("OneStep", 10), ("OneStep", 50), ("OneStep", 200), ("Krylov(5)", 50), ("Truncated(3)", 50)):
        command = [sys.executable, __file__, "--memory", str(steps), "--rule", rule, "--threads", str(options.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        say(f"| {rule} | {steps} | {found['mb']:.0f} | {found['seconds']:.1f} |")
    say("\n| voxels | features times | off by, voxels |\n|---|---|---|")
    for size, times in ((40, 0.1), (40, 1.0), (40, 100.0), (80, 1.0), (160, 1.0)):
        say(f"| {size}^3 | {times:g} | {recovered(size, times):.4f} |")
    columns = ("solver", "steps", "rule", "length", "cosine with its exact gradient", "with that of Gauss-Newton")
    say(f"\n| {' | '.join(columns)} | ends from its end, voxels | s |\n|{'---|' * 8}")
    reference, _, rest = gradients(NEWTON, Unroll(), 60)
    for name, family, steps in (("Gauss-Newton", NEWTON, 60), ("Adam", ADAM, 20), ("Adam", ADAM, 60)):
        exact, _, end = gradients(family, Unroll(), steps)
        away, moved = (float(field.norm(dim=1).mean()) for field in (end - rest, rest))
        for rule, adjoint in RULES.items():
            one, seconds, _ = gradients(family, adjoint, steps)
            cosines = [float(torch.nn.functional.cosine_similarity(one, other, 0)) for other in (exact, reference)]
            found = f"{float(one.norm()):.0f} | {cosines[0]:.3f} | {cosines[1]:.3f}"
            say(f"| {name} | {steps} | {rule} | {found} | {away:.2f} of {moved:.2f} | {seconds:.1f} |")


def say(text: str) -> None:
    """A line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
