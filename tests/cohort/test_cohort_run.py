from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, NoReturn

import pytest
from matplotlib.image import imread
from small_cohort import EXACT, contents, options, run, silent, write_table

from warpwright.cohort import pair as pair_module
from warpwright.cohort.pair import record_failure, run_pair
from warpwright.cohort.run import execute, in_order, look_at, make_plan
from warpwright.cohort.work import read_work
from warpwright.errors import Failed
from warpwright.product.choice import Choice
from warpwright.product.plan import prepare


def raising(error: Exception) -> Callable[..., NoReturn]:
    def refuse(*_: object) -> NoReturn:
        raise error

    return refuse


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_failure_is_told_and_stops_nothing(serial):
    table = rows(serial)
    assert [row["id"] for row in table] == ["p0", "p1", "p2", "p3"]
    assert [row["status"] for row in table] == ["done", "done", "done", "failed"]
    assert "moving3.nii.gz" in table[3]["sentence"]
    assert all(float(row["dice_after"]) > float(row["dice_before"]) for row in table[:3])
    assert sorted(path.name for path in (serial / "p3").iterdir()) == ["provenance.json"]
    assert not [path for path in serial.iterdir() if path.name.startswith(".")]


def test_a_pair_is_what_register_does(images, serial, tmp_path):
    files = [images / f"{side}0{what}.nii.gz" for what in ("", "_labels") for side in ("fixed", "moving")]
    choice = Choice(preset="fast", config=images / "settings.toml")
    prepare(files[0], files[1], choice=choice, labels=(files[2], files[3]), threads=1).run().save(tmp_path / "alone")
    for name in EXACT:
        assert (tmp_path / "alone" / name).read_bytes() == (serial / "p0" / name).read_bytes(), name
    alone, found = (json.loads((place / "result.json").read_text()) for place in (tmp_path / "alone", serial / "p0"))
    assert found.keys() == alone.keys()
    assert found["scores"] == alone["scores"]
    assert {path.name for path in (tmp_path / "alone").iterdir()} - {path.name for path in (serial / "p0").iterdir()} == {
        "figure.png"
    }


def test_a_record_says_from_what_how_and_what(serial, shared_images):
    record = json.loads((serial / "p0" / "provenance.json").read_text())
    assert record["state"] == "done"
    assert record["inputs"].keys() == {"fixed", "moving", "fixed_labels", "moving_labels"}
    fixed, there = record["inputs"]["fixed"], os.stat(shared_images / "fixed0.nii.gz")
    assert fixed["stat"] == [1, there.st_size, there.st_mtime_ns]
    assert fixed["sha256"] == json.loads((serial / "p0" / "result.json").read_text())["inputs"]["fixed"]["sha256"]
    assert record["outputs"] == {name: (serial / "p0" / name).stat().st_size for name in (*EXACT, "result.json")}


def test_a_rerun_does_nothing_and_neither_times_nor_places_of_equal_files_matter(finished):
    work, folder = finished()
    before = contents(folder)
    assert run(work, folder).todo == ()
    assert contents(folder) == before
    record = json.loads((folder / "p0" / "provenance.json").read_text())  # the copies are now known by their times
    assert record["inputs"]["fixed"]["path"] == str(work.pairs[0].files["fixed"])


def test_only_what_is_missing_or_changed_is_run(finished, images):
    work, folder = finished()
    before = contents(folder)
    (folder / "p0" / "inverse.h5").unlink()
    (folder / "p1" / "provenance.json").unlink()
    shutil.copy(images / "moving1.nii.gz", images / "moving2.nii.gz")
    shutil.copy(images / "moving0.nii.gz", images / "moving3.nii.gz")
    plan = make_plan(work, folder)
    assert [state.status for state in plan.states] == ["missing", "missing", "changed", "changed"]
    assert plan.todo == (0, 1, 2, 3)
    after = execute(plan, in_order, silent)
    assert after.counts() == {"pairs": 4, "done": 4, "failed": 0, "missing": 0, "changed": 0}
    found = contents(folder)
    assert all(found[name] == before[name] for name in before if name.startswith(("p0/", "p1/")))
    assert found["p2/moved.nii.gz"] != before["p2/moved.nii.gz"]


def test_other_settings_run_every_pair_and_other_rows_only_their_own(finished, images):
    work, folder = finished()
    (images / "settings.toml").write_text("steps = [3]\nlevels = [1]\nlinear = []\nstart = 'none'\n")
    assert [state.status for state in make_plan(work, folder).states] == ["changed"] * 4
    shutil.copy(images / "fixed0.nii.gz", images / "moving3.nii.gz")
    (images / "settings.toml").write_text((images / "settings.toml").read_text().replace("3", "6"))
    write_table(images / "pairs.csv", (2, 3, 0))
    plan = run(read_work(images / "pairs.csv", options(images)), folder)
    assert [state.status for state in plan.states] == ["done", "changed", "done"]
    assert [row["id"] for row in rows(folder)] == ["p2", "p3", "p0"]


