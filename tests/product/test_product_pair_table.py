"""Which columns of a table are used, and one sentence for every table that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from warpwright.errors import BadInput
from warpwright.product.evaluate import evaluate_pairs
from warpwright.product.pair_table import read_pairs


def table(folder: Path, columns: str, rows: int = 2) -> Path:
    """A table whose every cell is an empty file in the folder."""
    (folder / "x").touch()
    path = folder / "t.csv"
    path.write_text("\n".join([f"id,{columns}", *(f"{i}{',x' * len(columns.split(','))}" for i in range(rows))]))
    return path


@pytest.mark.parametrize(
    ("columns", "used"),
    [
        ("fixed_labels,moved_labels", "fixed_labels,moved_labels"),
        ("fixed,moving,fixed_labels,moved_labels,group", "fixed_labels,moved_labels"),
        ("transform,fixed_labels,moving_labels,fixed", "fixed_labels,moving_labels,transform"),
        ("fixed_points,moving_points,fixed,moving", "fixed_points,moving_points,fixed,moving"),
        ("moving,fixed,transform,split", "transform,fixed,moving"),
        ("fixed_labels,moved_labels,moving_labels", "fixed_labels,moved_labels"),
        ("fixed_labels,moved_labels,transform,moving", "fixed_labels,moved_labels,transform,moving"),
    ],
)
def test_columns_that_are_used(columns: str, used: str, tmp_path: Path) -> None:
    rows = read_pairs(table(tmp_path, columns))
    assert rows == {str(i): dict.fromkeys(used.split(","), tmp_path / "x") for i in range(2)}


def test_files_folders_and_prefixes_are_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "ants_1Warp.nii.gz").touch()
    (tmp_path / "t.csv").write_text(f"id,transform\na,folder\nb,ants_\nc,{tmp_path}/folder\n", encoding="utf-8-sig")
    assert [row["transform"].name for row in read_pairs(tmp_path / "t.csv").values()] == ["folder", "ants_", "folder"]


def test_spaces_around_cells_are_not_looked_at(tmp_path: Path) -> None:
    expected = read_pairs(table(tmp_path, "fixed_labels,moved_labels"))
    (tmp_path / "spaced.csv").write_text(" id , fixed_labels, moved_labels\n 0, x ,x \n1 ,x, x\n , ,\n\n")
    assert read_pairs(tmp_path / "spaced.csv") == expected


def test_a_table_may_have_an_object_a_line(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "t.jsonl").write_text('{"id": 0, "transform": "x", "fixed": "x"}\n{"id": 1, "transform": "x"}\n')
    with pytest.raises(BadInput, match=r"'1' \(fixed is empty\)"):
        read_pairs(tmp_path / "t.jsonl")
    (tmp_path / "t.jsonl").write_text('{"id": 0, "transform": "x"}\n')
    assert read_pairs(tmp_path / "t.jsonl") == {"0": {"transform": tmp_path / "x"}}


def test_all_rows_that_point_nowhere_are_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import warpwright.product.evaluate_pairs as module

    monkeypatch.setattr(module, "read_labels", lambda *_, **__: pytest.fail("work began"))
    good = table(tmp_path, "fixed_labels,moved_labels,transform").rename(tmp_path / "good.csv")
    path = tmp_path / "t.csv"
    path.write_text("id,fixed_labels,moved_labels,transform\na,x,none.nii.gz,no/\nb,x,x,x\nc,x,,x\n")
    for tables in ((path, None), (good, path)):
        with pytest.raises(BadInput) as caught:
            evaluate_pairs(tables[0], against=tables[1])
        assert str(caught.value) == (
            f"{path}: rows that point nowhere: 'a' (moved_labels none.nii.gz, transform no/), 'c' (moved_labels is empty);"
            " expected files, relative to the table"
        )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows"),
        ("id,fixed_labels,moved_labels\n", "has no rows"),
        ("name,transform\na,b\n", "has the columns name,transform, expected the column id"),
        ("id,fixed,moving\na,b,c\n", "fixed_labels,moving_labels,transform; fixed_points"),
        ("id,fixed_labels,moved_labels,fixed_points\na,b,c,d\n", "fixed_points without .* fixed_points,moving_points$"),
        (
            "id,fixed_points,moving_points,fixed_labels,moving_labels\na,b,c,d,e\n",
            "column fixed_labels without .* fixed_labels,moved_labels or fixed_labels,moving_labels,transform$",
        ),
        ("id,transform,moving_labels\na,b,c\n", "column moving_labels without"),
        ("id,transform,moved_labels\na,b,c\n", "column moved_labels without"),
        ("id,transform\na,b\nx,b\na,c\nx,c\n", "the id 'a', 'x' is there more than once"),
        ("id,transform\na,b\n,c\n", "row 2 has no id"),
        ("id,transform\na,b\n  ,c\n", "row 2 has no id"),
        ("id,transform\na, \n", r"'a' \(transform is empty\)"),
        ("id,transform\na, b\n", r"'a' \(transform b\)"),
        ("id,transform\na\nb,c,d\n", "has row 1 with 1, row 2 with 3 cells, expected 2 as in the header"),
    ],
)
def test_tables_that_cannot_be_used(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BadInput, match=words) as caught:
        read_pairs(tmp_path / "t.csv")
    assert str(caught.value).startswith(f"{tmp_path / 't.csv'}: ")


def test_files_that_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("id,transform\nM\xfcller,b\n".encode("latin-1"))
    (tmp_path / "folder.csv").mkdir()
    for name in ("latin.csv", "none.csv", "folder.csv"):
        with pytest.raises(BadInput, match="cannot be read"):
            read_pairs(tmp_path / name)
