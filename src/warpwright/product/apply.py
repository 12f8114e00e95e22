"""Apply a transform to an image, to labels or to points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from warpwright.errors import BadInput
from warpwright.evaluation import vanished_labels
from warpwright.geometry import Grid, Image
from warpwright.io.image import read_image, read_labels, write_image
from warpwright.io.points import Points, read_points, write_points
from warpwright.io.transform import own_grid
from warpwright.product.choices import Header, Side, Space
from warpwright.product.inputs import ImageLike, outside_note
from warpwright.product.output import check_file
from warpwright.product.source import Source, load_source
from warpwright.transforms import Transform, resample

__all__ = ["Applied", "apply_to_image", "apply_to_labels", "apply_to_points", "outside_sentence"]


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What was written, and what a person should know about it."""

    output: Path
    warnings: tuple[str, ...] = ()


def apply_to_image(
    transform: str | Path,
    image: ImageLike,
    output: str | Path,
    *,
    inverse: bool = False,
    reference: ImageLike | None = None,
    force: bool = False,
    header: Header = "strict",
    series: str | None = None,
) -> Applied:
    """Pull an image, of any number of channels, onto the reference grid: linear, float32.

    Outside the image a voxel becomes 0, or the image's least value where that is negative (air in CT).

    Args:
        transform: a transform file, or the folder of a registration.
        image: the moving image, see `ImageLike`; the fixed one with `inverse`.
        output: image file to write.
        inverse: pull the fixed image onto the moving one instead.
        reference: an image whose grid the result gets; default the grid that the transform brings along.
        force: replace an existing output.
        header: which affine of a NIfTI file counts when its two disagree.
        series: which series of a DICOM folder that holds several, of the image or of the reference.

    Raises:
        BadInput: something cannot be read, the grid is not known, or the output exists.
    """
    check_file(output, force=force)
    source = load_source(transform, header=header)
    moving = read_image(image, header=header, series=series)
    grid = _target(source, moving, inverse, reference, header, series)
    background = min(0.0, float(moving.data.min()))
    moved = resample(moving, source.directed(inverse=inverse), grid, background=background)
    write_image(output, moved)
    return Applied(output=Path(output), warnings=(*moving.notes, *_unmoved(moved, background)))


def apply_to_labels(
    transform: str | Path,
    labels: ImageLike,
    output: str | Path,
    *,
    inverse: bool = False,
    reference: ImageLike | None = None,
    force: bool = False,
    header: Header = "strict",
    series: str | None = None,
) -> Applied:
    """Pull a label map onto the reference grid: each voxel the label with the largest share; see `apply_to_image`.

    A label that does not survive is a warning.
    """
    check_file(output, force=force)
    source = load_source(transform, header=header)
    moving = read_labels(labels, header=header, series=series)
    grid = _target(source, moving, inverse, reference, header, series)
    moved = resample(moving, source.directed(inverse=inverse), grid, interpolation="label")
    write_image(output, moved)
    gone = vanished_labels(moving.data, moved.data)
    names = ", ".join(str(label) for label in gone)
    lost = (f"{moving.name}: labels that vanish when moved: {names}",) if gone else ()
    return Applied(output=Path(output), warnings=(*moving.notes, *lost))


def apply_to_points(
    transform: str | Path,
    points: str | Path,
    output: str | Path,
    *,
    from_image: Side,
    space: Space | None = None,
    reference: ImageLike | None = None,
    force: bool = False,
    header: Header = "strict",
    series: str | None = None,
) -> Applied:
    """Carry points of one image to the other; the direction of the map is chosen from where they are.

    Args:
        transform: a transform file, or the folder of a registration.
        points: `.csv` with a header x,y,z (needs `space`) or Slicer `.mrk.json`.
        output: points file to write, in the same space.
        from_image: the image that the points are in.
        space: frame of the coordinates of a `.csv`; "voxel" needs the grids of both images, which the folder of a
            registration knows.
        reference: with "voxel", the image that the points are in, if the transform does not bring its grid along.
        force: replace an existing output.
        header: which affine of a NIfTI file counts when its two disagree.
        series: which series of a DICOM folder that holds several, as the reference.

    Raises:
        BadInput: something cannot be read, a grid is not known, or the output exists.
    """
    check_file(output, force=force)
    source = load_source(transform, header=header)
    grids = {"fixed": source.fixed_grid, "moving": source.moving_grid}
    if reference is not None:
        grids[from_image] = _like(reference, source, header, series)
    other = "moving" if from_image == "fixed" else "fixed"
    missing = [side for side in (from_image, other) if grids[side] is None]
    if space == "voxel" and missing:
        raise BadInput(
            f"{source.name}: does not tell where the {missing[0]} image is, so points in voxels cannot be carried;"
            " expected points in ras or lps, or the folder of a registration"
        )
    read = read_points(points, space=space, grid=grids[from_image])
    through = source.directed(inverse=from_image == "moving")
    if read.world.shape[1] != through.dim:
        raise BadInput(f"{points}: has points of {read.world.shape[1]} axes, the transform {source.name} has {through.dim}")
    write_points(output, Points(through(read.world), read.names), space=space, grid=grids[other])
    return Applied(output=Path(output), warnings=outside_sentence(str(points), read, through, grids[from_image]))


def _target(
    source: Source, moving: Image, inverse: bool, reference: ImageLike | None, header: Header, series: str | None
) -> Grid:
    if source.forward.dim != moving.grid.dim:
        raise BadInput(f"{moving.name}: has {moving.grid.dim} axes, the transform {source.name} has {source.forward.dim}")
    if reference is not None:
        return _like(reference, source, header, series)
    grid = source.moving_grid if inverse else source.fixed_grid
    if grid is None:
        raise BadInput(f"{source.name}: does not tell on which grid the result belongs, expected an image with --reference")
    return grid


def _like(reference: ImageLike, source: Source, header: Header, series: str | None) -> Grid:
    """The grid of a reference, of the transform's number of axes."""
    image = read_image(reference, header=header, series=series, name="reference")
    if image.grid.dim != source.forward.dim:
        raise BadInput(f"{image.name}: has {image.grid.dim} axes, the transform {source.name} has {source.forward.dim}")
    return image.grid


def _unmoved(moved: Image, background: float) -> tuple[str, ...]:
    if bool((moved.data == background).all()):
        return (f"{moved.name}: no voxel of the reference grid looks into this image, the result is empty",)
    return ()


def outside_sentence(name: str, points: Points, through: Transform, grid: Grid | None) -> tuple[str, ...]:
    """A sentence if points lie outside their image, or, where its grid is not known, outside the field that moves them first.

    Args:
        name: what the sentence calls the points.
        points: in the world.
        through: the map that they go through.
        grid: of their image, if known.
    """
    known = grid if grid is not None else own_grid(through)
    return () if known is None else outside_note(name, points, known)
