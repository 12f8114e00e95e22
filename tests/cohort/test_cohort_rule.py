"""Pairs of the images of a folder or of a BIDS data set, and the names that results of the latter get."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from small_cohort import options, run, silent

from warpwright.cohort.derivatives import write_derivatives
from warpwright.cohort.rule import work_of_rule
from warpwright.cohort.run import execute, in_order, look_at, make_plan
from warpwright.cohort.work import Options, Rule, Work, load_work, read_work
from warpwright.errors import BadInput

HOSTILE = "a <b>'=1+1'& é.nii.gz"


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def found(rule: Rule) -> list[str]:
    return [pair.id for pair in work_of_rule(rule, Options())[0].pairs]


def refused(rule: Rule) -> str:
    with pytest.raises(BadInput) as caught:
        work_of_rule(rule, Options())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def t1(folder: Path, pairs: str = "all", **more: object) -> Rule:
    return Rule(folder=folder, bids="suffix=T1w", pairs=pairs, **more)  # type: ignore[arg-type]


def test_images_of_a_folder_are_paired_with_an_atlas_or_with_each_other(tmp_path):
    touch(tmp_path, "b.nii.gz", "a.nii.gz", "c.NRRD", ".hidden.nii.gz", "notes.txt", "more/d.nii.gz", "atlas.nii")
    work = work_of_rule(Rule(folder=tmp_path, pairs="fixed", fixed=tmp_path / "atlas.nii"), Options())[0]
    assert [pair.id for pair in work.pairs] == ["a", "b", "c"]
    assert work.pairs[2].files == {"fixed": tmp_path / "atlas.nii", "moving": tmp_path / "c.NRRD"}
    both = work_of_rule(Rule(folder=tmp_path, pairs="all"), Options())[0].pairs
    assert [pair.id for pair in both] == ["a~atlas", "a~b", "a~c", "atlas~b", "atlas~c", "b~c"]
    assert both[1].files == {"fixed": tmp_path / "a.nii.gz", "moving": tmp_path / "b.nii.gz"}


def test_an_atlas_is_known_through_a_link_and_a_relative_path(tmp_path, monkeypatch):
    touch(tmp_path, "images/atlas.nii", "images/a.nii")
    (tmp_path / "link.nii").symlink_to(tmp_path / "images" / "atlas.nii")
    monkeypatch.chdir(tmp_path)
    work = work_of_rule(Rule(folder=Path("images"), pairs="fixed", fixed=Path("link.nii")), Options(config=Path("c.toml")))[0]
    assert [pair.id for pair in work.pairs] == ["a"]
    assert (work.table, work.options.config) == (tmp_path / "images", tmp_path / "c.toml")
    assert work.pairs[0].files["fixed"] == tmp_path / "link.nii"


def test_what_is_wrong_with_a_folder_is_said_all_at_once(tmp_path):
    touch(tmp_path, "a.nii", "a.nii.gz", "B.png", "b.png")
    told = refused(Rule(folder=tmp_path, pairs="fixed", fixed=tmp_path / "gone.nii"))
    assert "there is no such file" in told
    assert "B.png and b.png, a.nii and a.nii.gz; expected one of each" in told
    told = refused(Rule(folder=tmp_path / "none", pairs="fixed", fixed=tmp_path / "gone.nii"))
    assert "is not a folder" in told
    assert "there is no such file" in told


def test_too_few_images_are_refused(tmp_path):
    touch(tmp_path, "a.nii")
    assert "has 1 such image, expected 2 or more" in refused(Rule(folder=tmp_path, pairs="all"))
    alone = Rule(folder=tmp_path, pairs="fixed", fixed=tmp_path / "a.nii")
    assert "has no such images beside the atlas, expected 1 or more" in refused(alone)
    assert "has no such images, expected 2 or more images with suffix=T1w in folders sub-*" in refused(t1(tmp_path))


def test_images_of_a_bids_data_set_in_the_order_of_people_sessions_and_names(tmp_path):
    touch(
        tmp_path,
        "sub-10/anat/sub-10_T1w.nii.gz",
        "sub-2/anat/sub-2_T1w.nii",
        "sub-2/anat/sub-2_T1w.json",
        "sub-2/anat/sub-2_T2w.nii",
        "sub-2/anat/.sub-2_acq-x_T1w.nii",
        "sub-2/.git/sub-3_T1w.nii",
        "derivatives/p/sub-2/anat/sub-2_desc-p_T1w.nii",
        "sourcedata/sub-4/anat/sub-4_T1w.nii",
        "sub-2_T1w.nii",
    )
    assert found(t1(tmp_path)) == ["sub-2_T1w~sub-10_T1w"]
    work = work_of_rule(t1(tmp_path, "fixed", fixed=touch(tmp_path, "my atlas.nii") / "my atlas.nii"), Options())[0]
    assert [(pair.id, pair.group) for pair in work.pairs] == [("sub-2_T1w", "sub-2"), ("sub-10_T1w", "sub-10")]
    assert found(Rule(folder=tmp_path, bids="suffix=T2w,sub=2", pairs="fixed", fixed=tmp_path / "my atlas.nii")) == [
        "sub-2_T2w"
    ]


def test_sessions_are_paired_within_a_person_and_with_what_differs_in_nothing_else(tmp_path):
    for name in ("ses-1", "ses-2", "ses-10"):
        touch(tmp_path, f"sub-1/{name}/anat/sub-1_{name}_run-1_T1w.nii", f"sub-2/{name}/anat/sub-2_{name}_T1w.nii")
    touch(tmp_path, "sub-1/ses-1/anat/sub-1_ses-1_run-2_T1w.nii", "sub-3/anat/sub-3_T1w.nii")
    assert found(t1(tmp_path, "sessions")) == [
        "sub-1_ses-1_run-1_T1w~sub-1_ses-2_run-1_T1w",
        "sub-1_ses-1_run-1_T1w~sub-1_ses-10_run-1_T1w",
        "sub-2_ses-1_T1w~sub-2_ses-2_T1w",
        "sub-2_ses-1_T1w~sub-2_ses-10_T1w",
    ]
    touch(tmp_path, *(f"sub-4/{ses}/anat/sub-4_{ses}_{kind}.nii" for ses in ("ses-a", "ses-b") for kind in ("T1w", "T2w")))
    rule = Rule(folder=tmp_path, bids="suffix=T1w|T2w,sub=4", pairs="sessions")
    assert found(rule) == ["sub-4_ses-a_T1w~sub-4_ses-b_T1w", "sub-4_ses-a_T2w~sub-4_ses-b_T2w"]
    touch(tmp_path / "none", "sub-1/anat/sub-1_T1w.nii", "sub-2/anat/sub-2_T1w.nii")
    assert "has no subject with two sessions" in refused(t1(tmp_path / "none", "sessions"))
    assert "expected --bids" in refused(Rule(folder=tmp_path, pairs="sessions"))


def test_labels_that_nothing_has_are_told(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii", "sub-2/anat/sub-2_T1w.nii", "sub-2/anat/sub-2_acq-x_T2w.nii")
    told = refused(Rule(folder=tmp_path, bids="suffix=T1w|T3w,sub=1|2|9,run=", pairs="all"))
    assert told.endswith("has no such image with suffix=T3w, sub=9, expected labels that are there")


def test_pairs_of_one_name_are_refused(tmp_path):
    """`a` with `b~c` and `a~b` with `c`."""
    touch(tmp_path, "a.nii", "a~b.nii", "b~c.nii", "c.nii")
    work = work_of_rule(Rule(folder=tmp_path, pairs="all"), Options())[0]
    with pytest.raises(BadInput, match="pairs that would have one name: 'a~b~c'; expected images of other names"):
        make_plan(work, tmp_path / "out")


def test_what_is_wrong_with_a_bids_data_set_is_said_all_at_once(tmp_path):
    touch(
        tmp_path,
        "sub-1/anat/sub-1_T1w.nii",
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-1/anat/sub-2_T1w.nii",
        "sub-1/anat/sub-1_my-é_T1w.nii",
        "sub-3/anat/sub-3_run-1_acq-a_T1w.nii",
        "sub-3/anat/sub-3_acq-a_run-1_T1w.nii",
        "sub-3/anat/sub-3_T2w (copy).nii",
    )
    told = refused(t1(tmp_path))
    assert "sub-1/anat/sub-2_T1w.nii (lies in sub-1/anat, expected sub-2/anat)" in told
    assert "sub-1/anat/sub-1_my-é_T1w.nii (has 'my-é'" in told
    same = "sub-1_T1w.nii, sub-1/anat/sub-1_T1w.nii.gz, sub-3/anat/sub-3_acq-a_run-1_T1w.nii, sub-3/anat/sub-3_run-1_acq-a"
    assert same in told
    assert "copy" not in told


def test_results_that_would_have_one_name_are_refused(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_desc-a_T1w.nii", "sub-1/anat/sub-1_desc-b_T1w.nii", "atlas.nii")
    told = refused(t1(tmp_path, "fixed", fixed=tmp_path / "atlas.nii"))
    assert "one name: sub-1_desc-a_T1w and sub-1_desc-b_T1w; expected space or desc in --bids" in told


@pytest.fixture
def data_set(images: Path, tmp_path: Path) -> Path:
    """Two sessions of two people, an atlas, and things that are no images of theirs."""
    root = tmp_path / "data set"
    for k, name in enumerate(("sub-1/ses-1", "sub-1/ses-2", "sub-2/ses-1")):
        target = root / name / "anat" / f"{name.replace('/', '_')}_T1w.nii.gz"
        target.parent.mkdir(parents=True)
        shutil.copyfile(images / f"moving{min(k, 2)}.nii.gz", target)
    shutil.copyfile(images / "fixed0.nii.gz", root / "my atlas.nii.gz")
    return root


def atlas_work(root: Path, images: Path) -> Work:
    return work_of_rule(t1(root, "fixed", fixed=root / "my atlas.nii.gz"), options(images))[0]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.glob("sub-[12]/**/*") if path.is_file()}


def test_a_bids_cohort_is_a_data_set_of_derivatives(data_set, images):
    out = data_set / "derivatives" / "warpwright"
    work = atlas_work(data_set, images)
    plan = run(work, out)
    assert len(plan.todo) == 3
    place = "sub-1/ses-2/anat/sub-1_ses-2"
    wanted = {"from-T1w_to-myatlas_mode-image_xfm", "from-myatlas_to-T1w_mode-image_xfm", "space-myatlas_desc-moved_T1w"}
    ends = {".h5", ".json", ".nii.gz"}
    there = {name for name in files(out) if name.startswith(place)}
    assert {name.removeprefix(f"{place}_").partition(".")[0] for name in there} == wanted | {"space-myatlas_jacobian"}
    assert {name[name.index(".") :] for name in there} == ends
    transform = out / f"{place}_from-T1w_to-myatlas_mode-image_xfm.h5"
    assert transform.read_bytes() == (out / "sub-1_ses-2_T1w" / "transform.h5").read_bytes()
    assert os.path.samefile(transform, out / "sub-1_ses-2_T1w" / "transform.h5")
    told = json.loads((out / "dataset_description.json").read_text())
    assert (told["DatasetType"], told["GeneratedBy"][0]["Name"]) == ("derivative", "Warpwright")
    assert (out / told["DatasetLinks"]["raw"]).resolve() == data_set.resolve()
    sidecar = json.loads((out / f"{place}_space-myatlas_desc-moved_T1w.json").read_text())
    assert sidecar["Sources"][0] == "bids:raw:sub-1/ses-2/anat/sub-1_ses-2_T1w.nii.gz"
    assert sidecar["SpatialReference"] == "bids:raw:my%20atlas.nii.gz"
    assert atlas_work(data_set, images).pairs == work.pairs  # what was written is no image of the data set
    assert make_plan(atlas_work(data_set, images), out).todo == ()


def test_bids_names_follow_the_pairs(data_set, images, tmp_path):
    out = tmp_path / "out"
    run(atlas_work(data_set, images), out)
    before = files(out)
    broken = data_set / "sub-1/ses-2/anat/sub-1_ses-2_T1w.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-30])
    plan = run(atlas_work(data_set, images), out)
    assert plan.todo == (1,)
    assert files(out) == {name for name in before if "ses-2" not in name}
    shutil.copyfile(images / "moving2.nii.gz", broken)
    run(atlas_work(data_set, images), out)
    assert files(out) == before
    moved = "anat/sub-1_ses-2_space-myatlas_desc-moved_T1w.nii.gz"
    assert (out / "sub-1/ses-2" / moved).read_bytes() == (out / "sub-1_ses-2_T1w" / "moved.nii.gz").read_bytes()


def test_names_of_images_that_are_no_longer_chosen_go(data_set, images, tmp_path):
    out = tmp_path / "out"
    run(atlas_work(data_set, images), out)
    (out / "sub-1" / "notes.txt").write_text("mine")
    shutil.rmtree(data_set / "sub-1" / "ses-2")
    (data_set / "my atlas.nii.gz").rename(data_set / "other.nii.gz")
    work = work_of_rule(t1(data_set, "fixed", fixed=data_set / "other.nii.gz"), options(images))[0]
    run(work, out)
    there = files(out) - {"sub-1/notes.txt"}
    assert len(there) == 2 * (4 + 3)  # results and sidecars
    assert not [name for name in there if "myatlas" in name or "ses-2" in name]
    assert (out / "sub-1" / "notes.txt").read_text() == "mine"
    assert (out / "sub-1_ses-2_T1w" / "transform.h5").exists()


def test_where_the_disk_has_no_links_there_are_copies(data_set, images, tmp_path, monkeypatch):
    def none(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("warpwright.cohort.derivatives.os.link", none)
    out = tmp_path / "out"
    run(atlas_work(data_set, images), out)
    copy = out / "sub-2/ses-1/anat/sub-2_ses-1_space-myatlas_desc-moved_T1w.nii.gz"
    assert copy.read_bytes() == (out / "sub-2_ses-1_T1w" / "moved.nii.gz").read_bytes()
    assert copy.stat().st_nlink == 1
    monkeypatch.setattr("warpwright.cohort.derivatives.shutil.copy2", none)
    state = look_at(out)
    write_derivatives(out, state.work, state.states)  # nothing is to be copied again
    assert not list(out.glob("sub-*/**/.*"))


def test_the_table_lies_beside_the_results_and_can_be_given_itself(images, tmp_path):
    folder = tmp_path / "images of people"
    folder.mkdir()
    for name in (HOSTILE, "b.nii.gz"):
        shutil.copyfile(images / "moving0.nii.gz", folder / name)
    rule = Rule(folder=folder, pairs="fixed", fixed=images / "fixed0.nii.gz")
    work = work_of_rule(rule, options(images))[0]
    with pytest.raises(BadInput, match="has the character <"):
        make_plan(work, tmp_path / "out")
    (folder / HOSTILE).rename(folder / "a '=1+1', é.nii.gz")
    work = work_of_rule(rule, options(images))[0]
    run(work, tmp_path / "out")
    assert load_work(tmp_path / "out") == work
    again = read_work(tmp_path / "out" / "pairs.csv", options(images))
    assert again.pairs == work.pairs
    assert make_plan(again, tmp_path / "out").todo == ()


def test_parts_agree_on_the_pairs_though_images_come_in_between(images, tmp_path):
    folder = tmp_path / "people"
    folder.mkdir()
    for name in ("b", "c", "d"):
        shutil.copyfile(images / "moving0.nii.gz", folder / f"{name}.nii.gz")
    rule = Rule(folder=folder, pairs="fixed", fixed=images / "fixed0.nii.gz")
    out = tmp_path / "out"
    run(work_of_rule(rule, options(images), out)[0], out, shard=(1, 2))
    shutil.copyfile(images / "moving0.nii.gz", folder / "a.nii.gz")
    work, notes = work_of_rule(rule, options(images), out)
    assert [pair.id for pair in work.pairs] == ["b", "c", "d"]
    assert notes == (f"{folder}: pairs are new since the work began: a; the command without --shard takes them",)
    assert run(work, out, shard=(2, 2)).todo == (1,)
    whole = work_of_rule(rule, options(images))[0]
    assert make_plan(whole, out).todo == (0,)
    other = Rule(folder=folder, pairs="all")
    assert len(work_of_rule(other, options(images), out)[0].pairs) == 6


def test_another_rule_in_a_folder_that_was_begun_does_what_it_asks_for(images, tmp_path):
    folder, out = tmp_path / "people", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b"):
        shutil.copyfile(images / "moving0.nii.gz", folder / f"{name}.nii.gz")
    first = work_of_rule(Rule(folder=folder, pairs="fixed", fixed=images / "fixed0.nii.gz"), options(images))[0]
    plan = make_plan(first, out)
    with pytest.raises(RuntimeError, match="enough"):
        execute(plan, stopping, silent)
    other = work_of_rule(Rule(folder=folder, pairs="fixed", fixed=images / "fixed1.nii.gz"), options(images))[0]
    plan = make_plan(other, out)
    assert [state.status for state in plan.states] == ["changed", "missing"]
    after = execute(plan, in_order, silent)
    assert after.counts()["done"] == 2
    assert load_work(out).rule == other.rule
    assert "fixed1.nii.gz" in (out / "pairs.csv").read_text()
    assert "fixed0.nii.gz" not in (out / "pairs.csv").read_text()


def stopping(tasks):
    for record in in_order(tasks):
        yield record
        raise RuntimeError("enough")
