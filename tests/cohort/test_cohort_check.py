from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import pytest
from small_cohort import options, write_table

from warpwright.cohort.check import check_files, check_options, check_work
from warpwright.cohort.run import make_plan
from warpwright.cohort.work import Options, Pair, Work, load_work, options_digest, read_work, save_work
from warpwright.errors import BadInput


def named(*ids: str) -> Work:
    return Work(table=Path("/t.csv"), options=Options(), pairs=tuple(Pair(id=name, files={}) for name in ids))


@pytest.mark.parametrize(
    "name",
    [
        "a/b", "a\\b", "..", ".", ".hidden", "a\0b", "a\nb", "a\u202eb", "a\ud800b", "a:b", "<b>", "what?",
        "x" * 201, "é" * 101, "end.", "end ", "con", "COM1.nii", "Results.CSV", "index.html",
    ],
)  # fmt: skip
def test_an_id_that_is_no_name_of_a_folder_is_refused_in_one_sentence(name):
    with pytest.raises(BadInput, match="cannot be the name of a folder") as caught:
        check_work(named("good", name))
    assert "'good'" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ordinary_ids_pass():
    check_work(named("sub-01_ses-2", "A b", "ä", "1", "x" * 200, "a~b", "2024.01.02", "icon"))


@pytest.mark.parametrize(("first", "second"), [("a", "A"), ("straße", "STRASSE"), ("\u00e9", "e\u0301")])
def test_ids_that_are_one_folder_on_some_disks_are_refused(first, second):
    with pytest.raises(BadInput, match=r"differ in capitals .* and "):
        check_work(named(first, "b", second))


def test_all_missing_files_are_in_one_sentence_by_name(images):
    write_table(images / "pairs.csv", range(4, 29))
    with pytest.raises(BadInput) as caught:
        read_work(images / "pairs.csv", options(images))
    assert "'p4' (fixed fixed4.nii.gz, moving moving4.nii.gz" in str(caught.value)
    assert all(f"'p{k}' (" in str(caught.value) for k in range(4, 29))


def test_an_id_that_is_there_twice_and_a_name_that_is_too_long_for_the_disk_are_refused(images):
    table = images / "pairs.csv"
    write_table(table, (1, 2, 1))
    with pytest.raises(BadInput, match="'p1' is there more than once"):
        read_work(table, options(images))
    table.write_text(f"id,fixed,moving\na,{'x' * 300}.nii.gz,fixed1.nii.gz\n")
    with pytest.raises(BadInput, match="point nowhere"):
        read_work(table, options(images))


def test_rows_with_one_side_only_and_points_without_a_space_are_refused(images):
    (images / "points.csv").write_text("x,y\n1,1\n")
    table = images / "pairs.csv"
    table.write_text("id,fixed,moving,fixed_labels\na,fixed0.nii.gz,moving0.nii.gz,fixed0_labels.nii.gz\n")
    with pytest.raises(BadInput, match=r"one image only: 'a' \(labels\)"):
        check_work(read_work(table, options(images)))
    table.write_text("id,fixed,moving,fixed_points,moving_points\na,fixed0.nii.gz,moving0.nii.gz,points.csv,points.csv\n")
    with pytest.raises(BadInput, match="--space"):
        check_work(read_work(table, options(images)))
    check_work(read_work(table, options(images, space="ras")))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.nii.gz", b"", "is empty"),
        ("a.nii.gz", b"no gzip", "not compressed"),
        ("a.nii", b"\x5c\x01\x00\x00", "no header"),
        ("a.nii", b"nothing" * 100, "no header"),
        ("a.png", b"nothing", "does not begin"),
        ("a.jpg", b"\x89PNG", "does not begin"),
        ("a.txt", b"words", "no known suffix"),
    ],
)
def test_files_that_are_not_what_they_are_called_are_refused(images, name, content, words):
    (images / name).write_bytes(content)
    (images / "pairs.csv").write_text(f"id,fixed,moving\na,{name},{name}\nb,fixed0.nii.gz,moving0.nii.gz\n")
    work = read_work(images / "pairs.csv", options(images))
    with pytest.raises(BadInput, match=words) as caught:
        check_files(work, (0, 1))
    assert str(caught.value).count(f"{name}:") == 2
    assert "'b'" not in str(caught.value)
    check_files(work, (1,))


