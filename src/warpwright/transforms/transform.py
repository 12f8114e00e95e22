"""Maps of world points to world points, RAS+ mm, and their algebra.

`f @ g` is `x -> f(g(x))` for every pair. A registration maps points of the fixed image to points of the moving image
(so it resamples the moving image onto the fixed grid) and is kept as `Affine @ DisplacementField`: the displacement acts
first, in the fixed grid's frame. Points are float64 tensors (N, D), on any device; what a transform reads may lie on
another one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import product
from typing import cast

import numpy as np
import torch
from torch import Tensor

from warpwright.errors import BadInput
from warpwright.geometry import Grid, identity_points, transform_points
from warpwright.sampling import inside, sample
from warpwright.transforms.bspline import bspline_displacement
from warpwright.transforms.displacement import invert
from warpwright.transforms.velocity import exp
from warpwright.transforms.words import affine_text, length_text

__all__ = [
    "Affine",
    "BSplineField",
    "Composite",
    "DisplacementField",
    "Transform",
    "VelocityField",
    "displacement_on",
    "expanded",
    "residual_of",
    "split",
    "worked_on",
]

SLAB = 1 << 19  # points worked on at a time, so that float64 temporaries stay small


class Transform(ABC):
    """A map of world points (N, D) to world points (N, D), mm."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Number of axes."""

    @property
    def device(self) -> torch.device:
        """Where the tensors of the map lie; the CPU if it has none."""
        return torch.device("cpu")

    @abstractmethod
    def __call__(self, points: Tensor) -> Tensor:
        """Map world points: (N, D) float64, mm, to (N, D)."""

    @abstractmethod
    def inverse(self) -> Transform:
        """The map back; numerical for fields (`residual_of` tells how good)."""

    def __matmul__(self, other: Transform) -> Transform:
        """`(f @ g)(x) = f(g(x))`; neighbouring affines are multiplied.

        Raises:
            BadInput: the two differ in their number of axes.
        """
        if self.dim != other.dim:
            raise BadInput(f"transforms that are composed need the same number of axes, got {self.dim} and {other.dim}")
        parts = [*_parts(self), *_parts(other)]
        joined: list[Transform] = []
        for part in parts:
            if joined and isinstance(part, Affine) and isinstance(joined[-1], Affine):
                joined[-1] = Affine(joined[-1].matrix @ part.matrix)
            else:
                joined.append(part)
        return joined[0] if len(joined) == 1 else Composite(tuple(joined))


def _parts(transform: Transform) -> tuple[Transform, ...]:
    if not isinstance(transform, Composite):
        return (transform,)
    return tuple(inner for part in transform.parts for inner in _parts(part))


def residual_of(transform: Transform) -> float:
    """The largest `residual` of the displacement fields in a transform, voxels of their grids; 0 without one."""
    return max((part.residual for part in _parts(transform) if isinstance(part, DisplacementField)), default=0.0)


def expanded(transform: Transform) -> Transform:
    """The same map with every velocity replaced by its flow, for many calls: a velocity is integrated in each call."""
    parts = tuple(part.displacement_field() if isinstance(part, VelocityField) else part for part in _parts(transform))
    return parts[0] if len(parts) == 1 else Composite(parts)


