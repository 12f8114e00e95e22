"""SmoothProper: a distribution over displacements and a smooth field pass messages inside the forward pass.

For every voxel a network gives a distribution p over m displacements b. Found are distributions q near p and a field v that is
smooth and near what q says, by turns:

    E(q, v) = sum |p - q|^2 + 1/(2 alpha) sum [ sum_i q_i |v - b_i|^2 + |q b - v|^2 ] + beta |grad v|^2

with q on the simplex. Where evidence lies on few displacements q keeps it, elsewhere it follows the field, which so carries
what distinct structures know to those along which nothing can be told (the aperture problem). alpha falls from one iteration to
the next, so that the first fields are smooth and the last ones close to the evidence.

Reference: Zhang et al., SmoothProper, IPMI 2025, arXiv 2506.10813 (the energy and that it is minimised by turns; ours are the
steps' closed forms, the schedule, the start, and that q is kept on the simplex: without that the iteration diverges).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from warpwright.errors import BadInput
from warpwright.kernels import usable
from warpwright.layers.base import FieldLayer, LayerSettings
from warpwright.layers.screened import blurred, screened
from warpwright.layers.simplex import confidence, drawn, expectation, project_simplex, squared_distances
from warpwright.networks import BasisLogits, Displacement, Estimate

__all__ = ["SmoothProper", "Smoothed", "smooth_proper"]

DIVERGENCE = 0.25  # weight of the divergence of q from p in place of their squared distance, for the step "kl"
NEWTON = 5  # steps of the exact q-step
QStep = Literal["split", "exact", "kl"]


@dataclass(frozen=True, kw_only=True)
class SmoothProper(LayerSettings):
    """`BasisLogits` to `Displacement` by a few iterations of message passing.

    Args:
        iterations: a q-step and a v-step each.
        first: alpha of the first iteration, in squares of the reach of the basis: 5 keeps evidence of probability 1/20 at the
            far end of the basis from a field at the middle.
        last: alpha of the last iteration, in squares of the step of the basis; those between fall geometrically.
        beta: weight of smoothness; the field is smooth over `sqrt(alpha beta)` voxels of the lattice.
        start: voxels of the lattice that the first field is smooth over, the mean of displacements weighted by confidence.
        learned: whether the alphas and beta are learned, from what is given here on.
        learned_basis: whether the displacements of the basis are: along each axis they are stretched by a factor, and drawn
            towards zero or away from it by an exponent. They begin as the network laid them out.
        q_step: "split" draws q towards v, "exact" minimises E in q, "kl" is "split" with the divergence of q from p in place
            of their squared distance.
        v_solver: "exact" minimises E in v, "gaussian" takes an average of as wide a reach.
        output: the smooth field v, or the expectation of q.

    Raises:
        BadInput: there is no iteration, a number is not positive and finite, or the averages of "gaussian" are to be learned.
    """

    iterations: int = 6
    first: float = 5.0
    last: float = 2.0
    beta: float = 1.0
    start: float = 4.0
    learned: bool = False
    learned_basis: bool = False
    q_step: QStep = "split"
    v_solver: Literal["exact", "gaussian"] = "exact"
    output: Literal["field", "expectation"] = "field"

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise BadInput(f"SmoothProper needs at least 1 iteration, got {self.iterations}")
        for name in ("first", "last", "beta", "start"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"SmoothProper's {name} must be positive and finite, got {getattr(self, name)}")
        if self.learned and self.v_solver == "gaussian":
            raise BadInput("SmoothProper learns its alphas and beta through the exact v_solver only, got gaussian")

    def build(self, dim: int) -> FieldLayer:
        return Smoothing(self, dim)

    def alphas(self, reach: float, step: float) -> list[float]:
        """Alpha of every iteration, voxels squared.

        Args:
            reach: largest component of a basis displacement, voxels.
            step: between neighbouring ones, voxels.
        """
        first, last = math.log(self.first * reach**2), math.log(self.last * step**2)
        ways = [k / max(self.iterations - 1, 1) for k in range(self.iterations)]
        return [math.exp(first + (last - first) * way) for way in ways]


@dataclass(frozen=True, eq=False, kw_only=True)
class Smoothed:
    """What message passing gave.

    Args:
        field: v, (B, D, *S) voxels.
        expectation: `q b`, (B, D, *S) voxels.
        remake: gives q.
    """

    field: Tensor
    expectation: Tensor
    remake: Callable[[], Tensor]

    def distribution(self) -> Tensor:
        """q, (B, m, *S), which is only made when asked for."""
        return self.remake()


def smooth_proper(
    probability: Tensor,
    basis: Tensor,
    alphas: Tensor,
    beta: Tensor,
    *,
    start: float = 4.0,
    q_step: QStep = "split",
    v_solver: Literal["exact", "gaussian"] = "exact",
) -> Smoothed:
    """Message passing between distributions over displacements and a smooth field.

    On the CPU nothing of the size of p is kept for the backward pass but p; elsewhere an iteration is computed again there.

    Args:
        probability: p, (B, m, *S), not negative, sums to one along axis 1.
        basis: b, (m, D), voxels.
        alphas: (K,) of every iteration, voxels squared.
        beta: ().
        start: voxels that the first field is smooth over.
        q_step: see `SmoothProper`.
        v_solver: see `SmoothProper`.

    Raises:
        BadInput: p is negative or does not sum to one, shapes do not fit, there is no alpha, an alpha or beta is not positive.
    """
    _check(probability, basis, alphas, beta)
    smooth = screened if v_solver == "exact" else blurred
    means, known = expectation(probability, basis), confidence(probability)
    least = 0.5 / len(basis) ** 2  # half of what it is where nothing is known: only rounding falls below
    v = smooth(known * means, start**2) / smooth(known, start**2).clamp_min(least)
    target, u = v, means
    for alpha in alphas:
        target, u = _q_step(q_step, probability, v, basis, alpha)
        v = smooth(u, alpha * beta)

    def remake() -> Tensor:
        return _distribution(q_step, probability, target, basis, alphas[-1])

    return Smoothed(field=v, expectation=u, remake=remake)


def _check(probability: Tensor, basis: Tensor, alphas: Tensor, beta: Tensor) -> None:
    if basis.ndim != 2 or probability.shape[1] != len(basis) or basis.shape[1] != probability.ndim - 2:
        found = f"{tuple(probability.shape)} and {tuple(basis.shape)}"
        raise BadInput(f"a distribution (B, m, *S) and a basis (m, D) of its displacements were expected, got {found}")
    if alphas.ndim != 1 or not len(alphas):
        raise BadInput(f"an alpha for each of at least 1 iteration was expected, got {tuple(alphas.shape)}")
    with torch.no_grad():
        if not bool((alphas > 0).all() and beta > 0):
            raise BadInput(f"alpha and beta must be positive, got {alphas.tolist()} and {float(beta)}")
        apart = float((probability.sum(1) - 1).abs().max())
        if not (apart < 1e-3 and float(probability.amin()) >= 0):
            raise BadInput(f"a distribution must not be negative and sum to one in every voxel, one is {apart:.3g} off")


def _q_step(kind: QStep, probability: Tensor, v: Tensor, basis: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """What q is drawn towards, and its expectation."""
    if kind == "split" and usable(probability, v, basis, alpha):
        return v, drawn(probability, v, basis, alpha)
    step = {"split": _split, "exact": _exact, "kl": _kl}[kind]
    if not torch.is_grad_enabled():
        return step(probability, v, basis, alpha)
    return cast(tuple[Tensor, Tensor], checkpoint(step, probability, v, basis, alpha, use_reentrant=False))


def _split(probability: Tensor, v: Tensor, basis: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    return v, drawn(probability, v, basis, alpha)


def _kl(probability: Tensor, v: Tensor, basis: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    return v, expectation(_distribution("kl", probability, v, basis, alpha), basis)


def _exact(probability: Tensor, v: Tensor, basis: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The projection drawn towards the t with `t + q(t) b = 2 v`: Newton's method for t, whose last step is differentiated."""
    with torch.no_grad():
        t = v
        for _ in range(NEWTON):
            slope = _slope(probability, t, basis, alpha)
            t = t - _solved(slope, t + drawn(probability, t, basis, alpha) - 2 * v)
        slope = _slope(probability, t, basis, alpha)
    t = t - _solved(slope, t + drawn(probability, t, basis, alpha) - 2 * v)
    return t, 2 * v - t


