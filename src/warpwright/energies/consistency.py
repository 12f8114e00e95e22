"""How far two maps are from being each other's inverse, and the derivative of that: ICON and GradICON.

A map takes points (B, D, N) to points (B, D, N), in whatever coordinates; a displacement field stands for `x -> x + u(x)`,
voxels of its grid, linear between voxels and constant beyond them; a `Transform` is one of world points, mm. Both penalties
look at random points that the caller gives.

Reference: Greer et al., ICON, ICCV 2021; Tian et al., GradICON, CVPR 2023, equations 3 and 13. As in the authors' code, squares
are averaged over components (the papers sum them): a weight of 1.5 belongs to this form. Their derivative is by axes of a unit
cube, ours by the coordinates of the points, so the two differ where the sides of an image do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from warpwright.energies.regularity import mean_square
from warpwright.errors import BadInput
from warpwright.geometry import full_precision, identity_points, spatial
from warpwright.sampling import sample
from warpwright.transforms import Transform

__all__ = ["FieldMap", "Map", "check_every", "gradient_inverse_consistency", "inverse_consistency", "sampling_points"]

Map = Callable[[Tensor], Tensor]
Given = Map | Tensor | Transform


@runtime_checkable
class Differentiable(Protocol):
    """A map that knows its derivative."""

    def __call__(self, points: Tensor) -> Tensor: ...

    def jacobian(self, points: Tensor) -> Tensor:
        """(B, D, D, N), derivative of component i (axis 1) by coordinate j (axis 2)."""
        ...


class FieldMap:
    """`x -> x + u(x)`, voxels.

    Args:
        displacement: u, (B, D, *S), voxels.
    """

    def __init__(self, displacement: Tensor) -> None:
        self.displacement = displacement

    def __call__(self, points: Tensor) -> Tensor:
        """(B, D, N) to (B, D, N); one batch for another of 1."""
        return points + sample(self.displacement, points)

    def jacobian(self, points: Tensor) -> Tensor:
        """The derivative of the linear interpolant, (B, D, D, N); beyond the grid that of the identity.

        On a face between cells it is that of the cell above.
        """
        dim = points.shape[1]
        floor = points.detach().floor()
        columns: list[Tensor] = []
        for axis in range(dim):
            low, high = (torch.cat([points[:, :axis], end, points[:, axis + 1 :]], 1) for end in _ends(floor, axis))
            columns.append(sample(self.displacement, high) - sample(self.displacement, low))
        unit = torch.eye(dim, dtype=points.dtype, device=points.device)
        return torch.stack(columns, 2) + unit[..., None]


class WorldMap:
    """A transform as a map of points (B, D, N), mm, the same for every batch; it works in float64.

    Args:
        transform: of world points.
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, points: Tensor) -> Tensor:
        """(B, D, N) to (B, D, N)."""
        batch, dim, count = points.shape
        found = self.transform(points.transpose(1, 2).reshape(-1, dim).to(torch.float64))
        return found.reshape(batch, count, dim).transpose(1, 2)

    def jacobian(self, points: Tensor) -> Tensor:
        """The derivative of the transform as it is evaluated, (B, D, D, N), without a graph to what it is made of."""
        with torch.enable_grad():
            at = points.detach().to(torch.float64).requires_grad_()
            found = self(at)
            rows = [torch.autograd.grad(found[:, k].sum(), at, retain_graph=True)[0] for k in range(points.shape[1])]
        return torch.stack(rows, 1)


