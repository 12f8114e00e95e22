from __future__ import annotations

import csv
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
from matplotlib.image import imread
from small_cohort import EXACT, contents, options, run, silent, write_table

from warpwright.cohort import pair as pair_module
from warpwright.cohort.pair import record_failure, run_pair
from warpwright.cohort.place import make_temporary, save_token, writer
from warpwright.cohort.provenance import Seen, described
from warpwright.cohort.run import execute, in_order, look_at, make_plan
from warpwright.cohort.work import read_work
from warpwright.errors import BadInput, Failed
from warpwright.product.choice import Choice
from warpwright.product.plan import prepare
from warpwright.product.resources import check_memory


def raising(error: Exception) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
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
    assert [path.name for path in serial.iterdir() if path.name.startswith(".")] == [".cohort-token"]


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


def test_failures_are_run_again_when_asked_for(finished):
    work, folder = finished()
    assert make_plan(work, folder).todo == ()
    assert make_plan(work, folder, retry=True).todo == (3,)
    assert make_plan(work, folder, force=True).todo == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("8 GB"), "out of memory (8 GB)"),
        (OSError(5, "Input/output error", "x"), "x: Input/output error"),
        (RuntimeError("CUDA out of memory"), "RuntimeError: CUDA out of memory (at "),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero (at "),
    ],
)
@pytest.mark.parametrize("where", ["_result", "_save"])
def test_a_fault_of_the_machine_is_told_but_neither_recorded_nor_takes_earlier_results(
    finished, monkeypatch, error, words, where
):
    work, folder = finished()
    (folder / "p1" / "provenance.json").unlink()
    before = {path: path.read_bytes() for path in folder.glob("p*/*")}
    monkeypatch.setattr(pair_module, where, raising(error))
    for number in (0, 1):
        record = run_pair(make_plan(work, folder).task(number))
        assert record["state"] == "failed"
        assert record["sentence"].startswith(words)
        assert "stop" not in record
    assert {path: path.read_bytes() for path in folder.glob("p*/*")} == before
    assert make_plan(work, folder).todo == (1,)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [".cohort-token"]


def test_a_failure_that_came_from_the_machine_is_none_of_the_pair(finished, monkeypatch):
    work, folder = finished()
    (folder / "p0" / "provenance.json").unlink()

    def refuse(*_: object) -> NoReturn:
        try:
            raise OSError(5, "Input/output error")
        except OSError:
            raise BadInput("fixed0.nii.gz: cannot be read") from None

    monkeypatch.setattr(pair_module, "_result", refuse)
    assert run_pair(make_plan(work, folder).task(0))["sentence"] == "fixed0.nii.gz: cannot be read"
    monkeypatch.setattr("warpwright.product.resources.available_memory", lambda: 0)
    monkeypatch.setattr(pair_module, "_result", lambda *_: check_memory(1))
    assert "0.0 GB are free" in run_pair(make_plan(work, folder).task(0))["sentence"]
    assert not (folder / "p0" / "provenance.json").exists()
    monkeypatch.setattr(pair_module, "_result", raising(BadInput("nothing in it")))
    run_pair(make_plan(work, folder).task(0))
    assert json.loads((folder / "p0" / "provenance.json").read_text())["sentence"] == "nothing in it"


@pytest.mark.parametrize("where", ["_result", "_save", "write_record"])
def test_a_full_disk_stops_the_work_in_one_sentence_and_it_goes_on(images, tmp_path, serial, monkeypatch, where):
    work = read_work(images / "pairs.csv", options(images))
    with monkeypatch.context() as patch:
        error = OSError(28, "No space left on device")
        patch.setattr(pair_module, where, raising(error))
        with pytest.raises(Failed, match=r"^the disk is full \(No space left on device\).* goes on from there$"):
            run(work, tmp_path / "out")
    assert run(work, tmp_path / "out").todo == (0, 1, 2, 3)
    assert all((tmp_path / "out" / name).read_bytes() == content for name, content in contents(serial).items() if "/" in name)


