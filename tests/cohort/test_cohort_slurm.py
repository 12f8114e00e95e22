"""Jobs of SLURM: what may be said of them, and a cohort whose workers are jobs of a made `sbatch`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dask.config import set as configured
from small_cohort import EXACT, options, run, silent

from warpwright.cohort.engine import workers_of_slurm
from warpwright.cohort.run import execute, make_plan
from warpwright.cohort.slurm import Jobs, read_jobs
from warpwright.cohort.work import read_work
from warpwright.errors import BadInput, Failed

SBATCH = """#!/usr/bin/env bash
set -eu
here="$(dirname "$0")"
number=$$
cp "$1" "$here/job$number.sh"
setsid bash "$here/job$number.sh" >"$here/log$number" 2>&1 </dev/null &
echo $! >"$here/pid$number"
echo "Submitted batch job $number"
"""
SCANCEL = """#!/usr/bin/env bash
here="$(dirname "$0")"
echo "$1" >>"$here/cancelled"
kill -TERM -- "-$(cat "$here/pid$1")"
"""
JOBS = """
jobs = 2
memory = "1GB"
walltime = "0:30:00"
queue = "short"
account = "lab 7"
directives = ["--constraint=avx2"]
prologue = ["export WARPWRIGHT_TEST=1"]
interface = "lo"
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a made `sbatch` that begins a script at once, and `scancel`; nothing of it runs on afterwards."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    yield folder
    for path in folder.glob("pid*"):
        try:
            os.killpg(int(path.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            continue


def gone(group: int) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_cohort_runs_in_jobs_which_are_cancelled_at_the_end(shared_images, slurm, tmp_path):
    table = tmp_path / "three.csv"
    rows = [f"p{k},{shared_images}/fixed{k}.nii.gz,{shared_images}/moving{k}.nii.gz" for k in range(3)]
    table.write_text("\n".join(["id,fixed,moving", *rows]) + "\n")
    (tmp_path / "jobs.toml").write_text(JOBS)
    work = read_work(table, options(shared_images))
    run(work, tmp_path / "alone")
    after = execute(make_plan(work, tmp_path / "out"), workers_of_slurm(read_jobs(tmp_path / "jobs.toml")), silent)
    assert after.counts()["done"] == 3
    for name in ("results.csv", *(f"p{k}/{name}" for k in range(3) for name in EXACT)):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    scripts = sorted(slurm.glob("job*.sh"))
    assert len(scripts) == 2
    lines = scripts[0].read_text().splitlines()
    for line in ("-p short", "-A lab 7", "-t 0:30:00", "--mem=954M", "--cpus-per-task=1", "--constraint=avx2"):
        assert f"#SBATCH {line}" in lines
    assert "export WARPWRIGHT_TEST=1" in lines
    assert "--nthreads 1" in lines[-1]
    assert {f"job{number}.sh" for number in (slurm / "cancelled").read_text().split()} == {path.name for path in scripts}
    assert all(gone(int(path.read_text())) for path in slurm.glob("pid*"))


def test_a_job_that_ends_before_the_work_is_asked_for_again(shared_images, slurm, tmp_path, monkeypatch):
    monkeypatch.setattr("warpwright.cohort.slurm.AGAIN", 0.5)
    work = read_work(shared_images / "pairs.csv", options(shared_images))

    def end(count: int, *_: int) -> None:
        if count == 1:
            (number,) = [int(path.read_text()) for path in slurm.glob("pid*")]
            os.killpg(number, signal.SIGTERM)

    jobs = Jobs(jobs=1, memory="1GB", walltime="30", interface="lo")
    with configured({"distributed.deploy.lost-worker-timeout": "1s"}):
        after = execute(make_plan(work, tmp_path / "out"), workers_of_slurm(jobs), end)
    assert after.counts() == {"pairs": 4, "done": 3, "failed": 1, "missing": 0, "changed": 0}
    assert len(list(slurm.glob("job*.sh"))) == 2


def test_what_sbatch_refuses_is_a_sentence(shared_images, slurm, tmp_path):
    (slurm / "sbatch").write_text("#!/usr/bin/env bash\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    work = read_work(shared_images / "pairs.csv", options(shared_images))
    jobs = Jobs(jobs=1, memory="1GB", walltime="30", interface="lo")
    with pytest.raises(Failed, match=r"SLURM does not take the jobs \(sbatch: error: invalid partition\)"):
        execute(make_plan(work, tmp_path / "out"), workers_of_slurm(jobs), silent)
    assert make_plan(work, tmp_path / "out").todo == (0, 1, 2, 3)


def test_without_sbatch_or_dask_jobqueue_one_sentence_says_so(shared_images, tmp_path, monkeypatch):
    work = read_work(shared_images / "pairs.csv", options(shared_images))
    jobs = Jobs(jobs=1, memory="1GB", walltime="30")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed, match="there is no sbatch on this machine"):
        execute(make_plan(work, tmp_path / "out"), workers_of_slurm(jobs), silent)
    monkeypatch.setitem(sys.modules, "dask_jobqueue.slurm", None)
    with pytest.raises(Failed, match=r'pip install "warpwright\[slurm\]"'):
        execute(make_plan(work, tmp_path / "out"), workers_of_slurm(jobs), silent)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("quue = 'x'", "'quue'.*did you mean 'queue'"),
        ("jobs = 0", "at least 1, got 0"),
        ("jobs = '2'", "jobs"),
        ("cores = 0", "at least 1"),
        ("memory = '16'", "memory must be a number with a unit"),
        ("memory = 16", "memory"),
        ("walltime = '4 hours'", "walltime must be as SLURM has it"),
        ('account = "a\\n#SBATCH -x"', "account must be text in one line"),
        ("directives = ['']", "directives must be text in one line"),
        ("directives = '--x'", "directives"),
    ],
)
def test_what_cannot_be_said_of_jobs_is_a_sentence(tmp_path, change, words):
    said = {"jobs": "1", "memory": "'1GB'", "walltime": "'30'"}
    key, _, value = change.partition(" = ")
    path = tmp_path / "jobs.toml"
    path.write_text("".join(f"{name} = {text}\n" for name, text in (said | {key: value}).items()))
    with pytest.raises(BadInput, match=words) as caught:
        read_jobs(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_example_of_the_page_is_understood(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "cohorts.md").read_text(encoding="utf-8")
    (tmp_path / "jobs.toml").write_text("jobs = 20\n" + page.partition("\njobs = 20\n")[2].partition("```")[0])
    jobs = read_jobs(tmp_path / "jobs.toml")
    assert (jobs.jobs, jobs.cores, jobs.python) == (20, 4, "/shared/env/bin/python")


def test_jobs_must_say_how_many_how_large_and_how_long(tmp_path):
    (tmp_path / "jobs.toml").write_text("")
    with pytest.raises(BadInput, match="jobs"):
        read_jobs(tmp_path / "jobs.toml")