@dataclass(frozen=True, eq=False, repr=False)
class Affine(Transform):
    """`x -> matrix (x, 1)`.

    Args:
        matrix: (D+1, D+1) world to world; copied to float64.

    Raises:
        BadInput: the matrix is not square homogeneous, not finite, or singular.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from warpwright import Affine
        >>> quarter = Affine(np.array([[0.0, -1.0, 5.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
        >>> quarter
        <Affine 2-D: turns by 90 degrees, stretches by 1 to 1, moves the origin by (5, 0) mm>
        >>> quarter(torch.tensor([[2.0, 0.0]], dtype=torch.float64)).tolist()
        [[5.0, 2.0]]
        >>> quarter @ quarter.inverse()
        <Affine 2-D: identity>
    """

    matrix: np.ndarray

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape not in ((3, 3), (4, 4)) or not np.allclose(matrix[-1], np.eye(len(matrix))[-1]):
            raise BadInput(f"an affine is a 3 x 3 or 4 x 4 homogeneous matrix, got shape {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise BadInput("an affine must be finite, it holds NaN or inf")
        steps = np.linalg.norm(matrix[:-1, :-1], axis=0)
        if not steps.all() or abs(np.linalg.det(matrix[:-1, :-1] / steps)) < 1e-9:
            raise BadInput("an affine must be invertible, it is singular (columns are zero or parallel)")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    def __repr__(self) -> str:
        return f"<Affine {self.dim}-D: {affine_text(self.matrix)}>"

    @classmethod
    def identity(cls, dim: int) -> Affine:
        """The map that moves nothing."""
        return cls(np.eye(dim + 1))

    @property
    def dim(self) -> int:
        return len(self.matrix) - 1

    def __call__(self, points: Tensor) -> Tensor:
        return transform_points(self.matrix, points)

    def inverse(self) -> Affine:
        return Affine(np.linalg.inv(self.matrix))


@dataclass(frozen=True, eq=False, repr=False)
class DisplacementField(Transform):
    """`x -> x + u(x)` on a grid, linear between voxels, zero outside (as ITK has it).

    Args:
        displacement: (D, *S), voxels of the grid, axis order.
        grid: where the S voxels are.
        residual: of a field that is a numerical inverse: how far it leads from where it should, at worst, voxels (see
            `invert`); 0 for any other field.

    Raises:
        BadInput: the field does not fit the grid.
    """

    displacement: Tensor
    grid: Grid
    residual: float = 0.0

    def __post_init__(self) -> None:
        if tuple(self.displacement.shape) != (self.grid.dim, *self.grid.shape):
            raise BadInput(
                f"a displacement on a grid of {self.grid.shape} has shape {(self.grid.dim, *self.grid.shape)},"
                f" got {tuple(self.displacement.shape)}"
            )

    def __repr__(self) -> str:
        known = f", an inverse off by at most {self.residual:.2g} voxels" if self.residual else ""
        return f"<DisplacementField on {self.grid.text}: moves by {length_text(self.displacement, self.grid)}{known}>"

    @property
    def dim(self) -> int:
        return self.grid.dim

    def __call__(self, points: Tensor) -> Tensor:
        voxels = self.grid.to_voxel(points)
        return self.grid.to_world(voxels + _sample_field(self.displacement, voxels))

    @property
    def device(self) -> torch.device:
        return self.displacement.device

    def inverse(self) -> DisplacementField:
        inverse, residual = invert(self.displacement[None])
        return DisplacementField(inverse[0], self.grid, residual)


@dataclass(frozen=True, eq=False, repr=False)
class VelocityField(Transform):
    """The flow of a stationary velocity after unit time.

    Args:
        velocity: (D, *S), voxels of the grid per unit time.
        grid: where the S voxels are.
        steps: squarings of the exponential.
    """

    velocity: Tensor
    grid: Grid
    steps: int = 7

    def __repr__(self) -> str:
        speed = length_text(self.velocity, self.grid)
        return f"<VelocityField on {self.grid.text}: {speed}, per unit time, {self.steps} squarings>"

    @property
    def dim(self) -> int:
        return self.grid.dim

    @property
    def device(self) -> torch.device:
        return self.velocity.device

    def displacement_field(self) -> DisplacementField:
        """The dense field of the flow."""
        return DisplacementField(exp(self.velocity[None], self.steps)[0], self.grid)

    def __call__(self, points: Tensor) -> Tensor:
        return self.displacement_field()(points)

    def inverse(self) -> VelocityField:
        return VelocityField(-self.velocity, self.grid, self.steps)


@dataclass(frozen=True, eq=False, repr=False)
class BSplineField(Transform):
    """`x -> x + u(x)` with u a cubic B-spline; zero outside the grid.

    Args:
        control: (D, *K) coefficients, voxels of the grid (`transforms.bspline`).
        knots: voxels between knots along each axis.
        grid: the dense grid the lattice was made for.
    """

    control: Tensor
    knots: tuple[float, ...]
    grid: Grid

    def __repr__(self) -> str:
        lattice = " x ".join(str(n) for n in self.control.shape[1:])
        lengths = length_text(self.control, self.grid)
        return f"<BSplineField of {lattice} control points on {self.grid.text}: coefficients {lengths}>"

    @property
    def dim(self) -> int:
        return self.grid.dim

    @property
    def device(self) -> torch.device:
        return self.control.device

    def displacement_field(self) -> DisplacementField:
        """The spline evaluated at every voxel."""
        return DisplacementField(bspline_displacement(self.control[None], self.grid.shape, self.knots)[0], self.grid)

    def __call__(self, points: Tensor) -> Tensor:
        voxels = self.grid.to_voxel(points)
        knots = torch.tensor(self.knots, dtype=voxels.dtype, device=voxels.device)
        place = voxels / knots + 1
        base = place.floor()
        t = place - base
        weights = torch.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3]) / 6
        flat = self.control.flatten(1).to(voxels)
        total = torch.zeros_like(voxels)
        for offset in product(range(4), repeat=self.dim):
            weight = torch.ones_like(voxels[:, 0])
            index = torch.zeros_like(voxels[:, 0], dtype=torch.long)
            for axis, k in enumerate(offset):
                n = self.control.shape[axis + 1]
                at = base[:, axis].long() - 1 + k
                weight = weight * weights[k, :, axis] * ((at >= 0) & (at < n))
                index = index * n + at.clamp(0, n - 1)
            total = total + weight[:, None] * flat[:, index].T
        known = inside(voxels.T[None], self.grid.shape)[0, 0]
        return self.grid.to_world(voxels + total * known[:, None])

    def inverse(self) -> DisplacementField:
        return self.displacement_field().inverse()


