"""What prompts are worth: `python recipes/dio/prompts.py --data FOLDER --model MODEL`.

Hippocampus test pairs by a model of features, told one label of two: what the other label gains or loses. Lung CT by the
classical way, told 10 landmarks of 26: what the other 16 gain or lose. Maps are diffeomorphic (greedy); weights as the option
`--prompt-weight` has them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import cast

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from cohorts import COHORTS, TestPair
from scoring import folds
from warpwright.data import bundled_pairs
from warpwright.evaluation import dice
from warpwright.geometry import Image
from warpwright.io import read_labels, read_points, read_scalar
from warpwright.methods import Prompting, Search, Solving, family_named, preset, register_direct, register_pair
from warpwright.product.model_folder import ModelFolder, read_model
from warpwright.transforms import Transform, resample

WEIGHTS = (0.25, 1.0, 4.0)
TOLD = 10  # landmarks, every second one


def main() -> int:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the public sets")
    parser.add_argument("--model", type=Path, required=True, help="model folder of a network of the kind implicit")
    parser.add_argument("--pairs", type=int, default=20, help="how many hippocampus pairs")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = COHORTS["hippocampus"](options.data, Path()).test["test pairs"][: options.pairs]
    for line in chain(labels_told(read_model(options.model), pairs), [""], landmarks_told()):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    return 0


def labels_told(folder: ModelFolder, pairs: list[TestPair]) -> Iterator[str]:
    """One label told, with each weight, against nothing told."""
    yield "| told | weight | Dice of 1 | Dice of 2 | folds, % (pairs) |\n|---|---|---|---|---|"
    rows: list[tuple[str, float, int | None]] = [("nothing", 0.0, None)]
    rows += [(f"label {label}", weight, label) for label in (1, 2) for weight in WEIGHTS]
    for told, weight, label in rows:
        found = [hippocampus(folder, pair, label, weight) for pair in pairs]
        means = " | ".join(f"{fmean(row[k] for row in found):.4f}" for k in (0, 1))
        folded = f"{fmean(row[2] for row in found):.4f} ({sum(row[2] > 0 for row in found)} of {len(found)})"
        yield f"| {told} | {weight:g} | {means} | {folded} |"


def hippocampus(folder: ModelFolder, pair: TestPair, label: int | None, weight: float) -> tuple[float, float, float]:
    """Dice of both labels and folds of one registration."""
    drawn = [read_labels(cast(Path, path)) for path in (pair.fixed_labels, pair.moving_labels)]
    images = [read_scalar(path) for path in (pair.fixed, pair.moving)]
    prompts = None if label is None else Prompting(labels=(only(drawn[0], label), only(drawn[1], label)), weight=weight)
    network = cast(Solving, folder.model.network)
    family = family_named("greedy", network.settings.family, min(network.spacing))
    search = replace(Search.trained(network.settings), family=family, prompts=prompts)
    forward = register_direct(folder.model, *images, search=search).forward
    moved = resample(drawn[1], forward, drawn[0].grid, interpolation="label").data
    overlap = dice(drawn[0].data, moved, (1, 2))
    return overlap[1], overlap[2], folds(forward, drawn[0].grid)


def only(labels: Image, label: int) -> Image:
    """One label of a map."""
    return Image((labels.data == label).int(), labels.grid, labels.name)


def landmarks_told() -> Iterator[str]:
    """Ten landmarks of the bundled lung pair told, with each weight, against none."""
    lung = next(pair for pair in bundled_pairs() if pair.name == "lung")
    images = [read_scalar(path) for path in (lung.fixed, lung.moving)]
    files = [cast(Path, path) for path in (lung.fixed_points, lung.moving_points)]
    fixed, moving = (
        read_points(path, space=lung.points_space, grid=image.grid).world for path, image in zip(files, images, strict=True)
    )
    told = torch.arange(0, 2 * TOLD, 2)
    others = torch.tensor([k for k in range(len(fixed)) if k not in told.tolist()])
    yield "| landmarks told | weight | told, mm (most) | others, mm (most) | folds, % |\n|---|---|---|---|---|"

    def left(forward: Transform, which: torch.Tensor) -> str:
        apart = (forward(fixed[which]) - moving[which]).norm(dim=1)
        return f"{float(apart.mean()):.2f} ({float(apart.max()):.2f})"

    for weight in (0.0, *WEIGHTS):
        prompts = Prompting(points=(fixed[told], moving[told]), weight=weight) if weight else None
        forward = register_pair(*images, preset("balanced", images[0].grid.spacing), prompts=prompts).forward
        count = TOLD if weight else 0
        cells = (count, f"{weight:g}", left(forward, told), left(forward, others), f"{folds(forward, images[0].grid):.4f}")
        yield f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
