"""Photographs in colour: register, apply, and what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import warpwright
from warpwright.cli.main import main
from warpwright.energies.losses import Images, Smoothness
from warpwright.energies.similarity import MSE
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import read_image, read_transform, write_image
from warpwright.methods import Model, ModelSettings, Settings
from warpwright.networks import VoxelMorph
from warpwright.product import plan as plan_module
from warpwright.product.model_folder import write_model
from warpwright.transforms import Affine, Preparation, resample

LEFT = {"transform.h5", "inverse.h5", "moved.nii.gz", "moved.png", "jacobian.nii.gz", "figure.png", "result.json"}
SHAPE = (88, 96)
SHIFT = (5.0, -4.0)  # pixels, from fixed to moving
RADIUS = 38


def photograph(shift: tuple[float, float]) -> np.ndarray:
    """(3, *S) 0 to 255: the same vessels, moved, through a disc that stays where it is."""
    rows, columns = np.indices(SHAPE, dtype=float)
    disc = (rows - 43) ** 2 + (columns - 48) ** 2 < RADIUS**2
    y, x = rows - shift[0], columns - shift[1]
    vessels = sum(
        np.exp(-(((y - 43 - a * np.sin(x / b + a)) / 1.8) ** 2)) + np.exp(-(((x - 48 - a * np.sin(y / b)) / 1.8) ** 2))
        for a, b in ((6, 11), (-17, 14), (22, 17))
    )
    ground = 1 + 0.1 * np.sin(x / 9) * np.cos(y / 7) - 0.5 * np.clip(vessels, 0, 1)
    return (disc * np.array([190.0, 110.0, 50.0])[:, None, None] * ground).clip(0, 255)


def written(folder: Path, suffix: str, data: np.ndarray | None = None) -> list[str]:
    """Two files, the second with other data if there are any."""
    arrays = {"fixed": photograph((0, 0)), "moving": photograph(SHIFT) if data is None else data}
    for name, array in arrays.items():
        grid = Grid.regular(array.shape[1:])
        write_image(folder / f"{name}{suffix}", Image(torch.tensor(array, dtype=torch.float32), grid))
    return [str(folder / f"{name}{suffix}") for name in arrays]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run; the one line on standard error."""
    capsys.readouterr()
    assert main(arguments) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err.count("\n") == 1, caught.err
    return caught.err


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two JPEG files, and in it `out`, what `register --photograph fundus` left."""
    folder = tmp_path_factory.mktemp("photographs")
    options = ["--photograph", "fundus", "--preset", "fast", "--transform", "rigid"]
    assert main(["register", *written(folder, ".jpg"), "--output", str(folder / "out"), *options]) == 0
    return folder


def test_one_command_registers_two_photographs(registered: Path) -> None:
    assert {path.name for path in (registered / "out").iterdir()} == LEFT
    result = json.loads((registered / "out" / "result.json").read_text())
    assert result["photograph"] == "fundus"
    share = 100 * np.pi * RADIUS**2 / np.prod(SHAPE)
    found = [float(note.split("field of view is ")[1].split()[0]) for note in result["notes"]]
    assert found == pytest.approx([share, share], abs=1.5)  # the rim of a JPEG is not sharp
    grid = read_image(registered / "fixed.jpg").grid
    places = torch.tensor([[43.0, 48.0], [30.0, 60.0]], dtype=torch.float64)
    moved = grid.to_voxel(read_transform(registered / "out" / "transform.h5")(grid.to_world(places)))
    # the shift is 6.4 pixels; the discs, which do not move, must not hold it
    assert (moved - places - torch.tensor(SHIFT)).norm(dim=1).max() < 0.5


def test_the_moved_picture_is_the_photograph(registered: Path, tmp_path: Path) -> None:
    shown = imread(registered / "out" / "moved.png")  # by another reader, rows first; SimpleITK's first axis is along them
    assert shown.shape == (SHAPE[1], SHAPE[0], 3)
    shown = np.rint(255 * shown).transpose(2, 1, 0)
    assert main([*applied(registered, registered / "moving.jpg"), "--output", str(tmp_path / "again.png")]) == 0
    np.testing.assert_array_equal(read_image(tmp_path / "again.png").data, shown)
    fixed, moving = photograph((0, 0)), photograph(SHIFT)
    rows, columns = np.indices(SHAPE)
    inner = (rows - 43) ** 2 + (columns - 48) ** 2 < (RADIUS - 9) ** 2
    assert np.abs(shown - fixed)[:, inner].mean() < 0.4 * np.abs(moving - fixed)[:, inner].mean()
    enhanced = read_image(registered / "out" / "moved.nii.gz").data
    assert enhanced.shape == (1, *SHAPE)
    assert 0.5 < enhanced.max() <= 1


def applied(folder: Path, image: str | Path) -> list[str]:
    return ["apply", str(folder / "out"), "--image", str(image)]


@pytest.mark.parametrize(("suffix", "error"), [(".png", 0.5), (".tif", 0.0), (".bmp", 0.5), (".jpg", 4.0)])
def test_colours_in_and_out(registered: Path, tmp_path: Path, suffix: str, error: float) -> None:
    """What rounding before and after, and compression twice, change in the mean."""
    paths, output = written(tmp_path, suffix), str(tmp_path / f"moved{suffix}")
    assert main([*applied(registered, paths[1]), "--output", output]) == 0
    got, source = read_image(output), read_image(paths[1])
    taken = Image(torch.tensor(photograph(SHIFT), dtype=torch.float32), source.grid)
    expected = resample(taken, read_transform(registered / "out" / "transform.h5"), source.grid)
    assert got.channels == 3
    assert (got.data - expected.data).abs().mean() <= error + 1e-3  # float32 in a TIFF
    arguments = ["register", *paths, "--output", str(tmp_path / "o"), "--photograph", "green", "--dry-run"]
    assert main(arguments) == 0


def test_alpha(registered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clear = np.concatenate([photograph(SHIFT), np.full((1, *SHAPE), 200.0)])
    paths = written(tmp_path, ".png", clear)
    assert main(["register", *paths, "--output", str(tmp_path / "o"), "--photograph", "grey", "--dry-run"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert notes == [f"{paths[1]}: its alpha channel is left out"]
    arguments = [*applied(registered, paths[1]), "--output"]
    assert "1 or 3 channels, this image has 4" in refused([*arguments, str(tmp_path / "a.jpg")], capsys)
    assert main([*arguments, str(tmp_path / "a.png")]) == 0
    assert read_image(tmp_path / "a.png").channels == 4


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What reaches the method, in the place of a registration."""
    seen: dict[str, Any] = {}

    def answer(fixed: Image, moving: Image, settings: Settings, **more: Any) -> warpwright.Registration:
        seen.update(more, fixed=fixed, moving=moving, settings=settings)
        stage = warpwright.methods.Stage("made up", 0.1, 1, 1.0, 0.5, "done")
        return warpwright.Registration(Affine.identity(2), Affine.identity(2), 0.0, (stage,), 1.0, 0.5, 0.9)

    monkeypatch.setattr(plan_module, "register_pair", answer)
    return seen


