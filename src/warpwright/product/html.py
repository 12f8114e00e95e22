"""What self-contained pages share: parts of a package, templates that escape all values, a policy that lets nothing in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["inline", "part", "template"]


@cache
def part(package: str, name: str) -> str:
    """The text of a file in the folder `parts` of a package."""
    return (resources.files(package) / "parts" / name).read_text(encoding="utf-8")


def template(package: str, name: str, filters: Mapping[str, Callable[..., Any]] | None = None) -> Template:
    """A part as a template, in which every value is escaped and one that is missing is an error."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= filters or {}
    return environment.from_string(part(package, name))


def inline(style: str, script: str, library: str | None = None) -> dict[str, str]:
    """Style and script of a page, and a policy that allows nothing but them and pictures that are in the page.

    Args:
        style: of the page.
        script: of the page.
        library: another script, which the policy allows too.
    """
    scripts = " ".join(f"'{_hash(text)}'" for text in (script, library) if text is not None)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src {scripts};"
        " base-uri 'none'; form-action 'none'"
    )
    return {"style": style, "script": script, "policy": policy}


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
