"""The values of a report: verdict, pictures the right way round, lines, charts."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL.Image
import pytest
import torch

from warpwright.geometry import Grid, Image
from warpwright.io import Points
from warpwright.product.figure import scaled
from warpwright.product.photographs import Seen
from warpwright.product.report.charts import SPARK, curve_of, energies, histogram, landmarks, sparkline
from warpwright.product.report.checks import Headline, checks, headline
from warpwright.product.report.cite import references
from warpwright.product.report.encode import DIFFERENCE, FOLD, grey, mapped, reduced
from warpwright.product.report.planes import Plane, planes, scales
from warpwright.product.report.run import Run
from warpwright.product.report.tables import UNKNOWN, alone, label_rows, landmark_table, stage_rows
from warpwright.product.report.vector import box, isolines
from warpwright.product.scores import LATER, Scores, judge
from warpwright.product.slices import middle, slices
from warpwright.transforms import Affine, DisplacementField, resample

GOOD = Scores(
    energy_before=0.8,
    energy_after=0.2,
    overlap=0.9,
    dice_before={1: 0.5, 2: 0.7},
    dice_after={1: 0.8, 2: 0.9},
    tre_before={"mean": 4.0, "median": 4.0, "p90": 5.0, "max": 6.0},
    tre_after={"mean": 1.0, "median": 1.0, "p90": 1.5, "max": 2.0},
    folded_percent=0.0,
    min_determinant=0.3,
    sd_log_jacobian=0.1,
    inverse_residual=0.0,
    inverse_consistency={"mean": 0.01, "p95": 0.1, "max": 0.2, "counted_percent": 100.0},
)
WORSE: dict[str, dict[str, Any]] = {
    "Similarity energy": {"energy_after": 0.9},
    "Images overlap": {"overlap": 0.001},
    "Mean Dice": {"dice_after": {1: 0.4, 2: 0.7}},
    "Landmark error": {"tre_after": GOOD.tre_after | {"mean": 4.5}},
    "Folds": {"folded_percent": 0.5, "min_determinant": -0.1},
    "There and back": {"inverse_consistency": GOOD.inverse_consistency | {"p95": 0.7}},
    "Labels that vanish": {"vanished_labels": (2,)},
}
OBLIQUE = np.array([[0.0, -0.96, 0.28], [1.0, 0.0, 0.0], [0.0, 0.28, 0.96]])
AXES = {
    "RAS": np.eye(3),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "oblique": OBLIQUE,
    "LAS": np.diag([-1.0, 1.0, 1.0]),  # left-handed, as is the next
    "left-handed oblique": OBLIQUE @ np.diag([1.0, 1.0, -1.0]),
}


def told(scores: Scores) -> dict[str, Any]:
    verdict = judge(scores, 1.0)
    return {"improved": verdict.improved, "sentences": list(verdict.sentences)}


def top(scores: Scores) -> Headline:
    return headline(told(scores), scores, checks(scores, 1.0))


def test_a_good_result_passes_every_check():
    assert {check.status for check in checks(GOOD, 1.0)} == {"good"}
    found = top(GOOD)
    assert (found.status, found.text) == ("good", "Improved")
    assert "labels and landmarks" in found.basis


@pytest.mark.parametrize("name", WORSE)
def test_what_the_verdict_warns_of_is_the_row_that_does_not_pass(name):
    scores = replace(GOOD, **WORSE[name])
    verdict = told(scores)
    assert [check.name for check in checks(scores, 1.0) if check.status != "good"] == [name]
    assert len(verdict["sentences"]) == 1
    found = top(scores)
    assert found.text == ("Improved, with 1 warning" if verdict["improved"] else "Not improved")
    assert found.status == ("warn" if verdict["improved"] else "bad")


def test_what_was_not_measured_neither_passes_nor_fails():
    nothing = {"mean": math.nan, "p95": math.nan, "max": math.nan}
    scores = replace(GOOD, dice_before={}, dice_after={}, tre_before={}, tre_after={}, inverse_consistency=nothing)
    statuses = {check.name: check.status for check in checks(scores, 1.0)}
    assert [name for name, status in statuses.items() if status == "none"] == [
        *("Mean Dice", "Landmark error", "There and back", "Labels that vanish")
    ]
    assert "similarity alone" in top(scores).basis
    equal = replace(scores, energy_before=0.0, energy_after=0.0)
    assert top(equal).text == "Nothing to improve"
    apart = replace(scores, energy_before=math.inf, energy_after=math.inf)
    assert checks(apart, 1.0)[0].found == "no overlap → no overlap"


def test_landmarks_that_were_prompted_are_shown_and_judge_nothing():
    """However much worse they got; so for labels."""
    scores = replace(GOOD, prompted_landmarks=(0, 1), tre_prompted=True, **WORSE["Landmark error"])
    row = next(check for check in checks(scores, 1.0) if check.name == "Landmark error")
    assert (row.found, row.status) == ("4.00 → 4.50 mm on average, all were prompted", "none")
    assert (top(scores).status, top(scores).basis) == ("good", "Judged by similarity and by labels.")
    alone = replace(scores, prompted_labels=(1, 2))
    assert top(alone).basis == "Judged by similarity alone: the labels and landmarks that were given were prompted."
    without = replace(alone, tre_before={}, tre_after={}, prompted_landmarks=(), tre_prompted=False)
    assert top(without).basis == "Judged by similarity alone: the labels that were given were prompted."


def test_the_table_of_landmarks_is_of_those_that_count():
    grid, places = Grid.regular((9, 9)), torch.tensor([[1.0, 1.0], [2.0, 5.0], [6.0, 3.0]]).double()
    others = places + torch.tensor([[3.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    points = (Points(places, ("a", "b", "c")), Points(others, ("a", "b", "c")))
    run = run_of(coordinate(grid, 0), points=points)
    for told, every, remark, worst in (
        ((), False, "", ["a", "c", "b"]),
        ((0,), False, "without 1 that were prompted", ["c", "b"]),
        ((0, 1, 2), True, "all were prompted", ["a", "c", "b"]),
    ):
        table = landmark_table(replace(GOOD, prompted_landmarks=told, tre_prompted=every), run)
        assert table is not None
        assert table.errors is not None
        assert (table.remark, [row.name for row in table.worst]) == (remark, worst)
        assert len(table.errors[0]) == len(table.errors[1]) == len(worst)


HARM = {
    "labels": {"dice_before": {1: 0.9}, "dice_after": {1: 0.2}},
    "landmarks": WORSE["Landmark error"],
    "apart": {"overlap": 0.0},
}


@pytest.mark.parametrize("name", HARM)
def test_there_was_something_to_improve_where_a_row_failed(name):
    scores = replace(GOOD, energy_before=0.0, energy_after=0.0, **HARM[name])
    assert [check.status for check in checks(scores, 1.0)].count("bad") == 1
    assert (top(scores).status, top(scores).text) == ("bad", "Not improved")
    folded = replace(GOOD, energy_before=0.0, energy_after=0.0, **WORSE["Folds"])
    assert (top(folded).status, top(folded).text) == ("warn", "Nothing to improve, with 1 warning")


def test_scores_survive_json():
    import json

    from warpwright.product.output import plain

    scores = replace(GOOD, energy_before=math.inf, sd_log_jacobian=math.nan, vanished_labels=(3,), prompted_landmarks=(0, 2))
    back = Scores.from_mapping(json.loads(json.dumps(plain(scores.to_mapping()))))
    assert math.isnan(back.sd_log_jacobian)
    assert replace(back, sd_log_jacobian=0.0) == replace(scores, sd_log_jacobian=0.0)
    assert back.tre_prompted is False
    earlier = {name: value for name, value in plain(GOOD.to_mapping()).items() if name not in LATER}
    assert Scores.from_mapping(json.loads(json.dumps(earlier))) == GOOD


def pixels(uri: str) -> np.ndarray:
    """A data URI as (rows, columns) of 0 to 1."""
    image = PIL.Image.open(BytesIO(base64.b64decode(uri.split(",", 1)[1])))
    return np.asarray(image.convert("L")).astype(float) / 255


def coordinate(grid: Grid, axis: int) -> Image:
    """The world coordinate of every voxel."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1).astype(float)
    return Image(grid.to_world(torch.tensor(index))[..., axis][None].float(), grid)


