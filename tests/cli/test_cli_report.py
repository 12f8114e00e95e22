"""`warpwright report` and `register --report`: one page that holds everything, and what cannot be used."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import torch

import warpwright
from warpwright.cli.main import main
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import read_image, write_image
from warpwright.product.report import write_report

VOID = {"meta", "img", "input", "br", "hr", "link"}
HOSTILE = "<script>alert('\"&\n\u202e)<.nii.gz"


class Page(HTMLParser):
    """Elements with their attributes; complains of tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), attrs
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.words += f" {data}"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def report(folder: Path, target: Path) -> str:
    assert main(["report", str(folder), "--output", str(target)]) == 0
    return target.read_text(encoding="utf-8")


def check_self_contained(text: str) -> Page:
    """Nothing is loaded, nothing may be, and every reference within the page leads somewhere."""
    page = Page(text)
    assert not re.search(r"https?:|//\w+\.\w", re.sub(r"base64,[\w+/=]+", "", text))
    named = {attributes["id"] for _, attributes in page.found if "id" in attributes}
    for _, attributes in page.found:
        assert "src" not in attributes or (attributes["src"] or "").startswith("data:image/")
        if "href" in attributes:
            assert (attributes["href"] or "")[1:] in named
        for one in (attributes.get("aria-labelledby"), attributes.get("aria-controls")):
            assert one is None or one in named
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    assert len(named) == sum("id" in attributes for _, attributes in page.found)
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert all(attributes.get("aria-label") for attributes in page.all("svg") if attributes.get("role") == "img")
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert text.lstrip().startswith("<!DOCTYPE html>")
    return page


def test_a_page_holds_everything(registered, result, volume, tmp_path):
    text = report(registered, tmp_path / "r.html")
    page = check_self_contained(text)
    assert len(text) < 1_000_000
    basis = "Judged by similarity and by labels and landmarks"
    for words in ("Improved", basis, "Axial, slice", "Coronal", "Sagittal", "There and back"):
        assert words in page.words
    for words in (result["command"], volume.path("fixed.nii.gz"), result["inputs"]["fixed"]["sha256"], "Avants", "greedy 1/1"):
        assert words in page.words
    assert f"{result['scores']['tre_after']['mean']:.2f}" in page.words
    assert f"{result['scores']['mean_dice_after']:.3f}" in page.words
    pictures = page.all("img")
    assert "the patient's right is at the left, anterior at the top" in str(pictures[0]["alt"])
    assert len(pictures) == 3 * (3 + 2 + 2)  # planes: images, differences, grid and volume
    assert {a["role"] for _, a in page.found if "role" in a} >= {"tablist", "tab", "tabpanel", "img"}
    assert "The grid leaves the affine part out." in page.words
    assert re.search(r" ≥ \d\.\d\d ", page.words)  # what is beyond the top of the difference has its colour
    for words in ("before (dashed, squares)", "after (solid, dots)"):
        assert words in page.words
    (told,) = [a["aria-label"] for a in page.all("svg") if str(a.get("aria-label")).startswith("Landmark errors")]
    assert "Before (dashed, squares)" in str(told)
    assert {a["class"] for a in page.all("rect")} >= {"before"}
    assert "polyline.before { stroke-dasharray" in text
    assert text.count("-outline-moved") == 2 * 3
    assert text.count("-point-moved") == 2 * 3


