"""Names of BIDS: what hard paths say, which images are meant, and what results are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpwright.cohort.bids import derived, label_of_file, label_of_name, read_filter, read_name
from warpwright.errors import BadInput


@pytest.mark.parametrize(
    ("path", "stem", "folder", "datatype"),
    [
        ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01_T1w", "sub-01/anat", "anat"),
        ("sub-01/ses-pre/anat/sub-01_ses-pre_T1w.nii", "sub-01_ses-pre_T1w", "sub-01/ses-pre/anat", "anat"),
        ("sub-01/sub-01_T1w.nii", "sub-01_T1w", "sub-01", ""),
        ("sub-A9+/anat/sub-A9+_run-02_acq-x_T1w.nii", "sub-A9+_acq-x_run-02_T1w", "sub-A9+/anat", "anat"),
        (
            "sub-1/func/desc-p_space-T1w_sub-1_task-rest_bold.nii.gz",
            "sub-1_task-rest_space-T1w_desc-p_bold",
            "sub-1/func",
            "func",
        ),
        ("sub-1/anat/sub-1_foo-2_desc-x_bar-1_T1w.nii", "sub-1_bar-1_foo-2_desc-x_T1w", "sub-1/anat", "anat"),
    ],
)
def test_what_a_path_says_comes_in_the_order_of_the_specification(path, stem, folder, datatype):
    name = read_name(path)
    assert (name.stem, name.folder, name.datatype) == (stem, folder, datatype)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("sub-01_T1w.nii.gz", "lies in no folder, expected sub-01"),
        ("sub-02/anat/sub-01_T1w.nii.gz", "lies in sub-02/anat, expected sub-01/anat"),
        ("sub-01/anat/sub-01_ses-1_T1w.nii", "expected sub-01/ses-1/anat"),
        ("sub-01/ses-1/anat/sub-01_T1w.nii", "expected sub-01/anat"),
        ("sub-01/anat/old/sub-01_T1w.nii", "expected sub-01/old"),
        ("sub-01/anat/sub-01_run-1_run-2_T1w.nii", "has run- more than once"),
        ("sub-01/anat/sub-01_T1w_copy.nii", "has 'T1w' where a key-label"),
        ("sub-01/anat/sub-01_T1w (1).nii", r"has 'T1w \(1\)' where"),
        ("sub-01/anat/sub-0é_T1w.nii", "has 'sub-0é' where"),
        ("sub-01/anat/sub-01__T1w.nii", "has '' where"),
        ("sub-01/anat/sub-0-1_T1w.nii", "has 'sub-0-1' where"),
        ("sub-01/anat/SUB-01_T1w.nii", "has 'SUB-01' where"),
        ("sub-01/anat/ses-1_T1w.nii", "has no sub-"),
        ("sub-01/anat/sub-01_T1w.NII", "ends in .NII"),
        ("sub-01/anat/sub-01_T1w.nii.gz.part", "ends in .nii.gz.part"),
        ("sub-01/anat/sub-01_T1w", "ends in nothing"),
        ("", "ends in nothing"),
    ],
)
def test_a_path_that_is_none_of_bids_says_why(path, why):
    with pytest.raises(ValueError, match=why):
        read_name(path)


PIECES = st.sampled_from(["sub-1", "sub-1", "ses-1", "run-02", "acq-x", "foo-1", "desc-p", "T1w", "", "é", "a-b-c", "from-x"])


@given(st.sampled_from(["sub-1/anat/", "sub-1/ses-1/anat/", "", "sub-1//"]), st.lists(PIECES, max_size=6), st.text(max_size=3))
def test_any_path_is_a_name_that_reads_back_or_has_a_reason(place, pieces, odd):
    for path in (f"{place}{'_'.join(['sub-1', *pieces, 'T1w'])}.nii.gz", f"{place}{odd}_{'_'.join(pieces)}.nii"):
        try:
            name = read_name(path)
        except ValueError:
            continue
        assert read_name(f"{name.folder}/{name.stem}{name.extension}") == name
        assert sorted(name.stem.split("_")) == sorted(path.rpartition("/")[2].partition(".")[0].split("_"))


def test_a_filter_names_labels_and_what_must_not_be_there():
    wanted = read_filter(" suffix=T1w, acq = mprage,run=")
    assert wanted == {"suffix": "T1w", "acq": "mprage", "run": ""}
    assert read_name("sub-1/anat/sub-1_acq-mprage_T1w.nii").fits(wanted)
    assert not read_name("sub-1/anat/sub-1_acq-mprage_run-1_T1w.nii").fits(wanted)
    assert not read_name("sub-1/anat/sub-1_acq-mprage_T2w.nii").fits(wanted)
    assert read_name("sub-1/anat/sub-1_T1w.nii").fits({"datatype": "anat"})
    several = read_filter("suffix=T1w|T2w,sub=1|3")
    found = [f"sub-{k}/anat/sub-{k}_{suffix}.nii" for k in (1, 2, 3, 13) for suffix in ("T1w", "T2w", "PDw")]
    assert [name[-14:-4] for name in found if read_name(name).fits(several)] == [
        *("/sub-1_T1w", "/sub-1_T2w", "/sub-3_T1w", "/sub-3_T2w"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no key=label"),
        ("T1w", "'T1w' is no key=label"),
        ("suffix=T1w,", "'' is no key=label"),
        ("sufix=T1w", "unknown key 'sufix', did you mean 'suffix'"),
        ("suffix=T1w,suffix=T2w", "suffix more than once"),
        ("suffix=T1w,sub=0 1", "'0 1' is no label"),
        ("suffix=T1w,sub=01|", "'' is no label"),
        ("suffix=|", "'' is no label"),
        ("sub=01", "says no suffix"),
        ("suffix=", "says no suffix"),
    ],
)
def test_a_filter_that_is_not_understood_is_a_sentence(text, words):
    with pytest.raises(BadInput, match=words):
        read_filter(text)


def test_results_have_names_of_derivatives():
    moving = read_name("sub-01/ses-2/anat/sub-01_ses-2_run-1_space-orig_desc-preproc_T1w.nii.gz")
    names = derived(moving, "MNI")
    place = "sub-01/ses-2/anat/sub-01_ses-2_run-1"
    assert names["transform.h5"] == f"{place}_from-orig_to-MNI_mode-image_xfm.h5"
    assert names["inverse.h5"] == f"{place}_from-MNI_to-orig_mode-image_xfm.h5"
    assert names["moved.nii.gz"] == f"{place}_space-MNI_desc-moved_T1w.nii.gz"
    assert len(set(names.values())) == len(names)
    assert read_name(names["moved.nii.gz"]).label("space") == "MNI"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("atlas.nii.gz", "atlas"),
        ("MNI 152_T1-1mm.nii", "MNI152T11mm"),
        ("tpl-MNI152NLin2009cAsym_res-01_T1w.nii.gz", "MNI152NLin2009cAsym"),
        ("<b>&\".nii", "b"),
        ("脳.nii", "atlas"),
    ],
)  # fmt: skip
def test_an_atlas_has_a_label_by_its_name(name, label):
    assert label_of_file(name) == label


def test_an_image_of_the_data_set_is_named_by_what_tells_it_from_the_other():
    first = read_name("sub-01/ses-1/anat/sub-01_ses-1_run-1_T1w.nii")
    assert label_of_name(first, read_name("sub-01/ses-2/anat/sub-01_ses-2_run-1_T1w.nii")) == "ses1T1w"
    assert label_of_name(first, read_name("sub-02/ses-1/anat/sub-02_ses-1_run-1_T1w.nii")) == "sub01T1w"
