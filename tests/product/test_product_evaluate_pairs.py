"""A small cohort on disk, moving images on a grid of their own, against what the single tools and plain loops find."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from warpwright.errors import BadInput, Failed
from warpwright.evaluation import dice, mean_over_labels, summary
from warpwright.geometry import Grid, Image
from warpwright.io import Points, read_labels, read_transform, write_image, write_points, write_transform
from warpwright.product.apply import apply_to_labels
from warpwright.product.evaluate import evaluate, evaluate_labels, evaluate_pairs, evaluate_points, evaluate_transform
from warpwright.product.evaluate_pairs import check_label_table, write_label_table
from warpwright.product.output import plain, write_json
from warpwright.product.words import pair_lines
from warpwright.transforms import Affine, DisplacementField

IDS = ("a", "b", "c")
SPACING = (0.8, 1.3, 1.1)


@dataclass(frozen=True)
class Cohort:
    """Three cases in a folder, and the grids of their images."""

    folder: Path
    fixed: Grid
    moving: Grid

    def table(self, name: str, columns: str, rows: dict[str, str] | None = None, ids: tuple[str, ...] = IDS) -> Path:
        """A table whose cell for a column is `{id}_{column}` and a suffix, unless `rows` has a pattern for the column."""
        header = columns.split(",")
        lines = [",".join(["id", *header])]
        for i in ids:
            cells = [(rows or {}).get(c, f"files/{{}}_{c}{suffix(c)}").format(i) for c in header]
            lines.append(",".join([i, *cells]))
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n")
        return path

    def file(self, name: str) -> Path:
        return self.folder / "files" / name


def suffix(column: str) -> str:
    return ".csv" if "points" in column else ".h5" if column == "transform" else ".nii.gz"


def make_cohort(folder: Path, dim: int) -> Cohort:
    files = folder / "files"
    files.mkdir()
    rng = np.random.default_rng(dim)
    fixed = Grid((11, 13, 10)[:dim], np.diag([-SPACING[0], *SPACING[1:dim], 1.0]))
    affine = np.diag([*(1.2, 0.9, 1.0)[:dim], 1.0])
    affine[:-1, -1] = (-9.0, 1.0, -0.5)[:dim]
    moving = Grid((12, 15, 11)[:dim], affine)
    for i in IDS:
        for side, grid in (("fixed", fixed), ("moved", fixed), ("moving", moving)):
            blocks = rng.permutation(np.arange(4**dim) % 4).reshape((4,) * dim)
            data = ndimage.zoom(blocks, np.array(grid.shape) / 4, order=0)
            data[data == 3] = 0 if i == "b" else 3  # case b lacks a label
            write_image(files / f"{i}_{side}_labels.nii.gz", Image(torch.from_numpy(data[None]).short(), grid))
            write_image(files / f"{i}_{side}.nii.gz", Image(torch.from_numpy(rng.random((1, *grid.shape))).float(), grid))
        field = ndimage.gaussian_filter(rng.normal(size=(dim, *fixed.shape)), (0, *(2.0,) * dim))
        field *= 1.5 / field.std()  # some folds
        shift = np.eye(dim + 1)
        shift[0, -1] = 0.7
        truth = Affine(shift) @ DisplacementField(torch.from_numpy(field).float(), fixed)
        write_transform(files / f"{i}_transform.h5", truth)
        write_transform(files / f"{i}_affine.tfm", Affine(shift))
        inside = torch.from_numpy(rng.uniform(2, 8, (5, dim)))
        noise = torch.from_numpy(rng.normal(0, 0.5, (5, dim)))
        for space, suffix_ in (("ras", ""), ("voxel", "_voxel")):
            names = tuple("vwxyz")
            first, second = fixed.to_world(inside), truth(fixed.to_world(inside)) + noise
            write_points(files / f"{i}_fixed_points{suffix_}.csv", Points(first, names), space, fixed)
            write_points(files / f"{i}_moving_points{suffix_}.csv", Points(second, names), space, moving)
    return Cohort(folder, fixed, moving)


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Cohort]:
    made: dict[int, Cohort] = {}

    def get(dim: int) -> Cohort:
        if dim not in made:
            made[dim] = make_cohort(tmp_path_factory.mktemp(f"cohort{dim}"), dim)
        return made[dim]

    return get


@pytest.fixture
def cohort(cohorts: Callable[[int], Cohort], dim: int) -> Cohort:
    return cohorts(dim)


ALL = "fixed_labels,moving_labels,fixed_points,moving_points,transform"


@pytest.fixture(scope="module")
def scored(cohorts: Callable[[int], Cohort]) -> Callable[[int], dict]:
    """The scores of the table with all columns."""
    made: dict[int, dict] = {}

    def get(dim: int) -> dict:
        if dim not in made:
            made[dim] = evaluate_pairs(cohorts(dim).table("all.csv", ALL), space="ras")
        return made[dim]

    return get


def test_plain_labels(cohort: Cohort) -> None:
    found = evaluate_pairs(cohort.table("plain.csv", "fixed_labels,moved_labels"))
    own = {i: evaluate_labels(*(cohort.file(f"{i}_{s}_labels.nii.gz") for s in ("fixed", "moved"))) for i in IDS}
    means = [scores["mean_dice"] for scores in own.values()]
    assert list(found["pairs"]) == list(IDS)
    for i in IDS:
        assert own[i].pop("warnings") == []
        assert found["pairs"][i] == own[i]
    assert found["mean_dice"] == pytest.approx(np.mean(means), abs=1e-15)
    assert found["summary"]["dice"] == summary(means)
    assert found["summary"]["hd95_mm"] == summary([s["mean_hd95_mm"] for s in own.values()], high_is_good=False)
    assert set(found["summary"]) == {"cases", "dice", "hd95_mm", "assd_mm"}
    assert set(found["labels"]) == {1, 2, 3}
    for label, cases in ((1, "abc"), (3, "ac")):  # case b lacks label 3 in both maps
        for key in ("dice", "hd95_mm", "assd_mm"):
            values = [own[i]["labels"][label][key] for i in cases]
            assert found["labels"][label][key] == summary(values, high_is_good=key == "dice")
    assert found["labels"][3]["dice"]["cases"] == 2
    assert all(math.isnan(value) for value in found["learn2reg"].values())


def test_labels_are_pulled_as_apply_pulls_them(cohort: Cohort, dim: int, scored: Callable[[int], dict], tmp_path: Path) -> None:
    found = scored(dim)
    for i in IDS:
        files = {name: cohort.file(f"{i}_{name}") for name in ("transform.h5", "fixed_labels.nii.gz", "moving_labels.nii.gz")}
        moved = tmp_path / f"{i}.nii.gz"
        apply_to_labels(files["transform.h5"], files["moving_labels.nii.gz"], moved, reference=files["fixed_labels.nii.gz"])
        expected = evaluate_labels(files["fixed_labels.nii.gz"], moved)
        expected.pop("warnings")
        assert plain({key: found["pairs"][i][key] for key in expected}) == plain(expected)


def test_points_and_transform_are_what_the_single_tools_find(cohort: Cohort, dim: int, scored: Callable[[int], dict]) -> None:
    found = scored(dim)
    for i in IDS:
        transform = cohort.file(f"{i}_transform.h5")
        points = [cohort.file(f"{i}_{side}_points.csv") for side in ("fixed", "moving")]
        expected = evaluate_points(*points, transform=transform, space="ras")
        expected.pop("warnings")
        assert found["pairs"][i]["points"] == expected
        assert found["pairs"][i]["mean_tre_mm"] == expected["after"]["mean"] < expected["before"]["mean"]
        assert found["pairs"][i]["transform"] == evaluate_transform(transform)
    folds = [found["pairs"][i]["transform"]["folded_percent"] for i in IDS]
    assert max(folds) > 0
    assert found["summary"]["folded_percent"] == summary(folds, high_is_good=False)
    assert found["summary"]["folding_cases"] == np.count_nonzero(folds)
    assert found["summary"]["tre_mm"]["mean"] == pytest.approx(np.mean([f["mean_tre_mm"] for f in found["pairs"].values()]))


def voxel_field(cohort: Cohort, case: str) -> np.ndarray:
    """Where each fixed voxel lies in the moving grid, minus itself, point by point."""
    transform = read_transform(cohort.file(f"{case}_transform.h5"))
    voxels = np.indices(cohort.fixed.shape).reshape(cohort.fixed.dim, -1)
    world = cohort.fixed.affine[:-1, :-1] @ voxels + cohort.fixed.affine[:-1, -1:]
    mapped = transform(torch.from_numpy(world.T.copy())).numpy().T
    at = np.linalg.solve(cohort.moving.affine[:-1, :-1], mapped - cohort.moving.affine[:-1, -1:])
    return (at - voxels).reshape(cohort.fixed.dim, *cohort.fixed.shape)


def test_the_challenges_numbers_by_its_own_words(cohort: Cohort, dim: int, scored: Callable[[int], dict]) -> None:
    found: dict[str, list[float]] = {"dice": [], "tre": [], "sdlogj": []}
    for i in IDS:
        field = voxel_field(cohort, i)
        fixed, moving = (read_labels(cohort.file(f"{i}_{s}_labels.nii.gz")).data[0].numpy() for s in ("fixed", "moving"))
        moved = ndimage.map_coordinates(moving, np.indices(fixed.shape) + field, order=0)
        both = sorted((set(np.unique(fixed)) & set(np.unique(moving))) - {0})
        found["dice"].append(mean_over_labels(dice(fixed, moved, both)))
        rows = [
            np.loadtxt(cohort.file(f"{i}_{s}_points_voxel.csv"), delimiter=",", skiprows=1, usecols=range(1, dim + 1))
            for s in ("fixed", "moving")
        ]
        step = np.stack([ndimage.map_coordinates(component, rows[0].T) for component in field], 1)
        found["tre"].append(np.linalg.norm((rows[0] + step - rows[1]) * cohort.moving.spacing, axis=1).mean())
        slopes = [
            [ndimage.correlate1d(c, [-0.5, 0, 0.5], axis=a, mode="constant") + (k == a) for a in range(dim)]
            for k, c in enumerate(field)
        ]
        determinant = np.linalg.det(np.moveaxis(np.array(slopes), (0, 1), (-2, -1)))[(slice(2, -2),) * dim]
        found["sdlogj"].append(np.log(np.clip(determinant + 3, 1e-9, 1e9)).std())
    numbers = scored(dim)["learn2reg"]
    for key, share in (("dice", 0.3), ("tre", 0.7), ("sdlogj", 0.7)):  # field in float32, points with six digits
        assert numbers[key] == pytest.approx(np.mean(found[key]), abs=1e-5)
        assert numbers[f"{key}30"] == pytest.approx(np.quantile(found[key], share), abs=1e-5)
    each = [scored(dim)["pairs"][i]["learn2reg"]["hd95"] for i in IDS]
    assert min(each) >= 1  # whole voxels, or diagonals
    assert numbers["hd95"] == pytest.approx(np.mean(each))
    assert numbers["hd95_30"] == pytest.approx(np.quantile(each, 0.3))


def test_numbers_that_cannot_be_computed_are_null(cohort: Cohort, tmp_path: Path) -> None:
    found = evaluate_pairs(cohort.table("transforms.csv", "transform"))
    assert {key for key, value in found["learn2reg"].items() if not math.isnan(value)} == {"sdlogj", "sdlogj30"}
    assert "labels" not in found
    assert set(found["summary"]) == {"cases", "folded_percent", "folding_cases"}
    write_json(tmp_path / "o.json", found)
    assert json.loads((tmp_path / "o.json").read_text())["learn2reg"]["hd95_30"] is None


def test_a_label_that_vanishes_is_told_and_infinitely_far_for_the_challenge(cohort: Cohort, dim: int, tmp_path: Path) -> None:
    for i in IDS:
        moving = read_labels(cohort.file(f"{i}_moving_labels.nii.gz"))
        data = torch.where(moving.data == 2, 0, moving.data)
        data[(0, *(n - 1 for n in moving.grid.shape))] = 2
        write_image(tmp_path / f"{i}.nii.gz", Image(data, moving.grid))
    shift = np.eye(dim + 1)
    shift[0, -1] = -1.0
    write_transform(tmp_path / "t.tfm", Affine(shift))
    rows = {"moving_labels": f"{tmp_path}/{{}}.nii.gz", "transform": f"{tmp_path}/t.tfm"}
    found = evaluate_pairs(cohort.table("vanish.csv", "fixed_labels,moving_labels,transform", rows))
    assert found["learn2reg"]["hd95"] == math.inf
    assert math.isnan(found["learn2reg"]["hd95_30"])  # a quantile between two infinite distances
    assert f"a: {tmp_path}/a.nii.gz: labels that vanish when moved: 2" in found["warnings"]
    assert all(2 in figures["vanished_labels"] for figures in found["pairs"].values())


def test_an_affine_and_voxels_need_the_images(cohort: Cohort) -> None:
    rows = {
        "transform": "files/{}_affine.tfm",
        **{f"{s}_points": f"files/{{}}_{s}_points_voxel.csv" for s in ("fixed", "moving")},
    }
    columns = "fixed_points,moving_points,transform"
    with pytest.raises(BadInput, match=r"row 'a'.*points in voxels need the image"):
        evaluate_pairs(cohort.table("bare.csv", columns, rows), space="voxel")
    with pytest.raises(BadInput, match=r"row 'a'.*_affine.tfm: brings no grid along, .* column fixed"):
        evaluate_pairs(cohort.table("bare.csv", "transform", rows))
    found = evaluate_pairs(cohort.table("images.csv", f"fixed,moving,{columns}", rows), space="voxel")
    images = (cohort.file("a_fixed.nii.gz"), cohort.file("a_moving.nii.gz"))
    points = (cohort.file("a_fixed_points_voxel.csv"), cohort.file("a_moving_points_voxel.csv"))
    single = evaluate(points=points, transform=cohort.file("a_affine.tfm"), space="voxel", images=images)
    assert found["pairs"]["a"]["points"] == single["points"]
    assert found["pairs"]["a"]["transform"] == single["transform"]


def test_a_prefix_and_other_columns(cohort: Cohort, tmp_path: Path) -> None:
    from warpwright.io.ants import write_ants

    for i in IDS:
        write_ants(tmp_path / f"{i}_", read_transform(cohort.file(f"{i}_transform.h5")))
    columns = "group,transform,moved_labels,fixed_labels,moving_labels"
    rows = {"transform": f"{tmp_path}/{{}}_", "group": "nobody"}
    found = evaluate_pairs(cohort.table("more.csv", columns, rows))
    given = evaluate_pairs(cohort.table("plain.csv", "fixed_labels,moved_labels"))
    assert found["labels"] == given["labels"]  # moved_labels go before moving_labels
    assert found["learn2reg"]["dice"] > 0
    rows["moving_labels"] = "nowhere"  # not needed without a transform, so not looked at
    less = evaluate_pairs(cohort.table("less.csv", "moved_labels,fixed_labels,moving_labels", rows))
    assert plain(less) == plain(given)


def test_two_results_are_compared(cohort: Cohort, dim: int, scored: Callable[[int], dict]) -> None:
    table = cohort.table("all.csv", ALL)
    rows = {"transform": "files/{}_affine.tfm"}
    other = cohort.table("affine.csv", ALL, rows, ids=IDS[::-1])
    found = evaluate_pairs(table, against=other, space="ras")
    assert plain({key: value for key, value in found.items() if key != "against"}) == plain(scored(dim))
    second = evaluate_pairs(other, space="ras")
    for key in ("dice", "tre_mm"):
        own, theirs = ([scores["pairs"][i][f"mean_{key}"] for i in IDS] for scores in (found, second))
        expected = stats.wilcoxon(own, theirs)
        test = found["against"][key]
        assert test["mean"] == pytest.approx(np.mean(own))
        assert test["mean_against"] == pytest.approx(np.mean(theirs))
        assert test["difference"] == pytest.approx(np.mean(own) - np.mean(theirs))
        assert (test["statistic"], test["p_value"]) == pytest.approx((expected.statistic, expected.pvalue))
        assert test["pairs"] == 3
    labels_only = cohort.table("moved.csv", "fixed_labels,moved_labels")
    assert set(evaluate_pairs(labels_only, against=other)["against"]) == {"dice"}
    same = evaluate_pairs(labels_only, against=labels_only)["against"]["dice"]
    assert (same["p_value"], same["difference"]) == (1, 0)


def test_tables_that_do_not_pair_up(cohort: Cohort) -> None:
    table = cohort.table("plain.csv", "fixed_labels,moved_labels")
    fewer = cohort.table("fewer.csv", "fixed_labels,moved_labels", ids=("a", "c"))
    with pytest.raises(BadInput, match=r"fewer.csv: its ids are not those of .*plain.csv \(only in .*plain.csv: 'b'\)"):
        evaluate_pairs(table, against=fewer)
    with pytest.raises(BadInput, match=r"only in .*fewer.csv: 'a', 'c'; only in .*plain.csv: 'b'"):
        evaluate_pairs(fewer, against=cohort.table("plain.csv", "fixed_labels,moved_labels", ids=("b",)))
    with pytest.raises(BadInput, match="no labels or points to compare"):
        evaluate_pairs(fewer, against=cohort.table("transforms.csv", "transform", ids=("a", "c")))
    with pytest.raises(BadInput, match=r"plain.csv: was given to compare .* --pairs"):
        evaluate(against=fewer.with_name("plain.csv"))


def test_a_file_that_cannot_be_used_names_its_row(cohorts: Callable[[int], Cohort]) -> None:
    flat, volume = cohorts(2), cohorts(3)
    path = flat.table("t.csv", "fixed_labels,moved_labels", {"moved_labels": f"{volume.folder}/files/{{}}_moved_labels.nii.gz"})
    with pytest.raises(BadInput, match=r"t.csv, row 'a': .*files/a_moved_labels.nii.gz: has \(11, 13, 10\) voxels"):
        evaluate_pairs(path)
    path = flat.table(
        "u.csv", "fixed_labels,moving_labels,transform", {"transform": f"{volume.folder}/files/{{}}_transform.h5"}
    )
    with pytest.raises(BadInput, match=r"row 'a': .*a_fixed_labels.nii.gz: has 2 axes, the transform .* has 3"):
        evaluate_pairs(path)
    good = flat.table("plain.csv", "fixed_labels,moved_labels")
    with pytest.raises(BadInput, match=r"u.csv, row 'a': .*2 axes"):
        evaluate_pairs(good, against=path)


def test_label_table(cohort: Cohort, dim: int, scored: Callable[[int], dict], tmp_path: Path) -> None:
    pairs = scored(dim)["pairs"]
    gone = {"z": {"labels": {7: {"dice": 0.0, "jaccard": 0.0, "hd95_mm": math.nan, "hd_mm": math.nan, "assd_mm": math.nan}}}}
    path = tmp_path / "o.csv"
    write_label_table(path, {**pairs, **gone})
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert path.read_text().splitlines()[0] == "id,label,dice,jaccard,hd95_mm,hd_mm,assd_mm"
    assert [(row["id"], int(row["label"])) for row in rows[:-1]] == [(i, n) for i in IDS for n in pairs[i]["labels"]]
    for row in rows[:-1]:
        scores = pairs[row["id"]]["labels"][int(row["label"])]
        assert {key: float(row[key]) if row[key] else None for key in scores} == plain(scores)
    assert list(rows[-1].values()) == ["z", "7", "0.0", "0.0", "", "", ""]
    with pytest.raises(BadInput, match="does not exist"):
        write_label_table(tmp_path / "no" / "o.csv", pairs)
    text = path.read_text()
    with pytest.raises(KeyError):
        write_label_table(path, {**pairs, "broken": {}})
    assert path.read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["o.csv"]
    check_label_table(path, cohort.table("all.csv", ALL))
    for table in (None, cohort.table("transforms.csv", "transform")):
        with pytest.raises(BadInput, match=r"expected a \.json"):
            check_label_table(path, table)


def test_a_full_disk_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import warpwright.io.atomic as module

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.csv, "writer", full)
    with pytest.raises(Failed, match="No space left"):
        write_label_table(tmp_path / "o.csv", {})
    assert list(tmp_path.iterdir()) == []


def test_the_words(cohort: Cohort, dim: int, scored: Callable[[int], dict]) -> None:
    scores = scored(dim)
    other = evaluate_pairs(cohort.table("all.csv", ALL), against=cohort.table("all2.csv", ALL), space="ras")
    lines = list(pair_lines(other))
    assert lines[0].split("  ")[0].strip() == "case"
    assert lines[1].split()[0] == "a"
    assert float(lines[1].split()[1]) == pytest.approx(scores["pairs"]["a"]["mean_dice"], abs=5e-4)
    assert len({len(line) for line in lines[:4]}) == 1  # aligned
    assert [line.split()[0] for line in lines[4:8]] == ["label", "1", "2", "3"]
    assert lines[7].split()[-1] == "2"  # cases with label 3
    whole = "\n".join(lines)
    assert f"{scores['summary']['tre_mm']['p30']:.4g}" in whole
    assert "Learn2Reg: dice 0." in whole
    assert "difference 0, p 1 (Wilcoxon signed-rank, 3 pairs)" in lines[-1]
    lines = list(pair_lines(evaluate_pairs(cohort.table("transforms.csv", "transform"))))
    assert lines[0].split() == ["case", "folds", "%"]
    assert not any("Dice" in line for line in lines)