def test_the_policy_names_what_the_page_holds(registered, tmp_path):
    text = report(registered, tmp_path / "r.html")
    for tag in ("style", "script"):
        (inner,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in text.replace("&#39;", "'")


def test_energies_are_shown_from_step_to_step_where_they_are_known(registered, result, tmp_path):
    page = check_self_contained(report(registered, tmp_path / "r.html"))
    known = [stage for stage in result["stages"] if len(stage["energies"]) > 1]
    assert [stage["name"] for stage in known][-1] == "greedy 1/1"
    assert [a["class"] for a in page.all("svg")].count("spark") == len(known)
    assert "step to step" in page.words
    shutil.copytree(registered, tmp_path / "o")

    def as_before(found) -> None:  # a version that recorded no steps
        for stage in found["stages"]:
            del stage["energies"]

    edited(tmp_path / "o", as_before)
    page = check_self_contained(report(tmp_path / "o", tmp_path / "a.html"))
    assert [a["class"] for a in page.all("svg")].count("spark") == 0
    assert "from its beginning to its end" in page.words
    (told,) = [a["aria-label"] for a in page.all("svg") if str(a.get("aria-label")).startswith("Energy by stage")]
    assert "greedy 1/1: " in str(told)


def test_an_interactive_page_holds_the_volumes_and_what_shows_them(registered, tmp_path):
    plain = report(registered, tmp_path / "r.html")
    assert main(["report", str(registered), "--interactive", "--output", str(tmp_path / "i.html")]) == 0
    text = (tmp_path / "i.html").read_text(encoding="utf-8")
    assert "niivue" not in plain.lower()
    page = Page(text)
    assert [a["src"] for a in page.all("img")] == [a["src"] for a in Page(plain).all("img")]
    held = dict(re.findall(r'<script type="application/gzip" id="volume-(\w+)">([\w+/=]+)</script>', text))
    assert list(held) == ["fixed", "moved", "before"]
    fixed = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(held["fixed"])))
    assert np.allclose(fixed.affine, read_image(registered / "moved.nii.gz").grid.affine, atol=1e-5)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    policy = re.search(r'Security-Policy" content="([^"]*)"', text.replace("&#39;", "'"))
    assert policy is not None
    named = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    assert set(re.findall(r"'sha256-([\w+/=]+)'", policy[1].split("script-src ")[1])) == named
    assert len(named) == 2
    assert policy[1].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert not [a for a in page.all("script") if "src" in a]
    ids = {a["id"] for _, a in page.found if "id" in a}
    assert set(re.findall(r'find\("(volumes-\w+)"\)', scripts[1])) <= ids
    assert "Redistribution and use in source and binary forms" in page.words  # the licence asks for it
    for what in ("canvas", "select", "output"):
        assert page.all(what)


def test_register_writes_the_same_page_and_no_old_one_stays(flat, tmp_path, capsys):
    images = [flat.path("fixed.nii.gz"), flat.path("moving.nii.gz")]
    arguments = ["register", *images, "--output", str(tmp_path / "o"), "--transform", "rigid"]
    assert main([*arguments, "--report"]) == 0
    page = (tmp_path / "o" / "report.html").read_bytes()
    report(tmp_path / "o", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page
    capsys.readouterr()
    assert main(["report", str(tmp_path / "o")]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "o"), "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": str(tmp_path / "o" / "report.html")}
    assert (tmp_path / "o" / "report.html").read_bytes() == page
    found = check_self_contained(page.decode())
    assert len(found.all("img")) == 3 + 2 + 2
    assert "Labels" not in [w.strip() for w in found.words.split("  ")]
    assert "The map is affine alone: the grid shows that part" in found.words
    assert "leaves the affine part out" not in found.words
    assert main([*arguments, "--force"]) == 0
    assert not (tmp_path / "o" / "report.html").exists()  # of another run than result.json


