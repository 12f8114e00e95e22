"""NIfTI and MGH: voxel order, geometry, its conflicts and notes, 2-D images, dtypes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from io_cases import make_grid, to_sitk, turn

from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import read_image, read_labels, write_image

SHAPE = (5, 7, 6)


def ramp(shape: tuple[int, ...], channels: int = 1) -> torch.Tensor:
    return torch.arange(channels * int(np.prod(shape)), dtype=torch.float32).reshape(channels, *shape)


def affine_of(angle: float) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = turn(3, angle) * np.array([0.7, 1.3, 2.1])
    out[:3, 3] = (-20, 30, 400)
    return out


def save(path: Path, data: np.ndarray, qform: np.ndarray | None, q: int, sform: np.ndarray | None, s: int) -> None:
    image = nib.Nifti1Image(data, np.eye(4), dtype=data.dtype)
    image.set_qform(qform, q)
    image.set_sform(sform, s)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".mgh"])
@pytest.mark.parametrize("kind", ["straight", "oblique", "flipped", "permuted"])
def test_round_trip(tmp_path: Path, dim: int, kind: str, suffix: str) -> None:
    grid = make_grid(kind, dim)
    image = Image(ramp(grid.shape, 1), grid, "image")
    write_image(tmp_path / f"a{suffix}", image)
    again = read_image(tmp_path / f"a{suffix}")
    assert torch.equal(again.data, image.data)
    assert again.data.dtype == torch.float32
    assert again.grid.same_as(grid)
    assert again.notes == ()


@pytest.mark.parametrize("kind", ["straight", "oblique", "flipped", "permuted"])
def test_simpleitk_sees_the_same_image_in_the_same_place(tmp_path: Path, dim: int, kind: str) -> None:
    grid = make_grid(kind, dim)
    image = Image(ramp(grid.shape), grid)
    write_image(tmp_path / "a.nii.gz", image)
    theirs, expected = sitk.ReadImage(str(tmp_path / "a.nii.gz")), to_sitk(image)
    assert theirs.GetSize() == grid.shape
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(theirs, get)(), getattr(expected, get)(), atol=1e-5)  # float32 headers
    np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs), sitk.GetArrayFromImage(expected))
    sitk.WriteImage(expected, str(tmp_path / "b.nii.gz"))
    again = read_image(tmp_path / "b.nii.gz")
    assert again.grid.same_as(grid)
    assert torch.equal(again.data, image.data)


def test_voxels_are_not_reordered(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    save(tmp_path / "a.nii", data, affine_of(0.3), 1, affine_of(0.3), 1)
    image = read_image(tmp_path / "a.nii")
    np.testing.assert_array_equal(image.data[0].numpy(), data)
    np.testing.assert_allclose(image.grid.affine, nib.load(tmp_path / "a.nii").affine)


def test_written_header(tmp_path: Path) -> None:
    write_image(tmp_path / "a.nii.gz", Image(ramp(SHAPE).double(), Grid(SHAPE, affine_of(0.5))))
    header = nib.load(tmp_path / "a.nii.gz").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)  # float32 quaternion
    assert header.get_xyzt_units()[0] == "mm"
    assert header.get_data_dtype() == np.float32
    assert header.get_slope_inter() in ((None, None), (1.0, 0.0))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_keep_their_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    labels = Image((ramp(SHAPE) % 7).to(dtype), Grid(SHAPE, affine_of(0.1)))
    write_image(tmp_path / "a.nii.gz", labels)
    again = read_labels(tmp_path / "a.nii.gz")
    assert again.data.dtype == dtype
    assert torch.equal(again.data, labels.data)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz"))).T, labels.data[0])


def test_unsigned_and_big_endian_labels_are_read(tmp_path: Path) -> None:
    values = (np.arange(210).reshape(SHAPE) * 300).astype(">u2")
    image = nib.Nifti1Image(values, np.eye(4), nib.Nifti1Header(endianness=">"), dtype=values.dtype)
    nib.save(image, tmp_path / "a.nii")
    labels = read_labels(tmp_path / "a.nii")
    assert labels.data.dtype == torch.int32
    np.testing.assert_array_equal(labels.data[0].numpy(), values)


def test_scaled_integers_are_intensities(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(210, dtype=np.int16).reshape(SHAPE), np.eye(4))
    image.header.set_slope_inter(0.5, -1)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "a.nii.gz")
    expected = nib.load(tmp_path / "a.nii.gz").get_fdata()
    np.testing.assert_allclose(read_image(tmp_path / "a.nii.gz").data[0].numpy(), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_fourth_axis_is_channels(tmp_path: Path, dim: int, channels: int) -> None:
    grid = make_grid("oblique", dim)
    image = Image(ramp(grid.shape, channels), grid)
    write_image(tmp_path / "a.nii.gz", image)
    again = read_image(tmp_path / "a.nii.gz")
    assert torch.equal(again.data, image.data)
    assert again.grid.same_as(grid)
    if channels > 1:
        stored = nib.load(tmp_path / "a.nii.gz")
        assert stored.shape == (*(*grid.shape, 1, 1)[:3], channels)
        np.testing.assert_array_equal(np.asarray(stored.dataobj)[..., 1].squeeze(), image.data[1].numpy())


def test_colours_of_a_nifti_are_channels(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
    data = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")]).reshape(SHAPE)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").data.numpy(), np.moveaxis(colours, -1, 0))


@pytest.mark.parametrize("flat", [(5, 7), (5, 7, 1)])
def test_one_slice_is_a_2d_image_in_its_place(tmp_path: Path, flat: tuple[int, ...]) -> None:
    affine = np.eye(4)
    affine[:2, :2] = turn(2, 0.3) @ np.diag([-0.7, 1.3])
    affine[:2, 3] = (4, -5)
    data = np.arange(35, dtype=np.float32).reshape(flat)
    save(tmp_path / "a.nii.gz", data, affine, 1, affine, 1)
    image = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.data[0].numpy(), data.reshape(5, 7))
    np.testing.assert_allclose(image.grid.affine, affine[np.ix_([0, 1, 3], [0, 1, 3])], atol=1e-6)  # float32 header
    assert image.notes == ()
    write_image(tmp_path / "b.nii.gz", image)
    again = read_image(tmp_path / "b.nii.gz")
    assert torch.equal(again.data, image.data)
    assert again.grid.same_as(image.grid)


def test_slice_at_a_height_says_so(tmp_path: Path) -> None:
    affine = np.diag([0.7, 1.3, 2.0, 1.0])
    affine[2, 3] = 35
    save(tmp_path / "a.nii.gz", np.zeros((5, 7, 1), np.float32), affine, 1, affine, 1)
    assert "z = 35.000 mm" in read_image(tmp_path / "a.nii.gz").notes[0]


def test_oblique_slice_keeps_its_voxel_sizes_only(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", np.zeros((5, 7, 1), np.float32), None, 0, affine_of(0.6), 1)
    image = read_image(tmp_path / "a.nii.gz")
    assert image.grid.same_as(Grid.regular((5, 7), (0.7, 1.3)))
    assert "not across the z axis" in image.notes[0]


@pytest.mark.parametrize(("q", "s", "itk"), [(1, 1, "sform"), (1, 4, "qform"), (2, 3, "qform"), (2, 1, "sform")])
def test_conflict_of_qform_and_sform(tmp_path: Path, q: int, s: int, itk: str) -> None:
    path, qform, sform = tmp_path / "a.nii.gz", affine_of(0.2), affine_of(0.2)
    sform[0, 3] += 7
    save(path, ramp(SHAPE)[0].numpy(), qform, q, sform, s)
    with pytest.raises(
        BadInput, match=r"a\.nii\.gz: its qform and sform differ by up to 7 mm .*--header sform or --header qform"
    ) as e:
        read_image(path)
    assert f"Slicer {'also ' if itk == 'sform' else ''}the {itk}" in str(e.value)
    assert "\n" not in str(e.value)
    sides = {"sform": read_image(path, header="sform"), "qform": read_image(path, header="qform")}
    np.testing.assert_allclose(sides["sform"].grid.affine, sform, atol=1e-4)  # float32 header
    np.testing.assert_allclose(sides["qform"].grid.affine, qform, atol=1e-4)
    assert "used the qform" in sides["qform"].notes[0]
    by_itk = sitk.ReadImage(str(path)).GetOrigin()
    np.testing.assert_allclose(by_itk, np.array([-1, -1, 1]) * sides[itk].grid.origin, atol=1e-4)


def test_rounding_of_a_quaternion_near_half_a_turn_is_no_conflict(tmp_path: Path) -> None:
    """The real part of a stored quaternion is a remainder: near half a turn its error moves corners by 0.1 mm."""
    rng, worst = np.random.default_rng(2), 0.0
    shape = (4, 4, 4)
    for _ in range(200):
        affine = np.eye(4)
        affine[:3, :3] = turn(3, 0.01 * rng.normal()) @ np.diag([-60.0, -60.0, 60.0])
        affine[:3, 3] = rng.normal(size=3) * 100
        grid = Grid(shape, affine)
        write_image(tmp_path / "a.nii", Image(ramp(shape), grid))
        header = nib.load(tmp_path / "a.nii").header
        worst = max(worst, grid.corner_distance(header.get_qform()))
        assert read_image(tmp_path / "a.nii").grid.corner_distance(affine) < 1e-3
    assert worst > 1e-2  # else this test shows nothing


@pytest.mark.parametrize(("q", "s"), [(1, 0), (0, 2)])
def test_one_form_alone_is_used(tmp_path: Path, q: int, s: int) -> None:
    save(tmp_path / "a.nii.gz", ramp(SHAPE)[0].numpy(), affine_of(0.2) if q else None, q, affine_of(-0.4) if s else None, s)
    image = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(image.grid.affine, affine_of(0.2 if q else -0.4), atol=1e-4)  # float32 header
    assert image.notes == ()


def test_neither_form_is_said(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", ramp(SHAPE)[0].numpy(), None, 0, None, 0)
    image = read_image(tmp_path / "a.nii.gz")
    assert "neither qform nor sform" in image.notes[0]
    np.testing.assert_allclose(image.grid.affine, nib.load(tmp_path / "a.nii.gz").affine)


def test_shear_is_a_note_and_survives_a_round_trip(tmp_path: Path) -> None:
    grid = make_grid("sheared", 3)
    write_image(tmp_path / "a.nii.gz", Image(ramp(grid.shape), grid))
    again = read_image(tmp_path / "a.nii.gz")
    assert again.grid.same_as(grid)
    assert "sheared" in again.notes[0]
    header = nib.load(tmp_path / "a.nii.gz").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 1)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(tmp_path / "a.nii.gz"))


@pytest.mark.parametrize("unit", ["meter", "micron"])
def test_other_units_are_refused(tmp_path: Path, unit: str) -> None:
    image = nib.Nifti1Image(ramp(SHAPE)[0].numpy(), np.eye(4))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(BadInput, match=rf"a\.nii\.gz: its header gives lengths in {unit}, mm was expected"):
        read_image(tmp_path / "a.nii.gz")


def test_singular_affine_is_refused(tmp_path: Path) -> None:
    affine = affine_of(0.2)
    affine[:3, 2] = affine[:3, 1]
    save(tmp_path / "a.nii.gz", ramp(SHAPE)[0].numpy(), None, 0, affine, 1)
    with pytest.raises(BadInput, match=r"a\.nii\.gz: the affine of a grid must be invertible"):
        read_image(tmp_path / "a.nii.gz")


def test_mgh_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    labels = Image(ramp(SHAPE).long(), Grid(SHAPE, affine_of(0.1)))
    with pytest.raises(BadInput, match=r"a\.mgz: its format cannot hold int64"):
        write_image(tmp_path / "a.mgz", labels)
    assert list(tmp_path.iterdir()) == []


def test_same_image_gives_the_same_bytes(tmp_path: Path) -> None:
    image = Image(ramp(SHAPE), Grid(SHAPE, affine_of(0.1)))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_image(tmp_path / name, image)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
