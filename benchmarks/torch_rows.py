"""The torch rows that the kernels are measured against: `grid_sample` and `avg_pool3d` with autograd, as people write them.

They stand as they are, whatever happens to the package: the targets are ratios to these. All take (1, C, Z, Y, X) tensors; a
displacement is in voxels, its components in the order of the axes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = ["compose", "identity", "lncc_gradient", "mse_gradient", "warp"]


def identity(shape: tuple[int, ...]) -> Tensor:
    """Voxel coordinates (1, 3, Z, Y, X), made once."""
    return torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij"))[None]


def warp(moving: Tensor, displacement: Tensor, points: Tensor) -> Tensor:
    """The displacement as a normalised grid, then `grid_sample`."""
    size = torch.tensor(displacement.shape[2:], dtype=torch.float32).reshape(1, 3, 1, 1, 1)
    grid = (points + displacement) * (2 / (size - 1)) - 1
    grid = grid.permute(0, 2, 3, 4, 1).flip(-1)
    return F.grid_sample(moving, grid, mode="bilinear", padding_mode="border", align_corners=True)


def compose(outer: Tensor, inner: Tensor, points: Tensor) -> Tensor:
    """`inner(x) + outer(x + inner(x))`: three channels of `grid_sample`, and a sum."""
    return inner + warp(outer, inner, points)


def mse_gradient(fixed: Tensor, moving: Tensor, displacement: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared difference after the warp, and its gradient in the displacement."""
    displacement = displacement.detach().requires_grad_()
    value = (warp(moving, displacement, points) - fixed).square().mean()
    return value.detach(), torch.autograd.grad(value, displacement)[0]


def lncc_gradient(fixed: Tensor, moved: Tensor, width: int = 9) -> tuple[Tensor, Tensor]:
    """One minus the mean squared local correlation, separable `avg_pool3d`, and its gradient in the moved image."""
    moved = moved.detach().requires_grad_()

    def mean(volume: Tensor) -> Tensor:
        for axis in range(3):
            size = [1, 1, 1]
            size[axis] = width
            padding = [n // 2 for n in size]
            volume = F.avg_pool3d(volume, size, stride=1, padding=padding)
        return volume

    mean_fixed, mean_moved = mean(fixed), mean(moved)
    covariance = mean(fixed * moved) - mean_fixed * mean_moved
    var_fixed = mean(fixed * fixed) - mean_fixed * mean_fixed
    var_moved = mean(moved * moved) - mean_moved * mean_moved
    value = 1 - (covariance * covariance / (var_fixed * var_moved + 1e-8)).mean()
    return value.detach(), torch.autograd.grad(value, moved)[0]
