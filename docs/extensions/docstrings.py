"""Docstrings are plain text with code between backticks: what reStructuredText would take for markup is escaped.

A shape such as (C, *S), a norm such as |u| and a name that ends in an underscore would otherwise begin emphasis, a
substitution or a link.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

__all__ = ["escaped", "setup"]

CODE = re.compile(r"(``?[^`]+``?)")
MARKUP = re.compile(r"[*|]|_(?=\W|$)")


def escaped(line: str) -> str:
    """The line with markup escaped outside of code; a line of an example is left as it is."""
    if line.lstrip().startswith((">>>", "...")):
        return line
    parts = CODE.split(line)
    return "".join(part if part.startswith("`") else MARKUP.sub(r"\\\g<0>", part) for part in parts)


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Change the lines of a docstring in place, as autodoc asks."""
    lines[:] = [escaped(line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Come before napoleon, whose sections are markup."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
