from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from warpwright.cohort.page import page
from warpwright.cohort.provenance import State
from warpwright.cohort.table import write_tables
from warpwright.cohort.work import Options, Pair, Work

HOSTILE = "<img src=x onerror=alert(1)>\"'&"


class Seen(HTMLParser):
    """Tags with their attributes, in order, and the ids of the rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def rows(self) -> list[str | None]:
        return [
            values["data-v"] for tag, values in self.tags if tag == "th" and values.get("scope") == "row" and "data-v" in values
        ]


def state(**record: Any) -> State:
    return State(status=record["state"], record=record)


def work(*ids: str, group: str = "") -> Work:
    pairs = tuple(Pair(id=name, files={}, group=group) for name in ids)
    return Work(table=Path(f"/data/{HOSTILE.replace('/', '')}.csv"), options=Options(), pairs=pairs)


def done(dice: float, *warnings: str) -> State:
    figures = {"dice_before": 0.1, "dice_after": dice, "energy_after": None, "improved": True}
    return state(
        state="done", figures=figures, warnings=list(warnings), seconds=1.5, outputs={"figure.png": 3, "result.json": 2}
    )


def test_names_and_sentences_are_escaped_and_links_quoted(tmp_path):
    failed = state(state="failed", sentence=HOSTILE, figures={}, warnings=[], outputs={})
    text = page(work(HOSTILE, 'a b"#?', group=HOSTILE), (failed, done(0.5, HOSTILE)), tmp_path)
    seen = Seen(text)
    assert not [values for tag, values in seen.tags if tag == "img"]
    assert not [name for _, values in seen.tags for name in values if name.startswith("on")]
    assert "<img src=x" not in text
    assert {values["href"] for tag, values in seen.tags if tag == "a"} == {
        "#pairs",
        "results.csv",
        "a%20b%22%23%3F/figure.png",
        "a%20b%22%23%3F/result.json",
    }
    assert [values["data-id"] for tag, values in seen.tags if tag == "tr" and "data-id" in values] == [HOSTILE, 'a b"#?']


def test_a_report_is_linked_where_there_is_one(tmp_path):
    one = done(0.5)
    told = State(status="done", record={**one.record, "outputs": {"report.html": 5, "result.json": 2}})
    links = [v["href"] for t, v in Seen(page(work("a b", "c"), (told, one), tmp_path)).tags if t == "a"]
    assert "a%20b/report.html" in links
    assert "c/report.html" not in links


def test_the_page_asks_nothing_of_a_network(tmp_path):
    text = page(work("a"), (done(0.5),), tmp_path)
    policy = next(v["content"] for t, v in Seen(text).tags if t == "meta" and v.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", text)
    assert "url(" not in text
    assert "@import" not in text
    script = text[text.rindex("<script>") : text.rindex("</script>")]
    for way in ("fetch", "XMLHttpRequest", "WebSocket", "EventSource", "sendBeacon", "import(", "innerHTML", "eval", "http"):
        assert way not in script, way


def test_the_worst_pairs_come_first(tmp_path):
    pending = State(status="changed", record={})
    failed = state(state="failed", sentence="why", figures={}, warnings=[], outputs={})
    unlabelled = state(state="done", figures={"improved": True}, warnings=[], outputs={})
    states = (done(0.9), done(0.3), pending, done(0.8, "it folds"), failed, done(0.7, "it folds"), unlabelled)
    seen = Seen(page(work(*"abcdefg"), states, tmp_path))
    assert seen.rows() == ["e", "f", "d", "b", "a", "g", "c"]
    worst = [values["data-worst"] for tag, values in seen.tags if tag == "th" and "data-worst" in values]
    assert worst == ["low", "low", "high"]  # Dice twice, seconds; a column that no pair has is not there


def test_every_heading_that_sorts_is_a_button_and_pictures_have_words(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thumbnail.jpg").write_bytes(b"\xff\xd8\xff")
    found = done(0.5)
    with_picture = State(status="done", record={**found.record, "outputs": {"thumbnail.jpg": 3, "figure.png": 1}})
    seen = Seen(page(work("a"), (with_picture,), tmp_path))
    heads = [values for tag, values in seen.tags if tag == "th" and "data-kind" in values]
    buttons = [values for tag, values in seen.tags if tag == "button"]
    assert len([b for b in buttons if "id" not in b and "data-rating" not in b]) == len(heads)
    assert [b["data-rating"] for b in buttons if "data-rating" in b] == ["good", "doubtful", "bad"]
    pictures = [values for tag, values in seen.tags if tag == "img"]
    assert [p["src"] for p in pictures] == ["data:image/jpeg;base64,/9j/"]
    assert pictures[0]["alt"]


def test_a_cohort_without_any_result_has_a_page(tmp_path):
    assert Seen(page(work("a", "b"), (State(status="missing", record={}),) * 2, tmp_path)).rows() == ["a", "b"]


def test_tables_keep_numbers_whole_and_seconds_apart(tmp_path):
    figures = {"dice_after": 0.1 + 0.2, "improved": False, "vanished_labels": [1, 2], "energy_before": None}
    one = state(state="done", figures=figures, warnings=["a", "b"], seconds=3.25, version="1", sentence=None)
    write_tables(tmp_path, work("x,y").pairs, (one,))
    header, row = (tmp_path / "results.csv").read_text().splitlines()
    assert "seconds" not in header
    assert row.startswith('"x,y",,train,done,no,,0.30000000000000004,')
    assert row.endswith(",1 2,a; b,")
    assert (tmp_path / "timings.csv").read_text() == 'id,seconds,version\n"x,y",3.25,1\n'


def test_what_a_spreadsheet_would_run_has_an_apostrophe(tmp_path):
    failed = state(
        state="failed", sentence="@SUM(A1)", figures={"energy_after": -1.5}, warnings=["+1"], seconds=-1.0, version="1"
    )
    pairs = work("=1+1", "-x", group="\tcmd").pairs
    write_tables(tmp_path, pairs, (failed, done(0.5)))
    rows = (tmp_path / "results.csv").read_text().splitlines()[1:]
    assert rows[0].startswith("'=1+1,'\tcmd,train,failed,")
    assert ",-1.5," in rows[0]
    assert rows[0].endswith(",'+1,'@SUM(A1)")
    assert (tmp_path / "timings.csv").read_text().splitlines()[1:] == ["'=1+1,-1.0,1", "'-x,1.5,"]
