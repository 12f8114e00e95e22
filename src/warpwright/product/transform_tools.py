"""Compose, invert, convert and inspect transform files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from warpwright.errors import BadInput
from warpwright.evaluation import inverse_consistency
from warpwright.geometry import Grid, Image
from warpwright.io.ants import ants_files, write_ants
from warpwright.io.image import read_image, write_image
from warpwright.io.transform import write_transform
from warpwright.product.choices import Header
from warpwright.product.output import check_file
from warpwright.product.scores import determinant, determinant_figures
from warpwright.product.source import Source, fields_of, load_source, read_named
from warpwright.transforms import Affine, Composite, DisplacementField, Transform, displacement_on, split

__all__ = ["compose_files", "convert_file", "describe_transform", "invert_file", "jacobian_file"]

FIELD = (".nii", ".nii.gz")  # formats that hold one field and nothing else
FLOOR = 1e-6  # a determinant below has its logarithm taken here


def compose_files(
    transforms: Sequence[str | Path],
    output: str | Path,
    *,
    reference: str | Path | None = None,
    force: bool = False,
    header: Header = "strict",
) -> Transform:
    """Write `T1 o T2 o ... o Tn`: the last one acts first, on points of its fixed image.

    Args:
        transforms: files, ANTs prefixes, or folders of registrations.
        output: file; `.nii.gz` holds one field, so the whole map is flattened for it.
        reference: an image (the fixed one of the last transform) on whose grid the map is flattened; default the grid of
            the field that acts first for `.nii.gz`, and no flattening for other formats.
        force: replace an existing output.
        header: which affine of a NIfTI file counts when its two disagree.

    Raises:
        BadInput: a file cannot be read, the numbers of axes differ, or the output exists.
    """
    if len(transforms) < 2:
        raise BadInput(f"compose needs at least two transforms, got {len(transforms)}")
    check_file(output, force=force)
    composed = read_named(transforms[0], header=header)
    for path in transforms[1:]:
        part = read_named(path, header=header)
        if part.dim != composed.dim:
            raise BadInput(f"{path}: has {part.dim} axes, the transforms before it have {composed.dim}")
        composed = composed @ part
    grid = None if reference is None else _image_grid(reference, composed, " o ".join(map(str, transforms)), header)
    _write(output, composed, grid)
    return composed


def invert_file(
    transform: str | Path,
    output: str | Path,
    *,
    reference: str | Path | None = None,
    force: bool = False,
    header: Header = "strict",
) -> dict[str, Any]:
    """Write the map back and tell how well it undoes the map.

    Args:
        transform: file, ANTs prefix, or the folder of a registration.
        output: file to write; `.nii.gz` holds one field, so the whole inverse is flattened for it.
        reference: the moving image, whose points the inverse maps: the inverse becomes one field on its grid. Default: the
            parts are inverted one by one and kept; for `.nii.gz` the moving grid that the folder of a registration knows.
        force: replace an existing output.
        header: which affine of a NIfTI file counts when its two disagree.

    Returns:
        `inverse_consistency`: mean, p95, max of |inverse(transform(x)) - x| in mm, and `max_voxels`, the last in voxels;
        empty for an affine, whose inverse is exact.

    Raises:
        BadInput: the file cannot be read, the output exists, or no grid is known for a `.nii.gz`.
    """
    check_file(output, force=force)
    source = load_source(transform, header=header)
    forward, backward = source.forward, source.forward.inverse()
    target = source.moving_grid if _holds_one_field(output) else None
    if reference is not None:
        target = _image_grid(reference, forward, source.name, header)
    if target is not None and not isinstance(backward, Affine):
        backward = DisplacementField(displacement_on(backward, target), target)
    _write(output, backward, target)
    if isinstance(forward, Affine):
        return {"inverse_consistency": {}}
    grid = _grid(source, None, header)
    errors = inverse_consistency(forward, backward, grid)
    return {"inverse_consistency": errors, "max_voxels": errors["max"] / min(grid.spacing)}


def convert_file(
    transform: str | Path,
    output: str | Path,
    *,
    ants: bool = False,
    reference: str | Path | None = None,
    force: bool = False,
    header: Header = "strict",
) -> tuple[Path, ...]:
    """Write a transform in the format of the output's suffix, or as the files of an ANTs registration.

    Args:
        transform: file, the prefix of an ANTs registration (`PREFIX0GenericAffine.mat` ...), or the folder of a registration.
        output: file; with `ants` a prefix. `.nii.gz` holds one field, so the whole map is flattened for it.
        ants: write an ANTs pair.
        reference: an image on whose grid the map is flattened; default the grid of the field that acts first.
        force: replace existing outputs.
        header: which affine of a NIfTI file counts when its two disagree.

    Returns:
        The files written.

    Raises:
        BadInput: the transform cannot be read, the format cannot hold it, or an output exists.
    """
    for path in ants_files(output) if ants else (output,):
        check_file(path, force=force)
    source = load_source(transform, header=header)
    if ants:
        return write_ants(output, source.forward, _grid(source, reference, header))
    grid = None if reference is None else _image_grid(reference, source.forward, source.name, header)
    _write(output, source.forward, grid or (source.fixed_grid if _holds_one_field(output) else None))
    return (Path(output),)


def jacobian_file(
    transform: str | Path,
    output: str | Path,
    *,
    log: bool = False,
    reference: str | Path | None = None,
    force: bool = False,
    header: Header = "strict",
) -> dict[str, float]:
    """Write the determinant of the full map in mm, or its natural logarithm (of 1e-6 where it folds).

    Returns:
        `folded_percent`, `min_determinant` and `sd_log_jacobian`.

    Raises:
        BadInput: the transform cannot be read, its grid is not known, or the output exists.
    """
    check_file(output, force=force)
    source = load_source(transform, header=header)
    image = determinant(source.forward, _grid(source, reference, header))
    values = image.data.clamp_min(FLOOR).log() if log else image.data
    write_image(output, Image(values, image.grid, "jacobian"))
    return determinant_figures(image)


def describe_transform(path: str | Path, *, header: Header = "strict") -> dict[str, Any]:
    """What a transform file holds, part by part (the last part acts first), in plain values."""
    given = read_named(path, header=header)
    parts = given.parts if isinstance(given, Composite) else (given,)
    return {"file": str(path), "kind": "transform", "axes": given.dim, "parts": [_describe_part(part) for part in parts]}


def _describe_part(part: Transform) -> dict[str, Any]:
    if isinstance(part, Affine):
        linear = part.matrix[:-1, :-1]
        return {"type": "affine", "matrix_ras": part.matrix.tolist(), "determinant": float(np.linalg.det(linear))}
    grid = fields_of(part)[0].grid
    out: dict[str, Any] = {"type": type(part).__name__, "shape": list(grid.shape), "spacing_mm": list(grid.spacing)}
    if isinstance(part, DisplacementField):
        lengths = torch.einsum("ij,j...->i...", torch.tensor(grid.affine[:-1, :-1]).float(), part.displacement.float()).norm(
            dim=0
        )
        out["displacement_mm"] = {"mean": float(lengths.mean()), "max": float(lengths.max())}
        out |= determinant_figures(determinant(part, grid))
    return out


def _grid(source: Source, reference: str | Path | None, header: Header) -> Grid:
    """Where a map is sampled: the reference's grid, or the fixed one, or that of the field that acts first."""
    if reference is not None:
        return _image_grid(reference, source.forward, source.name, header)
    fields = fields_of(source.forward)
    grid = source.fixed_grid or (fields[-1].grid if fields else None)
    if grid is None:
        raise BadInput(f"{source.name}: is an affine and brings no grid along, expected an image with --reference")
    return grid


def _image_grid(reference: str | Path, transform: Transform, name: str, header: Header) -> Grid:
    grid = read_image(reference, header=header).grid
    if grid.dim != transform.dim:
        raise BadInput(f"{reference}: has {grid.dim} axes, expected the {transform.dim} of the transform {name}")
    return grid


def _holds_one_field(output: str | Path) -> bool:
    return Path(output).name.lower().endswith(FIELD)


def _write(output: str | Path, transform: Transform, grid: Grid | None) -> None:
    """Write a transform; with a grid its field lies there (an affine stays one, where the format can hold it)."""
    if grid is not None and not _holds_one_field(output) and not isinstance(transform, Affine):
        affine, field = split(transform, grid)
        transform = affine @ field
    write_transform(output, transform, grid)
