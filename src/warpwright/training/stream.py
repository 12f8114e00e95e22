"""Training pairs by number: what the n-th pair is depends on the seed and on n alone.

So a run that is resumed, or shared among processes, sees the very pairs that an uninterrupted one sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from warpwright.data import Augmentation, CasePair, Cases, Cohort
from warpwright.energies.pairs import PairBatch
from warpwright.errors import BadInput, WarpwrightError
from warpwright.methods import Annotated, ModelSettings, joined, lay_pair
from warpwright.training.processes import Processes
from warpwright.transforms import Affine, Preparation

__all__ = ["Stream", "prepared"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Stream:
    """Where training pairs come from.

    Args:
        cohort: the images and how they are paired.
        cases: reads them.
        preparation: the model's.
        augmentation: random changes.
        seed: of everything drawn.
        batch: pairs of a batch.
        accumulate: batches of a step.
    """

    cohort: Cohort
    cases: Cases
    preparation: Preparation
    augmentation: Augmentation
    seed: int
    batch: int
    accumulate: int

    def steps(self, begin: int, end: int, processes: Processes) -> Iterator[list[PairBatch]]:
        """The batches of this process for steps `begin` to `end`; the next step's are laid while one is worked on."""
        if begin >= end:
            return
        with ThreadPoolExecutor(1, thread_name_prefix="pairs") as beside:
            coming = beside.submit(self.step, begin, processes)
            for number in range(begin, end):
                batches = coming.result()
                if number + 1 < end:
                    coming = beside.submit(self.step, number + 1, processes)
                yield batches

    def step(self, number: int, processes: Processes) -> list[PairBatch]:
        """The batches of one step."""
        first = (number * processes.count + processes.rank) * self.accumulate * self.batch
        pairs = [self.pair(first + k) for k in range(self.accumulate * self.batch)]
        return [joined(pairs[k : k + self.batch]) for k in range(0, len(pairs), self.batch)]

    def pair(self, number: int) -> PairBatch:
        """The n-th pair of the stream, changed at random."""
        rng = np.random.default_rng((self.seed, number))
        pair = self.cohort.draw(rng)
        with naming(pair):
            return self._changed(pair, rng)

    def _changed(self, pair: CasePair, rng: np.random.Generator) -> PairBatch:
        fixed, moving = _annotated(pair, self.cases)
        grid = self.preparation.grid(fixed.image.grid)
        start = self.preparation.affine(fixed.image.grid, moving.image.grid)
        first, second = self.augmentation.geometry(grid, rng)
        batch = lay_pair(self.preparation, fixed, moving, (first, start @ second), grid)
        images = {side: self.augmentation.intensity(getattr(batch, side)[0], rng)[None] for side in ("fixed", "moving")}
        return replace(batch, names=(pair.id,), **images)


def prepared(pair: CasePair, cases: Cases, model: ModelSettings) -> PairBatch:
    """A pair as a batch of one, laid as a registration lays it."""
    preparation = model.preparation
    with naming(pair):
        fixed, moving = _annotated(pair, cases)
        grid = model.lattice(fixed.image.grid)
        start = preparation.affine(fixed.image.grid, moving.image.grid)
        batch = lay_pair(preparation, fixed, moving, (Affine.identity(grid.dim), start), grid)
        return replace(batch, names=(pair.id,))


@contextmanager
def naming(pair: CasePair) -> Iterator[None]:
    """Within, a failure is told with the pair's name."""
    try:
        yield
    except WarpwrightError as error:
        raise type(error)(f"pair {pair.id}: {error}") from None


def _annotated(pair: CasePair, cases: Cases) -> tuple[Annotated, Annotated]:
    """Both images with what is known about them; landmarks are those that both have, in one order."""
    loaded = [cases.load(case) for case in (pair.fixed, pair.moving)]
    names = [case.point_names for case in loaded]
    shared = [name for name in names[0] if name in set(names[1])]
    if all(names) and not shared:
        raise BadInput("its two sets of landmarks have no name in common, expected the same names for the same places")
    one, two = (
        Annotated(
            image=case.image,
            mask=case.mask,
            labels=case.labels,
            points=None if case.points is None else case.points[[case.point_names.index(name) for name in shared]],
        )
        for case in loaded
    )
    return one, two
