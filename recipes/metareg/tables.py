"""Meta-Regularisation in small: `python recipes/metareg/tables.py PART ... --data FOLDER --output FOLDER`.

PARTS are `sweep` (weights of the smoothness term), `four` (both energies for training and test, three seeds of the key ways),
`rates` (of learning), `forms` (of the kernel), `grid` (equation 12 as printed) and `full` (images of 256 x 256 voxels); without
any, all. `sweep` chooses the weights of the others, by Dice of the validation pairs. What is trained is not trained again, what
was interrupted goes on. Then every run is scored on the test pairs, and the tables are printed and drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent))
from bump_pairs import ROWS, scored, write_bump_pairs
from gallery import draw_gallery, draw_sweep
from runs import done_before, trained, write_table
from warpwright.config import from_mapping, merged, read_mapping
from warpwright.errors import BadInput, WarpwrightError
from warpwright.evaluation import bootstrap_interval, dice, folding, mean_over_labels
from warpwright.geometry import Image
from warpwright.io import read_labels, read_scalar
from warpwright.layers import SmoothingKernel
from warpwright.methods import Model, evaluating
from warpwright.product.model_folder import read_model
from warpwright.sampling import warp_labels
from warpwright.training.settings import Training
from ways import PARTS, SEEDED, SWEPT, Run, at, changes, pairs_of, tested, tuned_like

HERE = Path(__file__).parent
RIVALS = ("voxelmorph2", "ablated")
FIGURES = ("asymmetry", "spectrum", "rank", "matrix", "width", "sum")
Pair = tuple[Image, Image, Image, Image]


def main() -> int:
    """Train and score; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*PARTS, []], help="which tables; none for all")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the public sets")
    parser.add_argument("--output", type=Path, required=True, help="where images, models and results go")
    parser.add_argument("--only", nargs="*", help="train only these ways")
    parser.add_argument("--steps", type=int, help="updates of every run, in place of those of base.toml")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        for part in options.parts or PARTS:
            for side in dict.fromkeys(run.side for run in PARTS[part]()):
                write_pairs(options.data, options.output, side)
            for run in PARTS[part]():
                if options.only and run.way not in options.only:
                    continue
                if not finished(run, options):
                    return 1
            found = [known(run, options.output) for run in PARTS[part]()]
            done = [run for run in found if run is not None and (options.output / run.name / "scores.json").exists()]
            say(f"## {part}\n\n{table(done, options.output)}\n\n{kernel_table(done, options.output)}\n")
            if part == "sweep":
                draw_sweep(done, options.output)
            else:
                draw_gallery(done, options.output, options.output / f"{part}.png")
    except WarpwrightError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def write_pairs(data: Path, output: Path, side: int) -> None:
    """Write the images of so many voxels that are not there yet, and their tables."""
    for energy in tested(side):
        rows = write_bump_pairs(data, output / "images", energy, side)
        write_table(output / f"{pairs_of(energy, side)}.csv", [ROWS, *rows])


def finished(run: Run, options: argparse.Namespace) -> bool:
    """Train and score a run, unless that is done; whether it is."""
    weighed = known(run, options.output)
    if weighed is None:
        raise BadInput(f"{options.output}: holds no sweep of {tuned_like(run.way)}, expected `tables.py sweep` first")
    folder = options.output / weighed.name
    settings = settings_of(weighed, options.output, options.steps)
    if done_before(settings, folder):
        return True
    if not trained(settings, folder, options.device):
        return False
    score(weighed, options.output)
    return True


def settings_of(run: Run, output: Path, steps: int | None) -> Training:
    """`base.toml` with what the run changes."""
    table = merged(read_mapping(HERE / "base.toml"), changes(run))
    images, smoothness = table["model"]["loss"]
    table["model"]["loss"] = [images, {**smoothness, "weight": run.weight}]
    table["steps"] = steps or table["steps"]
    table["card"]["title"] = run.name
    training = from_mapping(Training, table, where=run.name)
    return replace(training, data=replace(training.data, manifest=(output / f"{run.pairs}.csv").absolute()))


def known(run: Run, output: Path) -> Run | None:
    """The run with its weight: where it has none, the best that the sweep has of its way; None if there is no sweep of it."""
    if run.weight is not None:
        return run
    way = tuned_like(run.way)
    found = {weight: output / at(Run(way=way), weight).name / "scores.json" for weight in SWEPT}
    dices = {w: json.loads(p.read_text(encoding="utf-8"))["validation"]["dice"] for w, p in found.items() if p.exists()}
    return at(run, max(dices, key=lambda weight: fmean(dices[weight]))) if dices else None


