"""The pictures of a report: for each cut the images, outlines, landmarks, the deformed grid and the maps.

Only the voxels of the cuts are pulled through the maps, so the size of a volume hardly matters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from warpwright.geometry import Image
from warpwright.kernels import plainly
from warpwright.product.deformation import drawn_deformation
from warpwright.product.figure import FLOOR, colour_limit, grid_lines, scaled, window
from warpwright.product.report.encode import DIFFERENCE, JACOBIAN, colour, grey, mapped, reduced
from warpwright.product.report.run import Run
from warpwright.product.report.vector import box, circles, crosses, isolines
from warpwright.product.slices import Slice, middle, slices
from warpwright.transforms import Affine, DisplacementField, Transform, resample, split

__all__ = ["Outline", "Plane", "Scales", "beyond", "planes", "scales"]

Layer = Literal["fixed", "before", "moved"]
OTHERS: tuple[Layer, Layer] = ("before", "moved")
LONGEST = {2: 1280, 3: 768}  # pixels of a picture, by the number of axes of the image
GRID = 256  # samples along a line of the deformed grid
SAMPLES = 1_000_000  # voxels from which the range of a scale is taken
NEAR = 2.5  # voxels from a cut within which a landmark is drawn
WORDS = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The border of a label: its number, the index of its colour, the `d` of a path."""

    label: int
    colour: int
    path: str


