"""Random geometry and intensities: their statistics, no folds, and that labels and landmarks follow the image."""

from __future__ import annotations

from functools import reduce
from itertools import product
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation
from torch import Tensor

from warpwright.config import from_mapping
from warpwright.data import Augmentation
from warpwright.errors import BadInput, Failed
from warpwright.geometry import Grid, Image
from warpwright.sampling.separable import bspline_matrix
from warpwright.transforms import (
    Affine,
    Composite,
    DisplacementField,
    carried_points,
    centring,
    control_shape,
    laid,
    working_grid,
)

PLACES = {"rotation": 12.0, "scaling": 0.08, "shear": 0.05, "translation": 2.0, "elastic": 2.0, "elastic_scale": 12.0}
LOOKS: dict[str, Any] = {"noise": 0.1, "blur": 1.5, "bias": 0.3, "gamma": 0.3, "contrast": 0.2, "brightness": 0.1}


def augmentation(dim: int, **changes: float) -> Augmentation:
    return Augmentation(flips=(0.5,) * dim, **(PLACES | changes))


def oblique(dim: int, flipped: bool = True) -> Grid:
    """An anisotropic grid of about 30 mm whose axes are those of no world axis, some of them the other way round."""
    turn = Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix() if dim == 3 else Rotation.from_rotvec([0, 0, 0.5]).as_matrix()
    linear = turn[:dim, :dim] @ np.diag([-1.0 if flipped else 1.0, 1.0, -1.0][:dim]) * np.array((1.1, 0.9, 1.7)[:dim])
    affine = np.eye(dim + 1)
    affine[:dim, :dim] = linear
    affine[:dim, dim] = (-31.7, 12.25, 94.5)[:dim]
    return Grid((28, 34, 19)[:dim], affine)


def voxels(grid: Grid) -> Tensor:
    """(N, D) float64 voxel centres."""
    axes = [torch.arange(n, dtype=torch.float64) for n in grid.shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, grid.dim)


def maps(setting: Augmentation, grid: Grid, count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """World matrices of many draws without elastic fields."""
    rng = np.random.default_rng(seed)
    draws = [setting.geometry(grid, rng) for _ in range(count)]
    return [(cast(Affine, fixed).matrix, cast(Affine, moving).matrix) for fixed, moving in draws]


def linear_parts(setting: Augmentation, grid: Grid, count: int) -> np.ndarray:
    """(2 count, D, D) linear parts along the axes of the grid, mm per mm."""
    axes = grid.direction
    return np.stack([np.linalg.inv(axes) @ m[:-1, :-1] @ axes for pair in maps(setting, grid, count) for m in pair])


def test_nothing_is_done_by_default(dim: int) -> None:
    grid = oblique(dim)
    for transform in Augmentation().geometry(grid, np.random.default_rng(0)):
        np.testing.assert_allclose(cast(Affine, transform).matrix, np.eye(dim + 1), atol=1e-12)
    image = torch.rand(2, *grid.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Augmentation().intensity(image, np.random.default_rng(0)), image)


def test_flips_are_shared_and_exact(dim: int) -> None:
    grid, chances, flipped = oblique(dim), (0.2, 0.7, 1.0)[:dim], np.zeros(dim)
    for fixed, moving in maps(Augmentation(flips=chances), grid, 300):
        np.testing.assert_array_equal(fixed, moving)
        between = grid.inverse_affine @ fixed @ grid.affine
        signs = np.sign(np.diag(between)[:-1])
        expected = np.diag([*signs, 1.0])
        expected[:-1, -1] = np.where(signs < 0, np.array(grid.shape) - 1, 0)
        np.testing.assert_allclose(between, expected, atol=1e-9)
        flipped += signs < 0
    assert np.abs(flipped / 300 - chances).max() < 5 * 0.5 / 300**0.5
    signs = [(np.linalg.det(f) < 0, np.linalg.det(m) < 0) for f, m in maps(augmentation(dim, elastic=0.0), grid, 50)]
    assert all(f == m for f, m in signs)
    assert len(set(signs)) == 2


def test_rotation_about_every_axis(dim: int) -> None:
    found = np.stack([m for pair in maps(Augmentation(rotation=10), oblique(dim), 300) for m in pair])[:, :-1, :-1]
    np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.broadcast_to(np.eye(dim), found.shape), atol=1e-12)
    whole = np.broadcast_to(np.eye(3), (len(found), 3, 3)).copy()
    whole[:, :dim, :dim] = found
    angles = np.rad2deg(Rotation.from_matrix(whole).as_rotvec())[:, 3 - (1 if dim == 2 else 3) :]
    np.testing.assert_allclose(angles.std(0), 10, rtol=0.12)
    np.testing.assert_allclose(angles.mean(0), 0, atol=5 * 10 / 600**0.5)
    np.testing.assert_allclose(np.corrcoef(angles.T), np.eye(angles.shape[1]), atol=5 / 600**0.5)
    assert abs(np.corrcoef(angles[::2, -1], angles[1::2, -1])[0, 1]) < 5 / 300**0.5  # fixed and moving by themselves


