"""A training run: the loop, and what is written when."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from warpwright.config import to_mapping
from warpwright.data import Cases, read_cohort
from warpwright.energies.pairs import PairBatch
from warpwright.errors import BadInput, Failed
from warpwright.io.atomic import last_line, replacing
from warpwright.methods import Model, TwoStep, layered
from warpwright.methods.randomness import drawing_from
from warpwright.networks import save_memory
from warpwright.product.model_folder import load_weights, read_model, write_model
from warpwright.product.output import check_folder
from warpwright.product.resources import peak_memory
from warpwright.schemes import Scheme
from warpwright.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from warpwright.training.journal import Journal, model_card
from warpwright.training.pictures import draw_kernels, draw_sample
from warpwright.training.processes import LostProcess, Processes, processes
from warpwright.training.resuming import changed, cohort_digests
from warpwright.training.settings import SEEDS, Training
from warpwright.training.stream import Stream, prepared
from warpwright.training.suitable import check_suitable
from warpwright.training.validate import deciding, layer_figures, turned, validate

__all__ = ["Event", "Outcome", "train", "trial"]

CHECKPOINT, METRICS, SETTINGS = "checkpoint.safetensors", "metrics.jsonl", "training.json"
MODEL, PICTURES, EVENTS = "model", "pictures", "tensorboard"
ADVICE = "expected a new run with others, say a smaller scheme.optimiser.rate or scheme.clip"


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something a person may want to see: figures of training, of validation, or a file that was written."""

    kind: str
    step: int
    steps: int
    seconds: float
    figures: Mapping[str, float]

    def line(self) -> str:
        """For a log."""
        figures = "  ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        return f"{self.kind:10} {self.step}/{self.steps}  {self.seconds:.0f} s  {figures}\n"


