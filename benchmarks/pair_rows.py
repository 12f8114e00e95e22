"""Rows on pairs of images, ours beside every peer: whole brain, lung CT, hippocampus."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from contest import Contest, Job, goal, rivals
from real_rows import check_start, need
from record import Line
from scenes import brain_labels, brains
from warpwright.errors import BadInput
from warpwright.evaluation import dice, mean_over_labels, summarise, target_registration_error
from warpwright.geometry import Image
from warpwright.io import read_image, read_labels, read_points, write_image
from warpwright.product.scores import common_labels
from warpwright.transforms import Affine, Transform, resample

__all__ = ["brain", "hippocampus", "lung"]

BRAIN = (150, 190, 170)


def brain(contest: Contest) -> Iterator[Line]:
    """Two people's whole brains at 1 mm, rendered from label maps: overlap of all labels."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as name:
        files, images, labels = [], [], []
        for image, stem in zip(brains(contest.data, BRAIN, contest.seed), ("fixed", "moving"), strict=True):
            files.append(Path(name) / f"{stem}.nii.gz")
            write_image(files[-1], image)
            images.append(image)
            labels.append(brain_labels(contest.data, image))
        wanted = common_labels(*labels)
        job = Job(
            pairs=[(files[0], files[1])],
            fixed=images[:1],
            score=lambda maps: overlap(maps[0], labels, wanted),
            measure="Dice",
            better="higher",
            command=True,
        )
        tools = job.run(contest)
    start = overlap(_centred(*images), labels, wanted)
    facts = {
        "row": "brain",
        "work": f"whole brain, {' x '.join(map(str, BRAIN))} voxels of 1 mm, {len(wanted)} labels",
        "others": rivals(tools, ("greedy", "ants"), f"start {start:.3f} (centre to centre)"),
        "seconds": time.perf_counter() - begin,
        "details": {"tools": tools, "start": start, "title": "Whole brain, 1 mm"},
    }
    wanted_of = {"greedy": "Dice >= greedy's, ", "ants": ""}
    limits = ({"seconds": 1 / 5}, "<= 1/5 of {}'s time, arrays to field"), ({"whole": 1 / 3}, "<= 1/3 of {}'s whole process")
    for rival, what in wanted_of.items():
        for shares, target in limits:
            reached, met = goal(tools, contest.judge, rival, shares, accuracy=rival == "greedy")
            yield Line(**facts, target=f"{what}{target.format(rival)}", reached=reached, met=met)
            facts["details"] = {}  # the tools are told once


def _centred(fixed: Image, moving: Image) -> Transform:
    """The shift from the middle of one grid to that of the other."""
    matrix = np.eye(4)
    matrix[:3, 3] = moving.grid.centre - fixed.grid.centre
    return Affine(matrix)


def lung(contest: Contest) -> Iterator[Line]:
    """One patient at two dates: landmarks."""
    begin = time.perf_counter()
    folder = need(contest.data / "lung_ct_elastix")
    files = [folder / name for name in ("fixed_baseline.nii.gz", "moving_followup.nii.gz")]
    table = folder / "landmarks_lps_mm.csv"
    fixed, moving = (read_points(table, space="lps", columns=side).world for side in ("fixed", "moving"))

    def error(through: Transform) -> float:
        return summarise(target_registration_error(fixed, moving, through))["mean"]

    start = error(Affine.identity(3))
    check_start("mean TRE of lung CT", start, 34.7, tolerance=0.1)
    job = Job(
        pairs=[(files[0], files[1])],
        fixed=[read_image(files[0])],
        score=lambda maps: error(maps[0]),
        measure="TRE (mm)",
        better="lower",
        command=True,
    )
    tools = job.run(contest)
    reached, met = goal(tools, contest.judge, "greedy", {"seconds": 1 / 3})
    yield Line(
        row="lung",
        work=f"lung CT, {len(fixed)} landmarks, mean TRE",
        others=rivals(tools, ("greedy",), f"start {start:.1f} mm"),
        target="TRE <= greedy's, <= 1/3 of its time, arrays to field",
        reached=reached,
        met=met,
        seconds=time.perf_counter() - begin,
        details={"tools": tools, "start": start, "title": "Lung CT"},
    )


def hippocampus(contest: Contest) -> Iterator[Line]:
    """Twenty pairs of people in one process: overlap of two labels, and the time of a pair."""
    begin = time.perf_counter()
    folder = need(contest.data / "hippocampus_msd")
    names = sorted(path.name for path in need(folder / "images").glob("*.nii.gz"))[:40]
    if len(names) != 40:
        raise BadInput(f"{folder / 'images'}: holds {len(names)} volumes, expected at least 40")
    labels = [read_labels(folder / "labels" / name) for name in names]
    pairs = [(names[k], names[k + 1]) for k in range(0, 40, 2)]

    def score(maps: Sequence[Transform]) -> float:
        return fmean(overlap(through, labels[2 * k : 2 * k + 2], (1, 2)) for k, through in enumerate(maps))

    start = score([Affine.identity(3)] * 20)
    check_start("mean Dice of hippocampus", start, 0.522)
    job = Job(
        pairs=[(folder / "images" / fixed, folder / "images" / moving) for fixed, moving in pairs],
        fixed=labels[::2],
        score=score,
        measure="Dice",
        better="higher",
        command=False,
    )
    tools = job.run(contest)
    reached, met = goal(tools, contest.judge, "greedy", {"seconds": 1.0}, accuracy=False, least=0.77, most=0.4)
    yield Line(
        row="hippocampus",
        work="hippocampus, 20 pairs in one process, mean Dice, median time of a pair",
        others=rivals(tools, ("greedy",), f"start {start:.3f}"),
        target="Dice >= 0.77, median <= 0.4 s a pair and <= greedy's",
        reached=reached,
        met=met,
        seconds=time.perf_counter() - begin,
        details={"tools": tools, "start": start, "title": "Hippocampus, 20 pairs"},
    )


def overlap(through: Transform, labels: Sequence[Image], wanted: tuple[int, ...]) -> float:
    """Mean Dice of the fixed labels and the moving ones pulled by the nearest voxel."""
    fixed, moving = labels
    moved = resample(moving, through, fixed.grid, interpolation="nearest")
    return mean_over_labels(dice(fixed.data[0], moved.data[0], wanted))
