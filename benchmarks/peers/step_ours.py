"""Seconds of training steps of our VoxelMorph, the same network and loss as `step_voxelmorph.py`: JSON on standard output."""

import json
import sys
import time

import torch

from warpwright.energies.losses import Images, Smoothness
from warpwright.energies.pairs import PairBatch
from warpwright.energies.similarity import LNCC, MSE
from warpwright.layers import FullSize, Integrate
from warpwright.methods import Model, ModelSettings
from warpwright.networks import VoxelMorph
from warpwright.schemes import Adam, Plain


def main(similarity: str, size: int, steps: int, threads: int) -> None:
    """Train `steps` steps on one random pair of `size`^3 voxels."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shape = (size,) * 3
    likeness = LNCC(radius=4) if similarity == "ncc" else MSE()
    settings = ModelSettings(
        network=VoxelMorph(form="dense"),
        layers=(Integrate(steps=7, downsize=2, inverse=False), FullSize()),
        loss=(Images(similarity=likeness), Smoothness(on="velocity", weight=0.01)),
        directions="forward",
    )
    scheme = Plain(optimiser=Adam(rate=1e-4)).build(Model(settings), steps)
    fixed, moving = torch.rand(2, 1, 1, *shape)
    batch = PairBatch(fixed=fixed, moving=moving, spacing=(1.0,) * 3)
    seconds, figures = [], {}
    for step in range(steps):
        begin = time.perf_counter()
        figures = scheme.step(step, [batch], lambda _: None)
        seconds.append(time.perf_counter() - begin)
    parameters = sum(p.numel() for p in scheme.model.parameters())
    sys.stdout.write(json.dumps({"seconds": seconds, "parameters": parameters, "loss": figures["loss"]}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], *(int(value) for value in sys.argv[2:5]))
