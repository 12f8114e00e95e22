"""SmoothProper without a network: `python recipes/smoothproper/untrained.py --output FOLDER` (four minutes on a core).

Evidence is the mean squared difference of patches of 7 x 7 voxels (softmax at a temperature of 0.01), the same for every row:
every difference is the layer. Experiment 1 is the aperture problem, experiment 2 large displacements of vessel trees, and
the ablation changes one setting at a time. Prints the tables, writes `results.json` and the pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from endpoint import Found, endpoint, header, line
from vessel_pairs import LARGE_SEEDS, Motion, VesselPair, aperture_pair, large_pair
from warpwright.layers import Expected, SmoothProper, WeightedGaussian
from warpwright.layers.base import LayerSettings
from warpwright.methods.patches import patch_costs
from warpwright.networks import Basis, BasisLogits, Displacement
from warpwright.sampling import gaussian

mpl.use("Agg")
TEMPERATURE = 0.01
APERTURE, LARGE = Basis(reach=12), Basis(reach=14, step=2)
BASE = SmoothProper(iterations=12, start=8.0)
DISTANCES = ((0, 6), (12, 24), (24, 36), (36, 54))

WAYS: dict[str, LayerSettings] = {
    "mean of p, no layer": Expected(),
    "weighted Gaussian, sigma 6": WeightedGaussian(sigma=6.0),
    "SmoothProper": BASE,
}
ABLATION: dict[str, LayerSettings] = {
    "SmoothProper, K = 12": BASE,
    "K = 1": replace(BASE, iterations=1),
    "K = 6": replace(BASE, iterations=6),
    "K = 30": replace(BASE, iterations=30),
    "alpha = R^2/12 throughout": replace(BASE, first=1 / 12, last=(LARGE.reach / LARGE.step) ** 2 / 12),
    "alpha from R^2": replace(BASE, first=1.0),
    "alpha down to 1 step^2": replace(BASE, last=1.0),
    "beta = 0.5": replace(BASE, beta=0.5),
    "beta = 2": replace(BASE, beta=2.0),
    "q-step exact": replace(BASE, q_step="exact"),
    "q-step kl": replace(BASE, q_step="kl"),
    "start over 2 voxels": replace(BASE, start=2.0),
    "v-step Gaussian": replace(BASE, v_solver="gaussian"),
    "output: mean of q": replace(BASE, output="expectation"),
}


def main() -> int:
    """Run all three; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="where results.json and pictures go")
    parser.add_argument("--seeds", type=int, default=len(LARGE_SEEDS), help="pairs of experiment 2, and of the ablation")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    found = {
        "aperture": aperture(),
        "large": {motion: large(motion, WAYS, options.seeds) for motion in ("small", "medium", "large")},
        "ablation": large("large", ABLATION, options.seeds),
    }
    draw(options.output)
    (options.output / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def logits(pair: VesselPair, basis: Basis) -> BasisLogits:
    """The evidence of a pair."""
    vectors = basis.vectors(2)
    costs = patch_costs(pair.fixed, pair.moving, vectors, measure="squares")
    shape = tuple(pair.fixed.shape[2:])
    return BasisLogits(values=-costs / TEMPERATURE, vectors=vectors, basis=basis, shape=shape, factors=(1, 1))


def displaced(settings: LayerSettings, evidence: BasisLogits) -> Tensor:
    """The displacement that a layer makes of the evidence."""
    with torch.no_grad():
        found = settings.build(2)(evidence)
    assert isinstance(found, Displacement)
    return found.values


def aperture() -> dict[str, list[float]]:
    """Experiment 1: errors along the vessel by the distance from its only crossing, and across it."""
    pair = aperture_pair()
    evidence = logits(pair, APERTURE)
    row, first = (int(pair.truth.fixed_points[0, axis].round()) for axis in (0, 1))
    counts = {f"SmoothProper, K = {k}": replace(BASE, iterations=k) for k in (6, 12, 30, 100)}
    table: dict[str, list[float]] = {}
    for name, settings in {
        "mean of p, no layer": Expected(),
        "weighted Gaussian, sigma 8": WeightedGaussian(sigma=8.0),
        **counts,
    }.items():
        error = (displaced(settings, evidence) - pair.truth.displacement).abs()[0, :, row]
        along = [float(error[1, first + a : first + b].mean()) for a, b in DISTANCES]
        table[name] = [*along, float(error[0, first : first + DISTANCES[-1][1]].mean())]
    blurred = gaussian(displaced(Expected(), evidence), (8.0, 8.0))
    error = (blurred - pair.truth.displacement).abs()[0, :, row]
    table["Gaussian of the mean, sigma 8"] = [
        *(float(error[1, first + a : first + b].mean()) for a, b in DISTANCES),
        float(error[0, first : first + DISTANCES[-1][1]].mean()),
    ]
    columns = " | ".join(f"{a} to {b}" for a, b in DISTANCES)
    say(
        "Experiment 1, error along the vessel by distance from the crossing, voxels\n\n"
        f"| way | {columns} | across |\n|---|---|---|---|---|---|"
    )
    for name, values in table.items():
        say(f"| {name} | {' | '.join(f'{v:.2f}' for v in values)} |")
    say("")
    return table


def large(motion: Motion, ways: dict[str, LayerSettings], seeds: int) -> dict[str, dict[str, float]]:
    """Experiment 2, or an ablation on its pairs: means over seeds."""
    pairs = [large_pair(motion, seed) for seed in LARGE_SEEDS][:seeds]
    found: dict[str, list[Found]] = {
        "as it lies": [endpoint(torch.zeros_like(p.truth.displacement), p.truth) for p in pairs],
        **{name: [] for name in ways},
    }
    for pair in pairs:
        evidence = logits(pair, LARGE)
        for name, settings in ways.items():
            found[name].append(endpoint(displaced(settings, evidence), pair.truth))
    say(f"Experiment 2, {motion} displacements, {len(pairs)} pairs\n\n{header()}")
    for name, values in found.items():
        say(line(name, values))
    say("")
    return {
        name: {key: fmean(getattr(v, key) for v in values) for key in ("tre", "vessels", "inside", "folds")}
        for name, values in found.items()
    }


def draw(folder: Path) -> None:
    """The aperture pair and one tree, with the fields that the layer and the mean of p give."""
    figure, axes = plt.subplots(2, 4, figsize=(14, 7.2))
    for row, (pair, basis, name) in enumerate(
        (
            (aperture_pair(), APERTURE, "one crossing, shift (6, 6)"),
            (large_pair("large", LARGE_SEEDS[0]), LARGE, "tree, up to 13 voxels"),
        )
    ):
        evidence = logits(pair, basis)
        fields = [displaced(s, evidence)[0] for s in (Expected(), replace(BASE, iterations=100 if row == 0 else 12))]
        overlay(axes[row, 0], pair, torch.zeros_like(fields[0]), f"{name}: before")
        overlay(axes[row, 1], pair, fields[1], "after SmoothProper")
        for axis, field, title in (
            (axes[row, 2], fields[0], "error of the mean of p"),
            (axes[row, 3], fields[1], "error of SmoothProper"),
        ):
            error = (field - pair.truth.displacement[0]).norm(dim=0)
            shown = axis.imshow(error, cmap="magma", vmin=0, vmax=8)
            axis.set(title=f"{title}, voxels", xticks=[], yticks=[])
            figure.colorbar(shown, ax=axis, fraction=0.046)
    figure.tight_layout()
    figure.savefig(folder / "untrained.png", dpi=80)
    plt.close(figure)


def overlay(axis: plt.Axes, pair: VesselPair, field: Tensor, title: str) -> None:
    """The fixed image in green, the moved one in red and blue: where they agree it is grey."""
    from warpwright.sampling import warp

    moved = warp(pair.moving, field[None])[0, 0].clamp(0, 1)
    fixed = pair.fixed[0, 0].clamp(0, 1)
    axis.imshow(torch.stack((moved, fixed, moved), -1))
    axis.set(title=title, xticks=[], yticks=[])


def say(text: str) -> None:
    """A line for a person."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
