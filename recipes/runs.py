"""What recipes that train share: a table of images, and a training that goes on to its end."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from warpwright.config import to_mapping
from warpwright.errors import BadInput
from warpwright.training import train
from warpwright.training.config import read_training
from warpwright.training.resuming import changed
from warpwright.training.settings import Training

__all__ = ["done_before", "folder_of", "settings_of", "trained", "write_table"]


def write_table(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """A manifest, its header first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def settings_of(config: Path, output: Path, seed: int = 0) -> Training:
    """The settings of a recipe's `.toml`, which is copied to `output`, where its manifest lies.

    What begins with the weights of another configuration begins with those of the same seed.
    """
    shutil.copy(config, output / config.name)
    settings = read_training(output / config.name)
    weights = settings.weights
    if weights is not None:
        weights = weights.parent.with_name(folder_of(weights.parent.name, seed)) / weights.name
    return replace(settings, seed=seed, weights=weights)


def folder_of(name: str, seed: int = 0) -> str:
    """What the folder of a run is called."""
    return name if seed == 0 else f"{name}-seed{seed}"


def done_before(settings: Training, folder: Path) -> bool:
    """Whether a folder holds the scores of a training already.

    Raises:
        BadInput: they are those of settings with which this training could not go on.
    """
    if not (folder / "scores.json").exists():
        return False
    before = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    if (other := changed(before, to_mapping(settings))) is not None:
        key, then, now = other
        raise BadInput(f"{folder}: was trained with {key} = {then}, now it is {now}: expected to be moved away")
    return True


def trained(settings: Training, folder: Path, device: str) -> bool:
    """Train to the end, or go on with what was interrupted; whether it is done.

    Args:
        settings: of the training.
        folder: where it goes.
        device: as `warpwright train` takes it.
    """
    resume = (folder / "training.json").exists()
    return train(settings, folder, resume=resume, device=device, listen=lambda event: sys.stderr.write(event.line())).finished
