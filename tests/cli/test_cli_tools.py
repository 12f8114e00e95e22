from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from warpwright.cli.main import main
from warpwright.geometry import Image
from warpwright.io import Points, read_image, read_labels, read_points, read_transform, write_image, write_points
from warpwright.transforms import Affine

INTERPOLATED = 0.06  # mm: both maps are linear between voxels, and the bump is 2.6 voxels of 1.7 mm wide


def run_json(arguments: list[str], capsys) -> dict:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(params=["volume", "flat"])
def case(request):
    return request.getfixturevalue(request.param)


def test_apply_pulls_moving_onto_fixed(case, tmp_path, capsys):
    out = tmp_path / "moved.nii.gz"
    found = run_json(["apply", case.path("truth.h5"), "--image", case.path("moving.nii.gz"), "--output", str(out)], capsys)
    assert found["output"] == str(out)
    moved, fixed = read_image(out), read_image(case.path("fixed.nii.gz"))
    assert moved.grid.same_as(fixed.grid)
    seen = moved.data != 0
    assert seen.float().mean() > 0.7
    difference = (moved.data - fixed.data).abs()[seen]
    assert difference.mean() < 0.02 * fixed.data.max()  # linear interpolation of blobs whose sigma is 1.5 voxels and more


def test_apply_is_what_simpleitk_does(case, tmp_path):
    out = tmp_path / "moved.nii.gz"
    assert main(["apply", case.path("truth.h5"), "--image", case.path("moving.nii.gz"), "--output", str(out)]) == 0
    fixed, moving = (sitk.ReadImage(case.path(f"{n}.nii.gz")) for n in ("fixed", "moving"))
    if case.grid.dim == 2:  # SimpleITK takes the NIfTI of a slice as a 2-D image already
        assert fixed.GetDimension() == 2
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, sitk.ReadTransform(case.path("truth.h5"))))
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(out)))
    seen = (ours != 0) & (theirs != 0)
    assert seen.mean() > 0.7
    assert np.abs(theirs - ours)[seen].max() < 1e-3 * np.ptp(theirs)  # the bound; the field is float32


def test_apply_to_labels_warns_of_those_that_vanish(case, tmp_path, capsys):
    grid = case.grid
    labels = read_labels(case.path("moving_labels.nii.gz"))
    data = labels.data.clone()
    data[(0, *(n - 1 for n in grid.shape))] = 9  # one voxel in a corner, which the map does not look at
    write_image(tmp_path / "labels.nii.gz", Image(data, grid))
    shift = np.eye(grid.dim + 1)
    shift[:-1, -1] = grid.direction @ np.array([-1.0] * grid.dim) * 2
    from warpwright.io import write_transform

    write_transform(tmp_path / "t.tfm", Affine(shift))
    reference = ["--reference", case.path("fixed.nii.gz")]
    out = tmp_path / "o.nii.gz"
    arguments = ["apply", str(tmp_path / "t.tfm"), "--labels", str(tmp_path / "labels.nii.gz"), "--output", str(out)]
    assert main([*arguments, *reference]) == 0
    assert "labels that vanish when moved: 9" in capsys.readouterr().err
    assert set(read_labels(out).data.unique().tolist()) == {0, 1, 2}


def test_inverse_of_a_folder_lands_on_the_moving_grid(volume, registered, tmp_path):
    out = tmp_path / "back.nii.gz"
    fixed = volume.path("fixed.nii.gz")
    assert main(["apply", str(registered), "--image", fixed, "--inverse", "--output", str(out)]) == 0
    back, moving, before = read_image(out), read_image(volume.path("moving.nii.gz")), read_image(fixed)
    assert back.grid.same_as(moving.grid)
    seen = back.data != 0
    assert (back.data - moving.data).abs()[seen].mean() < 0.5 * (before.data - moving.data).abs()[seen].mean()