@dataclass(frozen=True, eq=False, repr=False)
class Composite(Transform):
    """`parts[0] o parts[1] o ...`: the last part acts first."""

    parts: tuple[Transform, ...]

    def __post_init__(self) -> None:
        if len({part.dim for part in self.parts}) != 1:
            raise BadInput("transforms that are composed must have the same number of axes")

    def __repr__(self) -> str:
        parts = "".join(f"\n  {part!r}" for part in self.parts)
        return f"<Composite {self.dim}-D, the last acts first:{parts}>"

    @property
    def dim(self) -> int:
        return self.parts[0].dim

    @property
    def device(self) -> torch.device:
        devices = [part.device for part in self.parts]
        return next((device for device in devices if device.type != "cpu"), devices[0])

    def __call__(self, points: Tensor) -> Tensor:
        for part in reversed(self.parts):
            points = part(points)
        return points

    def inverse(self) -> Transform:
        return Composite(tuple(part.inverse() for part in reversed(self.parts)))


def _sample_field(field: Tensor, voxels: Tensor) -> Tensor:
    """A (D, *S) field at (N, D) voxel points, zero outside the grid: (N, D)."""
    at = voxels.T[None].contiguous().to(field.device)
    known = inside(at, tuple(field.shape[1:]))
    return (sample(field[None], at.to(torch.promote_types(field.dtype, torch.float32))) * known)[0].T.to(voxels)


def displacement_on(transform: Transform, grid: Grid) -> Tensor:
    """The whole map as one field: (D, *S) float32, voxels of `grid`, `u(x) = grid.to_voxel(transform(x)) - x`.

    On the device of the transform.
    """
    transform = expanded(transform)
    out = torch.empty(grid.dim, grid.size, dtype=torch.float32, device=transform.device)
    flat = identity_points(grid.shape, dtype=torch.float32, device=transform.device)[0].flatten(1)
    for begin in range(0, grid.size, SLAB):
        voxels = flat[:, begin : begin + SLAB].T.to(torch.float64)
        mapped = grid.to_voxel(transform(grid.to_world(voxels)))
        out[:, begin : begin + SLAB] = (mapped - voxels).T
    return out.reshape(grid.dim, *grid.shape)


def _leading(transform: Transform) -> tuple[Affine, tuple[Transform, ...]]:
    """The affine that acts last (or the identity) and the parts before it."""
    first, *rest = _parts(transform)
    return (first, tuple(rest)) if isinstance(first, Affine) else (Affine.identity(transform.dim), (first, *rest))


def worked_on(transform: Transform, grid: Grid) -> bool:
    """Whether `split` on this grid is exact: an affine, or `Affine @ DisplacementField` on this very grid."""
    _, rest = _leading(transform)
    return not rest or (len(rest) == 1 and isinstance(rest[0], DisplacementField) and rest[0].grid.same_as(grid))


def split(transform: Transform, grid: Grid) -> tuple[Affine, DisplacementField]:
    """A transform as `Affine @ DisplacementField` with the field on `grid`, the form that registration works in.

    Exact for an affine and for `Affine @ DisplacementField` on this very grid; otherwise the rest of the map behind its
    leading affine is flattened to one field (its values outside the grid are lost).
    """
    affine, rest = _leading(transform)
    if not rest:
        return affine, DisplacementField(torch.zeros(grid.dim, *grid.shape), grid)
    if worked_on(transform, grid):
        return affine, cast(DisplacementField, rest[0])
    return affine, DisplacementField(displacement_on(Composite(rest), grid), grid)
