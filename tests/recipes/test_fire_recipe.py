"""The program for one's own copy of FIRE, on a folder in its layout: which way errors are measured, what is not done again."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from warpwright.data import FirePair

PROGRAM = Path(__file__).parents[2] / "recipes" / "smoothproper" / "fire.py"
SHIFT = (9.0, -6.0)  # of image 1 against image 2, pixels


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fire_recipe", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def photograph(path: Path, shift: tuple[float, float]) -> None:
    """An orange disc with dark vessels that cross."""
    row, column = np.indices((128, 160), dtype=float)
    x, y = column - shift[0], row - shift[1]
    vessels = sum(np.exp(-(((y - a - 12 * np.sin((x + b) / 19)) / 1.6) ** 2)) for a, b in ((40, 0), (66, 25), (92, 50)))
    vessels = vessels + sum(np.exp(-(((x - a - 9 * np.sin((y + b) / 15)) / 1.6) ** 2)) for a, b in ((50, 10), (90, 33)))
    disc = (row - 64) ** 2 + (column - 80) ** 2 < 60**2
    colours = disc[..., None] * np.array([200.0, 130.0, 60.0]) * (1 - 0.6 * vessels.clip(0, 1))[..., None]
    sitk.WriteImage(sitk.GetImageFromArray(colours.clip(0, 255).astype(np.uint8), isVector=True), str(path))


def test_control_points_come_together_and_are_not_registered_again(program, tmp_path, monkeypatch, capsys) -> None:
    fixed_points = torch.tensor([[60.0, 50.0], [90.0, 70.0], [100.0, 80.0]], dtype=torch.float64)
    pair = FirePair(
        name="P40",
        category="P",
        fixed=tmp_path / "P40_2.png",
        moving=tmp_path / "P40_1.png",
        fixed_points=fixed_points,
        moving_points=fixed_points + torch.tensor(SHIFT, dtype=torch.float64),
    )
    photograph(pair.fixed, (0.0, 0.0))
    photograph(pair.moving, SHIFT)
    pairs = (pair, replace(pair, name="A12", category="A"), replace(pair, name="S57", category="S"))
    monkeypatch.setattr(program, "read_fire", lambda *_: pairs)
    monkeypatch.setattr(sys, "argv", ["fire.py", "--data", "FIRE", "--output", str(tmp_path / "out"), "--preset", "fast"])
    assert program.main() == 0
    found = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert found["identity"]["P40"] == pytest.approx([float(np.hypot(*SHIFT))] * 3)
    assert np.mean(found["matching"]["P40"]) < 2
    first = capsys.readouterr().out
    assert "matching" in first
    monkeypatch.setattr(program, "registered", lambda *_: pytest.fail("is done again"))
    assert program.main() == 0
    assert capsys.readouterr().out == first


def test_a_folder_that_is_not_fire_is_a_sentence(program, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["fire.py", "--data", str(tmp_path), "--output", str(tmp_path / "out")])
    assert program.main() == 2
    assert "the folders Images and Ground Truth of FIRE were expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
