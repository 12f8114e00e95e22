"""A run in one process: what it leaves behind, which model it keeps, how it fails."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from PIL import Image as Picture
from safetensors.torch import load_file

from oracles.cohort import at, lines, rich, stopping, stream_of, tiny, tree, write_cohort
from warpwright.config import from_mapping
from warpwright.data import Augmentation, Cases, Data, read_cohort
from warpwright.energies.losses import Images, InverseConsistency, LandmarkDistance, Overlap, Smoothness
from warpwright.energies.similarity import LNCC, MSE
from warpwright.errors import BadInput, Failed
from warpwright.evaluation import dice, mean_over_labels
from warpwright.layers import FullSize, KernelPenalty, KernelSmoothing
from warpwright.methods import Implicit, Model, Pyramid, Told
from warpwright.networks import VoxelMorph
from warpwright.networks.features import FeatureUNetEncoder
from warpwright.networks.layers import Block
from warpwright.networks.scoring import VoxelMap
from warpwright.product.model_folder import read_model
from warpwright.sampling import warp_labels
from warpwright.schemes import SGD, Adam, AdaptiveScoring, Constant, Plain
from warpwright.schemes.plain import PlainScheme
from warpwright.training import Training, Validation, run, train, trial
from warpwright.training.checkpoint import read_checkpoint
from warpwright.training.processes import LostProcess
from warpwright.training.stream import prepared
from warpwright.training.validate import deciding, validate
from warpwright.transforms import Preparation


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Tables of images with labels and landmarks, by number of axes."""
    return {dim: write_cohort(tmp_path_factory.mktemp(f"cohort{dim}"), dim, points=True) for dim in (2, 3)}


