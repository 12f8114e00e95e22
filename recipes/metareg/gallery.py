"""Pictures of the tables: the sweep of weights, and what each way makes of one test pair with its kernel beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch

from warpwright.io import read_scalar
from warpwright.layers import SmoothingKernel
from warpwright.methods import evaluating
from warpwright.product.model_folder import read_model
from warpwright.sampling import warp
from ways import Run

__all__ = ["draw_gallery", "draw_sweep"]

mpl.use("Agg")
PAIR = "test-0003"  # under large deformations
LINES = 4  # voxels between the lines of the drawn map


def draw_sweep(runs: Sequence[Run], output: Path) -> None:
    """Dice and share of positive determinants of the test pairs over the weight, a line for each way: `sweep.png`."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for way in dict.fromkeys(run.way for run in runs):
        mine = sorted((run for run in runs if run.way == way), key=lambda run: run.weight or 0)
        found = [json.loads((output / run.name / "scores.json").read_text(encoding="utf-8"))[run.energy] for run in mine]
        for axis, name, factor in ((axes[0], "dice", 100), (axes[1], "positive", 1)):
            axis.plot([run.weight for run in mine], [factor * fmean(f[name]) for f in found], ".-", label=way)
    for axis, name in zip(axes, ("Dice, %", "determinants above 0, %"), strict=True):
        axis.set(xscale="log", xlabel="weight of the smoothness term", ylabel=name)
    axes[0].legend()
    figure.savefig(output / "sweep.png", dpi=90)
    plt.close(figure)


def draw_gallery(runs: Sequence[Run], output: Path, path: Path) -> None:
    """A test pair under every run of seed 0 that learned from large deformations: moved, difference, map, kernels."""
    shown = [run for run in runs if run.seed == 0 and run.energy == "large"]
    if not shown:
        return
    name = f"large-{shown[0].side}-{PAIR}"
    fixed, moving = (read_scalar(output / "images" / f"{name}-{which}.nii.gz").data[None] for which in ("fixed", "moving"))
    figure, axes = plt.subplots(4, 1 + len(shown), figsize=(2.2 * (1 + len(shown)), 9), squeeze=False, layout="constrained")
    columns = [("as it lies", torch.zeros(1, 2, *fixed.shape[2:]), None)]
    for run in shown:
        model = read_model(output / run.name / "model").model
        with evaluating(model), torch.no_grad():
            field = model(fixed, moving).displacement
        kernels = [layer.kernels().detach() for layer in model.modules() if isinstance(layer, SmoothingKernel)]
        columns.append((run.title, field, torch.cat(tuple(kernels[0]), 1) if kernels else None))
    for column, (name, field, kernel) in zip(axes.T, columns, strict=True):
        moved = warp(moving, field)
        column[0].imshow(moved[0, 0].T.numpy(), cmap="gray", vmin=0, vmax=1)
        column[1].imshow((moved - fixed)[0, 0].T.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        at = torch.stack(torch.meshgrid(*(torch.arange(n) for n in field.shape[2:]), indexing="ij")) + field[0]
        column[2].plot(at[0, ::LINES].T, at[1, ::LINES].T, "k", lw=0.4)
        column[2].plot(at[0, :, ::LINES], at[1, :, ::LINES], "k", lw=0.4)
        column[2].set(aspect="equal", xlim=(0, field.shape[2]), ylim=(field.shape[3], 0))
        if kernel is not None:
            most = float(kernel.abs().max())
            column[3].imshow(kernel.T.numpy(), cmap="RdBu_r", vmin=-most, vmax=most)
        column[0].set_title(name, fontsize=8)
        for axis in column:
            axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=80)
    plt.close(figure)
