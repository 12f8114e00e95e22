"""How well a model does on pairs that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from warpwright.data import CasePair
from warpwright.energies.losses import pair_loss
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.energies.prompts import landmark_energy
from warpwright.errors import BadInput, Failed
from warpwright.evaluation import dice, folding, mean_over_labels
from warpwright.layers import FieldLayer
from warpwright.methods import Model
from warpwright.methods.direct import predicted
from warpwright.methods.model import with_inverse
from warpwright.methods.randomness import drawing_from
from warpwright.sampling import warp_labels

__all__ = ["deciding", "layer_figures", "turned", "validate"]

NEEDS = {"dice": "labels", "tre": "points"}  # what a figure is made of, the first choice first
HIGHER = ("dice",)  # figures of which more is better


def validate(model: Model, batches: Sequence[PairBatch]) -> dict[str, float]:
    """Means over the pairs, on the working grid.

    Returns:
        `loss`, of the terms that the pairs allow; `folded_percent`; with labels `dice` (mean over labels of a pair, then over
        pairs); with landmarks `tre`, mm (root of the mean squared distance of a pair, mean over pairs). A figure of which no
        pair has anything is left out.

    Raises:
        Failed: the model gives a pair a displacement that is not finite.
    """
    rows: list[dict[str, float]] = []
    for batch in batches:
        with drawing_from(0, batch.fixed.device):  # points that a loss looks at
            rows.append(_figures(model, batch))
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def _figures(model: Model, batch: PairBatch) -> dict[str, float]:
    prediction = predicted(model, batch)
    if not bool(prediction.displacement.isfinite().all()):
        raise Failed(f"the displacement of the validation pair {', '.join(batch.names)} holds NaN or inf")
    if prediction.inverse is None and model.settings.directions == "both":  # then the loss may ask for it
        prediction = with_inverse(prediction, predicted(model, batch.swapped()).displacement)
    terms = [term for term in model.settings.loss if term.applies(batch)]
    with torch.no_grad():
        total, parts = pair_loss(terms, batch, prediction)
    found = {**({"loss": float(total.mean())} if parts else {}), **_folds(prediction)}
    if batch.fixed_labels is not None and batch.moving_labels is not None:
        moved = warp_labels(batch.moving_labels, prediction.displacement)
        value = mean_over_labels(dice(batch.fixed_labels.cpu(), moved.cpu()))
        found |= {} if math.isnan(value) else {"dice": value}  # NaN if nothing is labelled in either
    if batch.fixed_points is not None and batch.moving_points is not None:
        points = (batch.fixed_points[0][None], batch.moving_points[0][None])
        found["tre"] = math.sqrt(float(landmark_energy(prediction.displacement, *points, spacing=batch.spacing)))
    return found


def _folds(prediction: Prediction) -> dict[str, float]:
    each = [folding(u.cpu())["folded_percent"] for u in prediction.displacement]
    return {"folded_percent": float(np.mean(each))}


def deciding(by: str, pairs: Sequence[CasePair]) -> str:
    """The figure that chooses the best model.

    Args:
        by: its name, or "auto" for the first one that some pair has the files for.
        pairs: of the validation.

    Raises:
        BadInput: no pair has the files for it.
    """

    def known(name: str) -> bool:
        return any(None not in (getattr(pair.fixed, NEEDS[name]), getattr(pair.moving, NEEDS[name])) for pair in pairs)

    if by == "auto":
        return next((name for name in NEEDS if known(name)), "loss")
    if by in NEEDS and not known(by):
        raise BadInput(f"validation.by = {by!r} needs validation pairs with {NEEDS[by]} of both images, found none")
    return by


def turned(name: str, value: float) -> float:
    """A figure with its sign such that less is better, or such a value as a figure again."""
    return -value if name in HIGHER else value


def layer_figures(model: Model) -> dict[str, float]:
    """What the weights of field layers are like, by name; of several layers with such figures the second's begin with "2_"."""
    found = [figures for layer in model.modules() if isinstance(layer, FieldLayer) and (figures := layer.figures())]
    return {name if k == 1 else f"{k}_{name}": value for k, figures in enumerate(found, 1) for name, value in figures.items()}
