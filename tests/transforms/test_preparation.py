"""Working grids follow the anatomy, not the header; what is laid on them."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import permutations, product
from math import nan

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from oracles.make import homogeneous, rotation
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image
from warpwright.sampling import Window, downsample
from warpwright.transforms import Affine, Preparation, centring, laid, working_grid

SHAPE, SPACING = (13, 18, 11), (0.7, 1.3, 2.1)
ROUNDED = 0.0 if find_spec("numba") else 2e-6  # without kernels torch turns places into float32 shares of the image


def oblique(dim: int, angle: float = 0.3) -> Grid:
    """Near the world's axes."""
    linear = rotation(dim, angle) @ np.diag(SPACING[:dim])
    return Grid(SHAPE[:dim], homogeneous(linear, np.array([3.0, -2.0, 5.0])[:dim]))


def anatomy(dim: int, angle: float = 0.3, channels: int = 2) -> Image:
    generator = torch.Generator().manual_seed(6)
    return Image(torch.rand(channels, *SHAPE[:dim], generator=generator), oblique(dim, angle), "anatomy")


def headers(dim: int) -> list[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """Every order and direction of the voxel axes: RAS first, then LAS, LPS and all others."""
    return list(product(permutations(range(dim)), product((False, True), repeat=dim)))


def under(image: Image, order: tuple[int, ...], flipped: tuple[bool, ...]) -> Image:
    """The same voxels at the same places in the world, stored in another order and direction."""
    dim = image.grid.dim
    data = image.data.permute(0, *(1 + k for k in order)).flip([1 + k for k, turn in enumerate(flipped) if turn])
    change = np.zeros((dim + 1, dim + 1))
    change[dim, dim] = 1
    for new, (old, turn) in enumerate(zip(order, flipped, strict=True)):
        change[old, new] = -1 if turn else 1
        change[old, dim] = image.grid.shape[old] - 1 if turn else 0
    return Image(data.contiguous(), Grid(tuple(data.shape[1:]), image.grid.affine @ change), image.name)


def voxels(grid: Grid) -> Tensor:
    """(N, D) voxel coordinates."""
    return torch.tensor(np.indices(grid.shape).reshape(grid.dim, -1).T, dtype=torch.float64)


def still(dim: int) -> Affine:
    return Affine.identity(dim)


# ---------------------------------------------------------------------------------------------------------------- grid


SIZES = pytest.mark.parametrize(
    ("spacing", "shape"),
    [(None, None), (None, (9, 23, 11)), ((1.1, 0.9, 1.7), None), ((1.1, 0.9, 1.7), (16, 12, 15))],
    ids=("own", "own shape", "new spacing", "new shape"),
)


@SIZES
@pytest.mark.parametrize("angle", [0.0, 0.3])
def test_a_header_changes_nothing(
    dim: int, angle: float, spacing: tuple[float, ...] | None, shape: tuple[int, ...] | None
) -> None:
    image = anatomy(dim, angle)
    spacing, shape = spacing and spacing[:dim], shape and shape[:dim]
    expected = working_grid(image.grid, spacing, shape)
    for header in headers(dim):
        other = under(image, *header).grid
        assert working_grid(other, spacing, shape).same_as(expected, 1e-9), header
    cosines = expected.direction
    assert (np.diag(cosines) > 0).all()
    assert (np.abs(cosines).argmax(0) == np.arange(dim)).all()
    np.testing.assert_allclose(expected.spacing, spacing or SPACING[:dim])
    np.testing.assert_allclose(expected.direction, image.grid.direction, atol=1e-12)  # as oblique as the image


@pytest.mark.parametrize("angle", [0.7, 1.2, 2.0, -2.6])
def test_strongly_oblique_axes_are_told_apart(dim: int, angle: float) -> None:
    """Each axis goes to one of the world's and runs up it; no lattice point moves."""
    image = anatomy(dim, angle)
    found = working_grid(image.grid)
    assert sorted(found.shape) == sorted(SHAPE[:dim])
    assert (np.diag(found.direction) > 0).all()
    at = image.grid.to_voxel(found.to_world(voxels(found)))
    torch.testing.assert_close(at, at.round(), atol=1e-9, rtol=0)
    assert at.amin(0).round().abs().sum() == 0
    assert (at.amax(0).round() == torch.tensor(SHAPE[:dim]) - 1).all()


def test_the_own_spacing_keeps_voxels_where_they_are(dim: int) -> None:
    """A block of the image's voxels, and added ones in line with them; in the middle to half a voxel."""
    grid = oblique(dim)
    for shape in ((13, 18, 11), (9, 23, 12), (4, 18, 16), (30, 1, 8)):
        found = working_grid(grid, None, shape[:dim])
        assert found.shape == shape[:dim]
        at = grid.to_voxel(found.to_world(torch.zeros(1, dim, dtype=torch.float64)))[0]
        torch.testing.assert_close(at, at.round(), atol=1e-9, rtol=0)
        middle = grid.to_voxel(torch.tensor(found.centre)[None])[0] - (torch.tensor(grid.shape) - 1) / 2
        assert middle.abs().max() < 0.5 + 1e-9
    close = tuple(s * f for s, f in zip(SPACING[:dim], (1.0009, 0.9995, 1.0), strict=False))
    assert working_grid(grid, close).same_as(working_grid(grid), 1e-9)
    far = tuple(s * f for s, f in zip(SPACING[:dim], (1.0, 1.002, 1.0), strict=False))
    np.testing.assert_allclose(working_grid(grid, far).spacing, far)


def test_a_new_spacing_holds_the_image(dim: int) -> None:
    grid = oblique(dim)
    spacing = (1.1, 0.9, 1.7)[:dim]
    found = working_grid(grid, spacing)
    extent = np.array(SHAPE[:dim]) * SPACING[:dim]
    assert found.shape == tuple(int(np.ceil(e / s)) for e, s in zip(extent, spacing, strict=True))
    np.testing.assert_allclose(found.centre, grid.centre, atol=1e-9)
    corners = torch.tensor(list(product(*((-0.5, n - 0.5) for n in grid.shape))), dtype=torch.float64)
    at = found.to_voxel(grid.to_world(corners))
    assert (at > -0.5 - 1e-9).all()
    assert (at < torch.tensor(found.shape, dtype=torch.float64) - 0.5 + 1e-9).all()
    whole = tuple(2 * s for s in SPACING[:dim])
    assert working_grid(Grid((12, 18, 10)[:dim], grid.affine), whole).shape == (6, 9, 5)[:dim]  # no voxel for rounding


def test_the_whole_image_is_looked_at_whatever_the_shape_in_training(dim: int) -> None:
    for spacing in (None, (1.1, 0.9, 1.7)[:dim]):
        preparation = Preparation(spacing=spacing, shape=(5, 40, 7)[:dim])
        assert preparation.whole(oblique(dim)).same_as(working_grid(oblique(dim), spacing), 0)
        assert preparation.grid(oblique(dim)).shape == (5, 40, 7)[:dim]


def test_a_fitted_grid_has_the_shape_and_holds_the_image(dim: int) -> None:
    """It begins at the spacing of training, which grows only along axes along which the image does not fit."""
    grid = oblique(dim)
    for spacing in (None, (1.1, 0.9, 1.7)[:dim]):
        shape = (5, 40, 7)[:dim]
        preparation = Preparation(spacing=spacing, shape=shape)
        found, whole = preparation.fitted(grid), preparation.whole(grid)
        assert found.shape == shape
        np.testing.assert_allclose(found.centre, grid.centre, atol=max(whole.spacing))  # whole voxels where the spacing stays
        for s, n, before, m in zip(found.spacing, shape, whole.spacing, whole.shape, strict=True):
            assert s == pytest.approx(before * max(1, m / n))
        corners = torch.tensor(list(product(*((-0.5, n - 0.5) for n in grid.shape))), dtype=torch.float64)
        at = found.to_voxel(grid.to_world(corners))
        assert (at > -0.5 - 1e-6).all()
        assert (at < torch.tensor(shape, dtype=torch.float64) - 0.5 + 1e-6).all()
    assert Preparation().fitted(grid).same_as(Preparation().whole(grid), 0)
    roomy = Preparation(shape=tuple(n + 4 for n in grid.shape))
    assert roomy.fitted(grid).same_as(roomy.grid(grid), 1e-9)  # it fits: as in training


def test_the_wrong_number_of_axes_is_refused(dim: int) -> None:
    other, words = 5 - dim, f"has {5 - dim} axes, the image has {dim}: expected the same"
    for settings, name in (({"spacing": (1.0,) * other}, "spacing"), ({"shape": (8,) * other}, "shape")):
        with pytest.raises(BadInput) as error:
            Preparation(**settings).grid(oblique(dim))  # pyright: ignore[reportArgumentType]
        assert error.value.args == (f"the model's {name} {words}",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spacing": (1.0, 0.0)}, "spacing of a preparation must be above 0 mm, got"),
        ({"spacing": (nan, 1.0)}, "spacing of a preparation must be above 0 mm, got"),
        ({"spacing": ()}, "spacing of a preparation must be above 0 mm, got"),
        ({"shape": (8, 0)}, "shape of a preparation must be at least 1 voxel, got"),
        ({"shape": ()}, "shape of a preparation must be at least 1 voxel, got"),
    ],
)
def test_bad_preparations_are_refused(settings: dict[str, tuple[float, ...]], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Preparation(**settings)  # pyright: ignore[reportArgumentType]


# --------------------------------------------------------------------------------------------------------------- start


def test_starts(dim: int) -> None:
    fixed = oblique(dim)
    moving = Grid((8, 7, 9)[:dim], homogeneous(np.diag([-1.5, 1.1, 0.6][:dim]), np.array([40.0, -60.0, 7.0])[:dim]))
    middle = torch.tensor(fixed.centre)[None]
    assert (Preparation(start="none").affine(fixed, moving).matrix == np.eye(dim + 1)).all()
    for start in (Preparation().affine(fixed, moving), centring(fixed, moving)):
        np.testing.assert_allclose(start(middle)[0].numpy(), moving.centre, atol=1e-12)
        np.testing.assert_allclose(start.matrix[:-1, :-1], np.eye(dim))


def test_boxes_are_laid_on_one_another(dim: int) -> None:
    """Of images along the world's axes, whatever their headers: corner on corner."""
    fixed = anatomy(dim, 0.0)
    moving = Image(torch.zeros(1, *(8, 7, 9)[:dim]), Grid.regular((8, 7, 9)[:dim], (1.5, 1.1, 0.6)[:dim]))
    for header in headers(dim):
        start = Preparation(start="box").affine(fixed.grid, under(moving, *header).grid)
        ends = [torch.tensor([[-0.5] * dim, [n - 0.5 for n in i.grid.shape]], dtype=torch.float64) for i in (fixed, moving)]
        corners = [image.grid.to_world(end) for image, end in zip((fixed, moving), ends, strict=True)]
        torch.testing.assert_close(start(corners[0]), corners[1], atol=1e-9, rtol=0)


# ---------------------------------------------------------------------------------------------------------------- laid


@SIZES
def test_the_same_anatomy_gives_the_same_working_image(
    dim: int, spacing: tuple[float, ...] | None, shape: tuple[int, ...] | None
) -> None:
    image = anatomy(dim)
    moved = Affine(homogeneous(rotation(dim, 0.05), np.array([0.4, -0.7, 0.2])[:dim]))
    preparation = Preparation(spacing=spacing and spacing[:dim], shape=shape and shape[:dim])
    grid = preparation.grid(image.grid)
    for transform, size in ((still(dim), ROUNDED if spacing is None else 2e-5), (moved, 2e-5)):
        expected = laid(image, transform, grid)
        assert expected.std() > 0.1
        for header in headers(dim)[1:]:
            other = under(image, *header)
            found = laid(other, transform, preparation.grid(other.grid))
            torch.testing.assert_close(found, expected, atol=size, rtol=0)  # float32 places, which headers round differently


def test_the_own_spacing_interpolates_nothing(dim: int) -> None:
    """Every value is one of the image, or 0 where voxels were added."""
    image = anatomy(dim)
    for shape in ((13, 18, 11), (9, 23, 12), (16, 7, 9)):
        wanted, expected = shape[:dim], image.data.numpy()
        for axis, (n, m) in enumerate(zip(SHAPE[:dim], wanted, strict=True), start=1):
            before = (m - n + 1) // 2  # voxels added (or, negative, taken away) in front: one more than behind if odd
            pad = [(0, 0)] * (dim + 1)
            pad[axis] = (max(before, 0), max(m - n - before, 0))
            expected = np.pad(expected, pad).take(range(max(-before, 0), max(-before, 0) + m), axis)
        for header in (headers(dim)[0], headers(dim)[-1]):
            other = under(image, *header)
            grid = working_grid(other.grid, None, wanted)
            np.testing.assert_allclose(laid(other, still(dim), grid).numpy(), expected, rtol=0, atol=ROUNDED)
            whole = Image((100 * other.data).to(torch.int16), other.grid)
            found = laid(whole, still(dim), grid, "label")
            assert found.dtype == torch.int16
            np.testing.assert_array_equal(found.numpy(), (100 * torch.tensor(expected)).to(torch.int16).numpy())


def test_between_voxels_and_through_an_affine(dim: int) -> None:
    """Linear; 0 beyond half a voxel outside the image."""
    image = anatomy(dim)
    grid = working_grid(oblique(dim, 0.1), (1.1, 1.2, 1.9)[:dim], (12, 20, 14)[:dim])
    transform = Affine(homogeneous(rotation(dim, 0.2), np.array([0.4, -0.7, 1.2])[:dim]))
    at = image.grid.to_voxel(transform(grid.to_world(voxels(grid)))).T.numpy()
    size = np.array(image.grid.shape)[:, None]
    inside = ((at >= -0.5) & (at < size - 0.5)).all(0)
    assert 0.2 < inside.mean() < 0.95
    for data, found in zip(image.data, laid(image, transform, grid), strict=True):
        expected = map_coordinates(data.numpy(), at, order=1, mode="nearest") * inside
        np.testing.assert_allclose(found.numpy().ravel(), expected, atol=2e-5)  # float32


def test_coarser_grids_are_anti_aliased(dim: int) -> None:
    """Stripes of one voxel become grey, and a factor that fits is the anti-aliasing of the pyramid."""
    shape, factors = (12, 18, 10)[:dim], (2, 3, 2)[:dim]
    stripes = torch.tensor(np.indices(shape).sum(0) % 2, dtype=torch.float32)[None]
    noise = torch.rand(1, *shape, generator=torch.Generator().manual_seed(2))
    grid = Grid(shape, oblique(dim).affine)
    coarse = working_grid(grid, tuple(s * k for s, k in zip(grid.spacing, factors, strict=True)))
    assert coarse.same_as(grid.downsample(factors), 1e-6)
    for header in headers(dim):
        grey = laid(under(Image(stripes, grid), *header), still(dim), coarse)
        inner = grey[(slice(None), *(slice(1, -1),) * dim)]
        assert (inner - 0.5).abs().max() < 0.03
        found = laid(under(Image(noise, grid), *header), still(dim), coarse)
        torch.testing.assert_close(found, downsample(noise[None], factors)[0], atol=1e-5, rtol=0)  # float32


def test_only_the_axes_that_need_it_are_smoothed(dim: int) -> None:
    """A step of 1.9 voxels is not two; finer and equal axes keep their values."""
    grid = Grid.regular((12, 18, 10)[:dim])
    noise = Image(torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(2)), grid)
    for spacing, smoothed in (((1.0, 2.0, 1.0), True), ((1.0, 1.9, 1.0), False), ((0.5, 0.7, 0.6), False)):
        coarse = working_grid(grid, spacing[:dim])
        at = grid.to_voxel(coarse.to_world(voxels(coarse))).T.numpy()
        plain = map_coordinates(noise.data[0].numpy(), at, order=1, mode="nearest").reshape(coarse.shape)
        difference = np.abs(laid(noise, still(dim), coarse)[0].numpy() - plain).max()
        assert (difference > 0.05) == smoothed


def test_labels_are_neither_mixed_nor_smoothed(dim: int) -> None:
    grid = Grid.regular((12, 18, 10)[:dim])
    stripes = torch.tensor(np.indices(grid.shape)[0] // 3 * 7, dtype=torch.int32)[None]  # 0, 7, 14, 21
    coarse = working_grid(grid, (2.2, 2.0, 2.5)[:dim])
    found = laid(Image(stripes, grid), still(dim), coarse, "label")
    assert found.dtype == torch.int32
    assert set(found.unique().tolist()) == {0, 7, 14, 21}
    at = grid.to_voxel(coarse.to_world(voxels(coarse)))[:, 0].reshape(coarse.shape)
    clear = ((at + 0.5) % 3 - 1.5).abs() < 1  # half a voxel or more from the next label
    assert torch.equal(found[0][clear], ((at[clear].round() // 3) * 7).to(torch.int32))


def test_preparations_know_how_intensities_are_treated(dim: int) -> None:
    image = anatomy(dim)
    assert torch.equal(Preparation(intensity=Window(low=0, high=2)).intensity(image.data), image.data / 2)
    assert Preparation().intensity(image.data).max() == 1
