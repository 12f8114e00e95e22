"""What a learned smoothing kernel costs: seconds of a forward pass beside VoxelMorph-2 without it.

`python benchmarks/kernel_layer.py`: 256 x 256 and 128 x 128 x 128 voxels, 13 taps unless said otherwise, float32, no gradient.
All networks of a size run in turn, and each figure is the median over the turns, so that what else the machine does falls on
all alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Literal

import torch

from warpwright.layers import AnyLayer, FullSize, KernelSmoothing
from warpwright.methods import Model, ModelSettings
from warpwright.networks import VoxelMorph

Upsampling = Literal["nearest", "transposed"]
SHAPES = ((256, 256), (128, 128, 128))


def main() -> int:
    """Print a table for each size; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for shape in SHAPES:
        print(f"\n{' x '.join(map(str, shape))} voxels\n\n| network | forward, s | against VoxelMorph-2 |\n|---|---|---|")
        passes = {name: made(layers, up, shape) for name, (layers, up) in ways(len(shape)).items()}
        found: dict[str, list[float]] = {name: [] for name in passes}
        for turn in range(options.repeats + 1):
            for name, run in passes.items():
                begin = time.perf_counter()
                run()
                if turn:  # the first one compiles
                    found[name].append(time.perf_counter() - begin)
        base = median(next(iter(found.values())))
        for name, seconds in found.items():
            print(f"| {name} | {median(seconds):.3f} | {100 * (median(seconds) / base - 1):+.1f} % |", flush=True)
    return 0


def ways(dim: int) -> dict[str, tuple[tuple[AnyLayer, ...], Upsampling]]:
    """Layers before the full size, and how the network doubles."""
    plain: dict[str, tuple[tuple[AnyLayer, ...], Upsampling]] = {
        "VoxelMorph-2": ((), "nearest"),
        "separable kernel": ((KernelSmoothing(),), "nearest"),
        "transposed convolutions": ((), "transposed"),
        "transposed convolutions, separable kernel": ((KernelSmoothing(),), "transposed"),
        "transposed convolutions, separable kernel of 25 taps": ((KernelSmoothing(taps=25),), "transposed"),
    }
    if dim == 2:
        plain["transposed convolutions, free kernel"] = ((KernelSmoothing(form="free"),), "transposed")
    return plain


def made(layers: tuple[AnyLayer, ...], upsampling: Upsampling, shape: tuple[int, ...]) -> Callable[[], object]:
    """A forward pass of a model with fresh weights."""
    network = VoxelMorph(form="vm2", field="displacement", upsampling=upsampling)
    model = Model(ModelSettings(dim=len(shape), network=network, layers=(*layers, FullSize()))).eval()
    images = torch.rand(2, 1, 1, *shape, generator=torch.Generator().manual_seed(0))

    def run() -> object:
        with torch.no_grad():
            return model(images[0], images[1])

    return run


if __name__ == "__main__":
    raise SystemExit(main())
