"""What can be known of containers without an engine that builds them."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from warpwright.geometry import Grid, Image
from warpwright.io import write_image

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "containers"
INSTRUCTIONS = ("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "USER", "WORKDIR")


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (PLACE / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions of every stage with those of the stages that it is built on."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = list(found.get(base, []))
        if name:
            found[name].append((word, rest))
    return found


def test_every_instruction_is_one() -> None:
    assert {word for word, _ in instructions()} <= set(INSTRUCTIONS)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_a_target_installs_runs_without_rights_and_has_an_entry(target: str) -> None:
    stage = stages()[target]
    words = [word for word, _ in stage]
    users = [rest for word, rest in stage if word == "USER"]
    assert users == ["warpwright"]
    assert any(f"useradd --create-home --uid 1000 {users[0]}" in rest for word, rest in stage if word == "RUN")
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert [json.loads(rest) for word, rest in stage if word == "ENTRYPOINT"] == [["warpwright"]]
    installs = [rest for word, rest in stage if word == "RUN" and "pip install" in rest]
    assert len(installs) == 1
    assert "-c constraints.txt" in installs[0]


def test_what_is_copied_is_there_and_sent() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    for word, rest in instructions():
        if word == "COPY":
            *sources, _ = shlex.split(rest)
            for source in sources:
                assert (ROOT / source).exists()
                assert f"!{source.split('/')[0]}" in ignored


def test_the_files_hold_no_address() -> None:
    for path in PLACE.iterdir():
        if path.is_file():
            assert "://" not in path.read_text().replace("docker-daemon://", "")


def asked(*arguments: str) -> list[str]:
    return runpy.run_path(str(PLACE / "bids_app.py"))["command"](arguments)


def test_arguments_of_a_bids_app_become_those_of_a_cohort() -> None:
    labels = ["--participant-label", "01", "sub-02", "--session_label", "a"]
    assert asked("in", "out", "participant", *labels, "--fixed", "a.nii.gz", "--n-cpus", "3", "--report") == [
        *("cohort", "in", "--output", "out", "--bids", "suffix=T1w,sub=01|02,ses=a"),
        *("--fixed", "a.nii.gz", "--workers", "3", "--report"),
    ]
    assert asked("in", "out", "participant")[-1] == "--sessions"
    with pytest.raises(SystemExit) as error:
        asked("in", "out", "group")
    assert error.value.code == 2


def test_a_bids_app_registers_the_people_that_are_named(tmp_path: Path) -> None:
    grid, rng = Grid.regular((18, 20), (1.0, 1.2)), np.random.default_rng(0)
    for subject in ("01", "02", "03"):
        folder = tmp_path / "bids" / f"sub-{subject}" / "anat"
        folder.mkdir(parents=True)
        image = torch.nn.functional.interpolate(torch.from_numpy(rng.uniform(size=(1, 1, 5, 5))), (18, 20), mode="bicubic")
        write_image(folder / f"sub-{subject}_T1w.nii.gz", Image(image[0].float(), grid))
    write_image(tmp_path / "atlas.nii.gz", Image(torch.rand(1, 18, 20), grid))
    (tmp_path / "settings.toml").write_text("steps = [2]\nlevels = [1]\nlinear = []\nstart = 'none'\n")
    run = [sys.executable, str(PLACE / "bids_app.py"), "bids", "out", "participant", "--participant-label", "01", "03"]
    more = ["--fixed", "atlas.nii.gz", "--n-cpus", "1", "--preset", "fast", "--config", "settings.toml", "--no-figures"]
    done = subprocess.run([*run, *more], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warpwright cohort bids --output out --bids 'suffix=T1w,sub=01|03' --fixed atlas.nii.gz")
    assert (tmp_path / "out/dataset_description.json").is_file()
    transforms = sorted(path.name for path in (tmp_path / "out").rglob("*from-T1w*xfm.h5"))
    assert transforms == ["sub-01_from-T1w_to-atlas_mode-image_xfm.h5", "sub-03_from-T1w_to-atlas_mode-image_xfm.h5"]
