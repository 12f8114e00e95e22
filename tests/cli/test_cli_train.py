"""`warpwright train` as it is called."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oracles.cohort import lines, stopping, tiny, tree, write_settings, write_small
from warpwright.cli.main import main
from warpwright.data import cases
from warpwright.schemes import SGD, Constant, Plain
from warpwright.training import run
from warpwright.training.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Files of settings beside their images, by number of axes."""
    return {dim: write_small(tmp_path_factory.mktemp(f"cohort{dim}"), dim) for dim in (2, 3)}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Run; the one line on standard error."""
    capsys.readouterr()
    assert main(arguments) == code
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err.count("\n") == 1, caught.err
    assert caught.err.startswith("warpwright: ")
    return caught.err


def test_train_says_what_it_does_and_where_the_model_is(dim, tmp_path, capsys):
    assert main(["train", write_small(tmp_path, dim)]) == 0
    caught = capsys.readouterr()
    assert caught.out == f"finished after 4 steps\nmodel       {tmp_path / 'small' / 'model'}\n"
    words = [line.split()[:2] for line in caught.err.splitlines()]
    assert words == [["train", "2/4"], ["train", "4/4"], ["validation", "4/4"]]
    assert "dice 0." in caught.err
    found = {path.name for path in (tmp_path / "small").iterdir()}
    assert found == {"training.json", "metrics.jsonl", "checkpoint.safetensors", "model", "pictures"}
    assert (tmp_path / "small" / "model" / "README.md").read_text().startswith("# A small one\n")


def test_train_for_machines(small, tmp_path, capsys):
    output = tmp_path / "o"
    assert main(["train", small[2], "--output", str(output), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    best = next(row["dice"] for row in lines(output) if row["kind"] == "validation")
    assert found == {"output": str(output), "step": 4, "finished": True, "best": {"dice": best}}


def test_train_on_a_terminal_draws_a_table(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["train", small[2], "--output", str(tmp_path / "o")]) == 0
    drawn = capsys.readouterr().err
    assert "validation" in drawn
    assert "4/4" in drawn
    assert "similarity" in drawn


def test_train_in_another_process_than_the_first_is_silent(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")  # without WORLD_SIZE: this process trains alone, and does not speak
    assert main(["train", small[2], "--output", str(tmp_path / "o"), "--json"]) == 0
    assert main(["train", small[2], "--dry-run"]) == 0
    assert capsys.readouterr() == ("", "")


def test_train_stops_and_goes_on(small, tmp_path, capsys, monkeypatch):
    real = run._Run.step

    def told(*arguments: Any) -> Any:
        stopping()
        return real(*arguments)

    arguments = ["train", small[2], "--output", str(tmp_path / "o")]
    with monkeypatch.context() as patched:
        patched.setattr(run._Run, "step", told)
        assert main(arguments) == 0
    assert capsys.readouterr().out == f"stopped at step 1; --resume goes on\noutput      {tmp_path / 'o'}\n"
    before = tree(tmp_path / "o")
    assert "the output folder is not empty; choose another with --output, or go on with --resume" in refused(arguments, capsys)
    assert tree(tmp_path / "o") == before
    assert main([*arguments, "--resume"]) == 0
    assert capsys.readouterr().out.startswith("finished after 4 steps")
    assert main(["train", small[2], "--output", str(tmp_path / "whole")]) == 0
    assert tree(tmp_path / "o") == tree(tmp_path / "whole")


def test_train_stops_while_it_reads_and_goes_on(small, tmp_path, capsys, monkeypatch):
    real = cases._read

    def told(*arguments: Any) -> Any:
        stopping()
        return real(*arguments)

    arguments = ["train", small[2], "--output", str(tmp_path / "o")]
    with monkeypatch.context() as patched:
        patched.setattr(cases, "_read", told)
        assert main(arguments) == 0
    assert capsys.readouterr() == (f"stopped at step 0; --resume goes on\noutput      {tmp_path / 'o'}\n", "")
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["training.json"]
    assert main([*arguments, "--resume"]) == 0
    assert capsys.readouterr().out.startswith("finished after 4 steps")


def test_train_dry_run_reports_and_writes_nothing(dim, small, tmp_path, capsys):
    before = tree(Path(small[dim]).parent)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    arguments = ["train", small[dim], "--dry-run"]
    assert main([*arguments, "--output", str(tmp_path / "full")]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert all(word in said.out for word in ("images: 6", "validation_pairs: 1", "memory_gb: ", "seconds_step: ", "loss: "))
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == [1, 1, *(12, 14, 10)[:dim]]
    assert found["memory_gb"] > 0.01
    assert tree(Path(small[dim]).parent) == before
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def settings(folder: Path, text: str) -> str:
    (folder / "t.toml").write_text(text)
    return str(folder / "t.toml")


# what is called, given a file of settings that are good and a folder
BAD: dict[str, tuple[Callable[[str, Path], list[str]], list[str]]] = {
    "no such file": (lambda _, f: [str(f / "none.toml")], ["none.toml", "no such file"]),
    "no suffix": (lambda _, f: [str(f / "bare")], ["bare", "no suffix", "--output"]),
    "another suffix": (lambda _, f: [str(f / "bare"), "--output", str(f / "o")], ["bare", ".toml"]),
    "a key": (lambda _, f: [settings(f, "[modle]\n[data]")], ["t.toml", "'modle'", "did you mean 'model'"]),
    "a table": (lambda _, f: [settings(f, '[data]\nmanifest = "none.csv"')], ["none.csv"]),
    "the axes": (
        lambda good, f: [settings(f, f'[data]\nmanifest = "{Path(good).parent / "table.csv"}"')],
        ["2 axes and 1 channel(s)", "the model is for 3"],
    ),
    "output is a file": (lambda good, f: [good, "--output", str(f / "bare")], ["bare", "is a file"]),
    "output below a file": (lambda good, f: [good, "--output", str(f / "bare" / "o")], ["bare"]),
    "nothing to go on from": (lambda good, f: [good, "--output", str(f / "o"), "--resume"], ["checkpoint.safetensors"]),
    "device": (lambda good, f: [good, "--output", str(f / "o"), "--device", "tpu"], ["'tpu'", "cuda:0"]),
    "no such device": (lambda good, f: [good, "--output", str(f / "o"), "--device", "cuda:99"], ["cuda:99"]),
    "threads": (lambda good, f: [good, "--output", str(f / "o"), "--threads", "0"], ["threads", "at least 1"]),
}


@pytest.mark.parametrize("what", BAD)
def test_train_bad_input(what, small, tmp_path, capsys):
    make, words = BAD[what]
    (tmp_path / "bare").write_text("x")
    sentence = refused(["train", *make(small[2], tmp_path)], capsys)
    assert all(word in sentence for word in words), sentence
    assert {path.name for path in tmp_path.iterdir()} <= {"bare", "t.toml"}
    assert (tmp_path / "bare").read_text() == "x"


def test_train_of_a_loss_that_is_no_number_is_exit_1(small, tmp_path, capsys):
    scheme = Plain(optimiser=SGD(rate=1e6), schedule=Constant())
    training = tiny(Path(small[2]).with_name("table.csv"), 2, scheme=scheme, steps=9, log_every=9, checkpoint_every=1)
    path = write_settings(tmp_path / "t.json", training)
    sentence = refused(["train", path, "--output", str(tmp_path / "o")], capsys, code=1)
    step = read_checkpoint(tmp_path / "o" / "checkpoint.safetensors").step
    assert f"step {step + 1}: the " in sentence
    assert "(pairs case" in sentence
    assert f"the last good checkpoint is {tmp_path / 'o' / 'checkpoint.safetensors'}; " in sentence
    assert sentence.endswith("expected a new run with others, say a smaller scheme.optimiser.rate or scheme.clip\n")
