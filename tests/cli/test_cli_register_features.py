"""`warpwright register` with a model of features, and with prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from oracles.cohort import write_cohort
from warpwright.cli.main import main
from warpwright.cohort.check import check_options
from warpwright.cohort.work import Options
from warpwright.data import bundled_pairs
from warpwright.errors import BadInput
from warpwright.evaluation import target_registration_error
from warpwright.geometry import Grid, Image
from warpwright.io import Points, read_labels, read_points, read_transform, write_image, write_points
from warpwright.transforms import Affine

TOML = """
steps = 2
log_every = 1
checkpoint_every = 1
[data]
manifest = "table.csv"
space = "ras"
[model]
dim = {dim}
layers = []
directions = "forward"
[model.preparation]
spacing = {spacing}
[model.network]
kind = "implicit"
steps = [4, 3]
features = {{ kind = "featureunetencoder", outputs = 4, scales = [2, 1], widths = 0.25 }}
[[model.loss]]
kind = "images"
similarity = {{ kind = "mse" }}
[[model.loss]]
kind = "overlap"
labels = [1, 2]
coarser = [0.5]
"""


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders with images, labels, landmarks and a trained model, by number of axes."""
    found: dict[int, Path] = {}
    for dim in (2, 3):
        folder = tmp_path_factory.mktemp(f"features{dim}")
        write_cohort(folder, dim, points=True)
        (folder / "f.toml").write_text(TOML.format(dim=dim, spacing=[1.0] * dim))
        assert main(["train", str(folder / "f.toml"), "--threads", "1"]) == 0
        found[dim] = folder
    return found


def run(folder: Path, output: Path, *more: str) -> dict[str, Any]:
    """What `register` of two images leaves in `result.json`."""
    images = [str(folder / f"image_{n}.nii.gz") for n in (4, 5)]
    labels = ["--fixed-labels", str(folder / "labels_4.nii.gz"), "--moving-labels", str(folder / "labels_5.nii.gz")]
    assert main(["register", *images, *labels, "--output", str(output), *more]) == 0
    return json.loads((output / "result.json").read_text())


def names(result: dict[str, Any]) -> list[str]:
    return [stage["name"] for stage in result["stages"]]


@pytest.mark.parametrize("transform", [None, "displacement", "greedy", "velocity", "bspline", "affine"])
def test_the_transform_is_chosen_when_a_pair_is_registered(dim: int, transform: str | None, cohorts, tmp_path) -> None:
    model = ["--model", str(cohorts[dim] / "f" / "model")]
    asked = [] if transform is None else ["--transform", transform]
    result = run(cohorts[dim], tmp_path / "o", *model, *asked)
    kind = {"affine": "affinefield", None: "displacement"}.get(transform, transform)
    assert names(result) == ["features", f"{kind} 1/2", f"{kind} 1/1", "map"]
    assert result["model"]["family"]["kind"] == kind
    assert result["scores"]["inverse_consistency"]["p95"] < 1.0


def test_an_affine_is_one_and_begins_another_search(dim: int, cohorts, tmp_path) -> None:
    model = ["--model", str(cohorts[dim] / "f" / "model")]
    first = run(cohorts[dim], tmp_path / "one", *model, "--transform", "affine")
    assert isinstance(read_transform(tmp_path / "one" / "transform.h5"), Affine)
    assert isinstance(read_transform(tmp_path / "one" / "inverse.h5"), Affine)
    assert first["scores"]["inverse_consistency"]["max"] < 1e-3
    second = run(cohorts[dim], tmp_path / "two", *model, "--transform", "greedy", "--initial", str(tmp_path / "one"))
    assert second["scores"]["energy_before"] < 0.9 * first["scores"]["energy_before"]
    assert second["model"]["initialise"] == "initial"


def test_a_search_that_fails_leaves_nothing(cohorts, tmp_path, capsys) -> None:
    folder = cohorts[2]
    images = [str(folder / f"image_{n}.nii.gz") for n in (4, 5)]
    points = ["--prompt-points", str(folder / "points_4.csv"), str(folder / "points_5.csv"), "--space", "ras"]
    model = ["--model", str(folder / "f" / "model"), "--prompt-weight", "1e45"]  # beyond float32
    assert main(["register", *images, "--output", str(tmp_path / "new" / "o"), *points, *model]) == 1
    said = capsys.readouterr().err.splitlines()[-1]  # behind the progress
    assert "image_5.nii.gz: the energy of the search became NaN or infinite at 1/2, 1/1" in said
    assert not list(tmp_path.iterdir())


