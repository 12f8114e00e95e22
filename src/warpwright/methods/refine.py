"""Instance optimisation: a few steps on a copy of the weights, for one pair, with the loss of the model."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from warpwright.energies.pairs import PairBatch
from warpwright.errors import BadInput, Failed
from warpwright.methods.batch_loss import batch_loss
from warpwright.methods.model import Model
from warpwright.methods.orthogonal import Orthogonal
from warpwright.methods.registration import Progress, Stage

__all__ = ["Refinement", "refined"]

MOMENTUM, OTHERS = 0.8, 0.2  # of Muon: a short memory for few steps, and the share of the rate for biases and heads


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How weights follow one pair.

    Args:
        steps: updates; 0 for none.
        rate: learning rate of Muon (`methods.orthogonal`) at the first step; it falls to zero along a line.

    Raises:
        BadInput: the steps are negative or the rate is not positive.
    """

    steps: int = 0
    rate: float = 4e-3

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.rate > 0:
            raise BadInput(f"refinement needs steps >= 0 and a rate above 0, got {self.steps} and {self.rate}")


def refined(
    model: Model, batch: PairBatch, refinement: Refinement, progress: Callable[[Progress], None] | None = None
) -> tuple[Model, Stage]:
    """A copy of the model whose weights suit a batch better; the model itself is left as it was.

    Batch normalisation keeps its statistics and nothing is dropped (evaluation mode), so the outcome depends on the batch and
    the weights alone. Terms of the loss that need labels or landmarks are left out: they are not known when a pair is
    registered.

    Args:
        model: in any mode.
        batch: prepared pairs, in the dtype of the weights.
        refinement: at least one step.
        progress: called before every step.

    Returns:
        The copy, in evaluation mode and without gradients, and the stage: the loss before the first and before the last step.

    Raises:
        BadInput: no term of the loss is left, or no step is asked for.
        Failed: the loss is not finite.
    """
    if not refinement.steps:
        raise BadInput("a refinement needs at least one step, got 0")
    begin = time.perf_counter()
    own = copy.deepcopy(model).eval().requires_grad_(True)
    terms = tuple(term for term in model.settings.loss if term.applies(batch))
    if not terms:
        raise BadInput("the model was trained on labels or landmarks alone, so there is nothing to refine it by")
    own.settings = replace(model.settings, loss=terms)
    weights = [p for p in own.parameters() if p.requires_grad]
    optimiser = Orthogonal(weights, refinement.rate, MOMENTUM, OTHERS)
    energies: list[float] = []
    for step in range(refinement.steps):
        with torch.enable_grad():
            loss = batch_loss(own, batch).total.mean()
        energies.append(float(loss.detach()))
        if not loss.isfinite():
            raise Failed(f"refinement: the loss is {energies[-1]} at step {step}")
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        if progress is not None:
            progress(Progress("refine weights", step, refinement.steps, energies[-1]))
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        for group in optimiser.param_groups:
            group["lr"] = refinement.rate * (1 - step / refinement.steps)
        optimiser.step()
    stage = Stage("refine weights", time.perf_counter() - begin, refinement.steps, energies[0], energies[-1], "all steps done")
    return own.requires_grad_(False), stage
