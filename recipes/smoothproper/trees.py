"""Learned on vessel trees: `python recipes/smoothproper/trees.py --output FOLDER` trains and scores every way.

One run for each `.toml` in `trees/`, three seeds for those that the key comparison is between. What is trained is not trained
again, what was interrupted goes on. Prints the table (errors in voxels of the 40 test pairs), writes `results.json` and
`trees.png`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from endpoint import Found, endpoint, header, line
from runs import folder_of, settings_of, trained, write_table
from vessel_pairs import PAIRS, ROWS, Truth, read_truth, write_vessel_pairs
from warpwright.errors import WarpwrightError
from warpwright.io import read_scalar
from warpwright.methods import Model, evaluating
from warpwright.product.model_folder import read_model
from warpwright.sampling import warp

mpl.use("Agg")
HERE = Path(__file__).parent / "trees"
KEY = ("smoothproper", "plain_002", "plain_02", "plain_1")  # three seeds each
SEEDS = (0, 1, 2)


def main() -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="where images, models and results go")
    parser.add_argument("--only", nargs="*", help="these configurations (names of .toml files), else all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = sorted(p.stem for p in HERE.glob("*.toml") if not options.only or p.stem in options.only)
    write_table(options.output / "manifest.csv", [ROWS, *write_vessel_pairs(options.output / "images")])
    try:
        for name, seed in runs(names):
            settings = settings_of(HERE / f"{name}.toml", options.output, seed)
            if not trained(settings, options.output / folder_of(name, seed), options.device):
                return 1
        report(names, options.output)
    except WarpwrightError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def runs(names: list[str]) -> list[tuple[str, int]]:
    """Configurations and seeds, first seeds first."""
    return [(name, seed) for seed in SEEDS for name in names if seed == 0 or name in KEY]


def report(names: list[str], output: Path) -> None:
    """Score, print and draw."""
    pairs = [read_pair(output / "images" / f"test-{k:03d}") for k in range(PAIRS["test"])]
    found: dict[str, list[list[Found]]] = {"as it lies": [[endpoint(torch.zeros_like(t.displacement), t) for _, _, t in pairs]]}
    drawn: dict[str, Tensor] = {}
    for name in names:
        seeds = SEEDS if name in KEY else SEEDS[:1]
        models = [read_model(output / folder_of(name, seed) / "model").model for seed in seeds]
        fields = [[displaced(model, *images) for *images, _ in pairs] for model in models]
        found[name] = [[endpoint(u, t) for u, (_, _, t) in zip(each, pairs, strict=True)] for each in fields]
        drawn[name] = fields[0][0]
    sys.stdout.write(f"{PAIRS['test']} test pairs\n\n{header()}\n")
    for name, each in found.items():
        means = [fmean(f.vessels for f in one) for one in each]
        seeded = f"{name}, {len(each)} seeds ({', '.join(f'{m:.2f}' for m in means)} on vessels)" if len(each) > 1 else name
        sys.stdout.write(f"{line(seeded, [f for one in each for f in one])}\n")
    numbers = {name: [[asdict(f) for f in one] for one in each] for name, each in found.items()}
    (output / "results.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    draw(pairs[0], drawn, output / "trees.png")


def read_pair(stem: Path) -> tuple[Tensor, Tensor, Truth]:
    """Fixed and moving image (1, 1, *S), and what is known of them."""
    images = [read_scalar(stem.with_name(f"{stem.name}-{side}.nii.gz")).data[None] for side in ("fixed", "moving")]
    return images[0], images[1], read_truth(stem.with_name(f"{stem.name}-truth.npz"))


def displaced(model: Model, fixed: Tensor, moving: Tensor) -> Tensor:
    """The displacement (1, 2, *S) that a model gives."""
    with evaluating(model), torch.no_grad():
        return model(fixed.clamp(0, 1), moving.clamp(0, 1)).displacement


def draw(pair: tuple[Tensor, Tensor, Truth], fields: dict[str, Tensor], path: Path) -> None:
    """A test pair under every model: fixed green, moved red and blue; below it, how far the field is off."""
    fixed, moving, truth = pair
    shown = {"as it lies": torch.zeros_like(truth.displacement), **fields}
    figure, axes = plt.subplots(2, len(shown), figsize=(2.1 * len(shown), 4.6), squeeze=False)
    for column, (name, field) in enumerate(shown.items()):
        moved = warp(moving, field)[0, 0].clamp(0, 1)
        axes[0, column].imshow(torch.stack((moved, fixed[0, 0].clamp(0, 1), moved), -1))
        error = (field - truth.displacement)[0].norm(dim=0)
        axes[1, column].imshow(error, cmap="magma", vmin=0, vmax=6)
        axes[0, column].set_title(name, fontsize=9)
        axes[1, column].set_title(f"{float(error[truth.vessels[0, 0]].mean()):.2f} on vessels", fontsize=9)
        for axis in axes[:, column]:
            axis.set(xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
