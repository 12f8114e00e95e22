"""How far found displacements are from known ones: a row of a table for each way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean, stdev

from torch import Tensor

from vessel_pairs import Truth
from warpwright.geometry import jacobian_determinant
from warpwright.sampling import sample

__all__ = ["Found", "endpoint", "header", "line"]

BORDER = 8  # voxels that "inside" leaves off


@dataclass(frozen=True, kw_only=True)
class Found:
    """The errors of a displacement, voxels.

    Args:
        tre: mean at the landmarks; NaN without any.
        vessels: mean where the fixed image shows vessels.
        inside: mean away from the border.
        folds: share of the voxels where the map folds, per cent.
    """

    tre: float
    vessels: float
    inside: float
    folds: float


def endpoint(displacement: Tensor, truth: Truth) -> Found:
    """Errors of a displacement (1, 2, *S), voxels."""
    error = (displacement - truth.displacement).norm(dim=1, keepdim=True)
    places = truth.fixed_points.T[None, :, :, None]
    at = (sample(displacement, places) - sample(truth.displacement, places)).norm(dim=1)
    determinant = jacobian_determinant(displacement)
    return Found(
        tre=float(at.mean()) if at.numel() else float("nan"),
        vessels=float(error[truth.vessels].mean()),
        inside=float(error[..., BORDER:-BORDER, BORDER:-BORDER].mean()),
        folds=100 * float((determinant <= 0).float().mean()),
    )


def header() -> str:
    """The head of the table, in Markdown."""
    return "| way | error at branchings | on vessels, mean (sd) | inside | folds, % (pairs) |\n|---|---|---|---|---|"


def line(name: str, found: Sequence[Found]) -> str:
    """A row of the table, in Markdown: means over pairs, voxels."""
    tre = [f.tre for f in found if not isnan(f.tre)]
    vessels = [f.vessels for f in found]
    spread = f" ({stdev(vessels):.2f})" if len(vessels) > 1 else ""
    folding = f"{fmean(f.folds for f in found):.3f} ({sum(f.folds > 0 for f in found)} of {len(found)})"
    return f"| {name} | {fmean(tre):.2f} | {fmean(vessels):.2f}{spread} | {fmean(f.inside for f in found):.2f} | {folding} |"
