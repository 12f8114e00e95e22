"""AdaCS in small: `python recipes/adacs/compare.py PART ... --data FOLDER --output FOLDER`.

PARTS are `schemes` (VoxelMorph under six schemes and two controls), `networks` (the two key ones with TransMorph and
DiffuseMorph), `ablation` and `choices` (what decides, on validation images alone); without any, all. What is trained is not
trained again, what was interrupted goes on. Then every trial is scored, the tables are printed, and pictures are drawn
(`hearts.png`, `hippocampus.png`, `momentum.png`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent.parent))
from pictures import draw_momentum, draw_pairs
from trials import CHOICES, COLLAPSING, KEY, NETWORKS, ORACLE, PARTS, Trial, alike, changes

from nuisances import Given, hearts, hippocampi, planted, trusted, usual_places
from runs import done_before, trained, write_table
from scoring import folds
from warpwright.config import from_mapping, merged, read_mapping
from warpwright.errors import BadInput, Failed, WarpwrightError, did_you_mean
from warpwright.evaluation import HALF, PUBLISHED, bootstrap_interval, contour_figures, paired_t_test
from warpwright.geometry import Image
from warpwright.io import read_labels, read_scalar
from warpwright.methods import Annotated, register_direct
from warpwright.product.model_folder import ModelFolder, read_model
from warpwright.product.trust import score_map
from warpwright.training.settings import Training
from warpwright.transforms import resample

HERE = Path(__file__).parent
READ = {"hearts": hearts, "hippocampus": hippocampi}
THRESHOLDS = {"published": PUBLISHED, "half": HALF}
MASKS = {"image": "mask", "fixed": "fixed_mask", "moving": "moving_mask"}  # columns of tables
SCORES = "scores.json"
Scores = dict[str, Any]


def main() -> int:
    """Train and score; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*PARTS, []], help="which tables; none for all")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the public sets")
    parser.add_argument("--output", type=Path, required=True, help="where images, models and results go")
    parser.add_argument("--only", nargs="*", default=[], help="train only trials whose folder's name holds one of these")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        return run(options)
    except WarpwrightError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def run(options: argparse.Namespace) -> int:
    """Train, score, print, draw.

    Raises:
        BadInput: a word of `--only` is in no trial's name.
    """
    parts = {part: list(PARTS[part]()) for part in options.parts or PARTS}
    names = [trial.name for trials in parts.values() for trial in trials]
    for word in options.only:
        if not any(word in name for name in names):
            raise BadInput(f"--only: no trial of {', '.join(parts)} has {word!r} in its name{did_you_mean(word, names)}")
    for part, trials in parts.items():
        for trial in trials:
            wanted = not options.only or any(word in trial.name for word in options.only)
            if wanted and not finished(trial, options.data, options.output, options.device):
                return 1
        done = [trial for trial in trials if "made" in read(trial, options.output)]
        rows = choices_table(done, options.output) if part == CHOICES else table(done, options.output)
        sys.stdout.write(f"## {part}\n\n{rows}\n\n")
        sys.stdout.flush()
    draw(options.data, options.output)
    sys.stdout.write(f"## seconds\n\n{times(options.data, options.output)}\n")
    return 0


def draw(data: Path, output: Path) -> None:
    """Of every kind of data that was trained on, seed 0: test pairs under the key schemes, how the score's smoothness went."""
    for name, read_data in READ.items():
        folders = [output / Trial(data=name, scheme=scheme).name / "model" for scheme in KEY]
        if all((folder.parent / SCORES).exists() for folder in folders):
            vanilla, adacs = (read_model(folder) for folder in folders)
            given = read_data(data, output / "images" / name, "corrupted", 0)
            draw_pairs(given, vanilla, adacs, output / f"{name}.png")
    runs = {name: output / Trial(data=name, scheme="adacs").name / "metrics.jsonl" for name in READ}
    if found := {name: path for name, path in runs.items() if path.exists()}:
        draw_momentum(found, output / "momentum.png")


