"""Templates of files, round by round."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from warpwright.cohort.check import fault_of_id
from warpwright.cohort.engine import workers_on_this_machine
from warpwright.cohort.pair import record_failure
from warpwright.cohort.run import Engine, Task, in_order
from warpwright.cohort.work import Options, read_work
from warpwright.errors import BadInput, Failed
from warpwright.io import read_scalar, write_image
from warpwright.template import build as module
from warpwright.template.build import build
from warpwright.template.mean import sharpness
from warpwright.template.work import Template, named

RADIUS = 11.0  # mm, the mean of the discs'


def serial(_: int) -> Engine:
    return in_order


def quiet(*counts: int) -> None:
    pass


def wanted(discs: tuple[Path, ...], **changes: Any) -> Template:
    options = Options(preset="fast", config=discs[0].parent / "settings.toml", figures=False)
    return Template(**({"images": discs, "rounds": 2, "options": options} | changes))


@pytest.fixture(scope="module")
def finished(discs: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "out"
    build(wanted(discs), folder, serial, quiet)
    return folder


def area(image: Path) -> float:
    """mm² of what is not background."""
    found = read_scalar(image)
    return float((found.data > 0.25).sum()) * float(np.prod(found.grid.spacing))


def test_the_template_of_discs_has_their_mean_size(finished: Path) -> None:
    """Of rotated and shifted ones; a mean that forgot the shapes would be as large as what it began with."""
    assert area(finished / "template.nii.gz") == pytest.approx(np.pi * RADIUS**2, rel=0.05)
    begin, end = (read_scalar(finished / "rounds" / f"{k}.nii.gz") for k in (0, 2))
    assert end.data.min() >= 0
    assert end.data.max() <= 1
    assert sharpness(end.data, end.grid) > 1.3 * sharpness(begin.data, begin.grid)
    assert sorted(path.name for path in finished.iterdir()) == [
        "index.html",
        "pairs.csv",
        "rounds",
        "template.json",
        "template.nii.gz",
    ]
    assert not (finished / "rounds" / "1").exists()


def test_it_begins_from_an_image_that_is_named(discs: tuple[Path, ...], tmp_path: Path) -> None:
    """And is no larger for that, but lies where that one lies."""
    build(wanted(discs, initial=discs[2]), tmp_path / "out", serial, quiet, keep=True)
    template = tmp_path / "out/template.nii.gz"
    assert area(template) == pytest.approx(np.pi * RADIUS**2, rel=0.05)
    assert read_scalar(template).grid.same_as(read_scalar(discs[2]).grid)
    assert (tmp_path / "out/rounds/2/pairs/disc0/transform.h5").is_file()


def test_the_same_bytes_in_any_order_and_interrupted(discs: tuple[Path, ...], finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    build(wanted(discs[::-1], rounds=1), folder, serial, quiet)
    first = (folder / "template.nii.gz").read_bytes()

    def broken(_: int) -> Engine:
        def engine(tasks: Iterable[Task]) -> Generator[Mapping[str, Any], None, None]:
            for number, record in enumerate(in_order(tasks)):
                if number == 1:
                    raise KeyboardInterrupt
                yield record

        return engine

    with pytest.raises(Failed, match="interrupted, 2 of 3 pairs are done"):
        build(wanted(discs), folder, broken, quiet)
    assert (folder / "template.nii.gz").read_bytes() == first  # until the next one is whole
    seen: list[int] = []
    build(wanted(discs), folder, lambda count: seen.append(count) or in_order, quiet)
    assert seen == [1]
    assert (folder / "template.nii.gz").read_bytes() == (finished / "template.nii.gz").read_bytes()
    build(wanted(discs), folder, lambda _: pytest.fail("nothing is left to do"), quiet)
    build(wanted(discs, rounds=1), folder, lambda _: pytest.fail("nothing is left to do"), quiet)
    assert (folder / "template.nii.gz").read_bytes() == first


def test_two_workers_give_the_same_bytes(discs: tuple[Path, ...], finished: Path, tmp_path: Path) -> None:
    build(wanted(discs, rounds=1), tmp_path / "out", lambda _: workers_on_this_machine(2), quiet)
    assert (tmp_path / "out/template.nii.gz").read_bytes() == (finished / "rounds/1.nii.gz").read_bytes()


def test_a_round_that_was_changed_is_made_again(discs: tuple[Path, ...], finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "out"))
    old = (folder / "template.nii.gz").read_bytes()
    image = read_scalar(folder / "rounds/1.nii.gz")
    write_image(folder / "rounds/1.nii.gz", type(image)(image.data / 2, image.grid))
    rounds: list[int] = []
    build(wanted(discs), folder, serial, lambda number, *_: rounds.append(number))
    assert set(rounds) == {1, 2}
    assert (folder / "template.nii.gz").read_bytes() == old


def test_a_mask_that_is_lost_is_made_again(discs: tuple[Path, ...], finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "out"))
    (folder / "rounds/2-mask.nii.gz").unlink()
    build(wanted(discs), folder, serial, quiet)
    assert (folder / "rounds/2-mask.nii.gz").read_bytes() == (finished / "rounds/2-mask.nii.gz").read_bytes()


def test_a_start_that_went_wrong_can_be_begun_again(
    discs: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match=r"--spacing 1000: leaves 1 x 1 voxels, expected a finer one"):
        build(wanted(discs, spacing=1000.0, rounds=1), tmp_path / "coarse", serial, quiet)
    with pytest.raises(Failed, match=r"a template of such voxels needs about .* GB"):
        build(wanted(discs, spacing=1e-4, rounds=1), tmp_path / "fine", serial, quiet)

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "mean_image", broken)
        with pytest.raises(KeyboardInterrupt):
            build(wanted(discs, rounds=1), tmp_path / "out", serial, quiet)
    build(wanted(discs, rounds=1), tmp_path / "out", serial, quiet)
    assert (tmp_path / "out/template.nii.gz").is_file()


def test_without_a_file_of_settings_the_first_round_is_affine(discs: tuple[Path, ...], tmp_path: Path) -> None:
    build(wanted(discs, options=Options(preset="fast", figures=False)), tmp_path / "out", serial, quiet, keep=True)
    kinds = [json.loads((tmp_path / f"out/rounds/{k}/pairs/cohort.json").read_text())["options"]["transform"] for k in (1, 2)]
    assert kinds == ["affine", None]


def test_names_that_no_folder_can_have(discs: tuple[Path, ...], tmp_path: Path) -> None:
    hostile = (" a", '<b>x"y', "é" * 100)
    files = tuple(Path(shutil.copy(disc, tmp_path / f"{name}.nii.gz")) for disc, name in zip(discs, hostile, strict=True))
    build(wanted(discs, images=files, rounds=1), tmp_path / "out", serial, quiet)
    table = (tmp_path / "out/pairs.csv").read_text()
    assert [line.partition(",")[0] for line in table.splitlines()[1:]] == ["0000-a", "0001-b_x_y", "0002-"]


def test_the_table_of_pairs_is_one_of_a_cohort(finished: Path) -> None:
    work = read_work(finished / "pairs.csv", Options())
    assert [pair.id for pair in work.pairs] == ["disc0", "disc1", "disc2"]
    assert (finished / "rounds/2.nii.gz").read_bytes() == (finished / "template.nii.gz").read_bytes()
    assert work.pairs[0].files["fixed"].samefile(finished / "rounds/2.nii.gz")


def test_a_failure_is_told_and_tried_again(discs: tuple[Path, ...], finished: Path, tmp_path: Path) -> None:
    def failing(_: int) -> Engine:
        def engine(tasks: Iterable[Task]) -> Generator[Mapping[str, Any], None, None]:
            for task in tasks:
                yield record_failure(task, "it has no counterpart") if task["id"] == "disc1" else next(in_order([task]))

        return engine

    with pytest.raises(Failed, match=r"1 of 3 images could not be registered in round 1: disc1 \(it has no counterpart\)"):
        build(wanted(discs), tmp_path / "out", failing, quiet)
    assert not (tmp_path / "out/template.nii.gz").exists()
    build(wanted(discs), tmp_path / "out", serial, quiet)
    assert (tmp_path / "out/template.nii.gz").read_bytes() == (finished / "template.nii.gz").read_bytes()


def test_images_of_one_name_are_numbered(discs: tuple[Path, ...], tmp_path: Path) -> None:
    files = []
    for k, disc in enumerate(discs):
        (tmp_path / f"<sub>-{k}").mkdir()
        files.append(Path(shutil.copy(disc, tmp_path / f"<sub>-{k}" / "T1.nii.gz")))
    folder = tmp_path / "<b>out"
    build(wanted(discs, images=tuple(files), rounds=1), folder, serial, quiet)
    assert (folder / "pairs.csv").read_text().splitlines()[1].startswith("0000-T1,rounds/1.nii.gz,rounds/1-mask.nii.gz,")
    page = (folder / "index.html").read_text()
    assert "&lt;b&gt;out" in page
    assert "<b>" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_bad_input_is_refused_in_one_sentence(discs: tuple[Path, ...], finished: Path, tmp_path: Path) -> None:
    options = wanted(discs).options

    def refused(sentence: str, folder: Path = tmp_path / "new", **changes: Any) -> None:
        with pytest.raises(BadInput, match=sentence):
            build(wanted(discs, **changes), folder, serial, quiet)

    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    flat = read_scalar(discs[0])
    write_image(tmp_path / "flat.nii.gz", type(flat)(torch.ones_like(flat.data), flat.grid))
    volume = type(flat)(torch.rand(1, 8, 8, 8), type(flat.grid).regular((8, 8, 8)))
    write_image(tmp_path / "volume.nii.gz", volume)
    refused("of 1 images, expected at least 2", images=discs[:1])
    refused("--rounds must be at least 1, got 0", rounds=0)
    refused("--sharpen must be at least 0", sharpen=-1.0)
    refused("--spacing must be above 0", spacing=0.0)
    refused("expected one of them", spacing=1.0, initial=discs[0])
    refused("images that are the same: .*disc0.nii.gz and .*disc0.nii.gz; expected", images=(*discs, discs[0]))
    (tmp_path / "linked.nii.gz").symlink_to(discs[1])
    refused("the same: .*disc1.nii.gz and .*linked.nii.gz;", images=(*discs, tmp_path / "linked.nii.gz"))
    nowhere = (tmp_path / "nowhere.nii.gz", tmp_path / "lost.nii.gz")
    refused("not there: .*lost.nii.gz, .*nowhere.nii.gz; expected files", images=(*discs, *nowhere))
    refused("cannot be printed: .*x.ny.nii.gz", images=(*discs, tmp_path / "x\ny.nii.gz"))
    (tmp_path / "odd.toml").write_text("steps = [0, 1]\n")
    refused("odd.toml", options=replace(options, config=tmp_path / "odd.toml"))
    refused(
        "2 of the images cannot be used: .*bad.nii.gz.*flat", images=(*discs, tmp_path / "bad.nii.gz", tmp_path / "flat.nii.gz")
    )
    refused(
        "has 2 axes and .*volume.nii.gz has 3 axes: expected images of one kind", images=(*discs, tmp_path / "volume.nii.gz")
    )
    refused("neither empty nor the folder of a template", folder=tmp_path)
    assert not (tmp_path / "new").exists()
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    refused("holds a template of other images, expected a new folder", folder=finished, images=discs[:2])
    refused("holds a template of other sharpen", folder=finished, sharpen=0.7)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["con", "x" * 79 + ".5mm", "pairs.csv"])
def test_names_that_no_folder_may_have_are_numbered(name: str) -> None:
    images = [Path(f"/data/{name}.nii.gz"), Path("/data/other.nii.gz")]
    found = named(images)
    assert sorted(found.values()) == sorted(images)
    assert not any(map(fault_of_id, found))
