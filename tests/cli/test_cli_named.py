"""Transforms named as a file, an ANTs prefix or a folder of a registration; where fields are written; what is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from oracles.dicom import write_slice
from warpwright.cli.main import main
from warpwright.geometry import Grid, Image
from warpwright.io import Points, read_image, read_points, read_transform, write_image, write_points, write_transform
from warpwright.transforms import Affine

INTERPOLATED = 0.06  # mm: both maps are linear between voxels, and the bump is 2.6 voxels of 1.7 mm wide


def run_json(arguments: list[str], capsys) -> dict:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def complaint(arguments: list[str], capsys) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err.count("\n") == 1
    return caught.err


@pytest.fixture
def moving_grid(volume) -> Grid:
    """Coarser than the fixed grid and shifted by a voxel, so that neither can be taken for the other."""
    grid = volume.grid
    coarse = grid.affine @ np.diag([1.25, 1.0, 1.0, 1.0])
    coarse[:3, 3] -= grid.affine[:3, 1]
    return Grid((grid.shape[0], grid.shape[1] + 2, grid.shape[2]), coarse)


@pytest.fixture
def folder(volume, moving_grid, tmp_path: Path) -> Path:
    """What `register` leaves, as far as it names a transform."""
    place = tmp_path / "r1"
    place.mkdir()
    write_transform(place / "transform.h5", volume.truth)
    grids = {
        side: {"shape": list(grid.shape), "affine": grid.affine.tolist()}
        for side, grid in (("fixed", volume.grid), ("moving", moving_grid))
    }
    (place / "result.json").write_text(json.dumps({"grids": grids}))
    return place


@pytest.fixture
def prefix(volume, tmp_path: Path) -> str:
    assert main(["transform", "convert", volume.path("truth.h5"), "--ants", "--output", str(tmp_path / "a_")]) == 0
    return str(tmp_path / "a_")


@pytest.mark.parametrize("kind", ["folder", "prefix"])
def test_every_tool_takes_a_folder_and_a_prefix(kind, volume, request, tmp_path, capsys):
    name = str(request.getfixturevalue(kind))
    points = read_points(volume.path("fixed.csv"), "ras").world
    expected = volume.truth(points)
    for command in ("info", "transform info"):
        found = run_json([*command.split(), name], capsys)
        assert [part["type"] for part in found["parts"]] == ["affine", "DisplacementField"]
    out = {key: str(tmp_path / f"{key}.h5") for key in ("convert", "compose", "invert")}
    run_json(["transform", "convert", name, "--output", out["convert"]], capsys)
    run_json(["transform", "compose", volume.path("affine.tfm"), name, "--output", out["compose"]], capsys)
    run_json(["transform", "invert", name, "--output", out["invert"]], capsys)
    figures = run_json(["transform", "jacobian", name, "--output", str(tmp_path / "j.nii.gz")], capsys)
    assert figures["folded_percent"] == 0
    tolerance = 1e-4  # mm, float32 field
    assert (read_transform(out["convert"])(points) - expected).abs().max() < tolerance
    composed = read_transform(volume.path("affine.tfm"))(expected)
    assert (read_transform(out["compose"])(points) - composed).abs().max() < tolerance
    assert (read_transform(out["invert"])(expected) - points).abs().max() < INTERPOLATED


def test_a_folder_without_a_transform_is_told(volume, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    arguments = ["transform", "compose", volume.path("truth.h5"), str(tmp_path / "empty"), "--output", str(tmp_path / "o.h5")]
    assert "transform.h5" in complaint(arguments, capsys)


@pytest.mark.parametrize("suffix", [".nii.gz", ".h5"])
def test_an_inverse_as_one_field_lies_on_the_moving_grid(suffix, volume, moving_grid, tmp_path, capsys):
    reference, out = str(tmp_path / "moving.nii.gz"), str(tmp_path / f"inverse{suffix}")
    write_image(reference, Image(torch.zeros(1, *moving_grid.shape), moving_grid))
    arguments = ["transform", "invert", volume.path("truth.h5"), "--output", out]
    if suffix == ".nii.gz":
        assert "--reference" in complaint(arguments, capsys)
    found = run_json([*arguments, "--reference", reference], capsys)
    assert found["inverse_consistency"]["p95"] < 2 * INTERPOLATED  # mm; the inverse is interpolated once more, 1.25 as coarse
    written = read_transform(out)
    field = written if suffix == ".nii.gz" else written.parts[-1]
    assert field.grid.same_as(moving_grid)
    points = read_points(volume.path("fixed.csv"), "ras").world
    assert (written(volume.truth(points)) - points).abs().max() < 2 * INTERPOLATED


def test_a_folder_knows_the_moving_grid(folder, moving_grid, tmp_path, capsys):
    run_json(["transform", "invert", str(folder), "--output", str(tmp_path / "i.nii.gz")], capsys)
    assert read_transform(tmp_path / "i.nii.gz").grid.same_as(moving_grid)


def test_an_inverse_of_an_affine_as_a_field(volume, tmp_path, capsys):
    out = str(tmp_path / "i.nii.gz")
    arguments = ["transform", "invert", volume.path("affine.tfm"), "--output", out]
    assert "--reference" in complaint(arguments, capsys)
    run_json([*arguments, "--reference", volume.path("moving.nii.gz")], capsys)
    points = read_points(volume.path("fixed.csv"), "ras").world
    expected = read_transform(volume.path("affine.tfm")).inverse()(points)
    assert (read_transform(out)(points) - expected).abs().max() < 1e-4  # mm, float32 field


def test_compose_into_one_field(volume, flat, tmp_path, capsys):
    out = str(tmp_path / "c.nii.gz")
    arguments = ["transform", "compose", volume.path("truth.h5"), volume.path("affine.tfm"), "--output", out]
    assert "--reference" in complaint(arguments, capsys)
    wrong = complaint([*arguments, "--reference", flat.path("fixed.nii.gz")], capsys)
    assert "fixed.nii.gz: has 2 axes" in wrong
    assert "truth.h5" in wrong
    run_json([*arguments, "--reference", volume.path("fixed.nii.gz")], capsys)
    assert read_transform(out).grid.same_as(volume.grid)
    voxels = torch.tensor([[8.0, 9, 4], [11, 13, 6]]).double()  # the map is flattened exactly at voxels
    points = volume.grid.to_world(voxels)
    expected = volume.truth(read_transform(volume.path("affine.tfm"))(points))
    assert (read_transform(out)(points) - expected).abs().max() < 1e-4  # mm, float32 field


def test_evaluate_names_its_own_options_and_checks_axes(volume, flat, tmp_path, capsys):
    assert "--fixed" in complaint(["evaluate", "--transform", volume.path("affine.tfm")], capsys)
    arguments = ["evaluate", "--transform", volume.path("affine.tfm"), "--fixed", flat.path("fixed.nii.gz")]
    assert "fixed.nii.gz: has 2 axes" in complaint(arguments, capsys)
    points = ["--fixed-points", volume.path("fixed.csv"), "--moving-points", volume.path("moving.csv"), "--space", "ras"]
    output = str(tmp_path / "none" / "e.json")
    assert f"{output}: cannot be written" in complaint(["evaluate", *points, "--output", output], capsys)
    assert list(tmp_path.iterdir()) == []
    assert "fixed.csv: has points of 3" in complaint(["evaluate", *points, "--transform", flat.path("truth.h5")], capsys)


def test_evaluate_counts_the_labels_of_a_mean(volume, tmp_path, capsys):
    fixed = read_image(volume.path("fixed_labels.nii.gz"))
    write_image(tmp_path / "one.nii.gz", Image((fixed.data * (fixed.data == 1)).to(torch.int16), fixed.grid))
    arguments = ["evaluate", "--fixed-labels", volume.path("fixed_labels.nii.gz"), "--moved-labels"]
    assert main([*arguments, str(tmp_path / "one.nii.gz"), "--json"]) == 0
    caught = capsys.readouterr()
    found = json.loads(caught.out)
    assert found["labels"]["counted_labels"] == {"dice": 2, "jaccard": 2, "hd95_mm": 1, "hd_mm": 1, "assd_mm": 1}
    assert found["labels"]["mean_hd95_mm"] == 0
    assert found["labels"]["labels"]["2"]["hd95_mm"] is None
    assert "count 1 of 2 labels; in one map only: 2" in caught.err
    assert found["warnings"][0] in caught.err
    assert main([*arguments, str(tmp_path / "one.nii.gz")]) == 0
    caught = capsys.readouterr()
    assert "in one map only" not in caught.out
    assert "warning" in caught.err


def test_evaluate_tells_points_outside(volume, tmp_path, capsys):
    world = volume.grid.to_world(torch.tensor([[5.0, 5, 5], [-40, 5, 5]]).double())
    for name in ("f.csv", "m.csv"):
        write_points(tmp_path / name, Points(world, ("in", "far")), "ras")
    arguments = ["evaluate", "--fixed-points", str(tmp_path / "f.csv"), "--moving-points", str(tmp_path / "m.csv")]
    arguments += ["--space", "ras"]
    assert main([*arguments, "--fixed", volume.path("fixed.nii.gz"), "--json"]) == 0
    caught = capsys.readouterr()
    assert json.loads(caught.out)["points"]["outside"] == ["far"]
    assert "1 of 2 points lie outside the image (far)" in caught.err
    found = run_json(arguments, capsys)  # no grid is known
    assert found["points"]["outside"] == []
    assert found["warnings"] == []


def write_series(folder: Path, uid: str, values: np.ndarray) -> None:
    for k, plane in enumerate(values):
        write_slice(folder / f"{uid}-{k}.dcm", sitk.GetImageFromArray(plane), uid, k, (0, 0, k))


def test_a_series_is_chosen(tmp_path, capsys):
    rng = np.random.default_rng(0)
    dicom = tmp_path / "d"
    dicom.mkdir()
    series = {uid: rng.integers(0, 900, (n, 6, 5), dtype=np.int16) for uid, n in (("1.2.3.4", 3), ("1.2.3.77", 4))}
    for uid, values in series.items():
        write_series(dicom, uid, values)
    assert "--series" in complaint(["info", str(dicom)], capsys)
    assert run_json(["info", str(dicom), "--series", "77"], capsys)["shape"] == [5, 6, 4]
    write_transform(tmp_path / "t.tfm", Affine.identity(3))
    out = tmp_path / "o.nii.gz"
    arguments = ["apply", str(tmp_path / "t.tfm"), "--image", str(dicom), "--reference", str(dicom), "--output", str(out)]
    assert "--series" in complaint(arguments, capsys)
    run_json([*arguments, "--series", "1.2.3.4"], capsys)
    np.testing.assert_allclose(
        read_image(out).data[0].numpy(), series["1.2.3.4"].transpose(2, 1, 0), atol=1e-3
    )  # float32 places
