"""Rounds: every image is registered to the template so far, by a cohort, and the means make the next one.

A round's template is written last; what was done stays, and the same command goes on from there. The outcome is decided by the
images and the options alone: neither their order on the command line nor the number of workers matters.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from warpwright.cohort.check import check_options
from warpwright.cohort.run import Engine, Plan, execute, make_plan
from warpwright.cohort.work import read_work
from warpwright.errors import BadInput, Failed, first_of
from warpwright.geometry import Grid, Image
from warpwright.io.atomic import write_csv
from warpwright.io.image import read_mask, read_scalar, write_image
from warpwright.io.transform import read_transform
from warpwright.product.resources import check_memory
from warpwright.template.mean import (
    centre_of_mass,
    common_grid,
    inverse_of,
    mean_image,
    mean_shape,
    normalised,
    sharpened,
    sharpness,
    shift,
)
from warpwright.template.page import write_page
from warpwright.template.work import (
    PAIRS,
    ROUNDS,
    TEMPLATE,
    Names,
    Round,
    Template,
    begun,
    check_images,
    described,
    digest_of,
    mask_of,
    named,
    round_of,
    save,
)
from warpwright.transforms import Composite, Transform

__all__ = ["Listen", "build"]

LEAST = 4  # voxels along each axis of a template
BYTES = 200  # a voxel, of memory while a mean is made
LINEAR = ("rigid", "affine")
FIRST = "affine"  # kind of map of the first round: a blurred mean has no details to follow

Listen = Callable[[int, int, int, int], None]  # round; images registered in it, of how many, and how many failed


def build(
    wanted: Template, folder: Path, engine: Callable[[int], Engine], listen: Listen, *, keep: bool = False
) -> tuple[Round, ...]:
    """Make a template, or go on with one.

    Args:
        wanted: what is asked for. More rounds than were asked for before go on from there.
        folder: absent, empty, or that of an earlier run of the same images and options.
        engine: of a cohort, for a number of pairs.
        listen: is told how far it is.
        keep: keep what each round's cohort left. By default it is removed when the round is over.

    Returns:
        The start and every round; the folder holds `TEMPLATE`.

    Raises:
        BadInput: images, options or the folder cannot be used.
        Failed: an image could not be registered, or the work was interrupted; what was done stays.
    """
    folder, names = folder.absolute(), named(wanted.images)
    told = described(wanted, names)
    rounds = begun(folder, told)
    if not rounds:  # else they were good before, and are the same
        check_options(wanted.options)
        check_images(wanted, names)
    (folder / ROUNDS).mkdir(parents=True, exist_ok=True)
    save(folder, told, rounds)
    job = _Job(wanted=wanted, names=names, folder=folder)
    if not rounds:
        rounds.append(job.start())
        save(folder, told, rounds)
    while len(rounds) <= wanted.rounds:
        number = len(rounds)
        rounds.append(job.round(number, engine, listen))
        save(folder, told, rounds)
        if not keep:
            shutil.rmtree(folder / ROUNDS / str(number), ignore_errors=True)
    last = wanted.rounds
    write_image(folder / TEMPLATE, read_scalar(round_of(folder, last)))
    job.write_pairs(folder / PAIRS, f"{ROUNDS}/{last}")
    write_page(folder, rounds[: last + 1], [round_of(folder, k) for k in range(last + 1)], len(names))
    return tuple(rounds[: last + 1])


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The images and where their template goes."""

    wanted: Template
    names: Names
    folder: Path

    def start(self) -> Round:
        """The template that the first round registers to."""
        if self.wanted.initial is not None:
            image = self._read(self.wanted.initial)
            return self._write(0, image, torch.ones_like(image.data))
        centres, grids = [], []
        for path in self.names.values():
            image = self._read(path)
            centres.append(centre_of_mass(image))
            grids.append(image.grid)
        grid = common_grid(grids, centres, self.wanted.spacing)
        self._check_size(grid)
        places = zip(self.names.values(), centres, strict=True)
        mean, known = mean_image(((self._read(path), shift(grid.centre, centre)) for path, centre in places), grid)
        return self._write(0, Image(mean, grid, TEMPLATE), known)

    def _check_size(self, grid: Grid) -> None:
        """That a template on a grid can be made.

        Raises:
            BadInput: it has hardly a voxel.
            Failed: there is not enough memory.
        """
        if self.wanted.spacing is not None and min(grid.shape) < LEAST:
            shape = " x ".join(map(str, grid.shape))
            raise BadInput(
                f"--spacing {self.wanted.spacing:g}: leaves {shape} voxels, expected a finer one, for {LEAST} along each axis"
            )
        check_memory(BYTES * grid.size, "a template of such voxels")

    def round(self, number: int, engine: Callable[[int], Engine], listen: Listen) -> Round:
        """Register all images to the template before, and make the next one of the means."""
        old, known_before = read_scalar(round_of(self.folder, number - 1)), read_mask(mask_of(self.folder, number - 1))
        done = self._register(number, engine, lambda *counts: listen(number, *counts))
        weight = old.data * known_before.data
        shape = mean_shape(self._transforms(number), old.grid, weight)
        back = inverse_of(shape, old.grid)
        both = zip(self.names.values(), self._transforms(number), strict=True)
        mean, known = mean_image(((self._read(path), Composite((found, back))) for path, found in both), old.grid)
        mean = sharpened(mean, self.wanted.sharpen) * known
        records = [state.record for state in done.states]
        return self._write(
            number,
            Image(mean, old.grid, TEMPLATE),
            known,
            change=float((mean - old.data).square().mean().sqrt()),
            shape_mm=_rms(shape, old.grid, weight),
            energy=fmean(record["figures"]["energy_after"] for record in records),
            warnings=tuple(pair.id for pair, record in zip(done.work.pairs, records, strict=True) if record["warnings"]),
        )

    def _register(self, number: int, engine: Callable[[int], Engine], listen: Callable[[int, int, int], None]) -> Plan:
        """The cohort of a round, finished.

        Raises:
            Failed: an image could not be registered. A mean of those that were easy is a mean of others.
        """
        place, options = self.folder / ROUNDS / str(number), self.wanted.options
        place.mkdir(exist_ok=True)
        self.write_pairs(place / PAIRS, f"../{number - 1}")
        if number == 1 and options.transform not in LINEAR and options.model is None and options.config is None:
            options = replace(options, transform=FIRST)
        work = read_work(place / PAIRS, options)
        plan = make_plan(work, place / "pairs", command=f"round {number} of a template", retry=True)
        done = execute(plan, engine(len(plan.todo)), listen)
        missing = [pair.id for pair, state in zip(work.pairs, done.states, strict=True) if state.status != "done"]
        if missing:
            told = [f"{name} ({sentence})" for name, sentence in done.failures()] or missing
            raise Failed(
                f"{len(missing)} of {len(self.names)} images could not be registered in round {number}:"
                f" {first_of(told, '; ')}; the same command tries them again, or leave them out in a new folder"
            )
        return done

    def _transforms(self, number: int) -> Iterator[Transform]:
        """World points of the template before to world points of each image, read one at a time."""
        for name in self.names:
            yield read_transform(self.folder / ROUNDS / str(number) / "pairs" / name / "transform.h5")

    def _read(self, path: Path) -> Image:
        return normalised(read_scalar(path, header=self.wanted.options.header))

    def _write(self, number: int, image: Image, known: Tensor, **figures: Any) -> Round:
        path = round_of(self.folder, number)
        write_image(mask_of(self.folder, number), Image(known.to(torch.uint8), image.grid, "mask"))
        write_image(path, image)
        return Round(sha256=digest_of(self.folder, number), sharpness=sharpness(image.data, image.grid), **figures)

    def write_pairs(self, path: Path, template: str) -> None:
        """A table of the images and a template, for a cohort."""
        files = (f"{template}.nii.gz", f"{template}-mask.nii.gz")
        rows = ((name, *files, str(image)) for name, image in self.names.items())
        write_csv(path, ("id", "fixed", "fixed_mask", "moving"), rows)


def _rms(shape: Tensor, grid: Grid, weight: Tensor) -> float:
    """Root of the mean squared length of a displacement (D, *S) in voxels of a grid, mm, weighed by (1, *S)."""
    matrix = torch.tensor(grid.affine[:-1, :-1], dtype=shape.dtype)
    lengths = (matrix @ shape.flatten(1)).square().sum(0)
    return float(((lengths * weight.flatten()).sum() / weight.sum()).sqrt())