def sentence_of(error: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_model(training: Training, **changes: Any) -> Training:
    return replace(training, model=replace(training.model, **changes))


# ---- what a run leaves behind


@pytest.fixture(scope="module", params=(2, 3), ids=("2d", "3d"))
def finished(request: pytest.FixtureRequest, tables, tmp_path_factory) -> tuple[Training, Path]:
    """A run of four steps with everything in its loss, that is looked at after every other step."""
    dim = request.param
    plain = tiny(tables[dim], dim, validation=Validation(every=2, by="dice"), log_every=1, tensorboard=True)
    loss = (*plain.model.loss, Overlap(labels=(1, 2)), LandmarkDistance(weight=0.01, threshold=3.0), InverseConsistency())
    training = replace(plain, model=replace(plain.model, loss=loss))
    output = tmp_path_factory.mktemp("finished") / "deep" / "run"
    outcome = train(training, output)
    assert (outcome.step, outcome.finished) == (4, True)
    assert outcome.best == ("dice", max(row["dice"] for row in lines(output) if row["kind"] == "validation"))
    return training, output


def test_files_that_are_left(finished):
    _, output = finished
    found = {name for name in tree(output) if not name.startswith("tensorboard/")}
    model = {f"model/{name}" for name in ("README.md", "model.json", "weights.safetensors")}
    pictures = {"pictures/0000002.png", "pictures/0000004.png"}
    assert found == {"training.json", "metrics.jsonl", "checkpoint.safetensors", *model, *pictures}
    assert not list(output.rglob(".*"))


def test_kernels_are_watched_and_drawn(tables, tmp_path: Path) -> None:
    """Their penalty is in the loss, their figures stand beside those of the validation, two of them are told apart."""
    plain = tiny(tables[2], 2, validation=Validation(every=2), log_every=1)
    layers = (*2 * (KernelSmoothing(form="free", taps=3, penalty=KernelPenalty()),), *plain.model.layers)
    train(with_model(plain, layers=layers), tmp_path / "run")
    rows = lines(tmp_path / "run")
    assert all(row["kernel"] >= 0 for row in rows if row["kind"] == "train")
    assert rows[1]["kernel"] > 0  # the first kernels are as they should be, those after a step are not
    found = [row for row in rows if row["kind"] == "validation"]
    assert all(row["kernel_sum"] == pytest.approx(1) == row["2_kernel_sum"] for row in found)
    assert found[0]["kernel_asymmetry"] > 0
    assert {p.name for p in (tmp_path / "run" / "pictures").iterdir()} == {
        f"000000{step}{kind}.png" for step in (2, 4) for kind in ("", "-kernels")
    }
    with Picture.open(tmp_path / "run" / "pictures" / "0000004-kernels.png") as picture:
        assert picture.format == "PNG"
        assert picture.height > picture.width  # a row for each of four kernels


def test_kernels_are_watched_without_validation_pairs(tables, tmp_path: Path) -> None:
    table = tables[2].with_name("unwatched.csv")
    table.write_text("".join(row for row in tables[2].read_text().splitlines(keepends=True) if "validation" not in row))
    plain = tiny(table, 2, log_every=2)
    layers = (KernelSmoothing(taps=3), *plain.model.layers)
    train(with_model(plain, layers=layers), tmp_path / "run")
    rows = lines(tmp_path / "run")
    assert [row["kind"] for row in rows] == ["train"] * 2
    assert all(row["kernel_sum"] == pytest.approx(1) and row["kernel_width"] > 0 for row in rows)
    assert [p.name for p in (tmp_path / "run" / "pictures").iterdir()] == ["0000004-kernels.png"]


def test_settings_that_are_left(finished):
    training, output = finished
    assert from_mapping(Training, json.loads((output / "training.json").read_text())) == training


def test_metrics(finished):
    training, output = finished
    rows = lines(output)
    assert [(row["kind"], row["step"]) for row in rows] == [
        ("train", 1),
        ("train", 2),
        ("validation", 2),
        ("train", 3),
        ("train", 4),
        ("validation", 4),
    ]
    terms = {"similarity": 1.0, "smoothness": 0.1, "overlap": 1.0, "landmarks": 0.01, "inverse": 1.0}
    for row in rows:
        assert all(math.isfinite(value) for name, value in row.items() if name != "kind")
        if row["kind"] == "train":
            assert set(row) == {"step", "kind", "loss", "gradient", "rate", *terms}
            assert row["loss"] == pytest.approx(sum(weight * row[name] for name, weight in terms.items()), rel=1e-5)
            assert row["rate"] == training.scheme.optimiser.rate
        else:
            assert set(row) == {"step", "kind", "loss", "folded_percent", "dice", "tre"}
            assert 0 < row["dice"] < 1


def test_the_model_is_the_one_of_the_best_validation_and_scores_what_the_card_says(finished):
    training, output = finished
    best = max((row for row in lines(output) if row["kind"] == "validation"), key=lambda row: row["dice"])
    found = read_model(output / "model")
    assert found.summary["step"] == best["step"]
    assert found.summary["validation"] == {key: value for key, value in best.items() if key not in ("step", "kind")}
    assert f"| dice | {best['dice']:.4f} |" in (output / "model" / "README.md").read_text()
    cohort = read_cohort(training.data)
    (pair,) = cohort.listed("validation")
    batch = prepared(pair, Cases(training.data), training.model)
    assert batch.fixed_labels is not None
    assert batch.moving_labels is not None
    with torch.no_grad():
        field = found.model(batch.fixed, batch.moving).displacement
    assert mean_over_labels(dice(batch.fixed_labels, warp_labels(batch.moving_labels, field))) == best["dice"]


def test_a_checkpoint_holds_the_weights_of_the_end(finished):
    _, output = finished
    found = read_checkpoint(output / "checkpoint.safetensors")
    assert (found.step, found.processes, list(found.recent)) == (4, 1, [])
    last = lines(output)[-1]
    weights = load_file(output / "model" / "weights.safetensors")
    same = all(torch.equal(found.state[f"model.{name}"], value) for name, value in weights.items())
    assert same == (read_model(output / "model").summary["step"] == last["step"])
    assert {name.split(".")[-1] for name in found.state if name.startswith("optimiser.")} == {"step", "exp_avg", "exp_avg_sq"}


def test_tensorboard_has_the_figures_of_the_log(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, output = finished
    board = EventAccumulator(str(output / "tensorboard"))
    board.Reload()
    for row in lines(output):
        for name in set(row) - {"step", "kind"}:
            seen = {scalar.step: scalar.value for scalar in board.Scalars(f"{row['kind']}/{name}")}
            assert seen[row["step"]] == pytest.approx(row[name], rel=1e-6, abs=1e-30)


def test_the_same_training_gives_the_same_bytes_and_another_seed_others(tables, tmp_path):
    training = tiny(tables[2], 2)
    for name in "ab":
        train(training, tmp_path / name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    torch.manual_seed(9)  # not what a run depends on
    before = torch.get_rng_state()
    train(replace(training, seed=1), tmp_path / "c")
    assert torch.equal(torch.get_rng_state(), before)
    assert lines(tmp_path / "c")[0]["loss"] != lines(tmp_path / "a")[0]["loss"]


def test_one_pair_is_learnt(tables, tmp_path, dim):
    table = tables[dim].with_name("pair.csv")
    table.write_text("id,fixed,moving\nthe pair,image_0.nii.gz,image_1.nii.gz\n")
    scheme = Plain(optimiser=Adam(rate=1e-2), schedule=Constant())
    plain = tiny(table, dim, scheme=scheme, steps=30, log_every=1, checkpoint_every=30)
    train(replace(plain, data=Data(manifest=table, pairing="paired")), tmp_path / "run")
    losses = [row["loss"] for row in lines(tmp_path / "run")]
    assert losses[-1] < 0.6 * losses[0]


# ---- which model is kept


def scripted(monkeypatch: pytest.MonkeyPatch, figures: list[dict[str, float]]) -> None:
    """Validations that find what the test wants, and no pictures."""
    coming = iter(figures)
    monkeypatch.setattr(run, "validate", lambda *_: next(coming))
    monkeypatch.setattr(run, "draw_sample", lambda *_: None)


NAN = math.nan


@pytest.mark.parametrize(
    ("by", "figures", "step", "best"),
    [
        ("auto", [{"dice": 0.3, "loss": 1.0}, {"dice": 0.6, "loss": 3.0}, {"dice": 0.5, "loss": 0.1}], 2, ("dice", 0.6)),
        ("dice", [{"dice": 0.6}, {"dice": 0.6}, {"dice": 0.6}], 1, ("dice", 0.6)),
        ("tre", [{"tre": 3.0, "dice": 0.1}, {"tre": 4.0, "dice": 0.9}, {"tre": 2.0, "dice": 0.1}], 3, ("tre", 2.0)),
        ("loss", [{"loss": -1.0}, {"loss": -3.0}, {"loss": -2.0}], 2, ("loss", -3.0)),
        ("dice", [{"dice": NAN}, {"dice": 0.2}, {"dice": NAN}], 2, ("dice", 0.2)),
        ("dice", [{"dice": NAN}, {"loss": 0.2}, {"dice": NAN}], 3, None),
    ],
)
def test_the_best_model_is_chosen_by_the_figure_that_was_asked_for(by, figures, step, best, tables, tmp_path, monkeypatch):
    scripted(monkeypatch, figures)
    training = tiny(tables[2], 2, steps=3, validation=Validation(every=1, by=by), checkpoint_every=1)
    assert train(training, tmp_path / "run").best == best
    assert read_model(tmp_path / "run" / "model").summary["step"] == step


def test_the_best_figure_is_remembered_by_a_run_that_goes_on(tables, tmp_path, monkeypatch):
    scripted(monkeypatch, [{"dice": 0.5}, {"dice": 0.4}, {"dice": 0.45}])
    training = tiny(tables[2], 2, steps=3, validation=Validation(every=1), checkpoint_every=1, log_every=1)
    assert not train(training, tmp_path / "run", listen=at("validation", 1, stopping)).finished
    assert train(training, tmp_path / "run", resume=True).best == ("dice", 0.5)
    assert read_model(tmp_path / "run" / "model").summary["step"] == 1
    again = train(training, tmp_path / "run", resume=True)  # nothing is left to do
    assert (again.step, again.finished, again.best) == (3, True, ("dice", 0.5))


def test_auto_takes_what_the_files_allow(tmp_path):
    data = {}
    for name, what in {"both": (True, True), "points": (False, True), "none": (False, False)}.items():
        (tmp_path / name).mkdir()
        data[name] = Data(manifest=write_cohort(tmp_path / name, 2, labels=what[0], points=what[1]), space="ras")
    pairs = {name: read_cohort(one).listed("validation") for name, one in data.items()}
    assert [deciding("auto", pairs[name]) for name in ("both", "points", "none")] == ["dice", "tre", "loss"]
    assert deciding("auto", ()) == "loss"
    assert deciding("tre", pairs["both"]) == "tre"
    for by, name in (("dice", "points"), ("tre", "none")):
        assert f"validation.by = '{by}'" in sentence_of(BadInput, lambda by=by, name=name: deciding(by, pairs[name]))
    training = tiny(tmp_path / "none" / "table.csv", 2, validation=Validation(by="dice"))
    assert "labels of both images" in sentence_of(BadInput, lambda: train(training, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_without_validation_the_last_weights_are_kept(tmp_path):
    table = write_cohort(tmp_path, 2, labels=False)
    table.unlink()
    training = replace(tiny(table, 2), data=Data(images=tmp_path))
    tmp_path = tmp_path / "out"
    outcome = train(training, tmp_path / "run")
    assert (outcome.finished, outcome.best) == (True, None)
    state = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors").state
    own = read_model(tmp_path / "run" / "model").model.state_dict()
    assert all(torch.equal(state[f"model.{name}"], value) for name, value in own.items())
    assert "no validation pairs" in (tmp_path / "run" / "model" / "README.md").read_text()
    assert not (tmp_path / "run" / "pictures").exists()


def test_a_loss_of_labels_needs_them_of_training_images_alone(tmp_path):
    table = write_cohort(tmp_path, 2)
    for number in (4, 5):
        table.write_text(table.read_text().replace(f"labels_{number}.nii.gz", ""))
    training = with_model(tiny(table, 2, steps=1), loss=(Overlap(labels=(1, 2)),))
    assert train(training, tmp_path / "run").best is None  # no figure could choose
    (row,) = [row for row in lines(tmp_path / "run") if row["kind"] == "validation"]
    assert set(row) == {"step", "kind", "folded_percent"}
    assert read_model(tmp_path / "run" / "model").summary["step"] == 1
    for number in (1, 3):
        table.write_text(table.read_text().replace(f"labels_{number}.nii.gz", ""))
    sentence = sentence_of(BadInput, lambda: train(training, tmp_path / "other"))
    assert "an overlap loss needs label maps" in sentence
    assert sentence.endswith("none of case1, case3")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("told", "batch", "expected"),
    [
        (Told(labels=(1,)), 1, "model.network.told needs label maps of all training images, there are none of case1, case3"),
        (Told(points=True), 1, "model.network.told needs points of all training images, there are none of case2"),
        (Told(points=True), 2, "tells landmarks of one pair at a time, expected batch = 1, got 2"),
    ],
)
def test_what_a_solve_is_told_is_looked_for_before_training(tmp_path, told, batch, expected):
    table = write_cohort(tmp_path, 2, points=True)
    if batch == 1:
        for name in ("labels_1.nii.gz", "labels_3.nii.gz", "points_2.csv"):
            table.write_text(table.read_text().replace(name, ""))
    network = Implicit(features=FeatureUNetEncoder(outputs=4, scales=(1,), widths=0.25), steps=(2,), told=told)
    preparation = Preparation(spacing=(1.0, 1.3), shape=(12, 14))
    training = with_model(tiny(table, 2, batch=batch), network=network, layers=(), preparation=preparation)
    sentence = sentence_of(BadInput, lambda: train(training, tmp_path / "run"))
    assert expected in sentence
    assert not (tmp_path / "run").exists()


def test_a_solve_that_is_told_trains_in_both_directions_and_twice_alike(tables, tmp_path):
    features = FeatureUNetEncoder(outputs=4, scales=(1,), widths=0.25)
    network = Implicit(features=features, steps=(2,), told=Told(labels=(1, 2), points=True, chance=0.5))
    preparation, loss = Preparation(spacing=(1.0, 1.3), shape=(12, 14)), (Overlap(labels=(1, 2)),)
    changes = {"network": network, "layers": (), "preparation": preparation, "loss": loss, "directions": "both"}
    training = with_model(tiny(tables[2], 2, accumulate=2), **changes)
    for name in ("one", "two"):
        train(training, tmp_path / name)
    one, two = (lines(tmp_path / name) for name in ("one", "two"))
    assert one == two
    untold = with_model(training, network=replace(network, told=None))
    train(untold, tmp_path / "untold")
    assert lines(tmp_path / "untold") != one


@pytest.mark.parametrize("which", ["implicit", "pyramid"])
def test_layers_that_would_do_nothing_are_refused(tables, tmp_path, which):
    features = FeatureUNetEncoder(outputs=4, scales=(1,), widths=0.25)
    network = Implicit(features=features, steps=(2,)) if which == "implicit" else Pyramid()
    training = with_model(tiny(tables[2], 2), network=network, layers=(KernelSmoothing(taps=3), FullSize()))
    sentence = sentence_of(BadInput, lambda: train(training, tmp_path / "run"))
    assert sentence == f"model.layers have no part in a network of the kind {which}: expected layers = [] in [model]"
    assert not (tmp_path / "run").exists()


def test_a_figure_that_a_pair_has_nothing_for_is_left_out(tables):
    training = tiny(tables[2], 2)
    model = Model(replace(training.model, loss=(Overlap(labels=(1, 2)),)))
    cohort, cases = read_cohort(training.data), Cases(training.data)
    batch = prepared(cohort.listed("validation")[0], cases, training.model)
    bare = replace(batch, fixed_labels=None, moving_labels=None, fixed_points=None, moving_points=None)
    assert set(validate(model, [bare])) == {"folded_percent"}
    empty = replace(bare, fixed_labels=torch.zeros(1, 1, 12, 14).int(), moving_labels=torch.zeros(1, 1, 12, 14).int())
    assert set(validate(model, [empty])) == {"loss", "folded_percent"}
    found, whole = validate(model, [bare, empty, batch]), validate(model, [batch])
    assert (found["dice"], found["tre"]) == (whole["dice"], whole["tre"])


def test_a_loss_that_wants_both_directions_is_validated_with_both(tables, tmp_path):
    """A network that gives no inverse is asked for the swapped pair too, in training and in validation."""
    plain = tiny(tables[2], 2, steps=1)
    network = VoxelMorph(form="vm1", half_resolution=True, field="displacement", scale=0.25)
    loss = (Images(similarity=LNCC(radius=1)), Smoothness(), InverseConsistency())
    training = replace(plain, model=replace(plain.model, network=network, layers=(FullSize(),), loss=loss))
    train(training, tmp_path / "run")
    assert {row["kind"] for row in lines(tmp_path / "run")} == {"train", "validation"}


def test_validation_leaves_the_model_as_it_was(tables):
    training = rich(tables[2], 2)
    model = Model(training.model)
    model.train()
    (pair,) = read_cohort(training.data).listed("validation")
    batch = prepared(pair, Cases(training.data), training.model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    one, two = validate(model, [batch]), validate(model, [batch, batch])
    assert one == pytest.approx(two, rel=1e-6)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


# ---- what goes wrong


def test_a_failure_that_says_what_would_help_gets_no_other_advice(tables, tmp_path, monkeypatch):
    def failing(error: Exception) -> str:
        def step(*_: object) -> NoReturn:
            raise error

        monkeypatch.setattr(PlainScheme, "step", step)
        return sentence_of(Failed, lambda: train(tiny(tables[2], 2), tmp_path / "run"))

    sentence = failing(Failed("the score has collapsed: expected a larger alpha"))
    assert sentence.startswith("step 1: the score has collapsed: expected a larger alpha (pairs ")
    assert sentence.endswith("with these settings --resume comes to the same, a new run with others is needed")
    assert failing(LostProcess("another process has ended")) == "another process has ended"  # --resume may well help


def test_a_loss_that_is_no_number_stops_with_step_pairs_and_checkpoint(tables, tmp_path):
    training = tiny(
        tables[2], 2, scheme=Plain(optimiser=SGD(rate=1e6), schedule=Constant()), steps=9, checkpoint_every=1, batch=2
    )
    sentence = sentence_of(Failed, lambda: train(training, tmp_path / "run"))
    step = int(sentence.split(":")[0].removeprefix("step "))
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    stream = stream_of(training)
    assert f"(pairs {stream.pair(2 * step - 2).names[0]}, {stream.pair(2 * step - 1).names[0]})" in sentence
    assert f"the last good checkpoint is {checkpoint}; " in sentence
    assert sentence.endswith("expected a new run with others, say a smaller scheme.optimiser.rate or scheme.clip")
    found = read_checkpoint(checkpoint)
    assert found.step == step - 1
    assert all(bool(value.isfinite().all()) for value in found.state.values())


def test_after_a_failure_a_new_run_can_begin_with_the_best_model(tables, tmp_path, monkeypatch):
    """Where there is one; to go on gives the same sentence again. Here weights are finite still, and too large for a field."""
    monkeypatch.setattr(run, "draw_sample", lambda *_: None)
    scheme = Plain(optimiser=SGD(rate=1e6), schedule=Constant())
    training = tiny(tables[2], 2, scheme=scheme, steps=9, checkpoint_every=1, validation=Validation(every=1))
    sentence = sentence_of(Failed, lambda: train(training, tmp_path / "run"))
    assert sentence.startswith("step 2: the displacement of the validation pair case4~case5 holds NaN or inf (pairs ")
    assert sentence_of(Failed, lambda: train(training, tmp_path / "run", resume=True)) == sentence
    model = tmp_path / "run" / "model"
    assert sentence.endswith(f'or scheme.clip, which can begin with weights = "{model}"')
    calm = Plain(optimiser=SGD(rate=1e-30), schedule=Constant())
    assert train(replace(training, scheme=calm, weights=model, steps=1), tmp_path / "new").finished
    weights = [load_file(path / "weights.safetensors") for path in (model, tmp_path / "new" / "model")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ("changes", "step", "before"),
    [
        ({"validation": Validation(every=1), "checkpoint_every": 1}, 4, 3),  # both are due, of the last step
        ({"validation": Validation(every=3), "checkpoint_every": 100}, 3, None),
        ({"checkpoint_every": 2}, 2, None),
    ],
    ids=("the end", "a model", "a checkpoint"),
)
@pytest.mark.parametrize("part", ["model.", "optimiser."])
def test_an_update_that_leaves_no_numbers_is_not_written(changes, step, before, part, tables, tmp_path, monkeypatch):
    """Its loss and its gradient were finite; what was written before stays."""
    real, output = PlainScheme.step, tmp_path / "run"

    def overflowing(scheme: PlainScheme, number: int, *rest: Any) -> dict[str, float]:
        figures = real(scheme, number, *rest)
        if number + 1 == step:
            name = next(key for key, value in scheme.state().items() if key.startswith(part) and value.ndim)
            scheme.state()[name].detach().view(-1)[0] = math.inf
        return figures

    monkeypatch.setattr(PlainScheme, "step", overflowing)
    monkeypatch.setattr(run, "draw_sample", lambda *_: None)
    training = tiny(tables[2], 2, **changes)
    sentence = sentence_of(Failed, lambda: train(training, output))
    assert sentence.startswith(f"step {step}: the update left NaN or inf in {part}")
    assert f"(pairs {stream_of(training).pair(step - 1).names[0]})" in sentence
    names = {"training.json", "metrics.jsonl"} | ({"checkpoint.safetensors", "model"} if before else set())
    assert {path.name for path in output.iterdir()} == names
    if before:
        assert read_checkpoint(output / "checkpoint.safetensors").step == before
        assert read_model(output / "model").summary["step"] <= before


def test_a_gradient_that_is_no_number_leaves_the_weights_as_they_were(tables, tmp_path, monkeypatch):
    """The loss of the step is finite still, and the weights would be NaN after it."""
    from warpwright.schemes import plain as module

    real, calls = module.batch_loss, []

    def spoilt(model: Model, *rest: Any) -> Any:
        losses = real(model, *rest)
        calls.append(1)
        return losses if len(calls) < 3 else replace(losses, total=losses.total + (0 * next(model.parameters()).sum()).sqrt())

    monkeypatch.setattr(module, "batch_loss", spoilt)
    training = tiny(tables[2], 2, checkpoint_every=1)
    sentence = sentence_of(Failed, lambda: train(training, tmp_path / "run"))
    assert sentence.startswith("step 3: the norm of the gradient is nan (pairs ")
    found = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    assert found.step == 2
    assert all(bool(value.isfinite().all()) for value in found.state.values())


def test_a_loss_that_is_no_number_at_once_leaves_nothing(tables, tmp_path, monkeypatch):
    from warpwright.schemes import plain as module

    real = module.batch_loss
    monkeypatch.setattr(module, "batch_loss", lambda *a: replace(real(*a), total=real(*a).total * math.nan))
    sentence = sentence_of(Failed, lambda: train(tiny(tables[2], 2), tmp_path / "run"))
    assert "step 1: the loss is nan" in sentence
    assert "there is no checkpoint yet" in sentence
    assert not (tmp_path / "run").exists()


BAD: dict[str, tuple[Callable[[dict[int, Path], Path], Training], list[str]]] = {
    "axes": (lambda tables, _: tiny(tables[2], 3), ["2 axes and 1 channel(s)", "the model is for 3 and 1"]),
    "channels": (
        lambda tables, _: with_model(tiny(tables[2], 2), channels=2),
        ["2 axes and 1 channel(s)", "the model is for 2 and 2"],
    ),
    "shapes": (
        lambda tables, _: with_model(tiny(tables[2], 2, batch=4), preparation=Preparation()),
        ["batch = 4", "one shape", "[model.preparation]"],
    ),
    "flips": (lambda tables, _: tiny(tables[2], 2, augmentation=Augmentation(flips=(0.5,) * 3)), ["3 axes"]),
    "landmarks": (
        lambda _, folder: with_model(tiny(write_cohort(folder, 2), 2), loss=(LandmarkDistance(),)),
        ["a landmark loss needs points", "case0"],
    ),
    "layers": (lambda tables, _: with_model(tiny(tables[2], 2), layers=(FullSize(),)), ["fullsize", "Velocity"]),
    "nowhere": (lambda _, folder: tiny(folder / "none.csv", 2), ["none.csv"]),
}


@pytest.mark.parametrize("what", BAD)
def test_settings_that_cannot_work_leave_nothing_behind(what, tables, tmp_path):
    make, words = BAD[what]
    training = make(tables, tmp_path)
    for call in (lambda: train(training, tmp_path / "run"), lambda: trial(training)):
        sentence = sentence_of(BadInput, call)
        assert all(word in sentence for word in words), sentence
    assert not (tmp_path / "run").exists()


def test_files_that_cannot_be_read_are_listed_at_once(tmp_path):
    training = tiny(write_cohort(tmp_path, 2), 2)
    for number in (1, 4):
        (tmp_path / f"image_{number}.nii.gz").write_bytes(b"no")
    (tmp_path / "labels_3.nii.gz").write_bytes(b"no")
    sentence = sentence_of(BadInput, lambda: train(training, tmp_path / "run"))
    assert all(name in sentence for name in ("image_1.nii.gz", "image_4.nii.gz", "labels_3.nii.gz"))


def test_a_trial_does_what_a_later_step_does(tables, monkeypatch):
    """The score learns in it, with its activations computed again where that is asked for."""
    plain = rich(tables[2], 2, batch=2)
    loss = (Images(similarity=MSE()), Smoothness(weight=0.1))
    scheme = Plain(weighting=AdaptiveScoring(scale=0.25))
    training = replace(plain, steps=40, scheme=scheme, save_memory=True, model=replace(plain.model, loss=loss))
    looked: list[bool] = []
    forward = VoxelMap.forward

    def look(self: VoxelMap, images: torch.Tensor) -> torch.Tensor:
        looked.append(all(block.saving for block in self.modules() if isinstance(block, Block)))
        return forward(self, images)

    monkeypatch.setattr(VoxelMap, "forward", look)
    figures = trial(training)["figures"]
    assert looked
    assert all(looked)
    assert figures["score_loss"] > 0


def test_a_trial_reports_and_writes_nothing(tables, tmp_path, monkeypatch, dim):
    monkeypatch.chdir(tmp_path)
    training = rich(tables[dim], dim, batch=2)
    found = trial(training)
    assert list(tmp_path.iterdir()) == []
    assert (found["images"], found["validation_pairs"]) == (6, 1)
    assert found["shape"] == [2, 1, *(12, 14, 10)[:dim]]
    assert found["weights"] == sum(p.numel() for p in Model(training.model).parameters())
    assert {"loss", "similarity", "prior", "overlap", "gradient", "rate"} == set(found["figures"])
    assert found["seconds_step"] > 0
    assert found["memory_gb"] > 0.01
