"""Charts as numbers: a template draws them, in colours that follow the page's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpwright.product.figure import FLOOR, TICKS

__all__ = ["SPARK", "Chart", "Line", "curve_of", "energies", "histogram", "landmarks", "sparkline"]

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 12, 58  # of the box that the axes enclose
BINS = 61
SAMPLES = 1_000_000  # voxels that a histogram counts, evenly spread
FOLDS = 8  # bars that the one of the folds, if there are any, and its distance to the others take
FOLDS_LEAST = 2  # height of that bar, however few they are
NAMES = 10  # stages from which every other name is left out
POINTS = 120  # of a curve; a stage is not wider than so many pixels, as a rule
SPARK = 72, 22  # width and height of a curve in a table
LINEAR = ("start", "affine", "rigid", "similarity")  # what the stages of a linear search are called


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points of a line, "x,y x,y", and its kind, which is its colour."""

    points: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart in a box of `width` x `height`; places are in its units.

    Args:
        name: for a person, short.
        told: what it says, for a person who does not see it.
        x_label: of the axis across.
        y_label: of the axis up.
        x_ticks: place and text.
        y_ticks: likewise.
        bars: x, y, width, height, kind.
        lines: between points.
        dots: x, y, kind.
        frame: left, top, right and bottom of what the axes enclose.
        width: of the box.
        height: likewise.
    """

    name: str
    told: str
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    bars: tuple[tuple[float, float, float, float, str], ...] = ()
    lines: tuple[Line, ...] = ()
    dots: tuple[tuple[float, float, str], ...] = ()
    frame: tuple[int, int, int, int] = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)
    width: int = WIDTH
    height: int = HEIGHT


def _ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from at most `low` to at least `high`."""
    rough = max(high - low, 1e-12) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= rough * (1 - 1e-9))
    return [round(k * step, 12) for k in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def _across(share: float) -> float:
    return round(LEFT + share * (WIDTH - RIGHT - LEFT), 1)


def _up(value: float, ticks: Sequence[float]) -> float:
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)


def _upwards(ticks: Sequence[float]) -> tuple[tuple[float, str], ...]:
    return tuple((_up(tick, ticks), f"{tick:g}") for tick in ticks)