def times(data: Path, output: Path) -> str:
    """What a pair costs with either key scheme, in Markdown: models of seed 0 in turn on every test pair, medians."""
    rows = ["| data | network | vanilla, ms | adacs, ms |", "|---|---|---|---|"]
    for name, network in ((name, network) for name in READ for network in NETWORKS):
        folders = [output / Trial(data=name, network=network, scheme=scheme).name for scheme in KEY]
        if not all((folder / SCORES).exists() for folder in folders):
            continue
        models = [read_model(folder / "model").model for folder in folders]
        taken: list[list[float]] = [[], []]
        for _, fixed_file, moving_file, _, _ in READ[name](data, output / "images" / name, "corrupted", 0).test:
            fixed, moving = read_scalar(fixed_file), read_scalar(moving_file)
            for model, seconds in zip(models, taken, strict=True):
                begin = time.perf_counter()
                register_direct(model, fixed, moving)
                seconds.append(time.perf_counter() - begin)
        rows.append(f"| {name} | {network} | {' | '.join(f'{1000 * float(np.median(each)):.0f}' for each in taken)} |")
    return "\n".join(rows)


def finished(trial: Trial, data: Path, output: Path, device: str) -> bool:
    """Train and score a trial, unless that is done; whether it is.

    Raises:
        BadInput: it was done with other images.
        Failed: the training came to nothing, and that is no result of the trial.
    """
    folder = output / trial.name
    given = READ[trial.data](data, output / "images" / trial.data, trial.condition, trial.seed)
    manifest = output / "tables" / f"{trial.name}.csv"
    write_table(manifest, told(given.rows) if trial.scheme == ORACLE else given.rows)
    settings = settings_of(trial, manifest)
    made = read(trial, output).get("made")  # which an earlier version of this program did not tell: it is scored again
    if made is not None and done_before(settings, folder):
        if made != given.made:
            raise BadInput(
                f"{folder}: was trained with the images {made}, now they are {given.made}: expected to be moved away"
            )
        return True
    try:
        if not trained(settings, folder, device):
            return False
    except Failed as error:
        if trial.scheme not in COLLAPSING or "the score has collapsed" not in str(error):
            raise
        scores = {"failed": str(error).split(" (pairs")[0]}
    else:
        scores = scored(trial, folder, given)
    scores["made"] = given.made
    (folder / SCORES).write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return True


def scored(trial: Trial, folder: Path, given: Given) -> Scores:
    """What was found of a trial that is trained: on the test pairs, and as the training ended on the validation pairs."""
    model, corrupted = read_model(folder / "model"), trial.condition != "clean"
    found = score(model, given, corrupted=corrupted) if trial.usual else {}
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found["validation"] = next(row["dice"] for row in reversed(log) if "dice" in row)
    seen = given.watched if model.score is not None and corrupted else []
    found["validation_auc"] = [auc(score_of(model, read_scalar(file)), read_labels(planted(file)).data[0] > 0) for file in seen]
    return found


