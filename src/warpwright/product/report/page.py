"""The page: values into a template, which escapes all of them, and the page into a file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from warpwright.errors import BadInput
from warpwright.io.atomic import replacing
from warpwright.product.html import inline, part, template
from warpwright.product.output import check_file
from warpwright.product.report.charts import SPARK, energies, histogram, landmarks
from warpwright.product.report.checks import checks, headline
from warpwright.product.report.cite import references
from warpwright.product.report.encode import DIFFERENCE, FOLD, JACOBIAN
from warpwright.product.report.planes import Plane, planes, scales
from warpwright.product.report.run import Record, Run, read_record, read_run
from warpwright.product.report.tables import (
    alone,
    facts,
    inputs,
    label_rows,
    landmark_table,
    name_of,
    pretty,
    stage_rows,
    trusted,
)
from warpwright.product.report.volumes import MOST, Viewer, viewer
from warpwright.product.resources import threads
from warpwright.product.scores import Scores

__all__ = ["REPORT", "page", "write_report"]

REPORT = "report.html"
PACKAGE = "warpwright.product.report"
TWO_KINDS = ("mutualinformation", "mind")  # similarities of images whose intensities cannot be subtracted
MODES = ("Mosaic", "Swipe", "Flicker", "Checkerboard")


def write_report(
    folder: str | Path, output: str | Path | None = None, *, interactive: bool = False, force: bool = False
) -> Path:
    """Write the report of a registration; whole or not at all.

    Args:
        folder: what `register` left. The images that it names are read where they were.
        output: file to write; default `report.html` in the folder.
        interactive: whether the page also holds the volumes and a viewer of them.
        force: replace an existing one.

    Returns:
        Where it was written.

    Raises:
        BadInput: the folder is no result, an input is gone or has changed, or the file cannot be written; or an interactive
            report is asked for of 2-D images.
        Failed: writing failed on the way.
    """
    folder = Path(folder)
    record = read_record(folder)
    target = check_file(folder / REPORT if output is None else output, force=force)
    with threads(1):  # files are read side by side instead
        text = page(record, interactive=interactive)
    with replacing(target) as temporary:
        temporary.write_bytes(text.encode("utf-8", "replace"))
    return target


def page(record: Record, *, interactive: bool = False) -> str:
    """The HTML of a registration; the same for the same files.

    Raises:
        BadInput: see `read_run`, or the record lacks something, or a viewer of volumes is asked for of 2-D images.
    """
    if interactive and record.grids[0].dim == 2:
        raise BadInput(
            f"{record.path}: is of 2-D images, volumes were expected for --interactive; without it they are shown too"
        )
    try:
        told = _told(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise BadInput(f"{record.path}: is not what `register` writes ({reason})") from None
    with ThreadPoolExecutor(1) as beside:  # files are read meanwhile
        laid_out = beside.submit(template, PACKAGE, "report.html.jinja", {"exp": math.exp})
        run = read_run(record)
        drawn = _drawn(run)
    text = laid_out.result().render(**told, **drawn, **_inline(drawn["planes"]), viewer=None)
    if not interactive:
        return text
    added = viewer(run, drawn["scales"], MOST - len(text.encode("utf-8", "replace")))
    return laid_out.result().render(**told, **drawn, **_inline(drawn["planes"], added), viewer=added)


def _told(record: Record) -> dict[str, Any]:
    """What the record says, as values for the template."""
    values, scores = record.values, Scores.from_mapping(record.values["scores"])
    verdict, rows = values["verdict"], checks(scores, min(record.grids[0].spacing))
    names = [name_of(record.place(side), side) for side in ("fixed", "moving")]
    stages = stage_rows(values["stages"])
    return {
        "names": names,
        "headline": headline(verdict, scores, rows),
        "sentences": [str(sentence) for sentence in verdict["sentences"]],
        "notes": [str(note) for note in values["notes"]],
        "checks": rows,
        "stages": stages,
        "curves": any(stage.curve for stage in stages),
        "spark": SPARK,
        "energies": energies(values["stages"]),
        "two_kinds": (values["settings"].get("similarity") or {}).get("kind") in TWO_KINDS,
        "trusted": trusted(values),
        "facts": facts(values, record.grids),
        "inputs": inputs(values),
        "settings": pretty(values["settings"]),
        "versions": {str(name): str(version) for name, version in values["versions"].items()},
        "command": values.get("command"),
        "directory": values.get("directory"),
        "photograph": values.get("photograph"),
        "references": references(values),
        "modes": MODES,
    }


def _drawn(run: Run) -> dict[str, Any]:
    """What the files hold, as values for the template."""
    values = run.record.values
    scores, kind = Scores.from_mapping(values["scores"]), (values["settings"].get("similarity") or {}).get("kind")
    lonely = alone(run.labels)
    known = {*scores.dice_after, *scores.vanished_labels, *scores.prompted_labels, *lonely}
    drawn, shades = planes(run, scales(run, known), subtracted=kind not in TWO_KINDS)
    table = landmark_table(scores, run)
    return {
        "planes": drawn,
        "scales": shades,
        "histogram": histogram(run.jacobian.data.numpy(), shades.jacobian),
        "labels": label_rows(scores, shades.labels, lonely),
        "landmarks": table,
        "errors": None if table is None or table.errors is None else landmarks(*table.errors),
    }


def _inline(drawn: Iterable[Plane], added: Viewer | None = None) -> dict[str, str]:
    """Style and script of the page and its policy, with the sizes of the planes and the colours of the scales."""
    style = part(PACKAGE, "report.css")
    for plane in drawn:
        longer = max(plane.width, plane.height)
        style += f".{plane.name}{{--w:{plane.width};--h:{plane.height};"
        style += f"--across:{longer / plane.width:.5f};--down:{longer / plane.height:.5f}}}\n"
    for name, colours in {"difference": DIFFERENCE, "jacobian": JACOBIAN, "score": ("#000", "#fff")}.items():
        style += f".ramp.{name}{{background:linear-gradient(to right,{','.join(colours)})}}\n"
    style += f".folds{{--k:{FOLD}}}\n"
    script = part(PACKAGE, "report.js")
    return inline(style, script) if added is None else inline(style, script + added.script, added.library)