def test_names_of_every_kind_are_only_shown(flat, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for side in ("fixed", "moving"):
        shutil.copy(flat.path(f"{side}.nii.gz"), tmp_path / f"{side}{HOSTILE}")
        rows = (flat.folder / f"{side}.csv").read_text().splitlines()
        rows[1] = re.sub(r"^a", '"</td><script>x</script>"', rows[1])
        (tmp_path / f"{side}.csv").write_text("\n".join(rows))
    arguments = [f"fixed{HOSTILE}", f"moving{HOSTILE}", "--fixed-points", "fixed.csv", "--moving-points", "moving.csv"]
    assert main(["register", *arguments, "--space", "ras", "--transform", "rigid", "--output", "o", "--preset", "fast"]) == 0
    monkeypatch.chdir("/")  # the paths that were given are relative
    text = report(tmp_path / "o", tmp_path / "r.html")
    page = check_self_contained(text)
    assert HOSTILE in page.words
    assert "</td><script>x</script>" in page.words
    assert text.count("<script>") == 1


@pytest.mark.parametrize("photograph", ["fundus", "green"])
def test_photographs_are_shown_in_colour(photograph, tmp_path):
    rows, columns = np.indices((64, 72), dtype=float)
    disc = (rows - 32) ** 2 + (columns - 36) ** 2 < 28**2
    for name, shift in (("fixed", 0), ("moving", 2)):
        vessels = np.exp(-(((rows - 32 - 9 * np.sin((columns - shift) / 8)) / 2) ** 2))
        colours = disc * np.array([190.0, 120.0, 50.0])[:, None, None] * (1 - 0.6 * vessels + 0.1 * np.sin(rows / 5))
        write_image(tmp_path / f"{name}.png", Image(torch.tensor(colours.clip(0, 255)).float(), Grid.regular((64, 72))))
    arguments = [str(tmp_path / "fixed.png"), str(tmp_path / "moving.png"), "--photograph", photograph, "--transform", "rigid"]
    assert main(["register", *arguments, "--output", str(tmp_path / "o"), "--report", "--preset", "fast"]) == 0
    page = check_self_contained((tmp_path / "o" / "report.html").read_text())
    shown = [np.asarray(PIL.Image.open(BytesIO(base64.b64decode(str(i["src"]).split(",")[1])))) for i in page.all("img")[:3]]
    files = [np.asarray(PIL.Image.open(tmp_path / name)) for name in ("fixed.png", "o/moved.png")]
    assert shown[0].shape == shown[1].shape == files[0].shape
    for picture, file in zip((shown[0], shown[2]), files, strict=True):
        assert np.array_equal(picture, file)
    assert photograph in page.words


def test_images_of_two_kinds_are_not_subtracted(flat, tmp_path):
    images = [flat.path("fixed.nii.gz"), flat.path("moving.nii.gz")]
    arguments = ["register", *images, "--similarity", "mi", "--transform", "rigid"]
    assert main([*arguments, "--output", str(tmp_path / "o"), "--report", "--preset", "fast"]) == 0
    page = check_self_contained((tmp_path / "o" / "report.html").read_text())
    assert "cannot be subtracted" in page.words
    assert len(page.all("img")) == 3 + 2
    assert "Mattes" in page.words


def test_a_score_is_shown_where_it_belongs_to_the_result(registered, tmp_path):
    shutil.copytree(registered, tmp_path / "o")
    shutil.copy(registered / "jacobian.nii.gz", tmp_path / "o" / "score.nii.gz")
    assert "can be trusted" not in report(tmp_path / "o", tmp_path / "a.html")  # left by another run
    found = json.loads((tmp_path / "o" / "result.json").read_text())
    found["scores"]["trust"] = {"trusted_percent": 81.25, "residual_trusted": 0.1, "residual_elsewhere": None}
    (tmp_path / "o" / "result.json").write_text(json.dumps(found))
    page = check_self_contained(report(tmp_path / "o", tmp_path / "b.html"))
    assert "81.2 % of the image score at least 0.5" in page.words
    assert len(page.all("img")) == 3 * 8


def test_a_bad_result_is_told_at_the_top(registered, tmp_path):
    shutil.copytree(registered, tmp_path / "o")
    found = json.loads((tmp_path / "o" / "result.json").read_text())
    found["verdict"] |= {"improved": False, "sentences": ["did not improve: similarity 0.1 before, 0.2 after"]}
    found["scores"] |= {"energy_before": 0.1, "energy_after": 0.2}
    (tmp_path / "o" / "result.json").write_text(json.dumps(found))
    page = check_self_contained(report(tmp_path / "o", tmp_path / "a.html"))
    assert "Not improved" in page.words
    assert "did not improve: similarity 0.1 before" in page.words
    assert any(a.get("class") == "card verdict bad" for a in page.all("section"))


def test_a_label_of_the_fixed_image_only_is_outlined_and_listed(flat, tmp_path):
    labels = read_image(flat.path("fixed_labels.nii.gz"))
    data = labels.data.clone().to(torch.int16)
    data[0, :4, :4] = 9
    write_image(tmp_path / "fixed_labels.nii.gz", Image(data, labels.grid))
    arguments = ["register", flat.path("fixed.nii.gz"), flat.path("moving.nii.gz"), "--transform", "rigid", "--preset", "fast"]
    arguments += ["--fixed-labels", str(tmp_path / "fixed_labels.nii.gz"), "--moving-labels", flat.path("moving_labels.nii.gz")]
    assert main([*arguments, "--output", str(tmp_path / "o"), "--report"]) == 0
    text = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "in the fixed image only" in check_self_contained(text).words
    (outlines,) = re.findall(r'<g id="image-outline-fixed" class="own">(.*?)</g>', text)
    assert re.findall(r'class="(c\d)"', outlines) == ["c0", "c1", "c2"]


def test_folds_are_a_bar_in_their_colour(registered, tmp_path):
    shutil.copytree(registered, tmp_path / "o")
    jacobian = read_image(tmp_path / "o" / "jacobian.nii.gz")
    jacobian.data[0, 3, 3, 3:6] = -0.5
    write_image(tmp_path / "o" / "jacobian.nii.gz", jacobian)
    text = report(tmp_path / "o", tmp_path / "r.html")
    page = check_self_contained(text)
    assert "3 voxels fold" in page.words
    assert [a["class"] for a in page.all("rect")].count("folds") == 1
    assert ".folds{--k:#00ff00}" in text


def edited(folder: Path, change) -> None:
    found = json.loads((folder / "result.json").read_text())
    change(found)
    (folder / "result.json").write_text(json.dumps(found))


def moved_away(found) -> None:
    found["inputs"]["fixed"]["path"] = "/nowhere/fixed.nii.gz"


SMALL = Image(torch.rand(1, 4, 5, 6, generator=torch.Generator().manual_seed(0)), Grid.regular((4, 5, 6)))
BAD = {
    "no result": (lambda folder: (folder / "result.json").unlink(), "has no result.json"),
    "no json": (lambda folder: (folder / "result.json").write_text("{"), "is not what `register` writes"),
    "a list": (lambda folder: (folder / "result.json").write_text("[]"), "is not what `register` writes"),
    "no scores": (lambda folder: edited(folder, lambda found: found.pop("scores")), "it has no 'scores'"),
    "no dice": (lambda folder: edited(folder, lambda found: found["scores"].pop("dice_after")), "it has no 'dice_after'"),
    "no grid": (lambda folder: edited(folder, lambda found: found["grids"].update(fixed=3)), "is not what `register` writes"),
    "a stage": (lambda folder: edited(folder, lambda found: found.update(stages=[3])), "is not what `register` writes"),
    "inputs": (lambda folder: edited(folder, lambda found: found.update(inputs={"fixed": 3})), "is not what `register` writes"),
    "no transform": (lambda folder: (folder / "transform.h5").unlink(), "transform.h5: does not exist"),
    "no determinants": (lambda folder: (folder / "jacobian.nii.gz").unlink(), "jacobian.nii.gz: does not exist"),
    "another grid": (
        lambda folder: write_image(folder / "jacobian.nii.gz", SMALL),
        "lies on another grid",
    ),
    "an input gone": (lambda folder: edited(folder, moved_away), "/nowhere/fixed.nii.gz: is gone, the fixed image of"),
    "an input changed": (
        lambda folder: edited(folder, lambda found: found["inputs"]["moving_labels"].update(sha256="0")),
        "has changed since it was registered, the labels of the moving image of",
    ),
    "an input in memory": (
        lambda folder: edited(folder, lambda found: found["inputs"]["moving"].pop("path")),
        "was no file but in memory",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_one_line_and_writes_nothing(name, registered, tmp_path, capsys):
    shutil.copytree(registered, tmp_path / "o")
    harm, words = BAD[name]
    harm(tmp_path / "o")
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert main(["report", str(tmp_path / "o")]) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err.count("\n") == 1, caught.err
    assert words in caught.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_viewer_of_volumes_is_not_for_pictures(flat, tmp_path, capsys):
    images = [flat.path("fixed.nii.gz"), flat.path("moving.nii.gz")]
    assert main(["register", *images, "--transform", "rigid", "--preset", "fast", "--output", str(tmp_path / "o")]) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path / "o"), "--interactive"]) == 2
    caught = capsys.readouterr()
    assert "2-D images, volumes were expected for --interactive" in caught.err
    assert (caught.out, caught.err.count("\n")) == ("", 1)
    assert not (tmp_path / "o" / "report.html").exists()


def test_no_folder_and_no_place_to_write(registered, tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["report", str(registered / "result.json")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert main(["report", str(registered), "--output", str(tmp_path / "no" / "r.html")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_registration_of_arrays_has_no_report(flat, tmp_path):
    images = [read_image(flat.path(f"{side}.nii.gz")) for side in ("fixed", "moving")]
    warpwright.register(*images, transform="rigid", preset="fast").save(tmp_path / "o")
    with pytest.raises(BadInput, match="was no file but in memory"):
        write_report(tmp_path / "o")
    files = [flat.path(f"{side}.nii.gz") for side in ("fixed", "moving")]
    start = warpwright.Affine.identity(2)
    warpwright.register(*files, transform="rigid", preset="fast", initial=start).save(tmp_path / "p")
    with pytest.raises(BadInput, match="the transform that the search began from"):
        write_report(tmp_path / "p")