def test_what_is_compared(given: dict[str, Any], tmp_path: Path) -> None:
    paths = written(tmp_path, ".png")
    red, green, blue = read_image(paths[0]).data
    result = warpwright.register(*paths, photograph="green")
    assert torch.equal(given["fixed"].data[0], green)
    assert given["fixed_mask"] is None
    assert result.colours is not None
    assert torch.equal(result.colours.data, read_image(paths[1]).data)
    warpwright.register(*paths, photograph="grey")
    torch.testing.assert_close(given["fixed"].data[0], 0.299 * red + 0.587 * green + 0.114 * blue)
    warpwright.register(*paths, photograph="fundus")
    outside = given["fixed_mask"].data == 0
    assert abs(float((~outside).sum()) - np.pi * RADIUS**2) < 30  # pixels of the disc
    assert (given["fixed"].data[outside] == 0).all()
    assert given["fixed"].data[~outside].std() > 0.1
    assert torch.equal(given["moving_mask"].data, given["fixed_mask"].data)


def test_own_masks_come_before_the_field_of_view(given: dict[str, Any], tmp_path: Path) -> None:
    paths = written(tmp_path, ".png")
    mask = np.zeros(SHAPE, np.float32)
    mask[30:50, 20:70] = 1
    warpwright.register(*paths, photograph="fundus", moving_mask=(mask, read_image(paths[1]).grid.affine))
    assert given["moving_mask"].data.sum() == mask.sum()
    assert given["fixed_mask"].data.sum() > 2 * mask.sum()


@pytest.mark.parametrize("scale", [1 / 255, 257.0, 16.0])
def test_a_photograph_of_more_bits_or_fractions_is_the_same(given: dict[str, Any], tmp_path: Path, scale: float) -> None:
    image = Image(torch.tensor(photograph((0, 0)) / photograph((0, 0)).max() * 255, dtype=torch.float32), Grid.regular(SHAPE))
    scaled = Image(image.data * scale, image.grid)
    result = warpwright.register(image, scaled, photograph="fundus")
    torch.testing.assert_close(given["moving"].data, given["fixed"].data, atol=0.05, rtol=0)  # a level of grey
    assert (given["moving"].data - given["fixed"].data).abs().mean() < 1e-3
    assert result.colours is not None
    torch.testing.assert_close(result.colours.data, image.data, atol=1.0, rtol=0)
    result.save(tmp_path / "o")
    assert read_image(tmp_path / "o" / "moved.png").data.max() >= 254


