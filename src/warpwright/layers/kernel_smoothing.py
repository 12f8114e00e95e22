"""A learned smoothing kernel on the raw field of a network.

A map that minimises an image term and a regulariser `|L T|^2` lies in the Hilbert space whose kernel k is the Green's function
of `L* L`: each component is `T = K a` with the Gram matrix K of k on the lattice. Here a network gives the coefficients a and
the layer multiplies by K. For a kernel that is stationary and a product over the axes this is a convolution with the samples of
k, zeros outside; the kernel is not chosen but learned, and held to what makes it one (`kernel_properties`).

Reference: Al Safadi and Song, Meta-Regularization, CVPR 2021. Not known from it, and ours: a kernel for each component, no
bias, the start, sum 1. Its kernel is the form "free" with 13 taps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from warpwright.errors import BadInput, Failed
from warpwright.geometry import full_precision, spatial
from warpwright.layers.base import FieldLayer, LayerSettings
from warpwright.layers.integration import Integration
from warpwright.layers.kernel_forms import Autocorrelation, Free, Gaussian, Kernel, Line, Product, Separable, UpperProduct
from warpwright.layers.kernel_properties import (
    asymmetry,
    diagnostics,
    eq12_asymmetry,
    negative_spectrum,
    spread_of_rank,
    traces,
)
from warpwright.networks import ControlPoints, Displacement, Estimate, Velocity

__all__ = ["KernelPenalty", "KernelSmoothing", "SmoothingKernel", "smoothed_by"]

Form = Literal["free", "uut", "separable", "autocorrelation", "gaussian"]
Padding = Literal["zeros", "replicate"]
CONVOLVE = {2: F.conv2d, 3: F.conv3d}
PADDED: dict[Padding, str] = {"zeros": "constant", "replicate": "replicate"}  # as torch calls it
ALIKE = 1e-3  # spacings that differ by less, relative to each other, are equal


@dataclass(frozen=True, kw_only=True)
class KernelPenalty:
    """What is added to the loss for a kernel; sums over components.

    Args:
        symmetry: weight of the departure from symmetry, rho1.
        group: "eq12" as printed (kernels of two axes with equal spacing), "full" mirrors and swaps of all axes.
        positivity: weight of what keeps the kernel positive, rho2.
        by: "linear" rewards large traces, as printed, and has no lower bound; "hinge" penalises negative ones, as the text
            says; "spectral" penalises a negative spectrum, which theory asks for.
        rank: weight of the share of the kernel that is no product.

    Raises:
        BadInput: a weight is negative or not finite.
    """

    symmetry: float = 1.0
    group: Literal["eq12", "full"] = "full"
    positivity: float = 1.0
    by: Literal["linear", "hinge", "spectral"] = "spectral"
    rank: float = 0.1

    def __post_init__(self) -> None:
        if not all(0 <= weight < math.inf for weight in (self.symmetry, self.positivity, self.rank)):
            raise BadInput(f"weights of a kernel's penalty must be at least 0 and finite, got {self}")

    def of(self, kernels: Tensor, groups: tuple[int, ...]) -> Tensor:
        """The penalty of kernels (C, *m), ()."""
        total = kernels.new_zeros(len(kernels))
        if self.symmetry:
            off = eq12_asymmetry(kernels) if self.group == "eq12" else asymmetry(kernels, groups)
            total = total + self.symmetry * off
        if self.positivity:
            total = total + self.positivity * self._negative(kernels)
        if self.rank:
            total = total + self.rank * spread_of_rank(kernels)
        return total.sum()

    def _negative(self, kernels: Tensor) -> Tensor:
        if self.by == "spectral":
            return negative_spectrum(kernels)
        found = -traces(kernels)
        return (found if self.by == "linear" else found.relu()).sum(1)


@dataclass(frozen=True, kw_only=True)
class KernelSmoothing(LayerSettings):
    """A learned convolution of each component of a displacement, a velocity or control points, before any integration.

    Args:
        form: "free" has a weight for each tap, "uut" is a positive definite matrix (two axes), "separable" a product of
            palindromes, "autocorrelation" a product of positive ones, "gaussian" has its width alone. Products run axis by
            axis.
        taps: along each axis, odd.
        shared: one kernel for all components, or one for each.
        start: a Gaussian of sigma taps / 6 (voxels of the finest axis; "autocorrelation" is that of a Gaussian cut off, up to
            7 % narrower), or a delta, which does nothing.
        padding: of the field; zeros make the Gram matrix exact and pull the border down, "replicate" does not.
        normalised: kernels are divided by their sum, so that a translation stays one; "gaussian" always is.
        spacing: of the voxels along each axis, in any unit; None for the spacing of the model's preparation, or for cubes where
            it has none. A Gaussian is as wide in mm along every axis of a lattice of equal factors and knots, and axes that
            differ have lines of their own.
        penalty: what keeps the kernel a kernel, of which a form leaves out what it cannot break; None for nothing.

    Raises:
        BadInput: the taps are even or not positive, or the spacing is not positive and finite.
    """

    form: Form = "separable"
    taps: int = 13
    shared: bool = False
    start: Literal["gaussian", "delta"] = "gaussian"
    padding: Padding = "zeros"
    normalised: bool = True
    spacing: tuple[float, ...] | None = None
    penalty: KernelPenalty | None = KernelPenalty()

    def __post_init__(self) -> None:
        if self.taps < 1 or self.taps % 2 == 0:
            raise BadInput(f"a smoothing kernel needs an odd number of taps, at least 1, got {self.taps}")
        if self.spacing is not None and not (self.spacing and all(0 < s < math.inf for s in self.spacing)):
            raise BadInput(f"a smoothing kernel needs a finite spacing above 0 along each axis, got {self.spacing}")
        if self.form == "gaussian" and self.start == "delta":
            raise BadInput("a smoothing kernel of the form gaussian has a width to learn: expected start = 'gaussian'")

    def for_spacing(self, spacing: tuple[float, ...] | None) -> KernelSmoothing:
        return self if self.spacing is not None else replace(self, spacing=spacing)

    def build(self, dim: int) -> SmoothingKernel:
        return SmoothingKernel(self, dim)


class SmoothingKernel(FieldLayer):
    """As `KernelSmoothing` says.

    Raises:
        BadInput: spacing and axes do not fit, or the form or the penalty is for other axes.
    """

    name: ClassVar[str] = "kernelsmoothing"
    accepts: ClassVar[tuple[type[Estimate], ...]] = (Displacement, Velocity, ControlPoints)

    def __init__(self, settings: KernelSmoothing, dim: int) -> None:
        super().__init__()
        spacing = settings.spacing or (1.0,) * dim
        if len(spacing) != dim:
            raise BadInput(f"a smoothing kernel of {dim} axes needs a spacing for each, got {spacing}")
        self.settings, self.dim, self.groups = settings, dim, alike(spacing)
        self.sizes = tuple(s / min(spacing) for s in spacing)
        if settings.form == "uut" and (dim != 2 or max(self.groups)):
            raise BadInput(f"the form uut is for kernels of 2 axes with equal spacing, got {dim} axes of {spacing}")
        widest = 0.0 if settings.start == "delta" else settings.taps / 6
        begin = tuple(Line(settings.taps, widest * min(spacing) / s) for s in spacing)
        self.kernel = made(settings.form, begin, self.groups, 1 if settings.shared else dim)
        self.held = held(settings.penalty, self.kernel)
        printed = self.held is not None and self.held.symmetry > 0 and self.held.group == "eq12"
        if printed and (dim != 2 or max(self.groups)):
            raise BadInput(f"equation 12 is for kernels of 2 axes with equal spacing, got {dim} axes of {spacing}")

    def check_after(self, layers: Sequence[FieldLayer]) -> None:
        if any(isinstance(layer, Integration) for layer in layers):
            raise BadInput(f"the layer {self.name} smooths the raw field, expected it before the layer {Integration.name}")

    def apply_to(self, estimate: Estimate) -> Estimate:
        given = cast(Displacement | Velocity | ControlPoints, estimate)
        if isinstance(given, Displacement) and given.inverse is not None:
            raise BadInput(
                f"the layer {self.name} smooths a raw field, this one has an inverse that would no longer be its own"
            )
        with full_precision(given.values):
            parts = self.kernel.lines() if isinstance(self.kernel, Product) else (self.kernel.dense(),)
            return replace(given, values=smoothed_by(given.values, self._scaled(parts), self.settings.padding))

    def kernels(self) -> Tensor:
        """(C, *m) as they are applied, C = 1 if the components share theirs."""
        return self._scaled((self.kernel.dense(),))[0]

    def penalty(self) -> Tensor | None:
        return None if self.held is None else self.held.of(self.kernels(), self.groups)

    def figures(self) -> dict[str, float]:
        if not bool(self.kernels().isfinite().all()):
            raise Failed(f"a kernel of the layer {self.name} is not finite: its taps sum to zero")
        return {f"kernel_{name}": value for name, value in diagnostics(self.kernels(), self.groups, self.sizes).items()}

    def _scaled(self, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Kernels or their lines as they are applied."""
        if not self.settings.normalised:
            return parts
        return tuple(part / part.flatten(1).sum(1).reshape(-1, *(1,) * (part.ndim - 1)) for part in parts)


