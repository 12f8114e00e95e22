"""Data of the recipe of SmoothProper: what is said of drawn vessels, photographs and lungs is true of their images."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from warpwright.data import Data, read_cohort
from warpwright.errors import BadInput
from warpwright.geometry import Grid, Image, jacobian_determinant
from warpwright.io import Points, read_mask, read_points, read_scalar, write_image, write_points
from warpwright.sampling import sample, warp
from warpwright.transforms import Affine, DisplacementField

ROOT = Path(__file__).parents[2] / "recipes"
MODULES = ("bifurcations", "fundus_pairs", "lung_moved", "smooth_motion", "vessel_pairs")


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def times(paths: list[Path]) -> list[int]:
    return [path.stat().st_mtime_ns for path in paths]


# drawn vessels


def test_the_aperture_pair_is_a_translation(recipes, monkeypatch: pytest.MonkeyPatch) -> None:
    module = recipes("vessel_pairs")
    noisy = module.aperture_pair()
    assert torch.equal(noisy.fixed, module.aperture_pair(0).fixed)
    assert not torch.equal(noisy.fixed, module.aperture_pair(1).fixed)
    monkeypatch.setattr(module, "NOISE", 0.0)
    pair = module.aperture_pair()
    assert float((noisy.fixed - pair.fixed).std()) == pytest.approx(0.03, rel=0.05)
    assert pair.fixed.shape == (1, 1, 96, 96)
    assert float((pair.fixed[..., :90, :90] - pair.moving[..., 6:, 6:]).abs().max()) < 1e-5
    assert pair.truth.displacement.unique().tolist() == [6.0]
    assert pair.truth.fixed_points.tolist() == [[42.0, 18.0]]
    assert pair.truth.moving_points.tolist() == [[48.0, 24.0]]
    rows = pair.fixed[0, 0, :, 30:90].argmax(0)  # a straight vessel: nothing in it tells one place along it from another
    assert rows.unique().tolist() == [42]
    assert float(pair.fixed[0, 0, 42, 30:90].std()) < 1e-3


@pytest.mark.parametrize(("motion", "mean", "most"), [("small", 1.0, 3.0), ("medium", 4.0, 8.0), ("large", 8.0, 13.0)])
def test_large_displacements_are_true_and_as_large_as_said(
    motion: str, mean: float, most: float, recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = recipes("vessel_pairs")
    seed = module.LARGE_SEEDS[2]
    noisy = module.large_pair(motion, seed)
    assert torch.equal(noisy.moving, module.large_pair(motion, seed).moving)
    monkeypatch.setitem(module.LARGE, motion, replace(module.LARGE[motion], noise=0.0))
    pair = module.large_pair(motion, seed)
    truth = pair.truth
    assert float(truth.displacement.flatten(2).mean(2).norm()) == pytest.approx(mean, rel=1e-3)
    assert mean < float(truth.displacement.norm(dim=1).max()) <= most + 1e-3
    assert float(jacobian_determinant(truth.displacement).min()) > 0.5
    at = torch.from_numpy(np.indices((128, 128)))[None] + truth.displacement
    inside = ((at >= 0) & (at <= 127)).all(1, keepdim=True)
    error = (warp(pair.moving, truth.displacement) - pair.fixed).abs()[inside]
    before = (pair.moving - pair.fixed).abs()[inside]
    assert float(error.mean()) < 0.15 * float(before.mean())  # read between voxels: linearly here, by a cubic spline there
    shift = sample(truth.displacement, truth.fixed_points.T[None])[0].T
    assert len(truth.fixed_points) > 2
    assert float((truth.fixed_points + shift - truth.moving_points).abs().max()) < 1e-3
    assert float(torch.cat([truth.fixed_points, truth.moving_points]).min()) > 6
    assert float(torch.cat([truth.fixed_points, truth.moving_points]).max()) < 121
    assert bool(truth.vessels[0, 0][tuple(truth.fixed_points.round().long().T)].all())
    assert torch.equal(truth.vessels, pair.fixed > 0.3)
    assert torch.equal(truth.vessels, noisy.truth.vessels)


def test_pairs_to_learn_from_are_written_with_their_truth(recipes, tmp_path: Path) -> None:
    module = recipes("vessel_pairs")
    counts = {"train": 1, "validation": 1, "test": 2}
    rows = module.write_vessel_pairs(tmp_path / "made", counts)
    assert Counter(row[-1] for row in rows) == counts
    table = tmp_path / "manifest.csv"
    table.write_text("\n".join(",".join(row) for row in [module.ROWS, *rows]), encoding="utf-8")
    cohort = read_cohort(Data(manifest=table, pairing="paired", space="voxel"))
    assert [pair.fixed.points is None for pair in cohort.pairs] == [True, False, False, False]
    assert torch.equal(read_scalar(rows[0][1]).data, module.learned_pair(10_000).fixed[0])
    for number, row in enumerate(rows[2:]):
        expected = module.learned_pair(number, landmarks=True)
        truth = module.read_truth(tmp_path / "made" / f"{row[0]}-truth.npz")
        for name, value in vars(expected.truth).items():
            assert torch.equal(getattr(truth, name), value), name
        assert torch.equal(read_scalar(row[2]).data, expected.moving[0])
        grid = read_scalar(row[2]).grid
        found = grid.to_voxel(read_points(row[4], "voxel", grid).world)
        assert float((found - truth.moving_points).abs().max()) < 1e-5
        assert float(truth.displacement.norm(dim=1).max()) <= 9.5
    files = sorted((tmp_path / "made").iterdir())
    before = times(files)
    assert module.write_vessel_pairs(tmp_path / "made", counts) == rows
    assert times(files) == before


def test_a_pair_without_landmarks_is_passed_over(recipes) -> None:
    module = recipes("vessel_pairs")
    assert not len(module.learned_pair(10_118).truth.fixed_points)
    assert len(module.learned_pair(10_118, landmarks=True).truth.fixed_points)


# where vessels branch


def line(shape: tuple[int, int], start: tuple[float, float], end: tuple[float, float], radius: float) -> np.ndarray:
    """What is within a radius of a straight line."""
    places = np.moveaxis(np.indices(shape), 0, -1) - np.array(start)
    along = np.array(end) - start
    share = (places @ along / (along @ along)).clip(0, 1)
    return np.linalg.norm(places - share[..., None] * along, axis=-1) <= radius


SHAPE = (260, 220)
FORK, CROSSING = (70.0, 60.0), (180.0, 150.0)


def drawn() -> np.ndarray:
    """A Y and an X."""
    arms = [(0, 60), (120, 20), (125, 95)]
    lines = [line(SHAPE, FORK, arm, radius) for arm, radius in zip(arms, (4, 3, 2), strict=True)]
    lines += [line(SHAPE, (140, 110), (220, 190), 3), line(SHAPE, (145, 190), (215, 110), 2.5)]
    return np.logical_or.reduce(lines)


def test_a_fork_and_a_crossing_are_found_where_they_are(recipes) -> None:
    module = recipes("bifurcations")
    vessels = drawn()
    found = module.bifurcations(vessels)
    assert len(found) == 2
    assert np.linalg.norm(found[0] - FORK) < 3  # the middle line of the wide arm bends towards the thin ones a little late
    assert np.linalg.norm(found[1] - CROSSING) < 1.5
    vessels[20:23, 59:62] = False  # a hole
    vessels[95:98, 35:48] = True  # a bump of the outline, shorter than a vessel
    np.testing.assert_allclose(module.bifurcations(vessels), found, atol=1.5)
    np.testing.assert_allclose(module.bifurcations(vessels.T)[:, ::-1], found[::1], atol=1.5)
    near = np.roll(vessels, (-60, 0), (0, 1))
    near[-60:] = False
    assert len(module.bifurcations(near)) == 1  # the fork is too near to an edge


@pytest.mark.parametrize("vessels", [np.zeros((60, 60), bool), line((60, 60), (0, 30), (59, 33), 3)])
def test_without_a_fork_nothing_is_found(vessels: np.ndarray, recipes) -> None:
    assert recipes("bifurcations").bifurcations(vessels).shape == (0, 2)


def test_a_skeleton_is_thin_and_whole(recipes) -> None:
    module = recipes("bifurcations")
    vessels = drawn()
    lines = module.skeleton(vessels)
    around = np.ones((3, 3))
    label = importlib.import_module("scipy.ndimage").label
    assert label(lines, around)[1] == label(vessels, around)[1] == 2
    assert not (lines & ~vessels).any()
    assert 310 < lines.sum() < 340  # steps, straight or diagonal, of 70, 50, 55, 80 and 80 pixels, less at loose ends
    whole = lines[:-1, :-1] & lines[1:, :-1] & lines[:-1, 1:] & lines[1:, 1:]
    assert not whole.any()


# smooth motions


def test_a_curved_motion_has_no_affine_part_and_the_size_asked_for(dim: int, recipes) -> None:
    module = recipes("smooth_motion")
    affine = np.diag([*(-2.0, 3.0, 2.5)[:dim], 1.0])
    affine[:dim, -1] = (10.0, -40.0, 5.0)[:dim]
    box = Grid((40, 30, 36)[:dim], affine)
    fields = [module.smooth_motion(box, 15.0, 4.0, 40.0, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(fields[0].displacement, fields[1].displacement)
    assert not torch.equal(fields[0].displacement, fields[2].displacement)
    points = module.grid_points(box)
    nodes = module.grid_points(fields[0].grid)
    assert bool((nodes.amin(0) <= points.amin(0) - 15).all())
    assert bool((nodes.amax(0) >= points.amax(0) + 15).all())
    bent = module.curved(fields[0], points)
    bent = module.scaled(bent, 8.0 / module.longest(bent, points))
    moves = bent(points) - points
    assert float(moves.norm(dim=1).max()) == pytest.approx(8.0)
    design = torch.cat([points, torch.ones(len(points), 1)], 1)
    explained = design @ torch.linalg.lstsq(design, moves).solution
    assert float(explained.abs().max()) < 1e-9
    assert isinstance(bent, DisplacementField)


# photographs of the fundus

PICTURE = (300, 280)


def fake_eye(folder: Path, name: str) -> None:
    """A lit disc with dark vessels: three forks and a crossing."""
    places = [((60, 140), (150, 140)), ((150, 140), (220, 90)), ((150, 140), (230, 200)), ((110, 140), (120, 220))]
    places += [((185, 115), (240, 130)), ((90, 80), (160, 200))]
    vessels = np.logical_or.reduce([line(PICTURE, a, b, 3) for a, b in places])
    disc = np.linalg.norm(np.moveaxis(np.indices(PICTURE), 0, -1) - (149.5, 139.5), axis=-1) < 130
    grey = np.where(disc, np.where(vessels, 60, 110), 0).astype(np.uint8)
    folder.mkdir(exist_ok=True)
    colours = np.stack([np.where(disc, 200, 0).astype(np.uint8), grey, grey // 2], -1)
    sitk.WriteImage(sitk.GetImageFromArray(np.swapaxes(colours, 0, 1), isVector=True), str(folder / f"Image_{name}.jpg"))
    sitk.WriteImage(sitk.GetImageFromArray(255 * vessels.T.astype(np.uint8)), str(folder / f"Image_{name}_1stHO.png"))


def test_photographs_and_maps_are_moved_with_their_landmarks(recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = recipes("fundus_pairs")
    data = tmp_path / "retina_chase"
    fake_eye(data, "08L")
    monkeypatch.setattr(module, "EYES", {"validation": ("08L",)})
    monkeypatch.setattr(module, "WARPS", dict.fromkeys(module.WARPS, 2))
    tables = [module.write_fundus_pairs(data, tmp_path / "made", "vessels", {"validation": side}) for side in (300, 120)]
    tables.append(module.write_fundus_pairs(data, tmp_path / "made", "photograph", {"validation": 300}))
    names = [row[0] for row in tables[0]]
    assert names == ["08L-00", "08L-01"]
    assert {row[-1] for row in tables[0]} == {"validation"}
    for rows in zip(*tables, strict=True):
        sets = [[read_points(row[5 + k], "ras").world for k in (0, 1)] for row in rows]
        for places in sets[1:]:  # at any size, of either kind
            assert torch.equal(torch.stack(places), torch.stack(sets[0]))
        assert float((sets[0][0] - sets[0][1]).norm(dim=1).mean()) >= module.LEAST
        for row, shape, sign in zip(rows, (PICTURE, (120, 112), PICTURE), (1, 1, -1), strict=True):
            for k in (0, 1):
                image, mask = read_scalar(row[1 + k]), read_mask(row[3 + k])
                assert image.grid.shape == shape
                assert np.abs(image.grid.centre - (149.5, 139.5)).max() < 1e-4
                assert image.grid.same_as(mask.grid)
                assert mask.data.unique().tolist() == [0, 1]
                at = image.grid.to_voxel(sets[0][k]).T[None]
                grey, paper = sample(image.data[None].double(), at)[0, 0], float(image.data[mask.data > 0].median())
                assert float((sign * (grey - paper)).min()) > 15  # every landmark lies on a vessel, dark in photographs
    files = sorted((tmp_path / "made").iterdir())
    before = times(files)
    module.write_fundus_pairs(data, tmp_path / "made", "vessels", {"validation": 300})
    assert times(files) == before


def test_landmarks_are_where_the_halves_of_a_motion_look(recipes, tmp_path: Path) -> None:
    module = recipes("fundus_pairs")
    fake_eye(tmp_path, "01L")
    eye = module.read_eye(tmp_path, "01L")
    assert len(eye.landmarks) > 3
    halves, places = module.pair_motion(eye, np.random.default_rng(5))
    again = module.pair_motion(eye, np.random.default_rng(5))[1]
    assert torch.equal(torch.stack(places), torch.stack(again))
    seen = [half(points) for half, points in zip(halves, places, strict=True)]
    assert float((seen[0] - seen[1]).norm(dim=1).max()) < 1e-3
    assert float(torch.cdist(seen[0], eye.landmarks).amin(1).max()) < 1e-3
    for half in halves:
        affine, field = half.parts
        assert isinstance(affine, Affine)
        assert float(jacobian_determinant(field.displacement[None]).min()) > 0.5
    both = sum(half.parts[1].displacement for half in halves)
    assert float(both.abs().max()) < 1e-12  # one half and the other way round


def test_pictures_that_are_missing_or_empty_are_told(recipes, tmp_path: Path) -> None:
    module = recipes("fundus_pairs")
    with pytest.raises(BadInput, match=r"Image_01L\.jpg: does not exist"):
        module.read_eye(tmp_path, "01L")
    fake_eye(tmp_path, "01L")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros(PICTURE[::-1], np.uint8)), str(tmp_path / "Image_01L_1stHO.png"))
    with pytest.raises(BadInput, match="no place where vessels branch"):
        module.read_eye(tmp_path, "01L")


# lungs


def test_a_lung_is_moved_with_its_mask_and_landmarks(recipes, tmp_path: Path) -> None:
    module = recipes("lung_moved")
    affine = np.diag([-6.0, -6.0, 8.0, 1.0])
    affine[:3, 3] = (90.0, 100.0, -1000.0)
    grid = Grid((30, 36, 28), affine)
    balls = torch.tensor([[10.0, 12, 9], [18, 22, 15], [14, 16, 19]])
    voxels = torch.from_numpy(np.moveaxis(np.indices(grid.shape), 0, -1))
    apart = (voxels[..., None, :] - balls).square().sum(-1)
    grey = -900 + 1000 * torch.exp(-apart / 4).sum(-1)
    lung = ((voxels > 4) & (voxels < torch.tensor(grid.shape) - 5)).all(-1)
    for name, data in (("fixed_baseline", grey), ("moving_followup", grey)):
        write_image(tmp_path / f"{name}.nii.gz", Image(data[None].float(), grid))
    for name in ("fixed", "moving"):
        write_image(tmp_path / f"{name}_lung_mask.nii.gz", Image(lung[None].to(torch.uint8), grid))
    write_points(tmp_path / "one.csv", Points(grid.to_world(balls.double()), ("a", "b", "c")), "lps")
    rows = [line.split(",") for line in (tmp_path / "one.csv").read_text().splitlines()[1:]]
    text = ["id,fixed_x,fixed_y,fixed_z,moving_x,moving_y,moving_z", *(",".join([*row, *row[1:]]) for row in rows)]
    (tmp_path / "landmarks_lps_mm.csv").write_text("\n".join(text))
    one, other, again = (module.write_lung_pair(tmp_path, tmp_path / f"made{k}", seed) for k, seed in enumerate((0, 1, 0)))
    moved, mask = read_scalar(one.moving), read_mask(one.moving_mask)
    assert moved.grid.shape == (40, 46, 36)  # 30 mm more on every side
    assert torch.equal(moved.data, read_scalar(again.moving).data)
    assert not torch.equal(moved.data, read_scalar(other.moving).data)
    assert float((mask.data > 0).sum()) == pytest.approx(float(lung.sum()), rel=0.4)
    fixed, places = (read_points(path, "ras").world for path in (one.fixed_points, one.moving_points))
    assert torch.allclose(fixed, grid.to_world(balls.double()), atol=1e-4)
    assert 5 < float((places - fixed).norm(dim=1).max()) <= 30
    motion = module.further_motion(read_mask(tmp_path / "moving_lung_mask.nii.gz"), moved.grid, np.random.default_rng(0))
    assert float((motion(places) - fixed).norm(dim=1).max()) < 1e-3
    organ = grid.to_world(lung.nonzero().double())
    assert float((motion(organ) - organ).norm(dim=1).max()) == pytest.approx(30)
    assert float(jacobian_determinant(motion.displacement[None]).min()) > 0
    for place in moved.grid.to_voxel(places):
        near = moved.data[0] + 900.0
        around = torch.from_numpy(np.moveaxis(np.indices(moved.grid.shape), 0, -1)).double()
        weight = near.clamp(min=0) * ((around - place).norm(dim=-1) < 5)
        centre = (weight[..., None] * around).sum((0, 1, 2)) / weight.sum()
        assert float((centre - place).norm()) < 0.7  # voxels; a ball that is bent has its middle a little elsewhere
    files = [one.moving, one.moving_mask, one.fixed_points, one.moving_points]
    before = times(files)
    assert module.write_lung_pair(tmp_path, tmp_path / "made0", 0) == one
    assert times(files) == before
