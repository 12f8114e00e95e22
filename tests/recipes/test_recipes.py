"""The recipes: their settings can be read, their splits are what the figures are said to be measured on."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from warpwright.energies.losses import GradientInverseConsistency
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import read_labels, read_scalar, write_image
from warpwright.methods import Implicit, Model, ModelSettings
from warpwright.networks.features import FeatureUNetEncoder
from warpwright.product.model_folder import write_model
from warpwright.training.config import read_training
from warpwright.training.settings import Training
from warpwright.transforms import Preparation

ROOT = Path(__file__).parents[2] / "recipes"
CONFIGS = sorted(ROOT.rglob("*.toml"))
OTHER_LOSS = ("squares",)  # the row of a table that is about the loss
OWN_PROGRAMS = {
    "adacs",
    "trees",
    "fundus",
    "metareg",
}  # adacs/compare.py, smoothproper/trees.py and fundus.py, metareg/tables.py
MODULES = (
    "cohorts",
    "drawing",
    "moved_volumes",
    "run",
    "runs",
    "scoring",
    "shapes",
    "shifts",
    "slices",
    "square_images",
    "vessel_maps",
)


@pytest.fixture
def cohorts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    yield importlib.import_module("cohorts")
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT).with_suffix("")))
def test_settings_can_be_read_and_build_a_model(path: Path) -> None:
    training = read_training(path)
    assert training.data.manifest == path.parent / ("rendered.csv" if path.stem == "rendered" else "manifest.csv")
    assert sum(p.numel() for p in Model(training.model).parameters()) > 10_000
    assert training.card.licence != "not stated"


def test_there_is_a_recipe_for_every_cohort(cohorts) -> None:
    assert {path.parent.name for path in CONFIGS} - OWN_PROGRAMS == set(cohorts.COHORTS)


def test_gradicon_has_one_protocol_for_all_anatomies() -> None:
    """One weight, one similarity, one optimiser, one rate; the number of points differs with the number of axes."""
    found = set()
    for path in (path for path in CONFIGS if path.parent.parent.name == "gradicon"):
        training = read_training(path)
        terms = [replace(t, every=1) if isinstance(t, GradientInverseConsistency) else t for t in training.model.loss]
        if path.stem not in OTHER_LOSS:
            found.add((repr(terms), repr(training.scheme), training.model.directions))
    assert len(found) == 1


def test_hippocampus_is_split_by_sorted_name(cohorts, tmp_path: Path) -> None:
    folder = tmp_path / "hippocampus_msd" / "images"
    folder.mkdir(parents=True)
    names = [f"hippocampus_{number:03d}" for number in range(1, 202)]
    for name in reversed(names):
        (folder / f"{name}.nii.gz").touch()
    cohort = cohorts.COHORTS["hippocampus"](tmp_path, tmp_path / "made")
    rows = cohort.rows[1:]
    assert [row[0] for row in rows] == names
    assert Counter(row[3] for row in rows) == {"test": 40, "validation": 21, "train": 140}
    assert [row[3] for row in rows[:40]] == ["test"] * 40
    assert [row[3] for row in rows[40:61]] == ["validation"] * 21
    assert [pair.name for pair in cohort.test["test pairs"]] == [f"{names[k]} {names[k + 1]}" for k in range(0, 40, 2)]
    learned = {row[1] for row in rows if row[3] != "test"}
    assert not learned & {str(image) for pair in cohort.test["test pairs"] for image in (pair.fixed, pair.moving)}


def test_the_third_heart_is_not_learned_from(cohorts, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / "cardiac_sunnybrook" / name / "cine").mkdir(parents=True)
        (tmp_path / "cardiac_sunnybrook" / name / "es.nii.gz").touch()
        for frame in range(20):
            (tmp_path / "cardiac_sunnybrook" / name / "cine" / f"frame{frame:02d}.nii.gz").touch()
    cohort = cohorts.COHORTS["cardiac"](tmp_path, tmp_path / "made")
    assert {row[2] for row in cohort.rows[1:]} == {"a", "b"}
    assert [pair.name for pair in cohort.test["test pair"]] == ["c"]


def test_missing_images_are_told(cohorts, tmp_path: Path) -> None:
    (tmp_path / "brain2d_oasis").mkdir()
    with pytest.raises(BadInput, match=r"brain2d_oasis: holds 0 of \*\.nii\.gz, expected 100"):
        cohorts.COHORTS["oasis2d"](tmp_path, tmp_path / "made")


@pytest.mark.usefixtures("cohorts")
def test_a_moved_volume_holds_what_was_there_elsewhere(tmp_path: Path) -> None:
    grid = Grid.regular((30, 26, 28), (1.0, 1.0, 1.0))
    labels = torch.zeros(1, 30, 26, 28, dtype=torch.uint8)
    labels[0, 8:14, 12:17, 15:20] = 1
    files = tmp_path / "one.nii.gz", tmp_path / "one_labels.nii.gz"
    write_image(files[0], Image(labels.float() * 100, grid))
    write_image(files[1], Image(labels, grid))
    module = sys.modules["moved_volumes"]
    still = module.write_padded(*files, tmp_path / "made")
    moved = module.write_padded(*files, tmp_path / "made", 3)
    assert torch.equal(read_labels(still[1]).data[:, 10:40, 10:36, 10:38], labels.to(torch.int32))
    assert float(read_scalar(still[0]).data.sum()) == 100 * int(labels.sum())
    there = [centroid(read_labels(path)) for path in (still[1], moved[1])]
    motion = module.motion(read_scalar(files[0]), 3)
    where = motion(torch.from_numpy(there[1])[None])[0].numpy()
    assert np.abs(where - there[0]).max() < 0.15
    assert np.abs(there[1] - there[0]).max() > 1
    assert int((read_labels(moved[1]).data > 0).sum()) == pytest.approx(int(labels.sum()), rel=0.1)


def centroid(image: Image) -> np.ndarray:
    at = torch.nonzero(image.data[0] > 0).double().mean(0)
    return image.grid.to_world(at[None])[0].numpy()


def test_vessel_maps_are_warped_without_a_jump(cohorts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["vessel_maps"]
    monkeypatch.setattr(module, "SIDE", 24)
    monkeypatch.setattr(module, "WARPS", dict.fromkeys(module.WARPS, 1))
    picture = np.zeros((120, 130), np.uint8)
    picture[:, 60:70] = 255
    (tmp_path / "retina_chase").mkdir()
    for number in range(20):
        sitk.WriteImage(sitk.GetImageFromArray(picture), str(tmp_path / "retina_chase" / f"{number:02d}_1stHO.png"))
    cohort = cohorts.COHORTS["vessels"](tmp_path, tmp_path / "made")
    assert Counter(row[-1] for row in cohort.rows[1:]) == {"train": 14, "validation": 2, "test": 4}
    pair = cohort.test["test pairs"][0]
    fixed, moving = read_scalar(pair.fixed), read_scalar(pair.moving)
    assert fixed.grid.shape == moving.grid.shape == (24, 24)
    assert float(moving.data.min()) < 0.4
    assert float(moving.data.max()) == pytest.approx(1)
    assert torch.unique(read_labels(pair.fixed_labels).data).tolist() == [0, 1]
    columns = (1 - fixed.data[0]).argmax(1).float()  # where the vessel is, row by row
    assert float((columns - 12).abs().max()) >= 1
    assert float(columns.diff().abs().max()) <= 2
    before = [path.stat().st_mtime_ns for path in (pair.fixed, pair.moving)]
    cohorts.COHORTS["vessels"](tmp_path, tmp_path / "made")
    assert [path.stat().st_mtime_ns for path in (pair.fixed, pair.moving)] == before


def test_a_table_is_printed_and_drawn(cohorts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = files("warpwright.data.pairs") / "hippocampus"
    sides = [Path(str(folder / f"{kind}_{number}.nii.gz")) for kind in ("image", "labels") for number in (130, 132)]
    named = dict(zip(("fixed", "moving", "fixed_labels", "moving_labels"), sides, strict=True))
    pair = cohorts.TestPair(name="130 132", **named, labels=(1, 2))
    run = importlib.import_module("run")
    run.report(cohorts.Cohort(rows=[], test={"two people": [pair]}), tmp_path, {}, run.Asked())
    lying, classical = json.loads((tmp_path / "results.json").read_text())["tables"]["two people"]["rows"]
    assert classical["dice"][0] > lying["dice"][0] + 0.1
    assert lying["inconsistency"] == [0.0]
    assert 0.001 < classical["inconsistency"][0] < 4
    assert classical["folds"] == [0.0]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in printed[4:]] == ["| as it lies", "| classical, defaults"]
    assert (tmp_path / "results.png").stat().st_size > 5000


def test_models_that_are_given_are_scored_and_the_time_of_their_searches_is_split(
    cohorts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features that nothing was learned by, of the right kind."""
    preparation = Preparation(spacing=(2.0, 2.0, 2.0), start="box")
    network = Implicit(features=FeatureUNetEncoder(outputs=2, scales=(2, 1), widths=0.25), steps=(2, 1))
    write_model(tmp_path / "m", Model(ModelSettings(network=network, layers=(), preparation=preparation)), card="", summary={})
    sides = {"fixed": BRAIN / "image_130.nii.gz", "moving": BRAIN / "image_132.nii.gz"}
    pair = cohorts.TestPair(name="130 132", **sides)
    run = importlib.import_module("run")
    monkeypatch.setitem(run.COHORTS, "hippocampus", lambda *_: cohorts.Cohort(rows=[], test={"two people": [pair]}))
    monkeypatch.setattr(run, "classical", lambda _: sys.modules["scoring"].nothing)
    given = ["run.py", "hippocampus", "--data", "DATA", "--output", str(tmp_path), "--threads", "1", "--only", "none"]
    more = ["--transforms", "affine", "--intensities", "0.5", "--models", f"seen={tmp_path / 'm'}"]
    monkeypatch.setattr(sys, "argv", [*given, *more])
    assert run.main() == 0
    found = json.loads((tmp_path / "hippocampus" / "results.json").read_text())["tables"]["two people"]["rows"]
    monkeypatch.setattr(run, "score", None)  # rows that are there are not scored again
    assert run.main() == 0
    assert json.loads((tmp_path / "hippocampus" / "results.json").read_text())["tables"]["two people"]["rows"] == found
    ways = ["seen", "seen, affine", "seen, intensities 0.5"]
    assert [row["name"] for row in found] == ["as it lies", "classical, defaults", *ways]
    assert found[2]["similarity"][0] > found[4]["similarity"][0] + 0.001
    (stages,) = found[2]["stages"]
    assert list(stages) == ["features", "displacement 1/2", "displacement 1/1", "map"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[-4:-3] == ["|---|---|---|---|---|"]
    name, *seconds = printed[-3].strip("| ").split(" | ")
    steps = stages["displacement 1/2"] + stages["displacement 1/1"]
    expected = (stages["features"], steps, stages["map"], found[2]["seconds"][0])
    assert (name, seconds) == ("seen", [f"{value:.3f}" for value in expected])
    for words, sentence in (
        (["seen"], "--models: expected NAME=FOLDER, got 'seen'"),
        ([f"seen={tmp_path / 'm'}"] * 2, "--models: there is a model seen already, expected another name for"),
        ([f"unsupervised={tmp_path / 'm'}"], "--models: there is a model unsupervised already"),
    ):
        monkeypatch.setattr(sys, "argv", [*given[:-1], "unsupervised", "--models", *words])
        assert run.main() == 2
        assert sentence in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*given, "--intensities", "0"])
    assert run.main() == 2
    assert "the weight of intensities must be above 0 and finite, got 0.0" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*given[:-1], "with_labels", "none"])
    assert run.main() == 2
    assert "--only: 'none' stands beside other names, expected it alone" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*given[:-1], "with_labels", "unsupervized"])
    assert run.main() == 2
    assert "--only: there is no 'unsupervized' in hippocampus, did you mean 'unsupervised'?" in capsys.readouterr().err