def test_a_forced_run_whose_pair_fails_keeps_what_the_same_files_gave(finished, monkeypatch):
    work, folder = finished()
    before = contents(folder)
    monkeypatch.setattr(pair_module, "_result", raising(Failed("diverged")))
    assert run_pair(make_plan(work, folder).task(0))["sentence"] == "diverged"
    assert contents(folder) == before
    assert look_at(folder).states[0].status == "done"


def test_a_pair_that_ends_its_workers_is_a_failure(finished):
    work, folder = finished()
    (folder / "p1" / "provenance.json").unlink()
    record = record_failure(make_plan(work, folder).task(1), "it was too much")
    assert (record["state"], record["sentence"]) == ("failed", "it was too much")
    assert make_plan(work, folder).todo == ()
    assert make_plan(work, folder, retry=True).todo == (1, 3)
    assert dict(look_at(folder).failures()).keys() == {"p1", "p3"}
    record_failure(make_plan(work, folder).task(0), "it was too much")
    assert look_at(folder).states[0].status == "done"


def test_a_worker_that_sees_another_folder_or_is_of_another_version_refuses(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("warpwright.cohort.place.PATIENCE", 0.1)
    work, folder = finished()
    task = make_plan(work, folder, force=True).task(0)
    token = (folder / ".cohort-token").read_text()
    assert save_token(folder) == token
    host = platform.node()
    told = run_pair(task | {"token": "other"})["stop"]
    assert told == f"the worker {host} does not see {folder}, expected a folder that all workers share"
    elsewhere = task | {"token": token, "folder": str(tmp_path / "nowhere" / "p0")}
    assert "does not see" in run_pair(elsewhere)["stop"]
    assert not (tmp_path / "nowhere").exists()
    assert "expected 0.0 as" in run_pair(task | {"version": "0.0"})["stop"]
    assert "stop" not in run_pair(task | {"token": token})


def test_what_a_worker_says_is_done_must_be_seen(images, tmp_path, monkeypatch):
    monkeypatch.setattr("warpwright.cohort.run.VISIBLE", 0.2)
    work = read_work(images / "pairs.csv", options(images))

    def elsewhere(tasks: Iterable[Mapping[str, Any]]) -> Generator[Mapping[str, Any], None, None]:
        for task in tasks:
            yield {"id": task["id"], "state": "done", "options": task["digest"], "inputs": {}}

    with pytest.raises(Failed, match="cannot be seen from here, expected a folder that all workers share"):
        execute(make_plan(work, tmp_path / "out"), elsewhere, silent)


@pytest.mark.parametrize("during", [False, True])
def test_settings_that_change_while_a_cohort_runs_stop_it(images, tmp_path, monkeypatch, during):
    work = read_work(images / "pairs.csv", options(images))
    plan = make_plan(work, tmp_path / "out")
    settings, real = images / "settings.toml", pair_module._result

    def change(*given: Any) -> Any:
        found = real(*given)
        settings.write_text("steps = [123]\n")
        return found

    if during:
        monkeypatch.setattr(pair_module, "_result", change)
    else:
        settings.write_text("steps = [123]\n")
    with pytest.raises(Failed, match=r"settings\.toml has changed since the work began"):
        execute(plan, in_order, silent)
    assert not list((tmp_path / "out").glob("*/*"))


def test_a_part_brings_only_its_own_records_up_to_date_and_only_unchanged_ones(finished, monkeypatch):
    work, folder = finished()
    before = {k: (folder / f"p{k}" / "provenance.json").read_bytes() for k in range(4)}
    plan = make_plan(work, folder, shard=(1, 2))
    assert all(state.old is not None for state in plan.states)
    (folder / "p2" / "provenance.json").write_text('{"format": 1, "of": "another process"}')
    execute(plan, in_order, silent)
    after = {k: (folder / f"p{k}" / "provenance.json").read_bytes() for k in range(4)}
    assert [after[k] == before[k] for k in range(4)] == [False, True, False, True]
    assert b"another process" in after[2]
    monkeypatch.setattr("warpwright.cohort.run.write_record", raising(Failed("no")))
    execute(make_plan(work, folder, shard=(2, 2)), in_order, silent)


def test_the_beginnings_of_another_process_do_not_make_a_folder_foreign(images, tmp_path, monkeypatch):
    work, folder = read_work(images / "pairs.csv", options(images)), tmp_path / "out"
    (folder / ".warpwright-abcd_123").mkdir(parents=True)
    (folder / ".0123456789ab.json").write_text("")
    (folder / ".cohort-token").write_text("")
    assert len(make_plan(work, folder).todo) == 4

    (folder / "p0").mkdir()
    monkeypatch.setattr("warpwright.cohort.run.time.sleep", lambda _: (folder / "cohort.json").write_text("{}"))
    assert len(make_plan(work, folder).todo) == 4
    (folder / "cohort.json").unlink()
    monkeypatch.setattr("warpwright.cohort.run.time.sleep", lambda _: None)
    with pytest.raises(BadInput, match="neither empty nor the folder of a cohort, it holds p0: expected") as caught:
        make_plan(work, folder)
    assert "--force" not in str(caught.value)


def test_a_token_that_nothing_was_written_to_is_made_anew(tmp_path, monkeypatch):
    """As a process leaves it that is killed, or finds the disk full."""
    monkeypatch.setattr("warpwright.cohort.place.PATIENCE", 0.2)
    (tmp_path / ".cohort-token").write_text("")
    token = save_token(tmp_path)
    assert len(token) == 32
    assert save_token(tmp_path) == token
    (tmp_path / ".cohort-token").write_text("something else")
    with pytest.raises(Failed, match="expected it to be removed"):
        save_token(tmp_path)
    (tmp_path / ".cohort-token").unlink()
    with limited(8), pytest.raises(OSError, match="File too large"):
        save_token(tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(save_token(tmp_path)) == 32


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may become larger than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def claim(folder: Path, name: str, **changes: object) -> Path:
    path = folder / f".{name}.claim"
    path.write_text(json.dumps(writer() | changes))
    return path


def test_a_pair_that_another_process_has_is_left_to_it(finished, monkeypatch):
    monkeypatch.setattr("warpwright.cohort.place.PATIENCE", 0.2)
    work, folder = finished()
    (folder / "p0" / "provenance.json").unlink()
    (folder / "p1" / "provenance.json").unlink()
    other = psutil.Process(os.getppid())
    claim(folder, "p0", pid=other.pid, began=other.create_time())
    claim(folder, "p1", pid=other.pid, began=other.create_time() - 100)  # the number is that of another process now
    after = execute(make_plan(work, folder), in_order, silent)
    assert after.skipped == ("p0",)
    assert after.notes() == ("left out, because other processes run them now: p0",)
    assert [state.status for state in after.states] == ["missing", "done", "done", "failed"]
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == {".cohort-token", ".p0.claim"}


def temporary(folder: Path, name: str, **changes: object) -> Path:
    """A folder that a process on a pair left."""
    made = make_temporary(folder / name)
    *_, host, pid, began, last = made.name.split("-")
    marks = {"host": host, "pid": pid, "began": began} | changes
    return made.rename(folder / f".{name}-{'-'.join(str(mark) for mark in marks.values())}-{last}")


def test_temporary_folders_of_processes_that_run_stay(finished):
    work, folder = finished()
    (folder / "p0" / "provenance.json").unlink()
    runs = temporary(folder, "p0")
    ended = temporary(folder, "p0", pid=2**22 + 1)
    another = temporary(folder, "p0", began=12345)  # the number is that of another process now
    elsewhere, long_ago = (temporary(folder, "p0", host="0123abcd") for _ in range(2))
    os.utime(long_ago, (0, 0))
    mine = [folder / ".p0-notes", folder / ".pq-0123abcd-1-1-abcdefgh"]  # the second is of no pair of this work
    for path in mine:
        path.mkdir()
    run(work, folder)
    assert [path.exists() for path in (runs, elsewhere, *mine)] == [True] * 4
    assert [path.exists() for path in (ended, another, long_ago)] == [False] * 3


def test_a_process_that_is_killed_the_moment_its_folder_exists_leaves_nothing(finished):
    work, folder = finished()
    (folder / "p0" / "provenance.json").unlink()
    script = (
        "import os, signal, sys, tempfile; from pathlib import Path; made = tempfile.mkdtemp\n"
        "def killed(**given):\n    made(**given); os.kill(os.getpid(), signal.SIGKILL)\n"
        "tempfile.mkdtemp = killed\n"
        "from warpwright.cohort.place import make_temporary; make_temporary(Path(sys.argv[1]))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(folder / "p0")], check=False).returncode == -signal.SIGKILL
    assert len(list(folder.glob(".p0-*"))) == 1
    run(work, folder)
    assert not list(folder.glob(".p0-*"))


def test_a_pair_of_a_part_that_ends_its_process_thrice_is_a_failure(finished):
    work, folder = finished()
    (folder / "p0" / "provenance.json").unlink()
    ended = claim(folder, "p0", pid=2**22 + 1, ended=1)
    assert run_pair(make_plan(work, folder, shard=(1, 2)).task(0))["state"] == "done"
    assert not ended.exists()
    (folder / "p0" / "provenance.json").unlink()
    claim(folder, "p0", pid=2**22 + 1, ended=2)
    after = execute(make_plan(work, folder, shard=(1, 2)), in_order, silent)
    assert dict(after.failures())["p0"] == "3 processes ended while they ran it, expected one that can run it"
    assert not ended.exists()
    assert make_plan(work, folder, shard=(1, 2)).todo == ()
    assert run(work, folder, shard=(1, 2), retry=True).todo == (0,)
    assert look_at(folder).states[0].status == "done"


def test_slices_that_change_places_or_times_are_seen(tmp_path):
    for name, text in (("a", "one"), ("b", "two")):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (1, 1))
    before = described(tmp_path)
    assert Seen().stat(tmp_path) == before["stat"]
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b").rename(tmp_path / "a")
    (tmp_path / "c").rename(tmp_path / "b")
    os.utime(tmp_path / "a", (1, 1))
    after = described(tmp_path)
    assert (after["stat"] == before["stat"], after["sha256"] == before["sha256"]) == (True, False)
    os.utime(tmp_path / "b", (0, 0))  # earlier than the latest
    assert described(tmp_path)["stat"] != before["stat"]


def test_the_bytes_of_a_file_are_read_once_in_a_look(tmp_path, monkeypatch):
    read: list[Path] = []
    monkeypatch.setattr("warpwright.cohort.provenance.digest", lambda path: read.append(path) or {"sha256": "x"})
    seen = Seen()
    assert [seen.sha256(tmp_path) for _ in range(3)] == ["x"] * 3
    assert read == [tmp_path]


def test_an_interruption_leaves_what_is_done_and_the_rest_follows(shared_images, serial, tmp_path):
    work = read_work(shared_images / "pairs.csv", options(shared_images))

    def impatient(tasks: Iterable[Mapping[str, Any]]) -> Generator[Mapping[str, Any], None, None]:
        for count, record in enumerate(in_order(tasks)):
            if count == 2:
                temporary(tmp_path / "out", "p3", pid=2**22 + 1)  # what a worker that is killed leaves
                raise KeyboardInterrupt
            yield record

    with pytest.raises(Failed, match="3 of 4 pairs are done"):  # of which one was not heard of
        execute(make_plan(work, tmp_path / "out"), impatient, silent)
    assert [row["status"] for row in rows(tmp_path / "out")] == ["done", "done", "done", "pending"]
    assert (tmp_path / "out" / "index.html").exists()
    assert run(work, tmp_path / "out").todo == (3,)
    assert not list((tmp_path / "out").glob(".p3-*"))
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
