"""What was interrupted, at whatever moment, ends with the same bytes as a run that nobody disturbed."""

from __future__ import annotations

import errno
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load

from oracles.cohort import at, lines, rich, stopping, tiny, tree, write_cohort, write_settings
from warpwright.data import Data, cases
from warpwright.energies.pairs import PairBatch
from warpwright.errors import BadInput, Failed
from warpwright.layers import FullSize, Integrate
from warpwright.methods import Model
from warpwright.methods.direct import predicted
from warpwright.networks import VoxelMorphDiff
from warpwright.product.model_folder import packed, read_model
from warpwright.schemes import Adam, AdamW, AdaptiveScoring, Constant, Plain
from warpwright.training import Card, Event, Training, Validation, run, train
from warpwright.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from warpwright.training.pictures import draw_sample

PROGRAM = "import sys; from warpwright.cli.main import main; sys.exit(main())"
CHECKPOINT = "checkpoint.safetensors"


class Interrupted(Exception):
    """A process that ends in the middle of something."""


def breaking() -> None:
    raise Interrupted


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Tables of images with labels, by number of axes."""
    return {dim: write_cohort(tmp_path_factory.mktemp(f"cohort{dim}"), dim) for dim in (2, 3)}


@pytest.fixture(scope="module", autouse=True)
def _quick_pictures() -> Iterator[None]:
    """Pictures cost more than all else here; a text that depends on the model takes their place."""

    def draw(model: Model, batch: PairBatch, path: Path, title: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{title} {float(predicted(model, batch).displacement.abs().sum())!r}")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "draw_sample", draw)
        yield


@pytest.fixture(scope="module", params=(2, 3), ids=("2d", "3d"))
def whole(request: pytest.FixtureRequest, tables, tmp_path_factory) -> tuple[Training, dict[str, bytes]]:
    """A rich run that nobody disturbs, and all files that it leaves."""
    training = rich(tables[request.param], request.param)
    output = tmp_path_factory.mktemp("whole") / "run"
    assert train(training, output).finished
    return training, tree(output)


def same_tensors(found: bytes, expected: bytes) -> None:
    ours, theirs = load(found), load(expected)
    assert set(ours) == set(theirs)
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def same(output: Path, expected: dict[str, bytes]) -> None:
    """Every file, to the byte; first, tensor by tensor, those that matter most."""
    found = tree(output)
    assert set(found) == set(expected)
    for name in (CHECKPOINT, "model/weights.safetensors"):
        same_tensors(found[name], expected[name])
    assert [name for name in found if found[name] != expected[name]] == []
    steps = [(row["kind"], row["step"]) for row in lines(output)]
    assert len(set(steps)) == len(steps)


def test_a_run_holds_what_it_should_for_this_test_to_mean_something(whole):
    training, files = whole
    state = load(files[CHECKPOINT])
    kinds = {name.split(".")[0] for name in state} | {name.split(".")[-1] for name in state if name.startswith("opt")}
    assert kinds == {"model", "kept", "failing", "optimiser", "step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
    assert any(not torch.equal(state[f"kept.{n[6:]}"], v) for n, v in state.items() if n.startswith("model."))
    kept = {f"kept.{name}": value for name, value in load(files["model/weights.safetensors"]).items()}
    assert training.validation.every < training.steps
    assert set(kept) == {name for name in state if name.startswith("kept.")}


INTERRUPTIONS = {
    "stopped at a line of the log": at("train", 3, stopping),
    "stopped at a validation": at("validation", 5, stopping),
    "broken at a line of the log": at("train", 3, breaking),
    "broken at a validation": at("validation", 5, breaking),
    "broken at the end": at("train", 7, breaking),
}


@pytest.mark.parametrize("how", INTERRUPTIONS)
def test_interrupted_once(how, whole, tmp_path):
    training, expected = whole
    if how.startswith("stopped"):
        assert not train(training, tmp_path / "run", listen=INTERRUPTIONS[how]).finished
    else:
        with pytest.raises(Interrupted):
            train(training, tmp_path / "run", listen=INTERRUPTIONS[how])
    assert train(training, tmp_path / "run", resume=True).finished
    same(tmp_path / "run", expected)
    train(training, tmp_path / "run", resume=True)  # once more, with nothing left to do
    same(tmp_path / "run", expected)


def test_stopped_after_every_step(whole, tmp_path, monkeypatch):
    real = run._Run.step

    def told(*arguments: Any) -> Any:
        stopping()
        return real(*arguments)

    training, expected = whole
    monkeypatch.setattr(run._Run, "step", told)
    for step in range(1, training.steps + 1):
        outcome = train(training, tmp_path / "run", resume=step > 1)
        assert (outcome.step, outcome.finished) == (step, step == training.steps)
        assert read_checkpoint(tmp_path / "run" / CHECKPOINT).step == step
    same(tmp_path / "run", expected)


def test_stopped_while_files_are_read(whole, tmp_path, monkeypatch):
    """Between two cases, before the first step and after some; what was written stays, and nothing is trained."""
    training, expected = whole
    output, real, begun = tmp_path / "run", cases._read, []

    def told(*arguments: Any) -> Any:
        begun.append(arguments)
        if len(begun) == 2:
            stopping()
        return real(*arguments)

    for step in (0, 3):
        with monkeypatch.context() as patched:
            patched.setattr(cases, "_read", told)
            before = tree(output)
            outcome = train(training, output, resume=step > 0)
        assert (outcome.step, outcome.finished, len(begun)) == (step, False, 2)
        assert tree(output) == (before or {"training.json": expected["training.json"]})
        begun.clear()
        train(training, output, resume=True, listen=at("train", 3, stopping))
    same(output, expected)


def test_a_score_is_written_with_the_best_model_once_it_has_learned(tables, tmp_path):
    """Of ten steps two belong to the model alone; a run that is broken after each step leaves the same bytes."""
    weighting = AdaptiveScoring(warmup=0.2, scale=0.25)
    scheme = Plain(optimiser=Adam(rate=3e-3), schedule=Constant(), weighting=weighting)
    changes: dict[str, Any] = {"scheme": scheme, "validation": Validation(every=2, by="loss"), "accumulate": 1}
    training = tiny(tables[2], 2, steps=10, checkpoint_every=1, log_every=1, **changes)
    output, states, scored = tmp_path / "whole", {}, {}

    def look(event: Event) -> None:
        if event.kind == "train" and event.step > 1:
            states[event.step - 1] = load((output / CHECKPOINT).read_bytes())
            scored[event.step - 1] = (output / "model" / "score.safetensors").exists()

    train(training, output, listen=look)
    assert [scored[step] for step in (1, 2, 3)] == [False] * 3
    found = read_model(output / "model")
    best = found.summary["step"]
    assert best > 4
    assert found.score is not None
    state = (states | {10: load((output / CHECKPOINT).read_bytes())})[best]
    own = found.score.network.state_dict()
    assert all(torch.equal(state[f"weighting.network.{name}"], value) for name, value in own.items())
    weights = sum(value.numel() for value in own.values())
    assert f"- **Score**: {weights:,} weights" in (output / "model" / "README.md").read_text()
    for step in range(2, 11):
        with pytest.raises(Interrupted):
            train(training, tmp_path / "broken", resume=step > 2, listen=at("train", step, breaking))
    train(training, tmp_path / "broken", resume=True)
    same(tmp_path / "broken", tree(output))


def test_handlers_of_signals_are_put_back(tables, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    train(rich(tables[2], 2, steps=1), tmp_path / "run")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_broken_before_the_first_checkpoint(whole, tmp_path):
    """Such a run begins again, also with other settings; a folder that no run has begun in is refused."""
    training, expected = whole
    late = replace(training, checkpoint_every=100)
    with pytest.raises(Interrupted):
        train(replace(late, seed=1), tmp_path / "run", listen=at("train", 3, breaking))
    assert not (tmp_path / "run" / CHECKPOINT).exists()
    assert train(late, tmp_path / "run", resume=True).finished
    found = tree(tmp_path / "run")
    same_tensors(found[CHECKPOINT], expected[CHECKPOINT])
    other = (CHECKPOINT, "training.json")  # which hold checkpoint_every
    assert {k: v for k, v in found.items() if k not in other} == {k: v for k, v in expected.items() if k not in other}
    with pytest.raises(BadInput, match="expected the checkpoint of an earlier run"):
        train(training, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_what_may_change_between_a_run_and_its_resumption(tables, tmp_path):
    training = rich(tables[2], 2)
    train(training, tmp_path / "run", listen=at("train", 3, stopping))
    moved = tables[2].parent.parent / "moved"
    tables[2].parent.rename(moved)
    try:
        data = replace(training.data, manifest=moved / "table.csv", cache_gb=0.0)
        changed = replace(training, data=data, log_every=2, checkpoint_every=3, card=Card(title="Another"))
        assert train(changed, tmp_path / "run", resume=True).finished
    finally:
        moved.rename(tables[2].parent)
    assert [row["step"] for row in lines(tmp_path / "run") if row["kind"] == "train"] == [3, 4, 6, 7]
    assert (tmp_path / "run" / "model" / "README.md").read_text().startswith("# Another")


def test_tensorboard_forgets_what_was_not_checkpointed_and_nothing_else(tables, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training = rich(tables[2], 2, tensorboard=True, log_every=1, checkpoint_every=2)
    with pytest.raises(Interrupted):
        train(training, tmp_path / "run", listen=at("train", 3, breaking))
    time.sleep(1.1)  # names of event files differ by the second, and are read in their order
    train(training, tmp_path / "run", resume=True)
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert [scalar.step for scalar in board.Scalars("train/loss")] == list(range(1, 8))


# ---- in a process of its own


def program(settings: str, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, "train", settings, "--output", str(output), "--threads", "1"]
    return subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 300
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_and_terminated_at_random_moments(tables, tmp_path, monkeypatch):
    """kill -9, then SIGTERM, each of a process of its own; this one ends it, and does the same without a break."""
    monkeypatch.setattr(run, "draw_sample", draw_sample)
    rng = np.random.default_rng(7)
    training = rich(tables[2], 2, steps=50, log_every=5, checkpoint_every=3, validation=Validation(every=50))
    settings, output = write_settings(tmp_path / "t.json", training), tmp_path / "run"

    killed = program(settings, output)
    wait_for((output / "training.json").exists, killed)
    time.sleep(rng.uniform(0, 0.3))
    killed.kill()
    assert killed.communicate()[0] == ""
    assert killed.returncode == -signal.SIGKILL
    begun = (output / CHECKPOINT).exists()
    step = read_checkpoint(output / CHECKPOINT).step if begun else 0
    assert step < 50

    told = program(settings, output, "--resume", "--json")
    wait_for(lambda: (output / CHECKPOINT).exists() and read_checkpoint(output / CHECKPOINT).step > step + 3, told)
    told.send_signal(signal.SIGTERM)
    out, err = told.communicate(timeout=300)
    assert told.returncode == 0, err
    assert '"finished": false' in out
    stopped = read_checkpoint(output / CHECKPOINT).step
    assert step + 3 < stopped < 50
    assert f'"step": {stopped}' in out

    assert train(training, output, resume=True).finished
    train(training, tmp_path / "whole")
    same(output, tree(tmp_path / "whole"))


# ---- a checkpoint that cannot be written, or taken up


def test_a_full_disk_keeps_the_checkpoint_before(whole, tmp_path, monkeypatch):
    training, expected = whole
    output, real, before = tmp_path / "run", Path.write_bytes, {}

    def full(path: Path, data: bytes) -> int:
        if path.parent == output and (output / CHECKPOINT).exists():
            before.update(tree(output))
            real(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(Failed, match=r"checkpoint\.safetensors: could not be written \(No space left on device\)"):
            train(training, output)
    assert read_checkpoint(output / CHECKPOINT).step == 2
    assert tree(output) == before
    assert not list(output.glob(".*"))
    assert train(training, output, resume=True).finished
    same(output, expected)


def test_a_full_disk_names_the_log(whole, tmp_path, monkeypatch):
    training, expected = whole
    output, real = tmp_path / "run", Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if path.name == "metrics.jsonl" and mode == "a":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(Failed) as caught:
            train(training, output)
    assert str(caught.value) == f"{output / 'metrics.jsonl'}: could not be written (No space left on device)"
    assert train(training, output, resume=True).finished
    same(output, expected)


def test_a_full_disk_keeps_the_model_before(tables, tmp_path, monkeypatch):
    training = rich(
        tables[2], 2, validation=Validation(every=2, by="loss"), scheme=Plain(optimiser=Adam(rate=3e-3), schedule=Constant())
    )
    train(replace(training, steps=2), tmp_path / "two")
    output, real = tmp_path / "run", Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if (output / "model").exists() and path.name == "weights.safetensors":
            real(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Failed, match="model: the results could not be written"):
        train(training, output)
    own, two = (read_model(folder / "model") for folder in (output, tmp_path / "two"))
    assert own.digest == two.digest
    assert not list(output.glob(".*"))


@pytest.fixture(scope="module")
def stopped(tables, tmp_path_factory) -> tuple[Training, Path]:
    """A run that was stopped after three steps; tests copy its checkpoint."""
    training = rich(tables[2], 2)
    output = tmp_path_factory.mktemp("stopped") / "run"
    train(training, output, listen=at("train", 3, stopping))
    return training, output / CHECKPOINT


def refusal(training: Training, folder: Path, checkpoint: bytes) -> str:
    (folder / CHECKPOINT).write_bytes(checkpoint)
    with pytest.raises(BadInput) as caught:
        train(training, folder, resume=True)
    sentence = str(caught.value)
    assert sentence.startswith(str(folder / CHECKPOINT))
    assert "\n" not in sentence
    assert [path.name for path in folder.iterdir()] == [CHECKPOINT]
    return sentence


OTHERS: dict[str, tuple[Callable[[Training], Training], str]] = {
    "steps": (lambda t: replace(t, steps=8), "steps = 7, the settings say 8"),
    "seed": (lambda t: replace(t, seed=6), "seed = 5, the settings say 6"),
    "batch": (lambda t: replace(t, batch=2), "batch = 1, the settings say 2"),
    "precision": (lambda t: replace(t, precision="float64"), 'precision = "float32", the settings say "float64"'),
    "rate": (
        lambda t: replace(t, scheme=replace(t.scheme, optimiser=Adam(rate=1e-3, amsgrad=True))),
        "scheme.optimiser.rate = 0.003, the settings say 0.001",
    ),
    "optimiser": (
        lambda t: replace(t, scheme=replace(t.scheme, optimiser=AdamW(rate=3e-3))),
        'scheme.optimiser.kind = "adam", the settings say "adamw"',
    ),
    "no average": (lambda t: replace(t, scheme=replace(t.scheme, average=None)), "scheme.average = 0.9, the settings say null"),
    "network": (
        lambda t: replace(t, model=replace(t.model, network=VoxelMorphDiff(scale=0.5))),
        "model.network.scale = 0.25, the settings say 0.5",
    ),
    "loss": (lambda t: replace(t, model=replace(t.model, loss=t.model.loss[:2])), "model.loss = "),
    "a layer": (
        lambda t: replace(t, model=replace(t.model, layers=(*t.model.layers[:1], Integrate(steps=2), FullSize()))),
        "model.layers.1.steps = 3, the settings say 2",
    ),
    "augmentation": (
        lambda t: replace(t, augmentation=replace(t.augmentation, noise=0.0)),
        "augmentation.noise = 0.05, the settings say 0.0",
    ),
    "pairing": (
        lambda t: replace(t, data=Data(manifest=t.data.manifest, pairing="atlas", atlas="case0")),
        'data.pairing = "random", the settings say "atlas"',
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_settings(what, stopped, tmp_path):
    training, checkpoint = stopped
    change, words = OTHERS[what]
    sentence = refusal(change(training), tmp_path, checkpoint.read_bytes())
    assert f"was made with {words}" in sentence
    assert sentence.endswith("expected the same to go on")


def edited(checkpoint: Path, folder: Path, **changes: Any) -> bytes:
    write_checkpoint(folder / "edited", replace(read_checkpoint(checkpoint), **changes))
    raw = (folder / "edited").read_bytes()
    (folder / "edited").unlink()
    return raw


def exchanged(old: str, new: str) -> Callable[[Path], None]:
    """Other words in a table."""

    def change(table: Path) -> None:
        text = table.read_text()
        assert old in text
        table.write_text(text.replace(old, new))

    return change


def reordered(table: Path) -> None:
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(rows)]))


def grouped(table: Path) -> None:
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},group", *(f"{row},p" for row in rows)]))


def resaved(table: Path) -> None:
    """An image with the same values in more bytes."""
    path = table.with_name("image_1.nii.gz")
    image: Any = nib.load(path)
    nib.save(nib.Nifti1Image(image.get_fdata(), image.affine), path)


COHORTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "an image more": (exchanged("case1,", "case7,image_1.nii.gz,train,labels_1.nii.gz\ncase1,"), "ids"),
    "another name": (exchanged("case1,", "case7,"), "ids"),
    "another order": (reordered, "ids"),
    "another split": (exchanged("validation", "test"), "splits"),
    "groups": (grouped, "groups"),
    "fewer labels": (exchanged("labels_5.nii.gz", ""), "masks, labels or points"),
    "another file": (resaved, "sizes in bytes"),
}


@pytest.mark.parametrize("what", COHORTS)
def test_other_images(what, stopped, tables, tmp_path):
    training, checkpoint = stopped
    change, words = COHORTS[what]
    table = shutil.copytree(tables[2].parent, tmp_path / "data") / "table.csv"
    change(table)
    (tmp_path / "run").mkdir()
    other = replace(training, data=replace(training.data, manifest=table))
    sentence = refusal(other, tmp_path / "run", checkpoint.read_bytes())
    assert sentence.endswith(f": was made with images of other {words}, row by row: expected the same to go on")


def test_a_checkpoint_that_says_nothing_of_its_images_is_taken_up(stopped, tmp_path):
    training, checkpoint = stopped
    (tmp_path / CHECKPOINT).write_bytes(edited(checkpoint, tmp_path, cohort={}))
    outcome = train(training, tmp_path, resume=True)
    assert (outcome.step, outcome.finished) == (7, True)
    assert read_checkpoint(tmp_path / CHECKPOINT).cohort == read_checkpoint(checkpoint).cohort != {}


def test_another_number_of_processes(stopped, tmp_path):
    training, checkpoint = stopped
    sentence = refusal(training, tmp_path, edited(checkpoint, tmp_path, processes=2))
    assert "was made by 2 processes, there are 1" in sentence


def without(name: str) -> Callable[[Checkpoint], dict[str, torch.Tensor]]:
    return lambda found: {key: value for key, value in found.state.items() if not key.startswith(name)}


def larger(found: Checkpoint) -> dict[str, torch.Tensor]:
    name = next(key for key in found.state if key.startswith("model."))
    return {**found.state, name: torch.zeros(1, *found.state[name].shape)}


@pytest.mark.parametrize("change", [without("model."), without("kept."), larger], ids=("no model", "no average", "shape"))
def test_tensors_of_another_architecture(change, stopped, tmp_path):
    training, checkpoint = stopped
    raw = edited(checkpoint, tmp_path, state=change(read_checkpoint(checkpoint)))
    assert "its tensors are not those of such a run" in refusal(training, tmp_path, raw)


def test_damaged_checkpoints(stopped, tmp_path):
    training, checkpoint = stopped
    raw = checkpoint.read_bytes()
    executed = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (executed,)

    torch.save({"state": Payload()}, tmp_path / "zip")
    zipped = (tmp_path / "zip").read_bytes()
    (tmp_path / "zip").unlink()
    facts = '{"format": 2, "step": 3}'
    cases = {
        b"": "damaged",
        raw[:7]: "damaged",
        raw[: len(raw) // 2]: "damaged",
        raw[:-1]: "damaged",
        zipped: "is a pickle",
        pickle.dumps(Payload()): "is a pickle",
        packed({"a": torch.zeros(1)}): "says nothing of a training run",
        packed({"a": torch.zeros(1)}, {"warpwright": "{"}): "says nothing of a training run",
        packed({"a": torch.zeros(1)}, {"warpwright": "[1]"}): "says nothing of a training run",
        packed({"a": torch.zeros(1)}, {"warpwright": '{"format": 1}'}): "says nothing of a training run",
        packed({"a": torch.zeros(1)}, {"warpwright": facts}): "of format 2, this version goes on from format 1",
    }
    for damaged, words in cases.items():
        assert words in refusal(training, tmp_path, damaged)
    assert not executed.exists()
