from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from oracles.dicom import write_slice
from warpwright.cli.main import main
from warpwright.geometry import jacobian_determinant
from warpwright.io import read_image, read_transform
from warpwright.transforms import displacement_on

LEFT = {"transform.h5", "inverse.h5", "moved.nii.gz", "jacobian.nii.gz", "figure.png", "result.json"}


def test_leaves_what_it_promises(registered, result):
    assert {path.name for path in registered.iterdir()} == LEFT
    assert result["verdict"]["improved"]
    assert result["scores"]["mean_dice_after"] > result["scores"]["mean_dice_before"]
    assert result["scores"]["tre_after"]["mean"] < 0.5 * result["scores"]["tre_before"]["mean"]
    assert result["settings"]["similarity"]["kind"] == "lncc"
    assert set(result["versions"]) >= {"warpwright", "torch", "python"}
    assert result["seconds"]["registration"] > 0
    assert result["peak_memory_gb"] > 0.01
    assert result["command"].startswith("warpwright")
    assert {stage["name"].split()[0] for stage in result["stages"]} >= {"affine", "greedy"}


def test_records_the_hash_of_every_input(volume, result):
    import hashlib
    from pathlib import Path

    assert set(result["inputs"]) == {f"{s}{w}" for s in ("fixed", "moving") for w in ("", "_labels", "_points")}
    expected = hashlib.sha256(Path(volume.path("fixed.nii.gz")).read_bytes()).hexdigest()
    assert result["inputs"]["fixed"]["sha256"] == expected


def test_transform_is_close_to_the_truth(volume, registered):
    points = volume.grid.to_world(torch.tensor([[n * f for n in volume.grid.shape] for f in (0.35, 0.5, 0.6)]).double())
    error = (read_transform(registered / "transform.h5")(points) - volume.truth(points)).norm(dim=1)
    assert error.max() < 0.85  # mm: half of the longest voxel edge; the shift is 2 mm and the bump 2.6


def test_moved_is_what_simpleitk_makes_of_the_transform(volume, registered):
    fixed, moving = (sitk.ReadImage(volume.path(f"{n}.nii.gz")) for n in ("fixed", "moving"))
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, sitk.ReadTransform(str(registered / "transform.h5"))))
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(registered / "moved.nii.gz")))
    seen = ours != 0
    assert seen.mean() > 0.7
    assert np.abs(theirs - ours)[seen].max() < 1e-3 * (theirs.max() - theirs.min())  # the bound; float32 fields


def test_jacobian_is_of_the_full_map(registered):
    image = read_image(registered / "jacobian.nii.gz")
    field = displacement_on(read_transform(registered / "transform.h5"), image.grid)
    assert torch.allclose(image.data, jacobian_determinant(field[None]), atol=2e-4)  # float32 voxels through mm


@pytest.mark.parametrize("name", [b"caf\xe9.nii.gz", rb"f$\x$ _a^.nii.gz"], ids=["no UTF-8", "mathematics"])
def test_names_that_are_no_text_or_look_like_formulas(name, flat, tmp_path):
    fixed = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    shutil.copy(flat.path("fixed.nii.gz"), fixed)
    place = f"{fixed}-results"
    arguments = [fixed, flat.path("moving.nii.gz"), "--transform", "rigid", "--preset", "fast", "--output", place, "--report"]
    assert main(["register", *map(str, arguments)]) == 0
    assert json.loads(Path(place, "result.json").read_text())["inputs"]["fixed"]["path"] == fixed
    assert Path(place, "figure.png").stat().st_size > 0
    assert Path(place, "report.html").stat().st_size > 0
    assert main(["info", str(fixed)]) == 0


