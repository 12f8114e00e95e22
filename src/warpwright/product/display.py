"""What a prompt and a notebook show of a result; the latter is a part of a page that needs nothing but itself."""

from __future__ import annotations

import base64
from dataclasses import asdict
from io import BytesIO

from warpwright.product.figure import draw
from warpwright.product.html import template
from warpwright.product.report.checks import Headline, checks, headline
from warpwright.product.report.tables import name_of
from warpwright.product.result import RegistrationResult

__all__ = ["result_html", "result_text"]

DOTS = 70  # an inch of the figure
WIDEST = 1250  # pixels that the figure is shown at
ALT = "Fixed image, moving image before and moved, checkerboard of fixed and moved, deformed grid, log Jacobian"


def result_text(result: RegistrationResult) -> str:
    """The verdict, the images and the main figures: a few lines."""
    rows = {row.name: row.found for row in checks(result.scores, _voxel(result)) if row.status != "none"}
    seconds, count = result.record["seconds"]["registration"], len(result.notes)
    notes = f", {count} note{'' if count == 1 else 's'} (result.notes)" if count else ""
    return "\n".join(
        (
            f"<RegistrationResult: {_headline(result).text.lower()}",
            *(f"  {sentence}" for sentence in result.verdict.sentences),
            f"  fixed   {result.fixed!r}",
            f"  moving  {result.moving!r}",
            *(f"  {name.lower()}: {found.replace('→', '->')}" for name, found in rows.items()),
            f"  {seconds:.1f} s{notes}>",
        )
    )


def result_html(result: RegistrationResult) -> str:
    """The verdict, the figure, a table of what was looked at, and the notes."""
    stream = BytesIO()
    draw(result.picture(), stream, dots=DOTS)
    return template("warpwright.product", "result.html.jinja").render(
        headline=_headline(result),
        names=[name_of(image.name, "image") for image in (result.fixed, result.moving)],
        sentences=result.verdict.sentences,
        notes=result.notes,
        rows=checks(result.scores, _voxel(result)),
        figure=f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}",
        alt=ALT,
        width=WIDEST,
    )


def _headline(result: RegistrationResult) -> Headline:
    return headline(asdict(result.verdict), result.scores, checks(result.scores, _voxel(result)))


def _voxel(result: RegistrationResult) -> float:
    return min(result.fixed.grid.spacing)
