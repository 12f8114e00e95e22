"""Pictures of the trials: contours, what the score says and does, curves of its smoothness (Fig. 3, 4 and 5 of the paper)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from nuisances import Given, planted
from warpwright.geometry import Image
from warpwright.io import read_labels, read_scalar
from warpwright.methods import Annotated, register_direct
from warpwright.product.model_folder import ModelFolder
from warpwright.product.trust import score_map
from warpwright.transforms import resample

__all__ = ["draw_momentum", "draw_pairs"]

mpl.use("Agg")
COLUMNS = ("fixed", "planted", "score", "moving", "as it lies", "vanilla", "adacs", "adacs, scored")


def draw_pairs(given: Given, vanilla: ModelFolder, adacs: ModelFolder, path: Path, count: int = 3) -> None:
    """A row for each of some test pairs: images, what was planted, the score, and absolute residuals with contours.

    The last residual is weighed by the score. Fixed contours are green, moved ones red; volumes are shown in the middle slice
    of the third axis.

    Args:
        given: the test pairs.
        vanilla: a model of plain training.
        adacs: one with a score.
        path: where the picture goes.
        count: pairs, spread over the test.
    """
    chosen = [given.test[int(k)] for k in np.linspace(0, len(given.test) - 1, count)]
    figure, axes = plt.subplots(
        count, len(COLUMNS), figsize=(2.2 * len(COLUMNS), 2.3 * count), squeeze=False, layout="constrained"
    )
    for row, (name, fixed_file, moving_file, fixed_labels, moving_labels) in zip(axes, chosen, strict=True):
        fixed, moving = read_scalar(fixed_file), read_scalar(moving_file)
        true, drawn = read_labels(fixed_labels), read_labels(moving_labels)
        assert adacs.score is not None
        score = score_map(adacs.score.network, adacs.model.settings, Annotated(image=fixed), "cpu")
        _grey(row[0], fixed.data)
        _grey(row[1], read_labels(planted(fixed_file)).data.float())
        _grey(row[2], score.data)
        _grey(row[3], moving.data)
        maps = [None, *(register_direct(folder.model, fixed, moving).forward for folder in (vanilla, adacs))]
        for axis, forward in zip(row[4:7], maps, strict=True):
            moved, labels = moving, drawn
            if forward is not None:
                moved = resample(moving, forward, fixed.grid)
                labels = resample(drawn, forward, fixed.grid, interpolation="label")
            if moved.grid.shape == fixed.grid.shape:
                _grey(axis, (moved.data - fixed.data).abs())
                _contour(axis, labels, "r")
            _contour(axis, true, "lime")
        assert maps[-1] is not None
        _grey(row[7], score.data * (resample(moving, maps[-1], fixed.grid).data - fixed.data).abs())
        row[0].set_ylabel(name, fontsize=6)
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_momentum(runs: Mapping[str, Path], path: Path) -> None:
    """Mean residual mu and weight w of the score's smoothness over the updates, the paper's Fig. 5.

    Args:
        runs: the `metrics.jsonl` of AdaCS by data.
        path: where the picture goes.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    for name, log in runs.items():
        rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        rows = [row for row in rows if "residual" in row]
        for axis, key in zip(axes, ("residual", "score_smoothness"), strict=True):
            axis.plot([row["step"] for row in rows], [row[key] for row in rows], label=name)
    for axis, title in zip(axes, ("mean squared residual", "weight of the score's smoothness"), strict=True):
        axis.set(title=title, xlabel="update", ylim=(0, None))
        axis.legend()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _plane(data: torch.Tensor) -> np.ndarray:
    """The first channel of an image, or the middle slice of it, the first axis to the right."""
    flat = data[0] if data.ndim == 3 else data[0, ..., data.shape[-1] // 2]
    return flat.numpy().T


def _grey(axis: Axes, data: torch.Tensor) -> None:
    axis.imshow(_plane(data), cmap="gray", vmin=0, vmax=1)


def _contour(axis: Axes, labels: Image, colour: str) -> None:
    axis.contour(_plane((labels.data > 0).float()), [0.5], colors=colour, linewidths=0.7)