def energies(stages: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The energies of every stage, one stage beside the other; None where none are known.

    Of a stage whose steps are known (`curve_of`) a line from step to step, of any other one from its beginning to its end.
    Energies of different stages are not comparable: they are taken at other resolutions.
    """
    known = [(str(stage["name"]), curve) for stage in stages if (curve := curve_of(stage) or _ends(stage))]
    if not known:
        return None
    values = [energy for _, curve in known for energy in curve]
    ticks = _ticks(min(*values, 0.0), max(values))
    lines, dots, names = [], [], []
    every = 1 + (len(known) - 1) // NAMES
    for number, (name, curve) in enumerate(known):
        family = "linear" if name.split(" ")[0] in LINEAR else "deformable"
        shares = [(number + 0.15 + 0.7 * place) / len(known) for place in np.linspace(0, 1, len(curve)).tolist()]
        places = [(_across(share), _up(energy, ticks)) for share, energy in zip(shares, curve, strict=True)]
        lines.append(Line(points=_joined(places), kind=family))
        dots.extend((x, y, family) for x, y in (places[0], places[-1]))
        if number % every == 0:
            names.append((_across((number + 0.5) / len(known)), name))
    return Chart(
        name="Energy by stage",
        told="; ".join(f"{name}: {curve[0]:.4g} to {curve[-1]:.4g}" for name, curve in known),
        x_label="stage, each from its first step to its last",
        y_label="energy",
        x_ticks=tuple(names),
        y_ticks=_upwards(ticks),
        lines=tuple(lines),
        dots=tuple(dots),
    )


def curve_of(stage: Mapping[str, Any]) -> list[float]:
    """The energies of a stage from step to step, at most `POINTS` evenly spread; none where fewer than two are known.

    An energy that was not finite is left out. A version before recorded no steps.
    """
    known = _finite(stage.get("energies", ()))
    if len(known) < 2:
        return []
    return [known[k] for k in np.linspace(0, len(known) - 1, min(len(known), POINTS)).round().astype(int).tolist()]


def _ends(stage: Mapping[str, Any]) -> list[float]:
    ends = _finite([stage["energy_start"], stage["energy_end"]])
    return ends if len(ends) == 2 else []


def _finite(energies: Iterable[float | None]) -> list[float]:
    return [float(energy) for energy in energies if energy is not None and math.isfinite(energy)]


def sparkline(stage: Mapping[str, Any]) -> str:
    """The line of `curve_of`, "x,y x,y" in a box of `SPARK` units, from its own least energy to its largest; or nothing."""
    curve = curve_of(stage)
    if not curve:
        return ""
    (width, height), least, span = SPARK, min(curve), max(curve) - min(curve)
    up = [(energy - least) / span if span > 0 else 0.5 for energy in curve]
    across = np.linspace(0, width, len(curve)).tolist()
    return _joined([(round(x, 1), round(height * (1 - y), 1)) for x, y in zip(across, up, strict=True)])


def _joined(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)


def histogram(determinant: np.ndarray, limit: float) -> Chart:
    """How the volume ratios are spread over the voxels; folds, which have none, are a bar of their own at the left.

    Args:
        determinant: of the map, any shape.
        limit: largest |log determinant| shown; what lies beyond is counted in the last bars.
    """
    flat = determinant.ravel()
    folds, ratios = int(np.count_nonzero(flat <= 0)), flat[flat > 0]
    seen = ratios[:: max(1, ratios.size // SAMPLES)]
    logarithm = np.log(np.maximum(seen, FLOOR))
    places = np.clip((logarithm / limit + 1) * (BINS / 2), 0, BINS - 1).astype(np.int64)
    shares = 100 * np.bincount(places, minlength=BINS) / max(places.size, 1) * (ratios.size / flat.size)
    folded = 100 * folds / flat.size
    ticks = _ticks(0, max(float(shares.max()), folded))
    aside = FOLDS if folds else 0
    base, wide = _up(0, ticks), (WIDTH - RIGHT - LEFT) / (BINS + aside)
    bars, names = [], []
    if folds:
        top = min(_up(folded, ticks), base - FOLDS_LEAST)
        bars.append((round(LEFT + wide + 0.5, 1), top, round(wide - 1, 1), round(base - top, 1), "folds"))
        names.append((round(LEFT + 1.5 * wide, 1), "folds"))
    for k, share in enumerate(shares.tolist()):
        top = _up(share, ticks)
        if base > top:
            kind = "shrinks" if k < BINS // 2 else "grows" if k > BINS // 2 else "stays"
            bars.append((round(LEFT + (aside + k) * wide + 0.5, 1), top, round(wide - 1, 1), round(base - top, 1), kind))
    for ratio, text in TICKS.items():
        if abs(math.log(ratio)) <= limit:
            names.append((_across((aside + BINS * (math.log(ratio) / limit + 1) / 2) / (aside + BINS)), text))
    return Chart(
        name="Volume ratios",
        told=_ratios_told(seen, folds, folded),
        x_label="volume in moving / volume in fixed",
        y_label="% of the voxels",
        x_ticks=tuple(names),
        y_ticks=_upwards(ticks),
        bars=tuple(bars),
        height=HEIGHT - 12,
    )


def _ratios_told(ratios: np.ndarray, folds: int, folded: float) -> str:
    """How many voxels fold, and how the ratios of the others are spread."""
    if not ratios.size:
        return "All voxels fold"
    low, middle, high = np.percentile(ratios, [1, 50, 99])
    if not folds:
        return f"Median {middle:.2g}; 98 % of the voxels lie between {low:.2g} and {high:.2g}"
    count = f"{folds} voxel{' folds' if folds == 1 else 's fold'} ({folded:.3g} %)"
    return f"{count}; of the others the median is {middle:.2g}, and 98 % lie between {low:.2g} and {high:.2g}"


def landmarks(before: np.ndarray, after: np.ndarray) -> Chart:
    """Errors of all landmarks before (dashed, squares) and after (solid, dots), mm, each set in ascending order."""
    ticks = _ticks(0, max(float(before.max()), float(after.max()), 1e-3))
    count = len(before)
    lines, dots = [], []
    for kind, errors in (("before", np.sort(before)), ("after", np.sort(after))):
        places = [(_across((k + 0.5) / count), _up(error, ticks)) for k, error in enumerate(errors.tolist())]
        lines.append(Line(points=_joined(places), kind=kind))
        dots.extend((x, y, kind) for x, y in places if count <= 60)
    looks = ("dashed, squares", "solid, dots") if dots else ("dashed", "solid")
    return Chart(
        name="Landmark errors",
        told=f"Before ({looks[0]}) at most {before.max():.2f} mm, after ({looks[1]}) at most {after.max():.2f} mm",
        x_label="landmarks, from the least error to the largest",
        y_label="error, mm",
        height=HEIGHT - 12,
        x_ticks=tuple((_across(share), text) for share, text in ((0, "0%"), (0.5, "50%"), (1, "100%"))),
        y_ticks=_upwards(ticks),
        lines=tuple(lines),
        dots=tuple(dots),
    )
