"""A registration whose inputs are read and checked before any work starts, and the work."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from warpwright.config import to_mapping
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.kernels import threads_to_kernels, usable
from warpwright.methods import Progress, Prompting, Registration, Settings, needed, register_pair
from warpwright.product.choice import Choice, check_window
from warpwright.product.choices import Header, Photograph, Space
from warpwright.product.inputs import SIDES, ImageLike, PointsLike, digest, labels_on, on_unit_grid, outside_note, points_of
from warpwright.product.learned import Learned, check_axes, learned, opened, settings_beside
from warpwright.product.model_folder import ModelFolder
from warpwright.product.photographs import Seen, seen, size_note
from warpwright.product.prompts import kept_notes, prompting, recorded, refuse_unequal, sets_named
from warpwright.product.resources import check_memory, granted_threads, peak_memory
from warpwright.product.resources import threads as using
from warpwright.product.result import Labels, Landmarks, RegistrationResult
from warpwright.product.scores import common_labels, determinant, judge, score
from warpwright.product.source import fields_of, read_named
from warpwright.transforms import Affine, Transform, resample, split

__all__ = ["Plan", "chosen_device", "prepare"]

PACKAGES = ("warpwright", "torch", "numpy", "scipy", "nibabel", "SimpleITK", "h5py")


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """A registration whose inputs are read and checked; `run` does it."""

    fixed: Image
    moving: Image
    fixed_mask: Image | None
    moving_mask: Image | None
    fixed_labels: Image | None
    moving_labels: Image | None
    landmarks: Landmarks | None
    initial: Transform | None
    settings: Settings
    learned: Learned | None
    prompts: Prompting | None
    device: str
    threads: int
    seed: int
    inputs: dict[str, dict[str, str]]
    photograph: Photograph | None = None
    colours: Image | None = None
    remarks: tuple[str, ...] = ()
    space: Space | None = None
    header: Header = "strict"

    def to_mapping(self) -> dict[str, Any]:
        """What is known before the work: inputs, grids, settings, versions."""
        return {
            "directory": str(Path.cwd()),
            "inputs": self.inputs,
            "space": self.space,
            "header": self.header,
            "grids": {"fixed": _described(self.fixed.grid), "moving": _described(self.moving.grid)},
            "photograph": self.photograph,
            "settings": to_mapping(self.settings),
            "model": None if self.learned is None else self.learned.to_mapping(),
            "prompts": None if self.prompts is None else recorded(self.prompts),
            "device": self.device,
            "threads": self.threads,
            "memory_gb": round(self.memory / 1e9, 2),
            "seed": self.seed,
            "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the images, the landmarks and the machine."""
        return (*self.fixed.notes, *self.moving.notes, *(self.landmarks.notes if self.landmarks else ()), *self.remarks)

    @property
    def memory(self) -> int:
        """Bytes that a search, by images or features, will need at most beside what is read already: for the CPU, else 0."""
        if self.device != "cpu":
            return 0
        grids = self.fixed.grid, self.moving.grid
        by_images = needed(*grids, self.settings) if self.learned is None or self.learned.searches else 0
        return max(by_images, 0 if self.learned is None else self.learned.memory(*grids))

    def run(self, progress: Callable[[Progress], None] | None = None) -> RegistrationResult:
        """Do the registration and score it.

        Raises:
            Failed: there is too little memory.
        """
        check_memory(self.memory)
        begin = time.perf_counter()
        with using(self.threads), self._threads_for():
            registration = self._register(progress)
            middle = time.perf_counter()
            return self._finish(registration, middle - begin)

    def _threads_for(self) -> AbstractContextManager[None]:
        """Kernels get the threads, unless a network, whose convolutions are torch's, needs them."""
        return threads_to_kernels() if self.learned is None and usable(self.fixed.data) else nullcontext()

    def _register(self, progress: Callable[[Progress], None] | None) -> Registration:
        masks = (self.fixed_mask, self.moving_mask)
        if self.learned is not None:
            return self.learned.register(self.fixed, self.moving, self.settings, masks, self.initial, self.device, progress)
        return register_pair(
            self.fixed,
            self.moving,
            self.settings,
            fixed_mask=masks[0],
            moving_mask=masks[1],
            initial=self.initial,
            prompts=self.prompts,
            device=self.device,
            progress=progress,
        )

    def _finish(self, registration: Registration, seconds: float) -> RegistrationResult:
        begin = time.perf_counter()
        start = self.initial or Affine.identity(self.fixed.grid.dim)
        jacobian = determinant(registration.forward, self.fixed.grid)
        labels = self._pull_labels(start, registration.forward)
        points = None if self.landmarks is None else (self.landmarks.fixed, self.landmarks.moving, start)
        scores = score(
            registration.forward,
            registration.backward,
            jacobian,
            energies=(registration.energy_before, registration.energy_after),
            overlap=registration.overlap,
            inverse_residual=registration.inverse_residual,
            labels=None if labels is None else (labels.fixed, labels.moving, labels.before, labels.moved),
            points=points,
            prompted=() if self.prompts is None else self.prompts.values,
            prompted_points=None if self.prompts is None else self.prompts.points,
        )
        masks = (self.fixed_mask, self.moving_mask)
        pair = (self.fixed, self.moving, masks, registration.forward, self.device)
        trust = None if self.learned is None else self.learned.trust(*pair)
        before, moved = (_pull(self.moving, through, self.fixed.grid) for through in (start, registration.forward))
        scored = time.perf_counter() - begin
        record = self.to_mapping() | {
            "seconds": {"registration": seconds, "scores": scored},
            "peak_memory_gb": peak_memory(),
        }
        return RegistrationResult(
            fixed=self.fixed,
            moving=self.moving,
            before=before,
            moved=moved,
            colours=None if self.colours is None else _pull(self.colours, registration.forward, self.fixed.grid),
            jacobian=jacobian,
            initial=start,
            registration=replace(
                registration, notes=(*registration.notes, *self.remarks, *kept_notes(self.prompts, registration.forward))
            ),
            labels=labels,
            landmarks=self.landmarks,
            scores=scores,
            verdict=judge(scores, min(self.fixed.grid.spacing)),
            trust=trust,
            record=record,
        )

    def _pull_labels(self, start: Transform, forward: Transform) -> Labels | None:
        if self.fixed_labels is None or self.moving_labels is None:
            return None
        before, moved = (
            resample(self.moving_labels, through, self.fixed.grid, interpolation="label") for through in (start, forward)
        )
        return Labels(fixed=self.fixed_labels, moving=self.moving_labels, before=before, moved=moved)


