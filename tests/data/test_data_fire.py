"""The folders of FIRE, faked: which pairs, which image is fixed, the axis order of the points, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from warpwright.data import read_fire
from warpwright.errors import BadInput
from warpwright.io import read_image

TEST = [*("A12", "A13", "A14"), *(f"P{k}" for k in range(40, 50)), *(f"S{k}" for k in range(57, 72))]


def write(folder: Path, names: list[str]) -> Path:
    """Empty images, and the points of each pair made from its number."""
    (folder / "Images").mkdir()
    (folder / "Ground Truth").mkdir()
    for name in names:
        for side in "12":
            (folder / f"Images/{name}_{side}.jpg").touch()
        start = int(name[1:])
        points_of(folder, name).write_text(f"{start}.5 200 {start + 1} 400.25\n7 8 9 1e1\r\n\n")
    return folder


def points_of(folder: Path, name: str) -> Path:
    return folder / f"Ground Truth/control_points_{name}_1_2.txt"


@pytest.fixture
def fire(tmp_path: Path) -> Path:
    return write(tmp_path, TEST)


def test_all_pairs_but_the_wrong_one(tmp_path: Path) -> None:
    every = [f"{letter}{k:02d}" for letter, count in (("A", 14), ("P", 49), ("S", 71)) for k in range(1, count + 1)]
    write(tmp_path, every)
    points_of(tmp_path, "P37").write_text("wrong")
    pairs = read_fire(tmp_path)
    assert [pair.name for pair in pairs] == [name for name in every if name != "P37"]
    assert [[pair.category for pair in pairs].count(letter) for letter in ("A", "P", "S")] == [14, 48, 71]
    assert all(pair.category == pair.name[0] for pair in pairs)
    tested = read_fire(tmp_path, "test")
    assert [pair.name for pair in tested] == TEST
    assert len(tested) == 28


def test_image_2_is_fixed(fire: Path) -> None:
    first = read_fire(str(fire), split="test")[0]
    assert first.fixed == fire / "Images/A12_2.jpg"
    assert first.moving == fire / "Images/A12_1.jpg"
    assert first.fixed_points.dtype == first.moving_points.dtype == torch.float64
    assert first.fixed_points.tolist() == [[13, 400.25], [9, 10]]
    assert first.moving_points.tolist() == [[12.5, 200], [7, 8]]


def test_points_are_voxels_of_the_images_as_they_are_read(fire: Path) -> None:
    for side, (x, y) in (("1", (30, 10)), ("2", (41, 19))):
        values = np.zeros((32, 56, 3), np.uint8)  # rows y, columns x
        values[y - 1 : y + 2, x - 1 : x + 2] = 255
        sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(fire / f"Images/S60_{side}.jpg"), False, 100)
    points_of(fire, "S60").write_text("30 10 41 19\n")
    pair = {pair.name: pair for pair in read_fire(fire, "test")}["S60"]
    for path, points in ((pair.fixed, pair.fixed_points), (pair.moving, pair.moving_points)):
        data = read_image(path).data.double().mean(0)
        assert data.shape == (56, 32)
        weights = data * (data > 200)  # what the compression leaves of the block
        centre = torch.stack(
            [(weights * axis).sum() / weights.sum() for axis in torch.meshgrid(*map(torch.arange, data.shape), indexing="ij")]
        )
        torch.testing.assert_close(centre, points[0], atol=0.05, rtol=0)  # JPEG rounds intensities


def test_only_the_pairs_of_the_split_are_needed(fire: Path) -> None:
    assert len(read_fire(fire, "test")) == 28
    with pytest.raises(
        BadInput, match=r"lacks Images/A01_1.jpg, Images/A01_2.jpg, Ground Truth/control_points_A01_1_2.txt,"
    ) as no:
        read_fire(fire, "all")
    assert str(no.value).endswith("and 295 more, expected the files of the 133 pairs of split 'all'")  # 3 (133 - 28) - 20


@pytest.mark.parametrize("lost", ["Images/P45_1.jpg", "Images/P45_2.jpg", "Ground Truth/control_points_S71_1_2.txt"])
def test_a_missing_file(fire: Path, lost: str) -> None:
    (fire / lost).unlink()
    with pytest.raises(BadInput, match=f"lacks {lost}, expected the files of the 28 pairs of split 'test'"):
        read_fire(fire, "test")


@pytest.mark.parametrize("lost", ["Images", "Ground Truth"])
def test_a_missing_folder(fire: Path, lost: str) -> None:
    (fire / lost).rename(fire / "elsewhere")
    with pytest.raises(BadInput, match=f"{lost}: is not a folder"):
        read_fire(fire, "test")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no control points"),
        ("\n \n", "has no control points"),
        ("1 2 3 4\n1 2 3\n", "its point 2 has 3 columns"),
        ("1 2 3 4 5\n", "its point 1 has 5 columns"),
        ("1,2,3,4\n", "its point 1 has 1 columns"),
        ("1 2 3 4\n1 2 x 4\n", r"its point 2 is not four numbers \(1 2 x 4\)"),
        ("1 2 nan 4\n", "its point 1 is NaN or inf"),
        ("1 2 3 -inf\n", "its point 1 is NaN or inf"),
    ],
)
def test_points_that_cannot_be_used(fire: Path, text: str, sentence: str) -> None:
    points_of(fire, "P40").write_text(text)
    with pytest.raises(BadInput, match=f"control_points_P40_1_2.txt: {sentence}"):
        read_fire(fire, "test")


def test_points_that_are_no_text(fire: Path) -> None:
    points_of(fire, "P40").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"control_points_P40_1_2.txt: cannot be read"):
        read_fire(fire, "test")


def test_an_unknown_split(fire: Path) -> None:
    split: Any = "train"
    with pytest.raises(BadInput, match="splits all, test, got 'train'"):
        read_fire(fire, split)