def test_results_of_a_pair_that_now_fails_are_gone_and_files_of_a_person_stay(finished, images):
    work, folder = finished()
    (folder / "p0" / "notes.txt").write_text("mine")
    (images / "moving0.nii.gz").write_bytes((images / "moving0.nii.gz").read_bytes()[:-20])
    run(work, folder)
    assert {path.name for path in (folder / "p0").iterdir()} == {"notes.txt", "provenance.json"}
    assert rows(folder)[0]["status"] == "failed"


def test_failures_are_run_again_when_asked_for(finished, monkeypatch):
    work, folder = finished()
    assert make_plan(work, folder).todo == ()
    assert make_plan(work, folder, retry=True).todo == (3,)
    assert make_plan(work, folder, force=True).todo == (0, 1, 2, 3)
    monkeypatch.setattr(pair_module, "_register", raising(ZeroDivisionError("division by zero")))
    run(work, folder, retry=True)
    record = json.loads((folder / "p3" / "provenance.json").read_text())
    assert record["sentence"] == "ZeroDivisionError: division by zero"
    assert "raise error" in record["traceback"]


@pytest.mark.parametrize(
    ("error", "words"), [(MemoryError("8 GB"), "out of memory (8 GB)"), (OSError(28, "No space", "x"), "x: No space")]
)
def test_what_the_system_refuses_is_a_sentence(finished, monkeypatch, error, words):
    work, folder = finished()

    monkeypatch.setattr(pair_module, "_register", raising(error))
    record = run_pair(make_plan(work, folder).task(0))
    assert (record["state"], record["sentence"]) == ("failed", words)


def test_a_record_that_cannot_be_written_is_a_failure_that_is_run_again(finished, monkeypatch):
    work, folder = finished()

    monkeypatch.setattr(pair_module, "write_record", raising(Failed("provenance.json: No space left on device")))
    record = run_pair(make_plan(work, folder).task(0))
    assert (record["state"], record["figures"]) == ("failed", {})
    assert "No space" in record["sentence"]
    assert make_plan(work, folder).todo == (0,)


def test_a_pair_that_ends_its_workers_is_a_failure(finished):
    work, folder = finished()
    record = record_failure(make_plan(work, folder).task(1), "it was too much")
    assert (record["state"], record["sentence"]) == ("failed", "it was too much")
    assert make_plan(work, folder).todo == ()
    assert dict(look_at(folder).failures()).keys() == {"p1", "p3"}


def test_an_interruption_leaves_what_is_done_and_the_rest_follows(shared_images, serial, tmp_path):
    work = read_work(shared_images / "pairs.csv", options(shared_images))

    def impatient(tasks: Iterable[Mapping[str, Any]]) -> Generator[Mapping[str, Any], None, None]:
        for count, record in enumerate(in_order(tasks)):
            if count == 2:
                (tmp_path / "out" / ".p3-abcd_123").mkdir()  # what a worker that is killed leaves
                raise KeyboardInterrupt
            yield record

    with pytest.raises(Failed, match="3 of 4 pairs are done"):  # of which one was not heard of
        execute(make_plan(work, tmp_path / "out"), impatient, silent)
    assert [row["status"] for row in rows(tmp_path / "out")] == ["done", "done", "done", "pending"]
    assert (tmp_path / "out" / "index.html").exists()
    assert run(work, tmp_path / "out").todo == (3,)
    assert not (tmp_path / "out" / ".p3-abcd_123").exists()
    assert contents(tmp_path / "out") == contents(serial)


def test_parts_make_the_whole(shared_images, serial, tmp_path):
    work = read_work(shared_images / "pairs.csv", options(shared_images))
    parts = [run(work, tmp_path / "out", shard=(k, 3)).todo for k in (3, 1, 2)]
    assert parts == [(2,), (0, 3), (1,)]
    assert contents(tmp_path / "out") == contents(serial)


def test_figures_are_drawn_when_they_are_asked_for_and_nothing_else_changes(finished, images):
    _, folder = finished()
    before = contents(folder)
    write_table(images / "pairs.csv", (0,))
    plan = run(read_work(images / "pairs.csv", options(images, figures=True)), folder)
    assert plan.todo == (0,)
    assert all(contents(folder)[f"p0/{name}"] == before[f"p0/{name}"] for name in EXACT)
    small = imread(folder / "p0" / "thumbnail.jpg")
    assert max(small.shape[0] / 220, small.shape[1] / 360) == pytest.approx(1, abs=0.01)
    assert "data:image/jpeg;base64," in (folder / "index.html").read_text()
    assert run(read_work(images / "pairs.csv", options(images)), folder).todo == ()


def test_results_of_another_version_stay_and_are_told(finished, monkeypatch):
    work, folder = finished()
    monkeypatch.setattr("warpwright.cohort.run.version", lambda _: "9.9")
    plan = make_plan(work, folder)
    assert plan.todo == ()
    assert plan.notes() == (f"4 results are of Warpwright {installed('warpwright')}, this is 9.9: --force runs them again",)
    assert make_plan(work, folder, force=True).notes() == ()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "inputs": {"fixed": 3}, "options": "x"}']
)
def test_a_record_that_is_none_counts_as_missing_or_changed(finished, text):
    work, folder = finished()
    (folder / "p0" / "provenance.json").write_text(text)
    assert make_plan(work, folder).todo == (0,)
