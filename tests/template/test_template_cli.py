"""`warpwright template`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from warpwright.cli.main import main


def run(discs: tuple[Path, ...], folder: Path, *more: str) -> int:
    settings = str(discs[0].parent / "settings.toml")
    files = [str(path) for path in discs]
    return main(["template", *files, "--output", str(folder), "--preset", "fast", "--config", settings, *more])


def test_it_tells_where_the_template_is(discs: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(discs, out, "--rounds", "1", "--workers", "1", "--spacing", "1.5", "--keep") == 0
    told = capsys.readouterr().out
    assert f"look at     {out / 'index.html'}" in told
    assert "images      3\n" in told
    assert (out / "rounds/1/pairs/disc0/figure.png").is_file()
    assert run(discs, out, "--rounds", "1", "--spacing", "1.5", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 3
    assert [one["shape_mm"] is None for one in found["rounds"]] == [True, False]
    # and the next thing that one does with it
    assert main(["cohort", str(out / "pairs.csv"), "--output", str(tmp_path / "all"), "--dry-run"]) == 0
    assert "to do       3" in capsys.readouterr().out


def test_bad_input_is_one_line_and_exit_code_2(
    discs: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, sentence in (
        (("--shard", "1/2"), "a template is the mean of all"),
        (("--rounds", "0"), "--rounds must be at least 1"),
        (("--workers", "0"), "--workers must be at least 1"),
    ):
        assert run(discs, tmp_path / "out", *more) == 2
        errors = capsys.readouterr().err
        assert sentence in errors
        assert errors.count("\n") == 1
    assert main(["template", str(discs[0]), "--output", str(tmp_path / "out")]) == 2
    assert "expected at least 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
