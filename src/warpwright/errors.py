"""The two ways in which a run ends badly; each carries one sentence for a person. And what such sentences are made of.

The sentence names what (the file or the argument), what was found and what was expected. The command line prints it
and exits with `exit_code`; nothing else in the package decides how a failure is shown.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__all__ = ["BadInput", "Failed", "WarpwrightError", "did_you_mean", "first_of"]

NAMED = 20  # so many things are named in one sentence


class WarpwrightError(Exception):
    """A failure with a sentence for a person; `exit_code` is what the command line returns."""

    exit_code = 1


class BadInput(WarpwrightError):
    """Something that was given cannot be used: a file, a value, a combination."""

    exit_code = 2


class Failed(WarpwrightError):
    """The input was good but the work could not be done: full disk, diverged solve, missing extra."""


def first_of(names: Iterable[str], separator: str = ", ") -> str:
    """The first 20 of some names, and how many more there are."""
    every = list(names)
    more = f"{separator}and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return separator.join(every[:NAMED]) + more


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or the first of them if none is near."""
    close = get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else f", expected one of {first_of(known)}"
