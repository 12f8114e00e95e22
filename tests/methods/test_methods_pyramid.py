"""Pyramids of features: what every block gives, how it begins, that it learns; encoders and the correlation head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles.make import normal
from warpwright.errors import BadInput
from warpwright.geometry import Grid
from warpwright.layers import Expected, MeanField, SmoothProper
from warpwright.methods import Compared, Descent, Proximal, Pyramid
from warpwright.methods.multistep import build_step, sized
from warpwright.methods.pyramid import AnyBlock
from warpwright.methods.unrolled import linearised
from warpwright.networks import Basis, BasisLogits, Correlation, Displacement, Encoder
from warpwright.networks.correlation import squared_differences
from warpwright.networks.encoder import halved
from warpwright.sampling import gaussian, warp

SHAPES = {2: (26, 31), 3: (17, 20, 18)}
BLOCKS: list[AnyBlock] = [
    Compared(),
    Compared(layer=MeanField()),
    Compared(layer=Expected()),
    Proximal(iterations=1),
    Descent(iterations=2),
]
SMALL = Encoder(widths=(4, 6, 8), finest=1, outputs=5)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: type(getattr(b, "layer", b)).__name__)
def test_a_pyramid_gives_the_field_of_every_level(block: AnyBlock, dim: int, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    step = build_step(Pyramid(encoder=SMALL, block=block), (), dim)
    images = [normal(generator, 2, 1, *SHAPES[dim]).float() for _ in range(2)]
    trail = step(*images)
    assert [e.factors for e in trail] == [(4,) * dim, (2,) * dim, (1,) * dim]
    assert all(isinstance(e, Displacement) and e.shape == SHAPES[dim] for e in trail)
    last = trail[-1]
    assert isinstance(last, Displacement)
    assert last.values.shape == (2, dim, *SHAPES[dim])
    last.values.square().sum().backward()
    silent = [name for name, p in step.named_parameters() if p.grad is None]
    assert silent == []
    assert not sized(Pyramid())


def test_identical_images_stay_where_they_are_in_unrolled_blocks(dim: int, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    image = normal(generator, 1, 1, *SHAPES[dim]).float()
    for block in (Proximal(), Descent()):
        last = build_step(Pyramid(encoder=SMALL, block=block), (), dim)(image, image)[-1]
        assert isinstance(last, Displacement)
        torch.testing.assert_close(last.values, torch.zeros_like(last.values), atol=1e-5, rtol=0)


def test_a_shift_is_found_by_comparison_without_training(generator: torch.Generator) -> None:
    """Features of random weights tell where things are; four voxels are two of the finest level."""
    torch.manual_seed(1)
    wide = gaussian(normal(generator, 1, 1, 72, 76).float(), (1.5, 1.5))
    wide = wide / wide.std()
    fixed, moving = wide[..., 4:-4, 8:-8], wide[..., 8:, 4:-12]  # moving(x + u) = fixed(x), u = (-4, 4)
    moving = moving[..., :64, :]
    last = build_step(Pyramid(block=Compared(layer=SmoothProper(iterations=12))), (), 2)(fixed, moving)[-1]
    assert isinstance(last, Displacement)
    middle = last.values[..., 16:-16, 16:-16].mean((0, 2, 3))
    np.testing.assert_allclose(middle.detach(), [-4.0, 4.0], atol=0.5)


def test_linearised_features_are_those_of_autograd(generator: torch.Generator) -> None:
    """The slope of a quadratic under a shift is exact by central differences."""
    axis = torch.arange(9, dtype=torch.float64)
    moving = (axis[:, None] ** 2 + 3 * axis[None]).expand(1, 1, 9, 9)
    field = torch.full((1, 2, 9, 9), 0.5, dtype=torch.float64)
    fixed = normal(generator, 1, 1, 9, 9)
    residual, slopes = linearised(fixed, moving, field)
    torch.testing.assert_close(residual, warp(moving, field) - fixed)
    inner = slopes[0, 0, :, 2:-3, 2:-3]
    torch.testing.assert_close(inner[0], (2 * (axis + 0.5))[2:-3, None].expand(4, 4))
    torch.testing.assert_close(inner[1], torch.full((4, 4), 3.0, dtype=torch.float64))


def test_correlation_costs_are_squared_differences(dim: int, generator: torch.Generator) -> None:
    shape = (5, 6, 4)[:dim]
    fixed, moving = normal(generator, 2, 3, *shape), normal(generator, 2, 3, *shape)
    offsets = Basis(reach=2).vectors(dim).long().tolist()
    found = squared_differences(fixed, moving, offsets)
    for k, offset in enumerate(offsets):
        for place in np.ndindex(*shape):
            there = tuple(int(np.clip(p + o, 0, n - 1)) for p, o, n in zip(place, offset, shape, strict=True))
            expected = (fixed[(..., *place)] - moving[(..., *there)]).square().mean(1)
            torch.testing.assert_close(found[(slice(None), k, *place)], expected)


def test_the_correlation_head_gives_distributions(dim: int, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    network = Correlation(reach=2).build(dim)
    fixed = normal(generator, 1, 1, *SHAPES[dim]).float()
    estimate = network(fixed, fixed)
    assert isinstance(estimate, BasisLogits)
    assert estimate.factors == (2,) * dim
    assert estimate.values.shape[1] == 5**dim
    assert (estimate.values[:, 5**dim // 2] > estimate.values.amax(1) - 1e-4).all()  # nothing is likelier than no displacement
    assert estimate.values.amin() < -0.1


def test_halving_keeps_places(dim: int) -> None:
    """A linear ramp is read where `Grid.downsample` puts the coarse voxels, away from a repeated border."""
    for shape in ((8, 9, 6), (7, 12, 5), (1, 6, 9)):
        grid = Grid.regular(shape[:dim])
        ramp = grid.to_world(torch.stack(torch.meshgrid(*[torch.arange(n) for n in grid.shape], indexing="ij"), -1).double())
        coarse = grid.downsample(tuple(2 if n > 1 else 1 for n in grid.shape))
        expected = coarse.to_world(
            torch.stack(torch.meshgrid(*[torch.arange(n) for n in coarse.shape], indexing="ij"), -1).double()
        )
        found: Tensor = halved(ramp.movedim(-1, 0)[None])[0].movedim(0, -1)
        assert found.shape == expected.shape
        inner = tuple(slice(1, -1) if n > 2 else slice(None) for n in coarse.shape)
        torch.testing.assert_close(found[inner], expected[inner])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Encoder(widths=()),
        lambda: Encoder(widths=(4, 4), finest=2),
        lambda: Correlation(reach=0),
        lambda: Correlation(encoder=SMALL),
        lambda: Compared(reach=0),
        lambda: Proximal(iterations=0),
        lambda: Descent(width=0),
        lambda: MeanField(iterations=0),
    ],
)
def test_settings_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(BadInput):
        make()  # type: ignore[operator]
