"""Instance optimisation: a few steps on a copy of a model, for one pair, with the loss of the model."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from warpwright.energies.pairs import PairBatch
from warpwright.errors import BadInput, Failed
from warpwright.methods.batch_loss import batch_loss
from warpwright.methods.model import Model
from warpwright.methods.multistep import Single
from warpwright.methods.orthogonal import Orthogonal
from warpwright.methods.randomness import drawing_from
from warpwright.methods.registration import Progress, Stage
from warpwright.sampling import gaussian

__all__ = ["Refinement", "refined"]

MOMENTUM, OTHERS = 0.8, 0.2  # of Muon: a short memory for few steps, and the share of the rate for biases and heads
STEP, SMOOTHING = 1.5, 0.7  # of a velocity, voxels of its lattice: largest first step, standard deviation of its Gaussian


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How a model follows one pair.

    Args:
        steps: updates; 0 for none.
        rate: learning rate of Muon (`methods.orthogonal`) at the first step; it falls to zero along a line, as the steps of
            velocities do.

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
    """A copy of the model that suits a batch better; the model itself is left as it was.

    Its weights follow the loss, and where it integrates velocities and so gives both directions at once, each of them also gets
    an offset of its own: a network moves few places well in few steps, and the gradient is known there anyway. The offset goes
    down the smoothed gradient as greedy registration does, the longest vector of a step being `STEP` voxels at first.

    Batch normalisation keeps its statistics and nothing is dropped (evaluation mode), and what a loss draws begins at the same
    place for every pair, so the outcome depends on the batch and the weights alone. Terms of the loss that need labels or
    landmarks are left out: they are not known when a pair is registered.

    Args:
        model: in any mode.
        batch: prepared pairs, in the dtype of the weights.
        refinement: at least one step.
        progress: called before every step.

    Returns:
        The copy, in evaluation mode and without gradients, which is good for this batch alone, and the stage: the loss before
        the first and before the last step.

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
    velocities = Descent(offsets(own, batch))
    optimiser = Orthogonal(weights, refinement.rate, MOMENTUM, OTHERS)
    energies: list[float] = []
    for step in range(refinement.steps):
        with torch.enable_grad(), drawing_from(step, batch.fixed.device):  # points that the loss looks at
            loss = batch_loss(own, batch).total.mean()
        energies.append(float(loss.detach()))
        if not loss.isfinite():
            raise Failed(f"refinement: the loss is {energies[-1]} at step {step}")
        gradients = torch.autograd.grad(loss, [*weights, *velocities.fields], allow_unused=True)
        if progress is not None:
            progress(Progress("refine weights", step, refinement.steps, energies[-1]))
        share = 1 - step / refinement.steps
        for weight, gradient in zip(weights, gradients, strict=False):
            weight.grad = gradient
        for group in optimiser.param_groups:
            group["lr"] = refinement.rate * share
        optimiser.step()
        velocities.step(gradients[len(weights) :], STEP * share)
    stage = Stage("refine weights", time.perf_counter() - begin, refinement.steps, energies[0], energies[-1], "all steps done")
    return own.requires_grad_(False), stage


def offsets(model: Model, batch: PairBatch) -> list[nn.Parameter]:
    """Offsets of zero for the velocities of a model that gives both directions at once; none for any other."""
    with torch.no_grad():
        prediction = model(batch.fixed, batch.moving)
    singles = [module for module in model.modules() if isinstance(module, Single)]
    if prediction.inverse is None or len(prediction.velocities) != len(singles):
        return []
    found = [nn.Parameter(torch.zeros_like(velocity.values)) for velocity in prediction.velocities]
    for single, offset in zip(singles, found, strict=True):
        single.offset = offset
    return found


class Descent:
    """Fields (B, D, *T) that follow the momentum of their smoothed gradients, each sample by a longest vector of given size."""

    def __init__(self, fields: Sequence[nn.Parameter]) -> None:
        self.fields = fields
        self.momenta = [torch.zeros_like(field) for field in fields]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], size: float) -> None:
        """One step, `size` voxels at the most."""
        for field, momentum, gradient in zip(self.fields, self.momenta, gradients, strict=True):
            momentum.mul_(MOMENTUM).add_(gaussian(gradient, (SMOOTHING,) * field.shape[1]))
            longest = momentum.square().sum(1, keepdim=True).flatten(1).amax(1).sqrt()
            share = size / longest.clamp_min(torch.finfo(field.dtype).tiny)
            field.sub_(momentum * share.reshape(-1, *(1,) * (field.ndim - 1)))
