"""GradICON's triangles and circles (figures 3 and 4 in small): `python recipes/gradicon/shapes.py PART --output FOLDER`.

PART is `anchor` (one run of each kind), `figure4` (GradICON beside ICON, three seeds), `figure3` (four regularisers, five
weights) or `large` (one run of 128 x 128). Each run is a file of its own in the folder, and one that is there is not repeated;
then the table is printed and the figure drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot
from torch import Tensor

from warpwright.data.synthetic import ShapeSettings, draw_shapes
from warpwright.energies.losses import AnyTerm, GradientInverseConsistency, Images, InverseConsistency, Smoothness
from warpwright.energies.pairs import PairBatch
from warpwright.energies.regularity import Bending, Diffusion
from warpwright.energies.similarity import LocalCorrelation
from warpwright.methods import Model, ModelSettings, batch_loss, stage_1
from warpwright.methods.randomness import drawing_from
from warpwright.networks import TallUNet

Kind = Literal["gradicon", "icon", "bending", "diffusion"]
CPU = torch.device("cpu")
IMAGES = 2000
WINDOW = 20  # steps that a figure is the mean of
PUBLISHED: dict[Kind, float] = {"gradicon": 1.5, "icon": 1000.0}  # weights on a unit cube, of the sum of both directions
OURS: dict[Kind, float] = {"bending": 15.0, "diffusion": 0.5}  # in voxels, of the mean of both directions


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Args:
        kind: the regulariser.
        weight: its weight, as published for GradICON and ICON, in our own units for the others.
        seed: of images, pairs, weights of the network and points.
        size: voxels along both axes.
        sigma: of the windows of the similarity, voxels.
        batch: pairs of a step.
        steps: updates.
        rate: of Adam.
        scale: factor of the widths of the networks.
    """

    kind: Kind
    weight: float
    seed: int = 0
    size: int = 64
    sigma: float = 3.0
    batch: int = 16
    steps: int = 240
    rate: float = 5e-4
    scale: float = 1.0

    @property
    def name(self) -> str:
        """Of its file."""
        rest = f"{self.size}px-sigma{self.sigma:g}-{self.steps}x{self.batch}-rate{self.rate:g}-width{self.scale:g}"
        return f"{self.kind}-{self.weight:g}-seed{self.seed}-{rest}"

    @property
    def term(self) -> AnyTerm:
        """The regulariser as a term of our loss, which takes the mean of both directions where the paper takes their sum."""
        if self.kind == "gradicon":
            return GradientInverseConsistency(weight=self.weight / 2, every=1)
        if self.kind == "icon":
            return InverseConsistency(weight=self.weight / 2 / (self.size - 1) ** 2)
        return Smoothness(weight=self.weight, regularity=Bending() if self.kind == "bending" else Diffusion())


PARTS: dict[str, list[Run]] = {
    "anchor": [Run(kind=kind, weight=weight) for kind, weight in PUBLISHED.items()],
    "figure4": [
        Run(kind=kind, weight=weight, seed=seed, scale=0.5)
        for seed in (0, 1, 2)
        for kind, weight in (("gradicon", 0.1875), ("icon", 250.0), ("icon", 1000.0), ("icon", 4000.0))
    ],
    "figure3": [
        Run(kind=kind, weight=weight * 2.0**power, scale=0.25)
        for kind, weight in (PUBLISHED | OURS).items()
        for power in (-4, -2, 0, 2, 4)
    ],
    "large": [Run(kind="gradicon", weight=1.5, size=128, sigma=5.0, steps=300)],
}


def trained(run: Run, say: Any) -> dict[str, Any]:
    """Of every step: one minus the similarity, mean of both directions; the penalty; folds of the map back, per cent."""
    rng = np.random.default_rng(run.seed)
    images, _ = draw_shapes(IMAGES, ShapeSettings(size=run.size), rng)
    similarity = Images(similarity=LocalCorrelation(sigma=run.sigma))
    with drawing_from(run.seed, CPU):
        model = Model(ModelSettings(dim=2, network=stage_1(TallUNet(scale=run.scale)), layers=(), loss=(similarity, run.term)))
    maps: list[Tensor] = []
    model.register_forward_hook(lambda *call: maps.append(call[-1].displacement.detach()))  # there, then back
    optimiser = torch.optim.Adam(model.parameters(), run.rate)
    rows: list[list[float]] = []
    begin = time.perf_counter()
    for step in range(run.steps):
        pairs = (images[rng.permutation(IMAGES)[: run.batch]] for _ in range(2))
        batch = PairBatch(**dict(zip(("fixed", "moving"), pairs, strict=True)), spacing=(1.0, 1.0))
        with drawing_from(run.seed * 100_003 + step, CPU):
            losses = batch_loss(model, batch)
        optimiser.zero_grad()
        losses.total.mean().backward()
        optimiser.step()
        rows.append([*(float(losses.parts[name].mean()) for name in ("similarity", run.term.name)), 100 * turned(maps[-1])])
        maps.clear()
        if step % WINDOW == WINDOW - 1:
            last = [fmean(row[k] for row in rows[-WINDOW:]) for k in range(3)]
            say(f"{run.name}  {step + 1}/{run.steps}  1-LNCC {last[0]:.4f}  penalty {last[1]:.4g}  folds {last[2]:.4f} %\n")
    alone = LocalCorrelation(sigma=run.sigma)
    some, others = images[:200], images[200:400]
    floor, base = (float(alone.similarity(some, other).mean()) for other in (some, others))
    seconds = time.perf_counter() - begin
    return {"run": asdict(run), "rows": rows, "floor": floor, "base": base, "seconds": seconds}


