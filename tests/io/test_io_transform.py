"""Displacement NIfTI, the front door of transforms, bad transform files, and atomic writing."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from io_cases import make_affine, make_grid, make_transform, sitk_points, smooth_vectors, some_points

from warpwright.errors import BadInput, Failed
from warpwright.geometry import Image
from warpwright.io import own_grid, read_transform, replacing, write_ants, write_image, write_transform
from warpwright.transforms import Affine, DisplacementField

GRIDS = ("straight", "oblique", "flipped", "permuted")


def field_on(kind: str, dim: int) -> DisplacementField:
    grid = make_grid(kind, dim)
    return DisplacementField(smooth_vectors(grid.shape, 1.5, 1), grid)


@pytest.mark.parametrize("kind", GRIDS)
def test_displacement_nifti_in_simpleitk_and_back(tmp_path: Path, dim: int, kind: str) -> None:
    field = field_on(kind, dim)
    write_transform(tmp_path / "w.nii.gz", field)
    stored = nib.load(tmp_path / "w.nii.gz")
    assert stored.shape == (*(*field.grid.shape, 1)[:3], 1, dim)
    assert int(stored.header["intent_code"]) == 1007
    points = some_points(field.grid)
    by_itk = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / "w.nii.gz"), sitk.sitkVectorFloat64))
    torch.testing.assert_close(sitk_points(by_itk, points), field(points), atol=1e-4, rtol=0)  # mm; float32 file
    again = read_transform(tmp_path / "w.nii.gz")
    assert isinstance(again, DisplacementField)
    assert again.grid.same_as(field.grid)
    torch.testing.assert_close(again.displacement, field.displacement, atol=1e-5, rtol=0)  # voxels; float32 file


def test_displacement_nifti_of_simpleitk_is_read(tmp_path: Path, dim: int) -> None:
    field = field_on("oblique", dim)
    write_transform(tmp_path / "w.h5", field)
    composite = sitk.CompositeTransform(sitk.ReadTransform(str(tmp_path / "w.h5")))
    image = sitk.DisplacementFieldTransform(composite.GetNthTransform(0)).GetDisplacementField()
    sitk.WriteImage(image, str(tmp_path / "theirs.nii.gz"))
    points = some_points(field.grid)
    torch.testing.assert_close(read_transform(tmp_path / "theirs.nii.gz")(points), field(points), atol=1e-4, rtol=0)  # float32


def test_intent_1006_holds_ras_vectors(tmp_path: Path, dim: int) -> None:
    field = field_on("oblique", dim)
    write_transform(tmp_path / "lps.nii.gz", field)
    stored = nib.load(tmp_path / "lps.nii.gz")
    ras = np.asarray(stored.dataobj) * np.array([-1, -1, 1], np.float32)[:dim]
    image = nib.Nifti1Image(ras, stored.affine, stored.header)
    image.header.set_intent(1006, (), "")
    nib.save(image, tmp_path / "ras.nii.gz")
    points = some_points(field.grid)
    torch.testing.assert_close(read_transform(tmp_path / "ras.nii.gz")(points), field(points), atol=1e-4, rtol=0)  # float32


def test_whole_map_as_one_field(tmp_path: Path, dim: int) -> None:
    fixed = make_grid("oblique", dim)
    transform = make_transform("displacement", fixed)
    write_transform(tmp_path / "w.nii.gz", transform)
    points = fixed.to_world(torch.tensor([[3.0, 5.0, 6.0][:dim], [7.0, 2.0, 4.0][:dim]], dtype=torch.float64))
    torch.testing.assert_close(read_transform(tmp_path / "w.nii.gz")(points), transform(points), atol=1e-4, rtol=0)  # float32
    with pytest.raises(BadInput, match=r"a\.nii\.gz: a field lies on a grid"):
        write_transform(tmp_path / "a.nii.gz", make_affine(fixed))
    write_transform(tmp_path / "a.nii.gz", make_affine(fixed), fixed)
    torch.testing.assert_close(read_transform(tmp_path / "a.nii.gz")(points), make_affine(fixed)(points), atol=1e-4, rtol=0)


def test_sheared_field_in_a_nifti_is_resampled_for_itk(tmp_path: Path, dim: int) -> None:
    field = field_on("sheared", dim)
    write_transform(tmp_path / "w.nii.gz", field)
    by_itk = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / "w.nii.gz"), sitk.sitkVectorFloat64))
    inner = torch.rand(80, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.8 + 0.1
    points = field.grid.to_world(inner * (torch.tensor(field.grid.shape, dtype=torch.float64) - 1))
    error = (sitk_points(by_itk, points) - field(points)).norm(dim=1)
    moved = (field(points) - points).norm(dim=1)
    assert error.max() < 0.15 * moved.max()  # linear interpolation twice, of a field that turns within four voxels
    cover = read_transform(tmp_path / "w.nii.gz")
    assert isinstance(cover, DisplacementField)
    assert cover.grid.shear < 1e-6
    corners = torch.tensor([[0.0] * dim, [n - 1.0 for n in field.grid.shape]], dtype=torch.float64)
    inside = cover.grid.to_voxel(field.grid.to_world(corners))
    assert bool(((inside > -1e-3) & (inside < torch.tensor(cover.grid.shape) - 1 + 1e-3)).all())


def test_own_grid_is_that_of_the_part_that_acts_first() -> None:
    fixed = make_grid("oblique", 3)
    assert own_grid(make_transform("displacement", fixed)) is fixed
    assert own_grid(make_transform("velocity", fixed)) is fixed
    assert own_grid(make_transform("inverse", fixed)) is None
    assert own_grid(make_affine(fixed)) is None


def bad_nifti(path: Path, shape: tuple[int, ...], intent: int, value: float = 0.0) -> None:
    image = nib.Nifti1Image(np.full(shape, value, np.float32), np.eye(4))
    image.header.set_intent(intent, (), "", allow_unknown=True)
    nib.save(image, path)


@pytest.mark.parametrize(
    ("shape", "intent", "sentence"),
    [
        ((4, 5, 6, 1, 3), 0, r"shape \(4, 5, 6, 1, 3\) and intent 0, a displacement field of shape"),
        ((4, 5, 6, 3), 1007, r"shape \(4, 5, 6, 3\) and intent 1007"),
        ((4, 5, 6, 2, 3), 1007, r"shape \(4, 5, 6, 2, 3\)"),
        ((4, 5, 6, 1, 2), 1007, "vectors of 2 components"),
        ((4, 5, 1, 1, 3), 1007, "vectors of 3 components"),
        ((4, 5, 6, 1, 4), 1007, "vectors of 4 components"),
    ],
)
def test_nifti_that_is_no_field(tmp_path: Path, shape: tuple[int, ...], intent: int, sentence: str) -> None:
    bad_nifti(tmp_path / "w.nii.gz", shape, intent)
    with pytest.raises(BadInput, match=rf"w\.nii\.gz: has .*{sentence}"):
        read_transform(tmp_path / "w.nii.gz")


def test_field_with_nan(tmp_path: Path) -> None:
    bad_nifti(tmp_path / "w.nii.gz", (4, 5, 6, 1, 3), 1007, np.nan)
    with pytest.raises(BadInput, match="360 of 360 components are NaN or inf"):
        read_transform(tmp_path / "w.nii.gz")


@pytest.mark.parametrize("name", ["t.h5", "t.tfm", "t.txt", "t.mat", "t.nii.gz"])
def test_missing_and_garbage_files(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput, match=rf"{name}: does not exist, a transform file was expected"):
        read_transform(tmp_path / name)
    for content in (b"", b"hello", np.random.default_rng(0).bytes(3000), pickle.dumps({"a": 1})):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=rf"{name}: cannot be read") as error:
            read_transform(tmp_path / name)
        assert "\n" not in str(error.value)
    capfd.readouterr()


def test_truncated_composite(tmp_path: Path) -> None:
    write_transform(tmp_path / "t.h5", make_transform("displacement", make_grid("oblique", 3)))
    content = (tmp_path / "t.h5").read_bytes()
    for share in (0.3, 0.6, 0.95):
        (tmp_path / "t.h5").write_bytes(content[: int(share * len(content))])
        with pytest.raises(BadInput, match=r"t\.h5: cannot be read"):
            read_transform(tmp_path / "t.h5")


def composite(path: Path, kind: str, parameters: object, fixed: object) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("TransformGroup/0")
        group["TransformType"] = np.array([kind], dtype=h5py.string_dtype("ascii"))
        group["TransformParameters"] = parameters
        group["TransformFixedParameters"] = fixed


@pytest.mark.parametrize(
    ("kind", "parameters", "fixed", "sentence"),
    [
        ("BSplineTransform_double_3_3", np.zeros(3), np.zeros(18), "holds the kind BSplineTransform of 3 axes"),
        ("AffineTransform_double_4_4", np.zeros(20), np.zeros(4), "holds the kind AffineTransform of 4 axes"),
        ("AffineTransform_double_3_3", np.zeros(12), np.zeros(3), "must be invertible|cannot be read"),
        ("AffineTransform_double_3_3", np.zeros(5), np.zeros(3), "cannot be read"),
        ("AffineTransform_double_3_3", np.full(12, np.nan), np.zeros(3), "NaN, inf or no numbers"),
        ("AffineTransform_double_3_3", np.array([b"x"] * 12), np.zeros(3), "NaN, inf or no numbers"),
        ("nonsense", np.zeros(12), np.zeros(3), "cannot be read"),
        ("DisplacementFieldTransform_float_2_2", np.zeros(7), np.array([2, 2, 0, 0, 1, 1, 1, 0, 0, 1.0]), "has 7 values"),
        (
            "DisplacementFieldTransform_float_2_2",
            np.zeros(8),
            np.array([-2, -2, 0, 0, 1, 1, 1, 0, 0, 1.0]),
            "at least one voxel",
        ),
        ("DisplacementFieldTransform_float_2_2", np.zeros(8), np.array([2, 2, 0, 0, 1, 1, 0, 0, 0, 0.0]), "singular"),
        ("DisplacementFieldTransform_float_2_2", np.zeros(8), np.zeros(4), "has 8 values"),
    ],
)
def test_bad_composites(tmp_path: Path, kind: str, parameters: np.ndarray, fixed: np.ndarray, sentence: str) -> None:
    composite(tmp_path / "t.h5", kind, parameters, fixed)
    with pytest.raises(BadInput, match=rf"t\.h5: .*({sentence})"):
        read_transform(tmp_path / "t.h5")


def test_empty_hdf5_and_mixed_axes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["something"] = 1
    with pytest.raises(BadInput, match="cannot be read, an ITK transform in an HDF5 file was expected"):
        read_transform(tmp_path / "t.h5")
    composite(tmp_path / "t.h5", "TranslationTransform_double_3_3", np.zeros(3), np.zeros(0))
    with h5py.File(tmp_path / "t.h5", "a") as file:
        group = file.create_group("TransformGroup/1")
        group["TransformType"] = np.array(["TranslationTransform_double_2_2"], dtype=h5py.string_dtype("ascii"))
        group["TransformParameters"], group["TransformFixedParameters"] = np.zeros(2), np.zeros(0)
    with pytest.raises(BadInput, match="holds 2-D and 3-D transforms"):
        read_transform(tmp_path / "t.h5")


def test_misspelt_and_fixed_length_entries_of_old_files(tmp_path: Path) -> None:
    """ITK 4 wrote `Tranform...`; other writers store fixed-length strings; ANTs' matrices have their own type name."""
    with h5py.File(tmp_path / "t.h5", "w") as file:
        group = file.create_group("TransformGroup/0")
        group["TransformType"] = np.array([b"MatrixOffsetTransformBase_float_2_2"])
        group["TranformParameters"] = np.array([1, 0.5, 0, 2, 3, 4], np.float32)
        group["TranformFixedParameters"] = np.array([10.0, 20.0])
    lps = np.array([[1, 0.5], [0, 2]]) @ (np.array([1.0, 2.0]) - [10, 20]) + [10, 20] + [3, 4]
    ras = read_transform(tmp_path / "t.h5")(torch.tensor([[-1.0, -2.0]], dtype=torch.float64))
    np.testing.assert_allclose(ras.numpy(), -lps[None])