def test_scales_shears_and_shifts(dim: int) -> None:
    grid = oblique(dim)
    scales = linear_parts(Augmentation(scaling=0.1), grid, 300)
    diagonal = np.diagonal(scales, axis1=1, axis2=2)
    np.testing.assert_allclose(scales - diagonal[:, :, None] * np.eye(dim), 0, atol=1e-12)
    np.testing.assert_allclose(np.log(diagonal).std(0), 0.1, rtol=0.12)
    shears = linear_parts(Augmentation(shear=0.1), grid, 300)
    np.testing.assert_allclose(np.linalg.det(shears), 1, atol=1e-12)
    upper = np.triu_indices(dim, 1)
    np.testing.assert_allclose(shears[:, *upper].std(0), 0.1, rtol=0.12)
    np.testing.assert_allclose(shears[:, upper[1], upper[0]], 0, atol=1e-12)
    moved = np.stack([m for pair in maps(Augmentation(translation=3), grid, 300) for m in pair])
    np.testing.assert_allclose(moved[:, :-1, :-1], np.broadcast_to(np.eye(dim), moved[:, :-1, :-1].shape), atol=1e-12)
    np.testing.assert_allclose(moved[:, :-1, -1].std(0), 3, rtol=0.12)


def test_the_centre_stays(dim: int) -> None:
    grid = oblique(dim)
    for pair in maps(augmentation(dim, translation=0.0, elastic=0.0), grid, 20):
        for matrix in pair:
            np.testing.assert_allclose(matrix @ [*grid.centre, 1], [*grid.centre, 1], atol=1e-9)


def elastic_of(setting: Augmentation, grid: Grid, rng: np.random.Generator) -> list[DisplacementField]:
    found = []
    for transform in setting.geometry(grid, rng):
        affine, field = cast(Composite, transform).parts
        assert isinstance(affine, Affine)
        assert isinstance(field, DisplacementField)
        assert field.grid is grid
        assert field.displacement.dtype == torch.float32
        found.append(field)
    return found


def test_elastic_fields_are_as_strong_and_as_smooth_as_said(dim: int) -> None:
    grid = oblique(dim)
    rng, setting = np.random.default_rng(1), Augmentation(elastic=0.5, elastic_scale=15.0)
    spacing = np.array(grid.spacing).reshape(-1, *(1,) * dim)
    fields = np.stack([f.displacement.numpy() * spacing for _ in range(60) for f in elastic_of(setting, grid, rng)])
    deviation = fields.std(axis=(0, *range(2, dim + 2)))
    np.testing.assert_allclose(deviation, 0.5, rtol=0.12)
    for axis, step in enumerate(grid.spacing):  # a B-spline's slope: sqrt(2/3 / 151/315) of its deviation for each knot
        slope = np.diff(fields, axis=axis + 2).std() / step
        np.testing.assert_allclose(slope, 0.5 * (2 / 3 / (151 / 315)) ** 0.5 / 15, rtol=0.12)
    assert np.abs(np.corrcoef(fields[::2, 0].ravel(), fields[1::2, 0].ravel())[0, 1]) < 0.2


def worst_slopes(field: DisplacementField) -> float:
    """The largest sum over axes of |d u_i / d x_j|, mm per mm, each the largest of the edges of a cell along axis j.

    Between voxels a field is multilinear, so that its derivatives are averages of those along edges: below 1 the Jacobian is
    diagonally dominant everywhere.
    """
    spacing = np.array(field.grid.spacing)
    vectors = field.displacement.double().numpy() * spacing.reshape(-1, *(1,) * field.dim)
    total = np.zeros(())
    for j in range(field.dim):
        along = np.abs(np.diff(vectors, axis=j + 1)) / spacing[j]
        for k in range(field.dim):
            if k != j:
                along = np.maximum(np.delete(along, 0, k + 1), np.delete(along, -1, k + 1))
        total = total + along
    return float(total.max())