def test_every_seed_has_a_row_and_so_has_their_mean(
    cohorts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = importlib.import_module("run")
    names = [f"{kind}_{number}.nii.gz" for kind in ("image", "labels") for number in (130, 132)]
    pairs = [
        cohorts.TestPair(name=name, **dict(zip(sides, (BRAIN / file for file in names), strict=True)), labels=(1, 2))
        for name, sides in (
            ("there", ("fixed", "moving", "fixed_labels", "moving_labels")),
            ("back", ("moving", "fixed", "moving_labels", "fixed_labels")),
        )
    ]
    begun: list[tuple[str, int]] = []

    def trained(settings: Training, folder: Path, _: str) -> bool:
        begun.append((folder.name, settings.seed))
        preparation = Preparation(spacing=(2.0, 2.0, 2.0), start="box")
        network = Implicit(features=FeatureUNetEncoder(outputs=2, scales=(2, 1), widths=0.25), steps=(2, 1))
        torch.manual_seed(settings.seed)
        model = Model(ModelSettings(network=network, layers=(), preparation=preparation))
        write_model(folder / "model", model, card="", summary={})
        return True

    monkeypatch.setattr(run, "trained", trained)
    monkeypatch.setattr(run, "classical", lambda _: sys.modules["scoring"].nothing)
    monkeypatch.setitem(run.COHORTS, "hippocampus", lambda *_: cohorts.Cohort(rows=[], test={"two people": pairs}))
    given = ["run.py", "hippocampus", "--data", "DATA", "--output", str(tmp_path), "--threads", "1", "--only", "unsupervised"]
    monkeypatch.setattr(sys, "argv", [*given, "--seeds", "0", "2", "--transforms", "affine"])
    assert run.main() == 0
    assert begun == [("unsupervised", 0), ("unsupervised-seed2", 2)]
    _, _, *rows = json.loads((tmp_path / "hippocampus" / "results.json").read_text())["tables"]["two people"]["rows"]
    assert [row["name"] for row in rows] == [
        *("unsupervised", "unsupervised, seed 2", "unsupervised, mean of seeds"),
        *("unsupervised, affine", "unsupervised, seed 2, affine", "unsupervised, affine, mean of seeds"),
    ]
    for first, second, mean in (rows[:3], rows[3:]):
        assert first["dice"] != second["dice"]
        for figure in ("dice", "hd95", "folds", "similarity", "inconsistency"):
            assert mean[figure] == pytest.approx([(a + b) / 2 for a, b in zip(first[figure], second[figure], strict=True)])
    assert len(rows[2]["dice"]) == 2  # pairs
    said = capsys.readouterr().out
    assert "\n| unsupervised, mean of seeds | " in said
    assert said.count("mean of seeds") == 2  # and none in the table of times


@pytest.mark.usefixtures("cohorts")
def test_a_training_goes_on_from_another_of_its_own_seed(tmp_path: Path) -> None:
    config = ROOT / "gradicon" / "hippocampus" / "stage_2.toml"
    runs = importlib.import_module("runs")
    for seed, name in ((0, "stage_1"), (2, "stage_1-seed2")):
        settings = runs.settings_of(config, tmp_path, seed)
        assert (settings.seed, settings.weights) == (seed, tmp_path / name / "model")


@pytest.mark.usefixtures("cohorts")
@pytest.mark.parametrize("kind", ["gradicon", "icon", "bending", "diffusion"])
def test_shapes_are_trained_once_and_drawn(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "gradicon"))
    shapes = importlib.import_module("shapes")
    monkeypatch.setattr(shapes, "IMAGES", 400)
    small = shapes.Run(kind=kind, weight=0.1, size=16, sigma=1.0, batch=2, steps=shapes.WINDOW, scale=0.125)
    part = "figure3" if kind == "gradicon" else "anchor"
    monkeypatch.setattr(shapes, "PARTS", {part: [small]})
    monkeypatch.setattr(sys, "argv", ["shapes.py", part, "--output", str(tmp_path), "--threads", "1"])
    shapes.main()
    table = capsys.readouterr().out
    assert table.splitlines()[2].startswith(f"| {kind}, 0.1, seed 0 |")
    found = json.loads((tmp_path / f"{small.name}.json").read_text())
    assert len(found["rows"]) == shapes.WINDOW
    assert found["floor"] < found["base"]
    assert (tmp_path / f"{part}.png").exists()
    monkeypatch.setattr(shapes, "trained", None)  # a run that is there is not repeated
    shapes.main()
    assert capsys.readouterr().out == table


