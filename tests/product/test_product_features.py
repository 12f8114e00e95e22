"""What a model of features sees, as images and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from warpwright.cli.main import main
from warpwright.data import bundled_pairs
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.io import read_image, write_image
from warpwright.methods import Implicit, Model, ModelSettings
from warpwright.networks.features import FeatureUNet
from warpwright.product.features import features, main_colours
from warpwright.product.model_folder import write_model
from warpwright.transforms import Preparation


@pytest.fixture
def model(dim: int, tmp_path: Path) -> Path:
    torch.manual_seed(2)
    network = Implicit(features=FeatureUNet(outputs=5, scales=(4, 1), widths=0.25), steps=(1, 1))
    settings = ModelSettings(dim=dim, network=network, layers=(), preparation=Preparation(spacing=(2.0,) * dim))
    write_model(tmp_path / "model", Model(settings), card="made up", summary={})
    return tmp_path / "model"


def turned(dim: int) -> Image:
    """Of 1 mm, its axes the other way round."""
    shape = (30, 22, 26)[:dim]
    flip = np.diag([-1.0, 1.0, -1.0][:dim])
    affine = np.eye(dim + 1)
    affine[:dim, :dim] = flip
    affine[:dim, dim] = (5.0, -3.0, 7.0)[:dim]
    return Image(torch.rand(1, *shape, generator=torch.Generator().manual_seed(1)), Grid(shape, affine), "turned")


def test_levels_lie_where_the_image_does(dim: int, model: Path) -> None:
    image = turned(dim)
    found = features(model, image)
    assert list(found) == [4, 1]
    for factor, (channels, plain) in found.items():
        assert channels.channels == 5
        assert channels.grid.spacing == pytest.approx((2.0 * factor,) * dim)
        off = np.abs(channels.grid.centre - image.grid.centre)
        assert off.max() <= 8.0 * factor  # margins up to a multiple of 16 voxels may lie on one side
        assert plain.grid.spacing == channels.grid.spacing
        variance = channels.data.flatten(1).var(1, correction=0).mean()
        assert float(variance) == pytest.approx(1.0, rel=1e-3)


def test_the_command_writes_every_level_and_a_picture(dim: int, model: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "image.nii.gz", turned(dim))
    arguments = ["features", str(model), str(tmp_path / "image.nii.gz"), "--output", str(tmp_path / "seen")]
    assert main(arguments) == 0
    assert {path.name for path in (tmp_path / "seen").iterdir()} == {"features_4x.nii.gz", "features_1x.nii.gz", "features.png"}
    written = read_image(tmp_path / "seen" / "features_4x.nii.gz")
    expected = features(model, tmp_path / "image.nii.gz")[4][0]
    assert written.grid.same_as(expected.grid)
    assert torch.allclose(written.data, expected.data, atol=1e-5)
    picture = imread(tmp_path / "seen" / "features.png")
    assert picture.shape[1] > picture.shape[0] > 100
    assert len(np.unique(picture[..., 0])) > 50
    assert main(arguments) == 2  # what is there stays
    assert main([*arguments, "--force"]) == 0


def test_other_models_and_other_images_are_refused(model: Path, dim: int) -> None:
    one_pass = next(pair.models[0] for pair in bundled_pairs() if pair.models)
    with pytest.raises(BadInput, match="expected a model of features"):
        features(one_pass, turned(3))
    with pytest.raises(BadInput, match=f"has {5 - dim} axes, the model is for {dim}"):
        features(model, turned(5 - dim))


def test_colours_are_the_main_components() -> None:
    """Three independent channels of falling strength, mixed by a rotation, come back in this order."""
    draw = torch.Generator().manual_seed(3)
    parts = torch.randn(3, 40, 30, generator=draw, dtype=torch.float64) * torch.tensor((9.0, 3.0, 1.0)).reshape(3, 1, 1)
    turn = torch.linalg.qr(torch.randn(6, 3, generator=draw, dtype=torch.float64)).Q
    colours = main_colours(torch.einsum("ij,jxy->ixy", turn, parts))
    assert float(colours.min()) >= 0
    assert float(colours.max()) <= 1
    for colour, part in zip(colours, parts, strict=True):
        assert abs(float(torch.corrcoef(torch.stack([colour.flatten().double(), part.flatten()]))[0, 1])) > 0.95
    assert main_colours(torch.rand(1, 4, 4))[1:].abs().max() == 0
