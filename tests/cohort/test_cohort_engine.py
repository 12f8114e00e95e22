"""The engine of Dask: a cluster of processes of which some are killed, a scheduler that goes away, and no Dask at all."""

from __future__ import annotations

import random
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from distributed import CancelledError, Client, KilledWorker, LocalCluster
from small_cohort import EXACT, PAIRS, contents, options, run, silent

from warpwright.cohort import engine as engine_module
from warpwright.cohort.engine import Watch, _flow, _record, workers_of_scheduler, workers_on_this_machine
from warpwright.cohort.run import execute, make_plan
from warpwright.cohort.work import read_work
from warpwright.errors import BadInput, Failed

ROWS = 8


def workers() -> list[psutil.Process]:
    """The living worker processes of this process; neither their resource tracker nor processes of others."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # as one that was killed and is not waited for yet
            found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return found


def one_worker() -> LocalCluster:
    """A scheduler and a worker in threads of this process."""
    return LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        silence_logs=60,
    )


def long_table(images: Path, path: Path) -> Path:
    """More rows than there are images."""
    lines = [f"p{k},{images}/fixed{k % PAIRS}.nii.gz,{images}/moving{k % PAIRS}.nii.gz" for k in range(ROWS)]
    path.write_text("\n".join(["id,fixed,moving", *lines]) + "\n")
    return path


def test_workers_that_are_killed_change_nothing(shared_images, tmp_path):
    """One at a random moment, and once more another."""
    work = read_work(long_table(shared_images, tmp_path / "long.csv"), options(shared_images))
    run(work, tmp_path / "alone")
    rng, killed = random.Random(7), []
    moments = rng.sample(range(1, ROWS - 1), 2)

    def kill(count: int, *_: int) -> None:
        if count in moments:
            victim = rng.choice(workers())
            victim.kill()
            killed.append(victim.pid)

    after = execute(make_plan(work, tmp_path / "out"), workers_on_this_machine(2), kill)
    assert len(set(killed)) == 2
    assert after.counts() == {"pairs": ROWS, "done": 6, "failed": 2, "missing": 0, "changed": 0}
    done = [pair.id for pair, state in zip(work.pairs, after.states, strict=True) if state.status == "done"]
    for name in ("results.csv", *(f"{pair}/{name}" for pair in done for name in EXACT)):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    left = {str(path.relative_to(tmp_path / "alone")) for path in (tmp_path / "alone").rglob("*")}
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")} == left
    assert not workers()


class Lonely:
    """A client that sees so many workers, one number at each look."""

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)

    def nthreads(self) -> list[int]:
        return [1] * (self.counts.pop(0) if len(self.counts) > 1 else self.counts[0])


def test_the_absence_of_workers_is_told_once_and_then_a_failure(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(engine_module.time, "monotonic", lambda: now[0])
    watch = Watch(Lonely(2, 0, 0, 0, 1, 0), "the scheduler s", 600.0)
    found = []
    for now[0] in (0.0, 1.0, 50.0, 70.0, 90.0, 100.0, 200.0, 500.0, 640.0):
        found.append(watch.workers())
    assert found == [2, 2, 0, 0, 0, 1, 0, 0, 0]
    assert [record.getMessage() for record in caplog.records] == [
        "the scheduler s has had no workers for 60 s: waiting for some"
    ] * 2
    now[0] = 701.0
    with pytest.raises(Failed, match="the scheduler s had no workers for 600 s, expected some: the same command goes on"):
        watch.workers()


def test_a_scheduler_without_workers_is_left(shared_images, tmp_path, monkeypatch):
    for name, seconds in {"GIVEN_UP": 0.4, "REFRESH": 0.1}.items():
        monkeypatch.setattr(engine_module, name, seconds)
    work = read_work(shared_images / "pairs.csv", options(shared_images))
    cluster = LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=60)
    with cluster, pytest.raises(Failed, match=r"had no workers for 0\.4 s, expected some"):
        execute(make_plan(work, tmp_path / "out"), workers_of_scheduler(cluster.scheduler_address), silent)
    assert (tmp_path / "out" / "cohort.json").exists()


def test_a_scheduler_that_goes_away_is_a_sentence_and_the_rest_follows(shared_images, serial, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "CONNECT", 1)
    work = read_work(shared_images / "pairs.csv", options(shared_images))
    cluster = one_worker()
    with cluster:
        address = cluster.scheduler_address

        def leave(count: int, *_: int) -> None:
            if count == 1:
                cluster.close()

        with pytest.raises(Failed, match=f"the scheduler {address} is gone: .* goes on from there"):
            execute(make_plan(work, tmp_path / "out"), workers_of_scheduler(address), leave)
    assert (tmp_path / "out" / "index.html").exists()
    assert make_plan(work, tmp_path / "out").todo
    run(work, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(serial)


def test_a_scheduler_holds_few_pairs_however_many_there_are(monkeypatch):
    monkeypatch.setattr(engine_module, "run_pair", lambda task: {"id": task["id"]})
    with one_worker() as cluster, Client(cluster, set_as_default=False) as client:
        held = []
        for record in _flow(client, ({"id": f"p{k}"} for k in range(200)), "it"):
            held.append((record["id"], len(cluster.scheduler.tasks)))
    assert {name for name, _ in held} == {f"p{k}" for k in range(200)}
    assert max(count for _, count in held) <= 3 * engine_module.AHEAD


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense"])
def test_a_scheduler_that_is_not_there_is_a_sentence(shared_images, tmp_path, monkeypatch, address):
    monkeypatch.setattr(engine_module, "CONNECT", 1)
    work = read_work(shared_images / "pairs.csv", options(shared_images))
    with pytest.raises(Failed, match=f"the scheduler {address} cannot be reached") as caught:
        execute(make_plan(work, tmp_path / "out"), workers_of_scheduler(address), silent)
    assert "\n" not in str(caught.value)


class Ended:
    """A future that ends with an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def result(self) -> None:
        raise self.error


def test_what_ends_workers_again_and_again_is_a_failure_of_its_pair(finished):
    work, folder = finished()
    task = make_plan(work, folder).task(2)
    record = _record(Ended(KilledWorker("run", None, 3)), task, "it")
    assert (record["id"], record["state"]) == ("p2", "failed")
    assert record["sentence"].startswith("4 workers ended")
    assert make_plan(work, folder).todo == ()


@pytest.mark.parametrize(
    ("error", "words"), [(CancelledError("x"), "is gone"), (ModuleNotFoundError("warpwright"), "cannot run pairs")]
)
def test_workers_that_can_run_nothing_stop_the_work(error, words):
    with pytest.raises(Failed, match=words):
        _record(Ended(error), {"id": "p0"}, "the scheduler")


def test_without_dask_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(Failed, match=r'pip install "warpwright\[cohort\]"'):
        workers_on_this_machine(2)


def test_no_workers_is_bad_input():
    with pytest.raises(BadInput, match="at least 1, got 0"):
        workers_on_this_machine(0)
