"""The site: it builds without a warning, asks nobody for anything, and draws its own equations."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from docs_blocks import ROOT
from filelock import FileLock

pytest.importorskip("sphinx", reason="the extra docs is not installed")

FETCHED = {  # what a browser fetches by itself
    "script": "src",
    "img": "src",
    "source": "srcset",
    "iframe": "src",
    "embed": "src",
    "object": "data",
    "link": "href",
    "video": "src",
    "audio": "src",
}
REMOTE = re.compile(r"^(https?:)?//")
IN_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    if shared.name.startswith("popen-"):  # a worker of pytest-xdist
        shared = shared.parent
    built = shared / "site"
    with FileLock(shared / "site.lock"):
        if not built.exists():
            command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(shared / "doctrees")]
            done = subprocess.run([*command, str(ROOT / "docs"), str(built)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
    return built


class Asked(HTMLParser):
    """Collects the addresses that a page has a browser fetch, and the text of its styles."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.styles: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.inside = tag == "style"
        self.styles.append(given.get("style", ""))
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if FETCHED.get(tag, "") in given:
            self.addresses.append(given[FETCHED[tag]])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.styles.append(data)


def asked(text: str) -> Asked:
    found = Asked()
    found.feed(text)
    return found


def remote(page: Asked) -> list[str]:
    styles = [address for style in page.styles for address in IN_STYLE.findall(style)]
    return [address for address in page.addresses if REMOTE.match(address)] + styles


def test_no_page_asks_for_anything_remote(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    assert {page.name: found for page in pages if (found := remote(asked(page.read_text())))} == {}
    styles = sorted(site.rglob("*.css"))
    assert styles
    assert {style.name: found for style in styles if (found := IN_STYLE.findall(style.read_text()))} == {}


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<p style="background: url(https://example.org/x.png)">',
        "<style>@import 'https://example.org/x.css';</style>",
    ],
)
def test_a_remote_address_would_be_found(text: str) -> None:
    assert len(remote(asked(text))) == 1


def test_links_inside_the_site_lead_somewhere(site: Path) -> None:
    pages = {page.resolve(): asked(page.read_text()) for page in site.rglob("*.html")}
    lost = []
    for page, found in pages.items():
        for link in found.links:
            path, _, anchor = link.partition("#")
            if REMOTE.match(link) or ":" in path:
                continue
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                lost.append(f"{page.name}: {link}")
    assert lost == []


def test_links_of_the_sources_lead_somewhere() -> None:
    """Where the repository is browsed, the sources are the pages."""
    lost = []
    for page in [*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^()\s]+)\)", text):
            if "://" not in link and not link.startswith("#") and not (page.parent / link.partition("#")[0]).exists():
                lost.append(f"{page.name}: {link}")
    assert lost == []


@pytest.mark.parametrize("name", ["smoothproper", "dio", "gradicon", "metareg", "adacs"])
def test_methods_have_equations_that_a_browser_draws(site: Path, name: str) -> None:
    text = (site / f"{name}.html").read_text()
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in text
    assert "$" not in re.sub(r"<(script|style|pre|code)\b.*?</\1>", "", text, flags=re.S)
    assert "\\" not in re.sub(r"<(script|style|pre|code)\b.*?</\1>", "", text, flags=re.S)


@pytest.mark.parametrize(("name", "words"), [("results/dio", "Shifts of the images"), ("contributing", "The floors")])
def test_files_outside_are_pages(site: Path, name: str, words: str) -> None:
    assert words in (site / f"{name}.html").read_text()


def test_every_public_name_is_documented(site: Path) -> None:
    text = (site / "api.html").read_text()
    names = importlib.import_module("warpwright").__all__
    assert [name for name in names if f'id="warpwright.{name}"' not in text] == []


def test_every_page_is_in_the_contents(site: Path) -> None:
    links = {link.partition("#")[0] for link in asked((site / "index.html").read_text()).links}
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sources - {"index.html"} <= links


@pytest.mark.parametrize(
    ("given", "escaped"),
    [
        ("of shape (C, *S)", r"of shape (C, \*S)"),
        ("`(C, *S)` stays", "`(C, *S)` stays"),
        ("|u| and a_ but a_b", r"\|u\| and a\_ but a_b"),
        (">>> 2 * 3", ">>> 2 * 3"),
    ],
)
def test_docstrings_are_escaped(given: str, escaped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "extensions"))
    assert importlib.import_module("docstrings").escaped(given) == escaped
