"""The loss of a batch: what training and refinement minimise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from warpwright.energies.losses import Value, pair_loss
from warpwright.energies.pairs import PairBatch, Prediction
from warpwright.geometry import computing_in
from warpwright.layers import FieldLayer
from warpwright.methods.model import Model, predict, predict_both

__all__ = ["Losses", "batch_loss", "views"]


@dataclass(frozen=True, eq=False)
class Losses:
    """Losses of a batch.

    Args:
        total: (B,), with the graph of the model's weights; 0 for a pair whose solve failed, which so teaches nothing.
        parts: (B,) each, the terms without their weights, detached; where the model solves, "failed" is 1 for such a pair.
    """

    total: Tensor
    parts: Mapping[str, Tensor]


def batch_loss(model: Model, batch: PairBatch, precision: torch.dtype | None = None, value: Value | None = None) -> Losses:
    """The model's own loss of every pair, in the directions that its settings say, with the penalties of its layers.

    Args:
        model: in training or evaluation mode, which is left as it is.
        batch: prepared pairs.
        precision: dtype in which the network may compute (autocast); None for that of its weights. Fields and losses stay in
            the dtype of the images.
        value: what a term about one direction is worth, in place of `term.value`.
    """
    settings = model.settings
    (_, there), *swapped = views(model, batch, precision)
    mutual = [term for term in settings.loss if term.mutual]
    single = [term for term in settings.loss if not term.mutual]
    total, parts = pair_loss(single, batch, there, value)
    for other, back in swapped:
        energy, others = pair_loss(single, other, back, value)
        total = (total + energy) / 2
        parts = {name: (part + others[name]) / 2 for name, part in parts.items()}
    both, found = pair_loss(mutual, batch, there)
    total, parts = total + both, parts | found
    own = [found for layer in model.modules() if isinstance(layer, FieldLayer) and (found := layer.penalty()) is not None]
    if own:
        parts["kernel"] = torch.stack(own).sum().expand(len(batch)).to(total)
        total = total + parts["kernel"]
    failed = [p.final.failed for p in (there, *(back for _, back in swapped)) if p.final.failed is not None]
    if failed:
        bad = torch.stack(failed).any(0)
        total = torch.where(bad, torch.zeros_like(total), total)
        parts["failed"] = bad.to(total.dtype)
    return Losses(total, {name: value.detach() for name, value in parts.items()})


def views(model: Model, batch: PairBatch, precision: torch.dtype | None = None) -> tuple[tuple[PairBatch, Prediction], ...]:
    """The pairs with what a model says about them, and where its loss looks both ways the swapped pairs with theirs."""
    with computing_in(precision, batch.fixed):
        if model.settings.directions == "forward":
            return ((batch, predict(model, batch)),)
        there, back = predict_both(model, batch)
        return (batch, there), (batch.swapped(), back)
