"""Tables and folders of images: what they say, what is refused and with which sentence, how pairs are drawn and listed."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from warpwright.config import from_mapping
from warpwright.data import Case, CasePair, Cohort, Data, read_cohort
from warpwright.errors import BadInput

Rows = Sequence[Mapping[str, str]]

IMAGES = [
    {"id": "a", "image": "i/a.nii.gz", "mask": "m/a.nii.gz", "labels": "l/a.mha", "points": "p/a.mrk.json", "group": "x"},
    {"id": "b", "image": "i/b.nii.gz", "mask": "", "labels": "l/b.mha", "points": "", "group": "x", "split": "train"},
    {"id": "c", "image": "i/c.nii.gz", "group": "y", "split": "train"},
    {"id": "d", "image": "i/d.nii.gz", "group": "y", "split": ""},
    {"id": "e", "image": "i/e.nii.gz", "group": "y"},
    {"id": "f", "image": "i/f.nii.gz", "group": "x", "split": "validation"},
    {"id": "g", "image": "i/g.nii.gz", "group": "y", "split": "validation"},
    {"id": "h", "image": "i/h.nii.gz", "group": "x", "split": "validation"},
    {"id": "i", "image": "i/i.nii.gz", "group": "y", "split": "validation"},
    {"id": "j", "image": "i/j.nii.gz", "group": "x", "split": "validation"},
]
PAIRS = [
    {"id": "one", "fixed": "a.png", "moving": "b.png", "fixed_labels": "al.png", "moving_points": "b.csv", "group": "k"},
    {"id": "two", "fixed": "b.png", "moving": "a.png", "split": "test"},
    {"id": "three", "fixed": "a.png", "moving": "a.png", "moving_mask": "m.png"},
]
PATHS = ("image", "mask", "labels", "points", "fixed", "moving", "fixed_labels", "moving_points", "moving_mask")


def touch(folder: Path, rows: Rows) -> None:
    for name in {row[key] for row in rows for key in PATHS if row.get(key)}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_csv(path: Path, rows: Rows) -> Path:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def table(folder: Path, rows: Rows) -> Path:
    touch(folder, rows)
    return write_csv(folder / "table.csv", rows)


def plain(count: int, **more: str) -> list[dict[str, str]]:
    return [{"id": f"k{n:02}", "image": f"k{n:02}.png", **more} for n in range(count)]


def ids(pairs: Sequence[CasePair]) -> list[str]:
    return [pair.id for pair in pairs]


def refusal(data: Data) -> str:
    with pytest.raises(BadInput) as caught:
        read_cohort(data)
    return str(caught.value)


def test_a_table_of_images(tmp_path: Path) -> None:
    cohort = read_cohort(Data(manifest=table(tmp_path, IMAGES)))
    assert [case.id for case in cohort.cases] == list("abcdefghij")
    assert cohort.cases[0] == Case(
        id="a",
        image=tmp_path / "i/a.nii.gz",
        mask=tmp_path / "m/a.nii.gz",
        labels=tmp_path / "l/a.mha",
        points=tmp_path / "p/a.mrk.json",
        group="x",
        split="train",
    )
    assert cohort.cases[1] == Case(id="b", image=tmp_path / "i/b.nii.gz", labels=tmp_path / "l/b.mha", group="x")
    assert [case.split for case in cohort.cases] == ["train"] * 5 + ["validation"] * 5
    assert cohort.pairs == ()
    assert cohort.atlas is None


def test_json_lines_say_the_same_as_a_csv(tmp_path: Path) -> None:
    lines = [json.dumps({key: value or None for key, value in row.items()}) for row in IMAGES]
    (tmp_path / "table.jsonl").write_text("\n\n".join(lines) + "\n")
    expected = read_cohort(Data(manifest=table(tmp_path, IMAGES), pairing="group"))
    assert read_cohort(Data(manifest=tmp_path / "table.jsonl", pairing="group")) == expected
    text = (tmp_path / "table.csv").read_text()
    spaced = "\n".join(",".join(f" {cell} " for cell in line.split(",")) for line in text.splitlines())
    (tmp_path / "TABLE.CSV").write_text("\ufeff" + spaced + "\n,,\n\n".replace(",,", "," * text.split("\n")[0].count(",")))
    assert read_cohort(Data(manifest=tmp_path / "TABLE.CSV", pairing="group")) == expected


def test_whole_numbers_are_ids_in_json(tmp_path: Path) -> None:
    rows = [{"id": number, "image": f"{number}.png"} for number in (7, 12)]
    touch(tmp_path, [{"image": str(row["image"])} for row in rows])
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert [case.id for case in read_cohort(Data(manifest=tmp_path / "t.jsonl")).cases] == ["7", "12"]


def test_a_table_of_pairs(tmp_path: Path) -> None:
    cohort = read_cohort(Data(manifest=table(tmp_path, PAIRS), pairing="paired", space="ras"))
    one, two, three = cohort.pairs
    assert one.id == "one"
    assert one.fixed == Case(id="one:fixed", image=tmp_path / "a.png", labels=tmp_path / "al.png", group="k")
    assert one.moving == Case(id="one:moving", image=tmp_path / "b.png", points=tmp_path / "b.csv", group="k")
    assert two.fixed.split == two.moving.split == "test"
    assert (three.fixed.mask, three.moving.mask) == (None, tmp_path / "m.png")
    assert cohort.cases == (one.fixed, one.moving, two.fixed, two.moving, three.fixed, three.moving)
    assert cohort.listed("train") == (one, three)
    assert cohort.listed("train", 1) == (one,)
    assert cohort.listed("test") == (two,)
    assert cohort.listed("validation") == ()


def test_a_folder_says_the_same_as_a_table(tmp_path: Path) -> None:
    rows = [
        {"id": name, "image": f"images/{name}{image}", "labels": f"labels/{label}", "split": split}
        for name, image, label, split in (
            ("B", ".nii", "b.mha", "train"),
            ("a.b", ".NII.GZ", "A.B.png", "train"),
            ("a", ".nii.gz", "a.nii.gz", "train"),
            ("c", ".png", "c.PNG", "validation"),
            ("d", ".tif", "d.tif", "validation"),
        )
    ]
    expected = read_cohort(Data(manifest=table(tmp_path, rows)))
    images, labels = tmp_path / "images", tmp_path / "labels"
    for name in (".hidden.nii.gz", "README.md", "a.txt"):
        (images / name).touch()
    (images / "folder.png").mkdir()
    (labels / "of_no_image.mha").touch()
    assert read_cohort(Data(images=images, labels=labels, validation=2)) == expected
    bare = read_cohort(Data(images=images))
    assert [(case.labels, case.split) for case in bare.cases] == [(None, "train")] * 5
    atlas = read_cohort(Data(images=images, pairing="atlas", atlas="c", validation=2))
    assert ids(atlas.listed("validation")) == ["c~d"]


def test_settings_come_from_a_file() -> None:
    found = from_mapping(Data, {"manifest": "t.csv", "pairing": "atlas", "atlas": "a", "space": "lps", "cache_gb": 1})
    assert found == Data(manifest=Path("t.csv"), pairing="atlas", atlas="a", space="lps", cache_gb=1.0)
    with pytest.raises(BadInput, match=r"^data: data come from a manifest or from a folder of images, got neither"):
        from_mapping(Data, {}, where="data")
    with pytest.raises(BadInput, match=r"'random' or 'group' or 'paired' or 'atlas', found 'pairs'"):
        from_mapping(Data, {"manifest": "t.csv", "pairing": "pairs"})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "data come from a manifest or from a folder of images, got neither: expected one of the two"),
        (
            {"manifest": "t", "images": "i"},
            "data come from a manifest or from a folder of images, got both: expected one of the two",
        ),
        (
            {"manifest": "t", "labels": "l"},
            "a folder of labels goes with a folder of images, got a manifest: expected a column of labels in it",
        ),
        ({"images": "i", "labels": "i"}, "the folders of images and of labels are both i, expected two"),
        (
            {"images": "i", "pairing": "group"},
            "pairing = 'group' needs a manifest that says what belongs together, got a folder",
        ),
        (
            {"images": "i", "pairing": "atlas"},
            "an atlas is named where pairing is 'atlas' and nowhere else, got pairing = 'atlas' and atlas = None",
        ),
        (
            {"images": "i", "atlas": "a"},
            "an atlas is named where pairing is 'atlas' and nowhere else, got pairing = 'random' and atlas = 'a'",
        ),
        (
            {"manifest": "t", "validation": 3},
            "validation is a number of images of a folder, at least 0, got 3 for a manifest, which has a column 'split'",
        ),
        ({"images": "i", "validation": -1}, "validation is a number of images of a folder, at least 0, got -1 for a folder"),
        ({"images": "i", "cache_gb": -1.0}, "cache_gb must be a number of at least 0, got -1.0"),
        ({"images": "i", "cache_gb": float("nan")}, "cache_gb must be a number of at least 0, got nan"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, object], sentence: str) -> None:
    paths = {key: Path(str(value)) for key, value in settings.items() if key in ("manifest", "images", "labels")}
    with pytest.raises(BadInput) as caught:
        Data(**(settings | paths))  # type: ignore[arg-type]
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("rows", "pairing", "sentence"),
    [
        ([{"id": "a", "imge": "a.png"}], "random", "has the unknown column 'imge', did you mean 'image'?"),
        ([{"id": "a", "fixed_label": "a.png"}], "random", "has the unknown column 'fixed_label', did you mean 'fixed_labels'?"),
        (
            [{"id": "a", "zzz": "a.png"}],
            "random",
            "has the unknown column 'zzz', expected one of id, image, mask, labels, points, fixed, moving, fixed_mask, "
            "moving_mask, fixed_labels, moving_labels, fixed_points, moving_points, group, split",
        ),
        (
            [{"id": "a", "image": "a.png", "mask": "a.png", "moving": "a.png"}],
            "random",
            "has the columns image,mask of a table of images and moving of a table of pairs, expected either",
        ),
        (
            [{"id": "a", "group": "x"}],
            "random",
            "has the columns id,group, expected id,image or id,fixed,moving (image is missing)",
        ),
        (
            [{"fixed": "a.png", "moving_mask": "a.png"}],
            "paired",
            "has the columns fixed,moving_mask, expected id,fixed,moving (id, moving is missing)",
        ),
        (
            plain(2),
            "paired",
            "is a table of images, which does not go with pairing = 'paired': expected 'random', 'group' or 'atlas'",
        ),
        (PAIRS, "group", "is a table of pairs, which does not go with pairing = 'group': expected 'paired'"),
        (
            [{"id": "a", "image": "a.png"}, {"id": "", "image": "", "group": "x"}, {"id": "b", "image": ""}],
            "random",
            "has empty cells in row 2 (id), row 2 (image), row 3 (image), expected id, image in each row",
        ),
        (
            [{"id": "a", "fixed": "a.png", "moving": ""}],
            "paired",
            "has empty cells in row 1 (moving), expected id, fixed, moving in each row",
        ),
        (
            [{"id": "a", "image": "a.png", "group": ""}, {"id": "b", "image": "a.png", "group": "x"}],
            "group",
            "has empty cells in row 1 (group), expected id, image, group in each row",
        ),
        (plain(2) + plain(3), "random", "the id 'k00', 'k01' is there more than once, expected each once"),
        (
            [*plain(2), {"id": "x", "image": "k00.png", "split": "val"}],
            "random",
            "rows of an unknown split: 'x' (val); expected train, validation, test or nothing for train",
        ),
        (plain(1), "random", "has 1 training image, expected at least 2"),
        (plain(3, split="test"), "random", "has 0 training images, expected at least 2"),
        ([row | {"split": "test"} for row in PAIRS], "paired", "has no pair for training, expected at least one"),
        (
            [*plain(2), {"id": "v", "image": "k00.png", "split": "test"}],
            "random",
            "has a single image in test ('v'), expected at least 2, as they are paired",
        ),
        (
            [
                *plain(2, group="x"),
                {"id": "v", "image": "k00.png", "group": "y"},
                *({**r, "split": "test"} for r in IMAGES[:1]),
            ],
            "group",
            "has a single image in group 'y' for train ('v'), group 'x' for test ('a'), "
            "expected at least 2, as they are paired",
        ),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, rows: Rows, pairing: str, sentence: str) -> None:
    path = table(tmp_path, rows)
    assert refusal(Data(manifest=path, pairing=pairing, space="ras")) == f"{path}: {sentence}"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("t.txt", "", "has no known suffix for a table of images or pairs, expected one of .csv .jsonl"),
        ("t.csv", "", "has no rows, expected one for each image or pair"),
        ("t.csv", "id,image\n\n,\n", "has no rows, expected one for each image or pair"),
        ("t.jsonl", "\n", "has no rows, expected one for each image or pair"),
        ("t.csv", "id,image,id\na,b,c\n", "has the column 'id' more than once, expected each once"),
        ("t.csv", "id,image\na,b\na,b,c\nd\n", "has row 2 with 3, row 3 with 1 cells, expected 2 as in the header"),
        ("t.jsonl", '{"id": "a"}\n{"id"\n', "line 2 is not one JSON object of strings, expected keys as the columns of a .csv"),
        ("t.jsonl", "[1]\n", "line 1 is not one JSON object of strings, expected keys as the columns of a .csv"),
        ("t.jsonl", '{"id": true}', "line 1 is not one JSON object of strings, expected keys as the columns of a .csv"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    (tmp_path / name).write_text(text)
    assert refusal(Data(manifest=tmp_path / name)) == f"{tmp_path / name}: {sentence}"


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(Data(manifest=tmp_path / "t.csv")).startswith(f"{tmp_path / 't.csv'}: cannot be read (")
    (tmp_path / "t.csv").write_bytes(b"id,image\n\xff,a\n")
    assert refusal(Data(manifest=tmp_path / "t.csv")).endswith(", expected a .csv or .jsonl table in UTF-8")
    (tmp_path / "t.csv").write_text('id,image\n"a,b\n')
    assert "unexpected end of data" in refusal(Data(manifest=tmp_path / "t.csv"))


def test_all_rows_that_point_nowhere_are_in_one_sentence(tmp_path: Path) -> None:
    rows = [*plain(25, labels="l.png"), {"id": "good", "image": "good.png"}]
    path = table(tmp_path, rows)
    for number in range(25):
        (tmp_path / f"k{number:02}.png").unlink()
    named = ", ".join(f"'k{number:02}' (image k{number:02}.png)" for number in range(25))
    expected = f"{path}: rows that point nowhere: {named}; expected files, relative to the table"
    assert refusal(Data(manifest=path)) == expected
    (tmp_path / "l.png").unlink()
    assert "'k00' (image k00.png, labels l.png), 'k01'" in refusal(Data(manifest=path))


def test_points_in_csv_need_a_space(tmp_path: Path) -> None:
    path = table(tmp_path, [{**row, "points": "p.csv"} for row in plain(2)])
    expected = "has points in .csv files, which do not say their space: expected space = ras, lps or voxel"
    assert refusal(Data(manifest=path)) == f"{path}: {expected}"
    assert read_cohort(Data(manifest=path, space="lps")).cases[0].points == tmp_path / "p.csv"


def test_folders_that_are_refused(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    assert refusal(Data(images=images)) == f"{images}: is not a folder, a folder of images was expected"
    images.mkdir()
    labels.mkdir()
    assert refusal(Data(images=images)).startswith(f"{images}: has no image file, expected files that end in one of .nii.gz ")
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz"):
        (images / name).touch()
    (labels / "b.mha").touch()
    expected = f"{labels}: has no label map for a.nii.gz, c.nii.gz, expected one of the same name for each image"
    assert refusal(Data(images=images, labels=labels)) == expected
    assert refusal(Data(images=images, validation=7)) == f"{images}: has 0 training images, expected at least 2"
    assert refusal(Data(images=images, validation=1)).startswith(f"{images}: has a single image in validation ('c'), expected")
    (images / "A.png").touch()
    expected = f"{images}: A.png and a.nii.gz differ in suffix or capitals only, expected one of them"
    assert refusal(Data(images=images)) == expected


def test_the_atlas_must_be_there(tmp_path: Path) -> None:
    path = table(tmp_path, plain(2))
    sentence = "has no image with the id 'k1' of the atlas, did you mean 'k01'?"
    assert refusal(Data(manifest=path, pairing="atlas", atlas="k1")) == f"{path}: {sentence}"
    sentence = "has no image for training beside the atlas, expected at least one"
    one = table(tmp_path, [*plain(1), {"id": "v", "image": "k00.png", "split": "test"}])
    assert refusal(Data(manifest=one, pairing="atlas", atlas="k00")) == f"{one}: {sentence}"


def drawn(cohort: Cohort, count: int) -> Counter[tuple[str, str]]:
    rng = np.random.default_rng(3)
    pairs = [cohort.draw(rng) for _ in range(count)]
    assert all(pair.fixed in cohort.cases and pair.moving in cohort.cases for pair in pairs)
    return Counter((pair.fixed.id, pair.moving.id) for pair in pairs)


def is_uniform(counts: Counter[tuple[str, str]], expected: set[tuple[str, str]]) -> bool:
    """All expected pairs and no others, none further than 5 standard deviations from its share."""
    share = counts.total() / len(expected)
    return set(counts) == expected and all(abs(n - share) < 5 * share**0.5 for n in counts.values())


def test_random_pairs_are_any_two_training_images(tmp_path: Path) -> None:
    cohort = read_cohort(Data(manifest=table(tmp_path, IMAGES)))
    assert is_uniform(drawn(cohort, 4000), set(permutations("abcde", 2)))
    assert ids(cohort.listed("train")) == ["a~b", "c~d"]
    assert ids(cohort.listed("validation")) == ["f~g", "h~i"]
    assert ids(cohort.listed("validation", limit=1)) == ["f~g"]
    assert cohort.listed("test") == ()


def test_pairs_of_a_group(tmp_path: Path) -> None:
    cohort = read_cohort(Data(manifest=table(tmp_path, IMAGES), pairing="group"))
    expected = {*permutations("ab", 2), *permutations("cde", 2)}
    assert is_uniform(drawn(cohort, 4000), expected)  # so a group is chosen by its number of ordered pairs
    assert ids(cohort.listed("train")) == ["a~b", "c~d"]
    assert ids(cohort.listed("validation")) == ["f~h", "g~i"]


def test_rows_of_pairs_are_drawn_alike(tmp_path: Path) -> None:
    cohort = read_cohort(Data(manifest=table(tmp_path, PAIRS), pairing="paired", space="ras"))
    assert is_uniform(drawn(cohort, 1000), {("one:fixed", "one:moving"), ("three:fixed", "three:moving")})


@pytest.mark.parametrize("atlas", ["b", "h"])
def test_one_atlas_for_all(tmp_path: Path, atlas: str) -> None:
    cohort = read_cohort(Data(manifest=table(tmp_path, IMAGES), pairing="atlas", atlas=atlas))
    assert is_uniform(drawn(cohort, 1000), {(atlas, other) for other in "abcde" if other != atlas})
    assert ids(cohort.listed("validation")) == [f"{atlas}~{other}" for other in "fghij" if other != atlas]
    assert cohort.listed("validation", 2) == cohort.listed("validation")[:2]


@pytest.mark.parametrize("pairing", ["random", "group"])
def test_the_same_generator_draws_the_same_pairs(tmp_path: Path, pairing: str) -> None:
    cohort = read_cohort(Data(manifest=table(tmp_path, IMAGES), pairing=pairing))  # type: ignore[arg-type]
    runs = [[cohort.draw(rng).id for _ in range(20)] for rng in (np.random.default_rng(seed) for seed in (1, 1, 2))]
    assert runs[0] == runs[1] != runs[2]
