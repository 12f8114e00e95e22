"""What a person marked for the search to bring together: checked before the work, recorded, and judged after it."""

from __future__ import annotations

from typing import Any

from warpwright.errors import BadInput
from warpwright.geometry import Image
from warpwright.methods import Prompting
from warpwright.product.choices import Header, Space
from warpwright.product.inputs import SIDES, ImageLike, PointsLike, labels_on, outside, points_of
from warpwright.transforms import Transform

__all__ = ["kept_notes", "prompting", "recorded"]


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
        BadInput: a weight without prompts, labels or landmarks that cannot be used, or landmarks outside their image.
    """
    if labels is None and points is None:
        if weight is not None:
            raise BadInput("--prompt-weight was given without prompts, expected --prompt-labels or --prompt-points too")
        return None
    maps, sets = [], []
    for k, (side, image) in enumerate(zip(SIDES, images, strict=True)):
        maps.append(None if labels is None else labels_on(labels[k], image, f"{side} prompt labels", header))
        found = None if points is None else points_of(points[k], image, space, f"{side} prompt points")
        sets.append(None if found is None else found.world)
        if found is not None and (names := outside(found, image.grid)):
            raise BadInput(f"{side} prompt points: {', '.join(names[:5])} lie outside {image.name}, expected them inside")
    return Prompting(
        labels=None if labels is None else (maps[0], maps[1]),
        points=None if points is None else (sets[0], sets[1]),
        weight=1.0 if weight is None else weight,
    )


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
