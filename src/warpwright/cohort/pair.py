"""One pair, in whatever process: what `warpwright register` does, into a folder of its own, then the record of it.

What comes and goes between processes are small mappings of plain values.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warpwright.cohort.place import Busy, check_token, claimed, make_temporary, unclaim
from warpwright.cohort.provenance import RECORD, clear, described, output_sizes, read_record, same_run, write_record
from warpwright.cohort.work import Options, named_files, options_digest
from warpwright.config import from_mapping
from warpwright.errors import BadInput, Failed, WarpwrightError
from warpwright.product.output import plain

if TYPE_CHECKING:
    from warpwright.product.result import RegistrationResult

__all__ = ["record_failure", "run_pair"]

FULL = (errno.ENOSPC, errno.EDQUOT)
MEMORY = re.compile("memory|CUDA|cuDNN|bad_alloc")  # in what torch, its devices and ITK say when they get none

ONE_AT_A_TIME = threading.Lock()  # the number of threads is a setting of the whole process
THUMBNAIL = (360, 220)  # pixels, at most
QUALITY = 72  # of its JPEG


def run_pair(task: Mapping[str, Any]) -> dict[str, Any]:
    """Register a pair and write its results and its record; a failure is an outcome like another.

    Only what `register` finds wrong with the pair is recorded as a failure. What is wrong with the machine (memory, disks)
    and what was not foreseen is told, but not recorded: the same command runs the pair again. Results of an earlier run stay
    until the new ones are whole.

    Args:
        task: of `Plan.task`: id, folder, files (column to path), options (as JSON has them), digest, command; and what the
            worker must agree with: token of the output folder, version; "deaths", how many processes may end at the pair.

    Returns:
        The record: id, state ("done", "failed", or "skipped" while another process has the pair), sentence of a failure,
        warnings, figures, seconds, inputs, outputs; also "stop", a sentence, if no pair can be run like this.
    """
    folder = Path(task["folder"])
    record = _blank(task)
    with ONE_AT_A_TIME:
        try:
            _agree(task)
            with claimed(folder) as ended:
                if ended >= task.get("deaths", ended + 1):
                    return record_failure(task, f"{ended} processes ended while they ran it, expected one that can run it")
                return _run(task, folder, record)
        except Busy as error:
            return record | {"state": "skipped", "sentence": str(error)}
        except Stop as error:
            return record | {"sentence": str(error), "stop": str(error)}
        except OSError as error:
            return plain(record | _fault(error))


def _run(task: Mapping[str, Any], folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    begin = time.perf_counter()
    try:
        record["inputs"] = {column: described(Path(path)) for column, path in task["files"].items()}
        _check_options(task)
        with _temporary(folder) as fresh:
            record |= _register(task, fresh)
            _check_options(task)
            record["seconds"] = time.perf_counter() - begin
            _swap(fresh, folder, record)
        return plain(record)
    except Stop:
        raise
    except PairFault as error:
        record |= {"sentence": str(error), "seconds": time.perf_counter() - begin}
        return _written(folder, record)
    except Exception as error:
        return plain(record | _fault(error) | {"state": "failed", "warnings": [], "figures": {}, "outputs": {}})


def record_failure(task: Mapping[str, Any], sentence: str) -> dict[str, Any]:
    """The record of a pair that ended in a way in which it could write none itself.

    Args:
        task: as of `run_pair`.
        sentence: what happened.
    """
    folder, record = Path(task["folder"]), _blank(task) | {"sentence": sentence}
    try:
        record["inputs"] = {column: described(Path(path)) for column, path in task["files"].items()}
    except OSError:  # nothing can be known of it later: it will be run again
        return record
    finally:
        unclaim(folder)
    return _written(folder, record)


class Stop(Exception):
    """No pair can be run as things are; the sentence says why."""


class PairFault(Exception):
    """The pair itself cannot be registered; the sentence says why."""


def _agree(task: Mapping[str, Any]) -> None:
    """That this process is one that the work is meant for.

    Raises:
        Stop: it sees another folder, or is of another version.
    """
    here, asked = version("warpwright"), task.get("version", version("warpwright"))
    if here != asked:
        raise Stop(f"the worker {platform.node()} has Warpwright {here}, expected {asked} as where the command was given")
    if "token" in task:
        try:
            check_token(Path(task["folder"]).parent, task["token"])
        except Failed as error:
            raise Stop(str(error)) from None


def _check_options(task: Mapping[str, Any]) -> None:
    """That the files which the options name are still those that the work was planned with.

    Raises:
        Stop: they are not.
    """
    options = from_mapping(Options, task["options"])
    try:
        same = not named_files(options) or options_digest(options) == task["digest"]
    except BadInput as error:
        raise Stop(f"the worker {platform.node()}: {error}") from None
    if not same:
        names = " or ".join(str(path) for path in named_files(options))
        raise Stop(f"{names} has changed since the work began, or is another on {platform.node()}: give the command again")


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A new folder, in one beside that of the pair which is removed afterwards."""
    place = make_temporary(folder)
    try:
        fresh = place / "new"
        fresh.mkdir()
        yield fresh
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _swap(fresh: Path, folder: Path, record: Mapping[str, Any]) -> None:
    """Put new results with their record in the place of older ones; other files stay.

    Raises:
        OSError, BadInput, Failed: they cannot be written.
    """
    write_record(fresh, record)
    with suppress(OSError):
        folder.rmdir()  # if it is empty
    with suppress(OSError):
        fresh.rename(folder)  # all at once
        return
    clear(folder)
    for name in (*(path.name for path in fresh.iterdir() if path.name != RECORD), RECORD):
        os.replace(fresh / name, folder / name)


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
    """The record of a failure, in its file, and older results gone, unless those are of the same files and options.

    Where it cannot be written (a full disk) the pair will be run again.
    """
    older = read_record(folder)
    if older is not None and older.get("state") == "done" and same_run(older, record):
        return plain(record)
    try:
        folder.mkdir(exist_ok=True)
        clear(folder)
        write_record(folder, record)
    except (OSError, WarpwrightError) as error:
        record |= _fault(error)
    return plain(record)


