"""One work done by every tool in turn: interleaved rounds, medians, and the lines that say whether a target is met."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tools import Files, Run, Tool, command_run, read_map, worker_run
from warpwright.errors import Failed, WarpwrightError
from warpwright.geometry import Image
from warpwright.io import read_image
from warpwright.product.scores import determinant
from warpwright.transforms import Transform, resample

__all__ = ["Contest", "Job", "goal", "rivals"]

ALIKE = 0.9  # correlation of an image moved by two programs, whose interpolation differs
Score = Callable[[Sequence[Transform]], float]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What every row is given.

    Args:
        data: folder of the data sets.
        tools: ours first, then the peers.
        judged: our preset that must reach the targets.
        threads: CPU threads of every tool.
        seed: of everything drawn at random here.
        rounds: how often every tool does the same.
        patience: seconds of a run from which a tool is not asked again.
        tell: shows a sentence about a row under way.
    """

    data: Path
    tools: tuple[Tool, ...]
    judged: str
    threads: int
    seed: int
    rounds: int
    patience: float
    tell: Callable[[str], None]

    @property
    def judge(self) -> Tool:
        """Ours, with the preset that must reach the targets."""
        return next(tool for tool in self.tools if tool.own and tool.preset == self.judged)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Pairs that every tool registers.

    Args:
        pairs: fixed and moving file of each.
        fixed: the fixed images, in the same order.
        score: accuracy of the maps of all pairs.
        measure: what the accuracy is called.
        better: "higher" or "lower".
        command: whether ours is also run as a command, for the whole process; only for a single pair.
    """

    pairs: Sequence[tuple[Path, Path]]
    fixed: Sequence[Image]
    score: Score
    measure: str
    better: str
    command: bool

    def run(self, contest: Contest) -> list[dict[str, Any]]:
        """All rounds of all tools: one summary for each."""
        runs: dict[str, list[dict[str, Any]]] = {tool.name: [] for tool in contest.tools}
        failed: dict[str, str] = {}
        for number in range(contest.rounds):
            for tool in contest.tools:
                earlier = runs[tool.name]
                if tool.name in failed or (earlier and earlier[-1]["whole"] > contest.patience):
                    continue
                try:
                    earlier.append(self._once(contest, tool))
                except WarpwrightError as error:
                    failed[tool.name] = str(error)
                    contest.tell(f"{tool.name}: {error}")
                else:
                    contest.tell(f"round {number + 1}, {self._told(tool.name, earlier[-1])}")
        return [self._summary(tool, runs[tool.name], failed.get(tool.name)) for tool in contest.tools]

    def _once(self, contest: Contest, tool: Tool) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="side-by-side-") as name:
            places = [Files(fixed=f, moving=m, folder=Path(name) / str(k)) for k, (f, m) in enumerate(self.pairs)]
            run = worker_run(tool, places, contest.threads)
            whole = run
            if tool.own and self.command:
                places = [Files(fixed=p.fixed, moving=p.moving, folder=Path(name) / "result") for p in places]
                whole = command_run(tool, places[0], contest.threads)
            maps = [read_map(place.folder, image.grid) for place, image in zip(places, self.fixed, strict=True)]
            for place, through in zip(places, maps, strict=True):
                _check_map(tool, place, through)
            bent = sum(_folds(transform, image) for transform, image in zip(maps, self.fixed, strict=True))
            return {**_taken(run, whole), "accuracy": self.score(maps), "folds": bent}

    def _told(self, name: str, run: Mapping[str, Any]) -> str:
        times = f"{run['seconds']:.2f} s to the field, {run['whole']:.1f} s in all, {run['peak_gb']:.2f} GB"
        return f"{name}: {self.measure} {run['accuracy']:.4f}, {times}, {run['folds']:.0f} folded voxels"

    def _summary(self, tool: Tool, runs: Sequence[Mapping[str, Any]], failed: str | None) -> dict[str, Any]:
        facts = {"name": tool.name, "own": tool.own, "version": tool.version, "settings": tool.settings}
        facts |= {"measure": self.measure, "better": self.better, "failed": failed, "runs": list(runs)}
        if runs:
            facts |= {key: median(run[key] for run in runs) for key in runs[0] if key != "each"}
        return facts


def _check_map(tool: Tool, place: Files, through: Transform) -> None:
    """The map that was read moves the image as the tool itself did, or it is scored for another map than its own."""
    file = place.folder / "moved.nii.gz"
    if not file.is_file():
        return  # ours in memory, whose map needs no translation
    theirs = read_image(file)
    moving = read_image(place.moving)
    mine = resample(moving, through, theirs.grid)
    seen = resample(Image(torch.ones_like(moving.data), moving.grid), through, theirs.grid).data > 1 - 1e-3
    alike = float(torch.corrcoef(torch.stack([theirs.data[seen], mine.data[seen]]))[0, 1])
    if not alike >= ALIKE:
        raise Failed(f"{tool.name}: its map and its moved image do not agree (correlation {alike:.2f})")


def _taken(run: Run, whole: Run) -> dict[str, Any]:
    """What a run took: the median of its pairs to the field, and the whole process."""
    taken = {"whole": whole.whole, "cpu": whole.cpu, "peak_gb": whole.peak_gb}
    return {"seconds": median(run.seconds), "each": run.seconds, **taken}


def _folds(transform: Transform, fixed: Image) -> int:
    """Voxels of the fixed grid where the determinant of the full map is not positive."""
    return int((determinant(transform, fixed.grid).data <= 0).sum())


def _named(summaries: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """The summary of a tool that finished at least one run."""
    return next((one for one in summaries if one["name"] == name and one["runs"]), None)


def goal(
    summaries: Sequence[Mapping[str, Any]],
    judge: Tool,
    rival: str,
    shares: Mapping[str, float],
    *,
    accuracy: bool = True,
    least: float = -math.inf,
    most: float = math.inf,
) -> tuple[str, bool]:
    """Whether ours reaches a rival's accuracy in a share of its time; every preset is told, the judged one decides.

    Args:
        summaries: of all tools.
        judge: ours, that decides.
        rival: name of the peer.
        shares: "seconds" or "whole" to the largest share of the rival's.
        accuracy: whether ours must be at least as accurate as the rival.
        least: the accuracy that ours must have besides.
        most: the seconds to the field that ours may take.

    Returns:
        What was reached, in words, and whether it is enough.
    """
    other = _named(summaries, rival)
    words, met = [], False
    for one in (one for one in summaries if one["own"]):
        if not one["runs"]:
            words.append(f"{one['name']} failed: {one['failed']}")
            continue
        sign = 1 if one["better"] == "higher" else -1
        fine = sign * one["accuracy"] >= least and one["seconds"] <= most
        parts = [f"{one['measure']} {one['accuracy']:.4f}", f"{one['seconds']:.2f} s to the field, {one['whole']:.1f} s in all"]
        if other is None:
            parts, fine = [*parts, f"nothing to compare with, as {rival} was not run"], False
        else:
            for key, share in shares.items():
                ratio = one[key] / other[key]
                parts.append(f"{ratio:.2f} of {rival}'s {'time' if key == 'seconds' else 'whole process'} ({other[key]:.1f} s)")
                fine = fine and ratio <= share
            fine = fine and (not accuracy or sign * one["accuracy"] >= sign * other["accuracy"])
        met = met or (fine and one["name"] == judge.name)
        words.append(f"{one['name']} {', '.join(parts)} ({'yes' if fine else 'no'})")
    return "; ".join(words), met


def rivals(summaries: Sequence[Mapping[str, Any]], names: Sequence[str], start: str) -> str:
    """What the peers reach, for the table of targets."""
    found = [(name, _named(summaries, name)) for name in names]
    return "; ".join([start, *(f"{name} was not run" if one is None else _rival_words(one) for name, one in found)])


def _rival_words(other: Mapping[str, Any]) -> str:
    return f"{other['name']} {other['accuracy']:.4f}, {other['seconds']:.2f} s, whole process {other['whole']:.1f} s"