@pytest.mark.parametrize("side", ["fixed", "moving"])
@pytest.mark.parametrize("space", ["ras", "lps"])
def test_points_go_to_the_other_image(case, side, space, tmp_path):
    other = "moving" if side == "fixed" else "fixed"
    given = read_points(case.path(f"{side}.csv"), "ras")
    write_points(tmp_path / "in.csv", given, space)
    arguments = ["apply", case.path("truth.h5"), "--points", str(tmp_path / "in.csv"), "--from", side, "--space", space]
    assert main([*arguments, "--output", str(tmp_path / "out.csv")]) == 0
    found = read_points(tmp_path / "out.csv", space)
    assert found.names == given.names
    expected = read_points(case.path(f"{other}.csv"), "ras").world
    assert (found.world - expected).abs().max() < INTERPOLATED


def test_points_in_voxels_with_a_folder(volume, registered, tmp_path):
    grid = volume.grid
    given = read_points(volume.path("fixed.csv"), "ras")
    write_points(tmp_path / "in.csv", given, "voxel", grid)
    arguments = ["apply", str(registered), "--points", str(tmp_path / "in.csv"), "--from", "fixed", "--space", "voxel"]
    assert main([*arguments, "--output", str(tmp_path / "out.csv")]) == 0
    expected = grid.to_voxel(read_transform(registered / "transform.h5")(given.world))
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    found = torch.tensor([[float(row[a]) for a in "xyz"] for row in rows]).double()
    assert (found - expected).abs().max() < 1e-5  # six digits in the table


def test_points_outside_are_told(volume, tmp_path, capsys):
    world = volume.grid.to_world(torch.tensor([[5.0, 5, 5], [-40, 5, 5]]).double())
    write_points(tmp_path / "in.csv", Points(world, ("in", "far")), "ras")
    arguments = ["apply", volume.path("truth.h5"), "--points", str(tmp_path / "in.csv"), "--from", "fixed", "--space", "ras"]
    assert main([*arguments, "--output", str(tmp_path / "out.csv")]) == 0
    caught = capsys.readouterr().err
    assert "1 of 2 points lie outside" in caught
    assert "(far)" in caught


def test_compose_acts_last_first(case, tmp_path, capsys):
    out = tmp_path / "c.h5"
    affine, truth = case.path("affine.tfm"), case.path("truth.h5")
    run_json(["transform", "compose", affine, truth, "--output", str(out)], capsys)
    points = read_points(case.path("fixed.csv"), "ras").world
    expected = read_transform(affine)(case.truth(points))
    assert (read_transform(out)(points) - expected).abs().max() < 1e-4  # mm, float32 field


def test_invert_tells_its_error_and_undoes(case, tmp_path, capsys):
    out = tmp_path / "i.h5"
    found = run_json(["transform", "invert", case.path("truth.h5"), "--output", str(out)], capsys)
    assert 0 < found["max_voxels"] < 0.2  # of the voxels, those at the border too
    points = read_points(case.path("fixed.csv"), "ras").world
    assert (read_transform(out)(case.truth(points)) - points).abs().max() < INTERPOLATED
    found = run_json(["transform", "invert", case.path("affine.tfm"), "--output", str(tmp_path / "a.tfm")], capsys)
    assert found["inverse_consistency"] == {}


@pytest.mark.parametrize("name", ["c.nii.gz", "c.h5"])
def test_convert_keeps_the_map(case, name, tmp_path, capsys):
    out = tmp_path / name
    run_json(["transform", "convert", case.path("truth.h5"), "--output", str(out)], capsys)
    points = read_points(case.path("fixed.csv"), "ras").world
    # one linear field interpolates the same voxel values: the affine part of this map is a shift
    assert (read_transform(out)(points) - case.truth(points)).abs().max() < 1e-4


def test_convert_to_and_from_ants(volume, tmp_path, capsys):
    prefix = str(tmp_path / "a_")
    found = run_json(["transform", "convert", volume.path("truth.h5"), "--ants", "--output", prefix], capsys)
    assert [path.removeprefix(prefix) for path in found["output"]] == [
        "0GenericAffine.mat",
        "1Warp.nii.gz",
        "1InverseWarp.nii.gz",
    ]
    assert main(["transform", "convert", prefix, "--output", str(tmp_path / "b.h5")]) == 0
    points = read_points(volume.path("fixed.csv"), "ras").world
    assert (read_transform(tmp_path / "b.h5")(points) - volume.truth(points)).abs().max() < 1e-4  # mm, float32
    assert main(["transform", "convert", volume.path("truth.h5"), "--ants", "--output", prefix]) == 2