class Given:
    """A generator whose normal numbers with a deviation are all given."""

    def __init__(self, control: np.ndarray) -> None:
        self.control = control

    def random(self, count: int) -> np.ndarray:
        return np.ones(count)

    def normal(self, mean: float, deviation: float, size: object = None) -> object:
        return self.control * 1e9 if size == self.control.shape else np.zeros(() if size is None else size)  # type: ignore[call-overload]


def hardest_control(grid: Grid, knots: float) -> tuple[float, np.ndarray]:
    """Control values +-1 with the largest slopes in a cell in the middle, and these slopes, per voxel.

    A sum of slopes is linear in the control values, so it is largest where each has the sign of its weight.
    """
    dim, shape = grid.dim, control_shape(grid.shape, [knots] * grid.dim)
    near, far = ([bspline_matrix(k, torch.tensor([place / knots + 1]))[0].numpy() for k in shape] for place in (5.0, 6.0))
    largest, best = 0.0, np.zeros(shape)
    for signs, sides in product(product((1, -1), repeat=dim - 1), product((0, 1), repeat=dim * (dim - 1))):
        total, edges = np.zeros(shape), iter(sides)
        for j, sign in enumerate((1, *signs)):
            weights = [far[k] - near[k] if k == j else (near, far)[next(edges)][k] for k in range(dim)]
            total += sign * reduce(np.multiply.outer, weights)
        if np.abs(total).sum() > largest:
            largest, best = float(np.abs(total).sum()), np.sign(total)
    return largest, np.broadcast_to(best, (dim, *shape))


@pytest.mark.parametrize("scale", [1.0, 1.4, 3.0, 8.0])
def test_no_elastic_field_folds(dim: int, scale: float) -> None:
    """As strong as can be, at random, and with the very control values that give the largest slopes in a cell."""
    setting = Augmentation(elastic=1e9, elastic_scale=scale)
    grid = Grid.regular((12, 13, 11)[:dim])
    for seed in range(3):
        for field in elastic_of(setting, grid, np.random.default_rng(seed)):
            assert field.displacement.abs().max() > 0.1 * scale
            assert worst_slopes(field) < 1
    largest, control = hardest_control(grid, scale)
    field, _ = elastic_of(setting, grid, cast(np.random.Generator, Given(control)))
    assert 0.29 * scale * largest * 0.9999 < worst_slopes(field) < 1


def blob(grid: Grid, centre: Tensor, size: float = 2.0) -> Image:
    distance = (grid.to_world(voxels(grid)) - centre).square().sum(1)
    return Image(torch.exp(-0.5 * distance / size**2).reshape(1, *grid.shape).float(), grid)


def middle_of(image: Tensor, grid: Grid) -> Tensor:
    """Voxels: the centre of what is brighter than half the largest value."""
    weight = (image[0].double().flatten() - 0.5 * float(image.max())).clamp_min(0)
    return (voxels(grid) * weight[:, None]).sum(0) / weight.sum()


@pytest.mark.parametrize("spacing", [None, 1.3])
def test_landmarks_follow_the_image(dim: int, spacing: float | None) -> None:
    image_grid, fixed_grid = oblique(dim), oblique(dim, flipped=False)
    grid = working_grid(fixed_grid, None if spacing is None else (spacing,) * dim)
    start = centring(fixed_grid, image_grid)
    rng = np.random.default_rng(5)
    mirrored = compared = 0
    for _ in range(12):
        for transform in augmentation(dim).geometry(grid, rng):
            point = image_grid.to_world(torch.from_numpy(rng.uniform(0.25, 0.75, (1, dim)) * (np.array(image_grid.shape) - 1)))
            whole = start @ transform
            expected = grid.to_voxel(carried_points(point, whole))[0]
            if not bool(((expected > 3) & (expected < torch.tensor(grid.shape) - 4)).all()):
                continue  # the blob is not seen whole
            found = middle_of(laid(blob(image_grid, point), whole, grid), grid)
            assert float((found - expected).abs().max()) < 0.5
            compared += 1
            mirrored += int(np.linalg.det(cast(Affine, cast(Composite, whole).parts[0]).matrix) < 0)
    assert compared >= 15
    assert 3 < mirrored < compared


