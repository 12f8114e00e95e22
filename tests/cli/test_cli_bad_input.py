"""Whatever cannot be used: exit code 2, one line that names it, nothing left behind."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch

from warpwright.cli.main import main
from warpwright.geometry import Grid, Image
from warpwright.io import write_image

Make = Callable[[Path, object], list[str]]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run; the one line on standard error."""
    capsys.readouterr()
    code = main(arguments)
    caught = capsys.readouterr()
    assert code == 2, caught.err
    assert caught.out == ""
    assert caught.err.count("\n") == 1, caught.err
    assert "Traceback" not in caught.err
    return caught.err


def image(folder: Path, name: str, data: np.ndarray, affine: np.ndarray | None = None) -> str:
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), folder / name)
    return str(folder / name)


def blob(shape: tuple[int, ...] = (9, 8, 7)) -> np.ndarray:
    return np.random.default_rng(0).random(shape).astype(np.float32)


def truncated(folder: Path) -> str:
    path = Path(image(folder, "cut.nii.gz", blob((20, 20, 20))))
    path.write_bytes(path.read_bytes()[:2000])
    return str(path)


def with_nan(folder: Path) -> str:
    data = blob()
    data[1, 2, 3] = np.nan
    return image(folder, "nan.nii.gz", data)


def singular(folder: Path) -> str:
    path = Path(image(folder, "singular.nii", blob()))
    raw = bytearray(path.read_bytes())
    raw[252:256] = b"\0\0\x01\0"  # qform off, sform on
    for row in range(3):
        raw[280 + 16 * row : 296 + 16 * row] = np.zeros(4, "<f4").tobytes()
    path.write_bytes(raw)
    return str(path)


