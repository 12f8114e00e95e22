from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_cohort import contents, write_table

from warpwright.cli.main import main


@pytest.fixture
def command(images: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs `cohort` on the small table; more arguments may follow."""

    def called(*more: str) -> int:
        given = ["cohort", str(images / "pairs.csv"), "--output", str(tmp_path / "out"), "--preset", "fast", "--no-figures"]
        return main([*given, "--config", str(images / "settings.toml"), *more])

    return called


def test_run_status_and_retry(command, images, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert command("--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["to_do"] == 4
    assert not (tmp_path / "out").exists()
    assert command("--shard", "1/1") == 1
    told = capsys.readouterr()
    assert "done        3" in told.out
    assert "failed      p3: " in told.out
    assert told.err.splitlines()[-1] == f"warpwright: 1 of 4 pairs failed; `warpwright cohort retry {out}` runs them again"
    before = contents(tmp_path / "out")

    assert command() == 1  # nothing to run, so no workers either
    assert "run         0" in capsys.readouterr().out
    assert contents(tmp_path / "out") == before
    assert main(["cohort", "status", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pairs"], found["done"], found["failed"], list(found["failures"])) == (4, 3, 1, ["p3"])

    assert main(["cohort", "retry", out, "--shard", "1/1", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["run"] == 1
    (images / "moving3.nii.gz").write_bytes((images / "moving2.nii.gz").read_bytes())
    assert main(["cohort", "retry", out, "--shard", "1/1"]) == 0
    assert main(["cohort", "status", out]) == 0
    assert "failed" not in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--shard", "0/2"], "--shard 0/2"),
        (["--shard", "3/2"], "--shard 3/2"),
        (["--shard", "two"], "--shard two"),
        (["--workers", "0"], "at least 1, got 0"),
        (["--workers", "2", "--shard", "1/2"], "one of them at most"),
        (["--scheduler", "tcp://a:1", "--workers", "2"], "one of them at most"),
        (["--slurm", "jobs.toml", "--shard", "1/2"], "one of them at most"),
        (["--slurm", "nowhere.toml"], "nowhere.toml: there is no such file"),
        (["--fixed", "a.nii", "--all-pairs"], "expected one of them"),
        (["--all-pairs"], "is a file, expected a folder of images"),
        (["--bids", "suffix=T1w"], "expected --fixed ATLAS, --all-pairs or --sessions with a folder"),
        (["--device", "gpu"], "'gpu'"),
        (["--refine", "3"], "model"),
    ],
)
def test_what_cannot_be_used_is_one_line_before_any_work(command, tmp_path, capsys, more, words):
    assert command(*more) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert words in told.err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_cohort_has_no_status(tmp_path, capsys):
    assert main(["cohort", "status", str(tmp_path)]) == 2
    assert "cohort.json" in capsys.readouterr().err


def test_a_table_that_points_nowhere_is_one_line(command, images, capsys):
    write_table(images / "pairs.csv", range(100, 140))
    assert command("--shard", "1/1") == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert all(f"'p{k}' (" in told for k in range(100, 140))


def test_a_folder_and_a_rule_are_a_cohort(images, tmp_path, capsys):
    folder, out = tmp_path / "some people", tmp_path / "out"
    folder.mkdir()
    for k in range(2):
        (folder / f"person '{k}'.nii.gz").write_bytes((images / f"moving{k}.nii.gz").read_bytes())
    given = ["cohort", str(folder), "--output", str(out), "--preset", "fast", "--no-figures", "--report", "--parquet"]
    given += ["--config", str(images / "settings.toml"), "--fixed", str(images / "fixed0.nii.gz")]
    assert main(given[:2] + given[2:-2]) == 2
    assert "expected --fixed ATLAS, --all-pairs or --sessions with a folder" in capsys.readouterr().err
    assert main([*given, "--shard", "1/2"]) == 0
    (folder / "new.nii.gz").write_bytes((images / "moving2.nii.gz").read_bytes())
    assert main([*given, "--shard", "2/2"]) == 0
    assert "warning: " in (told := capsys.readouterr().err)
    assert "pairs are new since the work began: new;" in told
    assert {path.name for path in out.glob("*/report.html")} == {"report.html"}
    assert (out / "pairs.csv").read_text().splitlines()[1].startswith(f"person '0',{images}/fixed0.nii.gz,{folder}/person '0'")
    text = (out / "person '1'" / "report.html").read_text()
    assert str(out) not in text
    assert "person%20%271%27/report.html" in (out / "index.html").read_text()
    assert (out / "results.parquet").is_file()
    assert main(["cohort", "status", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.partition("{\n")[2].join(["{", ""]))["done"] == 2
