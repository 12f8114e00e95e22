from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from warpwright.config import from_mapping, merged, read_mapping, to_mapping
from warpwright.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class LNCC:
    window_mm: float = 3.0


@dataclass(frozen=True, kw_only=True)
class MI:
    bins: int = 32
    channels: tuple[LNCC | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stage:
    steps: int
    sigma: float | None = None
    name: Literal["coarse", "fine"] = "fine"

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise BadInput(f"steps must not be negative, got {self.steps}")


@dataclass(frozen=True, kw_only=True)
class Tree:
    similarity: LNCC | MI | None = LNCC()
    stages: tuple[Stage, ...] = (Stage(steps=3),)
    pair: tuple[int, float] = (1, 2.0)
    weights: dict[str, float] = field(default_factory=dict)
    fast: bool = False
    path: Path | None = None


TREE = Tree(
    similarity=MI(bins=8, channels=(LNCC(window_mm=1.5), None)),
    stages=(Stage(steps=1, sigma=0.5, name="coarse"), Stage(steps=2)),
    pair=(4, 0.25),
    weights={"a": 1.0},
    fast=True,
    path=Path("x/y"),
)


@pytest.mark.parametrize("tree", [Tree(), TREE, Tree(similarity=None)])
def test_round_trip_through_json(tree):
    assert from_mapping(Tree, json.loads(json.dumps(to_mapping(tree)))) == tree


def test_a_choice_carries_its_kind_and_a_single_table_none():
    assert to_mapping(TREE)["similarity"]["kind"] == "mi"
    assert "kind" not in to_mapping(TREE)["stages"][0]


def test_toml(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('fast = true\npair = [7, 1]\n[similarity]\nkind = "lncc"\nwindow_mm = 2\n[[stages]]\nsteps = 9\n')
    assert from_mapping(Tree, read_mapping(path)) == Tree(
        similarity=LNCC(window_mm=2.0), stages=(Stage(steps=9),), pair=(7, 1.0), fast=True
    )


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"stage": []}, ["unknown key 'stage'", "did you mean 'stages'"]),
        ({"zzzz": 1}, ["unknown key 'zzzz'", "similarity"]),
        ({"stages": [{"steps": 1}, {"step": 1}]}, ["cfg.stages[1]", "did you mean 'steps'"]),
        ({"stages": [{}]}, ["cfg.stages[0]", "'steps' is missing"]),
        ({"stages": [{"steps": True}]}, ["cfg.stages[0].steps", "a whole number", "True"]),
        ({"stages": [{"steps": 1.0}]}, ["a whole number", "1.0"]),
        ({"stages": [{"steps": 1, "sigma": "1e-4"}]}, ["cfg.stages[0].sigma", "a number or nothing"]),
        ({"stages": [{"steps": 1, "name": "find"}]}, ["'coarse' or 'fine'", "'find'"]),
        ({"stages": [{"steps": -1}]}, ["cfg.stages[0]", "negative"]),
        ({"stages": {"steps": 1}}, ["cfg.stages", "an array", "a table"]),
        ({"pair": [1, 2, 3]}, ["cfg.pair", "an array of 2"]),
        ({"similarity": {"kind": "lnc"}}, ["cfg.similarity.kind", "did you mean 'lncc'"]),
        ({"similarity": {"bins": 3}}, ["cfg.similarity.kind", "lncc, mi", "no such key"]),
        ({"similarity": {"kind": "mi", "window_mm": 3}}, ["cfg.similarity", "unknown key 'window_mm'"]),
        ({"weights": {"a": "b"}}, ["cfg.weights.a"]),
        ({"fast": 1}, ["true or false"]),
    ],
)
def test_bad_settings_are_named(mapping, words):
    with pytest.raises(BadInput) as error:
        from_mapping(Tree, mapping, "cfg")
    assert all(word in str(error.value) for word in words), str(error.value)


def test_merged_lays_tables_over_one_another():
    base = to_mapping(TREE)
    out = merged(base, {"similarity": {"bins": 5}, "fast": False})
    assert out["similarity"]["bins"] == 5
    assert out["similarity"]["channels"] == base["similarity"]["channels"]
    assert out["fast"] is False
    assert base["fast"] is True
    replaced = merged(base, {"similarity": {"kind": "lncc", "window_mm": 9.0}})
    assert from_mapping(Tree, replaced).similarity == LNCC(window_mm=9.0)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", "a = ", "not valid TOML"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[]", "a table"),
        ("a.yml", "", ".yml"),
    ],
)
def test_bad_files(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=words):
        read_mapping(tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        read_mapping(tmp_path / "a.toml")
