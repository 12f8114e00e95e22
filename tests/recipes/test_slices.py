"""Slices and maps that recipes make of the public sets."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from warpwright.geometry import Grid, Image
from warpwright.io import read_image, read_labels, read_scalar, write_image

ROOT = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    yield importlib.import_module
    for name in ("cohorts", "moved_volumes", "shifts", "slices", "square_images", "vessel_maps"):
        sys.modules.pop(name, None)


def write_heart(folder: Path, frames: int = 20) -> None:
    """A volume of three slices, the phases of its beat, and contours in the upper two."""
    (folder / "cine").mkdir(parents=True)
    grid = Grid.regular((6, 5, 3), (1.5, 1.25, 8.0))
    drawn = torch.zeros(1, 6, 5, 3, dtype=torch.uint8)
    drawn[:, 2:4, 2:4, 1:] = 1
    for name in ("es", "ed", *(f"cine/frame{k:02d}" for k in range(frames))):
        write_image(folder / f"{name}.nii.gz", Image(torch.arange(90.0).reshape(1, 6, 5, 3), grid))
    for name in ("es", "ed"):
        write_image(folder / f"{name}_label.nii.gz", Image(drawn, grid))


def test_slices_are_those_of_the_volume(recipes, tmp_path: Path) -> None:
    write_heart(tmp_path / "one")
    source = tmp_path / "one" / "es.nii.gz"
    found = recipes("slices").write_slices(source, tmp_path / "made", "x", tmp_path / "one" / "es_label.nii.gz")
    assert [path.name for path, _ in found] == ["x-00.nii.gz", "x-01.nii.gz", "x-02.nii.gz"]
    volume, drawn = read_scalar(source), read_labels(tmp_path / "one" / "es_label.nii.gz")
    for k, (path, labels) in enumerate(found):
        plane = read_scalar(path)
        assert plane.grid.spacing == pytest.approx((1.5, 1.25))
        assert torch.equal(plane.data, volume.data[..., k])
        assert torch.equal(read_labels(labels).data, drawn.data[..., k])
    before = [path.stat().st_mtime_ns for path, _ in found]
    assert recipes("slices").write_slices(source, tmp_path / "made", "x", tmp_path / "one" / "es_label.nii.gz") == found
    assert [path.stat().st_mtime_ns for path, _ in found] == before


def test_the_slices_of_the_third_heart_are_not_learned_from(recipes, tmp_path: Path) -> None:
    for name in ("SC-1", "SC-2", "SC-3"):
        write_heart(tmp_path / "data" / "cardiac_sunnybrook" / name)
    found = recipes("cohorts").COHORTS["hearts"](tmp_path / "data", tmp_path / "made")
    groups = {row[2] for row in found.rows[1:]}
    assert groups == {f"{name}-{k:02d}" for name in ("SC-1", "SC-2") for k in range(3)}
    assert sum(row[3] == "validation" for row in found.rows) == 2 * 4 * 3
    ((_, pairs),) = found.test.items()
    assert len(pairs) == 2  # the slices with contours
    assert all("SC-3-es" in pair.fixed.name and "SC-3-ed" in pair.moving.name for pair in pairs)


def test_cartilage_is_a_picture_of_its_labels(recipes, tmp_path: Path) -> None:
    folder = tmp_path / "knee_oai_slices"
    folder.mkdir()
    drawn = torch.tensor([[[0, 1], [2, 0]]], dtype=torch.uint8)
    for person in range(59):
        for visit in (1, 2):
            write_image(folder / f"s{person:03d}_visit{visit}.nii.gz", Image(drawn, Grid.regular((2, 2))))
    found = recipes("cohorts").COHORTS["knee"](tmp_path, tmp_path / "made")
    assert [row[-1] for row in found.rows[1:]].count("train") == 39
    ((_, pairs),) = found.test.items()
    assert len(pairs) == 16
    assert {pair.name for pair in pairs}.isdisjoint({row[0] for row in found.rows if row[-1] != "test"})
    first = pairs[0]
    assert read_image(first.fixed).data.tolist() == [[[0, 0.5], [1, 0]]]
    assert (first.fixed_labels.name, first.moving_labels.name) == ("s000_visit1.nii.gz", "s000_visit2.nii.gz")
