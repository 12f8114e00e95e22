from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import warpwright
from warpwright.data import bundled_pairs
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.product import plan as plan_module
from warpwright.product.scores import inverse_text
from warpwright.product.words import result_lines
from warpwright.transforms import Affine, DisplacementField

RESULTS = {"transform.h5", "inverse.h5", "moved.nii.gz", "jacobian.nii.gz", "figure.png", "result.json"}


def bumps(grid: Grid, shift: float) -> np.ndarray:
    axes = np.meshgrid(*(np.arange(n) * s for n, s in zip(grid.shape, grid.spacing, strict=True)), indexing="ij")
    return sum(np.sin(a / 1.7 + k + shift) for k, a in enumerate(axes)).astype(np.float32)


@pytest.fixture
def instant(monkeypatch):
    """A method that answers at once with a known map: a shift of 1 mm after a field of a tenth of a voxel."""

    def answer(fixed, moving, settings, **given):
        field = DisplacementField(torch.full((fixed.grid.dim, *fixed.grid.shape), 0.1), fixed.grid)
        shift = np.eye(fixed.grid.dim + 1)
        shift[0, -1] = 1.0
        forward = Affine(shift) @ field
        answer.given = {"moving": moving, "settings": settings, **given}
        stage = warpwright.methods.Stage("made up", 0.1, 1, 1.0, 0.5, "done")
        return warpwright.Registration(forward, forward.inverse(), 0.0, (stage,), answer.before, 0.5, 0.9)

    answer.before = 1.0

    monkeypatch.setattr(plan_module, "register_pair", answer)
    return answer


@pytest.mark.usefixtures("instant")
def test_paths_images_and_arrays_give_the_same(dim, shape, spacing, tmp_path):
    grid = Grid.regular(shape, spacing)
    fixed, moving = (bumps(grid, s) for s in (0.0, 0.4))
    images = [Image(torch.from_numpy(a)[None], grid) for a in (fixed, moving)]
    for name, image in zip("fm", images, strict=True):
        warpwright.write_image(tmp_path / f"{name}.nii.gz", image)
    by_array = warpwright.register((fixed, grid.affine), (moving, grid.affine))
    by_image = warpwright.register(*images)
    by_path = warpwright.register(tmp_path / "f.nii.gz", str(tmp_path / "m.nii.gz"))
    assert torch.equal(by_array.moved.data, by_image.moved.data)
    assert torch.allclose(by_array.moved.data, by_path.moved.data, atol=1e-5)  # the header holds float32
    assert by_array.moved.grid.same_as(grid)
    assert "path" not in by_array.record["inputs"]["fixed"]
    assert by_path.record["inputs"]["fixed"]["path"].endswith("f.nii.gz")
    point = torch.ones(1, dim, dtype=torch.float64)
    assert torch.allclose(by_image.inverse(by_image.transform(point)), point, atol=1e-3)  # the inverse's own tolerance
    assert torch.allclose(by_image.jacobian.data, torch.ones(()), atol=1e-5)  # a shift, float32


@pytest.mark.parametrize("window", ["box", "gaussian"])
def test_a_window_of_other_axes_is_refused_before_any_work(instant, window, dim, shape, spacing, tmp_path):
    grid, file = Grid.regular(shape, spacing), tmp_path / "c.toml"
    file.write_text(f'[similarity]\nkind = "lncc"\nwindow = "{window}"\nradius = {[1] * (5 - dim)}\n')
    said = f"LNCC has a radius of {5 - dim} numbers, the images have {dim} axes: expected one number, or {dim}"
    with pytest.raises(BadInput) as error:
        warpwright.register((bumps(grid, 0.0), grid.affine), (bumps(grid, 0.4), grid.affine), config=file)
    assert str(error.value) == f"{file}.similarity: {said}"
    assert not hasattr(instant, "given")


@pytest.mark.parametrize(
    ("counts", "moved", "said"),
    [
        ((3, 2), 0.0, "moving prompt points: has 2 points and fixed prompt points has 3, expected as many"),
        ((3, 3), 500.0, "moving prompt points: has point 2 outside moving, expected all points inside"),
    ],
)
def test_prompt_points_in_memory_are_named_by_their_role(counts, moved, said, shape, spacing):
    grid = Grid.regular(shape, spacing)
    one, two = (np.ones((count, grid.dim)) for count in counts)
    two[1, 0] += moved
    with pytest.raises(BadInput) as error:
        warpwright.register((bumps(grid, 0.0), grid.affine), (bumps(grid, 0.4), grid.affine), prompt_points=(one, two))
    assert str(error.value) == said


