"""A registration by a model: its start, one pass of the network, and what may follow on demand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from warpwright.config import KIND, to_mapping
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.methods import (
    AffineField,
    Annotated,
    AnyFamily,
    Progress,
    Prompting,
    Refinement,
    Registration,
    Search,
    Settings,
    Solving,
    Stage,
    family_named,
    register_direct,
    register_pair,
)
from warpwright.methods.implicit import check_tolerance
from warpwright.methods.intensities import Intensities
from warpwright.methods.search import moving_lattice, search_memory
from warpwright.product.choice import TRANSFORMS, Choice, check_window, kind_of
from warpwright.product.choices import Initialise, Kind
from warpwright.product.model_folder import ModelFolder, Score, read_model
from warpwright.product.trust import Trust, trust
from warpwright.transforms import Affine, Transform, centring

__all__ = ["Learned", "check_axes", "learned", "opened", "settings_beside"]

AnyModule = TypeVar("AnyModule", bound=nn.Module)
SEARCHED = ("rigid", "affine", "matching")  # starts that a search finds, from an initial transform if there is one
FAMILIES: dict[str, Kind] = {**TRANSFORMS, "affinefield": "affine"}  # by the kind of a table


@dataclass(frozen=True, kw_only=True)
class OfFeatures:
    """What a file says of the search of a model of features, under the names that it has for a search by images.

    Args:
        deformable: the family of transforms.
        steps: bound on the steps at every scale of the features, coarse to fine.
        tolerance: relative fall of the energy a step below which a scale stops; None takes all steps.
        intensities: how the images themselves count beside their features; None for not at all.

    Raises:
        BadInput: there is a scale without steps, or the tolerance is negative.
    """

    deformable: AnyFamily
    steps: tuple[int, ...]
    tolerance: float | None
    intensities: Intensities | None = None

    def __post_init__(self) -> None:
        if min(self.steps, default=0) < 1:
            raise BadInput(f"a search of features needs at least 1 step for each scale, got {list(self.steps)}")
        check_tolerance(self.tolerance)


KEYS = tuple(field.name for field in fields(OfFeatures))
LEVELS = "levels"  # a key that no file for a model of features has: its levels are those of training


@dataclass(frozen=True, eq=False, kw_only=True)
class Learned:
    """How a model registers a pair.

    Args:
        folder: the model.
        refinement: steps on a copy of its weights.
        field_steps: steps of the classical solver on the field that the model gives, at full resolution.
        initialise: where the network begins; None for the initial transform, or else the start that the model was trained
            with. As without a model, an initial transform takes the place of "none", "centre" and "moments", and linear stages
            begin from it.
        given: whether there is an initial transform.
        search: what a model of features looks for, and how; None for a model that estimates its map in one pass.
        score: what then says where residuals can be trusted; None where that is not asked for.
    """

    folder: ModelFolder
    refinement: Refinement
    field_steps: int
    initialise: Initialise | None
    given: bool
    search: Search | None
    score: Score | None

    @property
    def begins(self) -> str:
        """Where the network begins, in words."""
        if self.initialise is None or (self.given and self.initialise not in SEARCHED):
            return "initial" if self.given else f"{self.folder.model.settings.preparation.start} (the model's)"
        return self.initialise

    @property
    def searches(self) -> bool:
        """Whether the classical solver has a part in it."""
        return self.field_steps > 0 or self.initialise in ("moments", *SEARCHED)

    def memory(self, fixed: Grid, moving: Grid) -> int:
        """Bytes that a search by features takes on the CPU at its highest point, an estimate; 0 of a model that makes none.

        Args:
            fixed: grid of the fixed image.
            moving: grid of the moving image, which is taken to lie where the model's own start puts it.
        """
        if self.search is None:
            return 0
        model = self.folder.model
        grid = model.settings.lattice(fixed)
        other = moving_lattice(grid, moving, model.settings.preparation.affine(fixed, moving))
        return search_memory(cast(Solving, model.network), self.search, (grid, other), fixed)

    def to_mapping(self) -> dict[str, Any]:
        """What `result.json` says of it."""
        search = {} if self.search is None else _told(self.search)
        score = {} if self.score is None else {"score_sha256": self.score.digest}
        return {
            "path": str(self.folder.path),
            "sha256": self.folder.digest,
            "network": type(self.folder.model.settings.network).__name__,
            "refine": self.refinement.steps,
            "refine_rate": self.refinement.rate,
            "refine_field": self.field_steps,
            "initialise": self.begins,
            **search,
            **score,
        }

    def register(
        self,
        fixed: Image,
        moving: Image,
        settings: Settings,
        masks: tuple[Image | None, Image | None],
        initial: Transform | None,
        device: str,
        progress: Callable[[Progress], None] | None,
    ) -> Registration:
        """The registration; `settings` say how linear stages before it and the steps on the field after it work."""
        given = cast(Affine | None, initial)
        start, before, notes = self._start(fixed, moving, settings, masks, given, device, progress)
        found = register_direct(
            on_device(self.folder.model, device),
            fixed,
            moving,
            fixed_mask=masks[0],
            moving_mask=masks[1],
            given=given,
            start=start,
            refinement=self.refinement,
            search=self.search,
            device=device,
            progress=progress,
        )
        found = replace(found, stages=(*before, *found.stages), notes=(*notes, *found.notes))
        if not self.field_steps:
            return found
        finest = replace(settings, start="centre", linear=(), matching=None, levels=(1,), steps=(self.field_steps,))
        masked = {"fixed_mask": masks[0], "moving_mask": masks[1], "device": device}
        untouched = register_pair(fixed, moving, replace(finest, deformable=None), initial=given, **masked)
        prompts = None if self.search is None else self.search.prompts
        after = register_pair(fixed, moving, finest, initial=found.forward, prompts=prompts, progress=progress, **masked)
        return replace(
            after,
            stages=(*found.stages, *after.stages),
            energy_before=untouched.energy_before,  # of the same similarity as the energy after
            notes=(*found.notes, *after.notes),
        )

    def trust(
        self, fixed: Image, moving: Image, masks: tuple[Image | None, Image | None], forward: Transform, device: str
    ) -> Trust | None:
        """Where residuals of a registration can be trusted, if that was asked for."""
        if self.score is None:
            return None
        sides = (Annotated(image=fixed, mask=masks[0]), Annotated(image=moving, mask=masks[1]))
        return trust(on_device(self.score.network, device), self.folder.model.settings, *sides, forward, device)

    def _start(
        self,
        fixed: Image,
        moving: Image,
        settings: Settings,
        masks: tuple[Image | None, Image | None],
        given: Affine | None,
        device: str,
        progress: Callable[[Progress], None] | None,
    ) -> tuple[Affine | None, tuple[Stage, ...], tuple[str, ...]]:
        """The affine to begin from, None for the model's own, the stages that found it, and what they have to say."""
        if self.initialise is None or (given is not None and self.initialise not in SEARCHED):
            return given, (), ()
        if self.initialise in ("none", "centre"):
            return Affine.identity(fixed.grid.dim) if self.initialise == "none" else centring(fixed.grid, moving.grid), (), ()
        found = register_pair(
            fixed,
            moving,
            replace(settings, deformable=None),
            fixed_mask=masks[0],
            moving_mask=masks[1],
            initial=given,
            device=device,
            progress=progress,
        )
        return cast(Affine, found.forward), found.stages, found.notes


