"""Ways to write a smoothing kernel in numbers that are learned, from one that is free to one that is its width alone.

Forms that are products over the axes give the lines u of `K = u x ... x u`, one for each axis; axes with equal spacing share
theirs, so that the kernel keeps all symmetries of the lattice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

__all__ = ["Autocorrelation", "Free", "Gaussian", "Kernel", "Line", "Product", "Separable", "UpperProduct", "outer"]


class Kernel(nn.Module, ABC):
    """Kernels (C, *m) made of weights."""

    @abstractmethod
    def dense(self) -> Tensor:
        """(C, *m)."""


class Product(Kernel):
    """A kernel that is a product over the axes."""

    @abstractmethod
    def lines(self) -> tuple[Tensor, ...]:
        """(C, m) for each axis."""

    def dense(self) -> Tensor:
        return outer(self.lines())


def outer(lines: tuple[Tensor, ...]) -> Tensor:
    """Products of D lines (C, m): (C, *m)."""
    found = lines[0]
    for line in lines[1:]:
        found = found[..., None] * line.reshape(len(line), *(1,) * (found.ndim - 1), -1)
    return found


class Line:
    """A Gaussian to begin with, of sum 1.

    Args:
        taps: m.
        sigma: taps; 0 for a delta.
    """

    def __init__(self, taps: int, sigma: float) -> None:
        self.taps, self.sigma = taps, sigma

    def sampled(self) -> Tensor:
        """(m,)."""
        at = torch.arange(self.taps) - self.taps // 2
        values = (at == 0).float() if self.sigma == 0 else torch.exp(-0.5 * (at / self.sigma) ** 2)
        return values / values.sum()


class Free(Kernel):
    """Every tap is a weight."""

    def __init__(self, begin: tuple[Line, ...], count: int) -> None:
        super().__init__()
        self.taps = nn.Parameter(_dense(begin, count))

    def dense(self) -> Tensor:
        return self.taps


class UpperProduct(Kernel):
    """`K = U U'` with U upper triangular and positive on its diagonal: symmetric and positive definite as a matrix.

    Reference: Meta-Regularization, section 3 (the alternative to its penalties). A kernel of two axes only; it need not be
    the same when mirrored, nor positive as an operator.
    """

    SLIGHT = 1e-4  # of the largest tap, on the diagonal, so that there is a factor to begin with

    def __init__(self, begin: tuple[Line, ...], count: int) -> None:
        super().__init__()
        kernel = _dense(begin, count).double()
        kernel = kernel + self.SLIGHT * kernel.max() * torch.eye(kernel.shape[-1], dtype=torch.float64)
        upper = torch.linalg.cholesky((kernel + kernel.mT).flip((1, 2)) / 2).flip((1, 2)).float()
        self.above = nn.Parameter(upper.triu(1))
        self.diagonal = nn.Parameter(upper.diagonal(dim1=1, dim2=2).expm1().log())

    def dense(self) -> Tensor:
        upper = self.above.triu(1) + torch.diag_embed(F.softplus(self.diagonal))
        return upper @ upper.mT


class Separable(Product):
    """Palindromes of (m + 1) / 2 free numbers, the middle first."""

    def __init__(self, begin: tuple[Line, ...], groups: tuple[int, ...], count: int) -> None:
        super().__init__()
        self.groups = groups
        half = [line.sampled()[line.taps // 2 :] for line in _of_groups(begin, groups)]
        self.taps = nn.Parameter(torch.stack(half).expand(count, -1, -1).clone())

    def lines(self) -> tuple[Tensor, ...]:
        line = torch.cat((self.taps[..., 1:].flip(-1), self.taps), -1)
        return tuple(line[:, group] for group in self.groups)


class Autocorrelation(Product):
    """`u = w * reversed(w)`: all that a kernel should be, the spectrum `|w(f)|^2` included, whatever w is."""

    def __init__(self, begin: tuple[Line, ...], groups: tuple[int, ...], count: int) -> None:
        super().__init__()
        self.groups = groups
        length = begin[0].taps // 2 + 1
        parts = [_centred(length, line.sigma / math.sqrt(2)) for line in _of_groups(begin, groups)]
        self.part = nn.Parameter(torch.stack(parts).expand(count, -1, -1).clone())

    def lines(self) -> tuple[Tensor, ...]:
        flat = self.part.flatten(0, 1)
        wide = F.pad(flat, (len(flat[0]) - 1,) * 2)
        line = F.conv1d(wide[None], flat[:, None], groups=len(flat))[0].reshape(*self.part.shape[:2], -1)
        return tuple(line[:, group] for group in self.groups)


class Gaussian(Product):
    """Gaussians of sum 1, as wide along every axis, whose width is learned and nothing else.

    Args:
        begin: where the width begins, along every axis.
        count: C.
    """

    def __init__(self, begin: tuple[Line, ...], count: int) -> None:
        super().__init__()
        self.reach = begin[0].taps // 2
        self.log_width = nn.Parameter(torch.zeros(count))
        self.register_buffer("sigmas", torch.tensor([line.sigma for line in begin]), persistent=False)
        self.sigmas: Tensor

    def lines(self) -> tuple[Tensor, ...]:
        at = torch.arange(-self.reach, self.reach + 1).to(self.log_width)
        sigma = self.sigmas[:, None, None] * self.log_width.exp()[:, None]
        return tuple(torch.softmax(-0.5 * (at / sigma) ** 2, -1))


def _dense(begin: tuple[Line, ...], count: int) -> Tensor:
    return outer(tuple(line.sampled()[None] for line in begin)).expand(count, *(line.taps for line in begin)).clone()


def _of_groups(begin: tuple[Line, ...], groups: tuple[int, ...]) -> list[Line]:
    return [begin[groups.index(group)] for group in range(max(groups) + 1)]


def _centred(length: int, sigma: float) -> Tensor:
    """A Gaussian about the middle of so many taps, sum 1; for sigma 0 the tap at or after the middle alone."""
    if sigma == 0:
        return F.one_hot(torch.tensor(length // 2), length).float()
    values = torch.exp(-0.5 * ((torch.arange(length) - (length - 1) / 2) / sigma) ** 2)
    return values / values.sum()
