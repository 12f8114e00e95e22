"""The page of a template: one HTML file, with a picture and the figures of every round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from warpwright.io.atomic import replacing
from warpwright.io.image import read_scalar
from warpwright.product.html import inline, part, template
from warpwright.product.report.encode import grey
from warpwright.product.slices import middle, slices

if TYPE_CHECKING:
    from warpwright.template.work import Round

__all__ = ["PAGE", "write_page"]

PAGE = "index.html"
PACKAGE = "warpwright.template"
SIDE = 180  # pixels of the longest side of a cut


def write_page(folder: Path, rounds: Sequence[Round], files: Sequence[Path], images: int) -> Path:
    """Write `index.html`, whole or not at all.

    Args:
        folder: where.
        rounds: the start and every round.
        files: the template after each.
        images: how many it is the mean of.

    Raises:
        BadInput, Failed: it cannot be written.
    """
    rows = [
        {
            "name": "start" if number == 0 else f"round {number}",
            "planes": _planes(path),
            "figures": _figures(one),
            "warnings": one.warnings,
        }
        for number, (one, path) in enumerate(zip(rounds, files, strict=True))
    ]
    text = template(PACKAGE, "template.html.jinja").render(
        name=folder.name, images=images, rows=rows, **inline(part(PACKAGE, "template.css"), "")
    )
    with replacing(folder / PAGE) as temporary:
        temporary.write_bytes(text.encode("utf-8", "replace"))
    return folder / PAGE


def _planes(path: Path) -> list[dict[str, str | int]]:
    image = read_scalar(path)
    values, cuts = image.data[0].numpy(), slices(image.grid, middle(image.grid))
    scale = SIDE / max(max(one.size) for one in cuts)
    return [
        {
            "name": one.name or "image",
            "uri": grey(one.cut(values)),
            "height": round(scale * one.size[0]),
            "width": round(scale * one.size[1]),
        }
        for one in cuts
    ]


def _figures(one: Round) -> list[tuple[str, str]]:
    told = [("Sharpness, 1/mm", f"{one.sharpness:.4f}")]
    if one.change is not None and one.shape_mm is not None and one.energy is not None:
        told += [
            ("Change", f"{one.change:.4f}"),
            ("Mean shape off by, mm", f"{one.shape_mm:.3f}"),
            ("Energy, mean", f"{one.energy:.4f}"),
        ]
    return told