def run_of(image: Image, **more: Any) -> Run:
    """A registration of an image with itself, that did nothing."""
    ones = Image(torch.ones_like(image.data), image.grid)
    still = Affine.identity(image.grid.dim)
    parts = {"initial": still, "transform": still, "inverse": None, "colours": None, "jacobian": ones}
    parts |= {"score": None, "labels": None, "points": None, "fixed": Seen(image=image), "moving": Seen(image=image)}
    return Run(record=cast(Any, None), **(parts | more))


def drawn(run: Run, labels: tuple[int, ...] = ()) -> tuple[Plane, ...]:
    return planes(run, scales(run, labels), subtracted=True)[0]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("layer", ["fixed", "before", "moved"])
def test_right_anterior_and_superior_are_left_and_up(axes, layer):
    affine = np.eye(4)
    affine[:3, :3] = AXES[axes] @ np.diag((1.7, 1.3, 2.1))
    grid = Grid((15, 17, 16), affine)
    shown = [{plane.name: plane for plane in drawn(run_of(coordinate(grid, axis)))} for axis in range(3)]
    for name, across, up, letters in (("axial", 0, 1, "RLAP"), ("coronal", 0, 2, "RLSI"), ("sagittal", 1, 2, "APSI")):
        right, top = (pixels(getattr(shown[axis][name], layer)) for axis in (across, up))
        assert "".join(shown[0][name].letters) == letters
        assert right[:, :3].mean() > 0.8 > 0.2 > right[:, -3:].mean()
        assert top[:3].mean() > 0.8 > 0.2 > top[-3:].mean()
        down, along = _spacing(grid, name)
        ratio = right.shape[1] * along / (right.shape[0] * down)
        assert shown[0][name].width / shown[0][name].height == pytest.approx(ratio, rel=0.01)


