"""`warpwright register` with a model that `warpwright train` left."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from oracles.cohort import SPACING, picture, tree, write_small
from warpwright.cli.main import main
from warpwright.geometry import Grid, Image
from warpwright.io import read_image, read_scalar, read_transform, write_image, write_transform
from warpwright.methods import Annotated, register_direct
from warpwright.networks.scoring import VoxelMap
from warpwright.product.model_folder import read_model, write_model
from warpwright.product.register import register
from warpwright.product.trust import score_map
from warpwright.transforms import Affine, DisplacementField, split

ASKED = {"plain": (), "asked": ("--score",)}
LEFT = {"transform.h5", "inverse.h5", "moved.nii.gz", "jacobian.nii.gz", "figure.png", "result.json"}


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders with images and `small.toml`, by number of axes."""
    return {dim: Path(write_small(tmp_path_factory.mktemp(f"cohort{dim}"), dim)).parent for dim in (2, 3)}


@pytest.fixture(scope="module")
def models(cohorts: dict[int, Path]) -> dict[int, Path]:
    """Model folders that `train` left, by number of axes."""
    assert all(main(["train", str(folder / "small.toml")]) == 0 for folder in cohorts.values())
    return {dim: folder / "small" / "model" for dim, folder in cohorts.items()}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Run; the one line on standard error."""
    capsys.readouterr()
    assert main(arguments) == code
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err.count("\n") == 1, caught.err
    assert caught.err.startswith("warpwright: ")
    return caught.err


def pair(folder: Path) -> list[str]:
    """Paths of the validation pair."""
    return [str(folder / f"image_{number}.nii.gz") for number in (4, 5)]


@pytest.fixture(scope="module")
def scored(models: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same models with a score beside them, by number of axes."""
    folders = {dim: tmp_path_factory.mktemp("scored") / str(dim) for dim in models}
    for dim, path in models.items():
        found = read_model(path)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            score = VoxelMap(dim, 1, 0.25)
            score.head.weight.data *= 200.0  # far from flat
        write_model(folders[dim], found.model, card="", summary=found.summary, score=score)
    return folders


def registered(folder: Path, output: Path, *more: str) -> dict[str, Any]:
    """The result of `register`, and its file."""
    assert main(["register", *pair(folder), "--output", str(output), *more]) == 0
    assert {path.name for path in output.iterdir()} == (LEFT | {"score.nii.gz"} if "--score" in more else LEFT)
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
        "refine_rate": 4e-3,
        "refine_field": 0,
        "initialise": "centre (the model's)",
    }


def test_a_score_is_written_told_and_drawn_where_it_is_asked_for(dim, cohorts, scored, plain, tmp_path, capsys):
    capsys.readouterr()
    result = registered(cohorts[dim], tmp_path / "o", "--model", str(scored[dim]), "--score")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("score ")]
    folder, fixed = read_model(scored[dim]), read_image(pair(cohorts[dim])[0])
    assert folder.score is not None
    expected = score_map(folder.score.network, folder.model.settings, Annotated(image=fixed), "cpu")
    found = read_image(tmp_path / "o" / "score.nii.gz")
    assert found.grid.same_as(fixed.grid)
    assert torch.equal(found.data, expected.data)
    assert 0 < float(found.data.min()) < float(found.data.max()) < 1
    assert result["model"]["score_sha256"] == folder.score.digest
    figures = result["scores"]["trust"]
    share = 100 * float((found.data >= 0.5).double().mean())
    assert figures["trusted_percent"] == pytest.approx(share, abs=1e-3)
    assert f"{share:.1f} %" in line
    one, other = (imread(folder / "figure.png") for folder in (tmp_path / "o", plain[dim][0]))
    assert one.shape[1] > 1.1 * other.shape[1]  # one column more
    in_python = register(*pair(cohorts[dim]), model=folder, score=True)
    assert in_python.trust is not None
    assert torch.equal(in_python.trust.score_map.data, found.data)
    assert register(*pair(cohorts[dim]), model=folder).trust is None


def test_a_score_beside_a_model_changes_nothing_of_its_map(dim, cohorts, scored, plain, tmp_path):
    expected, before = plain[dim]
    results = {
        name: registered(cohorts[dim], tmp_path / name, "--model", str(scored[dim]), *more) for name, more in ASKED.items()
    }
    for name, result in results.items():
        for file in ("transform.h5", "inverse.h5", "moved.nii.gz", "jacobian.nii.gz"):
            assert (tmp_path / name / file).read_bytes() == (expected / file).read_bytes()
        told = {key: value for key, value in result["scores"].items() if key != "trust"}
        assert told == before["scores"]
        assert ("trust" in result["scores"]) == (name == "asked")
    assert results["plain"]["model"] == before["model"] | {"path": str(scored[dim])}


def test_a_score_is_a_soft_mask(cohorts, scored, tmp_path):
    registered(cohorts[2], tmp_path / "s", "--model", str(scored[2]), "--score")
    more = ["--preset", "fast", "--similarity", "mse"]
    plain = registered(cohorts[2], tmp_path / "plain", *more)
    masked = registered(cohorts[2], tmp_path / "masked", *more, "--fixed-mask", str(tmp_path / "s" / "score.nii.gz"))
    score = read_scalar(tmp_path / "s" / "score.nii.gz")
    write_image(tmp_path / "hard.nii.gz", Image((score.data > score.data.median()).float(), score.grid))
    hard = registered(cohorts[2], tmp_path / "h", *more, "--fixed-mask", str(tmp_path / "hard.nii.gz"))
    energies = [result["scores"]["energy_before"] for result in (plain, masked, hard)]
    assert all(abs(a - b) > 0.01 * a for a, b in combinations(energies, 2))
    assert masked["inputs"]["fixed_mask"]["path"].endswith("score.nii.gz")


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


def test_refining_the_field_is_judged_by_the_similarity_of_the_preset(cohorts, models, tmp_path):
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
    code = "import sys; sys.modules['numba'] = None; from warpwright.cli.main import main; code = main(); "
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
    "a score without a model": (lambda *_: ["--score"], ["--score", "without --model"]),
    "a score of a model without": (lambda m, _: ["--model", m, "--score"], ["has no score", "adaptivescoring"]),
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
    assert f"the model {models[dim]} is for {dim}: expected as many" in sentence
    assert not (tmp_path / "o").exists()
