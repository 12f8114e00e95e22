from __future__ import annotations

import json
from typing import get_args

import pytest

from warpwright.config import to_mapping
from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.io import frames, points
from warpwright.methods import settings
from warpwright.product import choices
from warpwright.product.choice import SIMILARITIES, TRANSFORMS, Choice

GRID = Grid.regular((5, 7, 6), (0.7, 1.3, 2.1))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (choices.Kind, settings.TransformName),
        (choices.SimilarityName, settings.SimilarityName),
        (choices.Preset, settings.Preset),
        (choices.Initialise, settings.Initialise),
        (choices.Header, frames.Header),
        (choices.Space, points.Space),
    ],
)
def test_names_are_those_of_the_floors_below(ours, theirs):
    assert set(get_args(ours)) == set(get_args(theirs))


def test_every_name_that_a_file_may_use_is_offered():
    assert {*TRANSFORMS, "rigid", "affine"} == set(get_args(choices.Kind))
    assert set(SIMILARITIES.values()) == set(get_args(choices.SimilarityName))
    for kind, name in SIMILARITIES.items():
        assert to_mapping(Choice(similarity=name).settings(GRID))["similarity"]["kind"] == kind


def made(folder, text, suffix=".toml"):
    path = folder / f"c{suffix}"
    path.write_text(text)
    return path


@pytest.mark.parametrize("transform", ["rigid", "bspline"])
def test_the_result_of_an_earlier_run_is_a_file_of_settings(transform, tmp_path):
    earlier = Choice(transform=transform, similarity="mi", preset="fast", initialise="centre").settings(GRID)
    path = made(tmp_path, json.dumps({"verdict": {}, "settings": to_mapping(earlier), "seed": 0}), ".json")
    assert Choice(config=path).settings(GRID) == earlier
    assert Choice(config=path, transform=transform, similarity="mi", initialise="centre").settings(GRID) == earlier


def test_a_name_in_the_file_means_what_it_means_on_the_command_line(tmp_path):
    path = made(tmp_path, '[similarity]\nkind = "mutualinformation"\n[deformable]\nkind = "velocity"\n')
    assert Choice(config=path).settings(GRID) == Choice(transform="velocity", similarity="mi").settings(GRID)


def test_the_example_of_the_documentation(tmp_path):
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "start.md").read_text(encoding="utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    found = Choice(config=made(tmp_path, example)).settings(GRID)
    assert found.steps == (200, 200, 120, 80)
    assert found.deformable.gradient_sigma == 3.5


@pytest.mark.parametrize(
    ("flags", "text", "words"),
    [
        ({"similarity": "mi"}, '[similarity]\nkind = "mse"', "'similarity' is not what --similarity mi"),
        ({"transform": "greedy"}, '[deformable]\nkind = "velocity"', "'deformable' is not what --transform greedy"),
        ({"transform": "rigid"}, "[deformable]\ngradient_sigma = 1.0", "'deformable' is not what --transform rigid"),
        ({"transform": "rigid"}, '[[linear]]\nkind = "affine"', "'linear' is not what --transform rigid"),
        ({"initialise": "centre"}, 'start = "none"', "'start' is not what --initialise centre"),
        ({"initialise": "affine"}, '[[linear]]\nkind = "rigid"', "'linear' is not what --initialise affine"),
    ],
)
def test_a_flag_and_a_file_that_contradict_each_other(flags, text, words, tmp_path):
    path = made(tmp_path, text)
    with pytest.raises(BadInput, match=words) as error:
        Choice(config=path, **flags).settings(GRID)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "similarity = 3",
            ".similarity: expected a table with a key 'kind' (one of lncc, localcorrelation, mse, mutual",
        ),
        ('[similarity]\nkind = "mi"', "did you mean 'mutualinformation'?"),
        ("tolerance = nan", ".tolerance: expected a finite number, found nan"),
        ("tolerance = inf", ".tolerance: expected a finite number, found inf"),
        (f"tolerance = 1{'0' * 400}", ".tolerance: expected a finite number"),
        ('[similarity]\nkind = "mutualinformation"\nbins = 2', ".similarity: mutual information needs at least 5 bins"),
        ("steps = [1, 2]", ": settings"),
    ],
)
def test_nonsense_is_refused_with_file_and_key(text, words, tmp_path):
    path = made(tmp_path, text)
    with pytest.raises(BadInput) as error:
        Choice(config=path).settings(GRID)
    assert words in str(error.value)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("text", ["[intensities]\nweight = 1.0\n", "steps = [9, 9, 9, 9]\n[intensities]\n"])
def test_what_is_for_a_model_of_features_is_said_to_be(text, tmp_path):
    path = made(tmp_path, text)
    with pytest.raises(BadInput) as error:
        Choice(config=path).settings(GRID)
    assert str(error.value) == f"{path}: its 'intensities' is for a model of features: expected such a model, or no such key"
    assert Choice(config=path).settings(GRID, but=("intensities", "steps")) == Choice().settings(GRID)


def test_a_file_with_matching_goes_with_no_other_start(tmp_path):
    file = made(tmp_path, "[matching]\nreach = 0.2\n")
    grid = Grid.regular((20, 20))
    found = Choice(initialise="matching", config=file).settings(grid)
    assert found.matching is not None
    assert found.matching.reach == 0.2
    assert found.matching.measure == "correlation"
    alone = Choice(similarity="mind", config=file).settings(grid)
    assert alone == Choice(similarity="mind", initialise="matching", config=file).settings(grid)
    assert alone.matching is not None
    assert alone.matching.measure == "mind"
    with pytest.raises(BadInput, match="its 'matching' is not what --initialise affine asks for"):
        Choice(initialise="affine", config=file).settings(grid)
