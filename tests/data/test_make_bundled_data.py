"""The script that makes the bundled files: voxel centres, scaling, headers, and the same bytes twice."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from warpwright.geometry import Grid

SCRIPT = Path(__file__).parents[2] / "tools/make_bundled_data.py"
OBLIQUE = np.array([[0.1, -1.2, 0.3, 5.0], [0.68, 0.2, 0.1, -7.0], [-0.1, 0.4, 2.0, 11.0], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_bundled_data", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("shape", "factors"), [((5, 7), (2, 2)), ((5, 7, 6), (2, 2, 1)), ((6, 9, 4), (3, 2, 2))])
def test_block_means_of_a_world_ramp_are_the_ramp(script: ModuleType, shape: tuple[int, ...], factors: tuple[int, ...]) -> None:
    dim = len(shape)
    affine = np.eye(dim + 1)
    affine[:dim] = OBLIQUE[:dim, [*range(dim), 3]]
    slope = np.array([0.3, -1.7, 0.9])[:dim]

    def ramp(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        voxels = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
        return (voxels @ affine[:dim, :dim].T + affine[:dim, dim]) @ slope

    values, grid = script.block_mean(ramp(affine, shape), Grid(shape, affine), factors)
    assert values.shape == grid.shape == tuple(n // k for n, k in zip(shape, factors, strict=True))
    np.testing.assert_allclose(values, ramp(grid.affine, grid.shape), atol=1e-12)


def test_scaling_to_bytes(script: ModuleType) -> None:
    assert script.to_bytes(np.array([3, 250], np.uint8)).tolist() == [3, 250]
    assert script.to_bytes(np.array([-10.0, 1010.0, 500.0])).tolist() == [0, 255, 128]


def test_written_volumes_are_the_same_bytes_and_keep_the_grid(script: ModuleType, tmp_path: Path) -> None:
    u, _, v = np.linalg.svd(OBLIQUE[:3, :3])
    affine = OBLIQUE.copy()
    affine[:3, :3] = u @ v * (0.7, 1.3, 2.1)  # a qform holds no shear
    values = np.arange(5 * 7 * 6, dtype=np.int16).reshape(5, 7, 6) - 100
    for name in ("a.nii.gz", "b.nii.gz"):
        script.write(tmp_path / name, values, affine)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    again = nib.load(tmp_path / "a.nii.gz")
    assert (np.asanyarray(again.dataobj) == values).all()
    np.testing.assert_allclose(again.affine, affine, atol=2e-6)  # float32 header
    assert again.header.get_xyzt_units()[0] == "mm"


def test_the_synthetic_warp_rotates_and_does_not_fold(script: ModuleType) -> None:
    points = script.synthetic_points((480, 499), np.random.default_rng(1))
    assert points.shape == (2, 480, 499)
    along = [np.diff(points, axis=axis + 1)[:, :479, :498] for axis in range(2)]
    determinant = along[0][0] * along[1][1] - along[0][1] * along[1][0]
    assert determinant.min() > 0.3
    turn = np.arctan2(along[0][1].mean(), along[0][0].mean())
    assert np.rad2deg(turn) == pytest.approx(script.ROTATION, abs=4)  # the bend turns a little too