def test_json_on_standard_output(flat, tmp_path, capsys):
    arguments = [flat.path("fixed.nii.gz"), flat.path("moving.nii.gz"), "--output", str(tmp_path / "o"), "--json"]
    assert main(["register", *arguments, "--transform", "rigid", "--fixed-mask", flat.path("mask.nii.gz")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["output"] == str(tmp_path / "o")
    assert found["settings"]["deformable"] is None
    assert found["scores"]["min_determinant"] == found["scores"]["min_determinant"]  # present, a number
    assert abs(found["scores"]["min_determinant"] - 1) < 1e-5  # a rigid map, determinant in float32
    assert {path.name for path in (tmp_path / "o").iterdir()} == LEFT


def test_terminal_tells_before_and_after_and_that_it_got_worse(flat, tmp_path, capsys):
    """Landmarks in an order that no map can follow."""
    text = (flat.folder / "moving.csv").read_text().splitlines()
    (tmp_path / "moving.csv").write_text("\n".join([text[0], *text[:0:-1]]))
    (tmp_path / "fixed.csv").write_text((flat.folder / "moving.csv").read_text())
    arguments = [
        flat.path("fixed.nii.gz"),
        flat.path("moving.nii.gz"),
        "--output",
        str(tmp_path / "o"),
        "--transform",
        "affine",
    ]
    points = ["--fixed-points", str(tmp_path / "fixed.csv"), "--moving-points", flat.path("moving.csv"), "--space", "ras"]
    assert main(["register", *arguments, *points]) == 0
    caught = capsys.readouterr()
    assert "similarity" in caught.out
    assert "worse" not in caught.out
    assert "warpwright: warning: got worse: mean landmark error 0.00 mm before" in caught.err
    assert main(["register", *arguments, *points, "--force", "--json"]) == 0
    caught = capsys.readouterr()
    assert not json.loads(caught.out)["verdict"]["improved"]
    assert "warpwright: warning: got worse: mean landmark error 0.00 mm before" in caught.err
    assert not json.loads((tmp_path / "o" / "result.json").read_text())["verdict"]["improved"]


def test_dry_run_writes_nothing(flat, tmp_path, capsys):
    arguments = [flat.path("fixed.nii.gz"), flat.path("moving.nii.gz"), "--output", str(tmp_path / "o"), "--dry-run"]
    assert main(["register", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["grids"]["fixed"]["shape"] == list(flat.grid.shape)
    assert list(tmp_path.iterdir()) == []


def test_config_is_laid_over_the_preset(flat, tmp_path, capsys):
    (tmp_path / "c.toml").write_text('steps = [8, 7, 6, 5]\n[similarity]\nkind = "mse"\n')
    arguments = [flat.path("fixed.nii.gz"), flat.path("moving.nii.gz"), "--output", str(tmp_path / "o"), "--dry-run"]
    assert main(["register", *arguments, "--config", str(tmp_path / "c.toml")]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["steps"] == [8, 7, 6, 5]
    assert settings["similarity"] == {"kind": "mse"}
    assert main(["register", *arguments, "--config", str(tmp_path / "c.toml"), "--similarity", "mi"]) == 2
    assert "--similarity mi" in capsys.readouterr().err


def test_a_series_is_chosen_from_a_dicom_folder(tmp_path, capsys):
    """Two series of three slices in one folder."""
    rng = np.random.default_rng(0)
    (tmp_path / "dicom").mkdir()
    for series in (1, 2):
        for k in range(3):
            slice_ = sitk.GetImageFromArray(rng.integers(0, 100, (1, 9 + series, 8)).astype(np.int16))
            slice_.SetOrigin((0, 0, 2.0 * k))
            write_slice(tmp_path / "dicom" / f"{series}{k}.dcm", slice_, f"1.2.3.{series}", k, (0, 0, 2 * k))
    folder = str(tmp_path / "dicom")
    arguments = ["register", folder, folder, "--output", str(tmp_path / "o"), "--dry-run"]
    assert main([*arguments, "--fixed-series", ".1", "--moving-series", ".2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [found["grids"][side]["shape"] for side in ("fixed", "moving")] == [[8, 10, 3], [8, 11, 3]]
    assert found["inputs"]["moving"]["series"] == ".2"
    assert main([*arguments, "--fixed-series", ".1"]) == 2
    assert "1.2.3.2" in capsys.readouterr().err


def test_force_replaces_results_and_keeps_other_files(flat, tmp_path):
    output = tmp_path / "o"
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    (output / "result.json").write_text("old")
    arguments = [flat.path("fixed.nii.gz"), flat.path("moving.nii.gz"), "--output", str(output), "--transform", "rigid"]
    assert main(["register", *arguments]) == 2
    assert (output / "result.json").read_text() == "old"
    assert main(["register", *arguments, "--force"]) == 0
    assert {path.name for path in output.iterdir()} == LEFT | {"mine.txt"}
    assert (output / "mine.txt").read_text() == "keep"
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
