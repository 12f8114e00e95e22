"""The files of a case: what is read, what is kept in memory and for how long, and all failures in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from warpwright.data import Case, Cases, Data
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import write_image

SHAPE = (5, 7, 6)


def oblique(dim: int = 3, shift: float = 0.0) -> Grid:
    """A flipped, oblique, anisotropic grid."""
    cos, sin = np.cos(0.4), np.sin(0.4)
    affine = np.eye(dim + 1)
    affine[:2, :2] = [[-cos, -sin], [-sin, cos]]
    affine[:dim, :dim] *= (0.7, 1.3, 2.1)[:dim]
    affine[:dim, dim] = (-31.0 + shift, 12.0, 94.0)[:dim]
    return Grid(SHAPE[:dim], affine)


def noise(grid: Grid, channels: int = 1, seed: int = 0) -> Image:
    values = np.random.default_rng(seed).normal(size=(channels, *grid.shape))
    return Image(torch.from_numpy(values.astype(np.float32)), grid)


def labelled(grid: Grid) -> Image:
    return Image((noise(grid, seed=9).data > 0).to(torch.int16) * 3, grid)


def case(folder: Path, name: str, grid: Grid | None = None, **files: str) -> Case:
    """A case whose image is written; of the other files only the names are given."""
    path = folder / f"{name}.nii.gz"
    write_image(path, noise(grid or oblique(), seed=sum(map(ord, name))))
    return Case(id=name, image=path, **{key: folder / file for key, file in files.items()})  # type: ignore[arg-type]


def data(**settings: object) -> Data:
    return Data(manifest=Path("t.csv"), **settings)  # type: ignore[arg-type]


def opened(path: Path) -> Any:
    return nib.load(path)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as caught:
        call()
    return str(caught.value)


def test_all_files_of_a_case(tmp_path: Path, dim: int) -> None:
    grid = oblique(dim)
    one = case(tmp_path, "a", grid, mask="m.mha", labels="l.nii.gz", points="p.csv")
    write_image(tmp_path / "m.mha", Image(noise(grid, seed=4).data.abs(), grid))
    write_image(tmp_path / "l.nii.gz", labelled(grid))
    voxels = np.random.default_rng(1).uniform(0, 4, (3, dim))
    lines = [f"p{k}," + ",".join(str(v) for v in row) for k, row in enumerate(voxels)]
    (tmp_path / "p.csv").write_text("\n".join(["id," + ",".join("xyz"[:dim]), *lines]))
    found = Cases(data(space="voxel")).load(one)
    affine = opened(one.image).affine
    assert found.image.data.dtype == torch.float32
    np.testing.assert_array_equal(found.image.data[0], opened(one.image).get_fdata().reshape(grid.shape))
    assert found.mask is not None
    np.testing.assert_array_equal(found.mask.data, noise(grid, seed=4).data.abs())
    assert found.labels is not None
    assert found.labels.data.dtype == torch.int16
    np.testing.assert_array_equal(found.labels.data, labelled(grid).data)
    assert found.points is not None
    assert found.points.dtype == torch.float64
    matrix = np.delete(np.delete(affine, 2, 0), 2, 1) if dim == 2 else affine
    np.testing.assert_allclose(found.points, voxels @ matrix[:-1, :-1].T + matrix[:-1, -1], atol=1e-4)  # float32 in the header
    assert found.point_names == ("p0", "p1", "p2")
    sizes = (found.image.data, found.mask.data, found.labels.data, found.points)
    assert found.size == sum(t.numel() * t.element_size() for t in sizes)


def test_an_image_alone(tmp_path: Path) -> None:
    found = Cases(data()).load(case(tmp_path, "a"))
    assert (found.mask, found.labels, found.points, found.point_names) == (None, None, None, ())


def test_the_header_and_the_space_are_those_of_the_settings(tmp_path: Path) -> None:
    one = case(tmp_path, "a", points="p.csv")
    file = opened(one.image)
    turned = file.affine.copy()
    turned[0, 3] += 1
    file.set_qform(turned, 1)
    nib.save(file, one.image)
    centre = oblique().centre
    (tmp_path / "p.csv").write_text("x,y,z\n" + ",".join(map(str, centre * [-1, -1, 1])))
    assert "a.nii.gz: " in refusal(lambda: Cases(data(space="lps")).load(one))
    found = Cases(data(header="sform", space="lps")).load(one)
    assert found.points is not None
    np.testing.assert_allclose(found.points[0], centre, atol=1e-9)
    np.testing.assert_allclose(found.image.grid.affine, oblique().affine, atol=1e-5)
    moved = Cases(data(header="qform", space="lps")).load(one).image.grid.affine
    np.testing.assert_allclose(moved[0, 3] - oblique().affine[0, 3], 1, atol=1e-4)


@pytest.fixture
def five(tmp_path: Path) -> list[Case]:
    return [case(tmp_path, name) for name in "abcde"]


ONE = 4 * 5 * 7 * 6  # bytes of one image


def kept(cases: Cases, five: list[Case]) -> str:
    """Which cases are found without their files; asked for in order."""
    names = ""
    for one in five:
        aside = one.image.with_suffix(".aside")
        one.image.rename(aside)
        try:
            cases.load(one)
            names += one.id
        except BadInput:
            pass
        aside.rename(one.image)
    return names


def test_what_was_asked_for_last_is_kept(five: list[Case]) -> None:
    a, b, c, d, _ = five
    cases = Cases(data(cache_gb=3 * ONE / 1e9))
    first = cases.load(a)
    assert cases.size == ONE
    for one in (b, c):
        cases.load(one)
    assert cases.load(a) is first  # and now b is the oldest
    cases.load(d)
    assert cases.size == 3 * ONE
    assert kept(cases, five) == "acd"
    assert cases.size == 3 * ONE


@pytest.mark.parametrize(("room", "names"), [(0.0, ""), (0.9, ""), (1.0, "e"), (2.9, "de"), (100.0, "abcde")])
def test_the_memory_has_a_bound(five: list[Case], room: float, names: str) -> None:
    cases = Cases(data(cache_gb=room * ONE / 1e9))
    for one in five:
        assert cases.load(one).image.data.shape == (1, *SHAPE)
        assert cases.size <= room * ONE
    assert kept(cases, five) == names
    assert cases.size == len(names) * ONE


def test_cases_of_the_same_files_share_memory(five: list[Case], tmp_path: Path) -> None:
    write_image(tmp_path / "m.nii.gz", Image(noise(oblique()).data.abs(), oblique()))
    cases = Cases(data())
    assert cases.load(five[0]) is cases.load(replace(five[0], id="other", split="test"))
    assert cases.load(five[0]).mask is None
    assert cases.load(replace(five[0], mask=tmp_path / "m.nii.gz")).mask is not None
    assert cases.size == 3 * ONE


def test_threads_may_share_it(five: list[Case]) -> None:
    cases = Cases(data(cache_gb=2.5 * ONE / 1e9))
    expected = {one.id: Cases(data()).load(one).image.data for one in five}
    order = np.random.default_rng(0).integers(0, 5, 200).tolist()

    def right(index: int) -> bool:
        found = cases.load(five[index]).image.data
        return bool((found == expected[five[index].id]).all()) and cases.size <= 2.5 * ONE

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, order))
    assert cases.size == 2 * ONE
    assert len(kept(cases, five)) == 2


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    good = case(tmp_path, "good", labels="good_labels.nii.gz", mask="good_mask.nii.gz")
    write_image(tmp_path / "good_labels.nii.gz", labelled(oblique()))
    write_image(tmp_path / "good_mask.nii.gz", Image(labelled(oblique()).data.float(), oblique()))
    missing = Case(id="missing", image=tmp_path / "missing.nii.gz")
    cut = case(tmp_path, "cut")
    cut.image.write_bytes(cut.image.read_bytes()[:300])
    nan = case(tmp_path, "nan")
    values = noise(oblique()).data
    values[0, 1, 2, 3] = float("nan")
    write_image(nan.image, Image(values, oblique()))
    flat = case(tmp_path, "flat")
    write_image(flat.image, Image(torch.full((1, *SHAPE), 7.0), oblique()))
    many = case(tmp_path, "many")
    write_image(many.image, noise(oblique(), channels=4))
    elsewhere = case(tmp_path, "elsewhere", labels="far.nii.gz", mask="small.nii.gz", points="out.csv")
    write_image(tmp_path / "far.nii.gz", labelled(oblique(shift=5)))
    write_image(tmp_path / "small.nii.gz", Image(torch.ones(1, 4, 4, 4), Grid.regular((4, 4, 4))))
    (tmp_path / "out.csv").write_text("x,y,z\n500,500,500\n600,600,600\n")
    halves = case(tmp_path, "halves", labels="halves_labels.nii.gz")
    write_image(tmp_path / "halves_labels.nii.gz", noise(oblique()))
    every = [good, missing, cut, nan, flat, many, elsewhere, halves]

    sentence = refusal(lambda: Cases(data(space="ras")).check(every))
    found = sentence.split("; ")
    assert found[0] == (
        f"images differ: 3 axes and 1 channels ({good.image}), 3 axes and 4 channels ({many.image}), "
        "expected as many axes and channels in all"
    )
    assert found[1] == f"{missing.image}: does not exist, an image file was expected"
    assert found[2].startswith(f"{cut.image}: ")
    assert found[3] == f"{nan.image}: 1 of 210 values are NaN or inf, finite numbers were expected"
    assert found[4] == f"{flat.image}: every voxel is 7, an image with some structure was expected"
    assert found[5] == f"{tmp_path / 'small.nii.gz'}: has (4, 4, 4) voxels, the (5, 7, 6) of {elsewhere.image} were expected"
    assert found[6] == (
        f"{tmp_path / 'far.nii.gz'}: its voxels lie up to 5 mm from those of {elsewhere.image}, the same were expected"
    )
    assert found[7] == (f"{tmp_path / 'out.csv'}: all 2 points lie outside their image, expected them inside (right space?)")
    assert found[8] == f"{tmp_path / 'halves_labels.nii.gz'}: 210 of 210 values are not whole, a label map was expected"
    assert len(found) == 9
    assert str(good.image) not in sentence.replace(found[0], "")


def test_a_broken_image_does_not_hide_its_broken_labels(tmp_path: Path) -> None:
    one = Case(id="a", image=tmp_path / "a.png", labels=tmp_path / "l.png", mask=tmp_path / "m.png", points=tmp_path / "p.csv")
    sentence = refusal(lambda: Cases(data(space="ras")).load(one))
    assert [part.split(":")[0] for part in sentence.split("; ")] == [
        str(tmp_path / n) for n in ("a.png", "m.png", "l.png", "p.csv")
    ]
    assert "p.csv" not in refusal(lambda: Cases(data(space="voxel")).load(one))  # voxels of an image that was not read


def test_many_files_that_fail_alike_are_all_named_in_one_sentence(tmp_path: Path) -> None:
    """Also where a library's message holds the file's name, and each once, however many rows have it."""
    every = [Case(id=f"{n}", image=tmp_path / f"{n}.{'png' if n < 23 else 'nii'}") for n in range(46)]
    for one in every[23:]:
        one.image.write_bytes(b"no")
    again = [Case(id="again", image=tmp_path / "0.png", mask=tmp_path / "1.png")]
    missing, broken = refusal(lambda: Cases(data()).check(every + again)).split("; ")
    likewise = [", ".join(str(one.image) for one in part) for part in (every[1:23], every[24:])]
    assert missing == f"{tmp_path / '0.png'}: does not exist, an image file was expected (likewise {likewise[0]})"
    assert broken.startswith(f"{tmp_path / '23.nii'}: cannot be read, ")
    assert broken.endswith(f" (likewise {likewise[1]})")


def test_label_maps_that_lie_elsewhere_are_named_in_one_sentence(tmp_path: Path) -> None:
    """Each on an image of its own, and as far away as it likes."""
    every = [case(tmp_path, name, labels=f"{name}_labels.nii.gz") for name in "abc"]
    for shift, one in enumerate(every, 5):
        write_image(one.labels, labelled(oblique(shift=shift)))
    sentence = refusal(lambda: Cases(data()).check(every))
    assert sentence.startswith(f"{every[0].labels}: its voxels lie up to 5 mm from those of {every[0].image}, the same were")
    assert sentence.endswith(f" (likewise {every[1].labels}, {every[2].labels})")


def test_images_of_other_axes(tmp_path: Path) -> None:
    volume, picture = case(tmp_path, "volume"), case(tmp_path, "picture", oblique(2))
    expected = f"images differ: 3 axes and 1 channels ({volume.image}), 2 axes and 1 channels ({picture.image}), "
    assert refusal(lambda: Cases(data()).check([volume, picture])).startswith(expected)


def test_a_good_cohort(five: list[Case], tmp_path: Path) -> None:
    cases = Cases(data())
    assert cases.check([*five, replace(five[0], id="again")]) == (3, 1)
    assert kept(cases, five) == "abcde"
    two = case(tmp_path, "two", oblique(2))
    write_image(two.image, noise(oblique(2), channels=3))
    assert Cases(data()).check([two]) == (2, 3)


def test_reading_stops_between_cases_when_it_is_told_to(five: list[Case]) -> None:
    answers = iter([False, False, True])
    cases = Cases(data())
    assert cases.check(five, lambda: next(answers)) is None
    assert kept(cases, five) == "ab"
