"""The recipes: their settings can be read, their splits are what the figures are said to be measured on."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from pathlib import Path

import pytest

from warpwright.errors import BadInput
from warpwright.methods import Model
from warpwright.training.config import read_training

ROOT = Path(__file__).parents[2] / "recipes"
CONFIGS = sorted(ROOT.glob("*/*.toml"))


@pytest.fixture
def cohorts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    yield importlib.import_module("cohorts")
    sys.modules.pop("cohorts")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_settings_can_be_read_and_build_a_model(path: Path) -> None:
    training = read_training(path)
    assert training.data.manifest == path.parent / "manifest.csv"
    assert sum(p.numel() for p in Model(training.model).parameters()) > 10_000
    assert training.card.licence != "not stated"


def test_there_is_a_recipe_for_every_cohort(cohorts) -> None:
    assert {path.parent.name for path in CONFIGS} == set(cohorts.COHORTS)


def test_hippocampus_is_split_by_sorted_name(cohorts, tmp_path: Path) -> None:
    folder = tmp_path / "hippocampus_msd" / "images"
    folder.mkdir(parents=True)
    names = [f"hippocampus_{number:03d}" for number in range(1, 202)]
    for name in reversed(names):
        (folder / f"{name}.nii.gz").touch()
    cohort = cohorts.COHORTS["hippocampus"](tmp_path)
    rows = cohort.rows[1:]
    assert [row[0] for row in rows] == names
    assert Counter(row[3] for row in rows) == {"test": 40, "validation": 21, "train": 140}
    assert [row[3] for row in rows[:40]] == ["test"] * 40
    assert [row[3] for row in rows[40:61]] == ["validation"] * 21
    assert [pair.name for pair in cohort.test] == [f"{names[k]} {names[k + 1]}" for k in range(0, 40, 2)]
    learned = {row[1] for row in rows if row[3] != "test"}
    assert not learned & {str(image) for pair in cohort.test for image in (pair.fixed, pair.moving)}


def test_the_third_heart_is_not_learned_from(cohorts, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / "cardiac_sunnybrook" / name / "cine").mkdir(parents=True)
        (tmp_path / "cardiac_sunnybrook" / name / "es.nii.gz").touch()
        for frame in range(20):
            (tmp_path / "cardiac_sunnybrook" / name / "cine" / f"frame{frame:02d}.nii.gz").touch()
    cohort = cohorts.COHORTS["cardiac"](tmp_path)
    assert {row[2] for row in cohort.rows[1:]} == {"a", "b"}
    assert [pair.name for pair in cohort.test] == ["c"]


def test_missing_images_are_told(cohorts, tmp_path: Path) -> None:
    (tmp_path / "brain2d_oasis").mkdir()
    with pytest.raises(BadInput, match=r"brain2d_oasis: holds 0 of \*\.nii\.gz, expected 100"):
        cohorts.COHORTS["oasis2d"](tmp_path)
