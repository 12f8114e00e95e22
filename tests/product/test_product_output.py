from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from warpwright.errors import BadInput, Failed
from warpwright.product.output import check_file, check_folder, whole_folder, write_json


def test_a_folder_appears_whole(tmp_path):
    with whole_folder(tmp_path / "a" / "b") as work:
        (work / "x").write_text("1")
        assert not (tmp_path / "a" / "b").exists()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]
    assert (tmp_path / "a" / "b" / "x").read_text() == "1"


@pytest.mark.parametrize("error", [ValueError("no"), OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_after_a_failure(tmp_path, error):
    expected = Failed if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), whole_folder(tmp_path / "a" / "b") as work:  # noqa: PT012
        (work / "x").write_text("1")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_fills_stays_after_a_failure(tmp_path):
    with pytest.raises(ValueError, match="no"), whole_folder(tmp_path / "a" / "b" / "c") as work:  # noqa: PT012
        (work.parent.parent / "theirs").write_text("1")
        raise ValueError("no")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["theirs"]


def test_an_older_result_stays_after_a_failure(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(ValueError, match="no"), whole_folder(tmp_path, force=True) as work:  # noqa: PT012
        (work / "x").write_text("new")
        raise ValueError("no")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_checks_leave_nothing_and_refuse(tmp_path):
    assert check_folder(tmp_path / "new" / "deep", force=False) == tmp_path / "new" / "deep"
    assert check_file(tmp_path / "f.txt", force=False) == tmp_path / "f.txt"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "f.txt").write_text("x")
    with pytest.raises(BadInput, match="--force"):
        check_folder(tmp_path, force=False)
    with pytest.raises(BadInput, match="--force"):
        check_file(tmp_path / "f.txt", force=False)
    with pytest.raises(BadInput, match="is a file"):
        check_folder(tmp_path / "f.txt", force=True)
    with pytest.raises(BadInput, match="is a folder"):
        check_file(tmp_path, force=True)
    with pytest.raises(BadInput, match="nodir does not exist"):
        check_file(tmp_path / "nodir" / "f.txt", force=False)
    with pytest.raises(BadInput, match="cannot be"):
        check_folder(tmp_path / "f.txt" / "below", force=True)


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {1: math.nan, "b": (1.5, math.inf, Path("p")), "c": {"d": True}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"1": None, "b": [1.5, None, "p"], "c": {"d": True}}


def test_json_is_whole_or_absent(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"old": 1})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Failed, match=r"a\.json: could not be written \(No space left on device\)"):
        write_json(tmp_path / "a.json", {"new": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    with pytest.raises(BadInput, match="nodir does not exist"):
        write_json(tmp_path / "nodir" / "a.json", {})


def test_a_writer_that_fails_names_the_file_that_was_wanted(tmp_path):
    with pytest.raises(Failed) as caught, whole_folder(tmp_path / "a") as work:
        raise Failed(f"{work / 'moved.nii.gz'}: could not be written (No space left on device)")
    assert str(caught.value) == f"{tmp_path / 'a' / 'moved.nii.gz'}: could not be written (No space left on device)"
    assert list(tmp_path.iterdir()) == []