def test_a_labels_prompt_pulls_and_does_not_count(dim: int, cohorts, tmp_path) -> None:
    folder = cohorts[dim]
    only: list[str] = []
    for n in (4, 5):
        labels = read_labels(folder / f"labels_{n}.nii.gz")
        only.append(str(tmp_path / f"one_{n}.nii.gz"))
        write_image(Path(only[-1]), Image((labels.data == 1).short(), labels.grid))
    model = ["--model", str(folder / "f" / "model"), "--transform", "greedy"]
    plain = run(folder, tmp_path / "plain", *model)
    told = run(folder, tmp_path / "told", *model, "--prompt-labels", *only, "--prompt-weight", "4")
    assert told["scores"]["dice_after"]["1"] > plain["scores"]["dice_after"]["1"]
    assert told["scores"]["prompted_labels"] == [1]
    assert told["scores"]["mean_dice_after"] == pytest.approx(told["scores"]["dice_after"]["2"])
    assert told["prompts"] == {"labels": [1], "points": 0, "weight": 4.0}
    assert set(told["inputs"]) >= {"fixed_prompt_labels", "moving_prompt_labels"}
    assert any("prompted with the labels 1" in note for note in told["notes"])


def test_landmarks_prompt_a_search_without_a_model(dim: int, cohorts, tmp_path, capsys) -> None:
    folder = cohorts[dim]
    points = ["--prompt-points", *(str(folder / f"points_{n}.csv") for n in (4, 5)), "--space", "ras"]
    scored = ["--fixed-points", points[1], "--moving-points", points[2]]
    plain = run(folder, tmp_path / "plain", "--preset", "fast", "--initialise", "none", *scored, "--space", "ras")
    told = run(folder, tmp_path / "told", "--preset", "fast", "--initialise", "none", *points, *scored)
    assert told["scores"]["tre_after"]["mean"] < min(0.6, plain["scores"]["tre_after"]["mean"])
    assert any(note.startswith("prompted with 3 landmarks, which end ") for note in told["notes"])
    assert (plain["scores"]["prompted_landmarks"], plain["scores"]["tre_prompted"]) == ([], False)
    assert (told["scores"]["prompted_landmarks"], told["scores"]["tre_prompted"]) == ([0, 1, 2], True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("landmarks  ")]
    assert [line.endswith(", all were prompted)") for line in lines] == [False, True]
    assert main(["report", str(tmp_path / "told")]) == 0
    assert "Error, mm; all were prompted" in (tmp_path / "told" / "report.html").read_text(encoding="utf-8")


def test_only_the_landmarks_that_were_not_prompted_are_scored(cohorts, tmp_path, capsys) -> None:
    folder = cohorts[2]
    every = [folder / f"points_{n}.csv" for n in (4, 5)]
    first = [tmp_path / path.name for path in every]
    for one, path in zip(first, every, strict=True):
        points = read_points(path, space="ras")
        write_points(one, Points(points.world[:1], points.names[:1]), "ras")
    found = run(
        *(folder, tmp_path / "o", "--preset", "fast", "--space", "ras", "--prompt-points", *map(str, first)),
        *("--fixed-points", str(every[0]), "--moving-points", str(every[1])),
    )
    assert (found["scores"]["prompted_landmarks"], found["scores"]["tre_prompted"]) == ([0], False)
    ends = (read_points(path, space="ras").world[1:] for path in every)
    there = target_registration_error(*ends, read_transform(tmp_path / "o" / "transform.h5"))
    assert found["scores"]["tre_after"]["mean"] == pytest.approx(float(there.mean()), abs=1e-4)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("landmarks  "))
    assert line.endswith(", without 1 that were prompted)")


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    caught = capsys.readouterr()
    assert caught.err.count("\n") == 1, caught.err
    return caught.err