def _slope(probability: Tensor, t: Tensor, basis: Tensor, alpha: Tensor) -> Tensor:
    """`I + Cov / (2 alpha)` with the covariance, times their number, of the displacements that q(t) is above zero at."""
    above = (_distribution("split", probability, t, basis, alpha) > 0).to(t)
    number, mean = above.sum(1)[:, None, None], expectation(above, basis)
    products = torch.einsum("bm...,mi,mj->bij...", above, basis, basis)
    spread = products - mean[:, :, None] * mean[:, None] / number
    eye = torch.eye(basis.shape[1], dtype=t.dtype, device=t.device).reshape(*basis.shape[1:] * 2, *(1,) * (t.ndim - 2))
    return eye + spread / (2 * alpha)


def _solved(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices (B, D, D, *S) and vectors (B, D, *S)."""
    return torch.linalg.solve(matrix.movedim((1, 2), (-2, -1)), vector.movedim(1, -1)).movedim(-1, 1)


def _distribution(kind: QStep, probability: Tensor, target: Tensor, basis: Tensor, alpha: Tensor) -> Tensor:
    apart = squared_distances(target, basis)
    if kind == "kl":
        return (probability.clamp_min(1e-12).log() - apart / (2 * alpha * DIVERGENCE)).softmax(1)
    return project_simplex(probability - apart / (4 * alpha))


class Smoothing(FieldLayer):
    """As `SmoothProper` says; learned are factors of alphas and beta, factors and exponents of the basis, from one on."""

    name: ClassVar[str] = "smoothproper"
    accepts: ClassVar[tuple[type[Estimate], ...]] = (BasisLogits,)

    def __init__(self, settings: SmoothProper, dim: int) -> None:
        super().__init__()
        self.settings = settings
        if settings.learned_basis:
            self.log_stretch = nn.Parameter(torch.zeros(dim))
            self.log_exponent = nn.Parameter(torch.zeros(dim))
        if settings.learned:
            self.log_alphas = nn.Parameter(torch.zeros(settings.iterations))
            self.log_beta = nn.Parameter(torch.zeros(()))

    def apply_to(self, estimate: Estimate) -> Estimate:
        given = cast(BasisLogits, estimate)
        settings, logits = self.settings, given.values
        alphas = logits.new_tensor(settings.alphas(given.basis.reach, given.basis.step))
        beta = logits.new_tensor(settings.beta)
        if settings.learned:
            alphas, beta = alphas * self.log_alphas.exp().to(alphas), beta * self.log_beta.exp().to(beta)
        found = smooth_proper(
            logits.softmax(1),
            self._basis(given).to(logits),
            alphas,
            beta,
            start=settings.start,
            q_step=settings.q_step,
            v_solver=settings.v_solver,
        )
        values = found.field if settings.output == "field" else found.expectation
        return Displacement(values=values, shape=given.shape, factors=given.factors)

    def _basis(self, given: BasisLogits) -> Tensor:
        """(m, D) the displacements as they are now."""
        if not self.settings.learned_basis:
            return given.vectors
        vectors, reach = given.vectors.to(self.log_stretch), given.basis.reach
        along = (vectors.abs() / reach).clamp_min(torch.finfo(vectors.dtype).tiny)
        return vectors * self.log_stretch.exp() * along ** (self.log_exponent.exp() - 1)
