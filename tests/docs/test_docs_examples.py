"""Examples at a prompt, in the pages and in docstrings, do what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest
from docs_blocks import PAGES, ROOT

SOURCES = ROOT / "src"
PROMPT = ">>> "
MODULES = [path for path in sorted(SOURCES.rglob("*.py")) if PROMPT in path.read_text()]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def named(path: Path) -> str:
    """The module of a source file."""
    parts = path.relative_to(SOURCES).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("page", [page for page in PAGES if PROMPT in page.read_text()], ids=lambda page: page.stem)
def test_examples_of_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(page), module_relative=False, optionflags=OPTIONS)
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_examples_of_docstrings(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(import_module(named(path)), optionflags=OPTIONS)
    assert found.attempted
    assert not found.failed


def test_what_a_person_begins_with_has_examples() -> None:
    texts = {named(path) for path in MODULES}
    assert {"warpwright.geometry.image", "warpwright.transforms.transform", "warpwright.product.register"} <= texts
