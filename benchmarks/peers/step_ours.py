"""Seconds of our training steps, of the networks of `step_voxelmorph.py` and `step_icon.py`: JSON on standard output."""

import sys

import torch
from steps import report

from warpwright.energies.losses import GradientInverseConsistency, Images, Smoothness
from warpwright.energies.pairs import PairBatch
from warpwright.energies.similarity import LNCC, MSE, LocalCorrelation
from warpwright.layers import FullSize, Integrate
from warpwright.methods import Model, ModelSettings, stage_1
from warpwright.networks import TallUNet, VoxelMorph
from warpwright.schemes import Adam, Constant, Plain


def voxelmorph(similarity: str) -> ModelSettings:
    """The network of the current package, one direction."""
    likeness = LNCC(radius=4) if similarity == "ncc" else MSE()
    return ModelSettings(
        network=VoxelMorph(form="dense"),
        layers=(Integrate(steps=7, downsize=2, inverse=False), FullSize()),
        loss=(Images(similarity=likeness), Smoothness(on="velocity", weight=0.01)),
        directions="forward",
    )


def gradicon() -> ModelSettings:
    """Stage 1 in 2-D, both directions."""
    return ModelSettings(
        dim=2,
        network=stage_1(TallUNet()),
        layers=(),
        loss=(Images(similarity=LocalCorrelation(sigma=5.0)), GradientInverseConsistency(weight=0.75, every=1)),
    )


def main(case: str, size: int, steps: int, threads: int) -> None:
    """Train `steps` steps on one random pair of `size`^3 voxels, or on eight of `size`^2 pixels ("gradicon")."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    settings = gradicon() if case == "gradicon" else voxelmorph(case)
    scheme = Plain(optimiser=Adam(rate=1e-4), schedule=Constant()).build(Model(settings), steps)
    pairs = 8 if case == "gradicon" else 1
    fixed, moving = torch.rand(2, pairs, 1, *(size,) * settings.dim)
    batch = PairBatch(fixed=fixed, moving=moving, spacing=(1.0,) * settings.dim)
    parameters = sum(p.numel() for p in scheme.model.parameters())
    report(lambda number: scheme.step(number, [batch], lambda _: None)["loss"], steps, parameters)


if __name__ == "__main__":
    main(sys.argv[1], *(int(value) for value in sys.argv[2:5]))