Listen = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Args:
        step: updates done in all.
        finished: whether these were all; otherwise it was told to stop, and can be resumed.
        best: figure of the best model, its name, or None before the first validation.
    """

    step: int
    finished: bool
    best: tuple[str, float] | None


def train(
    training: Training, output: Path, *, resume: bool = False, device: str = "cpu", listen: Listen | None = None
) -> Outcome:
    """Train a model, or go on with it.

    `output` will hold `training.json` (the settings), `metrics.jsonl`, `checkpoint.safetensors`, `model` (the best so far by
    the validation pairs, a folder that `register --model` takes) and `pictures`. A run that was killed at any moment and is
    resumed ends with the same bytes as one that was not. On SIGTERM and SIGINT a checkpoint is written and the run ends well;
    while files are still read, that comes before the next one, and only `training.json` is written.

    Args:
        training: what to do.
        output: a folder.
        resume: go on from the checkpoint in `output`.
        device: a torch device.
        listen: called with what happens.

    Raises:
        BadInput: data or settings cannot be used, or the checkpoint is that of another run.
        Failed: the loss, or weights after an update, are not finite, or a file could not be written.
    """
    if not resume:
        check_folder(output, force=False)
    with processes(torch.device(device)) as group, told_to_stop() as stop:
        fresh = not (resume and (output / CHECKPOINT).exists())
        return _Run(training, output, torch.device(device), group, listen, fresh=fresh).go(resume, stop)


def trial(training: Training, *, device: str = "cpu") -> dict[str, Any]:
    """Everything but the training: data are checked and one step is done, as the last one, in which all that learns does.

    Nothing is written.

    Returns:
        Counts of images, pairs and weights, figures of the step, its seconds, the peak memory in GB.
    """
    with processes(torch.device(device)) as group:
        run = _Run(training, Path(), torch.device(device), group, None, fresh=True)
        run.read()
        begin = time.perf_counter()
        batches = run.stream.step(0, group)
        laid = time.perf_counter()
        figures = run.step(training.steps - 1, batches)
        cuda = torch.device(device).type == "cuda"
        return {
            "images": len(run.cohort.cases),
            "validation_pairs": len(run.watched),
            "weights": run.parameters,
            "shape": list(batches[0].fixed.shape),
            "figures": figures,
            "seconds_data": laid - begin,
            "seconds_step": time.perf_counter() - laid,
            "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else peak_memory(),
        }


@contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """In the main thread SIGTERM and SIGINT raise a flag, which the returned function reads; a second one ends all."""
    flag = threading.Event()

    def note(_: int, __: FrameType | None) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def begun_with(model: Model, given: Model) -> Mapping[str, Tensor]:
    """Weights for a model from one that was trained before: all of them, or where that is its first of two steps, those of it.

    Stage 2 of GradICON (equation 12) begins so: with the network of stage 1, and a fresh step behind it.
    """
    own, before = model.settings, given.settings
    if not isinstance(own.network, TwoStep) or own.network.first != before.network:
        return given.state_dict()
    if layered(before.network) and own.layers != before.layers:
        return given.state_dict()
    first = {f"network.first.{name.removeprefix('network.')}": value for name, value in given.state_dict().items()}
    return model.state_dict() | first


class _Run:
    """A run under way: what it works on and with, and where it writes."""

    def __init__(
        self,
        training: Training,
        output: Path,
        device: torch.device,
        group: Processes,
        listen: Listen | None,
        *,
        fresh: bool,
    ) -> None:
        self.training, self.output, self.device, self.group, self.listen = training, output, device, group, listen
        self.begin = time.perf_counter()
        self.cohort = read_cohort(training.data)
        self.digests = cohort_digests(self.cohort)
        self.cases = Cases(training.data)
        check_suitable(training, self.cohort)
        settings = training.model
        self.dtype = torch.float64 if training.precision == "float64" else torch.float32
        with drawing_from(training.seed, device):
            model = Model(settings)
        if fresh and training.weights is not None:
            folder = read_model(training.weights)
            load_weights(model, begun_with(model, folder.model), str(folder.path))
        model = model.to(device, self.dtype)
        self.parameters = sum(p.numel() for p in model.parameters())
        precision = torch.bfloat16 if training.precision == "bfloat16" else None
        with drawing_from(training.seed, device):  # some schemes have networks of their own
            self.scheme: Scheme = training.scheme.build(model, training.steps, precision)
        for network in (model, *self.scheme.beside):
            save_memory(network, training.save_memory)
        self.stream = Stream(
            cohort=self.cohort,
            cases=self.cases,
            preparation=settings.preparation,
            augmentation=training.augmentation,
            seed=training.seed,
            batch=training.batch,
            accumulate=training.accumulate,
        )
        self.watched = self.cohort.listed("validation", training.validation.pairs)
        self.by = deciding(training.validation.by, self.watched)
        self.laid: list[PairBatch] = []
        self.recent: list[Mapping[str, float]] = []  # figures of the steps since the last line of the log
        self.best: float | None = None  # less is better

    def read(self, stop: Callable[[], bool] | None = None) -> bool:
        """Read every file once, the model must be for such images; whether it was done, and not told to stop before."""
        shared = self.cases.check(self.cohort.cases, stop)
        if shared is None:
            return False
        (dim, channels), model = shared, self.training.model
        if (dim, channels) != (model.dim, model.channels):
            found = f"the images have {dim} axes and {channels} channel(s), the model is for {model.dim} and {model.channels}"
            raise BadInput(f"{found}: expected the same (model.dim, model.channels)")
        return True

    def go(self, resume: bool, stop: Callable[[], bool]) -> Outcome:
        """The loop. Nothing is written before a step is done, so that settings which cannot work leave nothing behind.

        But what is told to stop while it reads leaves its settings.
        """
        steps, first = self.training.steps, self.group.first
        done = self._resume() if resume else 0
        if self.group.agree(not self.read(stop)):
            if first:
                self._write_settings()
            return self._outcome(done)
        journal: Journal | None = None
        try:
            for batches in self.stream.steps(done, steps, self.group):
                figures = self._step_or_fail(done, batches)
                due = (done + 1) % self.training.checkpoint_every == 0 or done + 1 == steps
                if due or self._watching(done + 1):
                    self._check_finite(done + 1, batches)
                if first:
                    self.recent.append(figures)
                    journal = journal or self._open_journal(done)
                    self._look(journal, done + 1, batches)
                done += 1
                told = self.group.agree(stop())
                if told and not due:
                    self._check_finite(done, batches)
                if first and (due or told):
                    self._checkpoint(done)
                if told:
                    break
        finally:
            if journal is not None:
                journal.close()
        return self._outcome(done)

    def _outcome(self, done: int) -> Outcome:
        best = None if self.best is None else (self.by, turned(self.by, self.best))
        return Outcome(step=done, finished=done >= self.training.steps, best=best)

    def _look(self, journal: Journal, step: int, batches: list[PairBatch]) -> None:
        """Whatever is due after a step: a line of the log, a validation, the model where nothing chooses a better one."""
        last, figures = step == self.training.steps, {}
        if step % self.training.log_every == 0 or last:
            means = {n: sum(r[n] for r in self.recent) / len(self.recent) for n in self.recent[0]}
            own = {} if self.watched else layer_figures(self.scheme.kept)  # else they stand with the validation's
            self._tell(journal, "train", step, means | own)
            self.recent.clear()
        if self._watching(step):
            figures = self._validate(journal, step, batches)
        if last and self.best is None:
            self._write_model(step, figures)
        if last and not self.watched:
            draw_kernels(self.scheme.kept, self.output / PICTURES / f"{step:07d}-kernels.png", f"step {step}")

    def _watching(self, step: int) -> bool:
        """Whether the validation pairs are looked at after a step."""
        return bool(self.watched) and (step % self.training.validation.every == 0 or step == self.training.steps)

    def step(self, number: int, batches: list[PairBatch]) -> dict[str, float]:
        """One update, its noise drawn from a generator that depends on the seed, the step and the process alone."""
        moved = [batch.to(self.device, self.dtype) for batch in batches]
        with drawing_from((self.training.seed * 1_000_003 + number * 8191 + self.group.rank) % SEEDS, self.device):
            return self.scheme.step(number, moved, self.group.synchronise)

    def _step_or_fail(self, number: int, batches: list[PairBatch]) -> dict[str, float]:
        try:
            return self.step(number, batches)
        except LostProcess:
            raise
        except Failed as error:
            raise self._failed(number + 1, str(error), batches) from None

    def _check_finite(self, step: int, batches: list[PairBatch]) -> None:
        """Before something is written: an update may overflow where its loss and gradient did not. Alike in all processes."""
        broken = next((name for name, value in self.scheme.state().items() if not bool(value.isfinite().all())), None)
        if broken is not None:
            raise self._failed(step, f"the update left NaN or inf in {broken}", batches)

    def _failed(self, step: int, what: str, batches: list[PairBatch]) -> Failed:
        """With the step, its pairs, and what there is to begin anew with: a run that goes on does the same again."""
        names = ", ".join(name for batch in batches for name in batch.names)
        path, model = self.output / CHECKPOINT, (self.output / MODEL).absolute()
        good = f"the last good checkpoint is {path}" if path.exists() else "there is no checkpoint yet"
        begin = f', which can begin with weights = "{model}"' if model.exists() else ""
        other = "a new run with others is needed" if "expected" in what else ADVICE  # a sentence may say itself what would help
        again = f"with these settings --resume comes to the same, {other}{begin}"
        return Failed(f"step {step}: {what} (pairs {names}); {good}; {again}")

    def _resume(self) -> int:
        """Take up the checkpoint; how many steps are done. A run that was stopped before its first one begins again."""
        path = self.output / CHECKPOINT
        if not path.exists() and (self.output / SETTINGS).exists():
            return 0
        found = read_checkpoint(path)
        other = changed(found.settings, to_mapping(self.training))
        if other is not None:
            key, before, now = other
            raise BadInput(f"{path}: was made with {key} = {before}, the settings say {now}: expected the same to go on")
        if found.processes != self.group.count:
            raise BadInput(f"{path}: was made by {found.processes} processes, there are {self.group.count}: expected as many")
        differ = next((what for what, mine in self.digests.items() if found.cohort.get(what, mine) != mine), None)
        if differ is not None:
            raise BadInput(f"{path}: was made with images of other {differ}, row by row: expected the same to go on")
        try:
            self.scheme.restore(found.state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise BadInput(f"{path}: its tensors are not those of such a run ({last_line(error)})") from None
        self.recent = list(found.recent)
        self.best = found.best if self.watched else None
        return found.step

    def _write_settings(self) -> None:
        self.output.mkdir(parents=True, exist_ok=True)
        with replacing(self.output / SETTINGS) as temporary:
            temporary.write_text(json.dumps(to_mapping(self.training), indent=2) + "\n", encoding="utf-8")

    def _open_journal(self, done: int) -> Journal:
        self._write_settings()
        events = self.output / EVENTS if self.training.tensorboard else None
        return Journal(self.output / METRICS, done, events)

    def _tell(self, journal: Journal, kind: str, step: int, figures: Mapping[str, float]) -> None:
        journal.write(step, kind, figures)
        if self.listen is not None:
            seconds = time.perf_counter() - self.begin
            self.listen(Event(kind=kind, step=step, steps=self.training.steps, seconds=seconds, figures=figures))

    def _validate(self, journal: Journal, step: int, batches: list[PairBatch]) -> dict[str, float]:
        model = self.scheme.kept
        if not self.laid:
            settings = self.training.model
            self.laid = [prepared(p, self.cases, settings).to(self.device, self.dtype) for p in self.watched]
        try:
            figures = validate(model, self.laid) | layer_figures(model)
        except Failed as error:
            raise self._failed(step, str(error), batches) from None
        self._tell(journal, "validation", step, figures)
        value = turned(self.by, figures.get(self.by, math.nan))
        if value < (math.inf if self.best is None else self.best):  # a NaN is not
            self.best = value
            self._write_model(step, figures)
        title = f"step {step}      {self.laid[0].names[0]}"
        draw_sample(model, self.laid[0], self.output / PICTURES / f"{step:07d}.png", title)
        draw_kernels(model, self.output / PICTURES / f"{step:07d}-kernels.png", f"step {step}")
        return figures

    def _write_model(self, step: int, figures: Mapping[str, float]) -> None:
        summary = {"step": step, "steps": self.training.steps, "seed": self.training.seed, "validation": figures}
        score = self.scheme.score
        card = model_card(self.training, step, figures, self.parameters, score)
        write_model(self.output / MODEL, self.scheme.kept, card=card, summary=summary, score=score)

    def _checkpoint(self, step: int) -> None:
        write_checkpoint(
            self.output / CHECKPOINT,
            Checkpoint(
                step=step,
                best=self.best,
                recent=self.recent,
                state=self.scheme.state(),
                settings=to_mapping(self.training),
                processes=self.group.count,
                cohort=self.digests,
            ),
        )
