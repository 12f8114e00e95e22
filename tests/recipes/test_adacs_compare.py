"""The recipe of AdaCS: images are corrupted where they are said to be, every trial has settings, tables say what was scored."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from warpwright.config import to_mapping
from warpwright.errors import BadInput, Failed
from warpwright.geometry import Grid, Image
from warpwright.io import read_labels, read_scalar, write_image
from warpwright.methods import Model, ModelSettings
from warpwright.networks import VoxelMorph
from warpwright.networks.scoring import VoxelMap
from warpwright.product.model_folder import read_model, write_model
from warpwright.training.settings import Training
from warpwright.transforms import Preparation

ROOT = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch):
    for folder in (ROOT / "adacs", ROOT):
        monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module("compare")
    for name in ("cohorts", "compare", "nuisances", "pictures", "runs", "scoring", "trials"):
        sys.modules.pop(name, None)


def write_hearts(data: Path) -> None:
    """Three patients of two slices, of which one has a contour at both ends of the beat."""
    rng = np.random.default_rng(0)
    grid = Grid.regular((132, 130, 2), (1.4, 1.4, 10.0))
    for patient in ("SC-HF-I-1", "SC-HF-I-2", "SC-HF-I-4"):
        folder = data / "cardiac_sunnybrook" / patient
        (folder / "cine").mkdir(parents=True)
        files = ["ed.nii.gz", "es.nii.gz", *(f"cine/frame{k:02d}.nii.gz" for k in range(20))]
        for file in files:
            write_image(folder / file, Image(torch.from_numpy(rng.random((1, *grid.shape))).float() * 900, grid))
        labels = torch.zeros(1, *grid.shape, dtype=torch.uint8)
        labels[0, 50:80, 50:80, 0] = 1
        labels[0, 40:50, 40:50, 0] = 2
        for end in ("ed", "es"):
            write_image(folder / f"{end}_label.nii.gz", Image(labels, grid))


def scores_of(dsc: float, auc: list[float]) -> dict[str, Any]:
    """Scores of two pairs, of which the second gains twice as much."""
    each = {"dsc": [dsc - 0.05, 2 * dsc - 0.65], "hd": [3.0, 5.0], "asd": [1.0, 1.0]}
    return {
        "half": each,
        "published": each,
        "folds": [0.0, 0.0],
        "lies": [0.5, 0.6],
        "auc": auc,
        "auc_places": [a - 0.3 for a in auc],
    }


def write_scores(output: Path, trial: Any, dsc: float, auc: list[float]) -> None:
    """As if a trial had been trained and scored."""
    (output / trial.name).mkdir(parents=True)
    (output / trial.name / "scores.json").write_text(json.dumps(scores_of(dsc, auc)))


def test_hearts_leave_one_patient_out_and_know_what_was_planted(compare, tmp_path: Path) -> None:
    assert compare.READ  # which brings its folder into reach
    nuisances = sys.modules["nuisances"]
    write_hearts(tmp_path)
    for fold, left in enumerate(("SC-HF-I-1", "SC-HF-I-2", "SC-HF-I-4")):
        given = nuisances.hearts(tmp_path, tmp_path / "images", "corrupted", fold)
        assert [test[0] for test in given.test] == [f"{left}-es-00"]
        assert not any(row[0].startswith(left) for row in given.rows)
        assert sum(row[4] == "train" for row in given.rows) == 2 * 20 * 2
        assert sum(row[4] == "validation" for row in given.rows) == 4
    _, fixed, _, labels, _ = given.test[0]
    image, where, drawn = read_scalar(fixed), read_labels(nuisances.planted(fixed)), read_labels(labels)
    assert image.grid.shape == where.grid.shape == drawn.grid.shape == (128, 128)
    assert set(drawn.data.unique().tolist()) == {0, 1}
    assert 0 < float((where.data > 0).float().mean()) < 0.5
    clean = nuisances.hearts(tmp_path, tmp_path / "images", "clean", 2)
    assert not nuisances.planted(clean.test[0][1]).exists()
    assert not torch.equal(read_scalar(clean.test[0][1]).data, image.data)


def test_every_trial_has_settings_and_updates_the_model_equally_often(compare, tmp_path: Path) -> None:
    names: set[str] = set()
    for trial in (trial for part in compare.PARTS.values() for trial in part()):
        settings = compare.settings_of(trial, tmp_path / "table.csv")
        rest = 0.0
        if trial.scheme.startswith("adacs"):
            rest = settings.scheme.weighting.warmup
        resting = sum(rest * settings.steps <= k < 2 * rest * settings.steps for k in range(settings.steps))
        plain = compare.settings_of(compare.Trial(data=trial.data, network=trial.network), tmp_path / "table.csv")
        assert settings.steps - resting == plain.steps
        assert settings.seed == trial.seed
        names.add(trial.name)
    assert len(names) == 139
    assert f"# {len(names)} trainings" in (ROOT / "README.md").read_text(encoding="utf-8")
    for part in compare.PARTS.values():
        assert len({trial.name for trial in part()}) == len(list(part()))
    for data in ("hearts", "hippocampus"):
        for network in sys.modules["trials"].NETWORKS:
            trial = compare.Trial(data=data, network=network)
            Model(compare.settings_of(trial, tmp_path / "table.csv").model)


def test_a_table_compares_equal_seeds_and_gives_hearts_no_p(compare, tmp_path: Path) -> None:
    trials = []
    for data in ("hearts", "hippocampus"):
        for seed in (0, 1):
            for scheme, dsc in (("vanilla", 0.7), ("adacs", 0.72 + 0.01 * seed)):
                trials.append(compare.Trial(data=data, scheme=scheme, seed=seed))
                write_scores(tmp_path, trials[-1], dsc, [0.8, 0.9] if scheme == "adacs" else [])
    lines = compare.table(trials, tmp_path).splitlines()
    assert len(lines) == 2 + 2 * 3
    assert lines[2] == f"| hearts | none | as it lies | corrupted | 55.00 (55.00, 55.00){' |' * 8}"
    hearts, volumes = lines[4], lines[7]
    assert "73.75 (73.00, 74.50) | +3.75 (+3.00, +4.50) |  |" in hearts
    assert "|  | +3.75 (+3.00, +4.50) |" in lines[3]
    assert "0.850 (0.550)" in hearts
    assert "p" not in hearts.split("|")[6]
    assert "+3.75 (+3.00, +4.50), +2.50 to +5.00, p" in volumes


def test_the_oracle_is_told_what_was_planted(compare, tmp_path: Path) -> None:
    write_hearts(tmp_path)
    rows = sys.modules["nuisances"].hearts(tmp_path, tmp_path / "images", "corrupted", 0).rows
    header, *body = compare.told(rows)
    assert header == (*rows[0], "mask")
    for row, plain in zip(body, rows[1:], strict=True):
        assert row[:-1] == plain
        where = read_labels(compare.planted(Path(row[1]))).data
        assert torch.equal(read_labels(Path(row[-1])).data, 1 - where)
    table = [("id", "fixed", "moving"), ("a", *(row[1] for row in body[:2]))]
    assert compare.told(table)[0] == ("id", "fixed", "moving", "fixed_mask", "moving_mask")
    assert compare.told(table)[1][3:] == (body[0][-1], body[1][-1])


def test_a_collapse_is_a_result_of_the_ablation_and_of_nothing_else(compare, tmp_path: Path, monkeypatch) -> None:
    """It has a row beside those of the key schemes, and is not trained again; another training that fails ends the recipe."""
    given = compare.Given([("id",)], [], (1,), "corrupted-0")
    monkeypatch.setattr(compare, "READ", {name: lambda *_: given for name in compare.READ})
    monkeypatch.setattr(compare, "scored", lambda *_: scores_of(0.7, []))
    seen: list[str] = []

    def trained(settings: Training, folder: Path, _: str) -> bool:
        seen.append(folder.name)
        folder.mkdir(parents=True)
        (folder / "training.json").write_text(json.dumps(to_mapping(settings)))
        if getattr(settings.scheme.weighting, "alpha", 1.0) == 0:
            raise Failed("step 7: the score has collapsed (pairs a~b); there is no checkpoint yet")
        return True

    monkeypatch.setattr(compare, "trained", trained)
    trials = list(compare.PARTS["ablation"]())
    assert all(compare.finished(trial, tmp_path, tmp_path, "cpu") for trial in (*trials, *trials))
    assert len(seen) == len(set(seen)) == 8
    lines = compare.table(trials, tmp_path).splitlines()
    assert len(lines) == 2 + 2 + 8
    (row,) = (line for line in lines if line.startswith("| hearts | voxelmorph | adacs-no-regulariser |"))
    assert "| seed 0: step 7: the score has collapsed | " in row
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    (row,) = (line for line in lines if line.startswith("| hearts | voxelmorph | adacs-no-tv |"))
    assert "| +0.00 | +0.00 |" in row  # over vanilla, and AdaCS over it

    for scheme, sentence in (("nll", "step 7: the score has collapsed"), ("adacs-no-regulariser", "step 7: the disk is full")):

        def failing(*_: object) -> bool:
            raise Failed(sentence)  # noqa: B023

        monkeypatch.setattr(compare, "trained", failing)
        with pytest.raises(Failed, match=sentence):
            compare.finished(compare.Trial(data="hearts", scheme=scheme, seed=9), tmp_path, tmp_path, "cpu")


def test_scores_of_other_images_are_refused(compare, tmp_path: Path, monkeypatch) -> None:
    given = [compare.Given([("id",)], [], (1,), f"corrupted-{k}") for k in range(2)]
    monkeypatch.setattr(compare, "scored", lambda *_: scores_of(0.7, []))

    def trained(settings: Training, folder: Path, _: str) -> bool:
        folder.mkdir(parents=True)
        (folder / "training.json").write_text(json.dumps(to_mapping(settings)))
        return True

    monkeypatch.setattr(compare, "trained", trained)
    trial = compare.Trial(data="hearts")
    for k in (0, 0):
        monkeypatch.setattr(compare, "READ", {"hearts": lambda *_: given[k]})  # noqa: B023
        assert compare.finished(trial, tmp_path, tmp_path, "cpu")
    monkeypatch.setattr(compare, "READ", {"hearts": lambda *_: given[1]})
    with pytest.raises(BadInput, match="was trained with the images corrupted-0, now they are corrupted-1"):
        compare.finished(trial, tmp_path, tmp_path, "cpu")


def test_a_word_that_no_trial_has_is_refused(compare, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        sys, "argv", ["compare.py", "ablation", "--data", "d", "--output", str(tmp_path), "--only", "adacs-no-tw"]
    )
    assert compare.main() == 2
    assert "no trial of ablation has 'adacs-no-tw' in its name" in capsys.readouterr().err


def test_choices_are_scored_on_validation_images_alone(compare, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(compare, "read_model", lambda _: type("Folder", (), {"score": object()}))
    monkeypatch.setattr(compare, "score", lambda *_, **__: {"half": {}})
    monkeypatch.setattr(compare, "score_of", lambda *_: torch.tensor([[0.1], [0.9], [0.8]]))
    monkeypatch.setattr(compare, "read_scalar", lambda file: file)
    where = Image(torch.tensor([[[1], [0], [0]]]), Grid.regular((3, 1)))
    monkeypatch.setattr(compare, "read_labels", lambda _: where)
    given = compare.Given(
        [("id", "image", "split"), ("a", "a.nii.gz", "validation"), ("b", "b.nii.gz", "train")], [], (1,), "x"
    )
    assert given.watched == [Path("a.nii.gz")]
    rows = [{"step": 10, "dice": 0.5}, {"step": 20, "dice": 0.75}, {"step": 20, "loss": 1.0}]
    for trial, looked in (
        (compare.Trial(data="hearts", scheme="adacs"), True),
        (compare.Trial(data="hearts", scheme="adacs", smoothness=1.0), True),  # as usual
        (compare.Trial(data="hearts", scheme="adacs", smoothness=4.0), False),
        (compare.Trial(data="hearts", scheme="adacs", score=(("alpha", 0.1),)), False),
        (compare.Trial(data="hearts", scheme="adacs", condition="half"), False),
    ):
        folder = tmp_path / trial.name
        folder.mkdir(exist_ok=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = compare.scored(trial, folder, given)
        assert ("half" in found) == looked
        assert (found["validation"], found["validation_auc"]) == (0.75, [1.0])
        (folder / "scores.json").write_text(json.dumps(found))
    changed = compare.Trial(data="hearts", scheme="adacs", score=(("alpha", 0.1),))
    (*_, row) = compare.choices_table([changed], tmp_path).splitlines()
    assert row == "| hearts | voxelmorph | adacs | corrupted | x 1 | alpha 0.1 | 75.00 | 1.000 |"


def test_curves_are_drawn_from_logs(compare, tmp_path: Path) -> None:
    rows = [{"step": 20 * k, "residual": 0.02, "score_smoothness": 0.01 * k} for k in range(1, 4)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*rows, {"step": 60, "dice": 0.5})))
    compare.draw_momentum({"hearts": tmp_path / "a.jsonl"}, tmp_path / "momentum.png")
    assert (tmp_path / "momentum.png").stat().st_size > 5_000


def test_the_area_counts_pairs_of_voxels(compare) -> None:
    rng = np.random.default_rng(0)
    score, where = rng.integers(0, 5, (6, 7)) / 4, rng.random((6, 7)) < 0.3
    inside, outside = score[where], score[~where]
    wins = np.mean([[float(b > a) + 0.5 * float(b == a) for b in outside] for a in inside])
    assert compare.auc(torch.from_numpy(score), torch.from_numpy(where)) == pytest.approx(wins)
    assert np.isnan(compare.auc(torch.ones(3), torch.zeros(3, dtype=torch.bool)))


def test_a_model_with_a_score_is_scored_and_drawn(compare, tmp_path: Path) -> None:
    write_hearts(tmp_path)
    given = sys.modules["nuisances"].hearts(tmp_path, tmp_path / "images", "corrupted", 0)
    network = VoxelMorph(field="displacement", scale=0.25)
    preparation = Preparation(spacing=(1.0, 1.0), shape=(128, 128), start="none")
    model = Model(ModelSettings(dim=2, network=network, layers=(), preparation=preparation))
    write_model(tmp_path / "model", model, card="", summary={}, score=VoxelMap(2, 1, 0.25))
    folder = read_model(tmp_path / "model")
    found = compare.score(folder, given, corrupted=True)
    assert found["half"]["dsc"] == pytest.approx([1.0], abs=0.02)
    assert len(found["auc"]) == len(found["auc_places"]) == 1
    assert compare.score(folder, given, corrupted=False)["auc"] == []
    sys.modules["pictures"].draw_pairs(given, folder, folder, tmp_path / "pairs.png", 1)
    assert (tmp_path / "pairs.png").stat().st_size > 10_000