@pytest.mark.usefixtures("cohorts")
@pytest.mark.parametrize(("amplitude", "expected"), [(0.05, 0), (0.2, 969), (0.3, 1291)])
def test_cells_that_turn_over_are_counted(amplitude: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of the authors' code (spec, section 7)."""
    monkeypatch.syspath_prepend(str(ROOT / "gradicon"))
    shapes = importlib.import_module("shapes")
    at = torch.stack(torch.meshgrid(*(torch.linspace(0, 1, n, dtype=torch.float64) for n in (48, 64)), indexing="ij"))
    sines, cosines = (2 * torch.pi * at).sin(), (2 * torch.pi * at).cos()
    moved = amplitude * sines * cosines.flip(0) * torch.tensor([47.0, 63.0])[:, None, None]
    assert shapes.turned(moved[None]) * 48 * 64 == pytest.approx(expected)


def test_shifted_volumes_show_the_same_place_in_the_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    shifts = importlib.import_module("shifts")
    image, labels = (BRAIN / name for name in ("image_130.nii.gz", "labels_130.nii.gz"))
    places = [labels_centre(labels)]
    for title in shifts.SHIFTS:
        for side in (0, 1):
            found = shifts.write_shifted(image, labels, tmp_path, title, side)
            assert found == shifts.write_shifted(image, labels, tmp_path, title, side)  # nothing is drawn anew
            volume = read_scalar(found[0])
            assert volume.grid.same_as(read_labels(found[1]).grid)
            if "zeros" in title:
                cropped = "cropped" in title
                assert volume.grid.shape == (shifts.SIZE if cropped else tuple(n + 20 for n in read_scalar(image).grid.shape))
                inner = tuple(slice(None) if cropped else slice(10, -10) for _ in volume.grid.shape)
                assert float(volume.data[(0, *inner)].double().sum()) == float(volume.data.double().sum())
            places.append(labels_centre(found[1]))
    assert torch.stack(places).std(0).max() < 0.5  # mm
    spacings = {read_scalar(path).grid.spacing for path in tmp_path.glob("*-[01].nii.gz")}
    assert {tuple(round(s, 3) for s in spacing) for spacing in spacings} == {(1, 1, 1), (1, 1, 3), (2, 2, 2)}
    assert read_training(ROOT / "dio" / "shifts" / "unetencoder.toml").model.preparation.shape == shifts.SIZE
    one, two = (shifts.write_rendered(labels, tmp_path, number) for number in (0, 1))
    assert not torch.equal(read_scalar(one).data, read_scalar(two).data)
    sys.modules.pop("shifts", None)


BRAIN = Path(str(files("warpwright.data") / "pairs/hippocampus"))


def labels_centre(path: Path) -> torch.Tensor:
    labels = read_labels(path)
    return labels.grid.to_world((labels.data[0] > 0).nonzero().double()).mean(0)


def test_squares_overlap_or_lie_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    squares = importlib.import_module("square_images")
    for overlap in (1.0, 0.0):
        for number in range(4):
            paths = squares.write_squares(f"{overlap}-{number}", tmp_path, overlap)
            fixed, moving = (read_labels(path).data > 0 for path in paths[2:])
            assert int(fixed.sum()) == int(moving.sum()) == squares.SIDE**2
            assert bool((fixed & moving).any()) == bool(overlap)
    sys.modules.pop("square_images", None)
