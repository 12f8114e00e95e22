"""The volumes of an interactive report: true to the images, within the limit, and the viewer as it came."""

from __future__ import annotations

import base64
import gzip
import hashlib
from importlib import resources
from typing import Any, cast

import nibabel as nib
import numpy as np
import pytest
import torch

from warpwright.geometry import Grid, Image
from warpwright.product.photographs import Seen
from warpwright.product.report.planes import Scales, scales
from warpwright.product.report.run import Run
from warpwright.product.report.volumes import ROOM, Viewer, viewer
from warpwright.transforms import Affine, DisplacementField, resample

VENDORED = resources.files("warpwright.product.report") / "vendor" / "niivue"
OBLIQUE = np.array([[0.0, -1.2, 0.42, 5.0], [1.5, 0.0, 0.0, -3.0], [0.0, 0.35, 1.44, 11.0], [0, 0, 0, 1.0]])


def run_of(fixed: Image, moving: Image, transform: Any) -> Run:
    parts = {"record": None, "inverse": None, "colours": None, "jacobian": fixed, "score": None, "labels": None, "points": None}
    still = Affine.identity(fixed.grid.dim)
    return Run(fixed=Seen(image=fixed), moving=Seen(image=moving), initial=still, transform=transform, **cast(Any, parts))


def smooth(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    return torch.tensor(sum(np.sin(axis * rng.uniform(1, 3) + rng.uniform(0, 3)) for axis in axes)[None] * 100).float()


def made(shape: tuple[int, ...] = (14, 12, 10)) -> tuple[Run, Scales]:
    grid = Grid(shape, OBLIQUE)
    field = DisplacementField(torch.full((3, *shape), 1.25), grid)
    run = run_of(Image(smooth(shape, 0), grid), Image(smooth(shape, 1), grid), field)
    return run, scales(run, ())


def read(found: Viewer) -> dict[str, nib.Nifti1Image]:
    return {name: nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text))) for name, text in found.files}


def size(found: Viewer) -> int:
    return sum(len(text) for text in (found.library, found.script, found.licence, *(text for _, text in found.files)))


def test_files_hold_the_images_on_the_fixed_grid():
    run, shades = made()
    found = viewer(run, shades, 10_000_000)
    assert (found.levels, found.factor) == (256, 1)
    grid, moving = run.fixed.image.grid, run.moving.image
    expected = {"fixed": run.fixed.image.data[0].numpy(), "before": moving.data[0].numpy()}
    expected["moved"] = resample(moving, run.transform, grid, background=float(moving.data.min())).data[0].numpy()
    files = read(found)
    assert set(files) == set(expected)
    for name, file in files.items():
        low, high = shades.fixed if name == "fixed" else shades.moving
        assert np.allclose(file.affine, grid.affine, atol=1e-5)
        assert np.abs(file.get_fdata() - expected[name].clip(low, high)).max() <= 0.51 * (high - low) / 255
        assert (file.header["cal_min"], file.header["cal_max"]) == pytest.approx((low, high), rel=1e-5)
        assert file.get_data_dtype() == np.uint8
    assert viewer(run, shades, 10_000_000) == found  # the same for the same images


def test_noise_is_held_in_fewer_shades_and_then_in_fewer_voxels():
    grid = Grid.regular((40, 36, 30))
    noise = [Image(torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(k)), grid) for k in (0, 1)]
    run = run_of(noise[0], noise[1], Affine.identity(3))
    shades = scales(run, ())
    whole = viewer(run, shades, 10_000_000)
    fixed_part = size(whole) - sum(len(text) for _, text in whole.files)
    assert (whole.levels, whole.factor) == (256, 1)
    last = size(whole)
    for share, levels, factor in ((0.8, 64, 1), (0.6, 16, 1), (0.1, 256, 2)):
        limit = fixed_part + int(share * (size(whole) - fixed_part))
        found = viewer(run, shades, limit + ROOM)
        assert size(found) <= limit
        assert size(found) < last
        last = size(found)
        assert found.levels <= levels * 2
        assert found.factor == factor
        file = read(found)["fixed"]
        assert len(np.unique(np.asarray(file.dataobj))) <= found.levels
        assert file.shape == tuple(-(-n // factor) for n in grid.shape)
        corner = nib.affines.apply_affine(file.affine, np.array(file.shape) / 2 - 0.5)
        assert np.allclose(corner, grid.centre)  # it lies where the image lies


def test_the_viewer_is_the_file_that_its_note_names():
    script = gzip.decompress((VENDORED / "niivue.umd.js.gz").read_bytes())
    assert hashlib.sha256(script).hexdigest() in (VENDORED / "README.md").read_text()
    text = script.decode("utf-8").lower()
    assert "</script" not in text  # which would end the element that holds it
    assert "<!--" not in text
    assert "Copyright (c) 2021, Niivue" in (VENDORED / "LICENSE").read_text()
    assert viewer(*made((8, 8, 8)), 10_000_000).library == script.decode("utf-8")
