"""Images of nibabel, SimpleITK, numpy and torch: the same voxels in the same place as from a file, and back again."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from io_cases import make_grid, to_sitk

from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import read_image, read_labels, read_mask, read_scalar, to_nibabel, to_numpy, to_simpleitk, write_image
from warpwright.sampling import sample

KINDS = ("straight", "oblique", "flipped", "permuted")
SIGNS = np.array([-1.0, -1.0, 1.0])


def noise(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def corners_and_middle(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(0,) * len(shape), tuple(n - 1 for n in shape), tuple(n // 3 for n in shape)]


def same_file(ours: Image, path: Path, tolerance: float) -> None:
    filed = read_image(path)
    assert torch.equal(ours.data, filed.data)
    assert np.allclose(ours.grid.affine, filed.grid.affine, rtol=0, atol=tolerance)
    assert ours.grid.shape == filed.grid.shape


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_simpleitk_lies_where_itk_says(tmp_path: Path, dim: int, kind: str) -> None:
    grid = make_grid(kind, dim)
    theirs = to_sitk(Image(torch.from_numpy(noise(grid.shape))[None], grid))
    ours = read_image(theirs)
    for index in corners_and_middle(grid.shape):
        world = SIGNS[:dim] * theirs.TransformIndexToPhysicalPoint(index)
        found = ours.grid.to_world(torch.tensor([index], dtype=torch.float64))[0]
        assert np.allclose(found, world, rtol=0, atol=1e-9)
        assert float(ours.data[(0, *index)]) == theirs.GetPixel(index)
    sitk.WriteImage(theirs, str(tmp_path / "a.nrrd"))
    same_file(ours, tmp_path / "a.nrrd", 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_what_simpleitk_resamples_in_the_world_agrees(dim: int, kind: str) -> None:
    grid = make_grid(kind, dim)
    smooth = to_sitk(Image(torch.from_numpy(noise(grid.shape)).cumsum(0)[None], grid))
    points = grid.to_world(torch.from_numpy(np.random.default_rng(2).uniform(1, 9, (20, dim))))
    theirs = [smooth.EvaluateAtPhysicalPoint((SIGNS[:dim] * p.numpy()).tolist(), sitk.sitkLinear) for p in points]
    ours = read_image(smooth)
    at = ours.grid.to_voxel(points).T[None]
    assert np.allclose(sample(ours.data[None].double(), at)[0, 0], theirs, atol=1e-5)  # our data is float32


@pytest.mark.parametrize("kind", [*KINDS, "sheared"])
def test_an_image_of_nibabel_lies_where_nibabel_says(tmp_path: Path, kind: str) -> None:
    grid = make_grid(kind, 3)
    theirs = nib.Nifti1Image(noise(grid.shape), grid.affine)
    ours = read_image(theirs)
    for index in corners_and_middle(grid.shape):
        found = ours.grid.to_world(torch.tensor([index], dtype=torch.float64))[0]
        assert np.allclose(found, nib.affines.apply_affine(theirs.affine, index), rtol=0, atol=1e-5)  # float32 in the header
    assert np.array_equal(ours.data[0], theirs.get_fdata())
    nib.save(theirs, tmp_path / "a.nii.gz")
    same_file(ours, tmp_path / "a.nii.gz", 0.0)


def test_an_mgh_image_and_a_slice_are_as_their_files(tmp_path: Path) -> None:
    grid = make_grid("oblique", 3)
    volume = nib.MGHImage(noise(grid.shape), grid.affine)
    nib.save(volume, tmp_path / "a.mgz")
    same_file(read_image(volume), tmp_path / "a.mgz", 1e-4)  # float32 in the file, of a volume some 100 mm away
    flat = nib.Nifti1Image(noise((9, 7, 1)), np.diag([-2.0, 3.0, 1.0, 1.0]))
    nib.save(flat, tmp_path / "b.nii")
    assert read_image(flat).grid.shape == (9, 7)
    same_file(read_image(flat), tmp_path / "b.nii", 0.0)
    deep = sitk.GetImageFromArray(noise((1, 7, 9)))
    assert read_image(deep).grid.shape == (9, 7)


def test_scaled_integers_of_an_image_that_is_not_loaded(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    image.header.set_slope_inter(0.25, -3.0)
    nib.save(image, tmp_path / "a.nii.gz")
    lazy = nib.load(tmp_path / "a.nii.gz")
    assert np.array_equal(read_image(lazy).data[0], lazy.get_fdata())
    assert float(read_image(lazy).data[0, 2, 3, 4]) == -3 + 0.25 * 59 * 1


def test_two_affines_of_a_header_that_differ_are_refused_or_chosen_from() -> None:
    image = nib.Nifti1Image(noise((5, 7, 6)), np.eye(4))
    image.set_qform(np.diag([2.0, 2.0, 2.0, 1.0]), 1)
    image.set_sform(np.eye(4), 1)
    with pytest.raises(BadInput, match=r"fixed: its qform and sform differ by up to"):
        read_image(image, name="fixed")
    assert read_image(image, header="qform").grid.spacing == (2.0, 2.0, 2.0)
    chosen = read_image(image, header="sform")
    assert chosen.grid.spacing == (1.0, 1.0, 1.0)
    assert "used the sform" in chosen.notes[0]


def test_an_affine_that_was_changed_since_counts_as_it_would_in_the_file(tmp_path: Path) -> None:
    image = nib.Nifti1Image(noise((5, 7, 6)), np.eye(4))
    header = image.header.copy()
    image.affine[:3, 3] = (4.0, 5.0, 6.0)
    found = read_image(image)
    assert found.grid.origin.tolist() == [4.0, 5.0, 6.0]
    assert image.header == header  # the person's object is left alone
    nib.save(image, tmp_path / "a.nii.gz")
    same_file(found, tmp_path / "a.nii.gz", 0.0)


def arrays() -> dict[str, tuple[object, object]]:
    grid = make_grid("flipped", 3)
    plain = (100 * noise(grid.shape)).astype(np.int16)
    tensor = torch.from_numpy(plain)
    return {
        "int16": (plain, grid.affine),
        "big-endian": (plain.astype(">i2"), grid.affine.astype(">f8")),
        "strided": (np.repeat(plain, 2, axis=1)[:, ::2], grid.affine),
        "backwards": (plain[::-1].copy()[::-1], grid.affine),
        "fortran": (np.asfortranarray(plain), grid.affine),
        "float64": (plain.astype(np.float64), grid.affine.tolist()),
        "float16": (plain.astype(np.float16), grid.affine),
        "tensor": (tensor, torch.tensor(grid.affine)),
        "tensor that asks for a gradient": (tensor.double().requires_grad_(), grid.affine),
        "tensor with its axes swapped": (tensor.transpose(0, 2).contiguous().transpose(0, 2), grid.affine),
    }


@pytest.mark.parametrize("kind", sorted(arrays()))
def test_arrays_of_every_kind(kind: str) -> None:
    plain, affine = arrays()["int16"]
    image = read_image(arrays()[kind])
    assert torch.equal(image.data[0], torch.from_numpy(plain).float())
    assert image.data.is_contiguous()
    assert np.array_equal(image.grid.affine, affine)


def test_bfloat16_and_bool_and_unsigned() -> None:
    values = torch.tensor([[0.5, 2.0, -3.0], [1.0, 0.0, 8.0]])
    assert torch.equal(read_image((values.bfloat16(), np.eye(3))).data[0], values)
    mask = read_mask((values > 0, torch.eye(3)))
    assert mask.data.dtype == torch.float32
    assert mask.data.sum() == 4
    for dtype, expected in ((np.uint16, torch.int32), (">u2", torch.int32), (np.uint64, torch.int64), (bool, torch.uint8)):
        labels = read_labels((np.array([[0, 1], [1, 0]]).astype(dtype), np.eye(3)))
        assert labels.data.dtype == expected
        assert labels.data.tolist() == [[[0, 1], [1, 0]]]
    theirs = sitk.GetImageFromArray(np.array([[0, 7], [65535, 0]], np.uint16))
    assert read_labels(theirs).data.tolist() == [[[0, 65535], [7, 0]]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_tensor_on_a_gpu() -> None:
    values = torch.rand(4, 5)
    found = read_image((values.cuda(), torch.eye(3).cuda()))
    assert found.data.device.type == "cpu"
    assert torch.equal(found.data[0], values)


def test_what_is_read_is_a_copy() -> None:
    array, image = noise((4, 5)), nib.Nifti1Image(noise((4, 5, 3)), np.eye(4))
    tensor = torch.ones(1, 4, 5)
    found = [read_image(v) for v in ((array, np.eye(3)), image, Image(tensor, Grid.regular((4, 5))))]
    kept = [one.data.clone() for one in found]
    array[:] = 0
    np.asanyarray(image.dataobj)[:] = 0
    tensor.zero_()
    assert all(torch.equal(one.data, before) for one, before in zip(found, kept, strict=True))


def vector_image() -> sitk.Image:
    return sitk.GetImageFromArray(np.ones((4, 5, 3), np.float32), isVector=True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: 3, r"moving: expected a path, an Image, an image of nibabel or SimpleITK, or \(array, affine\), got int"),
        (lambda: [np.ones((4, 5)), np.eye(3)], "got list"),
        (lambda: nib.gifti.GiftiImage(), "got GiftiImage"),
        (lambda: np.ones((4, 5)), "moving: an array alone does not say where its voxels are"),
        (lambda: torch.ones(4, 5), "moving: an array alone does not say where its voxels are"),
        (
            lambda: (np.ones((1, 4, 5, 6)), np.eye(4)),
            r"2 or 3 axes, without those of channels or batch, got one of .*1, 4, 5, 6",
        ),
        (lambda: (np.ones((1, 4, 5)), np.eye(3)), "3 axes needs a 4 x 4 affine"),
        (lambda: (np.ones((4, 0)), np.eye(3)), "at least one voxel"),
        (lambda: (np.ones((4, 5), complex), np.eye(3)), "type complex128, real numbers"),
        (lambda: (np.array([["a", "b"]]), np.eye(3)), "real numbers were expected"),
        (lambda: (np.ones((4, 5)), np.eye(3).astype(str)), "its affine holds values of type"),
        (lambda: (np.ones((4, 5)), [[1, 2], [3]]), "moving, affine: cannot be read as an array of numbers"),
        (lambda: (np.ones((4, 5)), None), "its affine holds values of type object"),
        (lambda: (torch.eye(4).to_sparse(), np.eye(3)), "moving: cannot be read as an array of numbers"),
        (lambda: (torch.ones(4, 5, device="meta"), np.eye(3)), "moving: cannot be read as an array of numbers"),
        (lambda: nib.Nifti1Image(np.ones((4, 5, 6, 2)), np.eye(4)), r"moving: has 2 channels \(4-D or RGB\)"),
        (lambda: nib.Nifti1Image(np.ones((4, 5, 6, 1, 3)), np.eye(4)), "moving: has 5 axes"),
        (lambda: nib.Nifti1Image(np.ones((4, 0, 6)), np.eye(4)), "moving: has no voxels"),
        (lambda: nib.spatialimages.SpatialImage(np.ones((4, 5, 6)), None), "moving: has no affine"),
        (lambda: nib.Nifti1Image(np.full((4, 5, 6), np.nan), np.eye(4)), "moving: 120 of 120 values are NaN"),
        (vector_image, r"moving: has 3 channels \(4-D or RGB\)"),
        (lambda: sitk.Image([3, 4, 5, 6], sitk.sitkFloat32), "moving: has 4 axes"),
        (lambda: sitk.Image(), "moving: a grid has 2 or 3 axes with at least one voxel each"),
        (lambda: sitk.Image([3, 4], sitk.sitkComplexFloat32), "moving: holds values of type complex64"),
        (lambda: sitk.Cast(sitk.Image([3, 4], sitk.sitkUInt8), sitk.sitkLabelUInt8), "moving: is a label of 8-bit"),
    ],
)
def test_what_is_no_image_of_one_channel_is_refused_in_a_sentence(make, words) -> None:
    with pytest.raises(BadInput, match=words) as found:
        read_scalar(make(), name="moving")
    assert "\n" not in str(found.value)


def test_a_nifti_header_without_affines_is_noted() -> None:
    image = nib.Nifti1Image(noise((4, 5, 6)), None)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    assert "neither qform nor sform" in read_image(image).notes[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_back_to_other_libraries(tmp_path: Path, dim: int, kind: str, channels: int) -> None:
    grid = make_grid(kind, dim)
    image = Image(torch.from_numpy(noise((channels, *grid.shape))), grid, "image")
    for theirs in (to_simpleitk(image), to_nibabel(image)):
        again = read_image(theirs)
        assert torch.equal(again.data, image.data)
        assert np.allclose(again.grid.affine, grid.affine, rtol=0, atol=1e-5)  # NIfTI has float32
    itk, index = to_simpleitk(image), corners_and_middle(grid.shape)[2]
    world = grid.to_world(torch.tensor([index], dtype=torch.float64))[0].numpy()
    assert np.allclose(SIGNS[:dim] * itk.TransformIndexToPhysicalPoint(index), world, rtol=0, atol=1e-9)
    assert np.allclose(nib.affines.apply_affine(to_nibabel(image).affine, [*index, 0][:3])[:dim], world, atol=1e-4)
    write_image(tmp_path / "a.nii.gz", image)
    filed, held = nib.load(tmp_path / "a.nii.gz"), to_nibabel(image)
    assert held.header == filed.header
    assert np.array_equal(np.asanyarray(filed.dataobj), np.asanyarray(held.dataobj))
    array, affine = to_numpy(image)
    assert array.shape == (grid.shape if channels == 1 else (channels, *grid.shape))
    assert np.array_equal(affine, grid.affine)


def test_back_keeps_integers_and_shares_nothing() -> None:
    grid = Grid.regular((4, 5))
    labels = Image(torch.arange(20).reshape(1, 4, 5).to(torch.int16), grid, "labels")
    assert to_nibabel(labels).get_data_dtype() == np.int16
    assert to_simpleitk(labels).GetPixelID() == sitk.sitkInt16
    array, affine = to_numpy(labels)
    array[:], affine[:] = 0, 0
    assert labels.data.sum() == 190
    assert grid.affine.sum() == 3
    again = read_image(to_numpy(Image(torch.rand(1, 4, 5), grid)))
    assert again.grid.same_as(grid)


def test_a_sheared_grid_has_no_place_in_itk() -> None:
    image = Image(torch.rand(1, 14, 17, 12), make_grid("sheared", 3), "tilted")
    with pytest.raises(BadInput, match="tilted: ITK cannot hold a grid with sheared voxel axes"):
        to_simpleitk(image)
    assert np.allclose(to_nibabel(image).affine, image.grid.affine, atol=1e-5)


def test_a_shape_that_nifti_cannot_hold() -> None:
    wide = Image(torch.zeros(1, 40_000, 2), Grid.regular((40_000, 2)), "wide")
    with pytest.raises(BadInput, match="wide: its format cannot hold float32"):
        to_nibabel(wide)