def conflicting(folder: Path) -> str:
    nifti = nib.Nifti1Image(blob(), np.eye(4))
    nifti.set_sform(np.diag([1, 1, 1, 1.0]), 1)
    nifti.set_qform(np.array([[1, 0, 0, 30.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), 1)
    nib.save(nifti, folder / "conflict.nii.gz")
    return str(folder / "conflict.nii.gz")


BAD_IMAGES: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing": (lambda folder: str(folder / "none.nii.gz"), "none.nii.gz"),
    "truncated": (truncated, "cut.nii.gz"),
    "nan": (with_nan, "NaN"),
    "constant": (lambda folder: image(folder, "flat.nii.gz", np.full((9, 8, 7), 3, np.float32)), "flat.nii.gz"),
    "four axes": (lambda folder: image(folder, "four.nii.gz", blob((9, 8, 7, 2))), "four.nii.gz"),
    "suffix": (lambda folder: str((folder / "a.xyz").write_text("x") and folder / "a.xyz"), "a.xyz"),
    "not an image": (
        lambda folder: str((folder / "b.nii.gz").write_bytes(gzip.compress(b"no")) and folder / "b.nii.gz"),
        "b.nii.gz",
    ),
    "singular": (singular, "singular"),
    "qform and sform": (conflicting, "--header"),
}


@pytest.mark.parametrize("what", BAD_IMAGES)
@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_images(what, side, tmp_path, capsys):
    make, word = BAD_IMAGES[what]
    good, bad = image(tmp_path, "good.nii.gz", blob()), make(tmp_path)
    before = set(tmp_path.iterdir())
    pair = [bad, good] if side == "fixed" else [good, bad]
    assert word in refused(["register", *pair, "--output", str(tmp_path / "o")], capsys)
    assert set(tmp_path.iterdir()) == before


def test_rgb(flat, tmp_path, capsys):
    path = tmp_path / "rgb.png"
    write_image(path, Image(torch.randint(0, 255, (3, 12, 14)).float(), Grid.regular((12, 14))))
    assert "channels" in refused(["register", str(path), flat.path("moving.nii.gz"), "--output", str(tmp_path / "o")], capsys)


def test_axes_that_differ(volume, flat, tmp_path, capsys):
    pair = [volume.path("fixed.nii.gz"), flat.path("moving.nii.gz")]
    assert "2 axes" in refused(["register", *pair, "--output", str(tmp_path / "o")], capsys)


def options(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    empty = image(tmp_path, "empty.nii.gz", np.zeros((9, 8, 7), np.float32))
    other = image(tmp_path, "other.nii.gz", np.ones((9, 8, 7), np.float32), np.diag([1, 1, 2, 1.0]))
    small = image(tmp_path, "small.nii.gz", np.ones((4, 4, 4), np.int16))
    halves = image(tmp_path, "halves.nii.gz", np.full((9, 8, 7), 0.5, np.float32))
    one = image(tmp_path, "one.nii.gz", np.ones((9, 8, 7), np.int16))
    two = image(tmp_path, "two.nii.gz", np.full((9, 8, 7), 2, np.int16))
    far, few = tmp_path / "far.csv", tmp_path / "few.csv"
    far.write_text("x,y,z\n500,500,500\n600,1,1\n")
    few.write_text("x,y,z\n1,1,1\n")
    (tmp_path / "typo.toml").write_text("stepss = [1]\n")
    (tmp_path / "flat.toml").write_text('[similarity]\nkind = "lncc"\nradius = [1, 1]\n')
    (tmp_path / "beside.toml").write_text("[intensities]\nweight = 1.0\n")
    (tmp_path / "notes.h5").write_text("no transform")
    return {
        "empty mask": (["--fixed-mask", empty], "empty"),
        "mask on another grid": (["--moving-mask", other], "other.nii.gz"),
        "labels of another shape": (["--fixed-labels", small, "--moving-labels", one], "small.nii.gz"),
        "labels that are no labels": (["--fixed-labels", halves, "--moving-labels", one], "halves.nii.gz"),
        "no label": (["--fixed-labels", empty, "--moving-labels", one], "empty.nii.gz"),
        "no common label": (["--fixed-labels", one, "--moving-labels", two], "in common"),
        "only one side": (["--fixed-labels", one], "moving labels"),
        "points outside": (["--fixed-points", str(far), "--moving-points", str(far), "--space", "ras"], "outside"),
        "no space": (["--fixed-points", str(few), "--moving-points", str(few)], "few.csv"),
        "unpaired points": (["--fixed-points", str(few), "--moving-points", str(far), "--space", "voxel"], "far.csv"),
        "unknown key": (["--config", str(tmp_path / "typo.toml")], "did you mean 'steps'"),
        "no config": (["--config", str(tmp_path / "none.toml")], "none.toml"),
        "window of two axes": (
            ["--config", str(tmp_path / "flat.toml")],
            "flat.toml.similarity: LNCC has a radius of 2 numbers",
        ),
        "planned window of two axes": (["--config", str(tmp_path / "flat.toml"), "--dry-run"], "expected one number, or 3"),
        "no model of features": (["--config", str(tmp_path / "beside.toml")], "is for a model of features"),
        "bad transform": (["--initial", str(tmp_path / "notes.h5")], "notes.h5"),
        "unknown device": (["--device", "abacus"], "abacus"),
        "absent device": (["--device", "cuda:99"], "cuda:99"),
        "no threads": (["--threads", "0"], "threads"),
    }


@pytest.mark.parametrize("what", [
    "empty mask", "mask on another grid", "labels of another shape", "labels that are no labels", "no label",
    "no common label", "only one side", "points outside", "no space", "unpaired points", "unknown key", "no config",
    "window of two axes", "planned window of two axes", "no model of features",
    "bad transform", "unknown device", "absent device", "no threads",
])  # fmt: skip
def test_options(what, tmp_path, capsys):
    more, word = options(tmp_path)[what]
    pair = [image(tmp_path, "good.nii.gz", blob()), image(tmp_path, "also.nii.gz", 1 - blob())]
    before = set(tmp_path.iterdir())
    assert word in refused(["register", *pair, "--output", str(tmp_path / "o"), *more], capsys)
    assert set(tmp_path.iterdir()) == before


def test_output_that_is_not_empty(flat, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    pair = [flat.path("fixed.nii.gz"), flat.path("moving.nii.gz")]
    assert "--force" in refused(["register", *pair, "--output", str(tmp_path)], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/warpwright"])
def test_output_that_cannot_be_written(place, flat, tmp_path, capsys):
    (tmp_path / "file").write_text("a file")
    output = place if place.startswith("/") else str(tmp_path / place)
    pair = [flat.path("fixed.nii.gz"), flat.path("moving.nii.gz")]
    assert output in refused(["register", *pair, "--output", output], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_output_of_apply_that_exists_is_not_replaced(volume, tmp_path, capsys):
    output = tmp_path / "moved.nii.gz"
    output.write_text("mine")
    arguments = ["apply", volume.path("truth.h5"), "--image", volume.path("moving.nii.gz"), "--output", str(output)]
    assert "--force" in refused(arguments, capsys)
    assert output.read_text() == "mine"
    assert main([*arguments, "--force"]) == 0


def apply_options(case) -> dict[str, tuple[list[str], str]]:
    moving, points = case.path("moving.nii.gz"), case.path("fixed.csv")
    return {
        "nothing": ([case.path("truth.h5")], "exactly one"),
        "two things": ([case.path("truth.h5"), "--image", moving, "--labels", moving], "exactly one"),
        "no direction": ([case.path("truth.h5"), "--points", points, "--space", "ras"], "--from"),
        "no space": ([case.path("truth.h5"), "--points", points, "--from", "fixed"], "ras, lps or voxel"),
        "space of an image": ([case.path("truth.h5"), "--image", moving, "--space", "ras"], "--points"),
        "no grid": ([case.path("affine.tfm"), "--image", moving], "--reference"),
        "voxels without grids": ([case.path("truth.h5"), "--points", points, "--from", "fixed", "--space", "voxel"], "voxels"),
        "missing transform": ([case.path("none.h5"), "--image", moving], "none.h5"),
        "folder without transform": ([str(case.folder), "--image", moving], "transform.h5"),
        "fractions as labels": ([case.path("truth.h5"), "--labels", moving], "moving.nii.gz"),
    }


@pytest.mark.parametrize("what", [
    "nothing", "two things", "no direction", "no space", "space of an image", "no grid", "voxels without grids",
    "missing transform", "folder without transform", "fractions as labels",
])  # fmt: skip
def test_apply(what, volume, tmp_path, capsys):
    arguments, word = apply_options(volume)[what]
    assert word in refused(["apply", *arguments, "--output", str(tmp_path / "out.nii.gz")], capsys)
    assert list(tmp_path.iterdir()) == []


def test_singular_affine_file(tmp_path, capsys):
    path = tmp_path / "flat.h5"
    with h5py.File(path, "w") as file:
        for index, (kind, values, fixed) in enumerate(
            [("CompositeTransform_double_3_3", None, None), ("AffineTransform_double_3_3", np.zeros(12), np.zeros(3))]
        ):
            group = file.create_group(f"TransformGroup/{index}")
            group["TransformType"] = np.array([kind.encode()])
            if values is not None:
                group["TransformParameters"], group["TransformFixedParameters"] = values, fixed
    assert "singular" in refused(["transform", "invert", str(path), "--output", str(tmp_path / "o.h5")], capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["flat.h5"]


def test_transform_tools_and_evaluate(volume, flat, tmp_path, capsys):
    out = str(tmp_path / "o.h5")
    truth = volume.path("truth.h5")
    assert "two transforms" in refused(["transform", "compose", truth, "--output", out], capsys)
    assert "axes" in refused(["transform", "compose", truth, flat.path("truth.h5"), "--output", out], capsys)
    assert "suffix" in refused(["transform", "convert", truth, "--output", str(tmp_path / "o.xyz")], capsys)
    assert "affine only" in refused(["transform", "convert", truth, "--output", str(tmp_path / "o.tfm")], capsys)
    affine = volume.path("affine.tfm")
    assert "--reference" in refused(["transform", "jacobian", affine, "--output", str(tmp_path / "o.nii.gz")], capsys)
    assert "nothing to evaluate" in refused(["evaluate"], capsys)
    assert "both" in refused(["evaluate", "--fixed-labels", volume.path("fixed_labels.nii.gz")], capsys)
    labels = ["--fixed-labels", volume.path("fixed_labels.nii.gz"), "--moved-labels", flat.path("fixed_labels.nii.gz")]
    assert "fixed_labels.nii.gz" in refused(["evaluate", *labels], capsys)
    assert "none" in refused(["info", str(tmp_path / "none.nii.gz")], capsys)
    (tmp_path / "pairs.csv").write_text("id,fixed\n1,2\n")
    assert "fixed_labels" in refused(["evaluate", "--pairs", str(tmp_path / "pairs.csv")], capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.csv"]
