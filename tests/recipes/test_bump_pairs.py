"""Data of the recipe of Meta-Regularisation: slices of the public sets as small volumes, and the pairs made of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import read_labels, read_scalar, write_image

ROOT = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def bumps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    module = importlib.import_module("bump_pairs")
    monkeypatch.setattr(module, "PAIRS", {"train": 6, "validation": 2, "test": 3})
    yield module
    sys.modules.pop("bump_pairs", None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sets as they are published, but for the images; the grey level tells which slice is seen, 100 + 5 z."""
    for stem, shape, spacing in (
        ("abdomen_totalseg/mr", (30, 24, 20), (3.0, 3.0, 3.0)),
        *((f"cardiac_autofd/{name}_ed", (20, 26, 4), (1.2, 1.2, 10.0)) for name in "ABCD"),
        *((f"cardiac_sunnybrook/SC-HF-I-{k}/ed", (24, 24, 3), (1.3, 1.3, 8.0)) for k in (1, 4)),
    ):
        grey, drawn = np.zeros((1, *shape)), np.zeros((1, *shape))
        grey[:, 4:-4, 3:-3] = 100 + 5 * np.arange(shape[2])
        drawn[:, 8:16, 8:16] = 5 if "abdomen" in stem else 1
        grid = Grid.regular(shape, spacing)
        (tmp_path / stem).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / f"{stem}.nii.gz", Image(torch.from_numpy(grey).float(), grid))
        write_image(tmp_path / f"{stem}_label.nii.gz", Image(torch.from_numpy(drawn).to(torch.uint8), grid))
    (tmp_path / "brain2d_oasis").mkdir()
    for k in range(3):
        write_image(tmp_path / "brain2d_oasis" / f"{k:03d}.nii.gz", Image(torch.rand(1, 32, 32), Grid.regular((32, 32))))
    return tmp_path


def test_slices_that_are_scored_are_not_learned_from(bumps, data: Path) -> None:
    counts = {split: len(bumps.read_slices(data, split, 32)) for split in ("train", "validation", "test")}
    assert counts == {"train": 13 + 4 + 4 + 3 + 3, "validation": 2 + 4, "test": 4 + 4 + 3}
    for names in (bumps.HEARTS, bumps.ABDOMEN):
        used = [name for split in names.values() for name in split]
        assert len(used) == len(set(used))
    assert min(bumps.ABDOMEN["test"]) - max(bumps.ABDOMEN["validation"]) > 1


def test_a_slice_is_a_square_about_its_middle(bumps, data: Path) -> None:
    first = bumps.read_slices(data, "train", 32)[0]
    assert first.image.shape == first.labels.shape == (1, 32, 32)
    assert float(first.image.min()) == 0
    assert float(first.image.max()) <= 1
    lit = (first.image[0] > 0.1).nonzero().double()  # 22 x 18 of 30 x 24 pixels, 30 of which are now 32
    assert lit.mean(0).tolist() == pytest.approx([15.5, 15.5], abs=0.3)
    assert (lit.max(0).values - lit.min(0).values + 1).tolist() == pytest.approx([22 * 32 / 30, 18 * 32 / 30], abs=1.6)
    assert set(first.labels.unique().tolist()) == {0, 5}
    assert bumps.scored(first.labels) == [5]


def test_pairs_are_a_slice_and_its_warped_self_and_stay_as_they_are(bumps, data: Path, tmp_path: Path) -> None:
    rows = bumps.write_bump_pairs(data, tmp_path / "made", "large", 32)
    assert [row[-1] for row in rows] == ["train"] * 6 + ["validation"] * 2 + ["test"] * 3
    slices = bumps.read_slices(data, "test", 32)
    for row in rows[-3:]:
        fixed, moving = (read_scalar(path) for path in row[1:3])
        assert any(torch.allclose(moving.data, some.image, atol=1e-3) for some in slices)
        assert not torch.allclose(fixed.data, moving.data, atol=0.05)
        assert bumps.scored(read_labels(row[4]).data)
    before = [Path(path).stat().st_mtime_ns for row in rows for path in row[1:5]]
    assert bumps.write_bump_pairs(data, tmp_path / "made", "large", 32) == rows
    assert [Path(path).stat().st_mtime_ns for row in rows for path in row[1:5]] == before


def test_a_large_deformation_is_larger(bumps, data: Path, tmp_path: Path) -> None:
    apart = {}
    for energy in bumps.ENERGIES:
        rows = bumps.write_bump_pairs(data, tmp_path / energy, energy, 32)
        apart[energy] = np.mean([float((read_scalar(r[1]).data - read_scalar(r[2]).data).abs().mean()) for r in rows])
    assert apart["large"] > 1.2 * apart["moderate"]


def test_missing_sets_are_told(bumps, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"mr\.nii\.gz"):
        bumps.read_slices(tmp_path, "train", 32)
