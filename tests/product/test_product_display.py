"""What a prompt and a notebook show of a result, and a prompt of an image."""

from __future__ import annotations

import base64
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image as Picture

import warpwright
from warpwright.geometry import Grid, Image
from warpwright.product.display import result_html
from warpwright.product.result import RegistrationResult
from warpwright.product.scores import Verdict

HOSTILE = "/data/<script>alert(1)</script> \"onload='x' &.nii.gz"


class Page(HTMLParser):
    """Tags with their attributes, and the text; closed tags must match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[np.ndarray]:
        sources = [str(attributes["src"]) for tag, attributes in self.tags if tag == "img"]
        assert all(source.startswith("data:image/") for source in sources)
        data = [base64.b64decode(source.partition(",")[2], validate=True) for source in sources]
        return [np.asarray(Picture.open(BytesIO(one)).convert("RGB")) for one in data]


@pytest.fixture(scope="module")
def result() -> RegistrationResult:
    x, y = np.meshgrid(np.arange(24.0), np.arange(20.0), indexing="ij")
    fixed, moving = (np.exp(-((x - c) ** 2 / 30 + (y - 10) ** 2 / 10)) for c in (12, 14))
    labels = [(blob > 0.5).astype(np.uint8) for blob in (fixed, moving)]
    return warpwright.register(
        fixed, moving, fixed_labels=labels[0], moving_labels=labels[1], transform="rigid", device="cpu", threads=1
    )


def test_a_result_in_words(result: RegistrationResult) -> None:
    lines = repr(result).splitlines()
    assert lines[0] == "<RegistrationResult: improved"
    assert lines[1] == f"  fixed   {result.fixed!r}"
    before, after = result.scores.mean_dice
    assert f"  mean dice: {before:.3f} -> {after:.3f}" in lines
    assert lines[-1].endswith("1 note (result.notes)>")
    assert repr(result).isascii()
    assert not any("landmark" in line for line in lines)  # none were given
    warned = replace(result, verdict=Verdict(improved=False, folds=True, sentences=("the map folds: a lot",)))
    assert repr(warned).splitlines()[1] == "  the map folds: a lot"


def test_a_result_on_a_page(result: RegistrationResult) -> None:
    page = Page(result._repr_html_())
    assert "Improved" in page.text
    assert "moving onto fixed" in page.text
    assert "Judged by similarity and by labels" in page.text
    before, after = result.scores.mean_dice
    assert f"{before:.3f} → {after:.3f}" in page.text
    assert "1 mm apart" in page.text  # the note
    (figure,) = page.pictures()
    assert 700 < figure.shape[1] < 1700
    assert figure.std() > 20
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "style", "form"})


def test_what_a_person_must_know_stands_above_the_figure(result: RegistrationResult) -> None:
    verdict = Verdict(improved=True, folds=True, sentences=("the map folds: 2 % <of> the voxels",))
    html = result_html(replace(result, verdict=verdict))
    assert html.index("The map folds: 2 % &lt;of&gt; the voxels.") < html.index("<img")
    assert "Improved, with 1 warning" in html


def test_names_are_data(result: RegistrationResult) -> None:
    named = replace(result, fixed=replace(result.fixed, name=HOSTILE, notes=(f"{HOSTILE}: odd",)))
    page = Page(result_html(named))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "</script> " in page.text


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.uint16, torch.float16, torch.bfloat16]
)
def test_values_of_any_type(dtype: torch.dtype) -> None:
    data = (torch.arange(35).reshape(1, 5, 7) > 12).to(torch.float32).to(dtype)
    image = Image(data, Grid.regular((5, 7)), "map")
    assert f"{str(dtype).removeprefix('torch.')}" in repr(image)


@pytest.mark.parametrize(
    "data",
    [torch.full((1, 5, 7), torch.nan), torch.zeros(0, 5, 7), torch.zeros(1, 5, 7, dtype=torch.complex64), torch.ones(1, 5, 7)],
    ids=["nan", "no channels", "complex", "constant"],
)
def test_odd_images_have_words_too(data: torch.Tensor) -> None:
    assert repr(Image(data, Grid.regular((5, 7)), "odd")).startswith("<Image 'odd': 5 x 7 ")