def prepare(
    fixed: ImageLike,
    moving: ImageLike,
    *,
    choice: Choice,
    initial: str | Path | Transform | None = None,
    masks: tuple[ImageLike | None, ImageLike | None] = (None, None),
    labels: tuple[ImageLike | None, ImageLike | None] = (None, None),
    points: tuple[PointsLike | None, PointsLike | None] = (None, None),
    series: tuple[str | None, str | None] = (None, None),
    space: Space | None = None,
    device: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    header: Header = "strict",
    model: str | Path | ModelFolder | None = None,
    refine: int = 0,
    refine_rate: float | None = None,
    refine_field: int = 0,
    prompt_labels: tuple[ImageLike, ImageLike] | None = None,
    prompt_points: tuple[PointsLike, PointsLike] | None = None,
    prompt_weight: float | None = None,
    score: bool = False,
    photograph: Photograph | None = None,
) -> Plan:
    """Read and check everything; pairs are (fixed, moving). See `register`.

    Raises:
        BadInput: something that was given cannot be used.
    """
    _both(labels, "labels")
    _both(points, "points")
    if threads is not None and threads < 1:
        raise BadInput(f"threads must be at least 1, got {threads}")
    images, alone = on_unit_grid(
        {"fixed": fixed, "moving": moving}
        | _sided("mask", masks)
        | _sided("labels", labels)
        | _sided("prompt_labels", prompt_labels or (None, None))
    )
    granted, fewer = granted_threads(threads)
    with using(granted):
        device = chosen_device(device)
        looks = _looks(images, header, series, photograph)
        first, second = (look.image for look in looks)
        folder = opened(model)
        check_axes(folder, first)
        settings = settings_beside(folder, choice, first.grid)
        check_window(settings.similarity, first.grid.spacing, f"{choice.read()[1]}.similarity")
        start = _initial(initial, first, settings)
        shown = None if prompt_labels is None else _pair(images, "prompt_labels")
        prompts = prompting(shown, prompt_points, prompt_weight, (first, second), space, header)
        method = learned(
            folder,
            refine=refine,
            refine_rate=refine_rate,
            refine_field=refine_field,
            initial=start,
            choice=choice,
            settings=settings,
            prompts=prompts,
            score=score,
        )
        marks = _sided("points", points) | _sided("prompt_points", prompt_points or (None, None))
        maps = _maps(_pair(images, "labels"), (first, second), header)
        masks = _pair(images, "mask")
        return Plan(
            fixed=first,
            moving=second,
            fixed_mask=looks[0].mask(masks[0], "fixed mask", header),
            moving_mask=looks[1].mask(masks[1], "moving mask", header),
            fixed_labels=maps[0],
            moving_labels=maps[1],
            landmarks=_landmarks(points, (first, second), space),
            initial=start,
            settings=settings,
            learned=method,
            prompts=prompts,
            device=device,
            threads=granted,
            remarks=(*alone, *fewer, *size_note(*looks)),
            seed=seed,
            inputs=_inputs(images | marks, initial, series, header),
            photograph=photograph,
            colours=looks[1].colours,
            space=space,
            header=header,
        )


