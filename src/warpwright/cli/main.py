"""The program `warpwright`: sub-commands that are imported when they are called, failures as one line and an exit code."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError, Parameter

from warpwright.errors import BadInput, WarpwrightError

__all__ = ["main"]

atexit.register(gc.freeze)  # looking through all of torch for garbage before the end takes a third of a second

COMMANDS = {
    "demo": "Register the bundled real pairs and print how well it went.",
    "register": "Register two images: find the map of points of FIXED to points of MOVING.",
    "train": "Train a model on your own images.",
    "apply": "Apply a transform to an image, to labels or to points.",
    "report": "Write one HTML page about a registration: verdict, pictures, figures, settings.",
    "features": "Show what a model of features sees in an image.",
    "evaluate": "Score label maps, landmarks and transforms.",
    "template": "Make the mean of many images in their mean shape.",
    "info": "Tell what an image, a transform file or a model folder holds.",
}
TRANSFORM_COMMANDS = {
    "compose": "Join transforms into one: the last one acts first.",
    "invert": "Write the map back, and tell how exact it is.",
    "convert": "Write a transform in another format.",
    "jacobian": "Write the Jacobian determinant of the full map in mm.",
    "info": "Tell what a transform file holds.",
}


def _app() -> App:
    app = App(
        name="warpwright",
        help="Deformable medical image registration. Exit codes: 0 done, 1 failed, 2 bad input.",
        version=lambda: version("warpwright"),
        default_parameter=Parameter(negative=()),
        help_format="plaintext",
    )
    for name, text in COMMANDS.items():
        app.command(f"warpwright.cli.{name}:{name}", name=name, help=text)
    transform = App(name="transform", help="Compose, invert, convert and inspect transform files.", help_format="plaintext")
    for name, text in TRANSFORM_COMMANDS.items():
        transform.command(f"warpwright.cli.transform:{name}", name=name, help=text)
    app.command(transform)
    app.command(
        "warpwright.cli.cohort:app",
        name="cohort",
        help="Register many pairs of a table or folder, on many processors; goes on.",
    )
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; default `sys.argv[1:]`.

    Returns:
        The exit code: 0 done, 1 failed, 2 bad input. A failure is one line on standard error.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        tokens = list(sys.argv[1:] if arguments is None else arguments)
        code = _app()(tokens, exit_on_error=False, print_error=False, result_action="return_value") or 0
        sys.stdout.flush()
        return code
    except CycloptsError as error:
        return _complain(str(error), BadInput.exit_code)
    except WarpwrightError as error:
        return _complain(str(error), error.exit_code)
    except MemoryError as error:
        return _complain(f"out of memory ({error})", 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 1)
    except BrokenPipeError:
        return _nobody_reads()
    except OSError as error:
        return _complain(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", 1)


def _nobody_reads() -> int:
    """The reader of standard output has gone (`| head`): what is still in the buffer must not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _complain(sentence: str, code: int) -> int:
    sys.stderr.write(f"warpwright: {' '.join(sentence.split())}\n")
    return code
