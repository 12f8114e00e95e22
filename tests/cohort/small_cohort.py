"""Small pairs of 2-D images in files, a table of them, and what a test does with a cohort of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from warpwright.cohort.run import Plan, execute, in_order, make_plan
from warpwright.cohort.work import Options, Work
from warpwright.geometry import Grid, Image
from warpwright.io import write_image

PAIRS = 4
EXACT = ("transform.h5", "inverse.h5", "moved.nii.gz", "jacobian.nii.gz")  # the same bytes wherever they are made
SETTINGS = "steps = [6]\nlevels = [1]\nlinear = []\nstart = 'none'\n"  # a search that is over at once


def blobs(shift: float, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(np.arange(18.0), np.arange(22.0), indexing="ij")
    value = np.zeros((18, 22))
    for _ in range(6):
        middle, width = rng.uniform(4, 15, 2), rng.uniform(2, 4)
        value += np.exp(-((axes[0] - middle[0] - shift) ** 2 + (axes[1] - middle[1]) ** 2) / (2 * width**2))
    return torch.from_numpy(100 * value).float()


def make_images(folder: Path) -> Path:
    """Images, labels and a table of pairs in a folder; the last of them is broken."""
    grid = Grid.regular((18, 22), (0.8, 1.1))
    for k in range(PAIRS):
        for side, shift in (("fixed", 0.0), ("moving", 0.8)):
            image = blobs(shift, k)
            write_image(folder / f"{side}{k}.nii.gz", Image(image[None], grid))
            write_image(folder / f"{side}{k}_labels.nii.gz", Image((image > 60).to(torch.int16)[None], grid))
    whole = (folder / "moving3.nii.gz").read_bytes()
    (folder / "moving3.nii.gz").write_bytes(whole[:-30])  # its header is whole
    (folder / "settings.toml").write_text(SETTINGS)
    write_table(folder / "pairs.csv", range(PAIRS))
    return folder


def write_table(path: Path, numbers: Iterable[int]) -> None:
    rows = [f"p{k},fixed{k}.nii.gz,moving{k}.nii.gz,fixed{k}_labels.nii.gz,moving{k}_labels.nii.gz" for k in numbers]
    path.write_text("\n".join(["id,fixed,moving,fixed_labels,moving_labels", *rows]) + "\n")


def contents(folder: Path) -> dict[str, bytes]:
    """The results that must be the same bytes wherever and however often they were made."""
    names = ["results.csv", *(f"p{k}/{name}" for k in range(PAIRS) for name in EXACT)]
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def silent(count: int, total: int, failed: int) -> None:
    pass


def options(images: Path, **changes: object) -> Options:
    return Options(**{"preset": "fast", "config": images / "settings.toml", "figures": False} | changes)  # type: ignore[arg-type]


def run(work: Work, folder: Path, **asked: object) -> Plan:
    """Do what is to be done in this process; the plan that it was."""
    plan = make_plan(work, folder, **asked)  # type: ignore[arg-type]
    execute(plan, in_order, silent)
    return plan