def opened(model: str | Path | ModelFolder | None) -> ModelFolder | None:
    """The model that a person names; None for none.

    Raises:
        BadInput: the folder cannot be used.
    """
    return read_model(model) if isinstance(model, (str, Path)) else model


def check_axes(model: ModelFolder | None, image: Image) -> None:
    """That an image has as many axes as a model is for, if there is one.

    Raises:
        BadInput: it has others.
    """
    if model is not None and image.grid.dim != model.model.settings.dim:
        found = f"has {image.grid.dim} axes, the model {model.path} is for {model.model.settings.dim}"
        raise BadInput(f"{image.name}: {found}: expected as many")


def settings_beside(model: ModelFolder | None, choice: Choice, grid: Grid) -> Settings:
    """What a choice means for a search by images: all of it, but for what a model of features takes for its own search.

    Raises:
        BadInput: as `Choice.settings` says.
    """
    features = model is not None and isinstance(model.model.network, Solving)
    return choice.settings(grid, but=(*KEYS, LEVELS) if features else ())


def learned(
    folder: ModelFolder | None,
    *,
    refine: int,
    refine_rate: float | None,
    refine_field: int,
    initial: Transform | None,
    choice: Choice,
    settings: Settings,
    prompts: Prompting | None,
    score: bool,
) -> Learned | None:
    """What was asked for, checked; None without a model.

    Raises:
        BadInput: steps or a score without a model, negative steps, a transform or a score that the model does not give, an
            initial transform with a field, prompts for a model that does not search, or a choice for a search that is not
            asked for.
    """
    if folder is None:
        given = {"refine": refine, "refine-field": refine_field, "refine-rate": refine_rate is not None}
        name = next((name for name, there in given.items() if there), None)
        if name is not None:
            raise BadInput(f"--{name} was given without --model, expected a model to refine")
        if score:
            raise BadInput("--score was given without --model, expected a model that was trained with a score")
        return None
    if refine_rate is not None and not refine:
        raise BadInput("--refine-rate was given without --refine, expected a number of steps too")
    if refine_field < 0:
        raise BadInput(f"--refine-field must be at least 0, got {refine_field}")
    if initial is not None and not isinstance(initial, Affine):
        raise BadInput("--initial holds a displacement field, expected an affine to begin a registration by --model from")
    search = _search(folder, choice, prompts)
    if search is None and settings.deformable is None:
        raise BadInput("--model gives a deformable map, a linear transform was asked for: expected one of the two")
    linear = settings.deformable is None or (search is not None and isinstance(search.family, AffineField))
    if linear and refine_field:
        raise BadInput("--refine-field refines a deformable map, a linear transform was asked for: expected one of the two")
    if search is None and prompts is not None:
        raise BadInput("prompts are for a search, --model gives its map in one pass: expected a model of features, or none")
    if score and folder.score is None:
        raise BadInput(f"{folder.path}: has no score, expected a model trained with the weighting adaptivescoring for --score")
    refinement = Refinement(steps=refine) if refine_rate is None else Refinement(steps=refine, rate=refine_rate)
    found = Learned(
        folder=folder,
        refinement=refinement,
        field_steps=refine_field,
        initialise=choice.initialise,
        given=initial is not None,
        search=search,
        score=folder.score if score else None,
    )
    if not found.searches:
        _refuse_idle(choice, features=search is not None)
    return found