def told(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """A table of images or of pairs with a mask for each image, which leaves out what was planted in it."""
    header, *body = rows
    masks = {header.index(name): mask for name, mask in MASKS.items() if name in header}
    cells = ((str(trusted(Path(row[k]))) for k in masks) for row in body)
    return [(*header, *masks.values()), *((*row, *more) for row, more in zip(body, cells, strict=True))]


def settings_of(trial: Trial, manifest: Path) -> Training:
    """The `.toml` of the data with what the trial changes."""
    table = read_mapping(HERE / f"{trial.data}.toml")
    table = merged(table, changes(trial, table))
    table["card"]["title"] = trial.name
    training = from_mapping(Training, table, where=trial.name)
    return replace(training, data=replace(training.data, manifest=manifest.absolute()))


def score(folder: ModelFolder, given: Given, *, corrupted: bool) -> Scores:
    """How a model does on every test pair; labels are warped as shares, by linear interpolation.

    Returns:
        Lists over pairs: `dsc`, `hd`, `asd` (means over labels, voxels) at either threshold under its name, `lies` (the first
        at a half, of the pair as it lies), `folds` (%), and of a model with a score and corrupted images `auc`, how well the
        score finds what was planted in the fixed image, and `auc_places`, how well `usual_places` does without looking at it
        (NaN if nothing lies there).
    """
    found: Scores = {name: {"dsc": [], "hd": [], "asd": []} for name in THRESHOLDS}
    found |= {"lies": [], "folds": [], "auc": [], "auc_places": []}
    places = usual_places(given) if folder.score is not None and corrupted else None
    for _, fixed_file, moving_file, fixed_labels, moving_labels in given.test:
        fixed, moving = read_scalar(fixed_file), read_scalar(moving_file)
        result = register_direct(folder.model, fixed, moving)
        found["folds"].append(folds(result.forward, fixed.grid))
        true, drawn = read_labels(fixed_labels).data[0], read_labels(moving_labels)
        apart = (contour_figures(true == label, (drawn.data[0] == label).float(), HALF)["dsc"] for label in given.labels)
        found["lies"].append(float(np.nanmean(list(apart))))
        for name, threshold in THRESHOLDS.items():
            each = []
            for label in given.labels:
                share = Image((drawn.data == label).float(), drawn.grid)
                moved = resample(share, result.forward, fixed.grid).data[0]
                each.append(contour_figures(true == label, moved, threshold))
            for figure, values in found[name].items():
                values.append(float(np.nanmean([one[figure] for one in each])))
        if places is not None:
            where = read_labels(planted(fixed_file)).data[0] > 0
            found["auc"].append(auc(score_of(folder, fixed), where))
            found["auc_places"].append(auc(-enlarged(places, fixed.grid.shape), where))
    return found


def enlarged(places: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """`usual_places` of an image of a shape S, (*S)."""
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return torch.nn.functional.interpolate(places, shape, mode=mode)[0, 0]


def score_of(folder: ModelFolder, fixed: Image) -> torch.Tensor:
    """(*S) score of an image, on its grid; the folder has one."""
    assert folder.score is not None
    return score_map(folder.score.network, folder.model.settings, Annotated(image=fixed), "cpu").data[0]


def auc(score: torch.Tensor, where: torch.Tensor) -> float:
    """Chance that a voxel of what was planted has a lower score than one elsewhere: the area under the ROC curve."""
    inside, outside = score[where].numpy(), score[~where].numpy()
    if not (len(inside) and len(outside)):
        return float("nan")
    return float(stats.mannwhitneyu(outside, inside).statistic) / (len(inside) * len(outside))


def table(trials: Sequence[Trial], output: Path) -> str:
    """A row for every data set, network, condition and scheme, seeds together, in Markdown.

    Two columns are differences of DSC in points, over the seeds that both have: of the scheme over `vanilla`, and of `adacs`
    over the scheme. They give the mean, every seed (of hearts, every patient) and, of hippocampi, the bootstrap interval over
    pairs and p of the paired t-test (means over seeds), not corrected for the number of rows. A pair whose moved mask is empty
    has DSC 0 and is left out of distances. Where the training of a seed ended in a sentence, that and the DSC of the other
    seeds are in place of figures. AUC is that of the score, and in brackets that of places alone.
    """
    rows = [
        "| data | network | scheme | images | DSC, % (seeds) | over vanilla | adacs over it | HD | ASD "
        "| published DSC, HD, ASD | folds, % | AUC |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups = dict.fromkeys((t.data, t.network, t.condition) for t in trials)
    for data, network, condition in groups:
        mine = alike(trials, data=data, network=network, condition=condition)
        by_scheme = {s: {t.seed: read(t, output) for t in alike(mine, scheme=s)} for s in dict.fromkeys(t.scheme for t in mine)}
        base, ours = (by_scheme.get(scheme, {}) for scheme in KEY)
        if base:
            lies = [100 * fmean(one["lies"]) for one in base.values()]
            rows.append(f"| {data} | none | as it lies | {condition} | {by_seed(lies)}{' |' * 8}")
        for scheme, found in by_scheme.items():
            names = f"| {data} | {network} | {scheme} | {condition} |"
            if any("failed" in one for one in found.values()):
                ends = (f"seed {seed}: {one.get('failed') or f'{dsc(one):.2f}'}" for seed, one in found.items())
                rows.append(f"{names} {'; '.join(ends)}{' |' * 8}")
                continue
            apart = [
                difference(one, other, paired=data == "hippocampus") if one is not other else ""
                for one, other in ((base, found), (found, ours))
            ]
            rows.append(f"{names} {line(found, *apart)} |")
    return "\n".join(rows)


def line(found: Mapping[int, Scores], over_vanilla: str, adacs_over: str) -> str:
    """The cells of one row but for its names."""
    means = [dsc(one) for one in found.values()]
    overlap, hausdorff, surface = (over(found, "published", name) for name in ("dsc", "hd", "asd"))
    seen, places = ([value for one in found.values() for value in one[name]] for name in ("auc", "auc_places"))
    cells = [
        by_seed(means),
        over_vanilla,
        adacs_over,
        f"{over(found, 'half', 'hd'):.2f}",
        f"{over(found, 'half', 'asd'):.2f}",
        f"{100 * overlap:.2f}, {hausdorff:.2f}, {surface:.2f}",
        f"{over(found, 'folds'):.2f}",
        f"{np.nanmean(seen):.3f} ({np.nanmean(places):.3f})" if seen else "",
    ]
    return " | ".join(cells)


def dsc(found: Scores) -> float:
    """Mean DSC of a run's pairs at a half, per cent."""
    return 100 * fmean(found["half"]["dsc"])


def by_seed(means: Sequence[float]) -> str:
    """The mean of some figures and, of several, each."""
    seeds = f" ({', '.join(f'{m:.2f}' for m in means)})" if len(means) > 1 else ""
    return f"{fmean(means):.2f}{seeds}"


def choices_table(trials: Sequence[Trial], output: Path) -> str:
    """What the validation images say of every trial, in Markdown; the test pairs are not looked at."""
    rows = [
        "| data | network | scheme | images | smoothness | score | DSC of the validation pairs, % | AUC there |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for trial in trials:
        found = read(trial, output)
        seen = found["validation_auc"]
        auc_there = f"{np.nanmean(seen):.3f}" if seen else ""
        changed = ", ".join(f"{name} {value:g}" for name, value in trial.score)
        names = (trial.data, trial.network, trial.scheme, trial.condition, f"x {trial.factor:g}", changed)
        cells = (*names, f"{100 * found['validation']:.2f}", auc_there)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def over(found: Mapping[int, Scores], *keys: str) -> float:
    """Mean over seeds and pairs of a figure under its keys."""
    return fmean(float(np.nanmean(reduce(getitem, keys, one))) for one in found.values())


def difference(base: Mapping[int, Scores], other: Mapping[int, Scores], *, paired: bool) -> str:
    """Mean difference of DSC, in points, over the seeds that both have, with what is known of its error."""
    shared = sorted(set(base) & set(other))
    if not shared:
        return ""
    each = [dsc(other[seed]) - dsc(base[seed]) for seed in shared]
    text = f"{fmean(each):+.2f}"
    if len(shared) > 1:
        text += f" ({', '.join(f'{d:+.2f}' for d in each)})"
    if not paired:
        return text
    mine, theirs = (np.mean([run[seed]["half"]["dsc"] for seed in shared], axis=0) for run in (other, base))
    low, high = bootstrap_interval(100 * (mine - theirs))
    return f"{text}, {low:+.2f} to {high:+.2f}, p {paired_t_test(mine, theirs)['p_value']:.2g}"


def read(trial: Trial, output: Path) -> Scores:
    """What `scored` found; empty if it has not looked yet."""
    path = output / trial.name / SCORES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
