"""A template of hippocampi: how well the labels of different people agree when they are carried to it. See README.md here.

python benchmarks/template.py --data DATA [--images 20] [--rounds 4]

Agreement is the Dice, mean over labels and people, of a person's carried labels with the majority of all others'. Beside that
of every round stands that on single people, to whom the others are registered directly.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

import torch

from warpwright.cohort.run import execute, in_order, make_plan
from warpwright.cohort.work import Options, read_work
from warpwright.evaluation import dice
from warpwright.geometry import Grid
from warpwright.io import read_image, read_labels, read_transform
from warpwright.template.build import build
from warpwright.template.work import Template
from warpwright.transforms import resample

LABELS = (1, 2)
TARGETS = 3  # people who stand for a template


def main() -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets (see benchmarks/README.md)")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    images = sorted((options.data / "hippocampus_msd" / "images").glob("*.nii.gz"))[: options.images]
    how = Options(figures=False)
    with tempfile.TemporaryDirectory(prefix="warpwright-benchmark-") as place:
        out, begin = Path(place) / "template", time.perf_counter()
        build(Template(images=tuple(images), rounds=options.rounds, options=how), out, lambda _: in_order, silent, keep=True)
        sys.stdout.write(f"{len(images)} images, {options.rounds} rounds, one worker: {time.perf_counter() - begin:.0f} s\n")
        for number in range(1, options.rounds + 1):
            grid = read_image(out / "rounds" / f"{number - 1}.nii.gz").grid
            found = agreement(images, out / "rounds" / str(number) / "pairs", grid)
            sys.stdout.write(f"round {number}, on the template before it: agreement {found:.4f}\n")
        for target in images[:TARGETS]:
            folder = Path(place) / target.name
            others = [path for path in images if path != target]
            register_all(target, others, folder, how)
            found = agreement(others, folder / "pairs", read_image(target).grid)
            sys.stdout.write(f"on {target.name}: agreement {found:.4f}\n")
    return 0


def silent(*counts: int) -> None:
    """Tell nobody."""


def register_all(target: Path, others: list[Path], folder: Path, how: Options) -> None:
    """A cohort of everybody to one image."""
    folder.mkdir()
    rows = ["id,fixed,moving", *(f"{name(path)},{target},{path}" for path in others)]
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    execute(make_plan(read_work(folder / "pairs.csv", how), folder / "pairs"), in_order, silent)


def agreement(images: list[Path], pairs: Path, grid: Grid) -> float:
    """Mean Dice of carried labels with what most of the others say."""
    carried = []
    for path in images:
        labels = read_labels(path.parent.parent / "labels" / path.name)
        carried.append(resample(labels, read_transform(pairs / name(path) / "transform.h5"), grid, interpolation="label").data)
    votes = torch.stack([sum((one == label).int() for one in carried) for label in (0, *LABELS)])
    found = []
    for one in carried:
        own = torch.stack([(one == label).int() for label in (0, *LABELS)])
        found += dice((votes - own).argmax(0), one.long(), labels=LABELS).values()
    return fmean(float(value) for value in found)


def name(path: Path) -> str:
    """An image's."""
    return path.name.removesuffix(".nii.gz")


if __name__ == "__main__":
    sys.exit(main())