def _spacing(grid: Grid, name: str) -> tuple[float, float]:
    return next(cut.spacing for cut in slices(grid, (0, 0, 0)) if cut.name == name)


def test_a_shift_moves_the_picture_and_what_is_outside_is_dark():
    grid = Grid.regular((20, 24), (1.0, 1.0))
    data = torch.zeros(1, 20, 24)
    data[0, 8:12, 10:14] = 1
    image, matrix = Image(data, grid), np.eye(3)
    matrix[0, 2] = 3.0
    (plane,) = drawn(run_of(image, initial=Affine(matrix)))
    fixed, before = pixels(plane.fixed), pixels(plane.before)
    assert plane.name == "image"
    assert plane.letters == ()
    assert np.abs(np.argwhere(fixed > 0.5).mean(0) - np.argwhere(before > 0.5).mean(0)).tolist() == [0, 3]
    assert plane.difference_before is not None
    assert plane.difference_after is not None
    assert pixels(plane.difference_before).max() > 0.5 > pixels(plane.difference_after).max()


@pytest.mark.parametrize(
    "before", [Affine.identity(3), Affine(np.diag([1.0, 1.1, 1.0, 1.0]))], ids=("itself", "after an affine")
)
def test_a_cut_of_the_moved_image_is_that_of_the_whole(before):
    grid = Grid((12, 14, 10), np.array([[0.0, -1.3, 0, 4], [1.7, 0, 0, -2], [0, 0, 2.1, 1], [0, 0, 0, 1]]))
    rng = torch.Generator().manual_seed(3)
    image = Image(torch.rand(1, 12, 14, 10, generator=rng), grid)
    transform = before @ DisplacementField(3 * torch.rand(3, 12, 14, 10, generator=rng) - 1.5, grid)
    labels = Image((4 * image.data).to(torch.int16), grid)
    run = run_of(image, transform=transform, labels=(labels, labels))
    shown, shades = planes(run, scales(run, (1, 2, 3)), subtracted=True)
    whole = resample(image, transform, grid).data[0].numpy()
    drawn_labels = resample(labels, transform, grid, interpolation="label").data[0].numpy()
    for plane, cut in zip(shown, slices(grid, middle(grid, labels.data[0].numpy() > 0)), strict=True):
        assert np.abs(pixels(plane.moved) - scaled(cut.cut(whole), shades.moving)).max() < 0.003  # 8 bits
        outlines = {outline.label: outline.path for outline in plane.outlines["moved"]}
        for label in (1, 2, 3):
            assert outlines.get(label, "") == isolines(cut, cut.cut(drawn_labels) == label, [0.5], 768)


