"""The files that ship with the package: complete, small, clean headers, and what their README.md says of them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture

from warpwright.data import Pair, bundled_pairs
from warpwright.product.model_folder import read_model
from warpwright.training import Training
from warpwright.training.config import read_training

PAIRS = {pair.name: pair for pair in bundled_pairs()}
ROOT = next(iter(PAIRS.values())).fixed.parents[1]
VOLUMES = sorted(ROOT.glob("*/*.nii.gz"))


def read(path: Path) -> np.ndarray:
    if path.suffix == ".png":
        with Picture.open(path) as picture:
            return np.asarray(picture)
    return np.asanyarray(nib.load(path).dataobj)


def points(path: Path) -> tuple[list[str], np.ndarray]:
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    return [row["id"] for row in rows], np.array([[float(row[axis]) for axis in "xyz"] for row in rows])


def paths(pair: Pair) -> list[Path]:
    every = (pair.fixed, pair.moving, pair.fixed_labels, pair.moving_labels, pair.fixed_points, pair.moving_points)
    return [path for path in every if path is not None]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def test_the_pairs_and_their_files() -> None:
    assert list(PAIRS) == ["hippocampus-130-132", "hippocampus-133-136", "cardiac", "lung", "spine", "vessels"]
    used = {path for pair in PAIRS.values() for path in paths(pair)}
    assert used == {path for path in ROOT.glob("*/*") if path.name != "README.md"}
    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file()) < 4_500_000


def test_every_folder_states_source_and_licence() -> None:
    for folder in {pair.fixed.parent for pair in PAIRS.values()}:
        text = (folder / "README.md").read_text()
        assert all(word in text for word in ("Source:", "commit", "Licence:", "Changed:")), folder.name
    assert "is synthetic" in (ROOT / "vessels/README.md").read_text()


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_labels_lie_on_the_grid_of_their_image(pair: Pair) -> None:
    assert (pair.labels_to_score is None) == (pair.fixed_labels is None) == (pair.moving_labels is None)
    for image, labels in ((pair.fixed, pair.fixed_labels), (pair.moving, pair.moving_labels)):
        values = read(image)
        assert values.std() > 0
        if labels is not None:
            assert read(labels).shape == values.shape
            assert set(np.unique(read(labels))) == {0, *(pair.labels_to_score or ())}
        if labels is not None and image.suffix == ".gz":
            assert (nib.load(image).affine == nib.load(labels).affine).all()


@pytest.mark.parametrize("path", VOLUMES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_headers_are_clean(path: Path) -> None:
    header = nib.load(path).header
    assert int(header["qform_code"]) == int(header["sform_code"]) == 1
    # float32 quaternions: the corner of 166 voxels moves by less than a thousandth of a millimetre
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-5, rtol=1e-6)
    assert header.get_xyzt_units()[0] == "mm"
    packed = path.read_bytes()
    assert packed[3] == 0, "no name in the gzip header"
    assert packed[4:8] == b"\0\0\0\0", "no time in the gzip header"
    raw = nib.Nifti1Header.from_fileobj(io.BytesIO(gzip.decompress(packed)), check=True)
    assert (float(raw["scl_slope"]), float(raw["scl_inter"])) == (1.0, 0.0)


def test_landmarks_are_inside_and_start_where_the_source_says() -> None:
    pair = PAIRS["lung"]
    assert pair.points_space == "lps"
    assert pair.fixed_points is not None
    assert pair.moving_points is not None
    (names, fixed), (others, moving) = points(pair.fixed_points), points(pair.moving_points)
    assert names == others
    assert len(set(names)) == 26
    assert np.linalg.norm(fixed - moving, axis=1).mean() == pytest.approx(34.7, abs=0.05)  # as published, one decimal
    for path, lps in ((pair.fixed, fixed), (pair.moving, moving)):
        volume = nib.load(path)
        voxels = nib.affines.apply_affine(np.linalg.inv(volume.affine), lps * (-1, -1, 1))
        assert (voxels > 0).all()
        assert (voxels < np.array(volume.shape) - 1).all()
        at = tuple(np.rint(voxels).astype(int).T)
        assert np.median(np.asanyarray(volume.dataobj)[at]) < -300  # vessels and airways in the lung: not soft tissue or bone


def test_hounsfield_units_survive() -> None:
    for path in (PAIRS["lung"].fixed, PAIRS["lung"].moving):
        values = read(path)
        assert values.dtype == np.int16
        assert values.min() >= -1024
        assert -950 < np.median(values[(values > -1000) & (values < -500)]) < -800  # inflated lung
        assert 0 < np.median(values[values > -200]) < 100  # soft tissue


def test_overlap_before_registration() -> None:
    """The start that the source's README.md gives (two decimals), computed on one voxel lattice."""
    cardiac, vessels = PAIRS["cardiac"], PAIRS["vessels"]
    start = {}
    for pair, label in ((cardiac, 1), (vessels, 255)):
        assert pair.fixed_labels is not None
        assert pair.moving_labels is not None
        start[pair.name] = dice(read(pair.fixed_labels) == label, read(pair.moving_labels) == label)
    assert start["cardiac"] == pytest.approx(0.84, abs=0.005)
    assert start["vessels"] < 0.4, "the synthetic warp must move the vessels"


def test_the_heart_is_drawn_in_the_same_slices() -> None:
    pair = PAIRS["cardiac"]
    assert pair.fixed_labels is not None
    assert pair.moving_labels is not None
    for path in (pair.fixed_labels, pair.moving_labels):
        assert np.flatnonzero(read(path).any((0, 1))).tolist() == list(range(1, 10))


def test_pictures_are_plain_greyscale() -> None:
    seen = set()
    for path in sorted((ROOT / "vessels").glob("*.png")):
        with Picture.open(path) as picture:
            assert (picture.mode, picture.size) == ("L", (499, 480))
        seen.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(seen) == 4


RECIPES = {"hippocampus": "hippocampus/unsupervised.toml", "hippocampus-features": "dio/shifts/longer.toml"}
MODELS = sorted({folder for pair in PAIRS.values() for folder in pair.models})


def test_every_bundled_model_has_a_recipe() -> None:
    assert [folder.name for folder in MODELS] == list(RECIPES)


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_a_bundled_model_is_what_its_recipe_makes(folder: Path) -> None:
    recipe = read_training(Path(__file__).parents[2] / "recipes" / RECIPES[folder.name])
    found = read_model(folder)
    assert found.model.settings == recipe.model
    assert found.summary["steps"] == recipe.steps
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5e6


def test_the_cards_of_bundled_models_say_everything() -> None:
    for pair in PAIRS.values():
        for folder in pair.models:
            card = (folder / "README.md").read_text()
            assert "not stated" not in card
            assert "CC BY-SA 4.0" in card
            assert "among the training images" in card


def test_a_bare_training_has_the_network_the_loss_and_the_scheme_of_the_recipe() -> None:
    recipe = read_training(Path(__file__).parents[2] / "recipes/hippocampus/unsupervised.toml")
    bare = Training(data=recipe.data)
    for name in ("network", "layers", "loss"):
        assert getattr(bare.model, name) == getattr(recipe.model, name)
    assert bare.scheme == recipe.scheme
