"""`warpwright train`, and `warpwright register` with the model that it leaves."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from oracles.cohort import SPACING, lines, picture, tiny, tree, write_cohort, write_settings
from warpwright.cli.main import main
from warpwright.geometry import Grid, Image
from warpwright.io import read_image, read_transform, write_image, write_transform
from warpwright.methods import register_direct
from warpwright.product.model_folder import read_model
from warpwright.product.register import register
from warpwright.schemes import SGD, Plain
from warpwright.training import run
from warpwright.training.checkpoint import read_checkpoint
from warpwright.transforms import Affine, DisplacementField, split

LEFT = {"transform.h5", "inverse.h5", "moved.nii.gz", "jacobian.nii.gz", "figure.png", "result.json"}
TOML = """
steps = 4
log_every = 2
checkpoint_every = 2
[data]
manifest = "table.csv"
[model]
dim = {dim}
[model.network]
kind = "voxelmorph"
form = "vm1"
half_resolution = true
scale = 0.25
[scheme.optimiser]
kind = "adam"
rate = 1e-2
[[model.loss]]
kind = "images"
similarity = {{ kind = "lncc", radius = 2 }}
[[model.loss]]
kind = "smoothness"
on = "velocity"
weight = 0.1
[card]
title = "A small one"
"""


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders with images, labels and `small.toml`, by number of axes."""
    folders = {dim: tmp_path_factory.mktemp(f"cohort{dim}") for dim in (2, 3)}
    for dim, folder in folders.items():
        write_cohort(folder, dim)
        (folder / "small.toml").write_text(TOML.format(dim=dim))
    return folders