def made(form: Form, begin: tuple[Line, ...], groups: tuple[int, ...], count: int) -> Kernel:
    """The weights of `count` kernels of a form, as they begin."""
    match form:
        case "free":
            return Free(begin, count)
        case "uut":
            return UpperProduct(begin, count)
        case "separable":
            return Separable(begin, groups, count)
        case "autocorrelation":
            return Autocorrelation(begin, groups, count)
        case "gaussian":
            return Gaussian(begin, count)


def held(penalty: KernelPenalty | None, kernel: Kernel) -> KernelPenalty | None:
    """What is left of a penalty for kernels that are products, symmetric, positive by construction; None for nothing."""
    if penalty is None:
        return None
    if isinstance(kernel, Product):
        penalty = replace(penalty, symmetry=0.0, rank=0.0)
    if isinstance(kernel, Autocorrelation) and penalty.by == "spectral":
        penalty = replace(penalty, positivity=0.0)
    return penalty if penalty.symmetry or penalty.positivity or penalty.rank else None


def alike(spacing: Sequence[float]) -> tuple[int, ...]:
    """For every axis a number from 0 on, the same for axes with equal spacing."""
    known: list[float] = []
    for s in spacing:
        if not any(abs(s / k - 1) < ALIKE for k in known):
            known.append(s)
    return tuple(next(n for n, k in enumerate(known) if abs(s / k - 1) < ALIKE) for s in spacing)


