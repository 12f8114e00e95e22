"""The two ways in which a run ends badly; each carries one sentence for a person.

The sentence names what (the file or the argument), what was found and what was expected. The command line prints it
and exits with `exit_code`; nothing else in the package decides how a failure is shown.
"""

__all__ = ["BadInput", "Failed", "WarpwrightError"]


class WarpwrightError(Exception):
    """A failure with a sentence for a person; `exit_code` is what the command line returns."""

    exit_code = 1


class BadInput(WarpwrightError):
    """Something that was given cannot be used: a file, a value, a combination."""

    exit_code = 2


class Failed(WarpwrightError):
    """The input was good but the work could not be done: full disk, diverged solve, missing extra."""