@pytest.fixture(scope="module")
def models(cohorts: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Model folders that `train` left, by number of axes."""
    outputs = {dim: tmp_path_factory.mktemp("trained") / str(dim) for dim in cohorts}
    for dim, folder in cohorts.items():
        assert main(["train", str(folder / "small.toml"), "--output", str(outputs[dim])]) == 0
    return {dim: output / "model" for dim, output in outputs.items()}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Run; the one line on standard error."""
    capsys.readouterr()
    assert main(arguments) == code
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err.count("\n") == 1, caught.err
    assert caught.err.startswith("warpwright: ")
    return caught.err


# ---- train


def test_train_says_what_it_does_and_where_the_model_is(dim, cohorts, tmp_path, capsys):
    write_cohort(tmp_path, dim)
    (tmp_path / "small.toml").write_text(TOML.format(dim=dim))
    assert main(["train", str(tmp_path / "small.toml")]) == 0
    caught = capsys.readouterr()
    assert caught.out == f"finished after 4 steps\nmodel       {tmp_path / 'small' / 'model'}\n"
    words = [line.split()[:2] for line in caught.err.splitlines()]
    assert words == [["train", "2/4"], ["train", "4/4"], ["validation", "4/4"]]
    assert "dice 0." in caught.err
    found = {path.name for path in (tmp_path / "small").iterdir()}
    assert found == {"training.json", "metrics.jsonl", "checkpoint.safetensors", "model", "pictures"}
    assert (tmp_path / "small" / "model" / "README.md").read_text().startswith("# A small one\n")


def test_train_for_machines(cohorts, tmp_path, capsys):
    output = tmp_path / "o"
    assert main(["train", str(cohorts[2] / "small.toml"), "--output", str(output), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    best = next(row["dice"] for row in lines(output) if row["kind"] == "validation")
    assert found == {"output": str(output), "step": 4, "finished": True, "best": {"dice": best}}


def test_train_on_a_terminal_draws_a_table(cohorts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["train", str(cohorts[2] / "small.toml"), "--output", str(tmp_path / "o")]) == 0
    drawn = capsys.readouterr().err
    assert "validation" in drawn
    assert "4/4" in drawn
    assert "similarity" in drawn


def test_train_in_another_process_than_the_first_is_silent(cohorts, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")  # without WORLD_SIZE: this process trains alone, and does not speak
    assert main(["train", str(cohorts[2] / "small.toml"), "--output", str(tmp_path / "o"), "--json"]) == 0
    assert main(["train", str(cohorts[2] / "small.toml"), "--dry-run"]) == 0
    assert capsys.readouterr() == ("", "")


def test_train_stops_and_goes_on(cohorts, models, tmp_path, capsys, monkeypatch):
    @contextmanager
    def told_at_once() -> Iterator[Callable[[], bool]]:
        yield lambda: True

    arguments = ["train", str(cohorts[2] / "small.toml"), "--output", str(tmp_path / "o")]
    with monkeypatch.context() as patched:
        patched.setattr(run, "told_to_stop", told_at_once)
        assert main(arguments) == 0
    assert capsys.readouterr().out == f"stopped at step 1; --resume goes on\ncheckpoint  {tmp_path / 'o'}\n"
    before = tree(tmp_path / "o")
    assert "the output folder is not empty; choose another with --output, or go on with --resume" in refused(arguments, capsys)
    assert tree(tmp_path / "o") == before
    assert main([*arguments, "--resume"]) == 0
    assert capsys.readouterr().out.startswith("finished after 4 steps")
    assert tree(tmp_path / "o" / "model") == tree(models[2])


def test_train_dry_run_reports_and_writes_nothing(dim, cohorts, tmp_path, capsys):
    before = tree(cohorts[dim])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    arguments = ["train", str(cohorts[dim] / "small.toml"), "--dry-run"]
    assert main([*arguments, "--output", str(tmp_path / "full")]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert all(word in said.out for word in ("images: 6", "validation_pairs: 1", "memory_gb: ", "seconds_step: ", "loss: "))
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == [1, 1, *(12, 14, 10)[:dim]]
    assert found["memory_gb"] > 0.01
    assert tree(cohorts[dim]) == before
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
def test_train_bad_input(what, cohorts, tmp_path, capsys):
    make, words = BAD[what]
    (tmp_path / "bare").write_text("x")
    sentence = refused(["train", *make(str(cohorts[2] / "small.toml"), tmp_path)], capsys)
    assert all(word in sentence for word in words), sentence
    assert {path.name for path in tmp_path.iterdir()} <= {"bare", "t.toml"}
    assert (tmp_path / "bare").read_text() == "x"


def test_train_of_a_loss_that_is_no_number_is_exit_1(cohorts, tmp_path, capsys):
    training = tiny(
        cohorts[2] / "table.csv", 2, scheme=Plain(optimiser=SGD(rate=1e30)), steps=9, log_every=9, checkpoint_every=1
    )
    settings = write_settings(tmp_path / "t.json", training)
    sentence = refused(["train", settings, "--output", str(tmp_path / "o")], capsys, code=1)
    step = read_checkpoint(tmp_path / "o" / "checkpoint.safetensors").step
    assert f"step {step + 1}: the " in sentence
    assert "(pairs case" in sentence
    assert f"the last good checkpoint is {tmp_path / 'o' / 'checkpoint.safetensors'}" in sentence


# ---- register


def pair(folder: Path) -> list[str]:
    """The validation pair: neither the best nor the worst to look at."""
    return [str(folder / f"image_{number}.nii.gz") for number in (4, 5)]


def registered(folder: Path, output: Path, *more: str) -> dict[str, Any]:
    """The result of `register`, and its file."""
    assert main(["register", *pair(folder), "--output", str(output), *more]) == 0
    assert {path.name for path in output.iterdir()} == LEFT
    return json.loads((output / "result.json").read_text())


@pytest.fixture(scope="module")
def plain(cohorts: dict[int, Path], models: dict[int, Path], tmp_path_factory) -> dict[int, tuple[Path, dict[str, Any]]]:
    """What `register --model` leaves, by number of axes."""
    outputs = {dim: tmp_path_factory.mktemp("registered") / str(dim) for dim in models}
    return {dim: (outputs[dim], registered(cohorts[dim], outputs[dim], "--model", str(models[dim]))) for dim in models}


def stages(result: dict[str, Any]) -> list[str]:
    return [stage["name"] for stage in result["stages"]]


def test_register_by_a_model_is_one_pass_of_its_network(dim, cohorts, models, plain):
    output, result = plain[dim]
    fixed, moving = (read_image(path) for path in pair(cohorts[dim]))
    expected = register_direct(read_model(models[dim]).model, fixed, moving)
    found = read_transform(output / "transform.h5")
    points = fixed.grid.to_world(torch.tensor([[n * f for n in fixed.grid.shape] for f in (0.3, 0.5, 0.7)]).double())
    assert torch.allclose(found(points), expected.forward(points), atol=1e-5)  # mm; fields are float32
    assert torch.allclose(read_transform(output / "inverse.h5")(points), expected.backward(points), atol=1e-5)
    assert float((found(points) - points).abs().max()) > 1e-4
    assert stages(result) == ["network"]
    assert result["scores"]["energy_before"] == pytest.approx(expected.energy_before, rel=1e-5)
    assert result["scores"]["energy_after"] == pytest.approx(expected.energy_after, rel=1e-5)
    assert result["scores"]["energy_after"] < result["scores"]["energy_before"]


def test_the_result_names_the_model_and_its_digest(dim, models, plain):
    digest = hashlib.sha256((models[dim] / "weights.safetensors").read_bytes()).hexdigest()
    assert plain[dim][1]["model"] == {
        "path": str(models[dim]),
        "sha256": digest,
        "network": "VoxelMorph",
        "refine": 0,
        "refine_rate": 5e-4,
        "refine_field": 0,
        "initialise": "centre (the model's)",
    }


@pytest.mark.parametrize("dim", [2, 3])
def test_refining_the_weights_lowers_the_loss_and_leaves_the_model(dim, cohorts, models, plain, tmp_path):
    before = tree(models[dim])
    more = ["--model", str(models[dim]), "--refine", "2", "--refine-rate", "0.01"]
    result = registered(cohorts[dim], tmp_path / "o", *more)
    assert sorted(stages(result)) == ["network", "refine weights"]
    (stage,) = [stage for stage in result["stages"] if stage["name"] == "refine weights"]
    assert stage["steps"] == 2
    assert stage["energy_end"] < stage["energy_start"]
    assert (result["model"]["refine"], result["model"]["refine_rate"]) == (2, 0.01)
    assert result["scores"]["energy_after"] < plain[dim][1]["scores"]["energy_after"]
    assert tree(models[dim]) == before


def test_refinement_does_not_depend_on_the_order_of_pairs(cohorts, models):
    folder = read_model(models[2])
    weights = {name: value.clone() for name, value in folder.model.state_dict().items()}
    images = [read_image(cohorts[2] / f"image_{number}.nii.gz") for number in range(3)]
    pairs = [(images[0], images[1]), (images[2], images[0])]

    def fields(order: list[int]) -> dict[int, torch.Tensor]:
        found = {n: register(*pairs[n], model=folder, refine=2, refine_rate=0.01, refine_field=1) for n in order}
        return {n: split(result.transform, pairs[n][0].grid)[1].displacement for n, result in found.items()}

    one, two = fields([0, 1]), fields([1, 0])
    assert all(torch.equal(one[n], two[n]) for n in (0, 1))
    assert all(torch.equal(value, weights[name]) for name, value in folder.model.state_dict().items())


def test_refining_the_field_is_judged_by_the_similarity_of_the_preset(cohorts, models, plain, tmp_path):
    result = registered(cohorts[2], tmp_path / "o", "--model", str(models[2]), "--refine-field", "2")
    assert stages(result) == ["network", "greedy 1/1"]
    assert result["stages"][1]["steps"] == 2
    assert result["model"]["refine_field"] == 2
    classical = registered(cohorts[2], tmp_path / "classical", "--initialise", "none", "--preset", "fast")
    assert result["scores"]["energy_before"] == pytest.approx(classical["scores"]["energy_before"], rel=1e-6)
    assert result["scores"]["energy_after"] < result["stages"][1]["energy_start"] < result["scores"]["energy_before"]
    other = registered(cohorts[2], tmp_path / "mse", "--model", str(models[2]), "--refine-field", "2", "--similarity", "mse")
    assert other["scores"]["energy_before"] != result["scores"]["energy_before"]


def shift(folder: Path, dim: int, millimetres: float) -> tuple[str, np.ndarray]:
    matrix = np.eye(dim + 1)
    matrix[0, -1] = millimetres
    write_transform(folder / "shift.tfm", Affine(matrix))
    return str(folder / "shift.tfm"), matrix


def test_linear_stages_may_go_before_the_network(cohorts, models, plain, tmp_path):
    result = registered(cohorts[2], tmp_path / "o", "--model", str(models[2]), "--initialise", "affine")
    assert stages(result)[-1] == "network"
    assert stages(result)[0] == "start"
    assert any(name.startswith("affine 1/") for name in stages(result))
    assert result["model"]["initialise"] == "affine"
    grid = read_image(pair(cohorts[2])[0]).grid
    assert np.abs(split(read_transform(tmp_path / "o" / "transform.h5"), grid)[0].matrix - np.eye(3)).max() > 1e-3
    assert result["scores"]["energy_before"] == pytest.approx(plain[2][1]["scores"]["energy_before"], rel=1e-6)


def test_an_affine_may_be_given(cohorts, models, plain, tmp_path):
    path, matrix = shift(tmp_path, 2, 1.5)
    result = registered(cohorts[2], tmp_path / "o", "--model", str(models[2]), "--initial", path)
    grid = read_image(pair(cohorts[2])[0]).grid
    affine, field = split(read_transform(tmp_path / "o" / "transform.h5"), grid)
    assert np.allclose(affine.matrix, matrix, atol=1e-6)
    assert bool(field.displacement.any())
    assert stages(result) == ["network"]
    assert result["scores"]["energy_before"] > plain[2][1]["scores"]["energy_before"]  # it lies worse there
    after = registered(cohorts[2], tmp_path / "a", "--model", str(models[2]), "--initial", path, "--initialise", "affine")
    assert stages(after)[0].startswith("affine 1/")  # which begins from what was given
    assert after["scores"]["energy_before"] == pytest.approx(result["scores"]["energy_before"], rel=1e-6)


def test_register_dry_run_and_json_name_the_model(cohorts, models, tmp_path, capsys):
    arguments = ["register", *pair(cohorts[2]), "--output", str(tmp_path / "o"), "--model", str(models[2]), "--refine", "1"]
    assert main([*arguments, "--dry-run"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"]["refine"], found["model"]["path"]) == (1, str(models[2]))
    assert list(tmp_path.iterdir()) == []
    assert main([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["model"] == found["model"]


def test_registering_never_imports_the_trainer(cohorts, models, tmp_path):
    code = "import sys; from warpwright.cli.main import main; code = main(); "
    code += "assert 'warpwright.methods.direct' in sys.modules; "
    code += "assert not [m for m in sys.modules if m.startswith(('warpwright.training', 'warpwright.schemes'))]; sys.exit(code)"
    command = [sys.executable, "-W", "error", "-c", code, "register", *pair(cohorts[2]), "--model", str(models[2])]
    done = subprocess.run([*command, "--output", str(tmp_path / "o")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def field_file(folder: Path) -> str:
    grid = Grid.regular((12, 14), SPACING[:2])
    write_transform(folder / "field.h5", DisplacementField(torch.full((2, 12, 14), 0.3), grid))
    return str(folder / "field.h5")


def pickled(folder: Path) -> str:
    torch.save({"a": 1}, folder / "model.pt")
    return str(folder / "model.pt")


def three(folder: Path) -> list[str]:
    """A pair of volumes."""
    grid = Grid.regular((12, 14, 10), SPACING)
    for number in (4, 5):
        write_image(folder / f"volume_{number}.nii.gz", Image(picture(grid, number)[0], grid))
    return [str(folder / f"volume_{number}.nii.gz") for number in (4, 5)]


# what is called, given a model and a folder
BAD_MODELS: dict[str, tuple[Callable[[str, Path], list[str]], list[str]]] = {
    "refine without a model": (lambda *_: ["--refine", "3"], ["--refine", "without --model"]),
    "refine-field without a model": (lambda *_: ["--refine-field", "3"], ["--refine-field", "without --model"]),
    "refine-rate without a model": (lambda *_: ["--refine-rate", "1"], ["--refine-rate", "without --model"]),
    "refine-rate without steps": (lambda m, _: ["--model", m, "--refine-rate", "1"], ["--refine-rate", "without --refine"]),
    "negative steps": (lambda m, _: ["--model", m, "--refine", "-1"], ["steps >= 0", "-1"]),
    "negative field steps": (lambda m, _: ["--model", m, "--refine-field", "-1"], ["--refine-field", "-1"]),
    "no rate": (lambda m, _: ["--model", m, "--refine", "1", "--refine-rate", "0"], ["rate above 0", "0"]),
    "a linear transform": (lambda m, _: ["--model", m, "--transform", "affine"], ["--model", "linear"]),
    "a field to begin from": (lambda m, f: ["--model", m, "--initial", field_file(f)], ["--initial", "field", "affine"]),
    "no such folder": (lambda _, f: ["--model", str(f / "none")], ["none", "does not exist"]),
    "a pickle": (lambda _, f: ["--model", pickled(f)], ["model.pt", "may run code"]),
    "the folder of a run": (lambda m, _: ["--model", str(Path(m).parent)], ["no model.json"]),
}


@pytest.mark.parametrize("what", BAD_MODELS)
def test_register_bad_input(what, cohorts, models, tmp_path, capsys):
    make, words = BAD_MODELS[what]
    arguments = ["register", *pair(cohorts[2]), "--output", str(tmp_path / "o"), *make(str(models[2]), tmp_path)]
    sentence = refused(arguments, capsys)
    assert all(word in sentence for word in words), sentence
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("dim", "axes"), [(3, "2 axes"), (2, "3 axes")])
def test_a_model_for_other_images(dim, axes, cohorts, models, tmp_path, capsys):
    images = pair(cohorts[2]) if dim == 3 else three(tmp_path)
    sentence = refused(["register", *images, "--output", str(tmp_path / "o"), "--model", str(models[dim])], capsys)
    assert axes in sentence
    assert f"the model is for {dim}" in sentence
    assert not (tmp_path / "o").exists()
