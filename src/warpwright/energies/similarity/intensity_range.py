"""Ends of an image's intensity range: its outlier quantiles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from warpwright.kernels import as_operator, usable

__all__ = ["intensity_ends"]


def intensity_ends(values: Tensor, weight: Tensor | None, outliers: float) -> Tensor:
    """Ends of the range of each row of values where the weight is positive, without gradient.

    Args:
        values: (R, N).
        weight: (R, N), None for one everywhere.
        outliers: share of the voxels beyond each end.

    Returns:
        (R, 2): the outlier quantiles, or where these coincide the extremes; 0, 0 where no weight is positive.
    """
    values, weight = values.detach(), None if weight is None else weight.detach()
    return (_compiled if usable(values, weight) else _plain)(values, weight, outliers)


def _plain(values: Tensor, weight: Tensor | None, outliers: float) -> Tensor:
    chosen = [row if weight is None else row[weight[r] > 0] for r, row in enumerate(values.unbind())]
    return torch.stack([_ends_of_row(row, outliers) for row in chosen])


def _ends_of_row(values: Tensor, outliers: float) -> Tensor:
    if not len(values):
        return values.new_zeros(2)
    rank = 1 + int(outliers * (len(values) - 1))
    extremes = torch.stack(torch.aminmax(values))
    if rank == 1:
        return extremes
    ends = torch.stack([values.kthvalue(rank).values, values.kthvalue(len(values) + 1 - rank).values])
    return ends if ends[1] > ends[0] else extremes


def _compute(values: Tensor, weight: Tensor | None, outliers: float) -> Tensor:
    from warpwright.kernels import quantiles

    return quantiles.ends(values, weight, outliers)


def _fake(values: Tensor, *_: Any) -> Tensor:
    return values.new_empty(len(values), 2)


_compiled = as_operator("intensity_ends", _compute, fake=_fake)
