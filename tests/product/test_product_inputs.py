"""Whatever a person hands over: the same registration from files and from objects in memory; arrays alone."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

import warpwright
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import read_image, to_nibabel, to_simpleitk, write_image
from warpwright.product.apply import apply_to_image, apply_to_labels, apply_to_points
from warpwright.product.choice import Choice
from warpwright.product.plan import Plan, prepare
from warpwright.transforms import Affine

CHOICE = Choice(transform="affine")
PARTS = ("fixed", "moving", "fixed_mask", "moving_mask", "fixed_labels", "moving_labels")


def oblique(dim: int) -> Grid:
    shape, spacing = (9, 8, 7)[:dim], (0.7, 1.3, 2.1)[:dim]
    turned = np.linalg.qr(np.random.default_rng(3).normal(size=(dim, dim)))[0] @ np.diag([-1.0, 1.0, 1.0][:dim])
    affine = np.eye(dim + 1)
    affine[:dim, :dim], affine[:dim, dim] = turned * spacing, (-20.0, 31.5, 7.25)[:dim]
    return Grid(shape, affine)


def pair(grid: Grid) -> dict[str, Image]:
    """What a registration is given, by role."""
    random = np.random.default_rng(4)
    data = {
        "fixed": random.normal(size=grid.shape).astype(np.float32),
        "moving": random.normal(size=grid.shape).astype(np.float32),
        "fixed_mask": random.uniform(size=grid.shape).astype(np.float32),
        "moving_mask": (random.uniform(size=grid.shape) > 0.3).astype(np.uint8),
        "fixed_labels": random.integers(0, 3, grid.shape).astype(np.int16),
        "moving_labels": random.integers(0, 3, grid.shape).astype(np.int16),
    }
    return {role: Image(torch.from_numpy(array)[None], grid, role) for role, array in data.items()}


def planned(given: dict[str, object], **more: object) -> Plan:
    return prepare(
        given["fixed"],
        given["moving"],
        choice=CHOICE,
        masks=(given.get("fixed_mask"), given.get("moving_mask")),
        labels=(given.get("fixed_labels"), given.get("moving_labels")),
        device="cpu",
        **more,
    )


def prompted(given: dict[str, object]) -> dict[str, object]:
    return {"prompt_labels": (given["fixed_labels"], given["moving_labels"])}


FORMS = {
    "Image": lambda image: image,
    "nibabel": to_nibabel,
    "simpleitk": to_simpleitk,
    "numpy": lambda image: (image.data[0].numpy(), image.grid.affine),
    "torch": lambda image: (image.data[0], torch.tensor(image.grid.affine)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_role_takes_every_kind_and_gives_what_files_give(tmp_path: Path, dim: int, form: str) -> None:
    images = pair(oblique(dim))
    for role, image in images.items():
        write_image(tmp_path / f"{role}.nrrd", image)
    paths = {role: tmp_path / f"{role}.nrrd" for role in images}
    objects = {role: FORMS[form](image) for role, image in images.items()}
    filed, held = planned(paths, **prompted(paths)), planned(objects, **prompted(objects))
    for role in PARTS:
        one, two = getattr(filed, role), getattr(held, role)
        assert torch.equal(one.data, two.data)
        assert one.data.dtype == two.data.dtype
        assert np.allclose(one.grid.affine, two.grid.affine, rtol=0, atol=1e-5)  # NIfTI's header is float32
        assert two.name == role.replace("_", " ") or form == "Image"
    assert filed.prompts is not None
    assert held.prompts is not None
    assert held.prompts.values == filed.prompts.values
    assert held.settings == filed.settings
    assert held.inputs.keys() == filed.inputs.keys()
    assert all(set(found) == {"sha256"} for found in held.inputs.values())
    assert held.notes == ()


def test_forms_may_be_mixed() -> None:
    images = pair(oblique(3))
    forms = [*FORMS.values(), FORMS["Image"]]
    plan = planned({role: form(image) for (role, image), form in zip(images.items(), forms, strict=True)})
    assert plan.fixed_mask is not None
    assert plan.fixed_mask.data.sum() > 0


def test_digests_tell_numbers_and_places_apart() -> None:
    images = pair(oblique(2))
    arrays = {role: FORMS["numpy"](image) for role, image in images.items()}
    assert planned(images).inputs == planned(arrays).inputs
    moved = images | {"fixed": Image(images["fixed"].data, Grid.regular((9, 8)), "fixed")}
    other = planned({role: moved[role] for role in ("fixed", "moving")}).inputs
    assert other["fixed"] != planned(images).inputs["fixed"]
    assert other["moving"] == planned(images).inputs["moving"]


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_arrays_alone_are_taken_together_and_noted(dim: int, kind) -> None:
    arrays = {role: kind(image.data[0].numpy()) for role, image in pair(oblique(dim)).items()}
    plan = planned(arrays, **prompted(arrays))
    assert plan.fixed.grid.same_as(Grid.regular((9, 8, 7)[:dim]))
    assert plan.moving.grid.same_as(plan.fixed.grid)
    assert torch.equal(plan.fixed.data[0], torch.as_tensor(arrays["fixed"]))
    assert [note for note in plan.notes if "1 mm apart" in note] == list(plan.notes)
    assert plan.notes[0].startswith("fixed, moving, fixed mask, moving mask, fixed labels, moving labels, fixed prompt labels")


def test_a_mask_that_says_where_it_is_may_lie_on_an_array_alone() -> None:
    images = pair(Grid.regular((9, 8)))
    arrays = {role: image.data[0] for role, image in images.items() if role in ("fixed", "moving")}
    assert planned(arrays | {"fixed_mask": images["fixed_mask"]}).fixed_mask is not None
    elsewhere = Image(images["fixed_mask"].data, oblique(2), "mask")
    with pytest.raises(BadInput, match="mask: its voxels lie up to"):
        planned(arrays | {"fixed_mask": elsewhere})


@pytest.mark.parametrize("alone", ["fixed", "moving", "fixed_mask", "moving_labels"])
def test_an_array_alone_beside_an_image_with_a_place_is_refused(alone: str) -> None:
    images: dict[str, object] = dict(pair(oblique(3)))
    given = images | {alone: images[alone].data[0].numpy()}
    side = "moving" if alone == "fixed" else "fixed"
    with pytest.raises(BadInput, match=rf"^{alone.replace('_', ' ')}: an array alone .* and {side} does, expected"):
        planned(given)


@pytest.mark.parametrize("shape", [(1, 9, 8), (9, 8, 1), (1, 1, 9, 8, 7), (9, 8, 7, 3), (9,)])
def test_axes_of_channels_and_batch_are_refused(shape: tuple[int, ...]) -> None:
    given = {side: np.random.default_rng(0).normal(size=shape) for side in ("fixed", "moving")}
    with pytest.raises(BadInput, match=r"fixed: expected an array of 2 or 3 axes of at least 2 voxels, without those of"):
        planned(given)


def test_a_prompt_given_as_one_array_with_its_affine_is_no_pair() -> None:
    images = pair(oblique(2))
    with pytest.raises(BadInput, match="fixed prompt labels: an array alone"):
        planned(images, prompt_labels=(images["fixed_labels"].data[0].numpy(), images["fixed_labels"].grid.affine))


def test_points_of_a_tensor_that_asks_for_a_gradient() -> None:
    images = pair(Grid.regular((9, 8)))
    points = torch.ones(2, 2, dtype=torch.float32, requires_grad=True)
    plan = planned(images, points=(points, points.detach().numpy()))
    assert plan.landmarks is not None
    assert plan.landmarks.fixed.world.dtype == torch.float64
    assert torch.equal(plan.landmarks.fixed.world, plan.landmarks.moving.world)


def test_a_photograph_held_by_simpleitk(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 24, 3)).astype(np.uint8)  # rows, columns
    theirs = sitk.GetImageFromArray(pixels, isVector=True)
    sitk.WriteImage(theirs, str(tmp_path / "a.png"))
    plans = [planned({"fixed": one, "moving": one}, photograph="green") for one in (theirs, tmp_path / "a.png")]
    assert torch.equal(plans[0].fixed.data, plans[1].fixed.data)
    assert torch.equal(plans[0].fixed.data[0], torch.from_numpy(pixels[..., 1].T.copy()).float())
    with pytest.raises(BadInput, match="fixed: has 3 channels"):
        planned({"fixed": theirs, "moving": theirs})


def test_the_whole_way_with_objects_of_simpleitk() -> None:
    grid = Grid(oblique(2).shape, oblique(2).affine)
    wide = Grid((27, 24), grid.affine)
    steps = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in wide.shape), indexing="ij")
    blobs = [torch.exp(-((steps[0] - c) ** 2 / 40 + (steps[1] - 11) ** 2 / 14))[None] for c in (12.0, 14.0)]
    fixed, moving = (Image(blob, wide) for blob in blobs)
    found = warpwright.register(to_simpleitk(fixed), to_simpleitk(moving), transform="rigid", device="cpu", threads=1)
    middle = wide.to_world(torch.tensor([[12.0, 11.0]], dtype=torch.float64))
    expected = wide.to_world(torch.tensor([[14.0, 11.0]], dtype=torch.float64))
    assert torch.allclose(found.transform(middle), expected, atol=0.07)  # a tenth of the finer voxel
    back = to_simpleitk(found.moved)
    assert np.allclose(back.GetOrigin(), to_simpleitk(fixed).GetOrigin(), atol=1e-12)
    assert np.allclose(back.GetDirection(), to_simpleitk(fixed).GetDirection(), atol=1e-12)


@pytest.mark.parametrize("form", ["nibabel", "simpleitk", "numpy", "Image"])
def test_apply_takes_what_register_takes(tmp_path: Path, form: str) -> None:
    grid = oblique(3)
    images = pair(grid)
    shift = np.eye(4)
    shift[0, 3] = 1.5
    warpwright.write_transform(tmp_path / "t.tfm", Affine(shift))
    for role in ("moving", "moving_labels"):
        write_image(tmp_path / f"{role}.nrrd", images[role])
    held = {role: FORMS[form](image) for role, image in images.items()}
    for role, work in (("moving", apply_to_image), ("moving_labels", apply_to_labels)):
        work(tmp_path / "t.tfm", tmp_path / f"{role}.nrrd", tmp_path / "a.nrrd", reference=tmp_path / "moving.nrrd", force=True)
        work(tmp_path / "t.tfm", held[role], tmp_path / "b.nrrd", reference=held["fixed"], force=True)
        one, two = (read_image(tmp_path / name) for name in ("a.nrrd", "b.nrrd"))
        if role == "moving":  # NIfTI's header is float32
            assert torch.allclose(one.data, two.data, atol=1e-4)
        else:
            assert torch.equal(one.data, two.data)
    (tmp_path / "p.csv").write_text("x,y,z\n1,2,3\n")
    done = apply_to_points(
        tmp_path / "t.tfm", tmp_path / "p.csv", tmp_path / "q.csv", from_image="fixed", space="ras", reference=held["fixed"]
    )
    assert [float(x) for x in done.output.read_text().splitlines()[1].split(",")[-3:]] == [2.5, 2.0, 3.0]
    with pytest.raises(BadInput, match="image: an array alone"):
        apply_to_image(tmp_path / "t.tfm", images["moving"].data[0], tmp_path / "c.nrrd", reference=held["fixed"])
    flat = (np.ones((4, 5)), np.eye(3))
    with pytest.raises(BadInput, match="reference: has 2 axes"):
        apply_to_image(tmp_path / "t.tfm", held["moving"], tmp_path / "c.nrrd", reference=flat)


def test_an_image_of_nibabel_names_its_conflict_by_role() -> None:
    image = nib.Nifti1Image(np.random.default_rng(0).normal(size=(5, 6, 7)), np.eye(4))
    image.set_qform(np.diag([2.0, 2.0, 2.0, 1.0]), 1)
    image.set_sform(np.eye(4), 1)
    with pytest.raises(BadInput, match=r"^moving: its qform and sform differ"):
        prepare(pair(Grid.regular((5, 6, 7)))["fixed"], image, choice=CHOICE, device="cpu")
    plan = prepare(image, image, choice=CHOICE, device="cpu", header="sform")
    assert plan.fixed.grid.spacing == (1.0, 1.0, 1.0)
    assert all("used the sform" in note for note in plan.notes)
