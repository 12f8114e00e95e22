"""The bundled real pairs, registered end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warpwright.data import Pair, bundled_pairs
from warpwright.methods import Progress
from warpwright.product.choices import Kind
from warpwright.product.output import check_folder
from warpwright.product.register import register
from warpwright.product.result import RegistrationResult

__all__ = ["HEADER", "Row", "demo"]

# what a row of a model is called, and the transform that is asked of it
WAYS: dict[str, tuple[str, Kind | None]] = {"hippocampus": ("model", None), "hippocampus-features": ("features", "greedy")}
HEADER = f"{'pair':28}{'Dice':>16}{'landmarks, mm':>20}{'folds, %':>10}{'seconds':>9}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Row:
    """One pair of the demo."""

    name: str
    result: RegistrationResult

    def line(self) -> str:
        """The figures before and after, under `HEADER`."""
        scores = self.result.scores
        dice = "{:.3f} -> {:.3f}".format(*scores.mean_dice) if scores.dice_after else "-"
        before, after = scores.tre_before, scores.tre_after
        points = f"{before['mean']:.2f} -> {after['mean']:.2f}" if after else "-"
        seconds = self.result.record["seconds"]["registration"]
        return f"{self.name:28}{dice:>16}{points:>20}{scores.folded_percent:>10.3g}{seconds:>9.1f}"

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        record = self.result.record
        return {"name": self.name, "scores": self.result.scores.to_mapping(), "seconds": record["seconds"]}


def demo(
    output: str | Path,
    *,
    force: bool = False,
    command: str | None = None,
    listen: Callable[[str], AbstractContextManager[Callable[[Progress], None]]],
) -> Iterator[Row]:
    """Register every bundled pair with the default preset, and again by every bundled model that is for such images.

    Each result is saved in a folder of its own.

    Args:
        output: a new or empty folder.
        force: replace the results of an earlier run.
        command: the command line, for each `result.json`.
        listen: the name of a pair to a context that gives its progress listener.

    Yields:
        The rows, one after the other, as they are done.

    Raises:
        BadInput: the folder is not empty or cannot be written.
    """
    folder = check_folder(output, force=force)
    for pair, model in _ways():
        way, transform = ("", None) if model is None else WAYS[model.name]
        name = pair.name if model is None else f"{pair.name}-{way}"
        with listen(name) as progress:
            result = register(
                pair.fixed,
                pair.moving,
                transform=transform,
                similarity=pair.similarity,
                fixed_labels=pair.fixed_labels,
                moving_labels=pair.moving_labels,
                fixed_points=pair.fixed_points,
                moving_points=pair.moving_points,
                space=pair.points_space,
                model=model,
                progress=progress,
            )
        result.save(folder / name, force=force, command=command)
        yield Row(name=name, result=result)


def _ways() -> Iterator[tuple[Pair, Path | None]]:
    """Every pair without a model, and then with its model."""
    for pair in bundled_pairs():
        yield pair, None
        yield from ((pair, model) for model in pair.models)