def smoothed_by(field: Tensor, parts: Sequence[Tensor], padding: Padding = "zeros") -> Tensor:
    """Each component of a field through its kernel: `out(x) = sum_y K(y) field(x + y)`.

    Args:
        field: (B, D, *S).
        parts: a dense kernel (C, *m), or a line (C, m) for each axis; C is D, or 1 for all components.
        padding: what lies beyond the border.

    Returns:
        (B, D, *S).

    Raises:
        BadInput: the kernel is larger than the field.
    """
    shape, taps = spatial(field), parts[0].shape[-1]
    if taps > min(shape):
        raise BadInput(f"a smoothing kernel of {taps} taps is larger than a field of {' x '.join(map(str, shape))}")
    if len(parts) == len(shape):
        smooth = field.to(torch.promote_types(field.dtype, torch.float32))
        for axis, lines in enumerate(parts):
            smooth = _along(smooth, _bands(lines.to(smooth), shape[axis], padding), axis)
        return smooth.to(field.dtype)
    kernel = parts[0].expand(field.shape[1], *parts[0].shape[1:])
    around = F.pad(field, (taps // 2,) * 2 * len(shape), mode=PADDED[padding])
    return CONVOLVE[len(shape)](around, kernel[:, None].to(field), groups=field.shape[1])


def _bands(lines: Tensor, n: int, padding: Padding) -> Tensor:
    """The matrices (C, n, n) of lines (C, m), zeros or the border repeated beyond."""
    count, taps = lines.shape
    at = torch.arange(n, device=lines.device)[:, None] + torch.arange(taps, device=lines.device) - taps // 2
    weights = lines[:, None].expand(count, n, taps)
    if padding == "zeros":
        weights = weights * ((at >= 0) & (at < n))
    return lines.new_zeros(count, n, n).scatter_add(2, at.clamp(0, n - 1).expand(count, n, taps), weights)


def _along(field: Tensor, matrices: Tensor, axis: int) -> Tensor:
    """Each component (B, D, *S) times its matrix (D or 1, n, n) along an axis; products of matrices beat convolutions here."""
    shape = field.shape
    if axis == len(shape) - 3:
        return (field.flatten(2, -2) @ matrices.transpose(1, 2)).reshape(shape)
    return (matrices[:, None] @ field.reshape(*shape[:2], math.prod(shape[2 : axis + 2]), shape[axis + 2], -1)).reshape(shape)