def score(run: Run, output: Path) -> None:
    """Write how a model does on pairs of each energy, and its kernels' figures."""
    folder = output / run.name
    model = read_model(folder / "model").model
    found: dict[str, Any] = {
        energy: scores(model, pairs(output, pairs_of(energy, run.side), "test")) for energy in tested(run.side)
    }
    found["validation"] = scores(model, pairs(output, run.pairs, "validation"))
    found["kernel"] = [layer.figures() for layer in model.modules() if isinstance(layer, SmoothingKernel)]
    (folder / "scores.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


@cache
def pairs(output: Path, name: str, split: str) -> tuple[Pair, ...]:
    """Fixed and moving image and labels of the pairs of a split of a table."""
    lines = (output / f"{name}.csv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [row.split(",") for row in lines if row.endswith(f",{split}")]
    return tuple((read_scalar(a), read_scalar(b), read_labels(c), read_labels(d)) for _, a, b, c, d, _ in rows)


def scores(model: Model | None, given: Sequence[Pair]) -> dict[str, list[float]]:
    """Dice, share of voxels with a positive determinant (%), smallest determinant and seconds of every pair."""
    found: dict[str, list[float]] = {"dice": [], "positive": [], "least": [], "seconds": []}
    for fixed, moving, fixed_labels, moving_labels in given:
        begin = time.perf_counter()
        field = torch.zeros(1, 2, *fixed.grid.shape) if model is None else estimated(model, fixed, moving)
        found["seconds"].append(time.perf_counter() - begin)
        moved = warp_labels(moving_labels.data[None], field)[0]
        folds = folding(field)
        found["dice"].append(mean_over_labels(dice(fixed_labels.data, moved, scored(moving_labels.data))))
        found["positive"].append(100 - folds["folded_percent"])
        found["least"].append(folds["min_determinant"])
    return found


def estimated(model: Model, fixed: Image, moving: Image) -> torch.Tensor:
    """The displacement (1, 2, *S) that a model gives."""
    with evaluating(model), torch.no_grad():
        return model(fixed.data[None], moving.data[None]).displacement


def table(runs: Sequence[Run], output: Path) -> str:
    """A row for every way, weight and energy, seeds together, in Markdown.

    The last columns are against what learned from the same energy, with the same weight if there is such a run.
    """
    titles = ["way", "weight", "learned", "tested", "Dice, % (sd; seeds)", "det > 0, %", "least det", "ms a pair"]
    titles += [f"against {rival}" for rival in RIVALS]
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for energy, side in dict.fromkeys((energy, run.side) for run in runs for energy in tested(run.side)):
        still = scores(None, pairs(output, pairs_of(energy, side), "test"))
        rows.append(
            f"| as it lies | | | {energy} | {100 * fmean(still['dice']):.2f} ({100 * stdev(still['dice']):.2f}) | | | | | |"
        )
    groups = dict.fromkeys((run.way, run.weight, run.energy, run.rate) for run in runs)
    for way, weight, energy, rate in groups:
        alike = [run for run in runs if (run.way, run.weight, run.energy, run.rate) == (way, weight, energy, rate)]
        for test in tested(alike[0].side) if len(alike) > 1 or way not in SEEDED else [energy]:
            each = {run.seed: read(run, output)[test] for run in alike}
            against: list[str] = []
            for rival in RIVALS:
                rivals = [run for run in runs if (run.way, run.energy, run.rate) == (rival, energy, rate)]
                base = {run.seed: read(run, output)[test] for run in [r for r in rivals if r.weight == weight] or rivals}
                against.append("" if way in (rival, RIVALS[0]) or not base else difference(each, base))
            rows.append(
                f"| {alike[0].title} | {weight:g} | {energy} | {test} | {line(list(each.values()))} | {' | '.join(against)} |"
            )
    return "\n".join(rows)


def kernel_table(runs: Sequence[Run], output: Path) -> str:
    """Figures of the kernels that were learned, a row for every run, in Markdown."""
    rows = [f"| kernels of | weight | learned | seed | {' | '.join(FIGURES)} |", "|---" * (4 + len(FIGURES)) + "|"]
    for run in runs:
        for figures in read(run, output)["kernel"]:
            cells = " | ".join(f"{figures[f'kernel_{name}']:.3f}" for name in FIGURES)
            rows.append(f"| {run.title} | {run.weight:g} | {run.energy} | {run.seed} | {cells} |")
    return "\n".join(rows)


def read(run: Run, output: Path) -> dict[str, Any]:
    """What `score` wrote."""
    return json.loads((output / run.name / "scores.json").read_text(encoding="utf-8"))


def line(each: Sequence[dict[str, list[float]]]) -> str:
    """The cells of one way."""
    means = [100 * fmean(one["dice"]) for one in each]
    every = [100 * d for one in each for d in one["dice"]]
    seeds = f"; {', '.join(f'{m:.2f}' for m in means)}" if len(means) > 1 else ""
    positive, least = (fmean(fmean(one[name]) for one in each) for name in ("positive", "least"))
    seconds = 1000 * sorted(s for one in each for s in one["seconds"])[len(every) // 2]
    return f"{fmean(means):.2f} ({stdev(every):.2f}{seeds}) | {positive:.2f} | {least:.2f} | {seconds:.0f}"


def difference(one: Mapping[int, dict[str, list[float]]], other: Mapping[int, dict[str, list[float]]]) -> str:
    """Mean difference of Dice over the seeds that both have, 95 % intervals over pairs and seeds, p paired and unpaired."""
    shared = sorted(set(one) & set(other))
    mine, theirs = (
        [100 * fmean(values) for values in zip(*(runs[seed]["dice"] for seed in shared), strict=True)] for runs in (one, other)
    )
    apart = [a - b for a, b in zip(mine, theirs, strict=True)]
    low, high = bootstrap_interval(apart)
    by_seed = [100 * (fmean(one[seed]["dice"]) - fmean(other[seed]["dice"])) for seed in shared]
    seeds = ""
    if len(by_seed) > 1:
        half = stats.t.ppf(0.975, len(by_seed) - 1) * stdev(by_seed) / len(by_seed) ** 0.5
        seeds = f"; over seeds {fmean(by_seed) - half:+.2f} to {fmean(by_seed) + half:+.2f}"
    paired, unpaired = stats.ttest_rel(mine, theirs).pvalue, stats.ttest_ind(mine, theirs).pvalue
    return f"{fmean(apart):+.2f} ({low:+.2f} to {high:+.2f}{seeds}), p {paired:.1g}, unpaired {unpaired:.1g}"


def say(text: str) -> None:
    """A line for a person."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
