"""What a smoothing kernel should be like, as penalties that can be differentiated and as figures for a person.

A kernel of a reproducing kernel Hilbert space is symmetric under the symmetries of the lattice, has a spectrum that is not
negative (as an operator) and, being a product over the axes, unfoldings of rank one.

Reference: Al Safadi and Song, Meta-Regularization, CVPR 2021, equation 12. Its symmetry term holds a kernel of two axes to the
transpose and to turns by half, which oblique Gaussians pass; its trace term, printed with a minus, has no lower bound, for
kernels of sum 1 neither. Both are here as printed, beside what the text means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, groupby, permutations, product

import torch
from torch import Tensor

__all__ = [
    "asymmetry",
    "central_planes",
    "diagnostics",
    "eq12_asymmetry",
    "negative_spectrum",
    "spectrum",
    "spread_of_rank",
    "traces",
]

Groups = tuple[int, ...]  # for every axis a number, the same for axes with equal spacing


def eq12_asymmetry(kernels: Tensor) -> Tensor:
    """`|K - K'|^2 + |K J - J K|^2` with the exchange matrix J: (C, m, m) to (C,)."""
    turned = kernels.flip((1, 2))
    return (kernels - kernels.transpose(1, 2)).square().sum((1, 2)) + (kernels - turned).square().sum((1, 2))


def asymmetry(kernels: Tensor, groups: Groups) -> Tensor:
    """`sum_g |K - g K|^2` over mirrors across each axis and swaps of axes with equal spacing, which generate all symmetries.

    Args:
        kernels: (C, *m), as many taps along every axis.
        groups: which axes may be swapped.

    Returns:
        (C,).
    """
    total = kernels.new_zeros(len(kernels))
    for axis in range(1, kernels.ndim):
        total = total + (kernels - kernels.flip(axis)).square().flatten(1).sum(1)
    for _, alike in groupby(sorted(range(len(groups)), key=groups.__getitem__), key=groups.__getitem__):
        first, *others = alike
        for other in others:
            total = total + (kernels - kernels.transpose(first + 1, other + 1)).square().flatten(1).sum(1)
    return total


def traces(kernels: Tensor) -> Tensor:
    """`Tr K` and `Tr J K`, of three axes those of the three central slices: (C, *m) to (C, 2) or (C, 6)."""
    sides = [side for plane in central_planes(kernels) for side in (plane, plane.flip(1))]
    return torch.stack([side.diagonal(dim1=1, dim2=2).sum(1) for side in sides], 1)


def central_planes(kernels: Tensor) -> list[Tensor]:
    """The slices through the middle along every two axes, of two axes the kernel itself: (C, *m) to (C, m, m) each."""
    middle = kernels.shape[1] // 2
    dim = kernels.ndim - 1
    kept = combinations(reversed(range(dim)), 2)
    return [kernels[(slice(None), *(slice(None) if axis in pair else middle for axis in range(dim)))] for pair in kept]


def spectrum(kernels: Tensor) -> Tensor:
    """The Fourier transform about the middle, at 64 frequencies an axis in 2-D, 32 in 3-D (or twice the taps): complex."""
    axes = tuple(range(1, kernels.ndim))
    size = max(64 if len(axes) == 2 else 32, 2 * kernels.shape[1])
    padded = kernels.new_zeros(len(kernels), *(size,) * len(axes))
    padded[(slice(None), *(slice(0, m) for m in kernels.shape[1:]))] = kernels
    return torch.fft.fftn(padded.roll([-(m // 2) for m in kernels.shape[1:]], axes), dim=axes)


def negative_spectrum(kernels: Tensor) -> Tensor:
    """`relu(-Re k(w))`, mean over frequencies: (C, *m) to (C,). The operator is positive where it is 0."""
    return (-spectrum(kernels).real).relu().flatten(1).mean(1)


def spread_of_rank(kernels: Tensor) -> Tensor:
    """Share of |K|^2 beyond the largest singular value, mean over the unfoldings along each axis: (C, *m) to (C,)."""
    axes = range(1, kernels.ndim)
    shares = []
    for axis in axes:
        unfolded = kernels.movedim(axis, 1).flatten(2)
        largest = torch.linalg.matrix_norm(unfolded, 2).square()
        shares.append(1 - largest / unfolded.square().sum((1, 2)))
    return torch.stack(shares).mean(0)


@torch.no_grad()
def diagnostics(kernels: Tensor, groups: Groups, sizes: Sequence[float] | None = None) -> dict[str, float]:
    """Figures of the kernels, each the worst of all; of a kernel that is as it should be they are those in brackets.

    Args:
        kernels: (C, *m).
        groups: which axes may be swapped.
        sizes: of a tap along each axis, in those of the finest one; None for taps that are cubes.

    Returns:
        `asymmetry`, distance from the mean over all symmetries, a share of the norm (0; below 0.05 is accepted). `anisotropy`,
        the same from the mean over taps at one distance (0 for a function of the radius), and `matrix`, smallest eigenvalue of
        the symmetric part over the largest (>= 0), of kernels with two axes; both only where all axes are of one group.
        `spectrum`, smallest real part over the largest absolute value (>= 0; above -0.02 is accepted). `imaginary`, largest
        imaginary part, likewise (0). `rank`, second singular value over the first, of the unfoldings (0; below 0.1 is
        accepted). `width`, `sqrt(sum r^2 K / sum K)` in finest taps, the smallest: a kernel of width 0 does nothing. `sum`,
        `trace` and `cross_trace`, means.
    """
    kernels = kernels.detach().double().cpu()
    norm = kernels.flatten(1).norm(dim=1)
    mean = torch.stack(list(_symmetries(kernels, groups))).mean(0)
    found = spectrum(kernels)
    largest = found.abs().flatten(1).amax(1)
    values = {
        "asymmetry": ((kernels - mean).flatten(1).norm(dim=1) / norm).max(),
        "spectrum": (found.real.flatten(1).amin(1) / largest).min(),
        "imaginary": (found.imag.abs().flatten(1).amax(1) / largest).max(),
        "rank": max(_second(kernels.movedim(axis, 1).flatten(2)) for axis in range(1, kernels.ndim)),
        "width": _widths(kernels, sizes or (1.0,) * len(groups)).min(),
        "sum": kernels.flatten(1).sum(1).mean(),
        "trace": traces(kernels)[:, 0::2].mean(),
        "cross_trace": traces(kernels)[:, 1::2].mean(),
    }
    if max(groups) == 0:
        round_ = torch.stack([_class_means(kernel, _squared_radii(kernels)) for kernel in kernels])
        values["anisotropy"] = ((kernels - round_).flatten(1).norm(dim=1) / norm).max()
    if kernels.ndim == 3 and max(groups) == 0:
        eigenvalues = torch.linalg.eigvalsh((kernels + kernels.transpose(1, 2)) / 2)
        values["matrix"] = (eigenvalues.amin(1) / eigenvalues.abs().amax(1)).min()
    return {name: float(value) for name, value in values.items()}


def _symmetries(kernels: Tensor, groups: Groups) -> Iterator[Tensor]:
    """The kernels under every permutation of axes of one spacing and every mirror."""
    axes = range(len(groups))
    for order in permutations(axes):
        if any(groups[a] != groups[b] for a, b in zip(axes, order, strict=True)):
            continue
        turned = kernels.permute(0, *(a + 1 for a in order))
        for mirrored in product((False, True), repeat=len(groups)):
            yield turned.flip([axis + 1 for axis, yes in enumerate(mirrored) if yes])


def _squared_radii(kernels: Tensor, sizes: Sequence[float] | None = None) -> Tensor:
    """Squared distance of every tap from the middle one, (*m); whole numbers where taps are cubes of size 1."""
    shape = kernels.shape[1:]
    lines = [(torch.arange(m) - m // 2) * size for m, size in zip(shape, sizes or (1,) * len(shape), strict=True)]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")).square().sum(0)


def _class_means(kernel: Tensor, classes: Tensor) -> Tensor:
    _, place = classes.unique(return_inverse=True)
    sums = kernel.new_zeros(int(place.max()) + 1).index_add(0, place.flatten(), kernel.flatten())
    return (sums / place.flatten().bincount())[place]


def _second(unfolded: Tensor) -> float:
    if unfolded.shape[1] == 1:
        return 0.0
    values = torch.linalg.svdvals(unfolded)
    return float((values[:, 1] / values[:, 0]).max())


def _widths(kernels: Tensor, sizes: Sequence[float]) -> Tensor:
    """(C,), 0 where weights at a distance cancel."""
    distances = _squared_radii(kernels, sizes)
    return ((kernels * distances).flatten(1).sum(1) / kernels.flatten(1).sum(1)).clamp_min(0).sqrt()