def turned(displacement: Tensor) -> float:
    """Cells in which `x -> x + u(x)` turns over, by forward differences, as a share of the voxels."""
    corner = displacement[..., :-1, :-1]
    down, right = displacement[..., 1:, :-1] - corner, displacement[..., :-1, 1:] - corner
    determinant = (1 + down[:, 0]) * (1 + right[:, 1]) - down[:, 1] * right[:, 0]
    return float((determinant < 0).sum()) / (displacement[:, 0].numel())


def done(run: Run, folder: Path) -> dict[str, Any]:
    """The figures of a run, trained now unless they are there."""
    path = folder / f"{run.name}.json"
    if not path.exists():
        found = trained(run, sys.stderr.write)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


def mean_of(found: dict[str, Any], begin: int, column: int) -> float:
    """Mean of a figure over the steps from `begin` on, `WINDOW` of them."""
    return fmean(row[column] for row in found["rows"][begin : begin + WINDOW])


def closed(found: dict[str, Any], value: float) -> float:
    """How much of the distance from unregistered pairs to equal images is closed."""
    return (found["base"] - value) / (found["base"] - found["floor"])


def table(runs: list[Run], results: list[dict[str, Any]]) -> str:
    """Markdown: windows of every run, and their means over seeds where there are several."""
    steps = min(run.steps for run in runs)
    begins = [b for b in (0, 40, 80, 100, 120, 160, 200) if b + WINDOW < steps] + [steps - WINDOW]
    head = "".join(f" {b + 1}-{b + WINDOW} |" for b in begins)
    lines = [f"| run |{head} gap closed | folds %, last {WINDOW} | s |", "|---|" + "---|" * (len(begins) + 3)]
    rows: dict[tuple[Kind, float], list[list[float]]] = {}
    for run, found in zip(runs, results, strict=True):
        values = [mean_of(found, b, 0) for b in begins]
        row = [*values, closed(found, values[-1]), mean_of(found, begins[-1], 2), found["seconds"]]
        rows.setdefault((run.kind, run.weight), []).append(row)
        lines.append(cells(f"{run.kind}, {run.weight:g}, seed {run.seed}", row))
    for (kind, weight), own in rows.items():
        if len(own) > 1:
            lines.append(cells(f"{kind}, {weight:g}, mean of {len(own)}", [fmean(column) for column in zip(*own, strict=True)]))
    return "\n".join(lines) + "\n"


def cells(name: str, row: list[float]) -> str:
    """A line of the table."""
    *values, folds, seconds = row
    return f"| {name} |" + "".join(f" {v:.3f} |" for v in values) + f" {folds:.4f} | {seconds:.0f} |"


def drawn(part: str, runs: list[Run], results: list[dict[str, Any]], path: Path) -> None:
    """Figure 3: dissimilarity against folds; else dissimilarity over steps."""
    mpl.use("Agg")
    figure, axes = pyplot.subplots(figsize=(6.5, 4.2), layout="constrained")
    colours = {"gradicon": "tab:blue", "icon": "tab:orange", "bending": "tab:green", "diffusion": "tab:red"}
    if part == "figure3":
        for kind, colour in colours.items():
            own = [found for run, found in zip(runs, results, strict=True) if run.kind == kind]
            mine = [tuple(mean_of(found, len(found["rows"]) - WINDOW, column) for column in (0, 2)) for found in own]
            axes.plot([x for x, _ in mine], [max(y, 1e-4) for _, y in mine], "o-", color=colour, label=kind)
        axes.set(xlabel="1 - LNCC, last 20 steps", ylabel="folds, % of voxels (none: 1e-4)", yscale="log")
    else:
        for run, found in zip(runs, results, strict=True):
            rank = sorted({other.weight for other in runs if other.kind == run.kind}).index(run.weight)
            values = [row[0] for row in found["rows"]]
            smooth = np.convolve(values, np.ones(WINDOW) / WINDOW, "valid")
            label = f"{run.kind} {run.weight:g}" if run.seed == 0 else None
            at = np.arange(len(smooth)) + WINDOW
            axes.plot(at, smooth, color=colours[run.kind], alpha=0.9 / 2**rank, label=label)
        axes.set(xlabel="step", ylabel=f"1 - LNCC, mean of {WINDOW} steps")
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Run a part, print its table, draw its figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    runs = PARTS[options.part]
    results = [done(run, options.output) for run in runs]
    sys.stdout.write(table(runs, results))
    drawn(options.part, runs, results, options.output / f"{options.part}.png")


if __name__ == "__main__":
    main()
