"""Local normalised cross-correlation: squared correlation of two images in a window around every voxel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self, cast

import torch
from torch import Tensor

from warpwright.energies.similarity.base import Similarity, for_axes, reduce
from warpwright.energies.similarity.swept import as_energy, on_one_grid
from warpwright.errors import BadInput
from warpwright.geometry import spatial
from warpwright.kernels import usable
from warpwright.sampling import box_sum, gaussian_sum

__all__ = ["LNCC"]


@dataclass(frozen=True, kw_only=True)
class LNCC(Similarity):
    """One minus the mean squared local correlation, `1 - mean((|cov| + e)^2 / ((var_moved + e) (var_fixed + e)))`; in [0, 1].

    Every window counts only what lies inside the image and is weighted by the mask (normalised at borders). With `e` the
    `epsilon`, windows whose standard deviation is below `sqrt(e)` count as structureless and pull at nothing. It is added
    to the covariance as well as to the variances, where other tools add it to the variances only: otherwise equal images
    are not the optimum and the energy draws towards places of high variance.

    Args:
        radius: the box window has 2 radius + 1 voxels along an axis; the Gaussian one has standard deviation
            `radius` voxels. One number, or one for each axis.
        window: "box" (ANTs, VoxelMorph) or "gaussian" (ICON).
        epsilon: squared intensity below which a variance is noise, for images scaled to [0, 1].

    Raises:
        BadInput: the window is one voxel or epsilon is not positive; of an image or a spacing: there is not one radius for
            each of its axes.

    Reference: Avants et al., Medical Image Analysis 12 (2008), doi 10.1016/j.media.2007.06.004.
    """

    radius: int | tuple[int, ...] = 2
    window: Literal["box", "gaussian"] = "box"
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        radii = self.radius if isinstance(self.radius, tuple) else (self.radius,)
        if min(radii, default=0) < 0 or max(radii, default=0) < 1 or self.epsilon <= 0:
            raise BadInput(f"LNCC needs radius >= 1 and epsilon > 0, got radius = {self.radius}, epsilon = {self.epsilon}")

    def for_spacing(self, spacing: Sequence[float]) -> Self:
        """The same window in millimetres along every axis: `radius` counts voxels of the finest axis."""
        if isinstance(self.radius, int):
            return replace(self, radius=tuple(round(self.radius * min(spacing) / s) for s in spacing))
        self._radii(len(spacing))  # refuses another number of axes
        return self

    def similarity(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        others = torch.is_grad_enabled() and (fixed.requires_grad or (weight is not None and weight.requires_grad))
        if self.window == "gaussian" or others or not (usable(moved, fixed, weight) and on_one_grid(moved, fixed, weight)):
            return _plain(self, moved, fixed, weight)
        gradient = moved.requires_grad and torch.is_grad_enabled()
        return _lncc(moved, fixed, weight, list(self._radii(len(spatial(moved)))), self.epsilon, gradient)[0]

    def _radii(self, dim: int) -> tuple[int, ...]:
        """One for each axis of the images."""
        return for_axes(self.radius, dim, "LNCC has a radius")

    def correlation_map(self, moved: Tensor, fixed: Tensor, weight: Tensor | None = None) -> Tensor:
        """Squared local correlation of every channel: (B, C, *S) images to (B, C, *S) in [0, 1]."""
        fixed, moved = _centred(fixed), _centred(moved)
        others = fixed.requires_grad or (weight is not None and weight.requires_grad)
        if moved.requires_grad and torch.is_grad_enabled() and not others:
            apply = cast(Callable[..., Tensor], _InMoved.apply)
            return apply(moved, fixed, weight, self)
        return self.moments(moved, fixed, weight).correlation()

    def moments(self, moved: Tensor, fixed: Tensor, weight: Tensor | None) -> _Moments:
        """Windowed moments of two images."""
        count = self.window_sum(torch.ones_like(fixed[:1, :1]) if weight is None else weight)
        count = torch.where(count > 0, count, torch.ones_like(count))
        weighted_fixed = fixed if weight is None else fixed * weight
        weighted_moved = moved if weight is None else moved * weight
        mean_fixed = self.window_sum(weighted_fixed) / count
        mean_moved = self.window_sum(weighted_moved) / count
        covariance = self.window_sum(weighted_moved * fixed) / count - mean_fixed * mean_moved
        var_fixed = self.window_sum(weighted_fixed * fixed) / count - mean_fixed.square()
        var_moved = self.window_sum(weighted_moved * moved) / count - mean_moved.square()
        noise = self.epsilon
        covariance = torch.where(covariance < 0, covariance - noise, covariance + noise)
        var_fixed, var_moved = var_fixed.clamp_min(0) + noise, var_moved.clamp_min(0) + noise
        return _Moments(count, mean_fixed, mean_moved, covariance, var_fixed, var_moved)

    def window_sum(self, field: Tensor) -> Tensor:
        """Sum over the window around every voxel, cut at the border; its own adjoint."""
        radii = self._radii(len(spatial(field)))
        return box_sum(field, radii) if self.window == "box" else gaussian_sum(field, radii)


def _plain(lncc: LNCC, moved: Tensor, fixed: Tensor, weight: Tensor | None) -> Tensor:
    return reduce(1 - lncc.correlation_map(moved, fixed, weight).mean(1, keepdim=True), weight)


class _Moments(NamedTuple):
    """Per window: sum of weights, means, covariance and variances, all three with the noise added."""

    weights: Tensor
    mean_fixed: Tensor
    mean_moved: Tensor
    covariance: Tensor
    var_fixed: Tensor
    var_moved: Tensor

    def correlation(self) -> Tensor:
        return self.covariance.square() / (self.var_fixed * self.var_moved)


def _centred(image: Tensor) -> Tensor:
    """An image less its mean, which no variance notices but rounding does."""
    mean = image.detach().flatten(2).mean(2)
    return image - mean.reshape(*mean.shape, *(1,) * (image.ndim - 2))


class _InMoved(torch.autograd.Function):
    """`LNCC.correlation_map` with a closed first derivative in the moved image, which keeps a few volumes, not a graph.

    With a the covariance and F, M the variances (noise added), n the count, W the window sum and g the cotangent of the map:
    P = 2 g a / (F M n), Q = P a / M, and d/dm = w (f W(P) - W(P mean_f) - m W(Q) + W(Q mean_m)).
    A second derivative goes through the plain formula.
    """

    @staticmethod
    def forward(ctx: Any, moved: Tensor, fixed: Tensor, weight: Tensor | None, lncc: LNCC) -> Tensor:
        moments = lncc.moments(moved, fixed, weight)
        slope = 2 * moments.covariance / (moments.var_fixed * moments.var_moved * moments.weights)
        ctx.lncc = lncc
        ratio = moments.covariance / moments.var_moved
        ctx.save_for_backward(moved, fixed, weight, slope, ratio, moments.mean_fixed, moments.mean_moved)
        return moments.correlation()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, None, None]:
        moved, fixed, weight, slope, ratio, mean_fixed, mean_moved = ctx.saved_tensors
        lncc, g = ctx.lncc, cotangents[0]
        if torch.is_grad_enabled():
            plain = lncc.moments(moved, fixed, weight).correlation()
            again = cast(tuple[Tensor], torch.autograd.grad(plain, moved, g, create_graph=True))
            return again[0], None, None, None
        p = slope * g
        gradient = fixed * lncc.window_sum(p) - lncc.window_sum(p * mean_fixed)
        p = p * ratio
        gradient -= moved * lncc.window_sum(p) - lncc.window_sum(p * mean_moved)
        return gradient if weight is None else gradient * weight, None, None, None


def _compiled(
    moved: Tensor, fixed: Tensor, weight: Tensor | None, radius: list[int], epsilon: float, gradient: bool
) -> tuple[Tensor, Tensor]:
    """Energies of `LNCC.similarity`, box window, and with `gradient` theirs in the moved image, which backward scales."""
    from warpwright.kernels import correlation

    return correlation.lncc(moved, fixed, weight, tuple(radius), epsilon, gradient=gradient)


def _fake(moved: Tensor, fixed: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    batch = max(len(moved), len(fixed))
    return moved.new_empty(batch), moved.new_empty(batch if others[-1] else 0, *moved.shape[1:])


def _twin(moved: Tensor, fixed: Tensor, weight: Tensor | None, radius: Sequence[int], epsilon: float, gradient: bool) -> Tensor:
    return _plain(LNCC(radius=tuple(radius), epsilon=epsilon), moved, fixed, weight)


_lncc = as_energy("lncc", _compiled, fake=_fake, twin=_twin)
