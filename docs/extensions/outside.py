"""Files of the repository that lie outside `docs` become pages, and links to them lead there.

Links in the sources are plain relative ones, which work where the repository is browsed. In the site a link to a file of
`outside_pages` leads to its page; another text file outside loses its link; anything else (settings, programs) is offered
as a download.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

__all__ = ["setup"]

LINK = re.compile(r"(!?)\[([^\]\[]*)\]\(([^()\s]+)\)")


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the file's text in the place of the page's own, and lay links anew, as `source-read` asks."""
    root = Path(app.srcdir).parent
    pages = {(root / file).resolve(): app.srcdir / f"{name}.md" for name, file in app.config.outside_pages.items()}
    here = home = Path(app.env.doc2path(docname))
    if docname in app.config.outside_pages:
        home = (root / app.config.outside_pages[docname]).resolve()
        app.env.note_dependency(str(home), docname=docname)
        source[0] = home.read_text(encoding="utf-8")

    def laid(link: re.Match[str]) -> str:
        picture, words, address = link.groups()
        path, *anchor = address.split("#")
        if not path or "://" in path:
            return link[0]
        target = (home.parent / path).resolve()
        target = pages.get(target, target)
        if target.suffix == ".md" and not target.is_relative_to(app.srcdir):
            return words
        return f"{picture}[{words}]({'#'.join([Path(os.path.relpath(target, here.parent)).as_posix(), *anchor])})"

    source[0] = LINK.sub(laid, source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Read every page through it."""
    app.add_config_value("outside_pages", {}, "env")
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
