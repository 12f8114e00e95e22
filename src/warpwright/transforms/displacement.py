"""Displacement fields `x -> x + u(x)` in voxels of one grid: composition and inversion."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from warpwright.geometry import identity_points, jacobian, moved_points, spatial
from warpwright.kernels import as_operator, usable
from warpwright.sampling import inside, sample, splat

__all__ = ["compose", "inverse_residual", "invert"]


def compose(outer: Tensor, inner: Tensor, *, owned: bool = False) -> Tensor:
    """Displacement of `(Id + outer) o (Id + inner)`: `inner(x) + outer(x + inner(x))`; border values repeated outside.

    Args:
        outer: (B, D, *S), voxels.
        inner: (B, D, *S), voxels.
        owned: whether the memory of `inner`, which is not that of `outer`, may hold the result where there is no graph.

    Returns:
        (B, D, *S), voxels.
    """
    if not usable(outer, inner):
        return _plain_compose(outer, inner)
    batch = max(len(outer), len(inner))
    if owned and len(inner) == batch and not torch.is_grad_enabled():
        return _compiled_in_place(outer, inner.contiguous())
    return _compose(outer.expand(batch, *outer.shape[1:]), inner.expand(batch, *inner.shape[1:]))


def _plain_compose(outer: Tensor, inner: Tensor) -> Tensor:
    return inner + sample(outer, moved_points(inner))


def _compiled_compose(outer: Tensor, inner: Tensor) -> Tensor:
    from warpwright.kernels import warping

    return warping.compose(outer, inner)


def _compiled_in_place(outer: Tensor, inner: Tensor) -> Tensor:
    from warpwright.kernels import warping

    return warping.compose(outer, inner, in_place=True)


def _compiled_gradient(cotangent: Tensor, outer: Tensor, inner: Tensor) -> Tensor:
    from warpwright.kernels import warping

    return warping.warp_gradient(cotangent, outer, inner, None, by_affine=False).add_(cotangent)


def _like_last(*fields: Tensor) -> Tensor:
    return torch.empty_like(fields[-1], memory_format=torch.contiguous_format)


def _backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    outer, inner = ctx.saved_tensors
    by_outer = splat(cotangent, moved_points(inner), spatial(outer)) if ctx.needs_input_grad[0] else None
    return by_outer, _compose_gradient(cotangent, outer, inner) if ctx.needs_input_grad[1] else None


_compose_gradient = as_operator("compose_gradient", _compiled_gradient, fake=_like_last)
_compose = as_operator("compose", _compiled_compose, fake=_like_last, backward=_backward, twin=_plain_compose)


def invert(displacement: Tensor, *, tolerance: float = 1e-3, max_steps: int = 15) -> tuple[Tensor, float]:
    """Displacement w of the inverse map, `w(y) = -u(y + w(y))`.

    Relaxed fixed-point iteration of the whole field (Chen et al., Medical Physics 35 (2008), doi 10.1118/1.2816107),
    begun from the displacements splatted to where they lead; the voxels that still miss (strong compression, where the
    fixed point is no contraction) are finished by Newton's method. Where a map folds, one of several preimages is found.
    No gradient flows through the kernel: where one is wanted, the steps are recorded in plain torch.

    Args:
        displacement: (B, D, *S), voxels.
        tolerance: largest residual at which to stop, voxels.
        max_steps: bound on the iterations of each kind.

    Returns:
        w (B, D, *S), voxels, and the residual: the largest |w + u(y + w)| (voxels) over the voxels whose point
        `y + w` lies in the grid (elsewhere u is not known); 0 if there is none.
    """
    if usable(displacement) and not (displacement.requires_grad and torch.is_grad_enabled()):
        from warpwright.kernels import inversion

        return inversion.invert(displacement, tolerance, max_steps)
    inverse = _splatted(displacement)
    relaxation = torch.ones_like(displacement[:, :1])
    previous = torch.full_like(relaxation, torch.inf)
    for _ in range(max_steps):
        error, norm, worst = _defect(displacement, inverse)
        if worst <= tolerance:
            return inverse, worst
        relaxation = torch.where(norm > previous, relaxation / 2, relaxation)
        previous = norm
        inverse = inverse.addcmul(relaxation, error, value=-1)
    inverse = torch.cat([_newton(u, w, tolerance, max_steps) for u, w in zip(displacement, inverse, strict=True)])
    return inverse, _defect(displacement, inverse)[2]


def _splatted(displacement: Tensor) -> Tensor:
    """-u carried to where it leads, averaged; -u itself where nothing arrives."""
    shape = spatial(displacement)
    points = identity_points(shape, dtype=displacement.dtype, device=displacement.device) + displacement
    values = [-displacement[:, d : d + 1] for d in range(len(shape))] + [torch.ones_like(displacement[:, :1])]
    carried = torch.cat([splat(value, points, shape, outside="zero") for value in values], 1)  # one at a time: less memory
    return torch.where(carried[:, -1:] > 0.1, carried[:, :-1] / carried[:, -1:].clamp_min(0.1), -displacement)


def _newton(displacement: Tensor, inverse: Tensor, tolerance: float, max_steps: int) -> Tensor:
    """Damped Newton steps on the voxels of one sample that miss: (D, *S) fields to (1, D, *S)."""
    shape, dim = tuple(displacement.shape[1:]), len(displacement)
    field, flat = displacement[None], inverse.flatten(1).clone()
    slopes = jacobian(field).flatten(1, 2)
    identity = identity_points(shape, dtype=flat.dtype, device=flat.device)[0].flatten(1)

    def defect(index: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        points = (identity[:, index] + w)[None]
        error = w + sample(field, points)[0]
        return error, error.square().sum(0).sqrt(), points

    _, norm, points = defect(torch.arange(flat.shape[1], device=flat.device), flat)
    missing = ((norm > tolerance) & inside(points, shape)[0, 0]).nonzero()[:, 0]
    damping = torch.ones_like(norm[missing])
    for _ in range(max_steps):
        if len(missing) == 0:
            break
        error, norm, points = defect(missing, flat[:, missing])
        matrix = sample(slopes, points)[0].T.reshape(-1, dim, dim)
        matrix = matrix + 1e-3 * torch.eye(dim, dtype=flat.dtype, device=flat.device)
        step = cast(Tensor, torch.linalg.solve(matrix, error.T))  # pyright: ignore[reportUnknownMemberType]: not annotated
        trial = flat[:, missing] - damping * step.T
        _, after, _ = defect(missing, trial)
        better = after < norm
        flat[:, missing] = torch.where(better, trial, flat[:, missing])
        damping = torch.where(better, (2 * damping).clamp_max(1), damping / 2)
        keep = torch.where(better, after, norm) > tolerance
        missing, damping = missing[keep], damping[keep]
    return flat.reshape(1, dim, *shape)


def inverse_residual(displacement: Tensor, inverse: Tensor) -> float:
    """Largest |w + u(y + w)| (voxels) over the voxels whose point `y + w` lies in the grid.

    Args:
        displacement: u, (B, D, *S), voxels.
        inverse: w, (B, D, *S), voxels.
    """
    if usable(displacement, inverse) and len(displacement) == len(inverse):
        from warpwright.kernels import inversion

        return inversion.residual(displacement, inverse)
    return _defect(displacement, inverse)[2]


def _defect(displacement: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, float]:
    """`w + u(y + w)`, its length, and the largest length where u is known."""
    points = identity_points(spatial(inverse), dtype=inverse.dtype, device=inverse.device) + inverse
    error = sample(displacement, points).add_(inverse)
    norm = error.square().sum(1, keepdim=True).sqrt()
    return error, norm, float((norm * inside(points, spatial(displacement))).detach().max())
