"""Figures of a comparison: accuracy against time, one panel a work; time and memory against size."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from record import Line

__all__ = ["draw_front", "draw_scaling"]

OURS, THEIRS = "#c8102e", "#4a5568"
LABELS = {"greedy": "greedy", "ants": "ANTs SyN", "elastix": "elastix", "dipy": "DIPY SyN", "fireants": "FireANTs (CPU)"}
LABELS |= {"convexadam": "convexAdam"}


def draw_front(lines: Sequence[Line], path: Path) -> None:
    """Accuracy (better upwards) against seconds from images in memory to the field, log scale."""
    works = [line.details for line in lines if line.details.get("tools")]
    works = [work for work in works if any(one["runs"] for one in work["tools"])]
    if not works:
        return
    figure = Figure(figsize=(4.6 * len(works), 4.2), layout="constrained")
    for axes, work in zip(figure.subplots(1, len(works), squeeze=False)[0], works, strict=True):
        _panel(axes, work)
    figure.savefig(path, dpi=150)


def _panel(axes: Axes, work: Mapping[str, Any]) -> None:
    done = [one for one in work["tools"] if one["runs"]]
    ours = sorted((one for one in done if one["own"]), key=lambda one: one["seconds"])
    axes.plot(
        [one["seconds"] for one in ours], [one["accuracy"] for one in ours], color=OURS, lw=1.5, zorder=2, label="Warpwright"
    )
    axes.legend(frameon=False, fontsize=8.5, loc="lower left", labelcolor=OURS)
    for one in done:
        colour = OURS if one["own"] else THEIRS
        axes.plot(one["seconds"], one["accuracy"], "o" if one["own"] else "s", color=colour, ms=7, zorder=3)
    axes.set_xscale("log")
    lower = done[0]["better"] == "lower"
    spread = [one["accuracy"] for one in done]
    margin = 0.12 * max(max(spread) - min(spread), 1e-3)
    axes.set_ylim(min(spread) - margin, max(spread) + margin)
    if lower:
        axes.invert_yaxis()
    times = [one["seconds"] for one in done]
    span = max(times) / min(times)
    axes.set_xlim(min(times) / (1.3 * span**0.35), max(times) * 1.3 * span**0.35)
    for one in done:
        _label(axes, one, done)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.grid(color="#e2e8f0", lw=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(work["title"], fontsize=11, loc="left")
    axes.set_xlabel("seconds, images in memory to field")
    axes.set_ylabel(f"{done[0]['measure']}, better upwards" if lower else done[0]["measure"])


def _label(axes: Axes, one: Mapping[str, Any], done: Sequence[Mapping[str, Any]]) -> None:
    """A peer's name beside its point, on the left where another point lies close on the right; our presets above and below."""
    if one["own"]:
        ours = sorted((other for other in done if other["own"]), key=lambda other: other["seconds"])
        offset, place = (0, -15 if ours.index(one) % 2 else 9), "center"
        name = one["name"].removeprefix("ours ")
    else:
        low, high = sorted(axes.get_ylim())
        close = [
            other
            for other in done
            if other is not one
            and abs(other["accuracy"] - one["accuracy"]) < 0.07 * (high - low)
            and 1 <= other["seconds"] / one["seconds"] < 4
        ]
        offset, place = ((-9, -3), "right") if close else ((9, -3), "left")
        name = LABELS[one["name"]]
    axes.annotate(
        name,
        (one["seconds"], one["accuracy"]),
        xytext=offset,
        textcoords="offset points",
        ha=place,
        fontsize=8.5,
        color=OURS if one["own"] else THEIRS,
        weight="bold" if one["own"] else "normal",
    )


def draw_scaling(lines: Sequence[Line], path: Path) -> None:
    """Time and memory against the number of voxels, both log, with the slope of proportion."""
    found = next((line.details["sizes"] for line in lines if "sizes" in line.details), None)
    if found is None:
        return
    sizes = sorted(int(size) for size in found)
    voxels = [size**3 for size in sizes]
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    panels = (("seconds", "seconds to the field"), ("grown_gb", "GB beyond the warm process"))
    for axes, (key, label) in zip(figure.subplots(1, 2), panels, strict=True):
        values = [max(found[str(size)][key], 1e-3) for size in sizes]
        straight = [values[-1] * v / voxels[-1] for v in voxels]
        axes.loglog(voxels, straight, "--", color=THEIRS, lw=1, label="in proportion to the voxels")
        axes.loglog(voxels, values, "o-", color=OURS, label="Warpwright")
        for v, value in zip(voxels, values, strict=True):
            axes.annotate(f"{value:.2g}", (v, value), xytext=(-6, 6), textcoords="offset points", ha="right", fontsize=8.5)
        axes.set_xlim(voxels[0] / 3, voxels[-1] * 2)
        axes.set_xticks(voxels, [f"{size}³" for size in sizes])
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        axes.set_ylabel(label)
        axes.grid(color="#e2e8f0", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str]) -> int:
    """Draw again from a JSON file: `python benchmarks/front.py FIGURES.json FRONT.png [SCALING.png]`."""
    if len(arguments) not in (2, 3) or not Path(arguments[0]).is_file():
        sys.stderr.write("benchmarks/front.py: expected the JSON file of side_by_side.py and one or two names of PNG files\n")
        return 2
    lines = [Line(**line) for line in json.loads(Path(arguments[0]).read_text(encoding="utf-8"))["lines"]]
    draw_front(lines, Path(arguments[1]))
    if len(arguments) == 3:
        draw_scaling(lines, Path(arguments[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
