"""How the presets were chosen: variations of one setting at a time, on pairs that no other benchmark measures."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from planted import contracted_heart, remapped, rendered
from record import Journal, Line, machine_facts
from runner import begin, finish, measure, parser_of, teller
from scenes import BRAINS
from warpwright.errors import BadInput
from warpwright.evaluation import dice, mean_over_labels
from warpwright.geometry import Image
from warpwright.io import read_image, read_labels
from warpwright.methods import Settings, preset, register_pair
from warpwright.product.choices import SimilarityName
from warpwright.product.scores import common_labels, determinant
from warpwright.transforms import resample

PROGRAM = "benchmarks/tuning.py"
Vary = Callable[[Settings, float], Settings]


@dataclass(frozen=True, eq=False)
class Pair:
    """Fixed and moving with their labels."""

    fixed: Image
    moving: Image
    fixed_labels: Image
    moving_labels: Image


@dataclass(frozen=True)
class Setup:
    """What every row is given."""

    data: Path
    seed: int
    variations: tuple[str, ...]
    tell: Callable[[str], None]


def _steps(*steps: int) -> Vary:
    return lambda s, _: replace(s, steps=steps)


def _field(**lengths: float) -> Vary:
    """Lengths in finest voxels."""
    return lambda s, unit: replace(s, deformable=replace(s.deformable, **{k: v * unit for k, v in lengths.items()}))  # pyright: ignore


def _solver(**settings: float) -> Vary:
    return lambda s, _: replace(s, deformable=replace(s.deformable, solver=replace(s.deformable.solver, **settings)))  # pyright: ignore


VARIATIONS: dict[str, Vary] = {
    "as it is": lambda s, _: s,
    "no linear stage": lambda s, _: replace(s, linear=()),
    "steps 25, 25, 15, 8": _steps(25, 25, 15, 8),
    "steps 100, 100, 60, 40": _steps(100, 100, 60, 40),
    "field sigma 0.7": _field(field_sigma=0.7),
    "field sigma 0.85": _field(field_sigma=0.85),
    "field sigma 1.2": _field(field_sigma=1.2),
    "update sigma 1.3": _field(gradient_sigma=1.3),
    "update sigma 2.2": _field(gradient_sigma=2.2),
    "length 0.5": _solver(length=0.5),
    "length 2": _solver(length=2.0),
    "beta1 0.9": _solver(beta1=0.9),
    "damping 0.03": _solver(damping=0.03),
    "damping 0.3": _solver(damping=0.3),
}


def _hippocampus(setup: Setup) -> Iterator[Pair]:
    """Volumes 41 to 60 by name, neighbours as pairs."""
    folder = setup.data / "hippocampus_msd"
    names = sorted(path.name for path in (folder / "images").glob("*.nii.gz"))[40:60]
    if len(names) != 20:
        raise BadInput(f"{folder / 'images'}: holds {40 + len(names)} volumes at most, expected 60")
    for fixed, moving in zip(names[::2], names[1::2], strict=True):
        images = [read_image(folder / "images" / name) for name in (fixed, moving)]
        labels = [read_labels(folder / "labels" / name) for name in (fixed, moving)]
        yield Pair(images[0], images[1], labels[0], labels[1])


def _two_kinds(setup: Setup) -> Iterator[Pair]:
    """The same with the moving intensities remapped and noise added."""
    for number, pair in enumerate(_hippocampus(setup)):
        yield replace(pair, moving=remapped(pair.moving, (setup.seed, number)))


def _hearts(setup: Setup) -> Iterator[Pair]:
    """Short-axis stacks with a planted contraction."""
    folder = setup.data / "cardiac_autofd"
    for number, name in enumerate("ABCD"):
        image, labels = read_image(folder / f"{name}_ed.nii.gz"), read_labels(folder / f"{name}_ed_label.nii.gz")
        yield Pair(*contracted_heart(image, labels, (setup.seed, number)))


def _brains(setup: Setup) -> Iterator[Pair]:
    """Label maps of two people rendered with one contrast and noise."""
    folder = setup.data / BRAINS
    for number in (5, 7):
        labels = [read_labels(folder / f"seg_{k:02d}.nii.gz") for k in (number, number + 1)]
        images = [rendered(lab, (setup.seed, number), k) for k, lab in enumerate(labels)]
        yield Pair(images[0], images[1], labels[0], labels[1])


SETS: dict[str, tuple[Callable[[Setup], Iterator[Pair]], SimilarityName]] = {
    "hippocampus": (_hippocampus, "lncc"),
    "two-kinds": (_two_kinds, "mi"),
    "hearts": (_hearts, "lncc"),
    "brains": (_brains, "lncc"),
}


def _row(name: str) -> Callable[[Setup], Iterator[Line]]:
    def row(setup: Setup) -> Iterator[Line]:
        make, similarity = SETS[name]
        pairs = list(make(setup))
        for title in setup.variations:
            begun = time.perf_counter()
            figures = [_figures(pair, similarity, VARIATIONS[title]) for pair in pairs]
            overlap, folds = fmean(f["dice"] for f in figures), sum(f["folds"] for f in figures)
            yield Line(
                row=name,
                work=f"{name}, {similarity}: {title}",
                others="",
                target="",
                reached=f"mean Dice {overlap:.4f}, {folds} folded voxels",
                met=True,
                seconds=time.perf_counter() - begun,
                details={"pairs": figures},
            )

    return row


def _figures(pair: Pair, similarity: SimilarityName, vary: Vary) -> dict[str, Any]:
    spacing = pair.fixed.grid.spacing
    settings = vary(preset("balanced", spacing, similarity=similarity), min(spacing))
    found = register_pair(pair.fixed, pair.moving, settings)
    moved = resample(pair.moving_labels, found.forward, pair.fixed.grid, interpolation="nearest")
    labels = common_labels(pair.fixed_labels, pair.moving_labels)
    folds = int((determinant(found.forward, pair.fixed.grid).data <= 0).sum())
    return {"dice": mean_over_labels(dice(pair.fixed_labels.data[0], moved.data[0], labels)), "folds": folds}


ROWS = {name: _row(name) for name in SETS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; exit codes as in `runner.finish`."""
    parser = parser_of(PROGRAM, __doc__, ROWS)
    parser.add_argument("--variations", default=";".join(VARIATIONS), help="which variations, separated by ;")
    return finish(PROGRAM, _work, parser.parse_args(arguments))


def _work(options: argparse.Namespace) -> int:
    names = begin(options, ROWS)
    chosen = tuple(title.strip() for title in options.variations.split(";") if title.strip())
    unknown = [title for title in chosen if title not in VARIATIONS]
    if unknown or not chosen:
        raise BadInput(f"--variations: knows no {', '.join(unknown) or 'empty list'}, expected of {'; '.join(VARIATIONS)}")
    tell = teller(options.verbose)
    journal = Journal(
        machine_facts(preset="balanced", threads=options.threads, seed=options.seed), table=options.output, data=options.json
    )
    return measure(options, journal, ROWS, names, Setup(options.data, options.seed, chosen, tell), tell)


if __name__ == "__main__":
    sys.exit(main())
