"""Score what another tool (or this one) made: labels, landmarks, transforms, and tables of such cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warpwright.errors import BadInput
from warpwright.product.choices import Header, Space
from warpwright.product.evaluate_case import evaluate_labels, evaluate_points, evaluate_transform
from warpwright.product.evaluate_pairs import evaluate_pairs

__all__ = ["evaluate", "evaluate_labels", "evaluate_pairs", "evaluate_points", "evaluate_transform"]


def evaluate(
    *,
    labels: tuple[str | Path, str | Path] | None = None,
    points: tuple[str | Path, str | Path] | None = None,
    transform: str | Path | None = None,
    pairs: str | Path | None = None,
    against: str | Path | None = None,
    space: Space | None = None,
    images: tuple[str | Path | None, str | Path | None] = (None, None),
    header: Header = "strict",
) -> dict[str, Any]:
    """Score all that is given, each under its own key.

    Args:
        labels: label maps of the fixed image and of the moved one, on one grid.
        points: landmarks of the fixed and of the moving image; with a transform also through it.
        transform: file, ANTs prefix, or the folder of a registration.
        pairs: table of label maps, points and transforms, see `evaluate_pairs`.
        against: a second such table, which the first is compared with.
        space: frame of the coordinates of a `.csv` of points.
        images: fixed and moving image: the grids that points in voxels, or a transform without a field, need.
        header: which affine of a NIfTI file counts when its two disagree.

    Returns:
        What was asked for, and `warnings`: sentences that a person should read.

    Raises:
        BadInput: nothing is given, or something cannot be used.
    """
    if against is not None and pairs is None:
        raise BadInput(f"{against}: was given to compare a table of pairs with, but there is none, expected it as --pairs")
    found: dict[str, Any] = {}
    if labels is not None:
        found["labels"] = evaluate_labels(*labels, header=header)
    if points is not None:
        found["points"] = evaluate_points(*points, transform=transform, space=space, images=images, header=header)
    if transform is not None:
        found["transform"] = evaluate_transform(transform, reference=images[0], header=header)
    if pairs is not None:
        found["pairs"] = evaluate_pairs(pairs, against=against, space=space, header=header)
    if not found:
        raise BadInput("nothing to evaluate was given, expected labels, points, a transform or a table of pairs")
    found["warnings"] = [sentence for scores in found.values() for sentence in scores.pop("warnings", ())]
    return found