def _ends(floor: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Where the cell of each point begins and ends along an axis."""
    low = floor[:, axis : axis + 1]
    return low, low + 1


def inverse_consistency(there: Given, back: Given, points: Tensor) -> Tensor:
    """Mean squared distance of a point from its start after both maps, in both orders, by component (ICON).

    Args:
        there: a map, the displacement of one, (B, D, *S) voxels, or a transform.
        back: the other one.
        points: (B, D, *N), in the coordinates of the maps.

    Returns:
        (B,), squared units of the points, >= 0; 0 for inverses of each other.

    Raises:
        BadInput: two displacements on different grids, or a transform of world points with a displacement in voxels.
    """
    a, b = _maps(there, back)
    with full_precision(points):
        at = points.flatten(2)
        return (mean_square(a(b(at)) - at) + mean_square(b(a(at)) - at)) / at.shape[1]


def gradient_inverse_consistency(
    there: Given,
    back: Given,
    points: Tensor,
    *,
    derivative: Literal["difference", "exact"] = "difference",
    step: float | None = None,
) -> Tensor:
    """Mean square of the derivative of `there(back(x)) - x`: over points and components, summed over axes (GradICON).

    That is `E ||D(there o back) - I||_F^2 / D`. A constant shift costs nothing, so a pair of maps need not agree on one.

    Args:
        there: a map, the displacement of one, (B, D, *S) voxels, or a transform.
        back: the other one, which acts first.
        points: (B, D, *N), in the coordinates of the maps.
        derivative: "difference" compares with points a step farther along each axis; "exact" multiplies the derivatives of
            the interpolants, which for transforms is a figure and nothing to learn by.
        step: of the difference, in the coordinates of the points; None for 0.1 of displacements (voxels) and transforms (mm),
            1e-3 of other maps (a unit cube, as published). Single precision wants about 1e-3 of the extent of an image.

    Returns:
        (B,), >= 0, without unit.

    Raises:
        BadInput: two displacements on different grids, a transform of world points with a displacement in voxels, an exact
            derivative of a map that does not know it, another derivative than these, or a step that is not above 0.
    """
    a, b = _maps(there, back)
    if derivative not in ("difference", "exact"):
        raise BadInput(f"the derivative of inverse consistency is {derivative!r}, expected 'difference' or 'exact'")
    if step is None:
        step = 0.1 if isinstance(a, (FieldMap, WorldMap)) or isinstance(b, (FieldMap, WorldMap)) else 1e-3
    if not step > 0:
        raise BadInput(f"the step of a difference must be above 0, got {step}")
    with full_precision(points):
        at = points.flatten(2)
        if derivative == "difference":
            return _by_difference(a, b, at, step)
        if not isinstance(a, Differentiable) or not isinstance(b, Differentiable):
            raise BadInput(
                "an exact derivative needs displacement fields, transforms, or maps with a jacobian: expected derivative"
                " 'difference'"
            )
        product = torch.einsum("bijn,bjkn->bikn", *_expanded(a.jacobian(b(at)), b.jacobian(at)))
        unit = torch.eye(at.shape[1], dtype=at.dtype, device=at.device)
        return (product - unit[..., None]).square().sum(2).flatten(1).mean(1)


def _by_difference(a: Map, b: Map, at: Tensor, step: float) -> Tensor:
    """All displaced points are evaluated at once. Errors, not maps, are subtracted: they are small, so digits last."""
    dim, count = at.shape[1:]
    offsets = step * torch.eye(dim, dtype=at.dtype, device=at.device)
    every = torch.cat([at, *(at + offsets[:, axis, None] for axis in range(dim))], 2)
    error = a(b(every)) - every
    error = error.reshape(len(error), dim, dim + 1, count)
    slopes = (error[:, :, 1:] - error[:, :, :1]) / step
    return slopes.square().sum(2).flatten(1).mean(1)


def sampling_points(
    shape: tuple[int, ...],
    *,
    every: int = 2,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Points of a grid, each moved at random: normal with a deviation of the distance between them, so some lie outside.

    Args:
        shape: S, of the grid.
        every: voxels between points along each axis.
        generator: what the moves are drawn from, on the CPU; None for torch's own.
        dtype: of the points.
        device: of the points.

    Returns:
        (1, D, *ceil(S / every)), voxels.

    Raises:
        BadInput: `every` is below 1.
    """
    check_every(every)
    grid = identity_points(shape, dtype=dtype, device=torch.device("cpu"))[(..., *(slice(None, None, every),) * len(shape))]
    return (grid + every * torch.randn(grid.shape, generator=generator, dtype=grid.dtype)).to(device)


def _maps(there: Given, back: Given) -> tuple[Map, Map]:
    a, b = _map(there), _map(back)
    if isinstance(a, FieldMap) and isinstance(b, FieldMap) and spatial(a.displacement) != spatial(b.displacement):
        grids = f"{spatial(a.displacement)} and {spatial(b.displacement)}"
        raise BadInput(f"two displacements of inverse maps lie on grids of {grids}, expected one grid")
    kinds = {type(found) for found in (a, b)}
    if kinds == {FieldMap, WorldMap}:
        raise BadInput(
            "a transform maps world points and a displacement those of its grid: expected two of one kind, as DisplacementField"
        )
    return a, b


def check_every(every: int) -> None:
    """Refuse, with `BadInput`, points that lie closer than voxels."""
    if every < 1:
        raise BadInput(f"points are sampled every 1 voxel or more, got {every}")


def _map(given: Given) -> Map:
    if isinstance(given, Tensor):
        return FieldMap(given)
    return WorldMap(given) if isinstance(given, Transform) else given


def _expanded(*values: Tensor) -> tuple[Tensor, ...]:
    batch = max(len(v) for v in values)
    return tuple(v.expand(batch, *v.shape[1:]) for v in values)
