"""Surface distances against brute force and SimpleITK; areas of surface elements against closed forms."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from warpwright.errors import BadInput
from warpwright.evaluation import SurfaceMethod, assd, hausdorff, hd95, surface_distances, surface_figures
from warpwright.evaluation.surfels import neighbour_codes, surfel_areas

METHODS: tuple[SurfaceMethod, ...] = ("surfel", "voxel")


def _blobs(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping ellipsoids."""
    place = np.indices(shape)
    centre, radius = np.array(shape) / 2 - 0.3, np.array(shape) / 3.1
    axes = (-1, *(1,) * len(shape))
    first = (((place - centre.reshape(axes)) / radius.reshape(axes)) ** 2).sum(0) < 1
    second = (((place - centre.reshape(axes) - 1.2) / (0.8 * radius).reshape(axes)) ** 2).sum(0) < 1
    return first, second


def _border_points(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    out = []
    for index in np.argwhere(mask):
        for axis, step in product(range(mask.ndim), (-1, 1)):
            other = index.copy()
            other[axis] += step
            if not 0 <= other[axis] < mask.shape[axis] or not mask[tuple(other)]:
                out.append(index * np.array(spacing))
                break
    return np.array(out)


def _lattice_points(mask: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Places and areas; the loops do not share code with `neighbour_codes`."""
    areas, points, weights = surfel_areas(spacing), [], []
    for place in np.ndindex(tuple(n + 1 for n in mask.shape)):
        corners = [np.array(place) - 1 + offset for offset in product((0, 1), repeat=mask.ndim)]
        bits = [bool((c >= 0).all() and (c < mask.shape).all() and mask[tuple(c)]) for c in corners]
        if 0 < sum(bits) < len(bits):
            points.append(np.array(place) * np.array(spacing))
            weights.append(areas[sum(1 << k for k, bit in enumerate(bits) if bit)])
    return np.array(points), np.array(weights)


def _nearest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a[:, None] - b[None], axis=-1).min(1)


def test_voxel_against_brute_force(dim: int, spacing: tuple[float, ...]) -> None:
    fixed, moved = _blobs((9, 12, 8)[:dim])
    a, b = _border_points(fixed, spacing), _border_points(moved, spacing)
    there, back = _nearest(a, b), _nearest(b, a)
    for percentile in (0, 50, 95, 100):
        expected = max(np.percentile(there, percentile), np.percentile(back, percentile))
        assert hausdorff(fixed, moved, spacing, percentile, "voxel") == pytest.approx(expected, abs=1e-12)
    assert assd(fixed, moved, spacing, "voxel") == pytest.approx(np.concatenate([there, back]).mean(), abs=1e-12)


def test_surfel_against_brute_force(dim: int, spacing: tuple[float, ...]) -> None:
    fixed, moved = _blobs((9, 12, 8)[:dim])
    (a, wa), (b, wb) = _lattice_points(fixed, spacing), _lattice_points(moved, spacing)
    there, back = _nearest(a, b), _nearest(b, a)
    assert hausdorff(fixed, moved, spacing) == pytest.approx(max(there.max(), back.max()), abs=1e-12)
    expected = (there @ wa + back @ wb) / (wa.sum() + wb.sum())
    assert assd(fixed, moved, spacing) == pytest.approx(expected, abs=1e-12)
    at = hd95(fixed, moved, spacing)
    shares = [w[d <= at + 1e-9].sum() / w.sum() for d, w in ((there, wa), (back, wb))]
    below = [w[d < at - 1e-9].sum() / w.sum() for d, w in ((there, wa), (back, wb))]
    assert min(shares) >= 0.95 > min(below)


def test_voxel_hausdorff_is_simpleitk(dim: int, spacing: tuple[float, ...]) -> None:
    fixed, moved = _blobs((11, 14, 9)[:dim])
    images = []
    for mask in (fixed, moved):
        image = sitk.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing(spacing[::-1])
        images.append(image)
    measure = sitk.HausdorffDistanceImageFilter()
    measure.Execute(*images)
    # ITK's distance map is single precision
    assert hausdorff(fixed, moved, spacing, method="voxel") == pytest.approx(measure.GetHausdorffDistance(), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_shift_of_a_box(dim: int, spacing: tuple[float, ...], method: SurfaceMethod) -> None:
    for axis in range(dim):
        fixed = np.zeros((12,) * dim, bool)
        fixed[(slice(2, 7),) * dim] = True
        moved = np.roll(fixed, 3, axis)
        assert hausdorff(fixed, moved, spacing, method=method) == pytest.approx(3 * spacing[axis], abs=1e-12)
        assert hd95(fixed, moved, spacing, method) == pytest.approx(3 * spacing[axis], abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_permuted_axes_and_swapped_masks(dim: int, spacing: tuple[float, ...], method: SurfaceMethod) -> None:
    fixed, moved = _blobs((9, 12, 8)[:dim])
    for measure in (hausdorff, assd):
        expected = measure(fixed, moved, spacing, method=method)
        assert measure(moved, fixed, spacing, method=method) == pytest.approx(expected, abs=1e-12)
        for order in permutations(range(dim)):
            there = tuple(spacing[k] for k in order)
            got = measure(fixed.transpose(order), moved.transpose(order), there, method=method)
            assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_limits(shape: tuple[int, ...], spacing: tuple[float, ...], method: SurfaceMethod) -> None:
    nothing, everything = np.zeros(shape), np.ones(shape)
    for pair in ((nothing, everything), (everything, nothing), (nothing, nothing)):
        assert math.isnan(hd95(*pair, spacing, method))
        assert math.isnan(assd(*pair, spacing, method))
        assert surface_distances(*pair, spacing, method) == ()
    assert hausdorff(everything, everything, spacing, method=method) == 0
    single = np.zeros((1, *shape[1:]))
    single[(0,) * len(shape)] = 1
    assert assd(single, single, spacing, method) == 0


def test_bad_input() -> None:
    mask = np.ones((3, 4))
    with pytest.raises(BadInput, match="same shape"):
        hd95(mask, np.ones((4, 3)), (1.0, 1.0))
    with pytest.raises(BadInput, match="spacing"):
        hd95(mask, mask, (1.0, 1.0, 1.0))
    with pytest.raises(BadInput, match="percentile"):
        hausdorff(mask, mask, (1.0, 1.0), 101)


def _code(corners: list[tuple[int, ...]]) -> int:
    return sum(1 << k for k, c in enumerate(product((0, 1), repeat=len(corners[0]))) if c in corners)


def test_areas_of_the_flat_and_bent_shapes() -> None:
    x, y, z = 0.7, 1.3, 2.1

    def area(*projections: float) -> float:
        """Of a flat piece, from its projections across x, y and z in units of a face of the cell."""
        return math.hypot(projections[0] * y * z, projections[1] * x * z, projections[2] * x * y)

    table = surfel_areas((x, y, z))
    shapes = {
        ((0, 0, 0),): area(1 / 8, 1 / 8, 1 / 8),
        ((0, 0, 0), (1, 0, 0)): area(0, 1 / 2, 1 / 2),
        ((0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)): y * z,
        ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)): area(3 / 4, 3 / 4, 3 / 4),
        ((0, 0, 0), (0, 1, 0), (0, 0, 1)): area(1 / 2, 0, 0) + area(3 / 8, 3 / 8, 3 / 8),
        ((0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)): area(1 / 2, 1 / 2, 1 / 2) + area(1 / 4, 1 / 4, 0) + area(0, 1 / 4, 1 / 4),
        ((0, 0, 0), (1, 1, 1)): 2 * area(1 / 8, 1 / 8, 1 / 8),
        ((0, 0, 0), (1, 0, 0), (0, 1, 1)): area(0, 1 / 2, 1 / 2) + area(1 / 8, 1 / 8, 1 / 8),
    }
    for corners, expected in shapes.items():
        assert table[_code(list(corners))] == pytest.approx(expected, abs=1e-12)
    flat = surfel_areas((x, y))
    assert flat[_code([(0, 0)])] == pytest.approx(math.hypot(x, y) / 2, abs=1e-12)
    assert flat[_code([(0, 0), (0, 1)])] == pytest.approx(y, abs=1e-12)
    assert flat[_code([(0, 0), (1, 1)])] == pytest.approx(math.hypot(x, y), abs=1e-12)


def test_areas_do_not_know_left_from_right(dim: int, spacing: tuple[float, ...]) -> None:
    table = surfel_areas(spacing)
    cube = list(product((0, 1), repeat=dim))
    assert table[0] == table[-1] == 0
    assert (table[1:-1] > 0).all()
    for code in range(1, len(table) - 1):
        corners = [c for k, c in enumerate(cube) if code >> k & 1]
        assert table[len(table) - 1 - code] == pytest.approx(table[code], abs=1e-12)
        assert table[_code([(1 - c[0], *c[1:]) for c in corners])] == pytest.approx(table[code], abs=1e-12)
        turned = surfel_areas(spacing[::-1])
        assert turned[_code([c[::-1] for c in corners])] == pytest.approx(table[code], abs=1e-12)


def test_a_slab_has_the_area_of_its_faces(dim: int, spacing: tuple[float, ...]) -> None:
    mask = np.zeros((6, 8, 7)[:dim], bool)
    mask[2:4] = True
    middle = neighbour_codes(mask)[:, *(slice(1, -1),) * (dim - 1)]
    expected = 2 * math.prod((n - 1) * s for n, s in zip(mask.shape[1:], spacing[1:], strict=True))
    assert surfel_areas(spacing)[middle].sum() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("method", ["surfel", "voxel"])
def test_all_figures_at_once_are_the_single_ones(method: SurfaceMethod) -> None:
    rng = np.random.default_rng(3)
    masks = [rng.random((7, 5, 6)) > 0.6 for _ in range(2)]
    spacing = (0.7, 1.3, 2.1)
    found = surface_figures(*masks, spacing, method)
    single = (hd95(*masks, spacing, method), hausdorff(*masks, spacing, method=method), assd(*masks, spacing, method))
    assert tuple(found.values()) == single
    assert all(np.isnan(v) for v in surface_figures(masks[0], np.zeros_like(masks[0]), spacing).values())