@dataclass(frozen=True, kw_only=True)
class Scales:
    """What the shades and the lines of the pictures mean.

    Args:
        fixed: intensities of the fixed image that are black and white.
        moving: likewise of the moving image.
        jacobian: largest |log determinant| of the colours.
        difference: the difference of shades, 0 to 1, at the top of its scale.
        labels: those that are drawn, ascending; their order is that of the colours.
        affine: whether the grid that is drawn is that of the affine part, for there is no other.
    """

    fixed: tuple[float, float]
    moving: tuple[float, float]
    jacobian: float
    difference: float
    labels: tuple[int, ...]
    affine: bool


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One cut.

    Args:
        name: "axial", "coronal", "sagittal"; "image" for a 2-D one.
        caption: the name and where the cut lies, for a person.
        seen: which way round it is shown, for a person who does not see it.
        letters: at the left, right, top and bottom; none for a 2-D image.
        width: of the box that the paths are drawn in.
        height: likewise.
        fixed: data URI, as are the others below.
        before: the moving image at its initial position.
        moved: the moving image through the map.
        difference_before: |fixed - before|; None where the two cannot be subtracted.
        difference_after: |fixed - moved|; likewise.
        jacobian: log determinant.
        score: where residuals can be trusted, if known.
        outlines: of the labels in each image.
        points: `d` of the landmarks of each image near the cut; none without landmarks.
        grid: `d` of the deformed grid.
    """

    name: str
    caption: str
    seen: str
    letters: tuple[str, ...]
    width: int
    height: int
    fixed: str
    before: str
    moved: str
    difference_before: str | None
    difference_after: str | None
    jacobian: str
    score: str | None
    outlines: Mapping[Layer, tuple[Outline, ...]]
    points: Mapping[Layer, str]
    grid: str


@dataclass(frozen=True, eq=False, kw_only=True)
class _Cut:
    """The pictures of one cut as numbers, (rows, columns) or (C, rows, columns) each, and the cut itself."""

    cut: Slice
    fixed: np.ndarray
    before: np.ndarray
    moved: np.ndarray
    jacobian: np.ndarray
    score: np.ndarray | None
    colours: Mapping[Layer, np.ndarray]
    labels: Mapping[Layer, np.ndarray]


def scales(run: Run, labels: Collection[int]) -> Scales:
    """The scales that all pictures share, except that of the difference and what the grid is of, which `planes` finds.

    Args:
        run: the registration.
        labels: that are drawn where they lie.
    """
    return Scales(
        fixed=window(_sampled(run.fixed.image)),
        moving=window(_sampled(run.moving.image)),
        jacobian=colour_limit(_sampled(run.jacobian)),
        difference=1.0,
        labels=tuple(sorted(labels)),
        affine=False,
    )


def _sampled(image: Image) -> np.ndarray:
    flat = image.data[0].numpy().ravel()
    return flat[:: max(1, flat.size // SAMPLES)]


def planes(run: Run, shades: Scales, *, subtracted: bool) -> tuple[tuple[Plane, ...], Scales]:
    """The cuts through the middle, or where the labels of the fixed image are.

    Args:
        run: the registration.
        shades: of `scales`.
        subtracted: whether a difference of shades means something: for images of one kind.

    Returns:
        The planes, and the scales with that of the difference (the 99.5th percentile of both, on all cuts) and what the grid
        is of.
    """
    grid = run.fixed.image.grid
    mask = None if run.labels is None else run.labels[0].data[0].numpy() > 0
    displacement, affine = drawn_deformation(run.transform, grid)
    field, parts, outside = displacement.numpy(), split(run.transform, grid), beyond(run.moving.image)
    with plainly():  # a few cuts are done before a kernel is loaded
        cuts = [_read(run, cut, _on_cut(*parts, cut), outside) for cut in slices(grid, middle(grid, mask))]
    pairs = [_differences(cut, shades) for cut in cuts]
    top = max(float(np.percentile(np.concatenate([p.ravel() for pair in pairs for p in pair]), 99.5)), 0.01)
    shades = replace(shades, difference=min(top, 1.0), affine=affine)
    marks = _landmarks(run)
    drawn = (_plane(cut, shades, pair if subtracted else None, field, marks) for cut, pair in zip(cuts, pairs, strict=True))
    return tuple(drawn), shades


def _on_cut(affine: Affine, field: DisplacementField, cut: Slice) -> Transform:
    """The map of the voxels on a cut: the parts of a map, and of the field what is there."""
    slab = _slab(Image(field.displacement, field.grid), cut)
    return affine @ DisplacementField(slab.data, slab.grid)


def _read(run: Run, cut: Slice, transform: Transform, outside: float) -> _Cut:
    """The pictures on a cut; `transform` maps its voxels, beyond the moving image there is `outside`."""
    fixed = _slab(run.fixed.image, cut)

    def pulled(look: Image, through: Transform) -> np.ndarray:
        return _flat(cut, resample(look, through, fixed.grid, background=outside if look is run.moving.image else 0.0))

    def labelled(look: Image, through: Transform) -> np.ndarray:
        return _flat(cut, resample(look, through, fixed.grid, interpolation="label"))[0]

    colours: dict[Layer, np.ndarray] = {}
    if run.fixed.colours is not None and run.moving.colours is not None and run.colours is not None:
        colours["fixed"], colours["moved"] = (_flat(cut, image) for image in (run.fixed.colours, run.colours))
        colours["before"] = pulled(run.moving.colours, run.initial)
    labels: dict[Layer, np.ndarray] = {}
    if run.labels is not None:
        labels["fixed"] = _flat(cut, _slab(run.labels[0], cut))[0]
        labels["before"] = labelled(run.labels[1], run.initial)
        labels["moved"] = labelled(run.labels[1], transform)
    return _Cut(
        cut=cut,
        fixed=_flat(cut, fixed)[0],
        before=pulled(run.moving.image, run.initial)[0],
        moved=pulled(run.moving.image, transform)[0],
        jacobian=_flat(cut, _slab(run.jacobian, cut))[0],
        score=None if run.score is None else _flat(cut, _slab(run.score, cut))[0],
        colours=colours,
        labels=labels,
    )


def beyond(image: Image) -> float:
    """What is seen outside the moving image: 0, or its least value where that is negative (air in CT), as in `moved.nii.gz`."""
    return min(0.0, float(image.data.min()))


def _slab(image: Image, cut: Slice) -> Image:
    """The voxels of an image on a cut, as an image of one voxel across."""
    if cut.axis is None:
        return image
    start = tuple(cut.index if axis == cut.axis else 0 for axis in range(image.grid.dim))
    shape = tuple(1 if axis == cut.axis else n for axis, n in enumerate(image.grid.shape))
    return Image(image.data.narrow(1 + cut.axis, cut.index, 1), image.grid.crop(start, shape), image.name)


def _flat(cut: Slice, slab: Image) -> np.ndarray:
    """(C, rows, columns) of a slab."""
    here = replace(cut, index=0)
    return np.stack([here.cut(channel.numpy()) for channel in slab.data])


def _differences(cut: _Cut, shades: Scales) -> tuple[np.ndarray, np.ndarray]:
    fixed = scaled(cut.fixed, shades.fixed)
    before, after = (abs(scaled(other, shades.moving) - fixed) for other in (cut.before, cut.moved))
    return before, after


def _plane(
    found: _Cut,
    shades: Scales,
    pair: tuple[np.ndarray, np.ndarray] | None,
    field: np.ndarray,
    marks: Mapping[Layer, np.ndarray],
) -> Plane:
    cut = found.cut
    longest = LONGEST[2 if cut.axis is None else 3]
    factor = max(1, -(-max(cut.shape) // longest))
    width, height = box(cut)
    differences = None if pair is None else [mapped(reduced(p / shades.difference, factor), DIFFERENCE) for p in pair]
    number = "" if cut.axis is None else f", slice {cut.index + 1} of {field.shape[1 + cut.axis]}"
    return Plane(
        name=cut.name or "image",
        caption=f"{cut.name or 'image'}{number}".capitalize(),
        seen=_seen(cut),
        letters=cut.letters,
        width=width,
        height=height,
        fixed=_picture(found, "fixed", shades.fixed, factor),
        before=_picture(found, "before", shades.moving, factor),
        moved=_picture(found, "moved", shades.moving, factor),
        difference_before=None if differences is None else differences[0],
        difference_after=None if differences is None else differences[1],
        jacobian=_jacobian(found.jacobian, shades.jacobian, factor),
        score=None if found.score is None else grey(reduced(found.score, factor)),
        outlines={layer: _outlines(cut, labels, shades.labels, longest) for layer, labels in found.labels.items()},
        points=_near(cut, marks),
        grid="".join(isolines(cut, place, levels.tolist(), GRID) for place, levels in grid_lines(cut, field)),
    )


def _seen(cut: Slice) -> str:
    if not cut.letters:
        return ""
    left, _, top, _ = (WORDS[letter] for letter in cut.letters)
    return f"the patient's {left} is at the left, {top} at the top"


def _picture(found: _Cut, layer: Layer, between: tuple[float, float], factor: int) -> str:
    if layer in found.colours:
        return colour([reduced(channel / 255, factor) for channel in found.colours[layer]])
    values = {"fixed": found.fixed, "before": found.before, "moved": found.moved}[layer]
    return grey(reduced(scaled(values, between), factor))


def _jacobian(determinant: np.ndarray, limit: float, factor: int) -> str:
    logarithm = reduced(np.log(np.maximum(determinant, FLOOR)), factor)
    return mapped((logarithm / limit + 1) / 2, JACOBIAN, reduced(determinant <= 0, factor, np.any))


def _outlines(cut: Slice, labels: np.ndarray, known: tuple[int, ...], longest: int) -> tuple[Outline, ...]:
    here = set(np.unique(labels).tolist())
    found = ((n, label, isolines(cut, labels == label, [0.5], longest)) for n, label in enumerate(known) if label in here)
    return tuple(Outline(label=label, colour=n % 8, path=path) for n, label, path in found if path)


def _landmarks(run: Run) -> Mapping[Layer, np.ndarray]:
    """(N, D) landmarks of each image as they lie on the fixed one, voxels."""
    if run.points is None or run.inverse is None:
        return {}
    grid, (fixed, moving) = run.fixed.image.grid, (one.world for one in run.points)
    start = run.initial.inverse()  # of a field this is work for kernels
    with plainly():
        world = {"fixed": fixed, "before": start(moving), "moved": run.inverse(moving)}
    layers: tuple[Layer, ...] = ("fixed", "before", "moved")
    return {layer: grid.to_voxel(world[layer]).numpy() for layer in layers}


def _near(cut: Slice, marks: Mapping[Layer, np.ndarray]) -> Mapping[Layer, str]:
    if not marks:
        return {}
    fixed = marks["fixed"]
    near = np.ones(len(fixed), bool) if cut.axis is None else abs(fixed[:, cut.axis] - cut.index) <= NEAR
    ends = cut.place(fixed[near])
    before, moved = (crosses(cut, cut.place(marks[layer][near]), ends) for layer in OTHERS)
    return {"fixed": circles(cut, ends), "before": before, "moved": moved}