def test_unknown_suffix_and_formats_that_cannot_hold_a_field(tmp_path: Path) -> None:
    transform = make_transform("displacement", make_grid("oblique", 2))
    with pytest.raises(BadInput, match=r"t\.xfm: has no known suffix for a transform, expected one of \.h5"):
        write_transform(tmp_path / "t.xfm", transform)
    with pytest.raises(BadInput, match=r"t\.tfm: its format holds an affine only"):
        write_transform(tmp_path / "t.tfm", transform)
    with pytest.raises(BadInput, match=r"is a folder, a transform file was expected"):
        read_transform(tmp_path)
    with pytest.raises(BadInput, match="an image with --reference"):
        write_ants(tmp_path / "a_", Affine.identity(2))
    assert list(tmp_path.iterdir()) == []


def test_itk_text_with_a_spline_is_not_linear(tmp_path: Path) -> None:
    sitk.WriteTransform(sitk.BSplineTransform(2), str(tmp_path / "t.tfm"))
    with pytest.raises(BadInput, match="a linear transform was expected in this format"):
        read_transform(tmp_path / "t.tfm")


def test_same_transform_gives_the_same_bytes(tmp_path: Path) -> None:
    transform = make_transform("displacement", make_grid("oblique", 3))
    for name in ("a.h5", "b.h5"):
        write_transform(tmp_path / name, transform)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_replacing_keeps_the_old_file_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_text("old")
    for error, seen in ((ValueError("x"), ValueError), (OSError(errno.ENOSPC, "No space left on device"), Failed)):
        with pytest.raises(seen), replacing(path) as temporary:  # noqa: PT012
            assert temporary.parent == tmp_path
            assert temporary.name.endswith(".nii.gz")
            temporary.write_text("half")
            raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_disk_full_is_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(Failed, match=r"a\.csv: could not be written \(No space left on device\)"),
        replacing(tmp_path / "a.csv"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_failing_writers_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    grid = make_grid("oblique", 3)
    monkeypatch.setattr(nib, "save", fail)
    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    with pytest.raises(Failed, match=r"a\.nii\.gz: could not be written"):
        write_image(tmp_path / "a.nii.gz", Image(torch.zeros(1, *grid.shape), grid))
    with pytest.raises(Failed, match=r"t\.h5: could not be written"):
        write_transform(tmp_path / "t.h5", make_transform("displacement", grid))
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    affine = Affine.identity(3)
    with pytest.raises(BadInput, match=r"the folder .*gone does not exist"):
        write_transform(tmp_path / "gone" / "t.h5", affine)
    (tmp_path / "d.h5").mkdir()
    with pytest.raises(BadInput, match="is a folder"):
        write_transform(tmp_path / "d.h5", affine)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(BadInput, match="is read-only"):
        write_transform(tmp_path / "t.tfm", affine)


def test_ants_files_appear_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    field, save = field_on("oblique", 3), nib.save
    transform = make_affine(field.grid) @ field
    written: list[object] = []

    def full_at_the_second(image: object, path: Path) -> None:
        written.append(path)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(image, path)

    monkeypatch.setattr(nib, "save", full_at_the_second)
    with pytest.raises(Failed, match=r"a_1InverseWarp\.nii\.gz: could not be written \(No space left on device\)"):
        write_ants(tmp_path / "a_", transform)
    assert len(written) == 2
    assert list(tmp_path.iterdir()) == []
    assert all(path.exists() for path in write_ants(tmp_path / "a_", transform))
    assert len(list(tmp_path.iterdir())) == 3