def test_grey_photographs_are_their_own_green(given: dict[str, Any], tmp_path: Path) -> None:
    paths = written(tmp_path, ".png", photograph(SHIFT)[1:2])
    result = warpwright.register(paths[0], paths[1], photograph="fundus")
    of_green = given["moving"].data
    warpwright.register(*written(tmp_path, ".png"), photograph="fundus")
    torch.testing.assert_close(of_green, given["moving"].data)
    assert result.colours is not None
    assert result.colours.channels == 1


@pytest.mark.usefixtures("given")
def test_resolutions_that_differ_are_told() -> None:
    data = torch.tensor(photograph((0, 0)), dtype=torch.float32)
    pair = [Image(data, Grid.regular(SHAPE, spacing), name) for name, spacing in (("a", (1, 1)), ("b", (0.1, 0.1)))]
    (note,) = warpwright.register(*pair, photograph="grey").notes
    assert note.startswith("b: its pixels are 0.1 mm, those of a 1 mm")
    assert not warpwright.register(pair[0], pair[0], photograph="grey").notes


def test_a_model_sees_what_a_search_sees(tmp_path: Path) -> None:
    torch.manual_seed(1)
    loss = (Images(similarity=MSE(), weight=10.0), Smoothness(on="velocity", weight=0.01))
    network = VoxelMorph(form="vm1", scale=0.25)
    model = Model(ModelSettings(dim=2, preparation=Preparation(start="none"), network=network, loss=loss))
    write_model(tmp_path / "model", model, card="", summary={})
    paths = written(tmp_path, ".jpg")
    options = ["--photograph", "fundus", "--model", str(tmp_path / "model")]
    assert main(["register", *paths, "--output", str(tmp_path / "o"), *options]) == 0
    assert {path.name for path in (tmp_path / "o").iterdir()} == LEFT
    assert main(["register", *paths, "--output", str(tmp_path / "p"), *options[2:]]) == 2


def bad(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no photographs to be used, and what is said of them."""
    dim = (photograph(SHIFT) / 30).round()
    flat = np.full((3, *SHAPE), 90.0)
    disc = (photograph(SHIFT) > 0) * 120.0
    spot = np.zeros((3, *SHAPE))
    spot[:, 40:45, 40:44] = 150 * np.random.default_rng(0).random((3, 5, 4))
    arrays = {
        "flat.png": (flat, "every voxel is 90"),
        "disc.png": (disc, "every pixel that counts is 120"),
        "dark.png": (dim, "shows no field of view"),
        "spot.png": (spot, "shows no field of view (its largest part that is not dark covers 0.24 %"),
        "small.png": (photograph(SHIFT)[:, 40:47, 30:80], "(7, 50) pixels, at least 8"),
        "five.tif": (np.concatenate([photograph(SHIFT)] * 2)[:5], "5 channels"),
        "negative.tif": (photograph(SHIFT) - 10, "negative"),
        "volume.nii.gz": (photograph(SHIFT)[:, :, :, None].repeat(9, 3), "3 axes"),
    }
    for name, (array, _) in arrays.items():
        write_image(folder / name, Image(torch.tensor(array, dtype=torch.float32), Grid.regular(array.shape[1:])))
    return {name: (folder / name, words) for name, (_, words) in arrays.items()}


@pytest.mark.parametrize(
    "name", ["flat.png", "disc.png", "dark.png", "spot.png", "small.png", "five.tif", "negative.tif", "volume.nii.gz"]
)
def test_no_photograph_to_be_used(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, words = bad(tmp_path)[name]
    good = written(tmp_path, ".jpg")[0]
    for pair in ([good, str(path)], [str(path), good]):
        said = refused(["register", *pair, "--output", str(tmp_path / "o"), "--photograph", "fundus"], capsys)
        assert words in said
        assert name in said
    assert not (tmp_path / "o").exists()


def test_colours_without_the_option_are_refused_and_told_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(["register", *written(tmp_path, ".jpg"), "--output", str(tmp_path / "o")], capsys)
    assert "fixed.jpg: has 3 channels" in said
    assert "--photograph fundus, green or grey" in said
    volume = Image(torch.rand(3, 9, 8, 7), Grid.regular((9, 8, 7)), "volume")
    with pytest.raises(BadInput, match=r"volume: has 3 channels \(4-D or RGB\), an image of one was expected$"):
        warpwright.register(volume, volume)
    said = refused(["register", *written(tmp_path, ".jpg"), "--output", str(tmp_path / "o"), "--photograph", "x"], capsys)
    assert "photograph" in said
