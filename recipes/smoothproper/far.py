"""Large displacements of real images without a network: `python recipes/smoothproper/far.py SET --data FOLDER --output FOLDER`.

SET is `photograph` or `vessels` (CHASE_DB1, 20 pairs of 999 x 960 pixels, mean landmark displacement 31 pixels) or `lung` (one
CT pair under three further motions of up to 30 mm). Every way is `warpwright register` with the masks of the pair: by default
(`affine`), from the best of several rigid starts (`rigid`), and from matched patches (`matching`). `matching alone` is this
start with a single step of the search behind it. `--models` adds the networks that
`fundus.py` trained, each alone and with 100 steps of the search at full resolution behind it. Prints the table, writes
`results.json` and a picture of the first pair. What is in `results.json` is not done again, but for the picture.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from fundus_pairs import write_fundus_pairs
from lung_moved import SEEDS, write_lung_pair
from scoring import folds
from warpwright.errors import BadInput, WarpwrightError
from warpwright.geometry import Image
from warpwright.io import read_mask, read_points, read_scalar
from warpwright.methods import Model, Settings, preset, register_direct, register_pair
from warpwright.product.model_folder import read_model
from warpwright.transforms import Affine, Transform, resample

mpl.use("Agg")


STEPS = 100  # of the search behind a network


@dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """A pair with landmarks.

    Args:
        name: for a person.
        images: fixed and moving.
        masks: of either.
        points: (L, D) world points of the same places in either.
    """

    name: str
    images: tuple[Image, Image]
    masks: tuple[Image, Image]
    points: tuple[Tensor, Tensor]


Way = Callable[[Case], Transform]


def main() -> int:
    """Register every pair in every way; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=("photograph", "vessels", "lung"))
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the public sets")
    parser.add_argument("--output", type=Path, required=True, help="where images and results go")
    parser.add_argument("--models", type=Path, help="folder of trained networks, which are scored too")
    parser.add_argument("--pairs", type=int, help="only so many, spread over all")
    parser.add_argument("--side", type=int, default=999, help="pixels along the width of photographs and maps")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        compare(options)
    except WarpwrightError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def compare(options: argparse.Namespace) -> None:
    """All ways on all pairs."""
    output = options.output / options.set
    files = written(options.set, options.data, output / "images", options.side)
    files = files if options.pairs is None else files[:: max(1, len(files) // options.pairs)][: options.pairs]
    cases = [read_case(*each) for each in files]
    maps: dict[str, Transform] = {}
    path = output / "results.json"
    found: dict[str, dict[str, dict[str, float]]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = {"as it lies": lie, **ways(min(cases[0].images[0].grid.spacing))}
    if options.models is not None:
        rows |= networks(options.models, options.set)
    say("| way | mean landmark error (median, worst pair) | folds, % (pairs) | s a pair |\n|---|---|---|---|")
    for name, way in rows.items():
        done = found.setdefault(name, {})
        for case in cases:
            if case.name in done and case is not cases[0]:
                continue
            begin = time.perf_counter()
            forward = way(case)
            seconds = time.perf_counter() - begin
            error = float((forward(case.points[0]) - case.points[1]).norm(dim=1).mean())
            done[case.name] = {"error": error, "folds": folds(forward, case.images[0].grid), "seconds": seconds}
            maps.setdefault(name, forward)
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        say(line(name, [done[case.name] for case in cases]))
    draw(cases[0], maps, output / f"{options.set}.png")


def written(name: str, data: Path, folder: Path, side: int) -> list[tuple[str, ...]]:
    """Name, images, masks and points of every pair, made where they are missing."""
    if name == "lung":
        return [(f"motion {seed}", *map(str, write_lung_pair(data / "lung_ct_elastix", folder, seed))) for seed in SEEDS]
    rows = write_fundus_pairs(data / "retina_chase", folder, "vessels" if name == "vessels" else "photograph", {"test": side})
    return [row[:-1] for row in rows]


def read_case(name: str, *paths: str) -> Case:
    """A pair from its files: images, masks, points, fixed first."""
    images = tuple(read_scalar(path) for path in paths[:2])
    masks = tuple(read_mask(path) for path in paths[2:4])
    points = tuple(read_points(path, "ras", image.grid).world for path, image in zip(paths[4:], images, strict=True))
    return Case(name=name, images=images, masks=masks, points=points)  # pyright: ignore[reportArgumentType]


def lie(case: Case) -> Transform:
    """No map."""
    return Affine.identity(case.images[0].grid.dim)


def ways(spacing: float) -> dict[str, Way]:
    """The classical ways, by name."""
    by_start = {
        f"greedy, --initialise {start}": preset("balanced", (spacing,), initialise=start)
        for start in ("affine", "rigid", "matching")
    }
    matching = by_start["greedy, --initialise matching"]
    settings = {**by_start, "matching alone (one step behind it)": replace(matching, levels=(1,), steps=(1,))}
    return {name: partial(searched, settings=some) for name, some in settings.items()}


def networks(folder: Path, kind: str) -> dict[str, Way]:
    """What was trained, by name."""
    found: dict[str, Way] = {}
    for place in sorted(folder.glob("*/model")):
        model = read_model(place).model
        name = place.parent.name
        found[name] = partial(estimated, model=model, settings=None)
        finest = preset("balanced", (1.0,), initialise="none")
        found[f"{name}, --refine-field {STEPS}"] = partial(
            estimated, model=model, settings=replace(finest, start="centre", linear=(), levels=(1,), steps=(STEPS,))
        )
    if not found:
        raise BadInput(f"{folder}: holds no model of {kind}, what `fundus.py {kind}` writes was expected")
    return found


def searched(case: Case, settings: Settings, initial: Transform | None = None) -> Transform:
    """The map of a pair, fixed to moving world points."""
    masks = {"fixed_mask": case.masks[0], "moving_mask": case.masks[1]}
    return register_pair(*case.images, settings, initial=initial, **masks).forward


def estimated(case: Case, model: Model, settings: Settings | None) -> Transform:
    """The map that a network gives, and the search from it on if there are settings for one."""
    found = register_direct(model, *case.images, fixed_mask=case.masks[0], moving_mask=case.masks[1]).forward
    return found if settings is None else searched(case, settings, found)


def line(name: str, found: list[dict[str, float]]) -> str:
    """A row of the table, in Markdown."""
    errors, folding = [f["error"] for f in found], [f["folds"] for f in found]
    spread = f"({median(errors):.2f}, {max(errors):.2f})"
    folded = f"{fmean(folding):.3f} ({sum(f > 0 for f in folding)} of {len(folding)})"
    return f"| {name} | {fmean(errors):.2f} {spread} | {folded} | {median(f['seconds'] for f in found):.1f} |"


def draw(case: Case, maps: dict[str, Transform], path: Path) -> None:
    """The middle of a pair under every map: fixed green, moved red and blue, so that grey is agreement."""
    figure, axes = plt.subplots(1, len(maps), figsize=(4 * len(maps), 4.3), squeeze=False)
    fixed = shade(cut(case.images[0]))
    for axis, (name, forward) in zip(axes[0], maps.items(), strict=True):
        outside = float(case.images[1].data.min())
        moved = shade(cut(resample(case.images[1], forward, case.images[0].grid, background=outside)))
        origin = "upper" if case.images[0].grid.dim == 2 else "lower"
        axis.imshow(torch.stack((moved, fixed, moved), -1).transpose(0, 1), origin=origin)
        axis.set(title=name, xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)


def cut(image: Image) -> Tensor:
    """A picture as it is, of a volume the middle cut across its second axis."""
    return image.data[0] if image.grid.dim == 2 else image.data[0, :, image.grid.shape[1] // 2]


def shade(picture: Tensor) -> Tensor:
    """Between its percentiles 1 and 99, as 0 to 1."""
    some = picture.flatten()[:: max(1, picture.numel() // 100_000)].float()
    low, high = torch.quantile(some, torch.tensor([0.01, 0.99])).tolist()
    return ((picture - low) / max(high - low, 1e-6)).clamp(0, 1)


def say(text: str) -> None:
    """A line for a person."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