@pytest.mark.usefixtures("instant")
def test_save_writes_all_and_a_picture_that_shows_something(shape, spacing, tmp_path):
    grid = Grid.regular(shape, spacing)
    labels = np.zeros(shape, np.int16)
    labels[1:4, 2:5] = 1
    points = torch.tensor([[n * s / 2 for n, s in zip(shape, spacing, strict=True)]])
    result = warpwright.register(
        (bumps(grid, 0.0), grid.affine),
        (bumps(grid, 0.4), grid.affine),
        fixed_labels=(labels, grid.affine),
        moving_labels=(labels, grid.affine),
        fixed_points=points,
        moving_points=points.numpy(),
    )
    assert result.save(tmp_path / "o") == Path(tmp_path / "o")
    assert {p.name for p in (tmp_path / "o").iterdir()} == RESULTS
    picture = imread(tmp_path / "o" / "figure.png")
    assert picture.shape[1] > 1000
    assert picture[..., :3].std() > 0.1
    with pytest.raises(BadInput, match="--force"):
        result.save(tmp_path / "o")
    result.save(tmp_path / "o", force=True)


def test_what_is_asked_for_reaches_the_method(instant, shape, spacing):
    grid = Grid.regular(shape, spacing)
    seen = []
    warpwright.register(
        (bumps(grid, 0.0), grid.affine),
        (bumps(grid, 0.4), grid.affine),
        transform="velocity",
        similarity="mi",
        initialise="none",
        initial=Affine.identity(len(shape)),
        fixed_mask=(np.ones(shape, np.float32), grid.affine),
        device="cpu",
        threads=1,
        progress=seen.append,
    )
    given = instant.given
    assert type(given["settings"].similarity).__name__ == "MutualInformation"
    assert type(given["settings"].deformable).__name__ == "Velocity"
    assert given["settings"].start == "none"
    assert given["fixed_mask"].data.sum() == np.prod(shape)
    assert given["device"] == "cpu"
    assert given["initial"] is not None
    assert given["progress"] == seen.append


def test_images_that_did_not_meet_leave_no_infinity(instant, tmp_path):
    instant.before = np.inf
    grid = Grid.regular((5, 7))
    result = warpwright.register((bumps(grid, 0.0), grid.affine), (bumps(grid, 0.4), grid.affine))
    assert result.verdict.improved
    assert any("no overlap -> 0.5" in line for line in result_lines(result))
    text = (result.save(tmp_path / "o") / "result.json").read_text()
    assert "Infinity" not in text
    assert json.loads(text)["scores"]["energy_before"] is None
    assert json.loads(text)["scores"]["overlap"] == 0.9


@pytest.mark.usefixtures("instant")
def test_the_inverse_is_told_in_mm():
    grid = Grid.regular((5, 7), (0.7, 1.3))
    result = warpwright.register((bumps(grid, 0.0), grid.affine), (bumps(grid, 0.4), grid.affine))
    line = next(line for line in result_lines(result) if line.startswith("inverse"))
    assert line == f"inverse     {inverse_text(result.scores.inverse_consistency)}"
    assert " mm" in line


@pytest.mark.usefixtures("instant")
def test_landmarks_outside_are_told_with_their_file(tmp_path):
    grid = Grid.regular((5, 7))
    for name, far in (("fixed", "2,2"), ("moving", "90,2")):
        (tmp_path / f"{name}.csv").write_text(f"id,x,y\na,1,1\nb,{far}\n")
    result = warpwright.register(
        (bumps(grid, 0.0), grid.affine),
        (bumps(grid, 0.4), grid.affine),
        fixed_points=tmp_path / "fixed.csv",
        moving_points=tmp_path / "moving.csv",
        space="ras",
    )
    assert [n for n in result.notes if "outside" in n] == [
        f"{tmp_path / 'moving.csv'}: 1 of 2 points lie outside the image (b), their place is a guess"
    ]