def test_labels_landmarks_and_folds_are_drawn_where_they_are():
    grid = Grid.regular((20, 24), (1.0, 2.0))
    labels = torch.zeros(1, 20, 24, dtype=torch.int16)
    labels[0, 5:10, 6:12] = 7
    points = Points(torch.tensor([[5.0, 12.0]], dtype=torch.float64), ("<a>",))
    jacobian = torch.ones(1, 20, 24)
    jacobian[0, 3, 4] = -0.5
    image = coordinate(grid, 0)
    run = run_of(
        image,
        labels=(Image(labels, grid), Image(labels, grid)),
        points=(points, points),
        inverse=Affine.identity(2),
        jacobian=Image(jacobian, grid),
    )
    (plane,) = drawn(run, (7,))
    assert [(outline.label, outline.colour) for outline in plane.outlines["moved"]] == [(7, 0)]
    assert plane.outlines["fixed"] == plane.outlines["before"] == plane.outlines["moved"]
    assert set(plane.points) == {"fixed", "before", "moved"}
    table = PIL.Image.open(BytesIO(base64.b64decode(plane.jacobian.split(",", 1)[1]))).convert("RGB")
    green = np.argwhere((np.asarray(table) == (0, 255, 0)).all(-1))
    assert len(green) == 1
    (cut,) = slices(grid, (0, 0))
    assert green[0].tolist() == np.argwhere(cut.cut(jacobian[0].numpy()) < 0)[0].tolist()


def test_the_grid_of_a_bump_is_bent_and_that_of_nothing_is_straight():
    grid = Grid.regular((40, 40))
    field = torch.zeros(2, 40, 40)
    field[0, 15:25, 15:25] = 2.0
    runs = (run_of(coordinate(grid, 0), transform=DisplacementField(f, grid)) for f in (0 * field, field))
    straight, bent = (drawn(run)[0].grid for run in runs)
    corners = [len(path.split()) - 2 * path.count("M") for path in (straight, bent)]
    assert straight.count("M") > 40
    assert corners[1] > corners[0] + 50


def test_what_the_grid_is_of_is_known():
    grid = Grid.regular((40, 40))
    field, turn = torch.zeros(2, 40, 40), np.eye(3)
    field[0, 15:25, 15:25] = 2.0
    turn[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]
    bent, turned = DisplacementField(field, grid), Affine(turn)
    for transform, affine in ((turned, True), (Affine.identity(2), True), (bent, False), (turned @ bent, False)):
        run = run_of(coordinate(grid, 0), transform=transform)
        assert planes(run, scales(run, ()), subtracted=True)[1].affine is affine


def test_labels_of_one_image_only_are_drawn_and_listed():
    grid = Grid.regular((20, 24))
    fixed, moving = torch.zeros(2, 1, 20, 24, dtype=torch.int16)
    fixed[0, 2:8, 2:8], moving[0, 2:8, 2:8] = 1, 1
    fixed[0, 10:15, 3:9] = 5
    moving[0, 10:15, 12:18] = 6
    labels = (Image(fixed, grid), Image(moving, grid))
    lonely = alone(labels)
    assert lonely == {5: "in the fixed image only", 6: "in the moving image only"}
    assert alone(None) == {}
    (plane,) = drawn(run_of(coordinate(grid, 0), labels=labels), (1, *lonely))
    assert [outline.label for outline in plane.outlines["fixed"]] == [1, 5]
    assert [outline.label for outline in plane.outlines["moved"]] == [1, 6]
    rows = label_rows(replace(GOOD, dice_before={1: 0.5}, dice_after={1: 0.8}), (1, 5, 6), lonely)
    assert [(row.label, row.colour, row.after, row.remark) for row in rows] == [
        *((1, 0, "0.800", ""), (5, 1, UNKNOWN, lonely[5]), (6, 2, UNKNOWN, lonely[6]))
    ]


