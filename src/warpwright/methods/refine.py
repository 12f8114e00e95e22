"""Instance optimisation: a few steps on a copy of a model, for one pair, with the loss of the model."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from warpwright.energies.pairs import PairBatch
from warpwright.errors import BadInput, Failed
from warpwright.layers import FieldLayer, Integration, Pipeline
from warpwright.methods.batch_loss import batch_loss
from warpwright.methods.model import Model
from warpwright.methods.orthogonal import Orthogonal
from warpwright.methods.randomness import drawing_from
from warpwright.methods.registration import Progress, Stage, curve
from warpwright.networks import Estimate, Velocity
from warpwright.sampling import gaussian

__all__ = ["Refinement", "refined"]

MOMENTUM, OTHERS = 0.8, 0.2  # of Muon: a short memory for few steps, and the share of the rate for biases and heads
STEP, SMOOTHING = 1.5, 0.7  # of a velocity, voxels of its lattice: largest first step, standard deviation of its Gaussian
DAMPING = 0.8  # of these steps, whenever the loss has risen


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

    Its weights follow the loss, and where it gives both directions at once, every velocity that it integrates also gets an
    offset: a network moves few places well in few steps, and the gradient is known there anyway. An offset goes down the
    smoothed gradient as greedy registration does, the longest vector of a step being `STEP` voxels at first and a share of
    that (`DAMPING`) from each rise of the loss on. What is returned is the best that was seen, which may be the beginning.

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
        the first step and that of the copy.

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
    velocities = Descent(with_offsets(own, batch))
    followed = [*weights, *velocities.fields]
    optimiser = Orthogonal(weights, refinement.rate, MOMENTUM, OTHERS)
    best = before = math.inf
    kept: list[Tensor] = []
    energies: list[float] = []
    for step in range(refinement.steps + 1):
        last = step == refinement.steps
        with torch.set_grad_enabled(not last), drawing_from(step, batch.fixed.device):  # points that the loss looks at
            losses = batch_loss(own, batch)
            loss = losses.total.mean()
        energy = float(loss.detach())
        if not math.isfinite(energy):
            raise Failed(f"refinement: the loss is {energy} at step {step}")
        if "failed" in losses.parts and bool(losses.parts["failed"].any()):
            energy = math.inf  # what cannot be solved is no improvement
        energies.append(energy)
        if energy < best:
            best, kept = energy, [value.detach().clone() for value in followed]
        if last:
            break
        gradients = torch.autograd.grad(loss, followed, allow_unused=True)
        if progress is not None:
            progress(Progress("refine weights", step, refinement.steps, energy))
        share = 1 - step / refinement.steps
        for weight, gradient in zip(weights, gradients, strict=False):
            weight.grad = gradient
        for group in optimiser.param_groups:
            group["lr"] = refinement.rate * share
        optimiser.step()
        velocities.step(gradients[len(weights) :], STEP * share, rising=energy > before)
        before = energy
    with torch.no_grad():
        for value, good in zip(followed, kept, strict=True):
            value.copy_(good)
    taken = time.perf_counter() - begin
    stage = Stage("refine weights", taken, refinement.steps, energies[0], best, "the best of all steps", curve(energies))
    return own.requires_grad_(False), stage


class Offset(FieldLayer):
    """A field (B, D, *T) that is added to a velocity on the same lattice; others pass."""

    name: ClassVar[str] = "offset"
    accepts: ClassVar[tuple[type[Estimate], ...]] = (Velocity,)

    def __init__(self, field: nn.Parameter) -> None:
        super().__init__()
        self.field = field

    def apply_to(self, estimate: Estimate) -> Estimate:
        given = cast(Velocity, estimate)
        return replace(given, values=given.values + self.field) if given.values.shape == self.field.shape else given


def with_offsets(model: Model, batch: PairBatch) -> list[nn.Parameter]:
    """Put an offset of zero before every integration of a model that gives both directions at once, none into any other."""
    with torch.no_grad():
        prediction = model(batch.fixed, batch.moving)
    if prediction.inverse is None:
        return []
    pipelines = [module for module in model.modules() if isinstance(module, Pipeline)]
    places = [(pipe, k) for pipe in pipelines for k, layer in enumerate(pipe.layers) if isinstance(layer, Integration)]
    found = [nn.Parameter(torch.zeros_like(velocity.values)) for velocity in prediction.velocities]
    for (pipe, k), field in zip(places, found, strict=True):
        pipe.layers.insert(k, Offset(field))
    return found


class Descent:
    """Fields (B, D, *T) that follow the momentum of their smoothed gradients, each sample by a longest vector of given size."""

    def __init__(self, fields: Sequence[nn.Parameter]) -> None:
        self.fields = fields
        self.momenta = [torch.zeros_like(field) for field in fields]
        self.damping = 1.0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], size: float, *, rising: bool = False) -> None:
        """One step, `size` voxels at the most, and from now on a share of that if the loss is rising."""
        self.damping *= DAMPING if rising else 1
        for field, momentum, gradient in zip(self.fields, self.momenta, gradients, strict=True):
            momentum.mul_(MOMENTUM).add_(gaussian(gradient, (SMOOTHING,) * field.shape[1]))
            longest = momentum.square().sum(1, keepdim=True).flatten(1).amax(1).sqrt()
            share = self.damping * size / longest.clamp_min(torch.finfo(field.dtype).tiny)
            field.sub_(momentum * share.reshape(-1, *(1,) * (field.ndim - 1)))
