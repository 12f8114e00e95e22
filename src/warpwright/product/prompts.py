"""What a person marked for the search to bring together: checked before the work, recorded, and judged after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from warpwright.errors import BadInput, first_of
from warpwright.geometry import Image
from warpwright.io.points import Points
from warpwright.methods import Prompting
from warpwright.product.choices import Header, Space
from warpwright.product.inputs import SIDES, ImageLike, PointsLike, labels_on, outside, points_of
from warpwright.transforms import Transform

__all__ = ["kept_notes", "prompting", "recorded", "refuse_unequal", "sets_named"]


def prompting(
    labels: tuple[ImageLike | None, ImageLike | None] | None,
    points: tuple[PointsLike, PointsLike] | None,
    weight: float | None,
    images: tuple[Image, Image],
    space: Space | None,
    header: Header,
) -> Prompting | None:
    """What a person marked, checked; None for nothing.

    Raises:
        BadInput: a weight without prompts, labels or landmarks that cannot be used, landmarks outside their image, or
            not as many of both.
    """
    if labels is None and points is None:
        if weight is not None:
            raise BadInput("--prompt-weight was given without prompts, expected --prompt-labels or --prompt-points too")
        return None
    maps = []
    for k, (side, image) in enumerate(zip(SIDES, images, strict=True)):
        maps.append(None if labels is None else labels_on(labels[k], image, f"{side} prompt labels", header))
    return Prompting(
        labels=None if labels is None else (maps[0], maps[1]),
        points=None if points is None else _ends(points, images, space),
        weight=1.0 if weight is None else weight,
    )


def _ends(
    points: tuple[PointsLike, PointsLike], images: tuple[Image, Image], space: Space | None
) -> tuple[Tensor, Tensor] | None:
    """World points of the fixed and of the moving image, as many, each inside its image."""
    names = sets_named(points, "prompt points")
    fixed, moving = (points_of(p, i, space, f"{side} prompt points") for p, i, side in zip(points, images, SIDES, strict=True))
    if fixed is None or moving is None:
        return None
    for name, found, image in zip(names, (fixed, moving), images, strict=True):
        if beyond := outside(found, image.grid):
            listed = first_of(f"point {one}" for one in beyond)
            raise BadInput(f"{name}: has {listed} outside {image.name}, expected all points inside")
    refuse_unequal((fixed, moving), names)
    return fixed.world, moving.world


def sets_named(points: tuple[PointsLike | None, PointsLike | None], what: str) -> tuple[str, str]:
    """What a message calls the points of the fixed and of the moving image: their file, or else their role."""
    one, two = (str(p) if isinstance(p, (str, Path)) else f"{side} {what}" for p, side in zip(points, SIDES, strict=True))
    return one, two


def refuse_unequal(sets: tuple[Points, Points], names: tuple[str, str]) -> None:
    """Refuse sets of points that cannot be row by row the same place.

    Raises:
        BadInput: one has more than the other.
    """
    one, two = (len(found.world) for found in sets)
    if one != two:
        raise BadInput(f"{names[1]}: has {two} points and {names[0]} has {one}, expected as many")


def recorded(prompts: Prompting) -> dict[str, Any]:
    """What `result.json` says of prompts."""
    count = 0 if prompts.points is None else len(prompts.points[0])
    return {"labels": list(prompts.values), "points": count, "weight": prompts.weight}


def kept_notes(prompts: Prompting | None, forward: Transform) -> tuple[str, ...]:
    """Sentences on what the registration was told of, and how well it keeps to it."""
    if prompts is None:
        return ()
    found: list[str] = []
    if prompts.values:
        names = ", ".join(str(value) for value in prompts.values)
        found.append(f"prompted with the labels {names}, which do not count in the mean Dice")
    if prompts.points is not None:
        left = (forward(prompts.points[0]) - prompts.points[1]).norm(dim=1)
        text = f"{float(left.mean()):.2f} mm apart in the mean, {float(left.max()):.2f} at most"
        found.append(f"prompted with {len(left)} landmarks, which end {text}")
    return tuple(found)
