"""The objectives that a solver is handed: energies of a pair as functions of a transform's parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from warpwright.energies.regularity import Regularity
from warpwright.energies.similarity import MSE, Similarity
from warpwright.geometry import gradient
from warpwright.kernels import usable
from warpwright.methods.levels import Level
from warpwright.sampling import warp, warp_covered, warp_directional
from warpwright.solver import CurvedObjective

__all__ = ["FieldObjective"]

CHUNK = 4  # channels that are differentiated twice at a time without compiled kernels, which keep little of each


class FieldObjective(CurvedObjective):
    """Similarity after warping by the displacement that `field` makes of the parameters, plus regularities of it.

    Args:
        level: the pair.
        affine: world affine that acts after the displacement.
        similarity: the data term.
        regularities: terms on the displacement.
        field: parameters to displacement (1, D, *S), voxels of the level.
    """

    def __init__(
        self,
        level: Level,
        affine: np.ndarray,
        similarity: Similarity,
        regularities: Sequence[Regularity] = (),
        field: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        self.level = level
        self.matrix = level.matrix(affine)
        self.similarity = similarity.for_spacing(level.grid.spacing)
        self.regularities = tuple(regularities)
        self.field = field

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        """Energies (1,); `params` are the fixed and the moving image."""
        displacement = self.field(x)
        energy = self.data_term(displacement, *params)
        return energy + self._smooth(displacement) if self.regularities else energy

    @property
    def images(self) -> tuple[Tensor, Tensor]:
        """The parameters: the level's fixed and moving image."""
        return self.level.pair.fixed, self.level.pair.moving

    def data_term(self, displacement: Tensor, fixed: Tensor, moving: Tensor) -> Tensor:
        """The similarity alone: (1,)."""
        pair = self.level.pair
        return self.similarity.match(fixed, moving, displacement, self.matrix, pair.fixed_weight, pair.moving_weight)

    @torch.no_grad()
    def unlike(self) -> Tensor:
        """How much worse than equal images are those that have nothing to do with each other: (1,), not negative.

        The moving image is turned over and moved round by a quarter, so that it does not look like itself.
        """
        fixed, moving = self.images
        still = fixed.new_zeros(len(fixed), self.level.grid.dim, *self.level.grid.shape)
        axes = tuple(range(2, moving.ndim))
        other = moving.flip(axes).roll([moving.shape[axis] // 4 for axis in axes], axes)
        equal = self.similarity.similarity(fixed, fixed, self.level.pair.fixed_weight)
        return (self.data_term(still, fixed, other) - equal).clamp_min(0)

    def directional(self, x: Tensor, direction: Tensor, *params: Tensor) -> Tensor:
        """As the base, without a second derivative of the interpolation in the displacement where kernels are compiled.

        The moved image and its derivative along the direction are differentiated once in the moving image; what the energy
        makes of them, a function of images on one grid, is differentiated twice.
        """
        displacement, along = self._pushed(x, direction)
        weight = self._weight(params[1], displacement)
        return self._slope(displacement, along, weight, *params) + self._smooth_directional(x, direction)

    def mixed(self, x: Tensor, direction: Tensor, *params: Tensor) -> tuple[Tensor | None, ...]:
        """As the base, in chunks of channels where they do not depend on each other; regularities have no part in it.

        Without compiled kernels it takes the memory of a second derivative of one chunk, not of all channels.
        """
        displacement, along = self._pushed(x, direction)
        weight = self._weight(params[1], displacement)
        found = tuple(torch.empty_like(p) if p.requires_grad else None for p in params)
        for part, share in self._chunks(displacement, *params):
            own = [p.detach()[:, part].requires_grad_(p.requires_grad) for p in params]
            with torch.enable_grad():
                slope = share * self._slope(displacement, along, weight, *own).sum()
            given = iter(torch.autograd.grad(slope, [p for p in own if p.requires_grad]))
            for whole in found:
                if whole is not None:
                    whole[:, part] = next(given)
        return found

    def _slope(self, displacement: Tensor, along: Tensor, weight: Tensor, fixed: Tensor, moving: Tensor) -> Tensor:
        """Derivative of the similarity along a direction of the displacement: (B,), differentiable in the images."""
        with torch.enable_grad():
            moved, slope = warp_directional(moving, displacement, along, self.matrix)
            at = moved if moved.requires_grad else moved.requires_grad_()
            (by_moved,) = torch.autograd.grad(self.similarity.similarity(at, fixed, weight).sum(), at, create_graph=True)
            return (by_moved * slope).flatten(1).sum(1)

    def _chunks(self, displacement: Tensor, fixed: Tensor, moving: Tensor) -> Iterator[tuple[slice, float]]:
        """Channels to look at together, and their share of all: all of them, but for a mean over channels without kernels."""
        channels = moving.shape[1]
        size = CHUNK if isinstance(self.similarity, MSE) and not usable(fixed, moving, displacement) else channels
        for first in range(0, channels, size):
            part = slice(first, min(first + size, channels))
            yield part, (part.stop - part.start) / channels

    def hessian_product(self, x: Tensor, direction: Tensor, *params: Tensor) -> Tensor:
        """The Gauss-Newton estimate of the similarity's second derivative, and that of the regularities.

        Raises:
            BadInput: the similarity has no curvature.
        """
        fixed, moving = (image.detach() for image in params)
        displacement, along = self._pushed(x, direction)
        weight, push = self._weight(moving, displacement), torch.zeros_like(displacement)
        for part, _ in self._chunks(displacement, fixed, moving):
            own = moving[:, part]
            slope = warp_directional(own, displacement, along, self.matrix)[1]
            with torch.enable_grad():
                u = displacement.detach().requires_grad_()
                moved = warp(own, u, self.matrix)
                bend = self.similarity.curvature(moved.detach(), fixed[:, part], weight)
                push += torch.autograd.grad(moved, u, bend * slope / moving.shape[1])[0]
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            (product,) = torch.autograd.grad(self.field(at), at, push)
            if not self.regularities:
                return product
            (force,) = torch.autograd.grad(self._smooth(self.field(at)).sum(), at, create_graph=True)
            return product + torch.autograd.grad(force, at, direction)[0]

    def _pushed(self, x: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """The displacement of parameters, and its derivative along a direction of them, both without a graph."""
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            displacement = self.field(at)
            weights = torch.zeros_like(displacement, requires_grad=True)
            (by_x,) = torch.autograd.grad(displacement, at, weights, create_graph=True)  # linear in the weights
            (along,) = torch.autograd.grad(by_x, weights, direction)
        return displacement.detach(), along.detach()

    def _weight(self, moving: Tensor, displacement: Tensor) -> Tensor:
        """Weight of every fixed voxel, zero where the moving image does not reach."""
        pair = self.level.pair
        with torch.no_grad():
            cover = warp_covered(moving[:, :1], displacement, self.matrix, pair.moving_weight)[1]
        return cover if pair.fixed_weight is None else cover * pair.fixed_weight

    def _smooth(self, displacement: Tensor) -> Tensor:
        terms = [term.weight * term.regularity(displacement, self.level.grid.spacing) for term in self.regularities]
        return sum(terms[1:], terms[0])

    def _smooth_directional(self, x: Tensor, direction: Tensor) -> Tensor | float:
        """What the regularities contribute, which depends on no image."""
        if not self.regularities:
            return 0.0
        at = x.detach().requires_grad_()
        (force,) = torch.autograd.grad(self._smooth(self.field(at)).sum(), at)
        return (force * direction).flatten(1).sum(1)

    def curvature(self, x: Tensor, *params: Tensor) -> Tensor:
        pair, (fixed, moving) = self.level.pair, params
        displacement = self.field(x)
        moved, weight = warp_covered(moving, displacement, self.matrix, pair.moving_weight)
        weight = weight if pair.fixed_weight is None else weight * pair.fixed_weight
        finest = min(self.level.grid.spacing)  # the unit of a dense family's steps
        slope = gradient(moved, tuple(s / finest for s in self.level.grid.spacing)).square().sum(2).mean(1, keepdim=True)
        return self.similarity.curvature(moved, fixed, weight) * slope
