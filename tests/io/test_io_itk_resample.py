"""Transforms written here and used by SimpleITK give the image that `resample` gives; what SimpleITK writes is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from io_cases import (
    SHAPE,
    around,
    dense,
    make_affine,
    make_grid,
    make_transform,
    sitk_points,
    smooth_image,
    smooth_vectors,
    some_points,
    to_sitk,
)

from warpwright.geometry import Grid, Image, identity_points
from warpwright.io import read_ants, read_transform, write_ants, write_transform
from warpwright.transforms import DisplacementField, Transform, resample

GRIDS = ("straight", "oblique", "flipped", "permuted")
KINDS = ("affine", "displacement", "inverse", "velocity", "spline", "three")


def in_view(transform: Transform, fixed: Grid, moving: Grid) -> np.ndarray:
    """Which fixed voxels are mapped between the outermost centres of the moving image."""
    voxels = identity_points(fixed.shape, dtype=torch.float64, device=torch.device("cpu"))[0].flatten(1).T
    at = moving.to_voxel(transform(fixed.to_world(voxels))).numpy()
    return ((at > 0) & (at < np.array(moving.shape) - 1)).all(1).reshape(fixed.shape)


def assert_same_image(by_itk: sitk.Transform, transform: Transform, fixed: Grid, moving: Image) -> None:
    reference = to_sitk(Image(torch.zeros(1, *fixed.shape), fixed))
    theirs = sitk.GetArrayFromImage(sitk.Resample(to_sitk(moving), reference, by_itk, sitk.sitkLinear, 0.0)).T
    ours = resample(moving, transform, fixed).data[0].numpy()
    view = in_view(transform, fixed, moving.grid)
    assert view.mean() > 0.7
    assert np.abs(theirs - ours)[view].max() < 1e-3 * 100  # of the range 100: float32 fields and images


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS)
def test_composite_file_resamples_alike_in_simpleitk(tmp_path: Path, dim: int, grid: str, kind: str) -> None:
    fixed = make_grid(grid, dim)
    moving = smooth_image(around(fixed, 0.35))
    transform = make_transform(kind, fixed)
    write_transform(tmp_path / "t.h5", transform)
    assert_same_image(sitk.ReadTransform(str(tmp_path / "t.h5")), dense(transform), fixed, moving)
    assert_same_image(sitk.ReadTransform(str(tmp_path / "t.h5")), read_transform(tmp_path / "t.h5"), fixed, moving)


@pytest.mark.parametrize("kind", KINDS)
def test_composite_file_is_read_back_as_the_same_map(tmp_path: Path, dim: int, kind: str) -> None:
    fixed = make_grid("oblique", dim)
    transform = make_transform(kind, fixed)
    write_transform(tmp_path / "t.h5", transform)
    points = some_points(fixed)
    again = read_transform(tmp_path / "t.h5")(points)
    torch.testing.assert_close(again, dense(transform)(points), atol=1e-4, rtol=0)  # mm; fields are float32


def test_affine_and_field_are_written_as_they_are(tmp_path: Path, dim: int) -> None:
    fixed = make_grid("flipped", dim)
    write_transform(tmp_path / "t.h5", make_transform("displacement", fixed))
    composite = sitk.CompositeTransform(sitk.ReadTransform(str(tmp_path / "t.h5")))
    assert [composite.GetNthTransform(k).GetTransformEnum() for k in (0, 1)] == [sitk.sitkAffine, sitk.sitkDisplacementField]
    signs = np.array([-1.0, -1.0, 1.0])[:dim]
    matrix = np.diag([*signs, 1.0]) @ make_affine(fixed).matrix @ np.diag([*signs, 1.0])
    written = composite.GetNthTransform(0).GetParameters()
    np.testing.assert_allclose(written, np.concatenate([matrix[:dim, :dim].ravel(), matrix[:dim, dim]]), atol=1e-12)


def test_velocity_file_matches_its_own_displacement(tmp_path: Path, dim: int) -> None:
    fixed = make_grid("permuted", dim)
    transform = make_transform("velocity", fixed)
    write_transform(tmp_path / "t.h5", transform)
    points = some_points(fixed)
    by_itk = sitk_points(sitk.ReadTransform(str(tmp_path / "t.h5")), points)
    torch.testing.assert_close(by_itk, transform(points), atol=1e-4, rtol=0)  # mm; fields are float32


def test_sheared_field_in_a_composite_is_exact_for_simpleitk(tmp_path: Path, dim: int) -> None:
    fixed = make_grid("sheared", dim)
    transform = make_transform("displacement", fixed)
    write_transform(tmp_path / "t.h5", transform)
    points = some_points(fixed)
    by_itk = sitk_points(sitk.ReadTransform(str(tmp_path / "t.h5")), points)
    torch.testing.assert_close(by_itk, transform(points), atol=1e-4, rtol=0)  # mm; fields are float32


@pytest.mark.parametrize("grid", GRIDS)
def test_ants_files_resample_alike_in_simpleitk(tmp_path: Path, dim: int, grid: str) -> None:
    fixed = make_grid(grid, dim)
    moving = smooth_image(around(fixed, 0.35))
    transform = make_transform("displacement", fixed)
    affine, warp, _ = write_ants(tmp_path / "reg_", transform)
    composite = sitk.CompositeTransform(dim)
    composite.AddTransform(sitk.ReadTransform(str(affine)))
    composite.AddTransform(sitk.DisplacementFieldTransform(sitk.ReadImage(str(warp), sitk.sitkVectorFloat64)))
    assert_same_image(composite, transform, fixed, moving)
    points = some_points(fixed)
    for again in (read_ants(tmp_path / "reg_"), read_transform(tmp_path / "reg_")):
        torch.testing.assert_close(again(points), transform(points), atol=1e-4, rtol=0)  # mm; float32 file


def test_ants_inverse_files_undo_the_forward_ones(tmp_path: Path, dim: int) -> None:
    fixed = make_grid("oblique", dim)
    transform = make_transform("displacement", fixed)
    write_ants(tmp_path / "reg_", transform)
    inner = torch.from_numpy(np.random.default_rng(6).integers(4, 8, (40, dim)).astype(np.float64))
    points = make_affine(fixed)(fixed.to_world(inner))  # the inverse warp is read at its voxels, where it was solved
    back = read_ants(tmp_path / "reg_")(read_ants(tmp_path / "reg_", inverse=True)(points))
    assert (back - points).norm(dim=1).max() < 1e-2  # mm: `invert` stops at a residual of 1e-3 voxel
    assert (transform(points) - points).norm(dim=1).max() > 1


def test_ants_prefix_without_a_warp_or_without_an_affine(tmp_path: Path) -> None:
    fixed = make_grid("oblique", 3)
    points = some_points(fixed)
    affine = make_affine(fixed)
    write_transform(tmp_path / "a_0GenericAffine.mat", affine)
    torch.testing.assert_close(read_transform(tmp_path / "a_")(points), affine(points))
    torch.testing.assert_close(read_ants(tmp_path / "a_", inverse=True)(points), affine.inverse()(points))
    field = DisplacementField(smooth_vectors(SHAPE, 1.0, 7), fixed)
    write_transform(tmp_path / "b_1Warp.nii.gz", field)
    torch.testing.assert_close(read_transform(tmp_path / "b_")(points), field(points), atol=1e-5, rtol=0)  # float32 file


def centred_affine(dim: int) -> sitk.Transform:
    out = sitk.AffineTransform(dim)
    out.SetMatrix((turn_matrix := np.eye(dim) + 0.1 * np.arange(dim * dim).reshape(dim, dim) / dim).ravel().tolist())
    out.SetTranslation([1.5, -2.5, 3.5][:dim])
    out.SetCenter([10.0, 20.0, -30.0][:dim])
    assert abs(np.linalg.det(turn_matrix)) > 0.1
    return out


def linear_transforms() -> list[sitk.Transform]:
    euler = sitk.Euler3DTransform((5.0, 6.0, 7.0), 0.1, -0.2, 0.3, (1.0, 2.0, 3.0))
    versor = sitk.VersorRigid3DTransform((0.2, 0.1, 0.5), 0.4, (4.0, 5.0, 6.0), (7.0, 8.0, 9.0))
    similarity = sitk.Similarity3DTransform()
    similarity.SetParameters((0.1, 0.05, -0.1, 3.0, 2.0, 1.0, 1.2))
    plane = sitk.Euler2DTransform((3.0, -4.0), 0.7, (1.0, 2.0))
    move = sitk.TranslationTransform(3, (1.0, -2.0, 3.0))
    scale = sitk.ScaleTransform(2, (1.1, 0.8))
    return [centred_affine(2), centred_affine(3), euler, versor, similarity, plane, move, scale]


@pytest.mark.parametrize("suffix", ["h5", "tfm", "txt", "mat"])
@pytest.mark.parametrize("transform", linear_transforms(), ids=lambda t: f"{t.GetName()}{t.GetDimension()}")
def test_linear_files_of_simpleitk_are_read(tmp_path: Path, transform: sitk.Transform, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    sitk.WriteTransform(transform, str(path))
    points = some_points(make_grid("oblique", transform.GetDimension()))
    torch.testing.assert_close(read_transform(path)(points), sitk_points(transform, points), atol=1e-9, rtol=0)


def test_identity_file_of_simpleitk_is_read(tmp_path: Path, dim: int) -> None:
    sitk.WriteTransform(sitk.Transform(dim, sitk.sitkIdentity), str(tmp_path / "t.h5"))
    points = some_points(make_grid("oblique", dim))
    torch.testing.assert_close(read_transform(tmp_path / "t.h5")(points), points)


def test_double_composite_of_simpleitk_is_read(tmp_path: Path, dim: int) -> None:
    fixed = make_grid("flipped", dim)
    vectors = smooth_vectors(fixed.shape, 3.0, 8).numpy().astype(np.float64)
    field = sitk.GetImageFromArray(np.ascontiguousarray(vectors.T), isVector=True)
    field.CopyInformation(to_sitk(Image(torch.zeros(1, *fixed.shape), fixed)))
    composite = sitk.CompositeTransform([centred_affine(dim), sitk.DisplacementFieldTransform(field), centred_affine(dim)])
    sitk.WriteTransform(composite, str(tmp_path / "t.h5"))
    points = some_points(fixed, seed=9)
    torch.testing.assert_close(
        read_transform(tmp_path / "t.h5")(points), sitk_points(composite, points), atol=1e-4, rtol=0
    )  # mm; the field becomes float32


@pytest.mark.parametrize("suffix", ["h5", "tfm", "txt", "mat"])
def test_affine_files_are_the_same_map_in_simpleitk(tmp_path: Path, dim: int, suffix: str) -> None:
    affine = make_affine(make_grid("oblique", dim))
    write_transform(tmp_path / f"t.{suffix}", affine)
    points = some_points(make_grid("oblique", dim))
    by_itk = sitk_points(sitk.ReadTransform(str(tmp_path / f"t.{suffix}")), points)
    torch.testing.assert_close(by_itk, affine(points), atol=1e-9, rtol=0)
    torch.testing.assert_close(read_transform(tmp_path / f"t.{suffix}")(points), affine(points), atol=1e-9, rtol=0)
