"""Means of images and of shapes; nothing here reads a file.

The shape of an image, seen from the template, is the map that registration found without its pose: without the rotation and
shift that fit it best, which say how somebody lay and not how he is made. A template is in the middle of the shapes when their
mean is the identity; carrying it along the inverse of their mean brings it there (Guimond et al., CVIU 77 (2000),
doi 10.1006/cviu.1999.0815; Avants et al., NeuroImage 49 (2010), doi 10.1016/j.neuroimage.2009.09.062, who average displacements
with their affine part likewise and take a quarter of the step).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from warpwright.geometry import Grid, Image, identity_points, world_gradient
from warpwright.sampling import Percentiles, gaussian
from warpwright.transforms import Affine, DisplacementField, Transform, displacement_on, invert, resample, working_grid

__all__ = [
    "centre_of_mass",
    "common_grid",
    "inverse_of",
    "mean_image",
    "mean_shape",
    "normalised",
    "sharpened",
    "sharpness",
    "shift",
    "without_pose",
]

SLAB = 1 << 20  # voxels worked on at a time
COVERED = 0.5  # share of the images that a voxel must lie in
SIGMA = 1.0  # voxels, of the blur that sharpening takes away from


def normalised(image: Image) -> Image:
    """Intensities brought to [0, 1] by their percentiles, so that no image counts for more than another."""
    return Image(Percentiles()(image.data), image.grid, image.name)


def centre_of_mass(image: Image) -> np.ndarray:
    """Of an image with intensities >= 0, (D,) world mm; that of the grid if all are 0."""
    mass = image.data[0].to(torch.float64)
    total = float(mass.sum())
    if not total:
        return image.grid.centre
    axes = range(mass.ndim)
    lines = [mass.sum([a for a in axes if a != axis]) for axis in axes]
    voxel = [float((line * torch.arange(len(line), dtype=torch.float64)).sum()) / total for line in lines]
    return image.grid.to_world(torch.tensor([voxel], dtype=torch.float64))[0].numpy()


def common_grid(grids: Sequence[Grid], centres: Sequence[np.ndarray], spacing: float | None = None) -> Grid:
    """A grid along the world's axes that holds every image when their centres of mass lie on one place, their mean.

    Args:
        grids: of the images.
        centres: of mass, world mm.
        spacing: mm; by default along each axis the median over the images.
    """
    turned = [working_grid(grid) for grid in grids]
    steps = np.median([grid.spacing for grid in turned], axis=0) if spacing is None else np.full(grids[0].dim, spacing)
    reach = np.max([_reach(grid, centre) for grid, centre in zip(grids, centres, strict=True)], axis=0)
    shape = tuple(int(n) for n in np.ceil(2 * reach / steps))
    affine = np.diag([*steps, 1.0])
    affine[:-1, -1] = np.mean(centres, axis=0) - steps * (np.asarray(shape) - 1) / 2
    return Grid(shape, affine)


def _reach(grid: Grid, centre: np.ndarray) -> np.ndarray:
    """How far the corners of a grid are from a world point along each world axis, at most, mm."""
    ends = torch.tensor([[-0.5, n - 0.5] for n in grid.shape], dtype=torch.float64)
    corners = torch.cartesian_prod(*ends)
    return np.abs(grid.to_world(corners).numpy() - centre).max(0)


def shift(fixed: np.ndarray, moving: np.ndarray) -> Affine:
    """The map that carries one world point to another."""
    matrix = np.eye(len(fixed) + 1)
    matrix[:-1, -1] = moving - fixed
    return Affine(matrix)


def mean_image(pulled: Iterable[tuple[Image, Transform]], grid: Grid) -> tuple[Tensor, Tensor]:
    """Mean over the images that a voxel lies in, and whether it lies in half of them or more; elsewhere the mean is 0.

    Args:
        pulled: images, and maps of world points of `grid` to world points of each. Read one at a time.
        grid: where the mean lives.

    Returns:
        (1, *S) float32, and (1, *S) bool.
    """
    total, cover = (torch.zeros(1, *grid.shape, dtype=torch.float64) for _ in range(2))
    count = 0
    for image, transform in pulled:
        ones = Image(torch.ones_like(image.data), image.grid, image.name)
        total += resample(image, transform, grid).data
        cover += resample(ones, transform, grid).data
        count += 1
    known = cover >= COVERED * count
    return torch.where(known, total / cover.clamp_min(COVERED), 0).to(torch.float32), known


def mean_shape(transforms: Iterable[Transform], grid: Grid, weight: Tensor) -> Tensor:
    """Mean of maps without their poses, (D, *S) float32: a displacement in voxels of `grid`.

    Args:
        transforms: world points of `grid` to world points of each image. At least one; read one at a time.
        grid: of the template.
        weight: as of `without_pose`.
    """
    total, count = torch.zeros(grid.dim, *grid.shape, dtype=torch.float64), 0
    for transform in transforms:
        total += without_pose(displacement_on(transform, grid), grid, weight)
        count += 1
    return (total / count).to(torch.float32)


def without_pose(displacement: Tensor, grid: Grid, weight: Tensor) -> Tensor:
    """A map followed by the inverse of the rotation and shift nearest to it, in mm (Kabsch, Acta Cryst. A32 (1976)).

    Args:
        displacement: (D, *S), voxels of `grid`.
        grid: where it lives.
        weight: (1, *S) >= 0, how much each voxel counts for the pose: a template, so that its empty ground does not. If it is 0
            everywhere, all voxels count alike.

    Returns:
        (D, *S) float32, voxels of `grid`.
    """
    flat, counted = displacement.flatten(1), weight.flatten()
    counted = counted if bool(counted.any()) else torch.ones_like(counted)
    start = identity_points(grid.shape, dtype=torch.float32, device=displacement.device)[0].flatten(1)
    turn, here, there = _pose(start, flat, counted, grid)
    out = torch.empty_like(flat)
    for part in _slabs(flat):
        voxels = start[:, part].T.to(torch.float64)
        back = (grid.to_world(voxels + flat[:, part].T) - there) @ turn + here
        out[:, part] = (grid.to_voxel(back) - voxels).T.to(out)
    return out.reshape(displacement.shape)


def _pose(start: Tensor, flat: Tensor, weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """The rotation R (D, D) and the points a, b (D,) for which `R (x - a) + b` is nearest to a map; all voxels count.

    Args:
        start: (D, N) voxels.
        flat: (D, N) their displacements.
        weight: (N,).
        grid: which voxels.
    """
    middle = torch.tensor([[(n - 1) / 2] for n in grid.shape], dtype=torch.float64)
    mass = torch.zeros((), dtype=torch.float64)
    first, second = (torch.zeros(grid.dim, dtype=torch.float64) for _ in range(2))
    both = torch.zeros(grid.dim, grid.dim, dtype=torch.float64)
    for part in _slabs(flat):
        here, share = start[:, part].to(torch.float64) - middle, weight[part].to(torch.float64)
        there = here + flat[:, part]
        mass, first, second = mass + share.sum(), first + here @ share, second + there @ share
        both = both + (here * share) @ there.T
    covariance = both - torch.outer(first, second) / mass
    matrix = torch.tensor(grid.affine[:-1, :-1])
    left, _, right = torch.linalg.svd(matrix @ covariance @ matrix.T)
    signs = torch.ones(grid.dim, dtype=torch.float64)
    signs[-1] = torch.sign(torch.linalg.det(left @ right))  # no mirror image
    here, there = grid.to_world(torch.stack([middle[:, 0] + one / mass for one in (first, second)]))
    return (left @ torch.diag(signs) @ right).T, here, there


def _slabs(flat: Tensor) -> Iterator[slice]:
    return (slice(begin, begin + SLAB) for begin in range(0, flat.shape[1], SLAB))


def inverse_of(shape: Tensor, grid: Grid) -> DisplacementField:
    """The inverse of a mean shape, world points of the next template to world points of this one.

    Args:
        shape: (D, *S), voxels of `grid`.
        grid: where it lives.
    """
    return DisplacementField(invert(shape[None])[0][0], grid)


def sharpened(mean: Tensor, amount: float) -> Tensor:
    """A mean with `amount` times what a blur of one voxel takes from it added, within [0, 1]; (1, *S)."""
    blurred = gaussian(mean[None], [SIGMA] * (mean.ndim - 1))[0]
    return (mean + amount * (mean - blurred)).clamp(0, 1)


def sharpness(image: Tensor, grid: Grid) -> float:
    """Root of the mean squared slope of an image (1, *S), per mm."""
    return float(world_gradient(image[None], grid).square().sum(2).mean().sqrt())