def test_messages_about_pairs_name_the_file(tmp_path):
    grid = Grid.regular((5, 7))
    for name, rows in (("fixed", 1), ("moving", 2)):
        (tmp_path / f"{name}.csv").write_text("x,y\n" + rows * "1,1\n")
    one, two = tmp_path / "fixed.csv", tmp_path / "moving.csv"
    given = ((bumps(grid, 0.0), grid.affine), (bumps(grid, 0.4), grid.affine))
    with pytest.raises(BadInput, match=r"moving\.csv: has 2 points and .*fixed\.csv has 1"):
        warpwright.register(*given, fixed_points=one, moving_points=two, space="ras")
    with pytest.raises(BadInput, match=r"fixed\.csv: fixed points were given without moving points"):
        warpwright.register(*given, fixed_points=one, space="ras")


def test_the_folder_of_a_run_is_an_initial_transform(instant, tmp_path):
    grid = Grid.regular((5, 7))
    given = ((bumps(grid, 0.0), grid.affine), (bumps(grid, 0.4), grid.affine))
    first = warpwright.register(*given)
    first.save(tmp_path / "o")
    warpwright.register(*given, initial=tmp_path / "o")
    points = torch.ones(3, 2, dtype=torch.float64)
    assert torch.allclose(instant.given["initial"](points), first.transform(points), atol=1e-5)  # float32 in the file
    with pytest.raises(BadInput, match="o: holds a displacement field"):
        warpwright.register(*given, initial=tmp_path / "o", transform="affine")


@pytest.mark.usefixtures("instant")
def test_outside_a_ct_there_is_air():
    grid = Grid.regular((5, 7, 6))
    result = warpwright.register((bumps(grid, 0.0), grid.affine), (1000 * bumps(grid, 0.4) - 500, grid.affine))
    assert result.moved.data.min() == result.moving.data.min()
    assert (result.moved.data[0, -1] == result.moving.data.min()).all()  # the shift looks out of the image there


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fixed": 3}, "fixed: expected a path"),
        ({"fixed": (np.zeros((5, 7), np.float32), np.eye(3))}, "every voxel is 0"),
        ({"fixed": (np.full((5, 7), np.nan, np.float32), np.eye(3))}, "NaN"),
        ({"fixed": (np.ones((5,), np.float32), np.eye(2))}, "2 or 3 axes"),
        ({"fixed": (np.ones((5, 7), np.float32), np.eye(4))}, "3 x 3"),
        ({"fixed": (np.ones((5, 7), np.float32), np.diag([0.0, 1, 1]))}, "fixed: .* singular"),
        ({"fixed_mask": (-np.ones((5, 7), np.float32), np.eye(3))}, "negative"),
        ({"fixed_mask": (np.zeros((5, 7), np.float32), np.eye(3))}, "empty"),
        ({"fixed_points": np.zeros((2, 3)), "moving_points": np.zeros((2, 2))}, "fixed points"),
        ({"initial": Affine.identity(3)}, "initial: the initial transform has 3 axes"),
        ({"fixed_series": "1.2"}, "fixed: is no DICOM folder"),
        (
            {"initial": DisplacementField(torch.ones(2, 5, 7), Grid.regular((5, 7))), "transform": "rigid"},
            "initial: holds a displacement field",
        ),
        ({"fixed_labels": (np.ones((5, 7), np.int16), np.eye(3))}, "without moving labels"),
    ],
)
def test_bad_values_in_memory(change, words):
    grid = Grid.regular((5, 7))
    given = {"fixed": (bumps(grid, 0.0), grid.affine), "moving": (bumps(grid, 0.4), grid.affine)} | change
    fixed, moving = given.pop("fixed"), given.pop("moving")
    with pytest.raises(BadInput, match=words):
        warpwright.register(fixed, moving, **given)


def test_the_number_of_threads_changes_no_byte_of_the_transforms(tmp_path):
    pytest.importorskip("numba")
    pair = next(pair for pair in bundled_pairs() if "hippocampus" in str(pair.fixed))
    written = []
    for threads in (1, 2):
        folder = warpwright.register(pair.fixed, pair.moving, preset="fast", threads=threads).save(tmp_path / str(threads))
        written.append([(folder / name).read_bytes() for name in ("transform.h5", "inverse.h5")])
    assert written[0] == written[1]
