"""A folder that holds every file that the pages name, small enough for each command to take a moment."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture

from warpwright import Affine, Grid, Image, Points, write_image, write_points, write_transform
from warpwright.cli.main import main

SHAPE, SPACING = (20, 24, 16), (1.0, 0.9, 1.2)
MODELS = {"dio.md": "hippocampus-features"}  # what `run/model` is, where a page does not train it itself
# what is put behind a file of settings for a training, so that it is over at once
TINY = """
[model.network]
kind = "voxelmorph"
scale = 0.1
[[model.loss]]
kind = "images"
similarity = { kind = "mse" }
[[model.loss]]
kind = "smoothness"
on = "velocity"
weight = 0.1
[validation]
every = 2
[scheme.weighting]
kind = "adaptivescoring"
scale = 0.1
warmup = 0.0
"""
TINY_STEPS = "".join(
    f"\n[model.network.{name}]\nscale = 0.02" for name in ("first.network.first.network", "first.network.second", "second")
)
TINY_STAGE = "".join(
    f"\n[model.network.{name}]\nscale = 0.02"
    for name in ("first.first.network.first.network", "first.first.network.second", "first.second", "second")
)


def scene(shift: float, seed: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Intensities (1, *S) and labels of blobs, moved along the first axis by voxels and a little apart."""
    rng = np.random.default_rng(seed)
    at = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")).astype(float)
    value, labels = np.full(SHAPE, 2.0), np.zeros(SHAPE, np.int16)
    for number in range(10):
        place = rng.uniform(4, np.array(SHAPE) - 4.0) + np.array([shift, 0.2 * shift * (number % 3), 0.0])
        distance = ((at - place.reshape(3, 1, 1, 1)) ** 2).sum(0)
        value += rng.uniform(40, 100) * np.exp(-distance / 14)
        if number < 2:
            labels[distance < 12] = number + 1
    return torch.from_numpy(value).float()[None], torch.from_numpy(labels)[None]


def fundus(shift: float) -> np.ndarray:
    """(96, 96, 3) bytes: a bright disc with dark vessels."""
    y, x = np.meshgrid(np.arange(96.0), np.arange(96.0), indexing="ij")
    inside = (x - 48) ** 2 + (y - 48) ** 2 < 44**2
    u, v = x - 48 - shift, y - 48 - 0.5 * shift
    vessels = sum(np.exp(-((v - a * u - b * np.sin(u / 9)) ** 2) / 5) for a, b in ((0.3, 6), (-0.8, 4), (2.0, 8)))
    grey = inside * (150 - 90 * np.clip(vessels, 0, 1))
    return np.stack([1.3 * grey, grey, 0.5 * grey], -1).astype(np.uint8)


def write_files(folder: Path) -> None:
    """Images, labels, masks, points, pictures, a table, images to learn from."""
    grid = Grid.regular(SHAPE, SPACING)
    for names, shift in ((("fixed", "t1", "image"), 0.0), (("moving", "t2", "other", "other_channel"), 1.5)):
        image, labels = scene(shift)
        for name in names:
            write_image(folder / f"{name}.nii.gz", Image(image, grid))
        write_image(folder / f"{names[0]}_labels.nii.gz", Image(labels, grid))
        write_image(folder / f"{names[0]}_mask.nii.gz", Image(torch.ones(1, *SHAPE), grid))
    places = grid.to_world(torch.tensor([[6.0, 8, 5], [9, 14, 8], [13, 10, 10]], dtype=torch.float64))
    names = ("a", "b", "c")
    write_points(folder / "fixed.csv", Points(places, names), "ras")
    write_points(folder / "moving.csv", Points(places + torch.tensor([1.0, 0, 0]), names), "ras")
    write_points(folder / "lesions.csv", Points(places, names), "lps")
    write_points(folder / "lesions.mrk.json", Points(places, names), "lps")
    nudge = np.eye(4)
    nudge[0, 3] = 1.0
    write_transform(folder / "by_hand.tfm", Affine(nudge))
    for name, shift in (("fixed.jpg", 0), ("left.jpg", 0), ("moving.jpg", 3), ("right.jpg", 3), ("angiogram.png", 3)):
        Picture.fromarray(fundus(shift)).save(folder / name)
    Picture.fromarray((fundus(3)[..., 1] < 100).astype(np.uint8)).save(folder / "vessels.png")
    (folder / "my_images").mkdir()
    for seed in range(8):
        write_image(folder / "my_images" / f"{seed}.nii.gz", Image(scene(0.0, seed)[0], grid))
    (folder / "images").mkdir()
    for name in ("fixed", "moving"):
        shutil.copy(folder / f"{name}.nii.gz", folder / "images")
    (folder / "anna").mkdir()
    for day, side in ((1, "fixed"), (2, "moving")):
        shutil.copy(folder / f"{side}.nii.gz", folder / "anna" / f"day{day}.nii.gz")
        shutil.copy(folder / f"{side}_labels.nii.gz", folder / "anna" / f"day{day}_seg.nii.gz")
    (folder / "pairs.csv").write_text(
        "id,fixed,moving,fixed_labels,moving_labels,group\n"
        "anna,anna/day1.nii.gz,anna/day2.nii.gz,anna/day1_seg.nii.gz,anna/day2_seg.nii.gz,site A\n"
    )
    shutil.copy(folder / "fixed.nii.gz", folder / "atlas.nii.gz")
    for day, side in ((1, "fixed"), (2, "moving")):
        place = folder / "BIDS" / "sub-01" / f"ses-{day}" / "anat"
        place.mkdir(parents=True)
        shutil.copy(folder / f"{side}.nii.gz", place / f"sub-01_ses-{day}_acq-mprage_T1w.nii.gz")
    names = [str(folder / f"{side}.nii.gz") for side in ("fixed", "moving")]
    assert main(["register", *names, "--output", str(folder / "result"), "--preset", "fast"]) == 0


def lay_model(page: str, folder: Path) -> None:
    """What the page takes for a model that was trained before."""
    shutil.copytree(str(files("warpwright.data") / "models" / MODELS.get(page, "hippocampus")), folder / "run" / "model")


def shrunk(text: str) -> str:
    """A page's file of settings, made small if it is one of a training."""
    if "[data]" not in text:
        return text
    for given, small in (
        ("steps = 10000", "steps = 2"),
        ("steps = 50000", "steps = 2\nbatch = 1"),
        ("[96, 112, 96]", "[16, 16, 16]"),
    ):
        text = text.replace(given, small)
    return text + (TINY_STEPS if "gradicon" in text else TINY)


def second_stage(text: str) -> str:
    """What gradicon.md says of stage_2.toml, in words: another preset, and the weights of stage 1."""
    whole = text.replace('preset = "gradicon"', 'preset = "gradicon-stage-2"\nweights = "stage_1/model"')
    assert whole != text
    return whole.replace(TINY_STEPS, TINY_STAGE)