def test_carried_points_undo_the_map_everywhere_in_the_grid(dim: int) -> None:
    grid, rng = oblique(dim), np.random.default_rng(2)
    start = Affine(np.eye(dim + 1) + 0.1 * rng.normal(size=(dim + 1, dim + 1)) * np.array([1.0] * dim + [0.0])[:, None])
    for strength in (0.0, 2.0, 1e3):
        for transform in augmentation(dim, elastic=strength).geometry(grid, rng):
            places = torch.from_numpy(rng.uniform(-0.4, 0.4, (400, dim))) + voxels(grid)[:: max(1, grid.size // 400)][:400]
            places = torch.cat([places, torch.zeros(1, dim, dtype=torch.float64), torch.tensor([grid.shape]).double() - 1])
            world = grid.to_world(places)
            whole = start @ transform
            again = grid.to_voxel(carried_points(whole(world), whole))
            assert float((again - places).abs().max()) < 1e-3
            nested = grid.to_voxel(carried_points(whole(world), Composite((start, Composite((transform,))))))
            assert float((nested - places).abs().max()) < 1e-3


def test_points_that_no_field_of_ours_gives() -> None:
    grid = Grid.regular((9, 9))
    ramp = DisplacementField(3 * (voxels(grid).T - 4).reshape(2, 9, 9).float(), grid)
    with pytest.raises(Failed, match=r"^landmarks could not be carried through a field in 100 steps, expected"):
        carried_points(torch.tensor([[4.0, 4.5]], dtype=torch.float64), ramp)


def test_images_and_labels_are_read_where_the_map_leads(dim: int) -> None:
    """Against scipy at the points that the transform itself gives."""
    image_grid, grid = oblique(dim), oblique(dim, flipped=False)
    rng = np.random.default_rng(7)
    smooth = torch.nn.functional.avg_pool2d(torch.from_numpy(rng.normal(size=(1, 1, *image_grid.shape[:2]))), 5, 1, 2)[0]
    values = (smooth if dim == 2 else smooth[..., None] + torch.from_numpy(rng.normal(size=image_grid.shape[2]))).float()
    image = Image(values.contiguous(), image_grid)
    labels = Image((values > 0).to(torch.int16) * 7, image_grid)
    start = centring(grid, image_grid)
    for transform in augmentation(dim).geometry(grid, rng):
        whole = start @ transform
        at = image_grid.to_voxel(whole(grid.to_world(voxels(grid))))
        size = torch.tensor(image_grid.shape)
        known = ((at >= 0) & (at <= size - 1)).all(1).numpy()
        outside = ((at < -0.51) | (at > size - 0.49)).any(1).numpy()
        assert known.mean() > 0.5
        expected = map_coordinates(values[0].double().numpy(), at.T.numpy(), order=1)
        found = laid(image, whole, grid).flatten().numpy()
        np.testing.assert_allclose(found[known], expected[known], atol=2e-3)  # float32 coordinates on rough values
        np.testing.assert_array_equal(found[outside], 0)
        share = map_coordinates((labels.data[0] == 7).double().numpy(), at.T.numpy(), order=1)
        clear = known & (np.abs(share - 0.5) > 1e-3)
        seen = laid(labels, whole, grid, "label").flatten().numpy()
        np.testing.assert_array_equal(seen[clear], np.where(share > 0.5, 7, 0)[clear])


def picture(dim: int, channels: int = 2) -> Tensor:
    return torch.rand(channels, *(28, 34, 19)[:dim], generator=torch.Generator().manual_seed(3))


def test_the_same_generator_gives_the_same(dim: int) -> None:
    setting = augmentation(dim, **LOOKS)
    grid, image = oblique(dim), picture(dim)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    runs = []
    for seed in (4, 4, 5):
        rng = np.random.default_rng(seed)
        fixed, moving = setting.geometry(grid, rng)
        runs.append((fixed(grid.to_world(voxels(grid))), moving(grid.to_world(voxels(grid))), setting.intensity(image, rng)))
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))
    assert not torch.equal(runs[0][0], runs[0][1])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # type: ignore[index]


@pytest.mark.parametrize("name", [*LOOKS, "all"])
def test_intensities_stay_in_range(dim: int, name: str) -> None:
    image, kept = picture(dim), picture(dim)
    setting = Augmentation(**(LOOKS if name == "all" else {name: 10 * LOOKS[name]}))
    for seed in range(5):
        out = setting.intensity(image, np.random.default_rng(seed))
        assert (out.shape, out.dtype) == (image.shape, torch.float32)
        assert 0 <= float(out.min()) <= float(out.max()) <= 1
        assert not torch.equal(out, image)
    assert torch.equal(image, kept)


def channel_draws(name: str, image: Tensor, count: int = 300) -> Tensor:
    """(count, C) values of a constant image."""
    rng = np.random.default_rng(0)
    setting = Augmentation(**{name: LOOKS[name]})
    return torch.stack([setting.intensity(image, rng).flatten(1)[:, 0] for _ in range(count)]).double()


