"""Other image formats, DICOM folders, labels, masks, and every bad image file of the issue."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from io_cases import make_grid, smooth_image, to_sitk

from oracles.dicom import write_slice
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import (
    check_on_grid,
    read_image,
    read_labels,
    read_mask,
    read_scalar,
    require_structure,
    write_image,
)


def one_sentence(error: BadInput, name: str) -> bool:
    return str(error).startswith(name) and "\n" not in str(error) and len(str(error)) < 600


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".tif"])
@pytest.mark.parametrize("kind", ["straight", "oblique", "flipped", "permuted"])
def test_round_trip_and_place_in_simpleitk(tmp_path: Path, dim: int, kind: str, suffix: str) -> None:
    image = smooth_image(make_grid(kind, dim))
    if suffix == ".tif" and dim > 2:
        with pytest.raises(BadInput, match="holds 2-D images"):
            write_image(tmp_path / "a.tif", image)
        return
    write_image(tmp_path / f"a{suffix}", image)
    again = read_image(tmp_path / f"a{suffix}")
    theirs = sitk.ReadImage(str(tmp_path / f"a{suffix}"))
    assert torch.equal(again.data, image.data)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs), image.data[0].numpy().T)
    np.testing.assert_allclose(again.grid.spacing, image.grid.spacing, rtol=1e-5 if suffix == ".tif" else 1e-12)
    if suffix in (".nrrd", ".mha"):  # a TIFF holds no direction
        assert again.grid.same_as(image.grid)
        np.testing.assert_allclose(theirs.GetDirection(), to_sitk(image).GetDirection(), atol=1e-9)
        np.testing.assert_allclose(theirs.GetOrigin(), to_sitk(image).GetOrigin(), atol=1e-9)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_channels_of_other_formats(tmp_path: Path, dim: int, suffix: str) -> None:
    grid = make_grid("oblique", dim)
    image = Image(torch.cat([smooth_image(grid, k).data for k in range(3)]), grid)
    write_image(tmp_path / f"a{suffix}", image)
    assert torch.equal(read_image(tmp_path / f"a{suffix}").data, image.data)


def test_volume_of_one_slice_in_another_format_is_2d(tmp_path: Path) -> None:
    flat = sitk.GetImageFromArray(np.arange(35, dtype=np.float32).reshape(1, 7, 5))
    flat.SetSpacing((0.7, 1.3, 4.0))
    sitk.WriteImage(flat, str(tmp_path / "a.nrrd"))
    image = read_image(tmp_path / "a.nrrd")
    assert image.grid.same_as(Grid((5, 7), np.diag([-0.7, -1.3, 1.0])))
    np.testing.assert_array_equal(image.data[0].numpy(), np.arange(35).reshape(7, 5).T)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_colour_picture_has_three_channels_and_is_no_scalar(tmp_path: Path, suffix: str) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (7, 5, 3), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / f"a{suffix}"))
    image = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(image.data.numpy(), colours.transpose(2, 1, 0))
    with pytest.raises(BadInput, match=r"a\.\w+: has 3 channels \(4-D or RGB\), an image of one channel was expected"):
        read_scalar(tmp_path / f"a{suffix}")


def test_picture_is_written_in_whole_numbers(tmp_path: Path) -> None:
    image = smooth_image(make_grid("straight", 2))
    write_image(tmp_path / "a.png", image)
    assert torch.equal(read_image(tmp_path / "a.png").data, image.data.round())
    with pytest.raises(BadInput, match=r"b\.png: a picture holds values from 0 to 255, these go from -200 to -100"):
        write_image(tmp_path / "b.png", Image(image.data - 200, image.grid))
    with pytest.raises(BadInput, match=r"b\.png: its format holds 2-D images"):
        write_image(tmp_path / "b.png", smooth_image(make_grid("straight", 3)))
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("suffix", [".tif", ".gipl", ".mhd", ".nhdr"])
def test_volumes_that_are_only_read(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    image = smooth_image(make_grid("straight", 3))
    sitk.WriteImage(sitk.Cast(to_sitk(image), sitk.sitkFloat32), str(tmp_path / f"a{suffix}"))
    again = read_image(tmp_path / f"a{suffix}")
    assert torch.equal(again.data, image.data)
    assert again.grid.same_as(image.grid) == (suffix in (".mhd", ".nhdr"))
    assert (again.notes != ()) == (suffix == ".tif")
    capfd.readouterr()


def write_series(folder: Path, uid: str, heights: list[float], prefix: str = "") -> np.ndarray:
    """One DICOM series with slices at heights, made by SimpleITK; returns (x, y, z) values."""
    folder.mkdir(exist_ok=True)
    values = np.random.default_rng(len(uid)).integers(0, 1000, (len(heights), 7, 5), dtype=np.int16)
    for k, height in enumerate(heights):
        image = sitk.GetImageFromArray(values[k])
        image.SetSpacing((0.7, 1.3))
        write_slice(folder / f"{prefix}{k}.dcm", image, uid, k, (-10, 20, height))
    return values.transpose(2, 1, 0)


def test_dicom_folder(tmp_path: Path) -> None:
    values = write_series(tmp_path / "d", "1.2.3.4", [5.0, 7.5, 10.0])
    image = read_image(tmp_path / "d")
    np.testing.assert_array_equal(image.data[0].numpy(), values)
    np.testing.assert_allclose(
        image.grid.affine, [[-0.7, 0, 0, 10], [0, -1.3, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]], atol=1e-9
    )
    assert image.notes == ()


def test_dicom_folder_of_several_series_wants_a_choice(tmp_path: Path) -> None:
    write_series(tmp_path / "d", "1.2.3.4", [0.0, 1.0], "a")
    values = write_series(tmp_path / "d", "1.2.3.77", [0.0, 1.0, 2.0], "b")
    with pytest.raises(BadInput, match=r"1\.2\.3\.4 \(2 slices\), 1\.2\.3\.77 \(3 slices\).*--series"):
        read_image(tmp_path / "d")
    with pytest.raises(BadInput, match=r"exactly one must end in '8'"):
        read_image(tmp_path / "d", series="8")
    np.testing.assert_array_equal(read_image(tmp_path / "d", series="77").data[0].numpy(), values)


def test_uneven_dicom_slices_are_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "d", "1.2.3.4", [0.0, 2.0, 4.0, 8.0])
    assert "2.00 to 4.00 mm apart" in read_image(tmp_path / "d").notes[0]
    assert capfd.readouterr().err == ""  # what ITK would say too


def test_folder_without_dicom(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").write_text("no DICOM " * 100)
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    with pytest.raises(BadInput, match=r"d: is a folder without DICOM slices"):
        read_image(tmp_path / "d")
    assert capfd.readouterr().err == ""
    assert sitk.ProcessObject.GetGlobalWarningDisplay() == shown


def volume(tmp_path: Path, data: np.ndarray, name: str = "a.nii.gz") -> Path:
    nib.save(nib.Nifti1Image(data, np.eye(4), dtype=data.dtype), tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("name", ["gone.nii.gz", "gone.nrrd", "gone.xyz"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="does not exist") as error:
        read_image(tmp_path / name)
    assert one_sentence(error.value, str(tmp_path / name))


def test_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("?")
    image = smooth_image(make_grid("straight", 2))
    with pytest.raises(BadInput, match=r"a\.xyz: has no known suffix for an image, .*\.nii\.gz .*\.nrrd"):
        read_image(tmp_path / "a.xyz")
    with pytest.raises(BadInput, match=r"b\.dcm: has no known suffix for an image to write"):
        write_image(tmp_path / "b.dcm", image)


def test_truncated_gzip(tmp_path: Path) -> None:
    path = volume(tmp_path, np.random.default_rng(0).normal(size=(30, 30, 30)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BadInput, match="cannot be read") as error:
        read_image(path)
    assert one_sentence(error.value, str(path))


@pytest.mark.parametrize("keep", [0, 10, 348, 400])
@pytest.mark.parametrize("suffix", [".nii", ".mgh", ".mha", ".nrrd", ".png"])
def test_cut_files(tmp_path: Path, suffix: str, keep: int) -> None:
    dim = 2 if suffix == ".png" else 3
    path = tmp_path / f"a{suffix}"
    write_image(path, smooth_image(make_grid("straight", dim)))
    path.write_bytes(path.read_bytes()[: min(keep, path.stat().st_size - 40)])
    with pytest.raises(BadInput, match="cannot be read") as error:
        read_image(path)
    assert one_sentence(error.value, str(path))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz", "a.nrrd", "a.mha", "a.png", "a.tif", "a.dcm"])
def test_garbage(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(4000))
    with pytest.raises(BadInput, match="cannot be read") as error:
        read_image(tmp_path / name)
    assert one_sentence(error.value, str(tmp_path / name))
    capfd.readouterr()


def test_gigantic_dimensions_of_a_corrupt_header(tmp_path: Path) -> None:
    path = volume(tmp_path, np.zeros((4, 4, 4), np.float32))
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[42:48] = np.array([32767] * 3, "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(BadInput, match="cannot be read"):
        read_image(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_must_be_finite(tmp_path: Path, value: float) -> None:
    data = np.zeros((4, 5, 6), np.float32)
    data[1, 2, :3] = value
    path = volume(tmp_path, data)
    with pytest.raises(BadInput, match=r"a\.nii\.gz: 3 of 120 values are NaN or inf"):
        read_image(path)
    with pytest.raises(BadInput, match=r"a\.nii\.gz: 3 of 120 values are not whole"):
        read_labels(path)


def test_complex_and_five_axes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="values of type complex64, real numbers were expected"):
        read_image(volume(tmp_path, np.zeros((4, 5, 6), np.complex64)))
    with pytest.raises(BadInput, match="has 5 axes"):
        read_image(volume(tmp_path, np.zeros((4, 5, 6, 1, 3), np.float32)))


def test_no_voxels(tmp_path: Path) -> None:
    for shape in ((0,), (4, 0, 6)):
        path = tmp_path / "a.nii"
        nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), path)
        with pytest.raises(BadInput, match=r"a\.nii: has no voxels"):
            read_image(path)


def test_time_series_is_no_scalar(tmp_path: Path) -> None:
    path = volume(tmp_path, np.zeros((4, 5, 6, 2), np.float32))
    assert read_image(path).channels == 2
    for read in (read_scalar, read_labels, read_mask):
        with pytest.raises(BadInput, match="has 2 channels"):
            read(path)


def test_labels_in_a_float_file(tmp_path: Path) -> None:
    whole = volume(tmp_path, np.array([0, 1, 2, 700.0], np.float32).reshape(2, 2, 1).repeat(2, 2))
    labels = read_labels(whole)
    assert labels.data.dtype == torch.int32
    assert torch.unique(labels.data).tolist() == [0, 1, 2, 700]
    with pytest.raises(BadInput, match="2 of 8 values are not whole, a label map was expected"):
        read_labels(volume(tmp_path, np.array([0, 1, 2, 0.5], np.float32).reshape(2, 2, 1).repeat(2, 2)))


def test_masks(tmp_path: Path) -> None:
    soft = np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 4, 5)
    np.testing.assert_array_equal(read_mask(volume(tmp_path, soft)).data[0].numpy(), soft)
    with pytest.raises(BadInput, match=r"a\.nii\.gz: is empty"):
        read_mask(volume(tmp_path, soft * 0))
    with pytest.raises(BadInput, match=r"a\.nii\.gz: has a negative value \(-1\)"):
        read_mask(volume(tmp_path, -soft))


def test_constant_image_has_no_structure(tmp_path: Path) -> None:
    flat = read_image(volume(tmp_path, np.full((3, 4, 5), 7, np.float32)))
    with pytest.raises(BadInput, match=r"a\.nii\.gz: every voxel is 7"):
        require_structure(flat)
    require_structure(smooth_image(make_grid("oblique", 3)))


def test_mask_on_another_grid(dim: int) -> None:
    image = smooth_image(make_grid("oblique", dim))
    shift = np.eye(dim + 1)
    shift[0, dim] = 0.5
    moved = Image(image.data, Grid(image.grid.shape, shift @ image.grid.affine), "mask.nii.gz")
    check_on_grid(image, image.grid, "t1.nii.gz")
    with pytest.raises(BadInput, match=r"mask\.nii\.gz: its voxels lie up to 0\.5 mm from those of t1\.nii\.gz"):
        check_on_grid(moved, image.grid, "t1.nii.gz")
    cut = Image(image.data[:, 1:], image.grid.crop((1, *(0,) * (dim - 1)), (13, *image.grid.shape[1:])), "mask.nii.gz")
    with pytest.raises(BadInput, match=r"mask\.nii\.gz: has \(13, .*\) voxels, the \(14, .*\) of t1\.nii\.gz were expected"):
        check_on_grid(cut, image.grid, "t1.nii.gz")


def test_sheared_grid_does_not_go_into_itk_formats(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a\.nrrd: ITK cannot hold a grid with sheared voxel axes"):
        write_image(tmp_path / "a.nrrd", smooth_image(make_grid("sheared", 3)))
    assert list(tmp_path.iterdir()) == []


def test_label_dtypes_in_itk_formats(tmp_path: Path) -> None:
    grid = make_grid("oblique", 3)
    labels = Image((smooth_image(grid).data / 20).to(torch.int16), grid)
    write_image(tmp_path / "a.nrrd", labels)
    again = read_labels(tmp_path / "a.nrrd")
    assert again.data.dtype == torch.int16
    assert torch.equal(again.data, labels.data)
    shutil.copy(tmp_path / "a.nrrd", tmp_path / "B.NRRD")
    assert torch.equal(read_labels(tmp_path / "B.NRRD").data, labels.data)
