"""Landmarks: CSV in every space, two-set tables, Slicer markups, bad files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from io_cases import make_grid, some_points

from warpwright.errors import BadInput
from warpwright.io import Points, Space, read_points, write_points


def some(dim: int) -> Points:
    world = some_points(make_grid("oblique", dim), count=4)
    return Points(world, ("tip", "a, b", "3", "é"))


@pytest.mark.parametrize("space", ["ras", "lps", "voxel"])
def test_csv_round_trip(tmp_path: Path, dim: int, space: Space) -> None:
    points, grid = some(dim), make_grid("oblique", dim)
    write_points(tmp_path / "p.csv", points, space, grid)
    again = read_points(tmp_path / "p.csv", space, grid)
    torch.testing.assert_close(again.world, points.world, atol=1e-5, rtol=0)  # six decimals in the file
    assert again.names == points.names


def test_spaces_mean_what_they_say(tmp_path: Path) -> None:
    grid = make_grid("oblique", 3)
    (tmp_path / "p.csv").write_text("x,y,z\n1,2,3\n")
    numbers = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    assert read_points(tmp_path / "p.csv", "ras").world.tolist() == [[1, 2, 3]]
    assert read_points(tmp_path / "p.csv", "lps").world.tolist() == [[-1, -2, 3]]
    torch.testing.assert_close(read_points(tmp_path / "p.csv", "voxel", grid).world, grid.to_world(numbers))
    assert read_points(tmp_path / "p.csv", "ras").names == ("1",)


def test_table_of_two_sets(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,fixed_x,fixed_y,fixed_z,moving_x,moving_y,moving_z\n7,1,2,3,4,5,6\n9,0,0,1,1,1,1\n\n")
    fixed, moving = (read_points(tmp_path / "p.csv", "lps", columns=which) for which in ("fixed", "moving"))
    assert fixed.names == moving.names == ("7", "9")
    assert fixed.world[0].tolist() == [-1, -2, 3]
    assert moving.world[0].tolist() == [-4, -5, 6]
    with pytest.raises(BadInput, match="two sets of points: fixed or moving must be chosen"):
        read_points(tmp_path / "p.csv", "lps")


def test_column_order_case_and_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("Z, Name ,X,Y\n3,tip,1,2\n", encoding="utf-8-sig")
    points = read_points(tmp_path / "p.csv", "ras")
    assert points.world.tolist() == [[1, 2, 3]]
    assert points.names == ("tip",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "found the columns none; expected x, y, z"),
        ("a,b\n1,2\n", "found the columns a, b; expected x, y, z"),
        ("x,y,z\n", "has no points"),
        ("x,y,z\n1,2,3\n1,two,3\n", r"its point 2 is not 3 numbers \(1,two,3\)"),
        ("x,y,z\n1,2\n", "its point 1 is not 3 numbers"),
        ("x,y,z\n1,2,nan\n", "its point 1 is NaN or inf"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(BadInput, match=rf"p\.csv: {sentence}"):
        read_points(tmp_path / "p.csv", "ras")


def test_bad_arguments(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,y,z\n1,2,3\n")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00x,y,z")
    with pytest.raises(BadInput, match=r"does not say the space of its points \(got None\), expected ras, lps or voxel"):
        read_points(tmp_path / "p.csv")
    with pytest.raises(BadInput, match="need the image whose voxels they are"):
        read_points(tmp_path / "p.csv", "voxel")
    with pytest.raises(BadInput, match="has points of 3 coordinates, 2 as the image's axes were expected"):
        read_points(tmp_path / "p.csv", "ras", make_grid("oblique", 2))
    with pytest.raises(BadInput, match=r"gone\.csv: does not exist"):
        read_points(tmp_path / "gone.csv", "ras")
    (tmp_path / "p.xls").write_text("")
    with pytest.raises(BadInput, match="no known suffix for points"):
        read_points(tmp_path / "p.xls", "ras")
    with pytest.raises(BadInput, match="cannot be read, a CSV table"):
        read_points(tmp_path / "b.csv", "ras")
    with pytest.raises(BadInput, match="as many names"):
        Points(torch.zeros(2, 3), ("1",))
    with pytest.raises(BadInput, match="does not say the space"):
        write_points(tmp_path / "q.csv", some(3))
    with pytest.raises(BadInput, match="holds points in millimetres"):
        write_points(tmp_path / "q.mrk.json", some(3), "voxel", make_grid("oblique", 3))
    assert not list(tmp_path.glob("q*"))


@pytest.mark.parametrize("space", [None, "lps", "ras"])
def test_slicer_round_trip(tmp_path: Path, dim: int, space: Space | None) -> None:
    points = some(dim)
    write_points(tmp_path / "p.mrk.json", points, space)
    again = read_points(tmp_path / "p.mrk.json", grid=make_grid("oblique", dim))
    torch.testing.assert_close(again.world, points.world)
    assert again.names == points.names
    markup = json.loads((tmp_path / "p.mrk.json").read_text())["markups"][0]
    assert (markup["type"], markup["coordinateSystem"]) == ("Fiducial", (space or "lps").upper())
    signs = np.array([1, 1, 1] if space == "ras" else [-1, -1, 1])[:dim]
    np.testing.assert_allclose(markup["controlPoints"][2]["position"][:dim], signs * points.world[2].numpy())


def test_slicer_file_with_unplaced_points_and_old_codes(tmp_path: Path) -> None:
    points = [
        {"label": "a", "position": [1, 2, 3], "positionStatus": "defined"},
        {"label": "b", "position": None, "positionStatus": "undefined"},
        {"id": "c", "position": [4, 5, 6]},
    ]
    file = {
        "markups": [
            {"coordinateSystem": "1", "controlPoints": points},
            {"coordinateSystem": "RAS", "controlPoints": points[:1]},
        ]
    }
    (tmp_path / "p.mrk.json").write_text(json.dumps(file))
    again = read_points(tmp_path / "p.mrk.json", "ras")  # the file's own space wins
    assert again.world.tolist() == [[-1, -2, 3], [-4, -5, 6], [1, 2, 3]]
    assert again.names == ("a", "c", "a")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"markups": 3}', "cannot be read"),
        ('{"markups": [{"controlPoints": [{"position": [1, 2]}]}]}', "cannot be read"),
        ('{"markups": [{"controlPoints": []}]}', "has no placed control points"),
        ('{"markups": [{"coordinateSystem": "XYZ", "controlPoints": []}]}', "has the coordinate system XYZ"),
        ('{"markups": [{"coordinateUnits": "cm", "controlPoints": []}]}', "has coordinates in cm, mm was expected"),
    ],
)
def test_bad_slicer_files(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "p.mrk.json").write_text(text)
    with pytest.raises(BadInput, match=rf"p\.mrk\.json: {sentence}"):
        read_points(tmp_path / "p.mrk.json")
