"""Pages in a real browser: nothing is asked from outside, ratings are given by keyboard. Needs Playwright and Chromium.

pip install playwright; pytest benchmarks/test_browser.py
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from warpwright import register
from warpwright.product.report import write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cohort"))
from small_cohort import make_images, options, run

from warpwright.cohort.work import read_work

ARGUMENTS = ["--no-sandbox", "--enable-unsafe-swiftshader"]  # as root in a container; WebGL without a graphics card
OWN = ("file:", "data:", "blob:")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cohort."""
    place = tmp_path_factory.mktemp("cohort")
    images = make_images(place)
    run(read_work(images / "pairs.csv", options(images)), place / "out")
    return place / "out"


@pytest.fixture
def page() -> Iterator[Page]:
    """A page whose requests and errors are in `page.asked` and `page.faults`."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        found = browser.new_page(accept_downloads=True)
        found.asked, found.faults = [], []
        found.on("request", lambda request: found.asked.append(request.url))
        found.on("pageerror", lambda error: found.faults.append(str(error)))
        found.on("console", lambda said: found.faults.append(said.text) if said.type == "error" else None)
        yield found
        browser.close()


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the bundled hippocampi."""
    images = files("warpwright") / "data" / "pairs" / "hippocampus"
    place = tmp_path_factory.mktemp("volumes") / "out"
    return register(f"{images}/image_130.nii.gz", f"{images}/image_132.nii.gz", preset="fast").save(place)


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize(("kind", "interactive"), [("cohort", False), ("volumes", False), ("volumes", True)])
def test_a_report_asks_for_nothing_but_itself(
    request: pytest.FixtureRequest, page: Page, tmp_path: Path, kind: str, interactive: bool, width: int
) -> None:
    """Static and with the viewer, narrow and wide; nothing sticks out."""
    results = request.getfixturevalue(kind)
    folder = Path(shutil.copytree(results / "p0" if kind == "cohort" else results, tmp_path / "one"))
    write_report(folder, interactive=interactive, force=True)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((folder / "report.html").as_uri(), wait_until="networkidle")
    for part in page.locator("details").all():
        part.evaluate("part => { part.open = true; }")
    page.wait_for_timeout(1000)
    assert (page.locator("canvas").count() > 0) == interactive
    assert page.faults == []
    assert [url[:60] for url in page.asked if not url.startswith(OWN)] == []
    assert {url for url in page.asked if url.startswith("file:")} == {(folder / "report.html").as_uri()}
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_of_a_cohort_asks_for_nothing_but_itself(cohort: Path, page: Page, width: int, scheme: str) -> None:
    """Narrow and wide, light and dark; nothing sticks out."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((cohort / "index.html").as_uri(), wait_until="networkidle")
    assert page.faults == []
    assert {url for url in page.asked if not url.startswith(("data:", "blob:"))} == {(cohort / "index.html").as_uri()}
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_pairs_are_rated_by_keyboard_and_ratings_are_kept_saved_and_loaded(cohort: Path, page: Page, tmp_path: Path) -> None:
    """By keys alone; what a spreadsheet would take for a formula is saved as text."""
    page.goto((cohort / "index.html").as_uri())
    rows = [row.get_attribute("data-id") or "" for row in page.locator("tr[data-id]").all()]
    assert sorted(rows) == ["p0", "p1", "p2", "p3"]
    for key in ("j", "1", "j", "3", "n"):
        page.keyboard.press(key)
    page.keyboard.type("=shifted")
    page.keyboard.press("Enter")
    assert "2 of 4 rated" in page.locator("#rated").inner_text()
    with page.expect_download() as waited:
        page.locator("#save").click()
    saved = tmp_path / "ratings.tsv"
    waited.value.save_as(saved)
    lines = [line.split("\t") for line in saved.read_text().splitlines()]
    assert lines[0] == ["id", "rating", "note", "rater", "time"]
    assert sorted(line[:3] for line in lines[1:]) == sorted([[rows[0], "good", ""], [rows[1], "bad", "'=shifted"]])
    page.reload()
    assert "2 of 4 rated" in page.locator("#rated").inner_text()  # kept by the browser
    page.keyboard.press("j")
    page.keyboard.press("0")
    assert "1 of 4 rated" in page.locator("#rated").inner_text()
    page.locator("#load").set_input_files(saved)
    page.wait_for_function("document.getElementById('rated').textContent.includes('2 loaded')")
    assert "2 of 4 rated" in page.locator("#rated").inner_text()
    assert page.faults == []
    assert {url.split("#")[0] for url in page.asked if url.startswith(("http", "ws"))} == set()
