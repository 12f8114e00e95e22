"""Small cohorts of images on disk, of blobs that lie elsewhere in each, and settings of trainings that take a moment."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from warpwright.config import to_mapping
from warpwright.data import Augmentation, Cases, Data, read_cohort
from warpwright.energies.losses import Images, Overlap, Smoothness, VelocityPrior
from warpwright.energies.similarity import MSE
from warpwright.geometry import Grid, Image
from warpwright.io import Points, write_image, write_points
from warpwright.layers import DrawVelocity, FullSize, Integrate
from warpwright.methods import ModelSettings
from warpwright.networks import VoxelMorph, VoxelMorphDiff
from warpwright.schemes import Adam, Constant, Cosine, Plain
from warpwright.training import Event, Training, Validation
from warpwright.training.stream import Stream
from warpwright.transforms import Preparation

SHAPE, SPACING = (12, 14, 10), (1.0, 1.3, 0.8)
SPLITS = ("train", "train", "train", "train", "validation", "validation")

TOML = """
steps = 4
log_every = 2
checkpoint_every = 2
[data]
manifest = "table.csv"
[model]
dim = {dim}
[model.network]
kind = "voxelmorph"
form = "vm1"
half_resolution = true
scale = 0.25
[scheme.optimiser]
kind = "adam"
rate = 1e-2
[[model.loss]]
kind = "images"
similarity = {{ kind = "lncc", radius = 2 }}
[[model.loss]]
kind = "smoothness"
on = "velocity"
weight = 0.1
[card]
title = "A small one"
"""


def picture(grid: Grid, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three blobs around places that depend on the seed: image (1, *S), labels of two of them, the places in voxels."""
    rng = np.random.default_rng(seed)
    places = np.stack([np.array(grid.shape) * part + rng.uniform(-1, 1, grid.dim) for part in (0.3, 0.5, 0.7)])
    at = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"))
    value, labels = rng.normal(0, 0.01, grid.shape), np.zeros(grid.shape, np.int16)
    for number, place in enumerate(places):
        distance = ((at - place.reshape(-1, *(1,) * grid.dim)) ** 2).sum(0)
        value += (number + 1) * np.exp(-distance / 8)
        labels[distance < 5] = number % 2 + 1
    return torch.from_numpy(value).float()[None], torch.from_numpy(labels)[None], torch.from_numpy(places)


def write_cohort(folder: Path, dim: int, *, labels: bool = True, points: bool = False) -> Path:
    """Six images, four of them to learn from, and their table."""
    grid = Grid.regular(SHAPE[:dim], SPACING[:dim])
    rows = []
    for seed, split in enumerate(SPLITS):
        image, marked, places = picture(grid, seed)
        row = {"id": f"case{seed}", "image": f"image_{seed}.nii.gz", "split": split}
        write_image(folder / row["image"], Image(image, grid))
        if labels:
            row["labels"] = f"labels_{seed}.nii.gz"
            write_image(folder / row["labels"], Image(marked, grid))
        if points:
            row["points"] = f"points_{seed}.csv"
            write_points(folder / row["points"], Points(grid.to_world(places), ("a", "b", "c")), "ras")
        rows.append(row)
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "table.csv"


def write_small(folder: Path, dim: int) -> str:
    """A cohort and, beside it, a file for `warpwright train`; its path."""
    write_cohort(folder, dim)
    (folder / "small.toml").write_text(TOML.format(dim=dim))
    return str(folder / "small.toml")


def tiny(table: Path, dim: int, **changes: Any) -> Training:
    """A training of four steps on a table of `write_cohort`."""
    model = ModelSettings(
        dim=dim,
        network=VoxelMorph(form="vm1", half_resolution=True, scale=0.25),
        layers=(Integrate(steps=3), FullSize()),
        preparation=Preparation(shape=SHAPE[:dim]),
        loss=(Images(similarity=MSE()), Smoothness(on="velocity", weight=0.1)),
    )
    training = Training(
        data=Data(manifest=table, space="ras"),
        model=model,
        scheme=Plain(optimiser=Adam(rate=3e-3), schedule=Constant()),
        validation=Validation(every=4),
        steps=4,
        log_every=2,
        checkpoint_every=2,
    )
    return replace(training, **changes)


def rich(table: Path, dim: int, **changes: Any) -> Training:
    """Everything that has a state or draws at random: Adam, an average, augmentation, accumulation, drawn velocities."""
    plain = tiny(table, dim)
    model = replace(
        plain.model,
        network=VoxelMorphDiff(scale=0.25),
        layers=(DrawVelocity(), Integrate(steps=3), FullSize()),
        loss=(Images(similarity=MSE()), VelocityPrior(prior=2.0, weight=0.01), Overlap(labels=(1, 2), weight=0.2)),
    )
    given = {
        "model": model,
        "scheme": Plain(optimiser=Adam(rate=3e-3, amsgrad=True), schedule=Cosine(warmup=0.2), clip=1.0, average=0.9),
        "augmentation": Augmentation(
            flips=(0.5,) * dim, rotation=5.0, scaling=0.05, elastic=0.5, elastic_scale=5.0, noise=0.05, bias=0.1, gamma=0.1
        ),
        "accumulate": 2,
        "validation": Validation(every=5),
        "steps": 7,
        "log_every": 3,
        "checkpoint_every": 2,
        "seed": 5,
    }
    return replace(plain, **(given | changes))


def write_settings(path: Path, training: Training) -> str:
    """A file for `warpwright train`."""
    path.write_text(json.dumps(to_mapping(training)))
    return str(path)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but hidden ones, which a killed process may leave: its path and its bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    found = {str(path.relative_to(folder)): path for path in files}
    return {name: path.read_bytes() for name, path in found.items() if not any(p.startswith(".") for p in Path(name).parts)}


def lines(output: Path) -> list[dict[str, Any]]:
    """The figures of `metrics.jsonl`."""
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def at(kind: str, step: int, action: Callable[[], Any]) -> Callable[[Event], None]:
    """A listener that does something when an event of a kind and step comes."""

    def listen(event: Event) -> None:
        if (event.kind, event.step) == (kind, step):
            action()

    return listen


def stopping() -> None:
    """What a batch system does before it ends a process."""
    os.kill(os.getpid(), signal.SIGTERM)


def stream_of(training: Training) -> Stream:
    """The pairs that a training sees."""
    return Stream(
        cohort=read_cohort(training.data),
        cases=Cases(training.data),
        preparation=training.model.preparation,
        augmentation=training.augmentation,
        seed=training.seed,
        batch=training.batch,
        accumulate=training.accumulate,
    )