def _refuse_idle(choice: Choice, *, features: bool) -> None:
    """Refuse what is chosen for a search by images where there is none, be it a model of features or another."""
    named = {"similarity": choice.similarity, "preset": choice.preset}
    named |= {} if features else {"transform": choice.transform, "config": choice.config}
    idle = next((f"--{name}" for name, value in named.items() if value is not None), None)
    if not features and idle is not None:
        raise BadInput(f"{idle} is for a search, --model needs none: expected --refine-field or a linear --initialise with it")
    if features and idle is None:
        idle = next((f"{choice.config}: its {key!r}" for key in choice.read()[0] if key not in KEYS), None)
    if idle is not None:
        why = "is for a search by images, a model of features compares its features"
        raise BadInput(f"{idle} {why}: expected no more than {', '.join(KEYS)} in a --config")


def _told(search: Search) -> dict[str, Any]:
    """A search as plain values; a table of settings tells its kind."""
    family = {KIND: type(search.family).__name__.lower(), **to_mapping(search.family)}
    beside = None if search.intensities is None else to_mapping(search.intensities)
    return {"family": family, "steps": list(search.steps), "tolerance": search.tolerance, "intensities": beside}


def _search(folder: ModelFolder, choice: Choice, prompts: Prompting | None) -> Search | None:
    """What a model of features is to look for: what it was trained with, but for what is chosen; None for another model."""
    network = folder.model.network
    if not isinstance(network, Solving):
        return None
    trained, scales = network.settings, list(network.settings.features.scales)
    held, where = choice.read()
    if LEVELS in held:
        raise BadInput(
            f"{where}: has levels, a model of features has the scales {scales} of its training: expected no such key"
        )
    found = {key: value for key, value in held.items() if key in KEYS}
    name = choice.transform or FAMILIES.get(kind_of(found, "deformable"))
    family = trained.family if name is None else family_named(name, trained.family, min(network.spacing))
    asked = choice.over(OfFeatures(deformable=family, steps=trained.steps, tolerance=trained.tolerance), found, where)
    if len(asked.steps) != len(trained.steps):
        raise BadInput(f"{where}: steps are {list(asked.steps)}, the features have the scales {scales}: expected as many")
    if asked.intensities is not None:
        check_window(asked.intensities.similarity, network.spacing, f"{where}.intensities.similarity")
    return Search(
        family=asked.deformable,
        steps=asked.steps,
        tolerance=asked.tolerance,
        prompts=prompts,
        intensities=asked.intensities,
    )


def on_device(model: AnyModule, device: str) -> AnyModule:
    """The model or network itself where it is there already, else a copy: what was read stays where it is."""
    here = next(model.parameters()).device
    return model if torch.empty(0, device=device).device == here else copy.deepcopy(model).to(device)