def test_what_cannot_be_asked_for_is_one_sentence(cohorts, tmp_path, capsys) -> None:
    folder = cohorts[2]
    images = [str(folder / f"image_{n}.nii.gz") for n in (4, 5)]
    base = ["register", *images, "--output", str(tmp_path / "o")]
    model = ["--model", str(folder / "f" / "model")]
    points = ["--prompt-points", str(folder / "points_4.csv"), str(folder / "points_5.csv"), "--space", "ras"]
    few = tmp_path / "few.csv"
    write_points(few, Points(torch.tensor([[3.0, 3.0]]).double(), ("a",)), "ras")
    far = tmp_path / "far.csv"
    far_points = torch.tensor([[3.0, 3.0], [4.0, 5.0], [300.0, 3.0]]).double()
    grid = Grid.regular((12, 14), (1.0, 1.3))
    other = tmp_path / "other.nii.gz"
    write_image(other, Image(torch.full((1, 12, 14), 9, dtype=torch.int16), grid))
    labels = str(folder / "labels_4.nii.gz")
    assert "gives no rigid map" in refused([*base, *model, "--transform", "rigid"], capsys)
    assert "--prompt-weight was given without prompts" in refused([*base, "--prompt-weight", "2"], capsys)
    assert "must be above 0 and finite, got -1" in refused([*base, *points, "--prompt-weight", "-1"], capsys)
    assert "must be above 0 and finite, got inf" in refused([*base, *points, "--prompt-weight", "inf"], capsys)
    unpaired = refused([*base, points[0], points[1], str(few), *points[3:]], capsys)
    assert f"{few}: has 1 points and {points[1]} has 3, expected as many" in unpaired
    for names, listed in ((("a", "b", "c"), "point c"), (("1", "2", "3"), "point 3")):
        write_points(far, Points(far_points, names), "ras")
        beyond = refused([*base, points[0], points[1], str(far), *points[3:]], capsys)
        assert f"{far}: has {listed} outside {images[1]}, expected all points inside" in beyond
    linear = [*base, *model, "--transform", "affine", "--refine-field", "3"]
    assert "--refine-field refines a deformable map" in refused(linear, capsys)
    assert "no label in common" in refused([*base, "--prompt-labels", labels, str(other)], capsys)
    assert "prompts are for a deformable transform" in refused([*base, *points, "--transform", "affine"], capsys)
    assert "compares its features" in refused([*base, *model, "--similarity", "mi"], capsys)
    assert "--preset is for a search by images" in refused([*base, *model, "--preset", "fast"], capsys)
    for text, words in (
        ("levels = [2, 1]", "has levels, a model of features has the scales [2, 1] of its training: expected no such key"),
        ('start = "none"', "its 'start' is for a search by images, a model of features compares its features"),
        ("stepss = [2, 1]", "unknown key 'stepss', did you mean 'steps'?"),
        ("steps = [4, 3, 2]", "steps are [4, 3, 2], the features have the scales [2, 1]: expected as many"),
        ("steps = [4, 0]", "at least 1 step for each scale, got [4, 0]"),
        ("tolerance = -1.0", "tolerance must be at least 0 or absent, got -1.0"),
        ("[deformable]\ngradient_sigma = -1.0", ".deformable: sigmas must be at least 0 mm"),
        ('[deformable]\nkind = "greedy"', "its 'deformable' is not what --transform velocity asks for"),
    ):
        (tmp_path / "c.toml").write_text(text)
        found = refused([*base, *model, "--transform", "velocity", "--config", str(tmp_path / "c.toml")], capsys)
        assert f"{tmp_path / 'c.toml'}" in found
        assert words in found
    one_pass = str(next(pair.models[0] for pair in bundled_pairs() if pair.models))
    assert not (tmp_path / "o").exists()
    volumes = [str(path) for path in (bundled_pairs()[0].fixed, bundled_pairs()[0].moving)]
    told = ["--prompt-labels", str(bundled_pairs()[0].fixed_labels), str(bundled_pairs()[0].moving_labels)]
    found = refused(["register", *volumes, "--output", str(tmp_path / "o"), "--model", one_pass, *told], capsys)
    assert "expected a model of features, or none" in found
    found = refused(["register", *volumes, "--output", str(tmp_path / "o"), "--model", one_pass, "--preset", "fast"], capsys)
    assert "--preset is for a search, --model needs none" in found
    (tmp_path / "c.toml").write_text("[intensities]\nweight = 1.0\n")
    beside = ["--model", one_pass, "--config", str(tmp_path / "c.toml")]
    found = refused(["register", *volumes, "--output", str(tmp_path / "o"), *beside], capsys)
    assert "its 'intensities' is for a model of features: expected such a model, or no such key" in found
    found = refused(["register", *volumes, "--output", str(tmp_path / "o"), *model], capsys)
    assert f"{volumes[0]}: has 3 axes, the model {model[1]} is for 2: expected as many" in found


def test_a_cohort_asks_for_no_preset_where_nobody_does(cohorts) -> None:
    model = cohorts[2] / "f" / "model"
    check_options(Options(model=model))
    with pytest.raises(BadInput, match="--preset is for a search by images"):
        check_options(Options(model=model, preset="balanced"))
