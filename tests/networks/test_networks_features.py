"""Feature extractors: published counts, where levels lie, any size, independence of a batch, saving memory, learning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from warpwright.errors import BadInput
from warpwright.networks import save_memory
from warpwright.networks.features import (
    FeatureArchitecture,
    FeatureExtractor,
    FeatureLKU,
    FeatureLKUEncoder,
    FeatureUNet,
    FeatureUNetEncoder,
)
from warpwright.networks.features.lku import Enlarged, per_image

KINDS = {
    "unet": FeatureUNet(outputs=3, widths=0.25),
    "unet-encoder": FeatureUNetEncoder(outputs=3, widths=0.25),
    "lku": FeatureLKU(outputs=3, widths=0.125),
    "lku-encoder-1": FeatureLKUEncoder(outputs=3, widths=0.125, form="v1"),
    "lku-encoder-2": FeatureLKUEncoder(outputs=3, widths=0.125),
}
EVERY = pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
DIMS = pytest.mark.parametrize("dim", [2, 3])


def built(settings: FeatureArchitecture, dim: int, channels: int = 1) -> FeatureExtractor:
    torch.manual_seed(1)
    return settings.build(dim, channels).double()


def image(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (FeatureUNet(scales=(16, 8, 4, 2, 1)), 523_546),  # the authors' code has all heads
        (FeatureUNetEncoder(), 184_174),
        (FeatureLKU(scales=(8, 4, 2, 1)), 8_972_070),
        (FeatureLKUEncoder(form="v1"), 1_094_012),
        (FeatureLKUEncoder(form="v2"), 1_308_527),
    ],
)
def test_published_counts(settings: FeatureArchitecture, expected: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in settings.build(3).parameters()) == expected


@DIMS
@EVERY
@pytest.mark.parametrize("sizes", [(1, 2, 3), (17, 8, 33), (16, 16, 16)])
def test_levels_cover_an_image_of_any_size(settings: FeatureArchitecture, dim: int, sizes: tuple[int, ...]) -> None:
    shape = sizes[:dim]
    network = built(settings, dim, 2)
    pyramid = network(image(2, 2, *shape))
    assert pyramid.factors == (4, 2, 1)
    for level, factor in zip(pyramid.levels, pyramid.factors, strict=True):
        assert level.isfinite().all()
        assert level.shape[:2] == (2, 3)
        for n, m, before in zip(shape, level.shape[2:], pyramid.before, strict=True):
            assert 0 <= before < network.stride
            assert m * factor % network.stride == 0
            assert factor * m - n - before in (before, before + 1)  # as much is added behind, or one voxel more


@EVERY
def test_levels_look_where_they_say(settings: FeatureArchitecture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the voxels of a level depend on is centred, on average over a block of the coarsest level, where the pyramid says.

    All that is not linear is taken out and kernels are even, so that what is left are places. What LKU's decoder stretches
    between the corners of the image lies where it falls, and is left out.
    """
    monkeypatch.setattr(torch, "group_norm", lambda features, *_: features)
    network = built(settings, 2)
    for module in list(network.modules()):
        for name, part in module.named_children():
            if isinstance(part, (nn.ReLU, nn.LeakyReLU, nn.PReLU)):
                setattr(module, name, nn.Identity())
            elif isinstance(part, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(2))
            elif isinstance(part, nn.Conv2d):
                nn.init.constant_(part.weight, 0.0 if isinstance(module, Enlarged) else 1 / part.weight[0].numel())
    picture = image(1, 1, 256, 270).requires_grad_(True)  # of which no voxel in the middle sees the border
    pyramid = network(picture)
    for level, factor in zip(pyramid.levels, pyramid.factors, strict=True):
        misses: list[list[float]] = []
        for k in range(network.stride // factor):
            voxel = [n // 2 + k for n in level.shape[2:]]
            (gradient,) = torch.autograd.grad(level[0, :, voxel[0], voxel[1]].sum(), picture, retain_graph=True)
            misses.append([])
            for axis in range(2):
                along = gradient[0, 0].sum(1 - axis)
                seen = float((along * torch.arange(len(along))).sum() / along.sum())
                misses[-1].append(seen - (factor * voxel[axis] + pyramid.offset * (factor - 1) - pyramid.before[axis]))
        assert float(torch.tensor(misses).mean(0).abs().max()) < 1e-6


@DIMS
@EVERY
def test_images_of_a_batch_do_not_see_each_other(settings: FeatureArchitecture, dim: int) -> None:
    network = built(settings, dim)
    both = image(2, 1, *(9, 12, 10)[:dim])
    together = network(both)
    for k in range(2):
        for level, alone in zip(together.levels, network(both[k : k + 1]).levels, strict=True):
            torch.testing.assert_close(level[k : k + 1], alone)


@DIMS
@EVERY
def test_every_weight_learns_and_memory_may_be_saved(settings: FeatureArchitecture, dim: int) -> None:
    network = built(settings, dim)
    picture = image(1, 1, *(20, 17, 18)[:dim])
    gradients: list[list[Tensor]] = []
    for saving in (False, True):
        save_memory(network, saving)
        network.zero_grad()
        sum(level.square().mean() for level in network(picture).levels).backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(network.parameters()))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@EVERY
def test_fewer_scales_have_fewer_weights_and_the_same_levels(settings: FeatureArchitecture) -> None:
    few = type(settings)(**{**vars(settings), "scales": (4, 1)})
    network, smaller = built(settings, 2), built(few, 2)
    kept = {name: value for name, value in network.state_dict().items() if not name.startswith("branches.1.")}
    places = {"branches.0.": "branches.0.", "branches.2.": "branches.1."}
    taken = {places.get(name[:11], name[:11]) + name[11:]: value for name, value in kept.items()}
    taken = {name: taken[name] for name in smaller.state_dict()}
    smaller.load_state_dict(taken)
    assert len(smaller.state_dict()) < len(network.state_dict())
    picture = image(1, 1, 16, 16)
    coarse, _, fine = network(picture).levels
    for found, expected in zip(smaller(picture).levels, (coarse, fine), strict=True):
        torch.testing.assert_close(found, expected)


def test_normalisation_of_one_voxel_is_nothing() -> None:
    assert not per_image(image(2, 3, 1, 1)).any()
    values = per_image(image(2, 3, 5, 7))
    torch.testing.assert_close(values.mean((2, 3)), torch.zeros(2, 3, dtype=torch.float64))
    torch.testing.assert_close(values.var((2, 3), correction=0), torch.ones(2, 3, dtype=torch.float64), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        (FeatureUNet, {"scales": ()}, r"FeatureUNet has scales \[\] and 16 outputs: expected some of \[16, 8, 4, 2, 1\]"),
        (FeatureUNetEncoder, {"scales": (8,)}, r"FeatureUNetEncoder has scales \[8\].* expected some of \[4, 2, 1\]"),
        (FeatureLKU, {"scales": (1, 2)}, r"FeatureLKU has scales \[1, 2\].* in this order"),
        (FeatureLKUEncoder, {"outputs": 0}, "and 0 outputs: .* at least 1 output"),
        (FeatureUNet, {"widths": 0.0}, "the scale of FeatureUNet must be above 0 and finite, got 0.0"),
    ],
)
def test_what_is_refused(kind: type[FeatureArchitecture], settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        kind(**settings)