def test_isolines_keep_corners_only():
    (cut,) = slices(Grid.regular((30, 20)), (0, 0))
    values = np.tile(np.arange(30.0), (20, 1))
    path = isolines(cut, values, [10.25], 100)
    assert path.count("M") == 1
    assert len(path.split("l")[1].split()) == 2  # from one end to the other
    assert isolines(cut, values, [99.0], 100) == ""
    assert box(cut) == (4000, 2667)


def test_pictures_hold_what_they_show_and_stay_small():
    shares = np.linspace(0, 1, 12).reshape(3, 4)
    assert np.abs(pixels(grey(shares)) - shares).max() < 0.003  # 8 bits
    noise = np.random.default_rng(0).random((768, 768))
    assert grey(noise).startswith("data:image/webp;base64,")
    assert len(grey(noise)) < 1_200_000  # the worst there is
    marked = np.zeros((3, 4), bool)
    marked[1, 2] = True
    uri = mapped(shares, DIFFERENCE, marked)
    colours = np.asarray(PIL.Image.open(BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGB"))
    assert tuple(colours[1, 2]) == tuple(int(FOLD[k : k + 2], 16) for k in (1, 3, 5))
    assert np.array_equal(reduced(np.arange(6.0).reshape(2, 3), 2), [[2.0, 3.5]])
    assert reduced(shares, 1) is shares


def test_energies_are_drawn_from_step_to_step():
    curve = [0.9, 0.5, 0.4, 0.38]
    stage = {"name": "greedy 1/2", "energy_start": 0.9, "energy_end": 0.38, "energies": curve}
    older = {"name": "affine 1/2", "energy_start": 1.0, "energy_end": 0.9}
    chart = energies([older, stage])
    assert chart is not None
    assert [line.points.count(",") for line in chart.lines] == [2, 4]
    assert chart.told == "affine 1/2: 1 to 0.9; greedy 1/2: 0.9 to 0.38"
    across, up = np.array([pair.split(",") for pair in chart.lines[1].points.split()], dtype=float).T
    assert np.ptp(np.diff(across)) < 0.2  # evenly spread
    (top, one), (bottom, zero) = ((y, float(text)) for y, text in (chart.y_ticks[-1], chart.y_ticks[0]))
    assert np.abs(one + (up - top) / (bottom - top) * (zero - one) - curve).max() < 0.005
    assert len(chart.dots) == 4  # where each begins and ends
    assert sparkline(older) == ""
    across, up = np.array([pair.split(",") for pair in sparkline(stage).split()], dtype=float).T
    assert (across[0], across[-1]) == (0, SPARK[0])
    assert (up[0], up[-1]) == (0, SPARK[1])
    (row,) = stage_rows([stage | {"steps": 4, "seconds": 0.25, "message": "done"}])
    assert row.curve == sparkline(stage)


def test_curves_keep_their_ends_and_leave_out_what_is_no_number():
    long = np.linspace(3, 1, 1001).tolist()
    kept = curve_of({"energies": long})
    assert (len(kept), kept[0], kept[-1]) == (120, 3.0, 1.0)
    assert set(kept) <= set(long)
    assert curve_of({"energies": [1.0, None, math.inf, math.nan, 0.5]}) == [1.0, 0.5]
    assert curve_of({"energies": [1.0, None]}) == curve_of({"energies": []}) == curve_of({}) == []
    flat = sparkline({"energies": [0.7, 0.7, 0.7]})
    assert {pair.split(",")[1] for pair in flat.split()} == {str(SPARK[1] / 2)}
    unknown = {"name": "greedy 1/1", "energy_start": math.inf, "energy_end": 0.3, "energies": [None, 0.3]}
    assert energies([unknown]) is None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_of_every_size_are_found(dtype):
    large = min(torch.iinfo(dtype).max, 1_000_000)
    fixed, moving = torch.zeros(2, 1, 2, 3, dtype=dtype)
    fixed[0, 0], moving[0, 1] = torch.tensor([1, 7, large], dtype=dtype), torch.tensor([1, 3, 0], dtype=dtype)
    expected = dict.fromkeys((7, large), "in the fixed image only") | {3: "in the moving image only"}
    if dtype != torch.uint8:
        moving[0, 0, 0] = -5
        expected[-5] = "in the moving image only"
    images = [Image(data, Grid.regular((2, 3))) for data in (fixed, moving)]
    assert alone((images[0], images[1])) == expected


def test_charts_say_what_they_show():
    stages = [
        {"name": "affine 1/2", "energy_start": 0.8, "energy_end": 0.5},
        {"name": "greedy 1/1", "energy_start": None, "energy_end": 0.3},
        {"name": "greedy 1/1", "energy_start": 0.4, "energy_end": 0.2},
    ]
    chart = energies(stages)
    assert chart is not None
    assert [line.kind for line in chart.lines] == ["linear", "deformable"]
    assert "affine 1/2: 0.8 to 0.5" in chart.told
    for line in chart.lines:  # energies fall, so lines go down
        start, end = (float(pair.split(",")[1]) for pair in line.points.split())
        assert start < end
    assert energies([stages[1]]) is None
    ratios = histogram(np.concatenate([np.full(75, 1.0), np.full(25, 1.5)]), math.log(2))
    assert [bar[4] for bar in ratios.bars] == ["stays", "grows"]
    heights = [bar[3] for bar in ratios.bars]
    assert heights[0] / heights[1] == pytest.approx(3, rel=0.01)
    errors = landmarks(np.array([4.0, 3.0]), np.array([1.0, 0.0]))
    assert errors.told == "Before (dashed, squares) at most 4.00 mm, after (solid, dots) at most 1.00 mm"
    many = landmarks(np.linspace(1, 4, 99), np.linspace(0, 1, 99))  # without markers, so none are named
    assert (many.dots, many.told) == ((), "Before (dashed) at most 4.00 mm, after (solid) at most 1.00 mm")


def test_folds_have_a_bar_of_their_own():
    values = np.concatenate([np.full(60, 1.0), np.full(20, 1.5), np.full(15, -0.5), np.zeros(5)])
    chart = histogram(values, math.log(2))
    assert [bar[4] for bar in chart.bars] == ["folds", "stays", "grows"]
    folds, stays, grows = (bar[3] for bar in chart.bars)
    assert (stays / folds, grows / folds) == (pytest.approx(3, rel=0.01), pytest.approx(1, rel=0.01))
    assert chart.told == "20 voxels fold (20 %); of the others the median is 1, and 98 % lie between 1 and 1.5"
    places = {text: place for place, text in chart.x_ticks}
    assert list(places) == ["folds", "1/2", "1", "2"]
    for bar, text in zip(chart.bars, ("folds", "1"), strict=False):
        assert places[text] == pytest.approx(bar[0] + bar[2] / 2, abs=0.2)
    assert places["1/2"] - places["folds"] > 40  # the names do not run into each other
    assert places["2"] == chart.frame[2]
    few = histogram(np.append(np.full(99_999, 1.0), -1.0), math.log(2))
    assert few.told.startswith("1 voxel folds (0.001 %)")
    assert few.bars[0][3] == 2  # seen, however few
    every = histogram(np.full(9, -1.0), math.log(2))
    assert ([bar[4] for bar in every.bars], every.told) == (["folds"], "All voxels fold")


def test_what_was_used_is_cited():
    record = {
        "settings": {"similarity": {"kind": "mind"}, "deformable": {"kind": "velocity"}, "matching": {"reach": 0.1}},
        "versions": {"warpwright": "9.8"},
        "model": None,
        "scores": {},
    }
    found = " ".join(references(record))
    assert all(word in found for word in ("9.8", "Heinrich", "Ashburner", "SmoothProper"))
    assert "DIO" not in found
    model = {"path": str(Path("m")), "network": "UNet", "sha256": "abc", "family": {"kind": "greedy"}}
    found = " ".join(references({**record, "model": model, "scores": {"trust": {"trusted_percent": 90.0}}}))
    assert all(word in found for word in ("DIO", "AdaCS", "UNet"))
    assert "Heinrich" not in found
    found = " ".join(references({**record, "model": {"path": "m", "network": "VoxelMorph", "sha256": "abc"}}))
    assert "Balakrishnan" in found
    assert "DIO" not in found
