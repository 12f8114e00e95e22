"""What the kernels are measured on: made images and fields, our public functions, and the torch row of the same work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import torch_rows
from warpwright.energies.similarity import LNCC, MSE
from warpwright.sampling import warp
from warpwright.transforms import compose

__all__ = ["CASES", "Case", "Scene", "make_scene"]

LARGEST = 5.0  # voxels, of the displacements


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Two images (1, 1, *S) in [0, 1], two fields (1, 3, *S) in voxels, and what the torch rows prepare."""

    fixed: Tensor
    moving: Tensor
    displacement: Tensor
    inner: Tensor
    points: Tensor


def make_scene(shape: tuple[int, ...], seed: int = 0) -> Scene:
    """Smooth noise with a little white noise on it; the fields end at the border, so that every tool reads the same values."""
    generator = torch.Generator().manual_seed(seed)

    def smooth(channels: int, step: int) -> Tensor:
        coarse = torch.randn(1, channels, *(max(2, n // step) for n in shape), generator=generator)
        return F.interpolate(coarse, shape, mode="trilinear", align_corners=True)

    def image() -> Tensor:
        values = smooth(1, 6)
        values = (values - values.amin()) / (values.amax() - values.amin())
        return (0.9 * values + 0.1 * torch.rand(1, 1, *shape, generator=generator)).contiguous()

    rises = [torch.minimum(torch.arange(n), torch.arange(n).flip(0)).clamp(max=2 * int(LARGEST)) / (2 * LARGEST) for n in shape]
    window = torch.einsum("i,j,k->ijk", *rises)

    def field() -> Tensor:
        values = smooth(3, 16)
        return (values * (LARGEST / values.abs().amax()) * window).contiguous()

    return Scene(fixed=image(), moving=image(), displacement=field(), inner=field(), points=torch_rows.identity(shape))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operation.

    Args:
        name: for a person.
        ours: by the public functions of the package.
        theirs: the torch row.
        target: how many times less wall time ours is to take.
        ratio: how many times less CPU time than its torch twin ours must take on one thread; two thirds of what it does.
    """

    name: str
    ours: Callable[[Scene], Any]
    theirs: Callable[[Scene], Any]
    target: float
    ratio: float


def _lncc(scene: Scene) -> tuple[Tensor, Tensor]:
    moved = scene.moving.detach().requires_grad_()
    value = LNCC(radius=4).similarity(moved, scene.fixed).sum()
    return value.detach(), torch.autograd.grad(value, moved)[0]


def _mse(scene: Scene) -> tuple[Tensor, Tensor]:
    displacement = scene.displacement.detach().requires_grad_()
    value = MSE().match(scene.fixed, scene.moving, displacement).sum()
    return value.detach(), torch.autograd.grad(value, displacement)[0]


CASES = {
    "lncc": Case(
        name="LNCC 9^3, value and gradient in the moved image",
        ours=_lncc,
        theirs=lambda scene: torch_rows.lncc_gradient(scene.fixed, scene.moving),
        target=20,
        ratio=3,
    ),
    "mse": Case(
        name="warp + MSE, value and gradient in the field",
        ours=_mse,
        theirs=lambda scene: torch_rows.mse_gradient(scene.fixed, scene.moving, scene.displacement, scene.points),
        target=10,
        ratio=10,
    ),
    "warp": Case(
        name="warp",
        ours=lambda scene: warp(scene.moving, scene.displacement),
        theirs=lambda scene: torch_rows.warp(scene.moving, scene.displacement, scene.points),
        target=6,
        ratio=5,
    ),
    "compose": Case(
        name="compose",
        ours=lambda scene: compose(scene.displacement, scene.inner),
        theirs=lambda scene: torch_rows.compose(scene.displacement, scene.inner, scene.points),
        target=6,
        ratio=4,
    ),
}
