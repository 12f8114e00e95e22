"""The recipe of Meta-Regularisation: every run has settings that can be read, tables say what was scored."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from warpwright.config import to_mapping
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import write_image
from warpwright.layers import KernelSmoothing
from warpwright.methods import Model
from warpwright.networks import VoxelMorph

ROOT = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch):
    for folder in (ROOT / "metareg", ROOT):
        monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module("tables")
    for name in ("bump_pairs", "gallery", "runs", "tables", "ways"):
        sys.modules.pop(name, None)


def write_scores(output: Path, run: Any, test: float, validation: float, apart: float = 0.1) -> None:
    """As if the run had been trained and scored; the second of two pairs is better than the first by `apart`."""
    each = {"dice": [test - apart / 2, test + apart / 2], "positive": [99.0] * 2, "least": [0.1] * 2, "seconds": [0.02] * 2}
    found = {**dict.fromkeys(("moderate", "large"), each), "validation": {**each, "dice": [validation] * 2}, "kernel": []}
    (output / run.name).mkdir(parents=True)
    (output / run.name / "scores.json").write_text(json.dumps(found))


def write_pairs(output: Path) -> None:
    """Two test pairs of each energy, whose labels lie on each other by half."""
    grid = Grid.regular((16, 16))
    labels = torch.zeros(1, 16, 16, dtype=torch.uint8)
    labels[:, 4:12, 4:12] = 1
    output.mkdir()
    names = {"fixed": labels.roll(4, 1), "moving": labels}
    for name, drawn in names.items():
        write_image(output / f"{name}.nii.gz", Image(drawn.float(), grid))
        write_image(output / f"{name}-labels.nii.gz", Image(drawn, grid))
    row = ",".join(str(output / f"{name}{part}.nii.gz") for part in ("", "-labels") for name in names)
    for energy in ("moderate", "large"):
        text = "id,fixed,moving,fixed_labels,moving_labels,split\n" + "".join(f"{k},{row},test\n" for k in range(2))
        (output / f"{energy}.csv").write_text(text)


def test_every_run_has_settings_and_a_model(tables, tmp_path: Path) -> None:
    ways, names = tables.PARTS, set()
    for run in (run for part in ways.values() for run in part()):
        weighed = tables.at(run, 0.02)
        settings = tables.settings_of(weighed, tmp_path, None)
        assert settings.model.loss[1].weight == weighed.weight
        assert settings.data.manifest == tmp_path / f"{run.pairs}.csv"
        assert settings.model.preparation.shape == (run.side, run.side)
        assert settings.seed == run.seed
        names.add(run.way)
        if run.seed == 0 and run.energy == "large":
            Model(settings.model)
    assert names == set(importlib.import_module("ways").WAYS)


def test_what_is_compared_differs_by_one_thing_at_a_time(tables, tmp_path: Path) -> None:
    found = {
        way: tables.settings_of(tables.at(importlib.import_module("ways").Run(way=way), 0.02), tmp_path, None).model
        for way in ("voxelmorph2", "ablated", "metareg")
    }
    assert found["voxelmorph2"].network == VoxelMorph(form="vm2", field="displacement")
    assert found["ablated"].network == VoxelMorph(form="vm2", field="displacement", upsampling="transposed")
    assert found["ablated"].layers == found["voxelmorph2"].layers == found["metareg"].layers[1:]
    assert found["metareg"].network == found["ablated"].network
    assert isinstance(found["metareg"].layers[0], KernelSmoothing)


def test_weights_are_chosen_by_validation_pairs(tables, tmp_path: Path) -> None:
    run = importlib.import_module("ways").Run
    assert tables.known(run(way="metareg"), tmp_path) is None
    for weight, test, validation in ((0.005, 0.9, 0.5), (0.02, 0.6, 0.7), (0.08, 0.8, 0.6)):
        write_scores(tmp_path, run(way="metareg", weight=weight), test, validation)
    assert tables.known(run(way="metareg", energy="moderate", seed=2), tmp_path).weight == 0.02
    assert tables.known(run(way="gaussian"), tmp_path).weight == 0.02  # as metareg
    assert tables.known(run(way="ablated"), tmp_path) is None
    assert tables.known(run(way="metareg", weight=0.3), tmp_path).weight == 0.3


def test_scores_of_other_settings_are_refused_not_shown(tables, tmp_path: Path) -> None:
    run = importlib.import_module("ways").Run(way="metareg", weight=0.02)
    write_scores(tmp_path, run, 0.7, 0.7)
    settings = tables.settings_of(run, tmp_path, None)
    (tmp_path / run.name / "training.json").write_text(json.dumps(to_mapping(settings) | {"log_every": 7}))  # nothing to it
    options = argparse.Namespace(output=tmp_path, device="cpu", steps=None)
    assert tables.finished(run, options)
    options.steps = settings.steps + 1
    with pytest.raises(BadInput, match=f"{run.name}: was trained with steps = {settings.steps}, now it is {options.steps}"):
        tables.finished(run, options)


def test_a_table_compares_the_same_seeds(tables, tmp_path: Path) -> None:
    output, run = tmp_path / "out", importlib.import_module("ways").Run
    write_pairs(output)
    runs = [run(way="voxelmorph2", weight=0.02, seed=seed) for seed in (0, 1)]
    runs += [run(way=way, weight=0.08, seed=seed) for way in ("metareg", "ablated") for seed in (1, 2)]
    for one, test in zip(runs, (0.6, 0.7, 0.73, 0.9, 0.71, 0.8), strict=True):
        write_scores(output, one, test, 0.5, 0.08 if one.way == "ablated" else 0.1)
    found = tables.table(runs, output)
    assert "| as it lies | | | large | 50.00 (0.00) |" in found
    assert "| voxelmorph2 | 0.02 | large | large | 65.00" in found
    assert "60.00, 70.00" in found
    (row,) = (row for row in found.splitlines() if row.startswith("| metareg | 0.08 | large | large |"))
    assert "81.50" in row
    assert "+3.00 (+3.00 to +3.00)" in row  # of seed 1, which both have
    assert "+6.00 (+5.00 to +7.00; over seeds -44.82 to +56.82)" in row  # over ablated, whose seeds are the same two
    assert row.count(" | ") == found.splitlines()[0].count(" | ")


def test_figures_of_kernels_have_a_row_for_each_run_that_has_one(tables, tmp_path: Path) -> None:
    run = importlib.import_module("ways").Run
    runs = [run(way="voxelmorph2", weight=0.02), run(way="metareg", weight=0.02, seed=1)]
    for one in runs:
        write_scores(tmp_path, one, 0.7, 0.7)
    path = tmp_path / runs[1].name / "scores.json"
    kernel = KernelSmoothing(taps=25).build(2).figures()
    path.write_text(json.dumps({**json.loads(path.read_text()), "kernel": [kernel]}))
    (_, _, row) = tables.kernel_table(runs, tmp_path).splitlines()
    assert row.startswith("| metareg | 0.02 | large | 1 | 0.000 | ")
    assert f" | {kernel['kernel_spectrum']:.3f} | " in row
    assert row.endswith(" | 1.000 |")


def test_a_rate_of_learning_is_compared_with_the_same(tables, tmp_path: Path) -> None:
    output, run = tmp_path / "out", importlib.import_module("ways").Run
    write_pairs(output)
    runs = [run(way=way, weight=0.02, rate=rate) for way in ("voxelmorph2", "metareg") for rate in (2e-3, 6e-3)]
    assert [one.name for one in runs[2:]] == ["metareg-large-0.02-seed0", "metareg-large-0.02-rate0.006-seed0"]
    assert tables.settings_of(runs[3], tmp_path, None).scheme.optimiser.rate == 6e-3
    assert tables.settings_of(runs[2], tmp_path, None).scheme.optimiser.rate == 2e-3
    for one, test in zip(runs, (0.6, 0.65, 0.7, 0.8), strict=True):
        write_scores(output, one, test, 0.5, 0.08 if one.way == "metareg" else 0.1)
    rows = {row.split(" | ")[0]: row for row in tables.table(runs, output).splitlines()}
    assert "+10.00 (+9.00 to +11.00)" in rows["| metareg"]
    assert "+15.00 (+14.00 to +16.00)" in rows["| metareg, rate 0.006"]
