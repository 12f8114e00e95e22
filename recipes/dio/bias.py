"""Where a search can go: `python recipes/dio/bias.py --data FOLDER --model MODEL --output FOLDER`.

The gradient of a loss of one image in the place that a voxel looks at is the slope of the moving image there, times a number:
the fixed image and the loss have no say in its direction. With features of several channels it is a mixture of their slopes.
How far it is then known without the fixed image is measured as in appendix A.1 of DIO: the absolute cosine, in every voxel,
between the gradient of the loss and that of the sum of the moved channels (0.5 on average for directions in space that have
nothing to do with each other). Solves of hippocampus test pairs, by features and by intensities; `bias.png` draws it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from cohorts import COHORTS, TestPair
from warpwright.energies.similarity import MSE
from warpwright.errors import BadInput, WarpwrightError
from warpwright.geometry import Grid
from warpwright.io import read_scalar
from warpwright.methods import Annotated, AnyFamily, Displacement, Greedy, Solving, evaluating, feature_levels, lay_pair
from warpwright.methods.deformable import Scale
from warpwright.methods.intensities import at_level
from warpwright.methods.levels import Level
from warpwright.methods.objective import FieldObjective
from warpwright.methods.solver_layer import SolverLayer
from warpwright.product.model_folder import ModelFolder, read_model
from warpwright.sampling import warp
from warpwright.transforms import Affine

mpl.use("Agg")
LOOKS = 6  # at every level
NOTHING = 1e-6  # share of the largest gradient below which a voxel has none


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is seen at a step of a level: the loss, and the cosines of the gradient, plain and as the solver smooths it."""

    step: int
    loss: float
    plain: float
    spread: float
    smoothed: float


def main() -> int:
    """Print a table and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the public sets")
    parser.add_argument("--model", type=Path, required=True, help="model folder of a network of the kind implicit")
    parser.add_argument("--output", type=Path, required=True, help="where the picture goes")
    parser.add_argument("--pairs", type=int, default=5, help="how many hippocampus pairs")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        folder = read_model(options.model)
        pairs = COHORTS["hippocampus"](options.data, Path()).test["test pairs"][: options.pairs]
        found = {name: [list(looks(folder, pair, name)) for pair in pairs] for name in ("features", "intensities")}
    except WarpwrightError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    rows = ["| by | step | loss | cosine (sd over voxels) | cosine of the smoothed gradient |", "|---|---|---|---|---|"]
    for name, runs in found.items():
        for same in zip(*runs, strict=True):
            loss, plain, spread, smoothed = (
                fmean(getattr(o, k) for o in same) for k in ("loss", "plain", "spread", "smoothed")
            )
            rows.append(f"| {name} | {same[0].step} | {loss:.4f} | {plain:.3f} ({spread:.3f}) | {smoothed:.3f} |")
    sys.stdout.write("\n".join(rows) + "\n")
    options.output.mkdir(parents=True, exist_ok=True)
    draw_bias(found, options.output / "bias.png")
    return 0


def looks(folder: ModelFolder, pair: TestPair, by: str) -> Iterator[Look]:
    """What is seen along the solve of a pair.

    Raises:
        BadInput: the model is none of features, or solves for something else than a displacement.
    """
    network = folder.model.network
    if not isinstance(network, Solving) or not isinstance(network.settings.family, (Displacement, Greedy)):
        raise BadInput(f"{folder.path}: expected a model of features whose family is displacement or greedy")
    sides = [Annotated(image=read_scalar(path)) for path in (pair.fixed, pair.moving)]
    preparation = folder.model.settings.preparation
    grid = preparation.whole(sides[0].image.grid)
    start = preparation.affine(sides[0].image.grid, sides[1].image.grid)
    batch = lay_pair(preparation, *sides, (Affine.identity(grid.dim), start), grid)
    with torch.no_grad(), evaluating(network):
        pyramids = [network.pyramid(image) for image in (batch.fixed, batch.moving)]
    settings, own = network.settings, Grid.regular(grid.shape, grid.spacing)
    if by == "intensities":
        lattices = [level.grid for level in feature_levels(*pyramids, (own, own), (None, None))]
        pyramids = [
            replace(like, levels=tuple(at_level(image, own, lattice) for lattice in lattices))
            for image, like in zip((batch.fixed, batch.moving), pyramids, strict=True)
        ]
    done = 0
    for k, level in enumerate(feature_levels(*pyramids, (own, own), (None, None))):
        for count in np.linspace(1, settings.steps[k], LOOKS).round().astype(int):
            steps = (*settings.steps[:k], int(count), *settings.steps[k + 1 :])
            layer = SolverLayer(settings.family, steps)
            with torch.no_grad():
                solved = layer(*pyramids, (own, own), levels=k + 1)
            scale = Scale(level.grid.spacing, pyramids[0].factors[k] // min(pyramids[0].factors))
            loss, plain, smoothed = cosines(level, settings.family, scale, solved.solutions[-1].value)
            yield Look(
                step=done + int(count),
                loss=loss,
                plain=float(plain.mean()),
                spread=float(plain.std()),
                smoothed=float(smoothed.mean()),
            )
        done += settings.steps[k]


def cosines(level: Level, family: AnyFamily, scale: Scale, displacement: Tensor) -> tuple[float, Tensor, Tensor]:
    """The loss at a displacement, and (N,) absolute cosines in the voxels where both gradients are something."""
    objective = FieldObjective(level, np.eye(level.grid.dim + 1), MSE())
    at = displacement.detach().requires_grad_()
    loss = objective.data_term(at, *objective.images)
    (by_loss,) = torch.autograd.grad(loss.sum(), at)
    at = displacement.detach().requires_grad_()
    (by_sum,) = torch.autograd.grad(warp(objective.images[1], at, objective.matrix).sum(), at)
    smooth = family.precondition(by_loss, scale)
    return float(loss.detach()), cosine(by_loss, by_sum), cosine(smooth, by_sum)


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """(N,), absolute."""
    sizes = [g.norm(dim=1) for g in (one, other)]
    there = (sizes[0] > NOTHING * sizes[0].max()) & (sizes[1] > NOTHING * sizes[1].max())
    return ((one * other).sum(1).abs() / (sizes[0] * sizes[1]))[there]


def draw_bias(found: dict[str, list[list[Look]]], path: Path) -> None:
    """Loss and cosines over the steps, means over the pairs."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, runs in found.items():
        steps = [look.step for look in runs[0]]

        def mean(which: str, runs: Sequence[Sequence[Look]] = runs) -> np.ndarray:
            return np.array([fmean(getattr(look, which) for look in same) for same in zip(*runs, strict=True)])

        first = mean("loss")[0]
        axes[0].plot(steps, mean("loss") / first, ".-", label=name)
        (line,) = axes[1].plot(steps, mean("plain"), ".-", label=name)
        axes[1].fill_between(steps, mean("plain") - mean("spread"), mean("plain") + mean("spread"), alpha=0.15)
        axes[1].plot(steps, mean("smoothed"), ":", color=line.get_color(), label=f"{name}, smoothed")
    axes[0].set(xlabel="step", ylabel="loss, share of the first")
    axes[1].set(xlabel="step", ylabel="|cosine|, gradient and slope of the moving", ylim=(0, 1.05))
    for axis in axes:
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
