"""What the layer SmoothProper costs: seconds and memory of a forward and a backward pass, beside layers without it.

`python benchmarks/smoothing.py`: 256 x 256 voxels, 121 displacements, 6 iterations, float32; with `--dim 3` 48 x 48 x 48 voxels
and 343 displacements. Each layer runs in a process of
its own, whose highest memory is read before and after; the logits themselves are not counted, their gradient is.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from statistics import median

import torch

from warpwright.layers import AnyDistribution, Expected, MeanField, SmoothProper, WeightedGaussian
from warpwright.networks import Basis, BasisLogits

BASES = {2: Basis(reach=10, step=2), 3: Basis(reach=3)}
SIDES = {2: 256, 3: 48}
LAYERS: dict[str, AnyDistribution] = {
    "mean (no layer)": Expected(),
    "weighted Gaussian": WeightedGaussian(),
    "mean field": MeanField(),
    "SmoothProper": SmoothProper(),
    "SmoothProper, Gaussian v-step": SmoothProper(v_solver="gaussian"),
    "SmoothProper, exact q-step": SmoothProper(q_step="exact"),
    "SmoothProper, learned": SmoothProper(learned=True),
}


def main() -> int:
    """Print the table, or measure one layer; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layer", choices=LAYERS, help="only this one, as plain numbers")
    parser.add_argument("--dim", type=int, choices=(2, 3), default=2)
    parser.add_argument("--side", type=int, help="voxels along each axis")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    side = options.side or SIDES[options.dim]
    if options.layer:
        print(*measured(LAYERS[options.layer], (side,) * options.dim, options.threads, options.repeats))
        return 0
    print("| layer | forward and backward, s | highest memory beside the logits, MB |\n|---|---|---|")
    for name in LAYERS:
        numbers = [f"--dim={options.dim}", f"--side={side}", f"--threads={options.threads}", f"--repeats={options.repeats}"]
        done = subprocess.run([sys.executable, __file__, "--layer", name, *numbers], capture_output=True, text=True, check=True)
        seconds, memory = done.stdout.split()
        print(f"| {name} | {float(seconds):.2f} | {float(memory):.0f} |", flush=True)
    return 0


def measured(settings: AnyDistribution, shape: tuple[int, ...], threads: int, repeats: int) -> tuple[float, float]:
    """Median seconds, and megabytes above what was held before."""
    torch.set_num_threads(threads)
    dim = len(shape)
    layer, count = settings.build(dim), len(BASES[dim].vectors(dim))
    passed(layer, torch.randn(1, count, *[8] * dim))  # nothing is compiled on the clock
    logits = torch.randn(1, count, *shape, generator=torch.Generator().manual_seed(0)) * 3
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = [passed(layer, logits)]
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    seconds += [passed(layer, logits) for _ in range(repeats - 1)]
    return median(seconds), memory


def passed(layer: torch.nn.Module, logits: torch.Tensor) -> float:
    """Seconds of one forward and one backward pass."""
    given = logits.detach().requires_grad_()
    shape = tuple(logits.shape[2:])
    basis, dim = BASES[len(shape)], len(shape)
    estimate = BasisLogits(values=given, vectors=basis.vectors(dim), basis=basis, shape=shape, factors=(1,) * dim)
    begin = time.perf_counter()
    layer(estimate).values.square().mean().backward()
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