def test_jacobian_and_its_logarithm(volume, tmp_path, capsys):
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    from warpwright.io import write_transform

    write_transform(tmp_path / "a.tfm", Affine(affine))
    common = ["--reference", volume.path("fixed.nii.gz")]
    found = run_json(
        ["transform", "jacobian", str(tmp_path / "a.tfm"), "--output", str(tmp_path / "j.nii.gz"), *common], capsys
    )
    assert found["min_determinant"] == pytest.approx(2.0)
    assert found["folded_percent"] == 0
    out = tmp_path / "l.nii.gz"
    assert main(["transform", "jacobian", str(tmp_path / "a.tfm"), "--log", "--output", str(out), *common]) == 0
    assert torch.allclose(read_image(out).data, torch.tensor(2.0).log())


def test_evaluate_labels(case, tmp_path, capsys):
    fixed, moved = (case.path(f"{side}_labels.nii.gz") for side in ("fixed", "moving"))
    out = tmp_path / "scores.json"
    found = run_json(["evaluate", "--fixed-labels", fixed, "--moved-labels", moved, "--output", str(out)], capsys)
    assert json.loads(out.read_text()) == found
    one, two = (np.asarray(nib.load(path).dataobj) for path in (fixed, moved))
    for label in (1, 2):
        expected = 2 * ((one == label) & (two == label)).sum() / ((one == label).sum() + (two == label).sum())
        assert found["labels"]["labels"][str(label)]["dice"] == pytest.approx(expected)
    assert found["labels"]["mean_hd95_mm"] > 0


def test_evaluate_points_through_a_transform(case, capsys):
    arguments = ["--fixed-points", case.path("fixed.csv"), "--moving-points", case.path("moving.csv"), "--space", "ras"]
    found = run_json(["evaluate", *arguments, "--transform", case.path("truth.h5")], capsys)
    assert found["points"]["before"]["mean"] > 1.2
    assert found["points"]["after"]["max"] < 1e-4  # mm, float32 field
    assert found["transform"]["folded_percent"] == 0
    assert found["transform"]["inverse_consistency_mm"]["p95"] < INTERPOLATED


def test_evaluate_pairs(volume, tmp_path, capsys):
    labels = volume.path("fixed_labels.nii.gz")
    (tmp_path / "p.csv").write_text(f"id,fixed_labels,moved_labels\nx,{labels},{labels}\n")
    found = run_json(["evaluate", "--pairs", str(tmp_path / "p.csv")], capsys)
    assert found["pairs"]["mean_dice"] == 1
    assert found["pairs"]["summary"]["dice"]["interval"] == [1, 1]
    assert found["pairs"]["learn2reg"]["dice"] is None
    for text in (
        f"id,fixed_labels,moved_labels\nx,{labels},{labels}\nx,{labels},{labels}\n".encode(),
        f"id,fixed_labels,moved_labels\nx,{labels}\n".encode(),
        f"id,fixed_labels,moved_labels\nM\xfcller,{labels},{labels}\n".encode("latin-1"),
    ):
        (tmp_path / "p.csv").write_bytes(text)
        assert main(["evaluate", "--pairs", str(tmp_path / "p.csv")]) == 2
        assert str(tmp_path / "p.csv") in capsys.readouterr().err