def _fault(error: BaseException) -> dict[str, Any]:
    """What is told of an error that is not the pair's: a sentence, and whether other pairs will meet it too."""
    if any(_full(one) for one in _chain(error)):
        sentence = f"the disk is full ({_sentence(error)}): what was done is kept, and the same command goes on from there"
        return {"sentence": sentence, "stop": sentence}
    return {"sentence": _sentence(error)}


def _sentence(error: BaseException) -> str:
    if isinstance(error, WarpwrightError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory ({error})"
    if isinstance(error, OSError):
        return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}"
    where = traceback.extract_tb(error.__traceback__)
    place = f" (at {Path(where[-1].filename).name}:{where[-1].lineno})" if where else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def _full(error: BaseException) -> bool:
    return isinstance(error, OSError) and (error.errno in FULL or "No space left" in str(error))


def _of_machine(error: BaseException) -> bool:
    """Whether an error is of the machine; readers of broken files raise OSError without a number, or with EINVAL."""
    if isinstance(error, OSError):
        return error.errno not in (None, errno.EINVAL)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(MEMORY.search(str(error))))


def _register(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The registration, its results in their folder, and what a record says of them.

    Raises:
        PairFault: the pair cannot be registered.
        Exception: anything else is not the pair's fault, such as not being able to write.
    """
    from warpwright.product.plan import chosen_device

    options = from_mapping(Options, task["options"])
    chosen_device(options.device)  # its absence is not the pair's fault
    try:
        result = _result(task, options)
    except WarpwrightError as error:
        if any(_of_machine(one) for one in _chain(error)):
            raise
        raise PairFault(str(error)) from error
    _save(result, task, folder, figure=options.figures, report=options.report)
    return {
        "state": "done",
        "warnings": list(result.verdict.sentences),
        "figures": _figures(result),
        "outputs": output_sizes(folder),
    }


def _save(result: RegistrationResult, task: Mapping[str, Any], folder: Path, *, figure: bool, report: bool) -> None:
    """Write the results into an empty folder.

    Raises:
        BadInput, Failed, OSError: they cannot be written; a sentence of ours names the pair's folder.
    """
    try:
        result.write(folder, command=task["command"], figure=figure)
        if figure:
            _shrink(folder / "figure.png", folder / "thumbnail.jpg")
        if report:
            from warpwright.product.report import write_report

            write_report(folder)
    except WarpwrightError as error:
        raise type(error)(str(error).replace(str(folder), task["folder"])) from error


def _result(task: Mapping[str, Any], options: Options) -> RegistrationResult:
    from warpwright.product.plan import prepare

    files = task["files"]
    plan = prepare(
        files["fixed"],
        files["moving"],
        choice=options.choice(),
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
    return plan.run()


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
