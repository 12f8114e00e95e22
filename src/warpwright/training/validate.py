"""How well a model does on pairs that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from warpwright.energies.losses import pair_loss
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.prompts import landmark_energy
from warpwright.evaluation import dice, folding, mean_over_labels
from warpwright.methods import Model
from warpwright.methods.direct import predicted
from warpwright.sampling import warp_labels

__all__ = ["chosen", "validate"]

HIGHER = ("dice",)  # figures of which more is better


def validate(model: Model, batches: Sequence[PairBatch]) -> dict[str, float]:
    """Means over the pairs, on the working grid.

    Returns:
        `loss`; `folded_percent`; with labels `dice` (mean over labels of a pair, then over pairs); with landmarks `tre`, mm
        (root of the mean squared distance of a pair, mean over pairs).
    """
    rows = [_figures(model, batch) for batch in batches]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def _figures(model: Model, batch: PairBatch) -> dict[str, float]:
    prediction: Prediction = predicted(model, batch)
    terms = [term for term in model.settings.loss if term.applies(batch)]
    with torch.no_grad():
        total, _ = pair_loss(terms, batch, prediction)
    found = {"loss": float(total.mean()), **_folds(prediction)}
    if batch.fixed_labels is not None and batch.moving_labels is not None:
        moved = warp_labels(batch.moving_labels, prediction.displacement)
        found["dice"] = mean_over_labels(dice(batch.fixed_labels.cpu(), moved.cpu()))
    if batch.fixed_points is not None and batch.moving_points is not None:
        points = (batch.fixed_points[0][None], batch.moving_points[0][None])
        found["tre"] = math.sqrt(float(landmark_energy(prediction.displacement, *points, spacing=batch.spacing)))
    return found


def _folds(prediction: Prediction) -> dict[str, float]:
    each = [folding(u.cpu())["folded_percent"] for u in prediction.displacement]
    return {"folded_percent": float(np.mean(each))}


def chosen(figures: Mapping[str, float], by: str) -> tuple[str, float]:
    """The figure that chooses the best model, and its value turned so that less is better."""
    name = next((n for n in ("dice", "tre") if n in figures), "loss") if by == "auto" else by
    value = figures.get(name, math.inf)
    return name, -value if name in HIGHER else value