def test_gamma_contrast_and_brightness_of_each_channel(dim: int) -> None:
    image = torch.full((2, *(3, 4, 5)[:dim]), 0.3)
    draws = {
        "gamma": (channel_draws("gamma", image).log() / np.log(0.3)).log(),
        "contrast": ((channel_draws("contrast", image) - 0.5) / -0.2).log(),
        "brightness": channel_draws("brightness", image) - 0.3,
    }
    for name, values in draws.items():
        assert values.std(0).tolist() == pytest.approx([LOOKS[name]] * 2, rel=0.15)
        assert abs(float(torch.corrcoef(values.T)[0, 1])) < 5 / 300**0.5
    ramp = torch.linspace(0, 1, 60).reshape(1, *(3, 20, 1)[: dim - 1], -1)
    out = Augmentation(gamma=0.5).intensity(ramp, np.random.default_rng(1)).flatten()
    assert bool((out.diff() > 0).all())
    assert out[0] == 0


def test_bias_is_smooth_and_the_same_for_all_channels(dim: int) -> None:
    image, rng = torch.full((2, *(28, 34, 19)[:dim]), 0.2), np.random.default_rng(0)
    fields = torch.stack([(Augmentation(bias=0.3).intensity(image, rng).double() / 0.2).log() for _ in range(60)])
    assert torch.equal(fields[:, 0], fields[:, 1])
    assert float(fields.std()) == pytest.approx(0.3, rel=0.15)
    for axis in range(2, dim + 2):  # three control points along each axis
        steps = 3 / (fields.shape[axis] - 1)
        assert float(fields.diff(dim=axis).std()) == pytest.approx(0.3 * steps * (2 / 3 / (151 / 315)) ** 0.5, rel=0.15)


def test_noise_and_blur(dim: int) -> None:
    flat, rng = torch.full((1, *(28, 34, 19)[:dim]), 0.5), np.random.default_rng(0)
    sizes = [float((Augmentation(noise=0.1).intensity(flat, rng) - 0.5).std()) for _ in range(60)]
    assert max(sizes) < 0.1 * 1.1
    assert np.mean(sizes) == pytest.approx(0.05, rel=0.3)
    assert float((Augmentation(blur=2).intensity(flat, rng) - 0.5).abs().max()) < 1e-6
    blurred = [float(Augmentation(blur=2).intensity(picture(dim), rng).std() / picture(dim).std()) for _ in range(20)]
    assert min(blurred) < 0.5 < max(blurred) < 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"flips": (0.5, 1.5)}, "flips of an augmentation are probabilities from 0 to 1, got (0.5, 1.5)"),
        ({"rotation": -1.0}, "rotation of an augmentation must be at least 0, got -1.0"),
        ({"noise": float("inf")}, "noise of an augmentation must be at least 0, got inf"),
        ({"brightness": float("nan")}, "brightness of an augmentation must be at least 0, got nan"),
        ({"elastic_scale": 0.0}, "elastic_scale of an augmentation must be above 0 mm, got 0.0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        Augmentation(**settings)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_settings_that_do_not_fit_a_grid(dim: int) -> None:
    grid, rng = oblique(dim), np.random.default_rng(0)
    with pytest.raises(BadInput, match=rf"^flips of an augmentation are given for 1 axes, the images have {dim}$"):
        Augmentation(flips=(0.5,)).geometry(grid, rng)
    expected = f"^elastic_scale of an augmentation is 1 mm on voxels of {max(grid.spacing):g} mm, expected at least a voxel$"
    with pytest.raises(BadInput, match=expected):
        Augmentation(elastic=1.0, elastic_scale=1.0).geometry(grid, rng)


def test_settings_come_from_a_file() -> None:
    assert from_mapping(Augmentation, {"flips": [0.5, 0, 0], "rotation": 5}) == Augmentation(flips=(0.5, 0, 0), rotation=5)


def test_an_axis_of_one_voxel() -> None:
    grid = Grid((9, 1, 8), np.diag([1.0, 3.0, 1.0, 1.0]))
    setting, rng = augmentation(3, **LOOKS), np.random.default_rng(0)
    for transform in setting.geometry(grid, rng):
        assert bool(torch.isfinite(transform(grid.to_world(voxels(grid)))).all())
    out = setting.intensity(torch.rand(1, 9, 1, 8, generator=torch.Generator().manual_seed(0)), rng)
    assert bool(torch.isfinite(out).all())


def test_a_rounding_below_zero_stays_a_number(dim: int) -> None:
    """It is what an interpolation of zeros may leave."""
    image = torch.full((1, *(3,) * dim), -1e-9)
    found = Augmentation(gamma=0.3).intensity(image, np.random.default_rng(1))
    assert torch.equal(found, torch.zeros_like(image))
