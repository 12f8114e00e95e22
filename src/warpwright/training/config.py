"""Training settings from a TOML file; paths in it are relative to the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from warpwright.config import from_mapping, read_mapping
from warpwright.data import Data
from warpwright.training.presets import with_preset
from warpwright.training.settings import Training

__all__ = ["read_training"]


def read_training(path: Path) -> Training:
    """The settings of a training run.

    Raises:
        BadInput: the file cannot be read, names an unknown preset, holds an unknown key (the nearest known one is named), or a
            value out of range.
    """
    training = from_mapping(Training, with_preset(read_mapping(path), str(path)), where=str(path))
    weights = None if training.weights is None else (path.parent / training.weights).absolute()
    return replace(training, data=_anchored(training.data, path.parent), weights=weights)


def _anchored(data: Data, folder: Path) -> Data:
    def placed(given: Path | None) -> Path | None:
        return None if given is None else (folder / given).absolute()

    return replace(data, manifest=placed(data.manifest), images=placed(data.images), labels=placed(data.labels))