def header(kind: type[nib.Nifti1Image], order: str, shape: tuple[int, ...]) -> bytes:
    """The beginning of a NIfTI file."""
    found = kind.header_class(endianness=order)
    found.set_data_shape(shape)
    return found.binaryblock


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_plane_and_a_volume_are_refused_before_any_work(images, kind, order):
    (images / "plane.nii").write_bytes(header(kind, order, (300, 200)))
    (images / "slice.nii").write_bytes(header(kind, order, (300, 200, 1)))
    (images / "volume.nii.gz").write_bytes(gzip.compress(header(kind, order, (300, 200, 260))))
    (images / "colours.nii.gz").write_bytes(gzip.compress(header(kind, order, (30, 20, 26, 3))))
    (images / "eye.png").write_bytes(b"\x89PNG")
    (images / "any.mha").write_bytes(b"ObjectType")
    rows = ["a,plane.nii,slice.nii,", "b,volume.nii.gz,colours.nii.gz,", "c,eye.png,plane.nii,", "d,any.mha,volume.nii.gz,"]
    rows += ["e,volume.nii.gz,eye.png,", "f,volume.nii.gz,volume.nii.gz,slice.nii"]
    (images / "pairs.csv").write_text("\n".join(("id,fixed,moving,fixed_mask", *rows)))
    work = read_work(images / "pairs.csv", options(images))
    with pytest.raises(BadInput, match=r"number of axes: 'e' \(fixed 3-D, moving 2-D\), 'f' \(.*fixed_mask 2-D") as caught:
        check_files(work, range(6))
    assert "'a'" not in str(caught.value)
    check_files(work, range(4))


def test_options_that_no_pair_could_be_run_with_are_refused_before_any_work(images, tmp_path):
    (images / "settings.toml").write_text("stepz = [1]\n")
    with pytest.raises(BadInput, match="stepz"):
        make_plan(read_work(images / "pairs.csv", options(images)), tmp_path / "out")
    with pytest.raises(BadInput, match="model"):
        check_options(Options(refine=3))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_cohort_is_not_written_to(images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="neither empty nor"):
        make_plan(read_work(images / "pairs.csv", options(images)), tmp_path / "out")


def test_the_description_of_work_reads_back_and_has_the_same_bytes(images, tmp_path):
    work = read_work(images / "pairs.csv", options(images))
    save_work(work, tmp_path)
    first = (tmp_path / "cohort.json").read_bytes()
    assert load_work(tmp_path) == work
    save_work(load_work(tmp_path), tmp_path)
    assert (tmp_path / "cohort.json").read_bytes() == first


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 1}', '{"format": 1, "table": "t", "options": {}, "pairs": [3]}', "{"])
def test_a_description_that_is_none_is_bad_input(tmp_path, text):
    (tmp_path / "cohort.json").write_text(text)
    with pytest.raises(BadInput):
        load_work(tmp_path)


def test_a_file_that_options_name_counts_by_its_content(images):
    first = options_digest(options(images))
    (images / "other.toml").write_text((images / "settings.toml").read_text())
    assert options_digest(options(images, config=images / "other.toml")) == first
    assert options_digest(options(images, figures=True)) == first
    assert options_digest(options(images, seed=1)) != first
    (images / "settings.toml").write_text("steps = [7]\n")
    assert options_digest(options(images)) != first
    with pytest.raises(BadInput, match="--config"):
        options_digest(options(images, config=images / "none.toml"))


def test_a_model_is_read_once_as_long_as_its_files_are_what_they_were(images, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("1")
    read: list[Path] = []
    monkeypatch.setattr("warpwright.cohort.work.digest", lambda path: read.append(path) or {"sha256": str(len(read))})
    named = options(images, config=None, model=tmp_path / "model")
    first = options_digest(named)
    assert options_digest(named) == first
    (tmp_path / "model" / "weights").write_text("22")
    assert options_digest(named) != first
    assert len(read) == 2


def test_no_preset_counts_as_the_one_that_it_means():
    assert options_digest(Options()) == options_digest(Options(preset="balanced")) != options_digest(Options(preset="fast"))