def test_evaluate_pairs_of_registrations(volume, registered, tmp_path, capsys):
    """A folder of a registration against the known map: every figure of its own result, twice."""
    names = ("fixed_labels.nii.gz", "moving_labels.nii.gz", "fixed.csv", "moving.csv")
    files = ",".join(volume.path(name) for name in names)
    header = "id,fixed_labels,moving_labels,fixed_points,moving_points,transform\n"
    (tmp_path / "p.csv").write_text(f"{header}one,{files},{registered}\ntwo,{files},{registered}\n")
    (tmp_path / "q.csv").write_text(f"{header}two,{files},{volume.path('truth.h5')}\none,{files},{volume.path('truth.h5')}\n")
    arguments = ["evaluate", "--pairs", str(tmp_path / "p.csv"), "--against", str(tmp_path / "q.csv"), "--space", "ras"]
    found = run_json([*arguments, "--output", str(tmp_path / "o.json")], capsys)
    assert json.loads((tmp_path / "o.json").read_text()) == found
    scores = json.loads((registered / "result.json").read_text())["scores"]
    for case in found["pairs"]["pairs"].values():
        assert case["mean_dice"] == pytest.approx(scores["mean_dice_after"], abs=1e-3)  # the field is written in float32
        assert case["mean_tre_mm"] == pytest.approx(scores["tre_after"]["mean"], abs=1e-4)
        assert case["transform"]["folded_percent"] == scores["folded_percent"]
    assert found["pairs"]["against"]["tre_mm"]["mean_against"] < 1e-4  # mm, float32 field
    assert found["pairs"]["against"]["dice"]["pairs"] == 2
    assert all(value is not None for value in found["pairs"]["learn2reg"].values())
    assert main([*arguments, "--output", str(tmp_path / "o.csv")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["case", "Dice", "HD95", "mm", "TRE", "mm", "folds", "%"]
    assert "Wilcoxon signed-rank, 2 pairs" in printed[-1]
    with (tmp_path / "o.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["label"]) for row in rows] == [("one", "1"), ("one", "2"), ("two", "1"), ("two", "2")]
    assert float(rows[1]["dice"]) == found["pairs"]["pairs"]["one"]["labels"]["2"]["dice"]


def test_evaluate_pairs_refuses(volume, tmp_path, capsys):
    truth = volume.path("truth.h5")
    (tmp_path / "p.csv").write_text(f"id,transform\nx,{truth}\n")
    for more, words in (
        (["--output", str(tmp_path / "o.csv")], "expected a .json file"),
        (["--output", str(tmp_path / "o.csv"), "--pairs", str(tmp_path / "p.csv")], "expected a .json file"),
        (["--against", str(tmp_path / "p.csv")], "--pairs"),
        (["--pairs", str(tmp_path / "p.csv"), "--output", str(tmp_path / "p.csv")], "--force"),
    ):
        assert main(["evaluate", "--transform", truth, *more]) == 2
        caught = capsys.readouterr()
        assert words in caught.err
        assert caught.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_info(volume, flat, registered, capsys):
    found = run_json(["info", volume.path("fixed.nii.gz")], capsys)
    assert found["shape"] == list(volume.grid.shape)
    assert found["axes"] == "ALS"
    assert found["spacing_mm"] == pytest.approx(volume.grid.spacing)
    found = run_json(["info", str(registered)], capsys)
    assert [part["type"] for part in found["parts"]] == ["affine", "DisplacementField"]
    assert found["parts"][1]["displacement_mm"]["max"] > 0.5
    found = run_json(["transform", "info", flat.path("affine.tfm")], capsys)
    assert found["parts"][0]["determinant"] == pytest.approx(1.0)
    assert main(["info", volume.path("fixed.nii.gz")]) == 0
    assert "spacing_mm: 1 0.9 1.7" in capsys.readouterr().out


def test_demo_tells_every_pair(volume, tmp_path, capsys, monkeypatch):
    """The real pairs take a minute: here one small pair stands for them."""
    import warpwright.product.demo as module
    from warpwright.data import Pair

    pair = Pair(
        name="small",
        fixed=volume.folder / "fixed.nii.gz",
        moving=volume.folder / "moving.nii.gz",
        fixed_labels=volume.folder / "fixed_labels.nii.gz",
        moving_labels=volume.folder / "moving_labels.nii.gz",
        labels_to_score=(1, 2),
        description="a pair",
    )
    monkeypatch.setattr(module, "bundled_pairs", lambda: (pair,))
    assert main(["demo", "--output", str(tmp_path / "d")]) == 0
    assert "small" in capsys.readouterr().out
    assert (tmp_path / "d" / "small" / "figure.png").stat().st_size > 10_000
    assert main(["demo", "--output", str(tmp_path / "d")]) == 2
