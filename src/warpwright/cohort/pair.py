"""One pair, in whatever process: what `warpwright register` does, into a folder of its own, then the record of it.

What comes and goes between processes are small mappings of plain values.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warpwright.cohort.provenance import clear, described, output_sizes, write_record
from warpwright.errors import WarpwrightError

if TYPE_CHECKING:
    from warpwright.product.result import RegistrationResult

__all__ = ["record_failure", "run_pair"]

ONE_AT_A_TIME = threading.Lock()  # the number of threads is a setting of the whole process
THUMBNAIL = (360, 220)  # pixels, at most
QUALITY = 72  # of its JPEG


def run_pair(task: Mapping[str, Any]) -> dict[str, Any]:
    """Register a pair and write its results and its record; a failure is an outcome like another.

    Args:
        task: of `Plan.task`: id, folder, files (column to path), options (as JSON has them), digest, command.

    Returns:
        The record: id, state ("done" or "failed"), sentence of a failure, warnings, figures, seconds, inputs, outputs.
    """
    folder = Path(task["folder"])
    with ONE_AT_A_TIME:
        begin = time.perf_counter()
        record = _blank(task)
        try:
            clear(folder)
            with suppress(OSError):
                folder.rmdir()  # so that results appear together
            record["inputs"] = {column: described(Path(path)) for column, path in task["files"].items()}
            record |= _register(task, folder)
        except Exception as error:
            record |= _failure(error)
            with suppress(OSError):
                clear(folder)
        record["seconds"] = time.perf_counter() - begin
        return _written(folder, record)


def record_failure(task: Mapping[str, Any], sentence: str) -> dict[str, Any]:
    """The record of a pair that ended in a way in which it could write none itself.

    Args:
        task: as of `run_pair`.
        sentence: what happened.
    """
    folder, record = Path(task["folder"]), _blank(task) | {"sentence": sentence}
    try:
        clear(folder)
        record["inputs"] = {column: described(Path(path)) for column, path in task["files"].items()}
    except OSError:  # nothing can be known of it later: it will be run again
        return record
    return _written(folder, record)


def _blank(task: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": task["id"],
        "state": "failed",
        "sentence": None,
        "warnings": [],
        "figures": {},
        "seconds": None,
        "version": version("warpwright"),
        "options": task["digest"],
        "inputs": {},
        "outputs": {},
    }


def _written(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The record, in its file; where that cannot be written (a full disk) the pair has failed and will be run again."""
    from warpwright.product.output import plain

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder, record)
    except (OSError, WarpwrightError) as error:
        record |= _failure(error) | {"figures": {}}
    return plain(record)


def _failure(error: Exception) -> dict[str, Any]:
    """What a record says of an error; of one that was not foreseen also where in the code it was."""
    if isinstance(error, WarpwrightError):
        return {"state": "failed", "sentence": str(error)}
    if isinstance(error, MemoryError):
        return {"state": "failed", "sentence": f"out of memory ({error})"}
    if isinstance(error, OSError):
        return {"state": "failed", "sentence": f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}"}
    told = " ".join(str(error).split())
    return {"state": "failed", "sentence": f"{type(error).__name__}: {told}", "traceback": traceback.format_exc()}


def _register(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The registration, its results in their folder, and what a record says of them.

    Raises:
        WarpwrightError: as `register` and `save`.
    """
    from warpwright.cohort.work import Options
    from warpwright.config import from_mapping
    from warpwright.product.choice import Choice
    from warpwright.product.plan import prepare

    options, files = from_mapping(Options, task["options"]), task["files"]
    plan = prepare(
        files["fixed"],
        files["moving"],
        choice=Choice(
            transform=options.transform,
            similarity=options.similarity,
            preset=options.preset,
            initialise=options.initialise,
            config=options.config,
        ),
        masks=(files.get("fixed_mask"), files.get("moving_mask")),
        labels=(files.get("fixed_labels"), files.get("moving_labels")),
        points=(files.get("fixed_points"), files.get("moving_points")),
        space=options.space,
        device=options.device,
        threads=1,
        seed=options.seed,
        header=options.header,
        model=options.model,
        refine=options.refine,
        refine_rate=options.refine_rate,
        refine_field=options.refine_field,
        score=options.score,
        photograph=options.photograph,
    )
    result = plan.run()
    result.save(folder, force=True, command=task["command"], figure=options.figures)
    if options.figures:
        _shrink(folder / "figure.png", folder / "thumbnail.jpg")
    return {
        "state": "done",
        "warnings": list(result.verdict.sentences),
        "figures": _figures(result),
        "outputs": output_sizes(folder),
    }


def _figures(result: RegistrationResult) -> dict[str, Any]:
    """The figures of a result that a cohort is told by; what was not given is left out."""
    scores = result.scores
    found: dict[str, Any] = {
        "improved": result.verdict.improved,
        "energy_before": scores.energy_before,
        "energy_after": scores.energy_after,
        "overlap": scores.overlap,
        "folded_percent": scores.folded_percent,
        "min_determinant": scores.min_determinant,
        "sd_log_jacobian": scores.sd_log_jacobian,
        "inverse_p95_mm": scores.inverse_consistency["p95"],
        "vanished_labels": list(scores.vanished_labels),
    }
    if scores.dice_after:
        found["dice_before"], found["dice_after"] = scores.mean_dice
    if scores.tre_after:
        found["tre_before_mm"], found["tre_after_mm"] = scores.tre_before["mean"], scores.tre_after["mean"]
    return found


def _shrink(figure: Path, small: Path) -> None:
    """A small JPEG of a figure."""
    from PIL import Image

    from warpwright.io.atomic import replacing

    with Image.open(figure) as image, replacing(small) as temporary:
        picture = image.convert("RGB")
        picture.thumbnail(THUMBNAIL, reducing_gap=2.0)
        picture.save(temporary, "JPEG", quality=QUALITY, optimize=True)
        os.chmod(temporary, 0o644)