def _sided(what: str, pair: tuple[Any, Any]) -> dict[str, Any]:
    """A pair by role: "fixed_mask" and "moving_mask", say."""
    return {f"{side}_{what}": value for side, value in zip(SIDES, pair, strict=True)}


def _pair(images: Mapping[str, ImageLike | None], what: str) -> tuple[ImageLike | None, ImageLike | None]:
    return images[f"fixed_{what}"], images[f"moving_{what}"]


def _looks(
    images: Mapping[str, Any], header: Header, series: tuple[str | None, str | None], photograph: Photograph | None
) -> tuple[Seen, Seen]:
    """Both images, of the same number of axes."""
    one, two = (seen(images[side], side, header, chosen, photograph) for side, chosen in zip(SIDES, series, strict=True))
    if one.image.grid.dim != two.image.grid.dim:
        found = f"has {two.image.grid.dim} axes and {one.image.name} has {one.image.grid.dim}"
        raise BadInput(f"{two.image.name}: {found}, expected the same number")
    return one, two


def _maps(
    labels: tuple[ImageLike | None, ImageLike | None], images: tuple[Image, Image], header: Header
) -> tuple[Image | None, Image | None]:
    """Both label maps, if they are given: each on its image's grid, with a label in common."""
    one, two = (
        labels_on(value, image, f"{side} labels", header) for value, image, side in zip(labels, images, SIDES, strict=True)
    )
    if one is not None and two is not None and not common_labels(one, two):
        raise BadInput(f"{two.name}: has no label in common with {one.name}, expected at least one to score")
    return one, two


def _inputs(
    given: Mapping[str, Any], initial: str | Path | Transform | None, series: tuple[str | None, str | None], header: Header
) -> dict[str, dict[str, str]]:
    """What `result.json` says of the inputs, by role."""
    if isinstance(initial, (str, Path)):
        given = {**given, "initial": initial}
    found = {role: digest(value, role.replace("_", " "), header) for role, value in given.items() if value is not None}
    for side, chosen in zip(SIDES, series, strict=True):
        found[side] |= {} if chosen is None else {"series": chosen}
    if initial is not None:
        found.setdefault("initial", {})  # a transform in memory has no path
    return found


def _both(pair: tuple[object, object], what: str) -> None:
    if (pair[0] is None) != (pair[1] is None):
        found, missing = ("fixed", "moving") if pair[1] is None else ("moving", "fixed")
        name = next((f"{value}: " for value in pair if isinstance(value, (str, Path))), "")
        raise BadInput(f"{name}{found} {what} were given without {missing} {what}, expected both or neither")


def _initial(initial: str | Path | Transform | None, fixed: Image, settings: Settings) -> Transform | None:
    """The transform to begin from, which the settings can serve."""
    start = read_named(initial) if isinstance(initial, (str, Path)) else initial
    if start is None:
        return None
    name = str(initial) if isinstance(initial, (str, Path)) else "initial"
    if start.dim != fixed.grid.dim:
        raise BadInput(f"{name}: the initial transform has {start.dim} axes and {fixed.name} has {fixed.grid.dim}")
    if settings.deformable is None and fields_of(start) and bool(split(start, fixed.grid)[1].displacement.any()):
        raise BadInput(f"{name}: holds a displacement field, expected an affine to begin a linear registration from")
    return start


def _landmarks(
    points: tuple[PointsLike | None, PointsLike | None], images: tuple[Image, Image], space: Space | None
) -> Landmarks | None:
    one_table = isinstance(points[0], (str, Path)) and points[0] == points[1]
    fixed, moving = (
        points_of(p, i, space, f"{side} points", side if one_table else None)
        for p, i, side in zip(points, images, SIDES, strict=True)
    )
    if fixed is None or moving is None:
        return None
    names = sets_named(points, "points")
    refuse_unequal((fixed, moving), names)
    notes = [outside_note(n, p, i.grid) for n, p, i in zip(names, (fixed, moving), images, strict=True)]
    return Landmarks(fixed=fixed, moving=moving, notes=(*notes[0], *notes[1]))


def chosen_device(name: str) -> str:
    """A device of torch by the name that a person gives.

    Raises:
        BadInput: the name is not known, or this machine has no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise BadInput(f"device {name!r} is not known, expected auto, cpu, cuda or cuda:0")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise BadInput(f"device {name!r} was asked for, found {torch.cuda.device_count()} CUDA devices")
    return name


def _pull(moving: Image, through: Transform, grid: Grid) -> Image:
    """The moving image on the fixed grid; outside it is 0, or the least value where that is negative (air in CT)."""
    return resample(moving, through, grid, background=min(0.0, float(moving.data.min())))


def _described(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}
